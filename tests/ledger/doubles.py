"""What the tests of the ledger and of the guard move and count by hand."""

from __future__ import annotations

from kiki.ledger.memory import MemoryStore

SECOND = 1_000_000


class FakeClock:
    """A clock that stands until it is moved; `step` makes it move at every reading, as a real one does."""

    def __init__(self, now: int = 1_700_000_000 * SECOND, step: int = 0) -> None:
        self.now = now
        self.step = step

    def __call__(self) -> int:
        self.now += self.step
        return self.now

    def advance(self, seconds: float) -> None:
        """Move forward."""
        self.now += round(seconds * SECOND)


class CountingStore(MemoryStore):
    """Counts how often a projected key was looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.gets = 0

    def get(self, space: str, key: bytes) -> bytes | None:
        self.gets += 1
        return super().get(space, key)
