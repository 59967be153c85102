"""The one file that owns SyncShield's wire: calls and answers as JSON, there and back. Service and client import it.

How the wire looks, whatever the route:

- **Money** is decimal text (`"64.20"`); requests may also write it as a JSON number, which is read exactly.
  Booleans, null and non-finite numbers are refused, never rounded.
- **Moments** are RFC 3339 in UTC with microseconds, **spans** seconds as a number, **scopes** an object
  `{"platform": "meta"}`, in a query `scope=platform:meta`, repeated.
- A **request** may hold the members listed here and no others: a misspelt one is refused with the name of the
  nearest right one, because a scope that is silently ignored is a budget that is silently ignored.
- A member of an **answer** without a value is absent, except where `null` is shown. Answers may grow members.
- **Errors** are RFC 9457 problems, `application/problem+json`: `{"type": "urn:kiki:error:<code>", "title", "status",
  "detail", "code", "hint"?, "instance"?}` and extension members. `code` is the one of `kiki.errors`.

| route | request | answer |
|---|---|---|
| `POST /v1/spends` | amount, currency?, scopes?, key? | 200 outcome; 403 refusal; 409 key_reused |
| `POST /v1/spends:batch` | amounts or spends (of amount, scopes?), currency?, scopes?, key? | 200 batch |
| `POST /v1/checks` | amount?, currency?, scopes?, ltv? | 200 outcome, whether allowed or not |
| `POST /v1/reservations` | amount, currency?, scopes?, key?, seconds? | 201 reservation; 403 refusal |
| `GET /v1/reservations` | | 200 `{"reservations": [open reservation]}` |
| `POST /v1/reservations/{id}/commit` | amount, currency? | 200 settlement; 404 hold_unknown; 409 |
| `POST /v1/reservations/{id}/release` | nothing, or `{}` | 200 settlement; 404 hold_unknown; 409 |
| `POST /v1/records` | amount, currency?, scopes?, key? | 200 outcome |
| `GET /v1/budgets` | ?budget=&scope=&limit= | 200 budgets |
| `GET /v1/halts` | | 200 `{"halts": [pattern]}` |
| `POST /v1/halts` | pattern, note? | 200 halt |
| `DELETE /v1/halts` | ?pattern= | 200 halt, with `halted` false |
| `POST /v1/policies:simulate` | policy (YAML text), since? | 200 the figures of `Simulation.as_dict` |
| `GET /v1/decisions` | ?after=&limit=&since=&until=&outcome=&scope= | 200 `{"decisions": [row], "next": id or null}` |
| `GET /v1/decisions/{event_id}` | | 200 row; 404 not_found |

`Idempotency-Key` may carry the key instead of the body; both, and different, is refused. A repeated key gets the first
answer again, byte for byte, with `Idempotency-Replayed: true`. A refusal carries `Retry-After` when it is known
when the same spend would fit, rounded up to whole seconds.

    outcome       event_id chain verb allowed amount currency decided_at; when refused also reason explanation, and
                  where a budget was the cause budget scope limit window_seconds remaining retry_at? retry_after?
    refusal       a problem with the code spend_denied and all members of its outcome but `allowed` and `explanation`
    batch         event_id (of the first) chain currency admitted refused outcomes
    reservation   id event_id chain amount currency deadline|null decided_at
    open reservation   id amount scopes deadline|null made_at
    settlement    id event_id chain verb reserved charged actual late settled_at
    halt          event_id chain pattern halted at
    budgets       currency window at budgets halts; a budget: budget scope limit window_seconds spent held remaining
                  room_at|null

The guide's routes, in plain text unless JSON is asked for: `GET|POST /spend?amount=&currency=&scope=` answers 200
`Spend recorded: 10.00` or 403 `Spend refused: <explanation>`, its POST may carry the body of `/v1/spends` instead;
`/check?ltv=&amount=&currency=&scope=` answers 200 `Compliance check passed` or 403 `Bid validation failed`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec

from kiki.clock import SECOND, to_iso
from kiki.errors import (
    ConfigurationError,
    InvalidInput,
    InvalidKey,
    InvalidMoney,
    InvalidScope,
    KikiError,
    MissingExtra,
    SpendDenied,
    Unavailable,
)
from kiki.money import format_micros, parse_micros
from kiki.shield.call import (
    Call,
    Switch,
    check_call,
    commit_call,
    parse_key,
    record_call,
    release_call,
    reserve_call,
    spend_call,
    spend_many_call,
    switch,
)
from kiki.shield.decision import Decision, Outcome
from kiki.shield.evidence_row import OUTCOMES
from kiki.shield.fact import Decided, Halted, Settled
from kiki.shield.scope import Pattern, Scopes, parse_scopes
from kiki.shield.simulation import Simulation
from kiki.shield.window import MeterStatus, OpenHold, Verb

JSON_TYPE: Final = "application/json"
PROBLEM_TYPE: Final = "application/problem+json"
KEY_HEADER: Final = "Idempotency-Key"
REPLAYED_HEADER: Final = "Idempotency-Replayed"
PROBLEM_URN: Final = "urn:kiki:error:"

STATUS_LIMIT = 1000
DECISIONS_LIMIT = 100
DECISIONS_LIMIT_MAX = 1000
POLICY_LENGTH_MAX = 1_000_000

Query = Iterable[tuple[str, str]]
"""The decoded pairs of a query string, repeated names included."""

Problem = dict[str, Any]


# -- what answers look like --------------------------------------------------------------------------


class OutcomeReply(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What became of one amount, as the wire tells it; reads like `kiki.shield.decision.Outcome`."""

    event_id: str
    chain: str
    verb: str
    allowed: bool
    amount: str
    currency: str
    decided_at: str
    reason: str | None = None
    explanation: str = ""
    budget: str | None = None
    scope: str | None = None
    limit: str | None = None
    window_seconds: int | float | None = None
    remaining: str | None = None
    retry_moment: str | None = msgspec.field(default=None, name="retry_at")
    retry_after: float | None = None

    @property
    def retry_at(self) -> int | None:
        """When it would fit if nothing else happens, in microseconds since the epoch."""
        return _micros_or_none(self.retry_moment)

    def denied(self) -> SpendDenied:
        """The refusal as an error to raise."""
        return SpendDenied(
            self.explanation,
            reason=self.reason or "",
            budget=self.budget,
            remaining=self.remaining,
            retry_after=self.retry_after,
            event_id=self.event_id or None,
        )


class RefusalProblem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A refused spend or reservation as a problem: RFC 9457's members, then those of the outcome."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str = ""
    event_id: str
    chain: str
    verb: str
    amount: str
    currency: str
    decided_at: str
    reason: str
    budget: str | None = None
    scope: str | None = None
    limit: str | None = None
    window_seconds: int | float | None = None
    remaining: str | None = None
    retry_moment: str | None = msgspec.field(default=None, name="retry_at")
    retry_after: float | None = None

    def outcome(self) -> OutcomeReply:
        """The same without its wrapping."""
        return OutcomeReply(
            event_id=self.event_id,
            chain=self.chain,
            verb=self.verb,
            allowed=False,
            amount=self.amount,
            currency=self.currency,
            decided_at=self.decided_at,
            reason=self.reason,
            explanation=self.detail,
            budget=self.budget,
            scope=self.scope,
            limit=self.limit,
            window_seconds=self.window_seconds,
            remaining=self.remaining,
            retry_moment=self.retry_moment,
            retry_after=self.retry_after,
        )


class BatchReply(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each amount of a batch, in order."""

    event_id: str
    chain: str
    currency: str
    admitted: int
    refused: int
    outcomes: list[OutcomeReply]


class ReservationReply(msgspec.Struct, frozen=True, kw_only=True):
    """Money that was set aside under `id`."""

    id: str
    event_id: str
    chain: str
    amount: str
    currency: str
    deadline: str | None
    decided_at: str


class OpenReservation(msgspec.Struct, frozen=True, kw_only=True):
    """A reservation that is neither resolved nor past its deadline."""

    id: str
    amount: str
    scopes: dict[str, str]
    deadline: str | None
    made_at: str

    def hold(self) -> OpenHold:
        """The same as a value of the window."""
        return OpenHold(
            self.id,
            parse_micros(self.amount),
            parse_scopes(self.scopes),
            _micros_or_none(self.deadline),
            moment_micros(self.made_at),
        )


class ReservationsReply(msgspec.Struct, frozen=True):
    """Every open reservation."""

    reservations: list[OpenReservation]


class SettlementReply(msgspec.Struct, frozen=True, kw_only=True):
    """How a reservation ended. `charged` counts from `settled_at` on; `late`: the deadline had charged all of it."""

    id: str
    event_id: str
    chain: str
    verb: str
    reserved: str
    charged: str
    actual: str
    late: bool
    settled_at: str


class HaltReply(msgspec.Struct, frozen=True, kw_only=True):
    """The kill switch of a pattern, as it was turned."""

    event_id: str
    chain: str
    pattern: str
    halted: bool
    at: str


class HaltsReply(msgspec.Struct, frozen=True):
    """The patterns that are halted."""

    halts: list[str]


class MeterReply(msgspec.Struct, frozen=True, kw_only=True):
    """One window of one budget on one scope, now."""

    budget: str
    scope: str
    limit: str
    window_seconds: int | float
    spent: str
    held: str
    remaining: str
    room_at: str | None

    def meter(self) -> MeterStatus:
        """The same as a value of the window."""
        return MeterStatus(
            self.budget,
            self.scope,
            parse_micros(self.limit),
            round(self.window_seconds * SECOND),
            _any_micros(self.spent),
            _any_micros(self.held),
            _micros_or_none(self.room_at),
        )


class BudgetsReply(msgspec.Struct, frozen=True, kw_only=True):
    """What every window says at `at`; `window` is its kind, `local` or `redis`."""

    currency: str
    window: str
    at: str
    budgets: list[MeterReply]
    halts: list[str]

    def meters(self) -> list[MeterStatus]:
        """The budgets as values of the window."""
        return [each.meter() for each in self.budgets]


class DecisionsReply(msgspec.Struct, frozen=True):
    """A page of the audit; `next` is the `after` of the page behind it, None on the last one."""

    decisions: list[dict[str, Any]]
    next: str | None


Reply = TypeVar("Reply")

_encode = msgspec.json.Encoder().encode


def dump(reply: object) -> bytes:
    """The bytes of an answer: the same ones for the same value, always."""
    return _encode(reply)


def parse(data: bytes, kind: type[Reply]) -> Reply:
    """The answer of that kind in these bytes; raises `msgspec.DecodeError` when they hold none."""
    return msgspec.json.decode(data, type=kind)


# -- answers, from what was decided ------------------------------------------------------------------


def outcome_reply(outcome: Outcome, chain: str, currency: str) -> OutcomeReply:
    """What became of one amount."""
    fact, refused = outcome.fact, outcome.refused
    if refused is None:
        return OutcomeReply(
            event_id=outcome.event_id,
            chain=chain,
            verb=fact.verb,
            allowed=True,
            amount=format_micros(outcome.micros),
            currency=currency,
            decided_at=to_iso(fact.at),
        )
    retry_at = refused.retry_at
    return OutcomeReply(
        event_id=outcome.event_id,
        chain=chain,
        verb=fact.verb,
        allowed=False,
        amount=format_micros(outcome.micros),
        currency=currency,
        decided_at=to_iso(fact.at),
        reason=refused.reason,
        explanation=outcome.explanation,
        budget=refused.budget or None,
        scope=refused.scope or None,
        limit=format_micros(refused.limit) if refused.limit else None,
        window_seconds=_seconds(refused.span) if refused.span else None,
        remaining=outcome.remaining,
        retry_moment=None if retry_at is None else to_iso(retry_at),
        retry_after=outcome.retry_after,
    )


def outcome_bytes(outcome: Outcome, chain: str, currency: str) -> bytes:
    """The body of a 200 with one outcome; a repeat of the same fact has the same bytes."""
    return _encode(outcome_reply(outcome, chain, currency))


def refusal_problem(outcome: Outcome, chain: str, currency: str, instance: str = "") -> RefusalProblem:
    """A refused outcome as a 403 problem. `instance` is the path of the request, so that a repeat is the same."""
    reply = outcome_reply(outcome, chain, currency)
    return RefusalProblem(
        type=PROBLEM_URN + SpendDenied.code,
        title=title_of(SpendDenied),
        status=403,
        detail=reply.explanation,
        code=SpendDenied.code,
        instance=instance,
        event_id=reply.event_id,
        chain=chain,
        verb=reply.verb,
        amount=reply.amount,
        currency=currency,
        decided_at=reply.decided_at,
        reason=reply.reason or "",
        budget=reply.budget,
        scope=reply.scope,
        limit=reply.limit,
        window_seconds=reply.window_seconds,
        remaining=reply.remaining,
        retry_moment=reply.retry_moment,
        retry_after=reply.retry_after,
    )


def refusal_bytes(outcome: Outcome, chain: str, currency: str, instance: str = "") -> bytes:
    """The body of a 403 for a refused spend or reservation."""
    return _encode(refusal_problem(outcome, chain, currency, instance))


def batch_reply(decision: Decision, chain: str, currency: str) -> BatchReply:
    """What became of each amount of a batch."""
    outcomes = [outcome_reply(outcome, chain, currency) for outcome in decision.outcomes()]
    admitted = sum(outcome.allowed for outcome in outcomes)
    return BatchReply(
        event_id=decision.event_id,
        chain=chain,
        currency=currency,
        admitted=admitted,
        refused=len(outcomes) - admitted,
        outcomes=outcomes,
    )


def reservation_reply(decision: Decision, chain: str, currency: str) -> ReservationReply:
    """An admitted reservation."""
    fact = _fact(decision, Decided)
    return ReservationReply(
        id=fact.hold,
        event_id=decision.event_id,
        chain=chain,
        amount=format_micros(fact.amounts[0]),
        currency=currency,
        deadline=_iso_or_none(fact.deadline),
        decided_at=to_iso(fact.at),
    )


def reservations_reply(holds: Iterable[OpenHold]) -> ReservationsReply:
    """Every open reservation."""
    return ReservationsReply(
        [
            OpenReservation(
                id=hold.id,
                amount=format_micros(hold.amount),
                scopes=scopes_object(hold.scopes),
                deadline=_iso_or_none(hold.deadline),
                made_at=to_iso(hold.made_at),
            )
            for hold in holds
        ]
    )


def settlement_reply(decision: Decision, chain: str) -> SettlementReply:
    """How a reservation ended."""
    fact = _fact(decision, Settled)
    return SettlementReply(
        id=fact.hold,
        event_id=decision.event_id,
        chain=chain,
        verb=fact.verb,
        reserved=format_micros(fact.reserved),
        charged=format_micros(fact.charged),
        actual=format_micros(fact.actual),
        late=fact.late,
        settled_at=to_iso(fact.at),
    )


def halt_reply(decision: Decision, chain: str) -> HaltReply:
    """The kill switch as it was turned."""
    fact = _fact(decision, Halted)
    return HaltReply(event_id=decision.event_id, chain=chain, pattern=fact.pattern, halted=fact.on, at=to_iso(fact.at))


def meter_reply(status: MeterStatus) -> MeterReply:
    """One window of one budget."""
    return MeterReply(
        budget=status.budget,
        scope=status.scope,
        limit=format_micros(status.limit),
        window_seconds=_seconds(status.span),
        spent=format_micros(status.spent),
        held=format_micros(status.held),
        remaining=format_micros(status.remaining),
        room_at=_iso_or_none(status.room_at),
    )


def budgets_reply(
    statuses: Iterable[MeterStatus], halts: Sequence[str], currency: str, window: str, at: int
) -> BudgetsReply:
    """What every window says at the moment `at`, in microseconds since the epoch."""
    return BudgetsReply(
        currency=currency,
        window=window,
        at=to_iso(at),
        budgets=[meter_reply(status) for status in statuses],
        halts=list(halts),
    )


def decisions_reply(rows: Iterable[Mapping[str, Any]], following: str | None) -> DecisionsReply:
    """A page of the audit; `following` is the id of its last row when there may be more."""
    return DecisionsReply([dict(row) for row in rows], following)


def spend_text(outcome: Outcome) -> str:
    """The guide's body for `/spend`: `Spend recorded: 10.00`, or why not. As in the original, only refusals end a line."""
    if outcome.allowed:
        return f"Spend recorded: {outcome.amount}"
    return f"Spend refused: {outcome.explanation}\n"


def check_text(outcome: Outcome) -> str:
    """The original's body for `/check`."""
    return "Compliance check passed" if outcome.allowed else "Bid validation failed\n"


def title_of(error: type[KikiError]) -> str:
    """A problem's title: the same for every error of its kind."""
    return (error.__doc__ or error.__name__).strip().partition("\n")[0]


def parse_problem(data: bytes) -> Problem | None:
    """The problem in a body, None when it holds none of ours."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("code"), str):
        return None
    return found


def error_of(found: Problem) -> KikiError | None:
    """The error that a problem stands for, as the library would have raised it; None when its code is not known.

    For a refusal with all its members use `RefusalProblem` first, which knows its outcome.
    """
    kind = _errors().get(found["code"])
    if kind is None:
        return None
    detail = found.get("detail")
    message = detail if isinstance(detail, str) else None
    hint = found.get("hint") if isinstance(found.get("hint"), str) else None
    retry_after = found.get("retry_after")
    seconds = float(retry_after) if isinstance(retry_after, int | float) and math.isfinite(retry_after) else None
    if issubclass(kind, SpendDenied):
        members = {
            name: found[name] for name in ("budget", "remaining", "event_id") if isinstance(found.get(name), str)
        }
        return kind(message or title_of(kind), reason=str(found.get("reason", "")), retry_after=seconds, **members)
    if issubclass(kind, ConfigurationError):
        problems = found.get("problems")
        listed = [str(each) for each in problems] if isinstance(problems, list) else [message or title_of(kind)]
        return kind(listed, hint=hint)
    if issubclass(kind, Unavailable):
        return kind(message, retry_after=seconds, hint=hint)
    if issubclass(kind, MissingExtra):
        return KikiError(message, hint=hint)
    return kind(message, hint=hint)


def _errors() -> dict[str, type[KikiError]]:
    if not _error_kinds:
        _collect(KikiError)
    return _error_kinds


def _collect(kind: type[KikiError]) -> None:
    if kind.__module__ == "kiki.errors":
        _error_kinds[kind.code] = kind
    for child in kind.__subclasses__():
        _collect(child)


_error_kinds: dict[str, type[KikiError]] = {}


Fact = TypeVar("Fact", Decided, Settled, Halted)


def _fact(decision: Decision, kind: type[Fact]) -> Fact:
    fact = decision.fact
    if not isinstance(fact, kind):
        raise TypeError(f"expected a {kind.__name__} fact, not a {type(fact).__name__}")
    return fact


# -- calls, from what was sent -----------------------------------------------------------------------


_SPEND = ("amount", "currency", "scopes", "key")
_BATCH = ("amounts", "spends", "currency", "scopes", "key")
_ITEM = ("amount", "scopes")
_CHECK = ("amount", "currency", "scopes", "ltv")
_RESERVE = ("amount", "currency", "scopes", "key", "seconds")
_COMMIT = ("amount", "currency")
_HALT = ("pattern", "note")
_SIMULATE = ("policy", "since")


def spend_body(body: object, currency: str, key: str | None = None) -> Call:
    """The spend in a body; `key` is the `Idempotency-Key` header, None without one."""
    found = _members(body, _SPEND, required=("amount",))
    _same_currency(found, currency)
    return spend_call(_amount(found), _scopes(found), _one_key(found, key))


def batch_body(body: object, currency: str, key: str | None = None) -> Call:
    """The batch in a body: `amounts`, or `spends` with scopes of their own."""
    found = _members(body, _BATCH)
    _same_currency(found, currency)
    if ("amounts" in found) == ("spends" in found):
        raise InvalidInput("a batch has either 'amounts', a list of amounts, or 'spends', a list of {amount, scopes}")
    shared, given_key = _scopes(found), _one_key(found, key)
    if "amounts" in found:
        amounts = _list(found, "amounts")
        for index, amount in enumerate(amounts):
            if type(amount) is not str:
                _checked_amount(amount, f"item {index}: ")
        return spend_many_call(amounts, shared, given_key)
    items: list[Any] = []
    for index, item in enumerate(_list(found, "spends")):
        try:
            own = _members(item, _ITEM, required=("amount",))
            amount = _amount(own)
            items.append((amount, _scopes(own)) if "scopes" in own else amount)
        except InvalidInput as error:
            raise type(error)(f"item {index}: {error}") from None
    return spend_many_call(items, shared, given_key)


def check_body(body: object, currency: str) -> Call:
    """The check in a body, which may be empty: whether anything would fit."""
    found = _members(body, _CHECK)
    _same_currency(found, currency)
    if "ltv" in found:
        _checked_amount(found["ltv"], "ltv: ")
    return check_call(_amount(found) if "amount" in found else None, _scopes(found), found.get("ltv"))


def reserve_body(body: object, hold: str, currency: str, key: str | None = None) -> Call:
    """The reservation in a body; `hold` is the fresh id that it will have."""
    found = _members(body, _RESERVE, required=("amount",))
    _same_currency(found, currency)
    span = parse_seconds(found["seconds"]) if "seconds" in found else None
    return reserve_call(_amount(found), hold, span, _scopes(found), _one_key(found, key))


def commit_body(hold: str, body: object, currency: str) -> Call:
    """The commit of a reservation."""
    found = _members(body, _COMMIT, required=("amount",))
    _same_currency(found, currency)
    return commit_call(hold, _amount(found))


def release_body(hold: str, body: object = None) -> Call:
    """The release of a reservation; its body is nothing or `{}`."""
    if body is not None:
        _members(body, ())
    return release_call(hold)


def record_body(body: object, currency: str, key: str | None = None) -> Call:
    """The record in a body."""
    found = _members(body, _SPEND, required=("amount",))
    _same_currency(found, currency)
    return record_call(_amount(found), _scopes(found), _one_key(found, key))


def halt_body(body: object) -> Switch:
    """The halt in a body."""
    found = _members(body, _HALT, required=("pattern",))
    return switch(_text(found, "pattern"), on=True, note=_text(found, "note") if "note" in found else "")


def simulate_body(body: object) -> tuple[str, datetime | None]:
    """The YAML text of a policy and the moment from which it is asked to judge."""
    found = _members(body, _SIMULATE, required=("policy",))
    policy = _text(found, "policy")
    if len(policy) > POLICY_LENGTH_MAX:
        raise InvalidInput(f"a policy is at most {POLICY_LENGTH_MAX} characters long")
    try:
        policy.encode()
    except UnicodeEncodeError:
        raise InvalidInput("'policy' is not text: it holds half of a surrogate pair") from None
    return policy, parse_moment(_text(found, "since")) if "since" in found else None


def spend_query(query: Query, currency: str, key: str | None = None) -> Call:
    """The spend of the guide's `/spend?amount=`."""
    single, scopes = _query(query, ("amount", "currency"), many="scope")
    if "amount" not in single:
        raise InvalidMoney("Invalid amount: it is missing; write /spend?amount=12.34")
    _same_currency(single, currency)
    try:
        return spend_call(single["amount"], scopes, key)
    except InvalidMoney as error:
        raise InvalidMoney(f"Invalid amount: {error}") from None


def check_query(query: Query, currency: str) -> Call:
    """The check of the guide's `/check?ltv=`; with an amount it may come without one."""
    single, scopes = _query(query, ("ltv", "amount", "currency"), many="scope")
    _same_currency(single, currency)
    if "ltv" not in single and "amount" not in single:
        raise InvalidInput("Missing LTV parameter: write /check?ltv=600, or /check?amount=12.34, or both")
    if "ltv" in single:
        try:
            parse_micros(single["ltv"], zero=True)
        except InvalidMoney as error:
            raise InvalidMoney(f"Invalid LTV value: {error}") from None
    try:
        return check_call(single.get("amount"), scopes, single.get("ltv"))
    except InvalidMoney as error:
        raise InvalidMoney(f"Invalid amount: {error}") from None


class BudgetsQuery(msgspec.Struct, frozen=True):
    """What somebody wants to see of the budgets."""

    budget: str | None = None
    scope: str | None = None
    limit: int = STATUS_LIMIT


class DecisionsQuery(msgspec.Struct, frozen=True):
    """Which part of the audit somebody wants to see; [since, until) in microseconds since the epoch."""

    after: str | None = None
    limit: int = DECISIONS_LIMIT
    since: int | None = None
    until: int | None = None
    outcome: str | None = None
    scope: str | None = None


def budgets_query(query: Query) -> BudgetsQuery:
    """The query of `GET /v1/budgets`."""
    single, _ = _query(query, ("budget", "scope", "limit"))
    return BudgetsQuery(
        _named(single, "budget"), _scope_text(single), _limit(single, default=STATUS_LIMIT, most=STATUS_LIMIT)
    )


def resume_query(query: Query) -> Switch:
    """The query of `DELETE /v1/halts`."""
    single, _ = _query(query, ("pattern",))
    if "pattern" not in single:
        raise InvalidScope(
            "the pattern is missing: write /v1/halts?pattern=platform:meta, or ?pattern=* for all spends"
        )
    return switch(single["pattern"], on=False)


def decisions_query(query: Query) -> DecisionsQuery:
    """The query of `GET /v1/decisions`."""
    single, _ = _query(query, ("after", "limit", "since", "until", "outcome", "scope"))
    return DecisionsQuery(
        parse_event_id(single["after"]) if "after" in single else None,
        _limit(single, default=DECISIONS_LIMIT, most=DECISIONS_LIMIT_MAX),
        _micros_or_none(single.get("since")),
        _micros_or_none(single.get("until")),
        parse_outcome_word(single["outcome"]) if "outcome" in single else None,
        parse_scopes([single["scope"]])[0] if "scope" in single else None,
    )


def empty_query(query: Query) -> None:
    """Refuses every parameter, for routes that take none."""
    _query(query, ())


def parse_outcome_word(text: str) -> str:
    """A word of `OUTCOMES`, in whatever case it was written."""
    word = text.upper()
    if word not in OUTCOMES:
        raise InvalidInput(f"{_quoted(text)} is not an outcome: write one of {', '.join(OUTCOMES)}")
    return word


def parse_event_id(text: str) -> str:
    """The id of a decision: 16 hexadecimal digits."""
    if re.fullmatch(r"[0-9a-f]{16}", text):
        return text
    raise InvalidInput(f"{_quoted(text)} is not an event id: that is 16 hexadecimal digits")


def _members(body: object, allowed: Sequence[str], required: Sequence[str] = ()) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise InvalidInput(f"expected a JSON object, not {_kind(body)}")
    for name in body:
        if name not in allowed:
            raise InvalidInput(_unknown("member", name, allowed))
    for name in required:
        if name not in body:
            raise (InvalidMoney if name == "amount" else InvalidInput)(f"the member {name!r} is missing")
    return body


def _unknown(what: str, name: object, allowed: Sequence[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(str(name)[:40], allowed, 1, 0.5)
    if near:
        return f"there is no {what} {_quoted(name)}; did you mean {near[0]!r}?"
    known = f"known are {', '.join(allowed)}" if allowed else f"this request takes no {what}s"
    return f"there is no {what} {_quoted(name)}; {known}"


def _quoted(value: object) -> str:
    text = repr(str(value))
    return text if len(text) <= 42 else f"{text[:40]}…'"


_KINDS = {bool: "a boolean", str: "text", list: "a list", dict: "an object", type(None): "null"}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a number")


def _amount(found: Mapping[str, Any]) -> str | int | Decimal:
    amount = found["amount"]
    _checked_amount(amount, "")
    return amount  # type: ignore[no-any-return]  # checked just now


def _checked_amount(amount: object, where: str) -> None:
    # A float cannot come from a JSON body that kiki reads; from elsewhere it is refused rather than guessed at.
    if type(amount) is not str and type(amount) is not int and not isinstance(amount, Decimal):
        raise InvalidMoney(f"{where}an amount is decimal text such as '12.34' or a number, not {_kind(amount)}")


def _scopes(found: Mapping[str, Any]) -> dict[str, str] | None:
    scopes = found.get("scopes")
    if scopes is None and "scopes" not in found:
        return None
    if not isinstance(scopes, dict):
        raise InvalidScope(f"scopes are an object such as {{'platform': 'meta'}}, not {_kind(scopes)}")
    return scopes


def _one_key(found: Mapping[str, Any], header: str | None) -> str | None:
    if "key" not in found:
        return parse_key(header) or None
    key = found["key"]
    if not isinstance(key, str):
        raise InvalidKey(f"a key is text, not {_kind(key)}")
    if header is not None and header != key:
        raise InvalidKey(f"the body's key and the {KEY_HEADER} header differ; send one of them, or both alike")
    return parse_key(key)


def _same_currency(found: Mapping[str, Any], currency: str) -> None:
    if "currency" not in found or found["currency"] == currency:
        return
    given = found["currency"]
    if not isinstance(given, str):
        raise InvalidInput(f"a currency is text, not {_kind(given)}")
    raise InvalidInput(f"the currency {_quoted(given)} is not accepted here: every budget is in {currency}")


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found[name]
    if not isinstance(value, str):
        raise InvalidInput(f"{name!r} is text, not {_kind(value)}")
    return value


def _list(found: Mapping[str, Any], name: str) -> list[Any]:
    value = found[name]
    if not isinstance(value, list):
        raise InvalidInput(f"{name!r} is a list, not {_kind(value)}")
    return value


def parse_seconds(seconds: object) -> int:
    """How long a reservation lasts, from a number of seconds into microseconds; raises `InvalidInput`."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | Decimal):
        raise InvalidInput(f"'seconds' is a number, not {_kind(seconds)}")
    # Looked at before any arithmetic: 1e999999 must not be expanded, and NaN has no size.
    if not -1e9 < seconds < 1e9:
        raise InvalidInput("'seconds' must be a positive number of at most 366 days, or absent for no deadline")
    span = round(seconds * SECOND)
    if span <= 0:
        raise InvalidInput("'seconds' must be a positive number of at most 366 days, or absent for no deadline")
    return span


def _query(query: Query, allowed: Sequence[str], many: str = "") -> tuple[dict[str, str], list[str]]:
    single: dict[str, str] = {}
    repeated: list[str] = []
    for name, value in query:
        if many and name == many:
            repeated.append(value)
        elif name not in allowed:
            raise InvalidInput(_unknown("parameter", name, (*allowed, many) if many else allowed))
        elif name in single:
            raise InvalidInput(f"the parameter {name!r} is given twice; send it once")
        else:
            single[name] = value
    return single, repeated


def _named(single: Mapping[str, str], name: str) -> str | None:
    value = single.get(name)
    if value is not None and (not 1 <= len(value) <= 255 or not value.isprintable()):
        raise InvalidInput(f"the parameter {name!r} must be 1 to 255 printable characters")
    return value


def _scope_text(single: Mapping[str, str]) -> str | None:
    return Pattern.parse(single["scope"]).text if "scope" in single else None


def _limit(single: Mapping[str, str], *, default: int, most: int) -> int:
    text = single.get("limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= most):
        raise InvalidInput(f"the limit {_quoted(text)} is not acceptable: write a whole number from 1 to {most}")
    return int(text)


# -- moments and spans -------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_moment(text: str) -> datetime:
    """The moment in RFC 3339 text; raises `InvalidInput`."""
    if _MOMENT.fullmatch(text):
        try:
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    plus = "; in a URL write + as %2B" if re.search(r" \d\d:\d\d$", text) else ""
    raise InvalidInput(f"{_quoted(text)} is not a moment: write RFC 3339 such as 2026-11-22T10:00:00Z{plus}")


def moment_micros(text: str) -> int:
    """The moment in RFC 3339 text, in microseconds since the epoch; the inverse of `kiki.clock.to_iso`."""
    return (parse_moment(text) - _EPOCH) // _MICROSECOND


def _micros_or_none(text: str | None) -> int | None:
    return None if text is None else moment_micros(text)


def _iso_or_none(micros: int | None) -> str | None:
    return None if micros is None else to_iso(micros)


def _seconds(span: int) -> int | float:
    return span // SECOND if span % SECOND == 0 else span / SECOND


def _any_micros(text: str) -> int:
    """What was counted: zero, and after a mistake of somebody else's even less than that."""
    return -parse_micros(text[1:], zero=True) if text.startswith("-") else parse_micros(text, zero=True)


# -- the client's side -------------------------------------------------------------------------------


def scopes_object(scopes: Scopes) -> dict[str, str]:
    """Canonical scopes as the object that requests carry."""
    return {kind: value for kind, _, value in (scope.partition(":") for scope in scopes)}


def call_json(call: Call, currency: str | None = None) -> dict[str, Any]:
    """The body that asks for this call; the `…_body` function of its verb reads it back."""
    body: dict[str, Any] = {}
    match call.verb:
        case Verb.RELEASE:
            return body
        case Verb.SPEND if len(call.amounts) > 1 or len(call.scopes) > 1:
            return batch_json(call, currency)
        case Verb.CHECK:
            body["amount"] = format_micros(call.amounts[0])
            if call.ltv is not None:
                body["ltv"] = format_micros(call.ltv)
        case Verb.RESERVE:
            body["amount"] = format_micros(call.amounts[0])
            if call.hold_span is not None:
                body["seconds"] = _seconds(call.hold_span)
        case _:
            body["amount"] = format_micros(call.amounts[0])
    if call.scopes != ((),):
        body["scopes"] = scopes_object(call.scopes[0])
    return _with_key(body, call, currency)


def batch_json(call: Call, currency: str | None = None) -> dict[str, Any]:
    """The body that asks for a batch; `batch_body` reads it back."""
    amounts = [format_micros(amount) for amount in call.amounts]
    body: dict[str, Any]
    if len(call.scopes) == 1:
        body = {"amounts": amounts}
        if call.scopes != ((),):
            body["scopes"] = scopes_object(call.scopes[0])
    else:
        each = zip(amounts, call.scopes, strict=True)
        body = {"spends": [{"amount": amount, "scopes": scopes_object(scopes)} for amount, scopes in each]}
    return _with_key(body, call, currency)


def _with_key(body: dict[str, Any], call: Call, currency: str | None) -> dict[str, Any]:
    if call.key:
        body["key"] = call.key
    if currency is not None:
        body["currency"] = currency
    return body


def parse_simulation(found: Mapping[str, Any]) -> Simulation:
    """The figures that `Simulation.as_dict` wrote; raises `ValueError`, `TypeError` or `KeyError` for others."""
    simulation = Simulation()
    for name in ("decisions", "admitted", "refused", "newly_refused", "newly_admitted"):
        setattr(simulation, name, int(found[name]))
    for name in ("admitted", "refused", "newly_refused", "newly_admitted"):
        setattr(simulation, f"{name}_micros", _any_micros(found[f"{name}_amount"]))
    simulation.refused_by_budget.update({str(name): int(count) for name, count in found["refused_by_budget"].items()})
    return simulation


# -- for /openapi.json -------------------------------------------------------------------------------

_MONEY_SCHEMA: Final = {
    "description": "Money: decimal text, or a number that is read exactly; more than 0, at most six decimals.",
    "oneOf": [
        {"type": "string", "pattern": r"^[0-9]{1,13}(\.[0-9]{1,6})?$", "examples": ["12.34"]},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 9223372036854.775807},
    ],
}
_KEY_SCHEMA: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    "description": "The same key: the same spend.",
}
_SCOPES_SCHEMA: Final = {
    "type": "object",
    "maxProperties": 8,
    "propertyNames": {"pattern": "^[a-z][a-z0-9_]{0,31}$"},
    "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 128},
    "examples": [{"platform": "meta"}],
}

_MEMBER_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "amount": {"$ref": "#/components/schemas/Money"},
    "amounts": {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Money"},
        "minItems": 1,
        "maxItems": 10_000,
    },
    "currency": {"type": "string", "description": "Must be the currency of the budgets."},
    "key": {"$ref": "#/components/schemas/Key"},
    "ltv": {
        "oneOf": [
            {"type": "string", "pattern": r"^[0-9]{1,13}(\.[0-9]{1,6})?$"},
            {"type": "number", "minimum": 0, "maximum": 9223372036854.775807},
        ]
    },
    "note": {"type": "string", "maxLength": 255},
    "pattern": {"type": "string", "maxLength": 161, "examples": ["*", "platform:meta", "campaign:*"]},
    "policy": {"type": "string", "maxLength": POLICY_LENGTH_MAX, "description": "A policy file, YAML."},
    "scopes": {"$ref": "#/components/schemas/Scopes"},
    "seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": 366 * 24 * 3600},
    "since": {"type": "string", "format": "date-time"},
}


def _body_schema(members: Sequence[str], required: Sequence[str] = ()) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "object",
        "properties": {name: _MEMBER_SCHEMAS[name] for name in members},
        "additionalProperties": False,
    }
    if required:
        found["required"] = list(required)
    return found


def schemas() -> dict[str, Any]:
    """The `components/schemas` of the OpenAPI document: every request and every answer of this file by name."""
    replies: list[Any] = [
        OutcomeReply,
        RefusalProblem,
        BatchReply,
        ReservationReply,
        ReservationsReply,
        SettlementReply,
        HaltReply,
        HaltsReply,
        BudgetsReply,
        DecisionsReply,
    ]
    _, components = msgspec.json.schema_components(replies, ref_template="#/components/schemas/{name}")
    item = _body_schema(_ITEM, ("amount",))
    spends = {"type": "array", "items": item, "minItems": 1, "maxItems": 10_000}
    shared = _body_schema([name for name in _BATCH if name != "spends"])["properties"]
    commit = _body_schema(_COMMIT, ("amount",))
    commit["properties"] = commit["properties"] | {"amount": _MEMBER_SCHEMAS["ltv"]}
    return {
        **components,
        "Money": _MONEY_SCHEMA,
        "Key": _KEY_SCHEMA,
        "Scopes": _SCOPES_SCHEMA,
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail", "code"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "code": {"type": "string"},
                "hint": {"type": "string"},
                "instance": {"type": "string"},
                "problems": {"type": "array", "items": {"type": "string"}},
                "retry_after": {"type": "number"},
            },
        },
        "Simulation": {
            "type": "object",
            "required": [*Simulation().as_dict()],
            "properties": {
                name: {"type": "object", "additionalProperties": {"type": "integer"}}
                if isinstance(value, dict)
                else {"type": "integer" if isinstance(value, int) else "string"}
                for name, value in Simulation().as_dict().items()
            },
        },
        "SpendBody": _body_schema(_SPEND, ("amount",)),
        "BatchBody": {
            "type": "object",
            "properties": {**shared, "spends": spends},
            "additionalProperties": False,
            "oneOf": [{"required": ["amounts"]}, {"required": ["spends"]}],
        },
        "CheckBody": _body_schema(_CHECK),
        "ReserveBody": _body_schema(_RESERVE, ("amount",)),
        "CommitBody": commit,
        "ReleaseBody": {"type": "object", "additionalProperties": False, "maxProperties": 0},
        "RecordBody": _body_schema(_SPEND, ("amount",)),
        "HaltBody": _body_schema(_HALT, ("pattern",)),
        "SimulateBody": _body_schema(_SIMULATE, ("policy",)),
    }
