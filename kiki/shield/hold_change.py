"""From an order to preserve to a change: a legal hold that is put on or lifted, and what becomes of requests by it."""

from __future__ import annotations

from kiki.errors import NotFound
from kiki.shield.change import Change, Turn
from kiki.shield.dsr import State, Step, follow
from kiki.shield.fact import LegalHeld
from kiki.shield.legal_hold import LEGAL_HOLD, LegalHold, hold_key, read_hold, writes_of
from kiki.shield.request_change import Clocks, take_step
from kiki.shield.subject_request import REQUEST, REQUEST_OPEN, SubjectRequest, open_key, read_request, request_key


def hold_change(reference: str, person: str | None, actor: str) -> Change:
    """A change that puts a hold on a person (None: on everybody); its result is the `LegalHold`. Repeating it changes nothing."""

    def act(turn: Turn) -> LegalHold:
        subject = "" if person is None else turn.persons[person].reference
        key = hold_key(subject, reference)
        value = turn.get(LEGAL_HOLD, key)
        if value is None:
            fact = LegalHeld(turn.now, subject, on=True, reference=reference, actor=actor)
            (write,) = writes_of(fact, turn.chain, turn.next_seq)
            turn.add(fact, [write])
            value = write.value or b""
        return read_hold(key, value)

    return Change(act, [] if person is None else [person])


def lift_change(reference: str, subject: str, held: list[str], clocks: Clocks, actor: str) -> Change:
    """A change that lifts a hold; its result are the requests that can be run again because of it.

    `held` are the ids of requests that ended under this matter. The result raises `NotFound` when there is no such hold.
    """

    def act(turn: Turn) -> list[SubjectRequest]:
        key = hold_key(subject, reference)
        if turn.get(LEGAL_HOLD, key) is None:
            raise NotFound(f"there is no legal hold {reference!r} there", hint="list them: kiki dsr hold")
        fact = LegalHeld(turn.now, subject, on=False, reference=reference, actor=actor)
        turn.add(fact, writes_of(fact, turn.chain, turn.next_seq))
        others = {hold.reference for hold in _others(turn, subject, key)}
        reopened = [_reopened(turn, request, others, clocks, actor) for request in held]
        return [request for request in reopened if request is not None]

    return Change(act)


def _others(turn: Turn, subject: str, lifted: bytes) -> list[LegalHold]:
    """The holds that stay on beside the one that is lifted: of everybody, and of this person."""
    found = [read_hold(key, value) for key, value in turn.reader.scan(LEGAL_HOLD) if key != lifted]
    return [hold for hold in found if hold.subject in {"", subject}]


def _reopened(turn: Turn, request: str, others: set[str], clocks: Clocks, actor: str) -> SubjectRequest | None:
    known = read_request(turn.get(REQUEST, request_key(request)))
    if (
        known is None
        or known.state is not State.COMPLETED_WITH_EXCEPTIONS
        or not known.held
        or others & set(known.held)
    ):
        return None
    if turn.get(REQUEST_OPEN, open_key(known.subject, known.kind)) is not None:
        return None  # the person has asked again meanwhile: that request does it
    return take_step(turn, known, Step.REOPENED, follow(known.id, known.state, Step.REOPENED), clocks, actor=actor)
