"""SyncShield's wire: how answers look as JSON.

`wire_call` has the requests, `wire_answer` makes answers of decisions, `wire_problem` reads and names errors, `wire_moment`
has moments, `wire_schema` the schemas.

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

from typing import Any, Final, TypeVar

import msgspec

from kiki.clock import SECOND
from kiki.errors import (
    SpendDenied,
)
from kiki.money import parse_micros
from kiki.shield.scope import parse_scopes
from kiki.shield.window import MeterStatus, OpenHold
from kiki.shield.wire_moment import micros_or_none, moment_micros

JSON_TYPE: Final = "application/json"


KEY_HEADER: Final = "Idempotency-Key"


REPLAYED_HEADER: Final = "Idempotency-Replayed"


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
            any_micros(self.spent),
            any_micros(self.held),
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


def any_micros(text: str) -> int:
    """What was counted: zero, and after a mistake of somebody else's even less than that."""
    return -parse_micros(text[1:], zero=True) if text.startswith("-") else parse_micros(text, zero=True)
