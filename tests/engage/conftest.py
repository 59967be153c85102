"""Both databases of engage, each empty, over keys that are forgotten with the test."""

from __future__ import annotations

import pytest

from kiki.engage.customer_store import CustomerStore
from kiki.engage.database import open_database
from kiki.engage.keyring import Keyring
from kiki.ledger.memory import MemoryStore
from kiki.ledger.subjects import Subjects

DAY = 24 * 3600 * 1_000_000
NOW = 1_790_000_000_000_000


class MovedClock:
    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, micros: int) -> None:
        self.now += micros


@pytest.fixture
def clock():
    return MovedClock()


@pytest.fixture(params=["sqlite", "postgres"])
def where(request, tmp_path):
    return request.getfixturevalue("postgres") if request.param == "postgres" else tmp_path / "engage.db"


@pytest.fixture
def keys():
    return Keyring(Subjects(MemoryStore()))


@pytest.fixture
def store(where, keys, clock):
    made = CustomerStore(open_database(where), keys, clock)
    yield made
    made.close()
