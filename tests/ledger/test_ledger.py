"""The one write: a dense chain, answered only when durable, and stopped by the first failure."""

from __future__ import annotations

import threading

import msgspec
import pytest

from kiki.errors import LedgerCorrupt, LedgerUnavailable
from kiki.ledger.checkpoint import VerifierKey, open_note
from kiki.ledger.entry import Sealed, decode_entry, leaf_hash
from kiki.ledger.ledger import CHECKPOINTS, Append, Ledger, first_recorded_since, read_entries
from kiki.ledger.memory import MemoryStore
from kiki.ledger.merkle import Tree
from kiki.ledger.sqlite import SqliteStore
from kiki.ledger.store import Write
from tests.ledger.doubles import SECOND, FakeClock


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
        assert self.go_on.wait(60)
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
        thread.join(60)
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
    assert store.began.wait(60)
    assert not ticket.done
    assert store.next_seq() == 0
    store.go_on.set()
    waiter.join(60)
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


# -- checkpoints -----------------------------------------------------------------------------------------

SEED = bytes(range(32))


class Watched(MemoryStore):
    """Remembers what each commit had in it: how many entries, and the sizes that its checkpoints cover."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def commit(self, entries, writes=()):
        writes = list(writes)
        super().commit(entries, writes)
        covered = [int.from_bytes(write.key, "big") for write in writes if write.space == CHECKPOINTS]
        self.seen.append((len(entries), covered))


def checkpoints(ledger):
    """Every stored checkpoint, opened with the ledger's own public key and compared with the tree by hand."""
    key = VerifierKey.parse(ledger.signer.verifier_key)
    leaves = [leaf_hash(data) for _, data in ledger.store.entries()]
    found = []
    for place, note in ledger.store.scan(CHECKPOINTS):
        checkpoint, _ = open_note(note, key)
        assert (f"kiki/{ledger.chain}", int.from_bytes(place, "big")) == (checkpoint.origin, checkpoint.size)
        tree = Tree()
        tree.extend(leaves[: checkpoint.size])
        assert tree.root() == checkpoint.root
        found.append(checkpoint)
    return found


def append(ledger, count=1):
    ledger.append_all([Append(Noted(str(number))) for number in range(count)])


def test_a_checkpoint_is_in_the_commit_that_makes_it_due(monkeypatch):
    """Every so many entries, over everything in that commit, and in no commit of its own."""
    monkeypatch.setattr("kiki.ledger.ledger.CHECKPOINT_ENTRIES", 100)
    store = Watched()
    ledger = Ledger(store, FakeClock(), SEED)
    store.seen.clear()
    for count in (60, 99, 1, 40, 59, 1, 250, 10, 90):
        append(ledger, count)
    assert [
        (60, [60]),  # nothing was ever signed of this chain
        *[(99, []), (1, [160]), (40, []), (59, []), (1, [260])],
        *[(250, [510]), (10, []), (90, [610])],
    ] == store.seen
    assert [60, 160, 260, 510, 610] == [each.size for each in checkpoints(ledger)]


def test_a_checkpoint_is_due_after_its_time():
    """By the ledger's own time, with the moment it was signed at; an hour without entries makes none."""
    clock, store = FakeClock(), Watched()
    ledger = Ledger(store, clock, SEED)
    append(ledger)
    start = clock.now
    for seconds in (0, 9, 0.9999, 0.0001, 9, 1, 3600):
        clock.advance(seconds)
        append(ledger)
    assert [(1, 0), (5, 10), (7, 20), (8, 3620)] == [
        (each.size, (each.at - start) / SECOND) for each in checkpoints(ledger)
    ]


def test_without_a_signer_there_is_none(monkeypatch):
    monkeypatch.setattr("kiki.ledger.ledger.CHECKPOINT_ENTRIES", 10)
    ledger = Ledger(MemoryStore())
    append(ledger, 50)
    assert ledger.checkpoint() is None
    assert ledger.store.last(CHECKPOINTS) is None


def test_asking_signs_what_gathered_since():
    """Once: asking again gives the same note, and an empty ledger has nothing to sign."""
    clock, store = FakeClock(), Watched()
    ledger = Ledger(store, clock, SEED)
    assert ledger.checkpoint() is None
    append(ledger, 5)
    note = ledger.checkpoint()
    commits = store.commits
    assert note == ledger.checkpoint() == store.last(CHECKPOINTS)[1]
    assert commits == store.commits
    append(ledger)
    assert note == ledger.checkpoint(older_than=SECOND), "the last one is young enough"
    clock.advance(1)
    assert note != ledger.checkpoint(older_than=SECOND)
    assert 6 == checkpoints(ledger)[-1].size


@pytest.mark.parametrize("durable", [True, False])
def test_a_failed_commit_signs_nothing_that_is_not_there(monkeypatch, durable):
    """No checkpoint covers an entry that the store does not have, whether or not the commit took place after all."""
    monkeypatch.setattr("kiki.ledger.ledger.CHECKPOINT_ENTRIES", 10)
    store = MemoryStore()
    ledger = Ledger(store, FakeClock(), SEED)
    append(ledger, 9)
    real = store.commit

    def commit(entries, writes=()):
        if durable:
            real(entries, writes)
        raise OSError("gone")

    store.commit = commit
    with pytest.raises(OSError, match="gone"):
        append(ledger, 10)
    for act in (ledger.checkpoint, lambda: append(ledger)):
        with pytest.raises(LedgerUnavailable):
            act()
    store.commit = real
    assert [9, *[19] * durable] == [each.size for each in checkpoints(ledger)]
    ledger.recover()
    append(ledger)
    assert store.next_seq() == (20 if durable else 10)
    assert checkpoints(ledger)[-1].size <= store.next_seq()
    ledger.checkpoint()
    assert store.next_seq() == checkpoints(ledger)[-1].size


def test_a_checkpoint_that_could_not_be_kept_stops_the_ledger():
    """What became of it is unknown, as of any commit; after recovery it is signed again."""
    store = MemoryStore()
    store.recoverable = True
    ledger = Ledger(store, FakeClock(), SEED)
    append(ledger, 3)
    append(ledger, 3)
    store.fail = "disk full"
    with pytest.raises(LedgerUnavailable, match="disk full"):
        ledger.checkpoint()
    store.fail = None
    with pytest.raises(LedgerUnavailable, match="disk full"):
        append(ledger)
    ledger.recover()
    ledger.checkpoint()
    assert [3, 6] == [each.size for each in checkpoints(ledger)]


def test_a_restart_goes_on_signing_where_it_stopped(monkeypatch):
    """The count since the last checkpoint is the store's, and the key is the same."""
    monkeypatch.setattr("kiki.ledger.ledger.CHECKPOINT_ENTRIES", 10)
    store, clock = MemoryStore(), FakeClock()
    ledger = Ledger(store, clock, SEED)
    append(ledger, 12)
    append(ledger, 6)
    again = Ledger(store, clock, SEED)
    assert ledger.signer.verifier_key == again.signer.verifier_key
    append(again, 3)
    assert [12] == [each.size for each in checkpoints(again)]
    append(again)
    assert [12, 22] == [each.size for each in checkpoints(again)]


def test_a_checkpoint_follows_the_time_of_the_entries_when_the_clock_steps_back():
    clock = FakeClock()
    ledger = Ledger(MemoryStore(), clock, SEED)
    append(ledger)
    latest = clock.now
    clock.advance(-3600)
    append(ledger)
    ledger.checkpoint()
    assert all(each.at >= latest for each in checkpoints(ledger))


# -- what is the ledger's own ------------------------------------------------------------------------------


def test_records_of_its_own_are_durable_and_no_entries():
    """`keep` writes them, and like everything else refuses after a failure."""
    store = MemoryStore()
    ledger = Ledger(store)
    ledger.keep([Write("segment", b"k", b"v")])
    assert (b"v", 0) == (store.get("segment", b"k"), ledger.next_seq)
    store.fail = "disk full"
    for _ in range(2):
        with pytest.raises(LedgerUnavailable):
            ledger.keep([Write("segment", b"k", b"w")])
        store.fail = None
    assert store.get("segment", b"k") == b"v"


def test_a_companion_is_remembered_and_no_other_is_accepted():
    """The key store that belongs to a ledger: another one would silently make everybody a stranger."""
    store = MemoryStore()
    ledger = Ledger(store)
    ledger.require_companion("directory", b"1")
    ledger.require_companion("directory", b"1")
    again = Ledger(store)
    with pytest.raises(LedgerCorrupt, match="the directory beside this ledger is not the one"):
        again.require_companion("directory", b"2")
    again.require_companion("directory", b"1")


def test_sealed_parts_are_in_their_entry():
    """They are covered by its leaf hash like everything else."""
    ledger = Ledger(MemoryStore())
    sealed = Sealed(b"i" * 16, b"n" * 24, b"c" * 32, b"text")
    ledger.append_all([Append(Noted("a"), None, [sealed, sealed]), Append(Noted("b"))])
    assert [[sealed, sealed], []] == [entry.sealed for entry in ledger.read()]


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
