"""The requests of a ledger, as the desk and its parts read them and write steps down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kiki.errors import Conflict, NotFound, Unavailable, Unreadable
from kiki.ledger.exhibit import OTHERS_CHECKPOINT
from kiki.ledger.ledger import CHECKPOINTS, read_entries
from kiki.shield.change import Change
from kiki.shield.consent_words import parse_text
from kiki.shield.decider import Decider
from kiki.shield.dsr import DETAILS_LENGTH_MAX, Step, parse_request_id
from kiki.shield.erasing import erasing_person
from kiki.shield.request_change import Clocks, RequestDetails, read_details, step_change
from kiki.shield.request_proof import make_request_proof
from kiki.shield.subject_request import REQUEST, SubjectRequest, read_request, request_key


class RequestBook:
    """Finds requests, and takes steps in them. Thread-safe; what it returns after a change is durable."""

    def __init__(self, decider: Decider, clocks: Clocks) -> None:
        self.decider = decider
        self.clocks = clocks

    def find(self, request: str) -> SubjectRequest:
        """One request; raises `InvalidInput`, `NotFound`."""
        number = parse_request_id(request)
        found = read_request(self.decider.ledger.store.get(REQUEST, request_key(number)))
        if found is None:
            raise NotFound(f"there is no request {number}", hint="list them: kiki dsr list")
        return found

    def all(self) -> Iterator[SubjectRequest]:
        """Every request in the order of receipt; memory does not grow with their number."""
        for _, value in self.decider.ledger.store.scan(REQUEST):
            request = read_request(value)
            if request is not None:
                yield request

    def person(self, request: SubjectRequest) -> str | None:
        """The scope text of the person; None once erased, as soon as the erasure is complete."""
        subjects = self.decider.subjects
        return subjects.identity(request.subject) or erasing_person(subjects, request.subject)

    def details(self, request: SubjectRequest) -> RequestDetails | None:
        """What was sealed when the request came in; None when it cannot be read any more."""
        chain, seq = request.place
        reader = self.decider.reader_of(chain)
        entry = None if reader is None else next(read_entries(reader, seq, seq), None)
        if entry is None or not entry.sealed:
            return None
        try:
            return read_details(self.decider.subjects.open(entry.sealed[0]))
        except Unreadable:
            return None

    def step(self, request: str, step: Step, **fields: Any) -> SubjectRequest:
        """Take a step, see `step_change`; the request after it."""
        fields["actor"] = parse_text(fields.get("actor"), "actor")
        done: SubjectRequest = self.submit(step_change(parse_request_id(request), step, self.clocks, **fields))
        return done

    def submit(self, change: Change) -> Any:
        """The durable result of a change."""
        return self.decider.group.submit(change).result()

    def proof(self, request: str) -> str:
        """The signed proof of what became of a closed request; the same text each time.

        Raises `Conflict` while it is open, `Unavailable` while no checkpoint covers a fact of another replica.
        """
        known = self.find(request)
        signer = self.decider.ledger.signer
        if signer is None:
            raise Conflict("this ledger has no key to sign with", hint="open it as a service does")
        last: dict[str, int] = {}
        for event in known.events:
            last[event.chain] = max(event.seq, last.get(event.chain, -1))
        notes = {chain: self._covering(chain, seq) for chain, seq in last.items()} if known.closed_at else {}
        return make_request_proof(known, self.clocks.of(known, self.decider.clock()), notes, signer)

    def _covering(self, chain: str, seq: int) -> bytes:
        """The first checkpoint of a chain that covers an entry."""
        ledger, after = self.decider.ledger, seq.to_bytes(8, "big")
        reader = self.decider.reader_of(chain)
        found = None if reader is None else next(reader.scan(CHECKPOINTS, after), None)
        if found is None and chain == ledger.chain:
            ledger.checkpoint()
            found = next(ledger.store.scan(CHECKPOINTS, after), None)
        if found is None:
            raise Unavailable(
                f"no checkpoint of chain {chain} covers entry {seq} yet", hint=OTHERS_CHECKPOINT, retry_after=10.0
            )
        return found[1]


def noted(note: str) -> RequestDetails | None:
    """What is sealed beside a step that somebody explains; raises `InvalidInput`."""
    said = parse_text(note, "note", DETAILS_LENGTH_MAX, lines=True)
    return RequestDetails(note=said) if said else None
