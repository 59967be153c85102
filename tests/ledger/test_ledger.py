"""The one write: a dense chain, answered only when durable, and stopped by the first failure."""

from __future__ import annotations

import threading

import msgspec
import pytest

from kiki.errors import LedgerCorrupt, LedgerUnavailable
from kiki.ledger.entry import decode_entry
from kiki.ledger.ledger import Append, Ledger, first_recorded_since, read_entries
from kiki.ledger.memory import MemoryStore
from kiki.ledger.sqlite import SqliteStore
from kiki.ledger.store import Write
from tests.ledger.doubles import FakeClock


class Noted(msgspec.Struct, array_like=True, tag="noted", frozen=True):
    """A fact of no domain."""

    text: str


def noted(entry):
    return msgspec.msgpack.decode(entry.fact, type=Noted).text


class SlowStore(MemoryStore):
    """Says when a commit began, and waits to be let through."""

    def __init__(self):
        super().__init__()
        self.began = threading.Event()
        self.go_on = threading.Event()

    def commit(self, entries, writes=()):
        self.began.set()
        assert self.go_on.wait(10)
        super().commit(entries, writes)


def test_fifty_threads_write_one_dense_chain(tmp_path):
    """Each append gets a sequence of its own, and that entry holds its fact."""
    ledger = Ledger(SqliteStore(tmp_path / "ledger.db"))
    got, lock = {}, threading.Lock()

    def write(name):
        for number in range(20):
            text = f"{name}/{number}"
            seq = ledger.append(Noted(text)).result()
            with lock:
                got[seq] = text

    threads = [threading.Thread(target=write, args=(name,)) for name in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert list(range(1000)) == sorted(got)
    assert {entry.seq: noted(entry) for entry in ledger.read()} == got
    ledger.close()


def test_a_result_comes_only_after_the_commit():
    """A future is open as long as the store has not returned, and done right after."""
    store = SlowStore()
    store.go_on.set()
    ledger = Ledger(store)
    store.began.clear()
    store.go_on.clear()
    ticket = ledger.append(Noted("x"))
    waiter = threading.Thread(target=ticket.result)
    waiter.start()
    assert store.began.wait(10)
    assert not ticket.done
    assert store.next_seq() == 0
    store.go_on.set()
    waiter.join(10)
    assert ticket.done
    assert ticket.result() == 0
    assert [seq for seq, _ in store.entries()] == [0]


def test_what_waits_shares_one_commit():
    """Facts appended before anybody waits are one transaction, in order."""
    store = MemoryStore()
    ledger = Ledger(store)
    before = store.commits
    tickets = [ledger.append(Noted(str(number))) for number in range(10)]
    assert list(range(10)) == [ticket.result() for ticket in tickets]
    assert store.commits == before + 1
    assert ledger.append_all([Append(Noted("a")), Append(Noted("b"))]) == 10
    assert store.commits == before + 2
    assert [*map(str, range(10)), "a", "b"] == [noted(entry) for entry in ledger.read()]


def test_appending_nothing_writes_nothing():
    """An empty batch makes no commit."""
    store = MemoryStore()
    ledger = Ledger(store)
    before = store.commits
    ledger.append_all([])
    ledger.flush()
    assert store.commits == before


def test_projections_get_the_sequence_of_their_fact():
    """What belongs to a fact is written with it, under the sequence it got."""
    ledger = Ledger(MemoryStore())
    tickets = [
        ledger.append(Noted(text), lambda seq, text=text: [Write("by", text.encode(), b"%d" % seq)]) for text in "abc"
    ]
    ledger.flush()
    assert [ledger.store.get("by", text) for text in (b"a", b"b", b"c")] == [b"0", b"1", b"2"]
    assert [ticket.result() for ticket in tickets] == [0, 1, 2]


def test_recorded_at_never_goes_back():
    """Entries are in the order of their moments even when the clock steps back, also over a restart."""
    store, clock = MemoryStore(), FakeClock(1000)
    ledger = Ledger(store, clock)
    ledger.append_all([Append(Noted("a"))])
    clock.now = 500
    ledger.append_all([Append(Noted("b"))])
    again = Ledger(store, clock)
    again.append_all([Append(Noted("c"))])
    clock.now = 1500
    again.append_all([Append(Noted("d"))])
    assert [entry.recorded_at for entry in again.read()] == [1000, 1000, 1000, 1500]


def test_a_restart_goes_on_with_the_chain(tmp_path):
    """The chain keeps its name, and the next sequence follows the last."""
    ledger = Ledger(SqliteStore(tmp_path / "ledger.db"))
    ledger.append_all([Append(Noted("a")), Append(Noted("b"))])
    chain = ledger.chain
    ledger.close()
    again = Ledger(SqliteStore(tmp_path / "ledger.db"))
    assert chain == again.chain
    assert again.next_seq == 2
    assert again.append(Noted("c")).result() == 2
    again.close()
    other = Ledger(SqliteStore(tmp_path / "other.db"))
    assert chain != other.chain
    other.close()


def test_a_failure_stops_the_ledger():
    """After one failed commit nothing more is written, even when the store is well again."""
    store = MemoryStore()
    ledger = Ledger(store)
    ledger.append(Noted("a")).result()
    store.fail = "disk full"
    with pytest.raises(LedgerUnavailable, match="disk full"):
        ledger.append(Noted("b")).result()
    store.fail = None
    with pytest.raises(LedgerUnavailable, match="disk full"):
        ledger.append(Noted("c")).result()
    with pytest.raises(LedgerUnavailable, match="disk full"):
        ledger.append_all([Append(Noted("d"))])
    assert [noted(entry) for entry in ledger.read()] == ["a"]


@pytest.mark.parametrize("error", [LedgerCorrupt("torn"), OSError("gone"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("durable", [True, False])
def test_any_error_of_a_commit_stops_the_ledger(error, durable):
    """Whatever a commit raises, nobody knows what became of it: nothing more is acknowledged until `recover`."""
    store = MemoryStore()
    ledger = Ledger(store)
    real = store.commit

    def commit(entries, writes=()):
        # An interrupt between the sync and the return leaves a durable entry and an exception.
        if durable:
            real(entries, writes)
        raise error

    store.commit = commit
    with pytest.raises((type(error), LedgerUnavailable)):
        ledger.append(Noted("a")).result()
    store.commit = real
    with pytest.raises(LedgerUnavailable):
        ledger.append(Noted("b")).result()
    ledger.recover()
    ledger.append(Noted("c")).result()
    assert [*(["a"] if durable else []), "c"] == [noted(entry) for entry in ledger.read()]


def test_a_fact_that_cannot_be_written_fails_alone():
    """What fails before the store is asked leaves no hole in the chain."""
    ledger = Ledger(MemoryStore())

    class Odd(msgspec.Struct, array_like=True, tag="odd"):
        number: int

    with pytest.raises(OverflowError):
        ledger.append(Odd(2**80)).result()
    assert ledger.append(Noted("a")).result() == 0


def test_recover_reads_what_is_durable():
    """After `recover` the chain goes on where the disk says, not where memory thought."""
    store = MemoryStore()
    ledger = Ledger(store)
    ledger.append(Noted("a")).result()
    store.fail = "disk full"
    with pytest.raises(LedgerUnavailable):
        ledger.append(Noted("b")).result()
    with pytest.raises(LedgerUnavailable):
        ledger.recover()
    assert ledger.failure is not None
    store.fail = None
    ledger.recover()
    assert ledger.failure is None
    assert ledger.append(Noted("c")).result() == 1
    assert [noted(entry) for entry in ledger.read()] == ["a", "c"]


def test_recover_of_a_full_file(tmp_path):
    """A full SQLite file fails with a hint, stays readable, and goes on without a hole once there is room."""
    ledger = Ledger(SqliteStore(tmp_path / "ledger.db"))
    ledger.append(Noted("a")).result()
    ledger.store._write.pragma("max_page_count", ledger.store._write.pragma("page_count"))
    with pytest.raises(LedgerUnavailable) as failed:
        ledger.append(Noted("b" * 100_000)).result()
    assert failed.value.recoverable
    assert "space" in failed.value.hint
    assert [noted(entry) for entry in ledger.read()] == ["a"]
    ledger.recover()
    assert ledger.append(Noted("c")).result() == 1
    assert [noted(entry) for entry in ledger.read()] == ["a", "c"]
    ledger.close()


def test_first_recorded_since_is_found_by_bisection():
    """The first entry at or after a moment, for every moment, also in an empty ledger."""
    store, clock = MemoryStore(), FakeClock(0)
    ledger = Ledger(store, clock)
    assert first_recorded_since(store, 0) == 0
    moments = [10, 10, 20, 30, 30, 30, 70]
    for moment in moments:
        clock.now = moment
        ledger.append_all([Append(Noted(""))])
    for moment in range(80):
        expected = next((seq for seq, at in enumerate(moments) if at >= moment), len(moments))
        assert expected == first_recorded_since(store, moment)


def test_read_gives_a_range():
    """`read(first, last)` has both ends."""
    ledger = Ledger(MemoryStore())
    ledger.append_all([Append(Noted(str(number))) for number in range(5)])
    assert [noted(entry) for entry in ledger.read(1, 3)] == ["1", "2", "3"]
    assert [decode_entry(data) for _, data in ledger.store.entries()] == list(read_entries(ledger.store))


def test_close_makes_durable_what_waits(tmp_path):
    """A fact nobody waited for is written when the ledger is closed."""
    ledger = Ledger(SqliteStore(tmp_path / "ledger.db"))
    ticket = ledger.append(Noted("late"))
    ledger.close()
    assert ticket.result() == 0
    store = SqliteStore(tmp_path / "ledger.db")
    assert store.next_seq() == 1
    store.close()
