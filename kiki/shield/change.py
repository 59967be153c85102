"""A change that is no decision about money, on its way into the ledger: consent, requests, legal holds.

It takes its turn in the same batches as decisions, before them, so that one order holds for all: a decision
that is answered after a change was acknowledged has seen that change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from kiki.ledger.entry import Sealed
from kiki.ledger.ledger import Append
from kiki.ledger.store import Reader, Write
from kiki.ledger.subjects import Person, Subjects
from kiki.shield.fact import Fact

ABSENT: Final = object()


class Turn:
    """What a change may see and add while it has its turn. Nothing of it counts before the batch is durable."""

    def __init__(
        self, now: int, next_seq: int, chain: str, reader: Reader, subjects: Subjects, persons: Mapping[str, Person]
    ) -> None:
        self.now = now
        self.chain = chain
        self.subjects = subjects
        self.persons = persons
        """Every person that the change named in advance."""
        self._next = next_seq
        self.reader = reader
        """What is durable; `get` also sees what the changes before this one wrote."""
        self._written: dict[tuple[str, bytes], bytes | None] = {}
        self._journal: list[tuple[tuple[str, bytes], object]] = []
        self._dropped: list[tuple[str, bytes]] = []
        self.appends: list[Append] = []

    def get(self, space: str, key: bytes) -> bytes | None:
        """The projected value as it is after the changes that went before."""
        written = self._written.get((space, key), ABSENT)
        return self.reader.get(space, key) if written is ABSENT else written  # type: ignore[return-value]

    def get_many(self, space: str, keys: Collection[bytes]) -> dict[bytes, bytes]:
        """The same for those keys that are there, in one round trip."""
        absent = [key for key in keys if (space, key) not in self._written]
        found = self.reader.get_many(space, absent)
        written = {key: self._written[space, key] for key in keys if (space, key) in self._written}
        return found | {key: value for key, value in written.items() if value is not None}

    @property
    def next_seq(self) -> int:
        """The sequence that the next fact added will get."""
        return self._next + len(self.appends)

    def add(self, fact: Fact, writes: Sequence[Write] = (), sealed: Sequence[Sealed] = ()) -> int:
        """Write down a fact with its projections and sealed parts; the sequence it will have."""
        seq = self.next_seq
        for space, key, value in writes:
            self._write((space, key), value)
        self.appends.append(Append(fact, (lambda _: writes) if writes else None, sealed))
        return seq

    def drop(self, space: str, key: bytes) -> None:
        """Remove a projected value that no entry speaks of any more."""
        self._write((space, key), None)
        self._dropped.append((space, key))

    @property
    def dropped(self) -> list[Write]:
        """What is to be removed after the facts are durable: all that was dropped and not written again since."""
        return [Write(*place, None) for place in self._dropped if self._written[place] is None]

    def _write(self, place: tuple[str, bytes], value: bytes | None) -> None:
        self._journal.append((place, self._written.get(place, ABSENT)))
        self._written[place] = value

    def mark(self) -> tuple[int, int, int]:
        """Where a change begins, to go back to when it fails."""
        return len(self.appends), len(self._journal), len(self._dropped)

    def undo(self, mark: tuple[int, int, int]) -> None:
        """Forget what was added and dropped since the mark."""
        added, journaled, dropped = mark
        del self.appends[added:]
        del self._dropped[dropped:]
        while len(self._journal) > journaled:
            place, before = self._journal.pop()
            if before is ABSENT:
                del self._written[place]
            else:
                self._written[place] = before  # type: ignore[assignment]  # bytes or None: ABSENT was ruled out


class Change(msgspec.Struct):
    """One piece of work: `act` adds facts and returns what the caller gets once they are durable.

    It runs under the lock of all deciding: it must be quick and talk to nobody. A `KikiError` that it raises
    goes to its caller, and what it had added is forgotten.
    """

    act: Callable[[Turn], Any]
    persons: Sequence[str] = ()
    """Scope texts (`customer:c-1`) of those who must have a reference and a key before `act` runs."""
