"""A chain in a real PostgreSQL, for the tests that look behind it."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from kiki.ledger.postgres import PostgresStore


@pytest.fixture
def store(postgres):
    with closing(PostgresStore(postgres, "one")) as store:
        yield store


@pytest.fixture
def admin(postgres_server, postgres):
    """Runs a statement as the superuser, in the test's database."""
    return lambda statement: postgres_server.execute(statement, postgres.rpartition("/")[2])


def rows(count, first=0):
    return [(seq, f"entry {seq}".encode()) for seq in range(first, first + count)]


def terminate(admin, session):
    """End a session from outside, and wait until the server has."""
    admin(f"SELECT pg_terminate_backend({session.pid})")
    deadline = time.monotonic() + 60
    while admin(f"SELECT FROM pg_stat_activity WHERE pid = {session.pid}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
