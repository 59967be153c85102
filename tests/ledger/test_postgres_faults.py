"""Nothing acknowledged is lost and nothing is doubted for ever, whatever happens to the server."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing, suppress

import pytest

from kiki.errors import LedgerUnavailable
from kiki.ledger import postgres as postgres_module
from kiki.ledger.ledger import Ledger, read_entries
from kiki.ledger.postgres import PostgresReader, PostgresStore
from kiki.ledger.store import Write
from kiki.shield.fact import Halted, decode_fact
from tests.ledger.postgres_chain import admin, rows, store

__all__ = ["admin", "store"]


class Load:
    """Threads that append to chains of their own through any fault, and note what was acknowledged to them."""

    def __init__(self, url, chains):
        self.acknowledged = {name: [] for name in chains}
        self.failures = 0
        self.problems = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(url, name)) for name in chains]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _write(self, url, name):
        try:
            with closing(Ledger(PostgresStore(url, name))) as ledger:
                number = 0
                while not self._end.is_set():
                    tickets = [ledger.append(Halted(0, f"campaign:{number + each}", on=True)) for each in range(7)]
                    number += 7
                    for ticket in tickets:
                        try:
                            self.acknowledged[name].append((ticket.result(), ticket.item.fact.pattern))
                        except LedgerUnavailable:
                            self.failures += 1
                    while ledger.failure is not None and not self._end.is_set():
                        assert ledger.failure.recoverable
                        with suppress(LedgerUnavailable):
                            ledger.recover()
                        time.sleep(0.02)
        except LedgerUnavailable:
            pass  # the end found it down
        except BaseException as error:
            self.problems.append(error)


def test_nothing_acknowledged_is_lost_and_nothing_else_is_when_the_server_is_killed(own_postgres):
    """kill -9 of the whole server under load, three times: every acknowledged entry is there, dense, once."""
    url = own_postgres.new_database()
    chains = ("one", "two")
    with Load(url, chains) as load:
        for _ in range(3):
            before = {name: len(done) for name, done in load.acknowledged.items()}
            deadline = time.monotonic() + 100
            while any(len(done) < before[name] + 100 for name, done in load.acknowledged.items()):
                assert time.monotonic() < deadline, load.problems
                time.sleep(0.01)
            failures = load.failures
            own_postgres.crash()
            while load.failures == failures:  # whoever appends meets it
                assert time.monotonic() < deadline, load.problems
                time.sleep(0.01)
            own_postgres.start()
    assert load.problems == []
    with closing(PostgresReader(url)) as reader:
        for each in reader.readers():
            written = [(entry.seq, decode_fact(entry).pattern) for entry in read_entries(each)]
            assert list(range(len(written))) == [seq for seq, _ in written]
            assert set(load.acknowledged[each.chain.name]) <= set(written)
            assert len(set(written)) == len(written)


def test_a_server_that_hangs_is_not_waited_for_and_the_fate_of_the_commit_is_found_out(own_postgres, monkeypatch):
    """A commit without an answer is unknown; when the server answers again, `reopen` tells what became of it."""
    monkeypatch.setattr(postgres_module, "_CLAIM_SECONDS", 5.0)
    url = own_postgres.new_database()
    with closing(PostgresStore(url, "one", answer_timeout=4.0, connect_timeout=2)) as store:
        store.commit(rows(3))
        own_postgres.pause()
        try:
            with pytest.raises(LedgerUnavailable, match="did not answer in time") as unknown:
                store.commit(rows(2, first=3))
            assert unknown.value.recoverable
            with pytest.raises(LedgerUnavailable, match="cannot be used"):
                store.reopen()
        finally:
            own_postgres.resume()
        store.reopen()
        assert store.next_seq() in {3, 5}
        following = store.next_seq()
        store.commit(rows(1, first=following))
        assert rows(following + 1) == list(store.entries())


def test_a_server_that_is_down_is_unavailable_and_the_store_goes_on_when_it_is_back(own_postgres):
    url = own_postgres.new_database()
    with closing(PostgresStore(url, "one")) as store:
        store.commit(rows(2), [Write("s", b"k", b"v")])
        own_postgres.stop()
        for attempt in (
            lambda: store.commit(rows(1, first=2)),
            store.reopen,
            store.next_seq,
            store.shared_turn().__enter__,
        ):
            with pytest.raises(LedgerUnavailable) as failed:
                attempt()
            assert failed.value.recoverable
        own_postgres.start()
        assert store.get("s", b"k") == b"v"
        store.reopen()
        store.commit(rows(1, first=2))
        assert rows(3) == list(store.entries())


def test_a_server_that_was_restarted_while_nobody_asked_anything_costs_no_error(own_postgres):
    """Its connections are dead, and that can be seen before anything is sent whose fate would then be unknown."""
    url = own_postgres.new_database()
    with closing(PostgresStore(url, "one")) as store:
        store.commit(rows(2), [Write("s", b"k", b"v")])
        fence = store._fence
        own_postgres.crash()
        own_postgres.start()
        store.commit(rows(1, first=2))
        assert store._fence > fence
        assert (3, b"v") == (store.next_seq(), store.get("s", b"k"))


def test_large_entries_and_many_rows_go_in_one_commit(store):
    """More rows than one statement carries, and values of a megabyte."""
    many = [(seq, b"%d" % seq) for seq in range(12_000)]
    writes = [Write("s", seq.to_bytes(4, "big"), body) for seq, body in many]
    store.commit([*many, (12_000, b"x" * 1_000_000)], [*writes, Write("s", b"\xff", b"y" * 1_000_000)])
    assert many == list(store.entries(0, 11_999))
    assert len(next(store.entries(12_000))[1]) == 1_000_000
    assert sum(1 for _ in store.scan("s")) == 12_001
    store.commit([], [Write("s", seq.to_bytes(4, "big"), None) for seq in range(12_000)])
    assert [b"\xff"] == [key for key, _ in store.scan("s")]


def test_an_interrupted_commit_closes_its_connection(store, monkeypatch):
    """An answer that is still on its way must never be taken for the answer to the next statement."""

    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    store.commit(rows(1))
    monkeypatch.setattr(type(store._write._connection), "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.commit(rows(1, first=1))
    monkeypatch.undo()
    assert not store._write.is_open
    store.reopen()
    following = store.next_seq()
    store.commit(rows(1, first=following))
    assert rows(following + 1) == list(store.entries())


def test_a_key_too_long_for_an_index_is_refused_and_nothing_else_breaks(store):
    """What the server refuses for any reason is an error that callers know, and the next commit goes on."""
    with pytest.raises(LedgerUnavailable, match="index row"):
        store.commit(rows(1), [Write("s", os.urandom(10_000), b"v")])
    assert store.next_seq() == 0
    store.commit(rows(1))
