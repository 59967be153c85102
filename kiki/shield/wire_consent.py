"""Consent on SyncShield's wire: what callers send and what they are told, there and back. Pure.

| route | request | answer |
|---|---|---|
| `POST /v1/consents` | customer_id, purpose, state, and what goes with it; or customer_id, gpc | 200 `{"consents": [record]}` |
| `GET /v1/consents` | ?after=&limit=&purpose=&state= | 200 `{"consents": [record], "next": text or null}` |
| `GET /v1/consents/{customer_id}` | | 200 `{"customer_id", "consents": [record]}` |
| `GET /v1/consents/{customer_id}/history` | ?purpose= | the same, everything that was ever said, oldest first |
| `POST /v1/consents:check` | checks (of customer_id, purpose), holder? | 200 `{"answers": [answer]}` |
| `POST /v1/consents:confirm` | holder, confirmed (of customer_id, purpose, lease) | 200 `{"recalls": [recall]}` |

    record   customer_id purpose state in_force; where they say something also event_id basis version method jurisdiction
             notice_sha256 guardian overrides opt_out_signal network at said_at granted_at expires_at revoked_at, and of
             what is sealed ip_address user_agent note notice_text guardian_name
    answer   customer_id purpose allowed event_id? lease_seconds lease?
    recall   customer_id purpose lease

An answer may be acted on for `lease_seconds`, counted from before it was asked for; without a `holder`, at once only. A
`lease` is opaque text: whoever is asked for it in `recalls` stops acting on that answer and sends it back as confirmed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from kiki.clock import SECOND
from kiki.errors import InvalidInput
from kiki.members import (
    Query,
    flag_of,
    kind_of,
    limit_of,
    list_of,
    quoted,
    read_members,
    read_query,
    text_of,
)
from kiki.shield.consent import LEASE_HELD, State
from kiki.shield.consent_change import Given
from kiki.shield.consent_record import ConsentRecord
from kiki.shield.consent_words import parse_customer_id, parse_state
from kiki.shield.decision import event_id
from kiki.shield.enforcer import Leased
from kiki.shield.fact import ConsentUsed
from kiki.shield.wire_moment import moment_micros

TEXT_MEMBERS: Final = (
    *("version", "method", "notice", "notice_sha256", "jurisdiction", "guardian"),
    *("ip_address", "user_agent", "note"),
)
STATEMENT_MEMBERS: Final = (
    *("customer_id", "purpose", "state", "basis", "expires_at", "said_at", "overrides"),
    *TEXT_MEMBERS,
)
SIGNAL_MEMBERS: Final = ("customer_id", "gpc", "jurisdiction", "ip_address", "user_agent", "note")
CHECK_MEMBERS: Final = ("checks", "holder")
CHECK_ITEM_MEMBERS: Final = ("customer_id", "purpose")
CONFIRM_MEMBERS: Final = ("holder", "confirmed")
CONFIRM_ITEM_MEMBERS: Final = ("customer_id", "purpose", "lease")
CHECKS_MAX: Final = 1000
RECORDS_LIMIT: Final = 100
RECORDS_LIMIT_MAX: Final = 1000
HOLDER_LENGTH_MAX: Final = 62
"""So that a holder fits beside the name of the token that asks for it."""

_LEASE_BITS: Final = 64
_LEASE_DIGITS_MAX: Final = 40
_KEY_DIGITS_MAX: Final = 2 * (16 + 32)


class Asked(NamedTuple):
    """What somebody wants written down about one customer and purpose."""

    customer: str
    purpose: str
    state: State
    given: Given


class Signalled(NamedTuple):
    """An opt-out signal of one customer, passed on."""

    customer: str
    given: Given


class RecordsQuery(NamedTuple):
    """Which states of consent somebody wants to see."""

    after: bytes
    limit: int
    purpose: str | None
    state: str | None


class Checks(NamedTuple):
    """Whose consent somebody asks for, and in whose name the answers are held; None: they are not."""

    pairs: list[tuple[str, str]]
    holder: str | None


class Confirmed(NamedTuple):
    """An answer that its holder acts on no more."""

    customer: str
    purpose: str
    lease: int


# -- what is asked, under /v1 ------------------------------------------------------------------------


def consent_body(body: object) -> Asked | Signalled:
    """What one customer says, or the opt-out signal that a browser sent."""
    if isinstance(body, dict) and "gpc" in body:
        found = read_members(body, SIGNAL_MEMBERS, ("customer_id", "gpc"))
        if found["gpc"] != "1":
            raise InvalidInput("'gpc' is the value of a Sec-GPC header, and only \"1\" is a signal")
        return Signalled(parse_customer_id(found["customer_id"]), _given(found))
    found = read_members(body, STATEMENT_MEMBERS, ("customer_id", "purpose", "state"))
    given = _given(found)
    if "basis" in found:
        given["basis"] = text_of(found, "basis")
    given["overrides"] = flag_of(found, "overrides")
    for name in ("expires_at", "said_at"):
        if name in found:
            given[name] = moment_micros(text_of(found, name))
    return Asked(parse_customer_id(found["customer_id"]), text_of(found, "purpose"), parse_state(found["state"]), given)


def _given(found: dict[str, Any]) -> Given:
    given = Given()
    for name in TEXT_MEMBERS:
        if name in found:
            given[name] = text_of(found, name)
    if "ip_address" in given:
        _require_address(given["ip_address"])
    return given


def _require_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise InvalidInput(
            f"'ip_address' {quoted(text)} is no network address: write 203.0.113.7 or 2001:db8::7"
        ) from None


def records_query(query: Query, purposes: Sequence[str]) -> RecordsQuery:
    """The query of `GET /v1/consents`."""
    single, _ = read_query(query, ("after", "limit", "purpose", "state"))
    purpose, state = single.get("purpose"), single.get("state")
    if purpose is not None and purpose not in purposes:
        raise InvalidInput(f"{quoted(purpose)} is not a purpose: write one of {', '.join(purposes)}")
    if state is not None and state not in set(State) - {State.NONE}:
        known = ", ".join(each for each in State if each is not State.NONE)
        raise InvalidInput(f"{quoted(state)} is not a state: write one of {known}")
    limit = limit_of(single, default=RECORDS_LIMIT, most=RECORDS_LIMIT_MAX)
    after = _hex(single["after"], "after", _KEY_DIGITS_MAX) if "after" in single else b""
    return RecordsQuery(after, limit, purpose, state)


def history_query(query: Query, purposes: Sequence[str]) -> str | None:
    """The purpose whose history is wanted, None for all."""
    purpose = read_query(query, ("purpose",))[0].get("purpose")
    if purpose is not None and purpose not in purposes:
        raise InvalidInput(f"{quoted(purpose)} is not a purpose: write one of {', '.join(purposes)}")
    return purpose


def check_body(body: object) -> Checks:
    """Whose consent is asked for."""
    found = read_members(body, CHECK_MEMBERS, ("checks",))
    pairs: list[tuple[str, str]] = []
    for index, item in enumerate(list_of(found, "checks", CHECKS_MAX)):
        try:
            own = read_members(item, CHECK_ITEM_MEMBERS, CHECK_ITEM_MEMBERS)
            pairs.append((parse_customer_id(own["customer_id"]), text_of(own, "purpose")))
        except InvalidInput as error:
            raise InvalidInput(f"item {index}: {error}") from None
    return Checks(pairs, _holder(found) if "holder" in found else None)


def confirm_body(body: object) -> tuple[str, list[Confirmed]]:
    """Who acts on which answers no more."""
    found = read_members(body, CONFIRM_MEMBERS, ("holder",))
    confirmed: list[Confirmed] = []
    for index, item in enumerate(list_of(found, "confirmed", CHECKS_MAX) if "confirmed" in found else ()):
        try:
            own = read_members(item, CONFIRM_ITEM_MEMBERS, CONFIRM_ITEM_MEMBERS)
            lease = int.from_bytes(_hex(text_of(own, "lease"), "lease", _LEASE_DIGITS_MAX), "big")
            confirmed.append(Confirmed(parse_customer_id(own["customer_id"]), text_of(own, "purpose"), lease))
        except InvalidInput as error:
            raise InvalidInput(f"item {index}: {error}") from None
    return _holder(found), confirmed


def _holder(found: dict[str, Any]) -> str:
    holder = found["holder"]
    if isinstance(holder, str) and 1 <= len(holder) <= HOLDER_LENGTH_MAX and holder.isprintable():
        return holder
    what = "too long or not printable" if isinstance(holder, str) else kind_of(holder)
    raise InvalidInput(
        f"'holder' names one process that acts on answers, in 1 to {HOLDER_LENGTH_MAX} printable characters, not {what}"
    )


def _hex(text: str, name: str, digits_max: int) -> bytes:
    try:
        if 0 < len(text) <= digits_max and text == text.lower() and text.isalnum():
            return bytes.fromhex(text)
    except ValueError:
        pass
    raise InvalidInput(f"{name!r} is not one that came from here: send back what was answered, unchanged")


# -- leases ------------------------------------------------------------------------------------------


def write_lease(epoch: int, end: int) -> str:
    """A lease as opaque text: it tells a grantor that started anew that this end was counted by another clock."""
    number = epoch << _LEASE_BITS | end
    return number.to_bytes((number.bit_length() + 7) // 8 or 1, "big").hex()


def end_of(lease: int, epoch: int) -> int | None:
    """The end of a lease as this grantor counts, None when another granted it."""
    return lease & ((1 << _LEASE_BITS) - 1) if lease >> _LEASE_BITS == epoch else None


# -- what is answered --------------------------------------------------------------------------------


class ConsentReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `ConsentRecord.as_dict` says, as a client reads it."""

    customer_id: str
    purpose: str
    state: str
    in_force: bool | msgspec.UnsetType = msgspec.UNSET
    event_id: str = ""
    basis: str = ""
    version: str = ""
    method: str = ""
    jurisdiction: str = ""
    notice_sha256: str = ""
    guardian: bool = False
    overrides: bool = False
    opt_out_signal: bool = False
    network: str = ""
    at: str = ""
    said_at: str = ""
    granted_at: str = ""
    expires_at: str = ""
    revoked_at: str = ""
    ip_address: str = ""
    user_agent: str = ""
    note: str = ""
    notice_text: str = ""
    guardian_name: str = ""


class ConsentsReply(msgspec.Struct, frozen=True, kw_only=True):
    """What holds after something was said."""

    consents: list[ConsentReply]


class CustomerConsentsReply(msgspec.Struct, frozen=True, kw_only=True):
    """What one customer said."""

    customer_id: str
    consents: list[ConsentReply]


class ConsentPageReply(msgspec.Struct, frozen=True, kw_only=True):
    """Some of all states of consent; `next` is the `after` of the page behind it, None on the last one."""

    consents: list[ConsentReply]
    next: str | None


class ConsentAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether a customer consents, and for how long that may be acted on."""

    customer_id: str
    purpose: str
    allowed: bool
    lease_seconds: float
    event_id: str = ""
    lease: str = ""

    def leased(self) -> Leased:
        """The same as an `Enforcer` holds it."""
        return Leased(self.allowed, round(self.lease_seconds * SECOND), int(self.lease or "0", 16), self.event_id)


class ConsentAnswersReply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer for each question, in order."""

    answers: list[ConsentAnswer]


class ConsentRecall(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that its holder must act on no more, because the customer took consent back."""

    customer_id: str
    purpose: str
    lease: str


class RecallsReply(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody waits for this holder to confirm."""

    recalls: list[ConsentRecall]


def consent_reply(record: ConsentRecord) -> ConsentReply:
    """A record as the wire shows it."""
    return msgspec.convert(record.as_dict(), ConsentReply)


def unleased(customer: str, purpose: str, used: ConsentUsed) -> ConsentAnswer:
    """An answer that may be acted on at once, and is not held."""
    rested = event_id(used.seq) if used.seq >= 0 else ""
    return ConsentAnswer(customer_id=customer, purpose=purpose, allowed=used.given, lease_seconds=0, event_id=rested)


def answer_of(customer: str, purpose: str, leased: Leased, epoch: int) -> ConsentAnswer:
    """A leased answer; a no needs no lease."""
    return ConsentAnswer(
        customer_id=customer,
        purpose=purpose,
        allowed=leased.allowed,
        lease_seconds=min(leased.span, LEASE_HELD) / SECOND,
        event_id=leased.event_id,
        lease=write_lease(epoch, leased.end) if leased.end else "",
    )
