"""Consent as rows of a CSV file (RFC 4180): which columns there are, and what stands in them. Pure.

A field that a spreadsheet would take for a formula gets a `'` in front when it is written, and loses it when it
is read: what is written is read again as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from kiki.clock import to_iso
from kiki.errors import InvalidInput
from kiki.shield.consent import State
from kiki.shield.consent_change import Given, Said, said
from kiki.shield.consent_record import ConsentDetails, ConsentRecord
from kiki.shield.consent_words import parse_state
from kiki.shield.wire_moment import moment_micros

COLUMNS: Final = (
    "customer_id",
    "purpose",
    "state",
    "said_at",
    "expires_at",
    "legal_basis",
    "version",
    "method",
    "jurisdiction",
    "notice_sha256",
    "guardian",
    "ip_address",
    "user_agent",
    "note",
    "overrides",
    "opt_out_signal",
)
REQUIRED: Final = COLUMNS[:3]
ALIASES: Final = {"consent_type": "purpose", "type": "purpose", "status": "state"}
"""What the system before this one called a column."""

_FORMULA: Final = frozenset("=+-@\t\r'")
_YES: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False, "": False}


def parse_header(fields: Sequence[str]) -> list[str]:
    """The names of a file's columns, in its order; raises `InvalidInput` for anything not understood."""
    names = [ALIASES.get(field.strip().lower(), field.strip().lower()) for field in fields]
    unknown = [field for field, name in zip(fields, names, strict=True) if name not in COLUMNS]
    missing = [name for name in REQUIRED if name not in names]
    if unknown or missing or len(set(names)) < len(names):
        problem = (
            f"the column {unknown[0][:40]!r} is not known"
            if unknown
            else f"the column {missing[0]!r} is missing"
            if missing
            else "a column stands twice"
        )
        raise InvalidInput(f"line 1: {problem}: write any of {', '.join(COLUMNS)}; the first three must be there")
    return names


def said_of_row(row: Mapping[str, str], now: int, purposes: Collection[str], actor: str = "") -> Said:
    """What a row says, as an import; raises `InvalidInput` for the first thing wrong in it."""
    fields = {name: unguarded(text) for name, text in row.items()}
    given: Given = {"imported": True, "actor": actor}
    if fields.get("said_at"):
        given["said_at"] = parse_when(fields["said_at"])
    if fields.get("expires_at"):
        given["expires_at"] = parse_when(fields["expires_at"])
    if fields.get("legal_basis"):
        given["basis"] = fields["legal_basis"]
    if fields.get("version"):
        given["version"] = fields["version"]
    if fields.get("method"):
        given["method"] = fields["method"].lower()
    if fields.get("jurisdiction"):
        given["jurisdiction"] = fields["jurisdiction"]
    if fields.get("notice_sha256"):
        given["notice_sha256"] = fields["notice_sha256"]
    if fields.get("guardian"):
        given["guardian"] = fields["guardian"]
    if fields.get("ip_address"):
        given["ip_address"] = fields["ip_address"]
    if fields.get("user_agent"):
        given["user_agent"] = fields["user_agent"]
    if fields.get("note"):
        given["note"] = fields["note"]
    if fields.get("overrides"):
        given["overrides"] = _yes_or_no("overrides", fields["overrides"])
    if fields.get("opt_out_signal"):
        given["signal"] = _yes_or_no("opt_out_signal", fields["opt_out_signal"])
    return said(fields["customer_id"], fields["purpose"].lower(), parse_state(fields["state"]), now, purposes, **given)


def row_of(record: ConsentRecord) -> list[str]:
    """A record's fields in the order of `COLUMNS`."""
    details = record.details or ConsentDetails()
    fields = (
        record.customer,
        record.purpose,
        # That a consent has run out is told by its expiry.
        (State.GRANTED if record.state is State.EXPIRED else record.state).value,
        _iso(record.said_at),
        _iso(record.expires_at),
        record.basis,
        record.version,
        record.method,
        record.jurisdiction,
        record.notice,
        details.guardian,
        details.ip,
        details.agent,
        details.note,
        "yes" if record.overrides else "",
        "yes" if record.signal else "",
    )
    return [guarded(field) for field in fields]


def parse_when(text: str) -> int:
    """A moment as RFC 3339, or a day as its midnight in UTC; microseconds since the epoch. Raises `InvalidInput`."""
    return moment_micros(f"{text}T00:00:00Z" if len(text) == 10 else text)


def _iso(moment: int | None) -> str:
    return "" if moment is None else to_iso(moment)


def _yes_or_no(name: str, text: str) -> bool:
    answer = _YES.get(text.lower())
    if answer is None:
        raise InvalidInput(f"{name} is {text[:20]!r}: write yes or no")
    return answer


def guarded(text: str) -> str:
    """The text as a spreadsheet takes it for text."""
    return f"'{text}" if text[:1] in _FORMULA and text else text


def unguarded(text: str) -> str:
    """The text that was guarded."""
    return text[1:] if text[:1] == "'" and text[1:2] in _FORMULA and len(text) > 1 else text
