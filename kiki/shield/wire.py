"""SyncShield's wire: how answers look as JSON, there and back. `wire_call` has the requests, `wire_schema` the schemas.

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
| `POST /v1/spends` | amount, currency?, scopes?, key?, purpose? | 200 outcome; 403 refusal; 409 key_reused |
| `POST /v1/spends:batch` | amounts or spends (of amount, scopes?), currency?, scopes?, key?, purpose? | 200 batch |
| `POST /v1/checks` | amount?, currency?, scopes?, ltv?, purpose? | 200 outcome, whether allowed or not |
| `POST /v1/reservations` | amount, currency?, scopes?, key?, seconds?, purpose? | 201 reservation; 403 refusal |
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

The guide's routes, in plain text unless JSON is asked for: `GET|POST /spend?amount=&currency=&scope=&purpose=` answers 200
`Spend recorded: 10.00` or 403 `Spend refused: <explanation>`, its POST may carry the body of `/v1/spends` instead;
`/check?ltv=&amount=&currency=&scope=&purpose=` answers 200 `Compliance check passed` or 403 `Bid validation failed`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from kiki.clock import SECOND, to_iso
from kiki.errors import (
    ConfigurationError,
    ConsentDenied,
    EvidenceInvalid,
    InvalidInput,
    KikiError,
    MissingExtra,
    SpendDenied,
    Unavailable,
)
from kiki.money import format_micros, parse_micros
from kiki.shield.decision import Decision, Outcome
from kiki.shield.fact import Decided, Halted, Settled
from kiki.shield.scope import Scopes, parse_scopes
from kiki.shield.simulation import Simulation
from kiki.shield.window import MeterStatus, OpenHold
from kiki.shield.wire_members import quoted

JSON_TYPE: Final = "application/json"
PROBLEM_TYPE: Final = "application/problem+json"
KEY_HEADER: Final = "Idempotency-Key"
REPLAYED_HEADER: Final = "Idempotency-Replayed"
PROBLEM_URN: Final = "urn:kiki:error:"


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
        return micros_or_none(self.retry_moment)

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
            micros_or_none(self.deadline),
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
            micros_or_none(self.room_at),
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
        window_seconds=seconds_of(refused.span) if refused.span else None,
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
        window_seconds=seconds_of(status.span),
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
    if issubclass(kind, ConsentDenied):
        return kind(message or title_of(kind), purpose=str(found.get("purpose", "")), state=str(found.get("state", "")))
    if issubclass(kind, EvidenceInvalid):
        place = str(found.get("place", ""))
        return kind((message or title_of(kind)).removeprefix(f"{place}: "), place=place, hint=hint)
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


def parse_simulation(found: Mapping[str, Any]) -> Simulation:
    """The figures that `Simulation.as_dict` wrote; raises `ValueError`, `TypeError` or `KeyError` for others."""
    simulation = Simulation()
    for name in ("decisions", "admitted", "refused", "newly_refused", "newly_admitted"):
        setattr(simulation, name, int(found[name]))
    for name in ("admitted", "refused", "newly_refused", "newly_admitted"):
        setattr(simulation, f"{name}_micros", _any_micros(found[f"{name}_amount"]))
    simulation.refused_by_budget.update({str(name): int(count) for name, count in found["refused_by_budget"].items()})
    return simulation


def scopes_object(scopes: Scopes) -> dict[str, str]:
    """Canonical scopes as the object that requests carry."""
    return {kind: value for kind, _, value in (scope.partition(":") for scope in scopes)}


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
    raise InvalidInput(f"{quoted(text)} is not a moment: write RFC 3339 such as 2026-11-22T10:00:00Z{plus}")


def moment_micros(text: str) -> int:
    """The moment in RFC 3339 text, in microseconds since the epoch; the inverse of `kiki.clock.to_iso`."""
    return (parse_moment(text) - _EPOCH) // _MICROSECOND


def micros_or_none(text: str | None) -> int | None:
    """A moment as microseconds, where there is one."""
    return None if text is None else moment_micros(text)


def _iso_or_none(micros: int | None) -> str | None:
    return None if micros is None else to_iso(micros)


def seconds_of(span: int) -> int | float:
    """A span in microseconds as seconds, whole where they are."""
    return span // SECOND if span % SECOND == 0 else span / SECOND


def _any_micros(text: str) -> int:
    """What was counted: zero, and after a mistake of somebody else's even less than that."""
    return -parse_micros(text[1:], zero=True) if text.startswith("-") else parse_micros(text, zero=True)
