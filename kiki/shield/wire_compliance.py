"""The compliance report and the register of breaches on SyncShield's wire. Pure.

| route | request | answer |
|---|---|---|
| `GET /v1/compliance/report` | ?period=, or ?from=&to= | 200 `ComplianceReport` |
| `POST /v1/breaches` | reference, found_at?, notified_at?, affected? | 201 breach |

The original's `/compliance/report?period=` answers the same object, whatever the method.
"""

from __future__ import annotations

from typing import Final

import msgspec

from kiki.clock import to_iso
from kiki.errors import InvalidInput
from kiki.members import Query, read_members, read_query, text_or_none
from kiki.shield.breach import NOTICE_SPAN, breach_change
from kiki.shield.change import Change
from kiki.shield.compliance_report import Period, period_between, period_of
from kiki.shield.decision import event_id
from kiki.shield.fact import BreachDeclared
from kiki.shield.wire_moment import micros_or_none

PERIOD_DEFAULT: Final = "monthly"
REPORT_MEMBERS: Final = ("period", "from", "to")
BREACH_MEMBERS: Final = ("reference", "found_at", "notified_at", "affected")


def report_query(query: Query, now: int) -> Period:
    """The period that a report is wanted of, by its name or by its moments."""
    return _period(read_query(query, REPORT_MEMBERS)[0], now)


def report_body(body: object, now: int) -> Period:
    """The same from a body."""
    found = read_members(body, REPORT_MEMBERS)
    return _period({name: text_or_none(found, name) or "" for name in found}, now)


def _period(found: dict[str, str], now: int) -> Period:
    since, until = micros_or_none(found.get("from")), micros_or_none(found.get("to"))
    if since is None and until is None:
        return period_of(found.get("period", PERIOD_DEFAULT), now)
    if "period" in found:
        raise InvalidInput("give either 'period', or 'from' (and 'to')")
    if since is None:
        raise InvalidInput("'to' needs 'from': when does the period begin?")
    return period_between(since, now if until is None else until)


def breach_body(body: object, *, actor: str, network: str) -> Change:
    """The declaration of a breach."""
    found = read_members(body, BREACH_MEMBERS, ("reference",))
    if "affected" in found and found["affected"] is None:
        raise InvalidInput("'affected' is a number, not null; leave it out if not known")
    affected = found.get("affected")
    if isinstance(affected, float) and affected.is_integer():
        affected = int(affected)  # 270.0 is a whole number in JSON
    return breach_change(
        found["reference"],
        found_at=micros_or_none(text_or_none(found, "found_at")),
        notified_at=micros_or_none(text_or_none(found, "notified_at")),
        affected=affected,
        actor=actor,
        network=network,
    )


class BreachReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A breach as it was written down."""

    event_id: str
    reference: str
    declared_at: str
    found_at: str
    authority_due_at: str
    notified_at: str | None = None
    affected: int | None = None


def breach_reply(fact: BreachDeclared, seq: int) -> BreachReply:
    """A breach as the wire shows it."""
    return BreachReply(
        event_id=event_id(seq),
        reference=fact.reference,
        declared_at=to_iso(fact.at),
        found_at=to_iso(fact.found_at),
        authority_due_at=to_iso(fact.found_at + NOTICE_SPAN),
        notified_at=None if fact.notified_at is None else to_iso(fact.notified_at),
        affected=fact.affected,
    )
