"""A ledger store that forgets with its process: for tests and for trying out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kiki.errors import LedgerUnavailable
from kiki.ledger.store import Write, require_dense


class MemoryStore:
    """Keeps everything in memory. `fail` makes the next commits fail, as a full disk would."""

    def __init__(self) -> None:
        self._entries: list[bytes] = []
        self._spaces: dict[str, dict[bytes, bytes]] = {}
        self.fail: str | None = None
        self.recoverable = False
        """Whether a failure is one that leaves nothing behind, as that of a full disk."""
        self.commits = 0

    def commit(self, entries: Sequence[tuple[int, bytes]], writes: Iterable[Write] = ()) -> None:
        """Keep entries and projections."""
        self._require_working()
        require_dense(entries, len(self._entries))
        changes = list(writes)  # before anything is kept: making them may fail
        self._entries += [data for _, data in entries]
        for space, key, value in changes:
            if value is None:
                self._spaces.get(space, {}).pop(key, None)
            else:
                self._spaces.setdefault(space, {})[key] = value
        self.commits += 1

    def entries(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Entries in order."""
        seq = first
        while seq < len(self._entries) and (last is None or seq <= last):
            yield seq, self._entries[seq]
            seq += 1

    def next_seq(self) -> int:
        """One more than the last entry's sequence."""
        return len(self._entries)

    def get(self, space: str, key: bytes) -> bytes | None:
        """The value of one projected key."""
        return self._spaces.get(space, {}).get(key)

    def scan(self, space: str) -> Iterator[tuple[bytes, bytes]]:
        """Every key of a space with its value."""
        yield from sorted(self._spaces.get(space, {}).items())

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
