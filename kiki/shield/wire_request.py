"""Data subject requests and legal holds on SyncShield's wire: what callers send; `wire_request_answer` has what they are told. Pure.

| route | request | answer |
|---|---|---|
| `POST /v1/requests` | customer_id, type, and what goes with it | 201 record; 200 when it was there already |
| `GET /v1/requests` | ?type=&state=&open=&customer_id=&due_before=&limit= | 200 `{"requests": [record], "total"}` |
| `GET /v1/requests/{id}` | | 200 record; 404 |
| `POST /v1/requests/{id}/acknowledge` | | 200 record, as of all that follow |
| `POST /v1/requests/{id}/code` | | a one-time code is sent |
| `POST /v1/requests/{id}/verify` | code; or operator, agent_proof?, note? | 403 identity_denied |
| `POST /v1/requests/{id}/pause`, `.../resume` | note? | |
| `POST /v1/requests/{id}/extend` | reason, regimes? | 409 when it is too late |
| `POST /v1/requests/{id}/assign` | to | |
| `POST /v1/requests/{id}/refuse` | article, reason | |
| `POST /v1/requests/{id}/cancel` | reason? | |
| `POST /v1/requests/{id}/run` | | 200 when the run ended, 202 while it goes on |
| `POST /v1/requests/{id}/package` | | 201 token, expires_at, sha256 |
| `GET /v1/requests/{id}/package` | ?token= | 200 the zip, once |
| `GET /v1/requests/{id}/proof` | | 200 the signed note, as text |
| `GET /v1/legal-holds` | | 200 `{"holds": [hold]}` |
| `POST /v1/legal-holds` | reference, customer_id? | 201 hold |
| `DELETE /v1/legal-holds` | ?reference=&customer_id= | 200 `{"requests": [record]}`: those that may be run again |

A record is `RequestRecord.as_dict`. The original's `POST /dsr/create` answers its own object, see `wire_request_answer.GuideRequest`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from kiki.errors import InvalidInput, InvalidKey
from kiki.members import (
    Query,
    kind_of,
    limit_of,
    list_of,
    one_of,
    quoted,
    read_members,
    read_query,
    text_of,
    text_or_none,
)
from kiki.shield.call import parse_key
from kiki.shield.consent_words import parse_customer_id
from kiki.shield.dsr import Kind, State, parse_kind, parse_state
from kiki.shield.request_intake import Given
from kiki.shield.wire import KEY_HEADER
from kiki.shield.wire_guide_consent import MISSING
from kiki.shield.wire_moment import moment_micros

GUIDE_MEMBERS: Final = ("customer_id", "request_type", "type", "requested_by", "details")
_TEXTS: Final = ("requested_by", "details", "agent", "agent_proof", "ip_address", "user_agent")
REQUEST_MEMBERS: Final = ("customer_id", "type", "regimes", "purposes", "corrections", "received_at", "key", *_TEXTS)
VERIFY_MEMBERS: Final = ("code", "operator", "agent_proof", "note")
NOTE_MEMBERS: Final = ("note",)
EXTEND_MEMBERS: Final = ("reason", "regimes")
ASSIGN_MEMBERS: Final = ("to",)
REFUSE_MEMBERS: Final = ("article", "reason")
CANCEL_MEMBERS: Final = ("reason",)
HOLD_MEMBERS: Final = ("reference", "customer_id")
REQUESTS_LIMIT: Final = 100
REQUESTS_LIMIT_MAX: Final = 1000
WORDS_MAX: Final = 40
"""Purposes or laws that one request may name: more than there are."""

Word = TypeVar("Word")


class Asked(NamedTuple):
    """A request as somebody sent it."""

    customer: str
    kind: str
    given: Given


class Verification(NamedTuple):
    """A proof of identity as somebody sent it."""

    method: str
    code: str = ""
    operator: str = ""
    agent_proof: str = ""
    note: str = ""


class RequestsQuery(NamedTuple):
    """Which requests somebody wants to see."""

    kind: Kind | None
    state: State | None
    is_open: bool | None
    customer: str | None
    due_before: int | None
    limit: int


class HoldAsked(NamedTuple):
    """A legal hold as somebody names it; no customer: everybody."""

    reference: str
    customer: str | None


# -- what is asked -----------------------------------------------------------------------------------


def guide_body(body: object) -> Asked:
    """The request in a body of the original's `/dsr/create`."""
    found = read_members(body, GUIDE_MEMBERS)
    return _guide({name: text_of(found, name) for name in found})


def guide_query(query: Query) -> Asked:
    """The same from a query."""
    return _guide(read_query(query, GUIDE_MEMBERS)[0])


def _guide(found: dict[str, str]) -> Asked:
    kind = one_of(found, "request_type", "type")
    if not found.get("customer_id") or not kind:
        raise InvalidInput(MISSING, hint="send customer_id and request_type")
    given = Given(requested_by=found.get("requested_by", ""), details=found.get("details", ""))
    return Asked(found["customer_id"], kind, given)


def request_body(body: object, key: str | None) -> Asked:
    """The request in a body; `key` is the `Idempotency-Key` header, None without one."""
    found = read_members(body, REQUEST_MEMBERS, ("customer_id", "type"))
    given = Given()
    for name in _TEXTS:
        if name in found:
            given[name] = text_of(found, name)
    if "regimes" in found:
        given["regimes"] = _words(found, "regimes")
    if "purposes" in found:
        given["purposes"] = _words(found, "purposes")
    if "corrections" in found:
        given["corrections"] = _corrections(found["corrections"])
    if "received_at" in found:
        given["received_at"] = moment_micros(text_of(found, "received_at"))
    own = text_or_none(found, "key")
    if own is not None and key is not None and own != key:
        raise InvalidKey(f"the body's key and the {KEY_HEADER} header differ; send one of them, or both alike")
    if own is not None or key is not None:
        given["key"] = parse_key(key if own is None else own)
    return Asked(parse_customer_id(found["customer_id"]), text_of(found, "type"), given)


def _words(found: dict[str, Any], name: str) -> list[str]:
    words = list_of(found, name, WORDS_MAX)
    if not words:
        raise InvalidInput(f"{name!r} is empty: leave it out")
    for word in words:
        if not isinstance(word, str):
            raise InvalidInput(f"{name!r} is a list of words, not of {kind_of(word)}")
    return words


def _corrections(given: object) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise InvalidInput("'corrections' is an object of fields and their right values, all of them text")
    if not given:
        raise InvalidInput("'corrections' is empty: leave it out")
    return given


def requests_query(query: Query) -> RequestsQuery:
    """The query of `GET /v1/requests`."""
    single, _ = read_query(query, ("type", "state", "open", "customer_id", "due_before", "limit"))
    wanted = single.get("open")
    if wanted not in {None, "true", "false"}:
        raise InvalidInput(f"'open' is true or false, not {quoted(wanted)}")
    return RequestsQuery(
        kind=_parsed(single, "type", parse_kind),
        state=_parsed(single, "state", parse_state),
        is_open=None if wanted is None else wanted == "true",
        customer=_parsed(single, "customer_id", parse_customer_id),
        # Nothing was due before 1970, whatever moment that is.
        due_before=_parsed(single, "due_before", lambda text: max(0, moment_micros(text))),
        limit=limit_of(single, default=REQUESTS_LIMIT, most=REQUESTS_LIMIT_MAX),
    )


def _parsed(single: dict[str, str], name: str, parse: Callable[[str], Word]) -> Word | None:
    return parse(single[name]) if name in single else None


def verify_body(body: object) -> Verification:
    """A proof of identity: the code that was sent, or the word of an operator who checked it."""
    found = read_members(body, VERIFY_MEMBERS)
    if "code" in found:
        read_members(body, ("code",))
        return Verification("code", code=text_of(found, "code"))
    if "operator" not in found:
        raise InvalidInput("send 'code', the one that the person got, or 'operator', who checked the person's identity")
    return Verification(
        "operator",
        operator=text_of(found, "operator"),
        agent_proof=text_or_none(found, "agent_proof") or "",
        note=text_or_none(found, "note") or "",
    )


def note_body(body: object) -> str:
    """The note beside a pause, or empty."""
    return text_or_none(read_members(body, NOTE_MEMBERS), "note") or ""


def extend_body(body: object) -> tuple[str, list[str] | None]:
    """The reasons of an extension, and the laws that it is under; None: all of the request's."""
    found = read_members(body, EXTEND_MEMBERS, ("reason",))
    return text_of(found, "reason"), _words(found, "regimes") if "regimes" in found else None


def assign_body(body: object) -> str:
    """Who takes care of a request."""
    return text_of(read_members(body, ASSIGN_MEMBERS, ASSIGN_MEMBERS), "to")


def refuse_body(body: object) -> tuple[str, str]:
    """The provision and the reasons of a refusal."""
    found = read_members(body, REFUSE_MEMBERS, REFUSE_MEMBERS)
    return text_of(found, "article"), text_of(found, "reason")


def cancel_body(body: object) -> str:
    """Why a request is cancelled, or empty."""
    return text_or_none(read_members(body, CANCEL_MEMBERS), "reason") or ""


def package_query(query: Query) -> str:
    """The token of `GET /v1/requests/{id}/package`."""
    token = read_query(query, ("token",))[0].get("token")
    if not token:
        raise InvalidInput("the token is missing: make one with POST on this path")
    return token


def hold_body(body: object) -> HoldAsked:
    """The legal hold in a body."""
    found = read_members(body, HOLD_MEMBERS, ("reference",))
    customer = parse_customer_id(found["customer_id"]) if "customer_id" in found else None
    return HoldAsked(text_of(found, "reference"), customer)


def hold_query(query: Query) -> HoldAsked:
    """The legal hold in a query."""
    single, _ = read_query(query, HOLD_MEMBERS)
    if "reference" not in single:
        raise InvalidInput("the reference is missing: which matter is it that is over?")
    return HoldAsked(single["reference"], _parsed(single, "customer_id", parse_customer_id))
