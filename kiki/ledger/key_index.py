"""Which idempotency keys were seen, in the store, behind a filter that keeps new keys off the disk.

Keys live in generations. A generation takes new keys for one retention and is forgotten whole one retention
after that, so a key is found for at least one retention and at most two, and two or three generations live
at a time. Each has a Bloom filter in memory, about 14 bits for each key of capacity: a new key is taken for
a known one, at the price of one read, less than once in a hundred times.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterable
from struct import Struct

from kiki.errors import CapacityReached
from kiki.ledger.store import Reader, Store, Write

_WORDS = Struct("<4I")
_BITS_PER_KEY = 10
_SPACE = "key/"


class KeyFilter:
    """A Bloom filter over 16-byte keyed hashes, whose bits are already uniform: four words, four bits."""

    def __init__(self, capacity: int) -> None:
        bits = 1 << min(32, max(13, (capacity * _BITS_PER_KEY - 1).bit_length()))
        self._mask = bits - 1
        # Anonymous memory is zero and not resident until it is touched.
        self._bytes = mmap.mmap(-1, bits >> 3)

    def add(self, key: bytes) -> None:
        """Remember a key."""
        cells, mask = self._bytes, self._mask
        for word in _WORDS.unpack(key):
            cells[(word & mask) >> 3] |= 1 << (word & 7)

    def __contains__(self, key: bytes) -> bool:
        """False only when the key was never added."""
        cells, mask = self._bytes, self._mask
        return all(cells[(word & mask) >> 3] >> (word & 7) & 1 for word in _WORDS.unpack(key))


class _Generation:
    def __init__(self, start: int, capacity: int, keys: Iterable[bytes] = ()) -> None:
        self.start = start
        self.space = f"{_SPACE}{start:020d}"
        self.filter = KeyFilter(capacity)
        self.count = 0
        for key in keys:
            self.add(key)

    def add(self, key: bytes) -> None:
        self.filter.add(key)
        self.count += 1


class KeyIndex:
    """Finds the entry that a key belongs to. One caller at a time; moments and spans in microseconds."""

    def __init__(self, store: Store, *, retention: int, capacity: int, now: int) -> None:
        """Read back the live keys of the store. `capacity` is in keys, over all generations."""
        self._store = store
        self.retention = retention
        self.capacity = capacity
        starts = sorted((int(name[len(_SPACE) :]) for name in store.spaces() if name.startswith(_SPACE)), reverse=True)
        self._live: list[_Generation] = []
        end = now
        for start in starts:
            if end + retention <= now:
                break
            keys = (key for key, _ in store.scan(f"{_SPACE}{start:020d}"))
            self._live.append(_Generation(start, capacity, keys))
            end = start
        self.advance(now)

    def advance(self, now: int) -> None:
        """Start a new generation when the newest is old enough, and forget those that have lived long enough."""
        live = self._live
        if live and now < live[0].start + self.retention:
            return
        live.insert(0, _Generation(now, self.capacity))
        while len(live) > 1 and live[-2].start + self.retention <= now:
            live.pop()

    @property
    def count(self) -> int:
        """How many keys are remembered."""
        return sum(generation.count for generation in self._live)

    def find(self, key: bytes) -> int | None:
        """The sequence of the entry that first carried the key."""
        for generation in self._live:
            if key in generation.filter:
                place = self._store.get(generation.space, key)
                if place is not None:
                    return int.from_bytes(place, "big")
        return None

    def require_room(self, more: int = 1) -> None:
        """Raise `CapacityReached` unless `more` new keys can be remembered."""
        if self.count + more > self.capacity:
            raise CapacityReached(
                f"{self.count} idempotency keys are remembered, and KIKI_KEYS_MAX allows {self.capacity}: "
                "new keys are refused, known ones are answered, and calls without a key go on",
                hint="raise KIKI_KEYS_MAX, or send fewer keyed calls per retention",
            )

    def remember(self, key: bytes) -> str:
        """Count a key as known from now on; the space where its place must be written in the same commit."""
        generation = self._live[0]
        generation.add(key)
        return generation.space

    def trim(self, most: int = 1000) -> int:
        """Remove some keys of forgotten generations from the store; how many."""
        oldest = self._live[-1].space
        for space in self._store.spaces():
            if space.startswith(_SPACE) and space < oldest:
                return self._store.trim(space, most)
        return 0


def known_keys(readers: Iterable[Reader], keys: Collection[bytes]) -> dict[bytes, tuple[Reader, int]]:
    """Which of the keys some chain remembers, and where; for who looks at the chains of others, and seldom."""
    found: dict[bytes, tuple[Reader, int]] = {}
    for reader in readers if keys else ():
        for space in reader.spaces():
            if space.startswith(_SPACE):
                places = reader.get_many(space, keys)
                found.update((key, (reader, int.from_bytes(place, "big"))) for key, place in places.items())
    return found


def key_write(space: str, key: bytes, seq: int) -> Write:
    """The projection that makes a key findable."""
    return Write(space, key, seq.to_bytes(8, "big"))
