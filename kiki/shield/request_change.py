"""From what is done about a request to a change: checked and written down when its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from kiki.errors import Conflict, KeyReused, KikiError, NotFound
from kiki.ledger.entry import Sealed
from kiki.shield.change import Change, Turn
from kiki.shield.consent import State as ConsentWord
from kiki.shield.consent_change import consent_changes, person_of, said
from kiki.shield.consent_record import ConsentRecord
from kiki.shield.deadline import Deadline, Regime, WorkCalendar, answer_due, deadlines
from kiki.shield.dsr import Kind, State, Step, follow, new_request_id
from kiki.shield.fact import RequestChanged
from kiki.shield.network import coarsened
from kiki.shield.subject_request import (
    REQUEST,
    REQUEST_KEY,
    REQUEST_OPEN,
    SubjectRequest,
    open_key,
    read_request,
    request_key,
    writes_of,
)


class RequestDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is sealed beside a step: readable until the person is erased."""

    customer: str = ""
    requested_by: str = ""
    details: str = ""
    """What the person wrote."""
    agent: str = ""
    """Who acts for the person."""
    agent_proof: str = ""
    """What shows that the agent may: where the signed permission lies."""
    corrections: dict[str, str] = {}
    """Of a rectification: the fields and their right values."""
    note: str = ""
    """Why somebody did this step."""
    ip: str = ""
    agent_software: str = ""
    """The User-Agent header."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(RequestDetails).decode


def write_details(details: RequestDetails) -> bytes:
    """The bytes that are sealed."""
    return _encode(details)


def read_details(text: bytes) -> RequestDetails:
    """What `write_details` wrote, after it was opened."""
    return _decode(text)


class Asked(NamedTuple):
    """A request as it came in, read and checked."""

    customer: str
    kind: Kind
    regimes: tuple[Regime, ...]
    purposes: tuple[str, ...]
    details: RequestDetails
    received_at: int | None = None
    actor: str = ""
    key: str = ""


class Created(NamedTuple):
    """What became of a request that came in."""

    request: SubjectRequest
    is_new: bool
    consents: Sequence[ConsentRecord] = ()
    """Of an objection or opt-out: what holds now."""


class Clocks(NamedTuple):
    """The calendars of the laws, and the clocks of a request by them."""

    calendars: Mapping[Regime, WorkCalendar]

    def of(self, request: SubjectRequest, now: int) -> list[Deadline]:
        """Everything that is or was due for a request; of one that is closed, as it was then."""
        return deadlines(
            request.regimes,
            request.received_at,
            now if request.closed_at is None else request.closed_at,
            opts_out=not request.kind.needs_identity,
            pauses=request.pauses,
            extended=request.extended,
            calendars=self.calendars,
        )


# -- coming in ---------------------------------------------------------------------------------------


def create_change(asked: Asked, clocks: Clocks, random: Callable[[], bytes], purposes: Sequence[str]) -> Change:
    """A change whose result is `Created`. An open request of the same person and kind is answered instead."""
    person = person_of(asked.customer)

    def act(turn: Turn) -> Created:
        known = _known(turn, asked)
        if known is not None:
            return Created(known, is_new=False)
        reference = turn.persons[person].reference
        number = turn.get(REQUEST_OPEN, open_key(reference, asked.kind))
        request = None if number is None else read_request(turn.get(REQUEST, number))
        if request is not None and request.state.is_open:
            return Created(request, is_new=False)
        made = _receive(turn, asked, clocks, random)
        return Created(made, is_new=True, consents=_stopped(turn, asked, made, purposes))

    return Change(act, [person])


def _known(turn: Turn, asked: Asked) -> SubjectRequest | None:
    """The request that this idempotency key made."""
    number = turn.get(REQUEST_KEY, turn.subjects.keyed_hash(asked.key)) if asked.key else None
    request = None if number is None else read_request(turn.get(REQUEST, number))
    if request is None:
        return None
    same = request.subject == turn.persons[person_of(asked.customer)].reference
    # Of a person who was erased nobody can tell any more who it was: the repeat of a finished deletion is no new one.
    if request.kind is asked.kind and (same or turn.subjects.person_of(request.subject) is None):
        return request
    raise KeyReused(
        "this idempotency key was already used for a different request",
        hint="send the first request again unchanged, or use a new key",
    )


def _receive(turn: Turn, asked: Asked, clocks: Clocks, random: Callable[[], bytes]) -> SubjectRequest:
    person = turn.persons[person_of(asked.customer)]
    number = new_request_id(turn.now, random())
    while turn.get(REQUEST, request_key(number)) is not None:
        number = new_request_id(turn.now, random())
    state = State.RECEIVED if asked.kind.needs_identity else State.VERIFIED
    fact = RequestChanged(
        at=turn.now,
        request=number,
        subject=person.reference,
        kind=asked.kind,
        step=Step.RECEIVED,
        state=state,
        regime=" ".join(asked.regimes),
        purposes=list(asked.purposes),
        actor=asked.actor,
        network=coarsened(asked.details.ip) if asked.details.ip else "",
        key=turn.subjects.keyed_hash(asked.key) if asked.key else b"",
        received_at=asked.received_at,
    )
    fact = msgspec.structs.replace(fact, due_at=_due(_after(turn, fact, None), clocks, turn.now))
    return _write(turn, fact, None, [turn.subjects.seal(person, write_details(asked.details))])


def _stopped(turn: Turn, asked: Asked, made: SubjectRequest, purposes: Sequence[str]) -> Sequence[ConsentRecord]:
    """What an objection or opt-out stops is stopped at once, in the same commit as its receipt."""
    many = [
        said(
            asked.customer,
            purpose,
            ConsentWord.DENIED,
            turn.now,
            purposes,
            method="request",
            note=f"request {made.id}",
            actor=asked.actor,
            ip_address=asked.details.ip,
        )
        for purpose in asked.purposes
    ]
    done: list[ConsentRecord] = []
    for record in consent_changes(many).act(turn):
        if isinstance(record, KikiError):
            raise record
        done.append(record)
    return done


# -- taking a step -----------------------------------------------------------------------------------


def step_change(
    request: str,
    step: Step,
    clocks: Clocks,
    *,
    state: State | None = None,
    note: RequestDetails | None = None,
    check: Callable[[SubjectRequest, Turn], None] | None = None,
    **fields: Any,
) -> Change:
    """A change whose result is the `SubjectRequest` after a step; `fields` are those of its fact.

    `check` may raise what speaks against it. The result of the change raises `NotFound` or `Conflict`.
    """

    def act(turn: Turn) -> SubjectRequest:
        value = turn.get(REQUEST, request_key(request))
        known = read_request(value)
        if known is None:
            raise NotFound(f"there is no request {request}", hint="list them: kiki dsr list")
        after = follow(request, known.state, step, state)
        if check is not None:
            check(known, turn)
        return take_step(turn, known, step, after, clocks, note=note, **fields)

    return Change(act)


def take_step(
    turn: Turn,
    known: SubjectRequest,
    step: Step,
    state: State,
    clocks: Clocks,
    *,
    note: RequestDetails | None = None,
    **fields: Any,
) -> SubjectRequest:
    """Write down a step in a turn; the request after it."""
    # The order of facts is that of their moments, whatever another replica's clock said.
    follows_another = known.events[-1].chain != turn.chain
    fact = RequestChanged(
        at=max(turn.now, known.touched_at + follows_another),
        request=known.id,
        subject=known.subject,
        kind=known.kind,
        step=step,
        state=state,
        **fields,
    )
    value = turn.get(REQUEST, request_key(known.id))
    fact = msgspec.structs.replace(fact, due_at=_due(_after(turn, fact, value), clocks, turn.now))
    return _write(turn, fact, value, [] if note is None else [_sealed(turn, known.subject, write_details(note))])


class Taken(NamedTuple):
    """One step of a run that was done, ready to be written down."""

    step: Step
    system: str = ""
    records: int = 0
    outcome: str = ""
    article: str = ""
    until: int | None = None
    digest: bytes = b""
    readable: bool = False
    purposes: Sequence[str] = ()
    state: State | None = None
    note: RequestDetails | None = None


def run_change(request: str, run: tuple[str, int], taken: Sequence[Taken], clocks: Clocks, actor: str) -> Change:
    """A change that writes down what a run did, all in one commit; its result is the `SubjectRequest` afterwards.

    The result raises `Conflict` when another run has taken over: what this one did since is not written down.
    """

    def act(turn: Turn) -> SubjectRequest:
        known = read_request(turn.get(REQUEST, request_key(request)))
        if known is None or known.run != run:
            raise Conflict(f"request {request} is run by somebody else now", hint="look at it again later")
        for each in taken:
            after = follow(request, known.state, each.step, each.state)
            known = take_step(
                turn,
                known,
                each.step,
                after,
                clocks,
                note=each.note,
                system=each.system,
                count=each.records,
                outcome=each.outcome,
                article=each.article,
                until=each.until,
                digest=each.digest,
                readable=each.readable,
                purposes=list(each.purposes),
                run=list(run),
                actor=actor,
            )
        return known

    return Change(act)


def _sealed(turn: Turn, subject: str, text: bytes) -> Sealed:
    person = turn.subjects.person_of(subject)
    # Of an erased person nothing may be sealed anew: what is said then is nobody's, and ends with its segment.
    return turn.subjects.seal_for_segment(text) if person is None else turn.subjects.seal(person, text)


def _write(turn: Turn, fact: RequestChanged, value: bytes | None, sealed: Sequence[Sealed]) -> SubjectRequest:
    writes = writes_of(fact, turn.chain, turn.next_seq, value)
    turn.add(fact, writes, sealed)
    return _read(writes[0].value)


def _after(turn: Turn, fact: RequestChanged, value: bytes | None) -> SubjectRequest:
    return _read(writes_of(fact, turn.chain, turn.next_seq, value)[0].value)


def _read(value: bytes | None) -> SubjectRequest:
    request = read_request(value)
    assert request is not None
    return request


def _due(request: SubjectRequest, clocks: Clocks, now: int) -> int | None:
    return answer_due(clocks.of(request, now))
