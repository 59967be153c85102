"""One data subject request as its facts add up, and how it is projected. Pure.

The projection of a request is the list of its facts, in the order of their moments. So it can be made again from
the chains of any number of replicas in any order, and one rule, `SubjectRequest.of`, says what they add up to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from kiki.ledger.projected import projected
from kiki.ledger.store import SHARED, Write
from kiki.shield.deadline import Pause, Regime
from kiki.shield.dsr import Kind, State, Step
from kiki.shield.fact import RequestChanged

REQUEST: Final = SHARED + "request"
"""The space of requests: from the id to the facts."""
REQUEST_OPEN: Final = SHARED + "request_open"
"""From a person and a kind to the request that is open: there is one at most."""
REQUEST_KEY: Final = SHARED + "request_key"
"""From the keyed hash of an idempotency key to the request that it made."""


class Event(msgspec.Struct, array_like=True, frozen=True):
    """A fact of a request, and the entry that holds it."""

    chain: str
    seq: int
    fact: RequestChanged


class Kept(NamedTuple):
    """What stays in a system, and why."""

    reason: str
    """A word: legal_hold, tax_records, suppression."""
    article: str
    """The provision."""
    until: int | None = None
    """When it goes, as far as that is known."""
    records: int = 0
    readable: bool = True
    """False: only what names nobody, such as a keyed hash or ciphertext whose key is destroyed."""


class SystemOutcome(msgspec.Struct):
    """What became of one system, as far as the request has come."""

    located: int | None = None
    restricted: bool = False
    rectified: int | None = None
    exported: int | None = None
    erased: int | None = None
    kept: list[Kept] = []
    checked: bool = False
    """It was read back, and nothing was left."""
    left: int = 0
    failure: str = ""
    """Why its last attempt failed; empty once it succeeded."""
    failures: int = 0
    """In a row."""

    @property
    def has_exception(self) -> bool:
        """Whether something stays in which the person can still be read."""
        return any(kept.readable for kept in self.kept)


class SubjectRequest(msgspec.Struct):
    """A request as its facts add up. Moments are microseconds since the epoch."""

    id: str
    kind: Kind
    subject: str
    """The person's reference in the ledger: random, 32 hexadecimal digits."""
    state: State
    received_at: int
    regimes: tuple[Regime, ...]
    events: list[Event]
    network: str = ""
    purposes: tuple[str, ...] = ()
    acknowledged_at: int | None = None
    verified_at: int | None = None
    verified_by: str = ""
    """How: `code`, `operator`, or `none` where no proof was needed."""
    pauses: list[Pause] = []
    extended: dict[Regime, int] = {}
    assignee: str = ""
    code: RequestChanged | None = None
    """The one-time code that was sent last."""
    codes: int = 0
    code_failures: int = 0
    """Wrong answers to that code."""
    run: tuple[str, int] | None = None
    """The entry that started the run in which it is, or was last."""
    touched_at: int = 0
    """When its last fact was written."""
    next_attempt_at: int | None = None
    attempts: int = 0
    """Runs in a row that could not finish."""
    systems: dict[str, SystemOutcome] = {}
    package: bytes = b""
    """SHA-256 of what was handed over."""
    closed_at: int | None = None
    article: str = ""
    held: tuple[str, ...] = ()
    """The matters of the legal holds that stopped a deletion."""
    key: bytes = b""

    @property
    def place(self) -> tuple[str, int]:
        """Where the entry lies that received it: its sealed part has who and what in words."""
        return self.events[0].chain, self.events[0].seq

    @property
    def has_exceptions(self) -> bool:
        """Whether any system keeps something in which the person can still be read."""
        return any(outcome.has_exception for outcome in self.systems.values())

    @property
    def rounds(self) -> int:
        """How often it had to begin again: something was found after its erasure, or a legal hold was lifted."""
        return sum(
            event.fact.step == Step.REOPENED or (event.fact.step == Step.CHECKED and event.fact.count > 0)
            for event in self.events
        )

    def outcome(self, system: str) -> SystemOutcome:
        """What became of a system so far."""
        return self.systems.get(system, _NOTHING_YET)

    @classmethod
    def of(cls, events: Sequence[Event]) -> SubjectRequest | None:
        """What facts add up to, in the order of their moments; None when the first is not there."""
        if not events or events[0].fact.step != Step.RECEIVED:
            return None
        first = events[0].fact
        request = cls(
            id=first.request,
            kind=Kind(first.kind),
            subject=first.subject,
            state=State(first.state),
            received_at=first.at if first.received_at is None else first.received_at,
            regimes=tuple(Regime(word) for word in first.regime.split()),
            events=list(events),
            network=first.network,
            purposes=tuple(first.purposes),
            pauses=[],
            extended={},
            systems={},
            key=first.key,
        )
        if request.state is State.VERIFIED:
            request.verified_at, request.verified_by = first.at, "none"
        for event in events:
            request._add(event)
        return request

    def _add(self, event: Event) -> None:
        fact, step = event.fact, Step(event.fact.step)
        self.state, self.touched_at = State(fact.state), fact.at
        if step is Step.CODE_SENT:
            self.code, self.code_failures = fact, 0
            self.codes += 1
        elif step is Step.CODE_FAILED:
            self.code_failures += 1
        elif step is Step.VERIFIED:
            self.verified_at, self.verified_by, self.code = fact.at, fact.outcome, None
            self._end_pause(fact.at)
        elif step is Step.PAUSED:
            self.pauses.append(Pause(fact.at))
        elif step is Step.RESUMED:
            self._end_pause(fact.at)
        elif step is Step.ACKNOWLEDGED:
            self.acknowledged_at = self.acknowledged_at or fact.at
        elif step is Step.EXTENDED:
            for word in fact.regime.split():
                self.extended[Regime(word)] = fact.at
        elif step is Step.ASSIGNED:
            self.assignee = fact.outcome
        elif step is Step.STARTED:
            self.run, self.next_attempt_at = (event.chain, event.seq), None
        elif step is Step.PACKED:
            self.package = fact.digest
        elif step is Step.WAITING:
            self.next_attempt_at = fact.until
            self.attempts += 1
        elif step is Step.REOPENED:
            # What was kept for the hold's sake is to be erased now: every system is gone through again.
            self.closed_at, self.held, self.systems, self.attempts = None, (), {}, 0
        elif fact.system:
            self._add_outcome(fact, step)
        if not self.state.is_open:
            self.closed_at, self.article = fact.at, fact.article
            self._end_pause(fact.at)

    def _end_pause(self, at: int) -> None:
        self.pauses = [pause if pause.until is not None else pause._replace(until=at) for pause in self.pauses]

    def _add_outcome(self, fact: RequestChanged, step: Step) -> None:
        found = self.systems.setdefault(fact.system, SystemOutcome(kept=[]))
        if step is Step.FAILED:
            found.failure = fact.outcome
            found.failures += 1
            return
        if step is Step.LOCATED:
            found.located = fact.count
        elif step is Step.RESTRICTED:
            found.restricted = True
        elif step is Step.RECTIFIED:
            found.rectified = fact.count
        elif step is Step.EXPORTED:
            found.exported = fact.count
        elif step is Step.KEPT:
            kept = Kept(fact.outcome, fact.article, fact.until, fact.count, fact.readable)
            found.kept = [*(one for one in found.kept if one.reason != kept.reason), kept]
            if kept.reason == LEGAL_HOLD:
                self.held = tuple(dict.fromkeys((*self.held, *fact.purposes)))
        elif step is Step.ERASED:
            # Of something erased twice, because it was still found, all of it counts.
            found.erased = (found.erased or 0) + fact.count
            found.left, found.checked = 0, False
        elif step is Step.CHECKED:
            found.left, found.checked = fact.count, fact.count == 0
            if fact.count:
                found.failure = "still_found"
                found.failures += 1
                return
        found.failure, found.failures = "", 0


LEGAL_HOLD: Final = "legal_hold"
"""The reason of what stays because of a legal hold; its matter's references stand in the fact's `purposes`."""
_NOTHING_YET: Final = SystemOutcome()

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Event]).decode


# -- where it is kept --------------------------------------------------------------------------------


def request_key(request: str) -> bytes:
    """Under which a request is kept; ids sort by the moment of receipt."""
    return request.encode()


def open_key(subject: str, kind: str) -> bytes:
    """Under which the open request of one person and kind is kept."""
    return bytes.fromhex(subject) + kind.encode()


def read_events(value: bytes | None) -> list[Event]:
    """The facts in a projected value."""
    return [] if value is None else projected(_decode, value, "a request")


def read_request(value: bytes | None) -> SubjectRequest | None:
    """The request in a projected value."""
    return SubjectRequest.of(read_events(value))


def writes_of(fact: RequestChanged, chain: str, seq: int, known: bytes | None) -> list[Write]:
    """The projections of a fact that is entry `seq` of `chain`: the one rule for writing and for rebuilding them.

    `known` is the projected value of the request before it. A fact that is known already changes nothing.
    """
    added = Event(chain, seq, fact)
    events = [one for one in read_events(known) if (one.chain, one.seq) != (chain, seq)]
    events.append(added)
    events.sort(key=lambda one: (one.fact.step != Step.RECEIVED, one.fact.at, one.chain, one.seq))
    writes = [Write(REQUEST, request_key(fact.request), _encode(events))]
    request = SubjectRequest.of(events)
    if request is not None:
        is_open = request.state.is_open
        held_by = request.id.encode() if is_open else None
        writes.append(Write(REQUEST_OPEN, open_key(fact.subject, fact.kind), held_by))
    if fact.key:
        writes.append(Write(REQUEST_KEY, fact.key, fact.request.encode()))
    return writes
