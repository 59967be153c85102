"""What a call and the window's answer come to as a fact, and what a repeat of the call is told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from kiki.errors import KeyReused
from kiki.shield.budget import Refusal
from kiki.shield.call import Call
from kiki.shield.decision import Decision
from kiki.shield.fact import ConsentUsed, Decided, Fact, Refused
from kiki.shield.persons import NOBODY
from kiki.shield.scope import Scopes
from kiki.shield.window import Answer, Ask


def first_answer(fact: Fact, seq: int, call: Call, scopes: tuple[Scopes, ...], chain: str = "") -> Decision:
    """The first answer again; raises `KeyReused` when this call is not the one that it was given to."""
    if (
        isinstance(fact, Decided)
        and fact.verb == call.verb
        and fact.amounts == call.amounts
        and fact.ltv == call.ltv
        and fact.hold_span == call.hold_span
        and fact.purpose == call.purpose
        and [tuple(each) for each in fact.scopes] == list(scopes)
    ):
        return Decision(seq, fact, repeated=True, chain=chain)
    raise KeyReused(
        "this idempotency key was already used for a different request",
        hint="send the first request again unchanged, or use a new key",
    )


def request_of(call: Call, refused: Iterable[int]) -> bytes:
    """All that `first_answer` compares in one form, and what was refused already: for a window that compares it itself."""
    parts = [call.verb, call.amounts, call.scopes, call.hold_span, call.ltv, call.purpose, list(refused)]
    return msgspec.msgpack.encode(parts)


def without(ask: Ask, refused: Mapping[int, Refusal]) -> Ask:
    """What is left to ask the window for, when some amounts of a batch are refused already."""
    kept = [index for index in range(len(ask.amounts)) if index not in refused]
    many = len(ask.scopes) > 1
    scopes = (
        tuple(ask.scopes[index] for index in kept)
        if many and len(kept) > 1
        else ((ask.scopes[kept[0] if many else 0],))
    )
    return Ask(ask.verb, [ask.amounts[index] for index in kept], scopes, persons=ask.persons)


def merged(answer: Answer, refused: Mapping[int, Refusal], count: int) -> Answer:
    """The window's answer with the places of the whole batch, and what was refused before it."""
    kept = [index for index in range(count) if index not in refused]
    answer.refusals = {**refused, **{kept[index]: refusal for index, refusal in answer.refusals.items()}}
    return answer


def decided_fact(
    call: Call, scopes: Iterable[Scopes], answer: Answer, key: bytes, consents: list[ConsentUsed]
) -> Decided:
    """What was decided about each amount of a call."""
    refusals = answer.refusals
    return Decided(
        verb=call.verb,
        at=answer.at,
        epoch=answer.epoch,
        sequence=answer.sequence,
        scopes=[[]] if scopes == NOBODY else [list(each) for each in scopes],
        amounts=call.amounts,
        refused=[refused_fact(index, refusal) for index, refusal in refusals.items()] if refusals else [],
        key=key,
        hold=answer.hold,
        deadline=answer.deadline,
        ltv=call.ltv,
        actor=call.actor,
        repeated=answer.repeated,
        hold_span=call.hold_span,
        network=call.origin.network if call.origin else "",
        purpose=call.purpose,
        consents=consents,
    )


def refused_fact(index: int, refusal: Refusal) -> Refused:
    """Why one amount was not admitted."""
    return Refused(
        index,
        refusal.reason,
        refusal.budget or "",
        refusal.scope or "",
        refusal.span,
        refusal.limit,
        refusal.remaining,
        refusal.retry_at,
        refusal.purpose,
    )
