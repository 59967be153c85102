"""How a reservation ends: what the window's answer to a commit or release comes to, and what is said when it had ended before."""

from __future__ import annotations

from kiki.clock import Clock
from kiki.errors import CommitExceedsHold, HoldClosed, HoldUnknown
from kiki.money import format_micros
from kiki.shield.call import Call
from kiki.shield.decision import Decision
from kiki.shield.fact import EXPIRE, Decided, Settled
from kiki.shield.projections import Projections
from kiki.shield.window import Answer, Verb

SETTLING = (Verb.COMMIT, Verb.RELEASE)


def settlement(call: Call, answer: Answer, kept: Projections, clock: Clock) -> Settled | Decision:
    """The fact of an end that is new, or the first answer again; raises what keeps the hold from ending so."""
    if answer.repeated or isinstance(answer.error, HoldUnknown):
        settled = _settled_before(call, answer, kept, clock)
        if settled is not None:
            return settled
    if answer.error is not None:
        raise answer.error
    hold = kept.holds.get(call.hold)
    return _settled(
        call,
        answer,
        scopes=[list(hold.scopes)] if hold else [],
        reserved=answer.reserved,
        charged=answer.charged,
        late=answer.late,
    )


def _settled_before(call: Call, answer: Answer, kept: Projections, clock: Clock) -> Settled | Decision | None:
    """For a hold that is no longer open: the first answer, or what a late settlement comes to."""
    seq = kept.settlement_of(call.hold)
    if seq is not None:
        fact = kept.fact(seq)
        if isinstance(fact, Settled) and fact.verb != EXPIRE:
            if fact.verb == call.verb and fact.actual == call.amounts[0]:
                return Decision(seq, fact, repeated=True)
            done = "released" if fact.verb == Verb.RELEASE else f"committed with {format_micros(fact.actual)}"
            raise HoldClosed(f"reservation {call.hold} was already {done}")
    made = kept.making_of(call.hold)
    reserved = kept.fact(made) if made is not None else None
    if answer.repeated or not isinstance(reserved, Decided) or reserved.deadline is None or reserved.refused:
        return None
    if call.amounts[0] > reserved.amounts[0]:
        raise CommitExceedsHold(
            f"{format_micros(call.amounts[0])} is more than the {format_micros(reserved.amounts[0])} that was "
            "reserved, all of which was spent at the deadline",
            hint="record what went beyond it",
        )
    answer.at = answer.at or clock()
    return _settled(call, answer, scopes=list(reserved.scopes), reserved=reserved.amounts[0], charged=0, late=True)


def _settled(
    call: Call, answer: Answer, *, scopes: list[list[str]], reserved: int, charged: int, late: bool
) -> Settled:
    return Settled(
        verb=call.verb,
        at=answer.at,
        epoch=answer.epoch,
        sequence=answer.sequence,
        hold=call.hold,
        charged=charged,
        reserved=reserved,
        scopes=scopes,
        late=late,
        actual=call.amounts[0],
        actor=call.actor,
        network=call.origin.network if call.origin else "",
    )
