"""Idempotency keys: kept at least their retention, gone some time after, and no disk read for a new one."""

from __future__ import annotations

import random
from hashlib import blake2b

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kiki.errors import CapacityReached
from kiki.ledger.key_index import KeyFilter, KeyIndex, key_write
from kiki.ledger.memory import MemoryStore
from tests.ledger.doubles import CountingStore

RETENTION = 100


def hashed(number):
    return blake2b(b"%d" % number, digest_size=16).digest()


class IndexMachine(RuleBasedStateMachine):
    """A `KeyIndex` beside a dict of when each key was remembered, and where."""

    def __init__(self):
        super().__init__()
        self.store = MemoryStore()
        self.now = 1_000_000
        self.retention = RETENTION
        self.capacity = 12
        self.model: dict[int, tuple[int, int]] = {}
        self.shortest = RETENTION
        """The shortest retention since a key was made may have let it go."""
        self.promised: dict[int, int] = {}
        self.seq = 0
        self.index = self.open()

    def open(self):
        return KeyIndex(self.store, retention=self.retention, capacity=self.capacity, now=self.now)

    @rule(by=st.sampled_from([0, 1, 30, RETENTION - 1, RETENTION, 2 * RETENTION, 1000]))
    def advance(self, by):
        """Time passes."""
        self.now += by
        self.index.advance(self.now)

    @rule(number=st.integers(0, 30))
    def remember(self, number):
        """A key is new, or known where the model says, or refused for want of room."""
        self.index.advance(self.now)
        found = self.index.find(hashed(number))
        if found is not None:
            assert found == self.model[number][1]
            return
        try:
            self.index.require_room()
        except CapacityReached:
            assert self.index.count >= self.capacity
            return
        assert self.index.count < self.capacity
        space = self.index.remember(hashed(number))
        self.store.commit([], [key_write(space, hashed(number), self.seq)])
        self.model[number] = (self.now, self.seq)
        self.promised[number] = self.now + self.retention
        self.seq += 1

    @rule()
    def restart(self):
        """A new process reads the keys back."""
        self.index = self.open()

    @rule(most=st.integers(1, 5))
    def trim(self, most):
        """Forgotten keys leave the store a few at a time."""
        assert self.index.trim(most) <= most

    @rule(retention=st.sampled_from([50, RETENTION, 400]))
    def change_retention(self, retention):
        """A policy with another longest window came; a promise made is at most shortened to the new one."""
        self.retention = self.index.retention = retention
        for number, (at, _) in self.model.items():
            if retention > RETENTION or self.promised[number] > self.now:
                self.promised[number] = min(self.promised[number], at + retention)

    @invariant()
    def kept_for_the_retention(self):
        """A key is found as long as it was promised, where it was first seen."""
        for number, (_, seq) in self.model.items():
            if self.promised[number] > self.now:
                assert seq == self.index.find(hashed(number))

    @invariant()
    def few_generations_live(self):
        """Memory does not grow with time."""
        assert len(self.index._live) <= 10

    @precondition(lambda self: self.model)
    @rule()
    def dropped_in_the_end(self):
        """Two retentions after the last key all are forgotten, and trimming empties the store of them."""
        for _ in range(3):
            self.now += self.retention
            self.index.advance(self.now)
        assert [None] * len(self.model) == [self.index.find(hashed(number)) for number in self.model]
        assert self.index.count == 0
        while self.index.trim(3):
            pass
        assert self.store.spaces() == []
        self.model.clear()


IndexMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestIndex = IndexMachine.TestCase


def filled(store, keys, capacity=100_000):
    index = KeyIndex(store, retention=RETENTION, capacity=capacity, now=1000)
    writes = [key_write(index.remember(key), key, seq) for seq, key in enumerate(keys)]
    store.commit([], writes)
    return index


def test_a_new_key_costs_no_read():
    """Ten thousand known keys, ten thousand new ones: hardly one lookup of the store for the new."""
    store = CountingStore()
    index = filled(store, [hashed(number) for number in range(10_000)])
    store.gets = 0
    assert [index.find(hashed(number)) for number in range(10_000, 20_000)] == [None] * 10_000
    assert store.gets <= 20
    store.gets = 0
    assert list(range(100)) == [index.find(hashed(number)) for number in range(100)]
    assert store.gets == 100


@pytest.mark.parametrize("capacity", [2_000, 13_107, 26_000])
def test_a_full_filter_is_wrong_less_than_twice_in_a_hundred(capacity):
    """At capacity a new key looks known seldom, also where the filter has its fewest bits for each key."""
    chance = random.Random(5)
    known = KeyFilter(capacity)
    for _ in range(capacity):
        known.add(chance.randbytes(16))
    wrong = sum(chance.randbytes(16) in known for _ in range(20_000))
    assert wrong / 20_000 < 0.02


def test_a_known_key_is_never_called_new():
    """The filter forgets nothing."""
    chance = random.Random(7)
    keys = [chance.randbytes(16) for _ in range(5_000)]
    known = KeyFilter(5_000)
    for key in keys:
        known.add(key)
    assert all(key in known for key in keys)


def test_at_capacity_new_keys_are_refused_and_known_ones_found():
    """A full index forgets nothing to make room; after the retention there is room again."""
    store = MemoryStore()
    index = filled(store, [hashed(number) for number in range(10)], capacity=10)
    with pytest.raises(CapacityReached, match="10"):
        index.require_room()
    assert list(range(10)) == [index.find(hashed(number)) for number in range(10)]
    for now in (1000 + RETENTION, 1000 + 2 * RETENTION):
        index.advance(now)
    index.require_room()
    assert index.count == 0


def test_a_restart_keeps_count_and_places():
    """The live keys are counted and found again, also under a smaller capacity than before."""
    store = MemoryStore()
    filled(store, [hashed(number) for number in range(50)])
    again = KeyIndex(store, retention=RETENTION, capacity=10, now=1010)
    assert again.count == 50
    assert list(range(50)) == [again.find(hashed(number)) for number in range(50)]
    with pytest.raises(CapacityReached):
        again.require_room()


def test_a_key_whose_commit_failed_is_new():
    """Remembered in memory and never written: the index says that it is not known."""
    store = MemoryStore()
    index = KeyIndex(store, retention=RETENTION, capacity=10, now=1000)
    index.remember(hashed(1))
    assert index.find(hashed(1)) is None
