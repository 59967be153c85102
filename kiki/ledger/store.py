"""What a ledger store does: append entries and keep projections, in one durable transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol

from kiki.errors import LedgerUnavailable

SHARED: Final = "shared/"
"""What the name of a space begins with that belongs to every chain of a store, not to the writer's own."""


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

    def first_seq(self) -> int:
        """The lowest sequence that is still there: what came before was pruned. 0 when nothing was."""
        ...

    def next_seq(self) -> int:
        """One more than the last entry's sequence, 0 when there is none."""
        ...

    def get(self, space: str, key: bytes) -> bytes | None:
        """The value of one projected key."""
        ...

    def get_many(self, space: str, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that are there, in one round trip."""
        ...

    def scan(self, space: str, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The keys of a space that come after `after`, with their values, in the order of the keys' bytes."""
        ...

    def last(self, space: str) -> tuple[bytes, bytes] | None:
        """The highest key of a space with its value."""
        ...

    def spaces(self) -> list[str]:
        """The names of all projections."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


class Store(Reader, Protocol):
    """Owns a ledger. One caller of what changes it at a time; reads may come from any thread.

    When `commit`, `add` or `erase` returns, everything is durable: it survives the process and, as far as the disk
    tells the truth, the power. When it raises `LedgerUnavailable`, its fate is unknown until `reopen`.
    """

    is_shared: bool
    """True where other processes may write other chains and the shared spaces beside this one."""

    def commit(
        self,
        entries: Sequence[tuple[int, bytes]],
        writes: Iterable[Write] = (),
        *,
        under_epoch: tuple[str, int] | None = None,
    ) -> None:
        """Write entries and projections in one transaction.

        `under_epoch` is for stores that many share: a shared window, and the epoch of it in which the entries were
        decided. It raises `EpochPassed` and writes nothing when that epoch is over.
        """
        ...

    def add(self, space: str, rows: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Write the keys that are absent; what stands afterwards for each. Of two who race, the first wins."""
        ...

    def erase(self, space: str, keys: Iterable[bytes]) -> None:
        """Remove keys so that their bytes are gone from the store's own files, not only unlinked."""
        ...

    def traces(self, needles: Iterable[bytes]) -> list[str]:
        """The store's own files in which any of these bytes stand anywhere; empty where it has none to look into."""
        ...

    def compact(self) -> None:
        """Write the store's files anew without what was removed."""
        ...

    def prune(self, before: int) -> None:
        """Remove the entries below `before`; the last entry always stays."""
        ...

    def shared_turn(self) -> AbstractContextManager[None]:
        """While it lasts, nobody else who takes it reads and changes the shared spaces."""
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
