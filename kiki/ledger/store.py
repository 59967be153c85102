"""What a ledger store does: append entries and keep projections, in one durable transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from kiki.errors import LedgerUnavailable


class Write(NamedTuple):
    """One change of a projection: `value` None removes the key."""

    space: str
    key: bytes
    value: bytes | None


class Reader(Protocol):
    """Looks at a ledger without owning it."""

    def entries(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Entries in order from `first` to `last` inclusive; memory does not grow with their number."""
        ...

    def next_seq(self) -> int:
        """One more than the last entry's sequence, 0 when there is none."""
        ...

    def get(self, space: str, key: bytes) -> bytes | None:
        """The value of one projected key."""
        ...

    def scan(self, space: str) -> Iterator[tuple[bytes, bytes]]:
        """Every key of a space with its value, in the order of the keys' bytes."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


class Store(Reader, Protocol):
    """Owns a ledger. One caller of `commit` and `trim` at a time; reads may come from any thread.

    When `commit` returns, everything is durable: it survives the process and, as far as the disk tells
    the truth, the power. When it raises `LedgerUnavailable`, its fate is unknown until `reopen`.
    """

    def commit(self, entries: Sequence[tuple[int, bytes]], writes: Iterable[Write] = ()) -> None:
        """Write entries and projections in one transaction."""
        ...

    def spaces(self) -> list[str]:
        """The names of all projections."""
        ...

    def trim(self, space: str, most: int = 1000) -> int:
        """Remove up to `most` keys of a space; how many were removed."""
        ...

    def reopen(self) -> None:
        """Read from the disk anew what is there; raises `LedgerUnavailable` when that fails."""
        ...


def require_dense(entries: Sequence[tuple[int, bytes]], following: int) -> None:
    """Raise `LedgerUnavailable` unless the entries go on from `following` without a hole."""
    for expected, (seq, _) in enumerate(entries, following):
        if seq != expected:
            raise LedgerUnavailable(f"entry {seq} cannot follow {expected - 1}: a chain has no holes and one writer")
