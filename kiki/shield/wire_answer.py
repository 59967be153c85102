"""From what was decided to what is answered: pure, and the same bytes for the same fact, always."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from kiki.clock import to_iso
from kiki.errors import (
    SpendDenied,
)
from kiki.money import format_micros
from kiki.shield.decision import Decision, Outcome
from kiki.shield.fact import Decided, Halted, Settled
from kiki.shield.scope import Scopes
from kiki.shield.window import MeterStatus, OpenHold
from kiki.shield.wire import (
    BatchReply,
    BudgetsReply,
    DecisionsReply,
    HaltReply,
    MeterReply,
    OpenReservation,
    OutcomeReply,
    RefusalProblem,
    ReservationReply,
    ReservationsReply,
    SettlementReply,
    _encode,
)
from kiki.shield.wire_moment import seconds_of
from kiki.shield.wire_problem import PROBLEM_URN, title_of


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


Fact = TypeVar("Fact", Decided, Settled, Halted)


def _fact(decision: Decision, kind: type[Fact]) -> Fact:
    fact = decision.fact
    if not isinstance(fact, kind):
        raise TypeError(f"expected a {kind.__name__} fact, not a {type(fact).__name__}")
    return fact


def scopes_object(scopes: Scopes) -> dict[str, str]:
    """Canonical scopes as the object that requests carry."""
    return {kind: value for kind, _, value in (scope.partition(":") for scope in scopes)}


def _iso_or_none(micros: int | None) -> str | None:
    return None if micros is None else to_iso(micros)
