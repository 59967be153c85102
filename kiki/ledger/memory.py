"""A ledger store that forgets with its process: for tests and for trying out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from kiki.errors import LedgerUnavailable
from kiki.ledger.store import Write, require_dense


class MemoryStore:
    """Keeps everything in memory. `fail` makes the next commits fail, as a full disk would."""

    is_shared = False

    def __init__(self) -> None:
        self._entries: list[bytes] = []
        self._first = 0
        self._spaces: dict[str, dict[bytes, bytes]] = {}
        self.fail: str | None = None
        self.recoverable = False
        """Whether a failure is one that leaves nothing behind, as that of a full disk."""
        self.commits = 0

    def commit(
        self,
        entries: Sequence[tuple[int, bytes]],
        writes: Iterable[Write] = (),
        *,
        under_epoch: tuple[str, int] | None = None,
    ) -> None:
        """Keep entries and projections."""
        self._require_working()
        require_dense(entries, self.next_seq())
        changes = list(writes)  # before anything is kept: making them may fail
        self._entries += [data for _, data in entries]
        for space, key, value in changes:
            if value is None:
                self._spaces.get(space, {}).pop(key, None)
            else:
                self._spaces.setdefault(space, {})[key] = value
        self.commits += 1

    def add(self, space: str, rows: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Keep the keys that are absent."""
        self._require_working()
        kept = self._spaces.setdefault(space, {})
        return {key: kept.setdefault(key, value) for key, value in rows.items()}

    def erase(self, space: str, keys: Iterable[bytes]) -> None:
        """Remove keys."""
        self._require_working()
        for key in keys:
            self._spaces.get(space, {}).pop(key, None)

    def traces(self, needles: Iterable[bytes]) -> list[str]:
        """Memory has no files."""
        return []

    def compact(self) -> None:
        """Nothing removed is kept."""

    def prune(self, before: int) -> None:
        """Remove the entries below `before`."""
        self._require_working()
        before = min(before, self.next_seq() - 1)
        if before > self._first:
            del self._entries[: before - self._first]
            self._first = before

    def shared_turn(self) -> AbstractContextManager[None]:
        """Nobody else has this store."""
        return nullcontext()

    def entries(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Entries in order."""
        seq = max(first, self._first)
        while seq < self.next_seq() and (last is None or seq <= last):
            yield seq, self._entries[seq - self._first]
            seq += 1

    def first_seq(self) -> int:
        """The lowest sequence that is still there."""
        return self._first

    def next_seq(self) -> int:
        """One more than the last entry's sequence."""
        return self._first + len(self._entries)

    def get(self, space: str, key: bytes) -> bytes | None:
        """The value of one projected key."""
        return self._spaces.get(space, {}).get(key)

    def get_many(self, space: str, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that are there."""
        kept = self._spaces.get(space, {})
        return {key: kept[key] for key in keys if key in kept}

    def scan(self, space: str, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The keys of a space after `after`, with their values."""
        yield from sorted(item for item in self._spaces.get(space, {}).items() if item[0] > after or not after)

    def last(self, space: str) -> tuple[bytes, bytes] | None:
        """The highest key of a space with its value."""
        return max(self._spaces.get(space, {}).items(), default=None)

    def spaces(self) -> list[str]:
        """The names of all projections."""
        return sorted(name for name, keys in self._spaces.items() if keys)

    def trim(self, space: str, most: int = 1000) -> int:
        """Remove up to `most` keys of a space."""
        keys = list(self._spaces.get(space, {}))[:most]
        for key in keys:
            del self._spaces[space][key]
        return len(keys)

    def reopen(self) -> None:
        """Memory is always what it was."""
        self._require_working()

    def _require_working(self) -> None:
        if self.fail:
            failure = LedgerUnavailable(self.fail)
            failure.recoverable = self.recoverable
            raise failure

    def close(self) -> None:
        """Nothing to let go of."""
