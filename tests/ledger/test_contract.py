"""What a ledger store is: every store passes this suite, and a new one is done when it does."""

from __future__ import annotations

import threading

import pytest

from kiki.errors import LedgerUnavailable
from kiki.ledger.memory import MemoryStore
from kiki.ledger.postgres import PostgresStore
from kiki.ledger.postgres_reader import PostgresReader
from kiki.ledger.sqlite import SqliteReader, SqliteStore
from kiki.ledger.store import Write

BIG = b"x" * 100_000


class Memory:
    """How a store in memory is made, broken, healed and read."""

    name = "memory"

    def make(self):
        return MemoryStore()

    def reader(self, store):
        return store

    def break_(self, store):
        """Let the next commit fail as on a full disk."""
        store.fail = "disk full"
        store.recoverable = True

    def heal(self, store):
        """Give the disk some room; the store finds out at `reopen`."""
        store.fail = None


class Sqlite:
    """The same in a file."""

    name = "sqlite"

    def __init__(self, path):
        self.path = path

    def make(self):
        return SqliteStore(self.path)

    def reader(self, store):
        return SqliteReader(self.path)

    def break_(self, store):
        pages = store._write.pragma("page_count")
        assert pages == store._write.pragma("max_page_count", pages)

    def heal(self, store):
        """A connection forgets its limit when it is opened anew."""


class Postgres:
    """The same in a real PostgreSQL, whose disk is made full by a trigger."""

    name = "postgres"

    def __init__(self, server, url):
        self.server = server
        self.url = url

    def make(self):
        return PostgresStore(self.url, "contract")

    def reader(self, store):
        return PostgresReader(self.url)

    def break_(self, store):
        self._run(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$",
            "CREATE TRIGGER full_disk AFTER INSERT ON kiki.entry EXECUTE FUNCTION full_disk()",
        )

    def heal(self, store):
        self._run("DROP FUNCTION full_disk CASCADE")

    def _run(self, *statements):
        for statement in statements:
            self.server.execute(statement, self.url.rpartition("/")[2])


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def kind(request, tmp_path):
    if request.param == "memory":
        return Memory()
    if request.param == "sqlite":
        return Sqlite(tmp_path / "ledger.db")
    return Postgres(request.getfixturevalue("postgres_server"), request.getfixturevalue("postgres"))


@pytest.fixture
def store(kind):
    store = kind.make()
    yield store
    store.close()


def rows(count, first=0):
    return [(seq, f"entry {seq}".encode()) for seq in range(first, first + count)]


def everything(store):
    """All that a store holds, to compare before and after."""
    return list(store.entries()), {space: list(store.scan(space)) for space in store.spaces()}


def test_a_new_store_is_empty(store):
    """Nothing is there before the first commit."""
    assert store.next_seq() == 0
    assert list(store.entries()) == []
    assert store.get("space", b"key") is None
    assert list(store.scan("space")) == []
    assert store.spaces() == []
    assert store.trim("space") == 0


def test_entries_come_back_in_order(store):
    """Entries are read in the order of their sequences, as the bytes that were written."""
    store.commit(rows(3))
    store.commit(rows(2, first=3))
    assert rows(5) == list(store.entries())
    assert store.next_seq() == 5


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(0, None, range(5)), (2, None, range(2, 5)), (1, 3, range(1, 4)), (4, 4, [4]), (5, None, []), (3, 2, [])],
)
def test_both_ends_of_a_range_are_included(store, first, last, expected):
    """`entries(first, last)` gives both ends, and nothing when there is nothing between them."""
    store.commit(rows(5))
    assert list(expected) == [seq for seq, _ in store.entries(first, last)]


@pytest.mark.parametrize("count", [999, 1000, 1001, 2500])
def test_long_reads_are_whole(store, count):
    """More rows than one page of a read holds come back once each, in order."""
    store.commit(rows(count), [Write("many", seq.to_bytes(4, "big"), b"%d" % seq) for seq in range(count)])
    assert rows(count) == list(store.entries())
    assert [(seq.to_bytes(4, "big"), b"%d" % seq) for seq in range(count)] == list(store.scan("many"))


def test_projections_are_set_replaced_and_removed(store):
    """The last write of a key counts, also within one commit; None removes; removing nothing is no mistake."""
    store.commit([], [Write("a", b"1", b"one"), Write("a", b"2", b"two"), Write("b", b"1", b"other")])
    store.commit([], [Write("a", b"1", b"uno"), Write("a", b"1", b"eins"), Write("a", b"2", None)])
    store.commit([], [Write("a", b"absent", None), Write("absent", b"1", None)])
    assert store.get("a", b"1") == b"eins"
    assert store.get("a", b"2") is None
    assert store.get("b", b"1") == b"other"
    assert list(store.scan("a")) == [(b"1", b"eins")]


def test_keys_are_scanned_in_the_order_of_their_bytes(store):
    """Keys are compared as bytes: shorter first, high bytes last, the empty key before all."""
    keys = [b"", b"\x00", b"\x00\x01", b"\x7f", b"\x80", b"\xff", b"\xff\xff"]
    store.commit([], [Write("s", key, b"v" + key) for key in reversed(keys)])
    assert [(key, b"v" + key) for key in keys] == list(store.scan("s"))


def test_an_empty_key_and_an_empty_value_are_kept(store):
    """Nothing is special about emptiness; only None removes."""
    store.commit([], [Write("s", b"", b"")])
    assert store.get("s", b"") == b""
    assert list(store.scan("s")) == [(b"", b"")]


def test_spaces_names_what_holds_keys(store):
    """Each space with a key is named once, sorted; one whose last key went is gone."""
    store.commit([], [Write(space, key, b"v") for space in ("b", "a", "key/2", "key/10") for key in (b"1", b"2")])
    assert store.spaces() == ["a", "b", "key/10", "key/2"]
    store.commit([], [Write("b", b"1", None), Write("b", b"2", None)])
    assert store.spaces() == ["a", "key/10", "key/2"]


def test_trim_takes_a_few_keys_at_a_time(store):
    """`trim` removes at most as many as asked, says how many, and touches no other space."""
    store.commit(rows(1), [Write(space, b"%02d" % key, b"v") for space in ("old", "new") for key in range(10)])
    assert store.trim("old", 4) == 4
    assert len(list(store.scan("old"))) == 6
    assert store.trim("old", 4) == 4
    assert store.trim("old", 4) == 2
    assert store.trim("old", 4) == 0
    assert store.spaces() == ["new"]
    assert len(list(store.scan("new"))) == 10
    assert rows(1) == list(store.entries())


def test_a_failed_commit_leaves_nothing_behind(kind, store):
    """When `commit` raises for want of room, neither entries nor projections of it are there afterwards."""
    store.commit(rows(3), [Write("s", b"k", b"before")])
    before = everything(store)
    kind.break_(store)
    with pytest.raises(LedgerUnavailable) as failed:
        store.commit([(3, b"small"), (4, BIG)], [Write("s", b"k", b"after"), Write("new", b"k", BIG)])
    assert failed.value.recoverable is True
    assert before == everything(store)
    kind.heal(store)
    store.reopen()
    assert before == everything(store)
    store.commit(rows(2, first=3), [Write("s", b"k", b"after")])
    assert rows(5) == list(store.entries())
    assert store.get("s", b"k") == b"after"


def test_a_commit_whose_writes_raise_leaves_nothing_behind(store):
    """Projections may be made while they are written; when that fails, the entries of the commit go too."""
    store.commit(rows(1), [Write("s", b"k", b"before")])
    before = everything(store)

    def writes():
        yield Write("s", b"k", b"after")
        raise RuntimeError("cannot be made")

    with pytest.raises(RuntimeError, match="cannot be made"):
        store.commit(rows(1, first=1), writes())
    assert before == everything(store)


def test_an_entry_is_never_written_over(store):
    """A sequence that is taken refuses the whole commit, and what was there stays."""
    store.commit(rows(3))
    before = everything(store)
    with pytest.raises(LedgerUnavailable):
        store.commit([(3, b"new"), (2, b"other")], [Write("s", b"k", b"v")])
    assert before == everything(store)


def test_a_hole_is_never_written(store):
    """A sequence that does not follow the last one refuses the whole commit."""
    store.commit(rows(3))
    before = everything(store)
    with pytest.raises(LedgerUnavailable):
        store.commit([(3, b"new"), (5, b"too far")], [Write("s", b"k", b"v")])
    assert before == everything(store)


def test_reopen_changes_nothing(store):
    """What is durable is found again, and writing goes on."""
    store.commit(rows(3), [Write("s", b"k", b"v")])
    before = everything(store)
    store.reopen()
    assert before == everything(store)
    store.commit(rows(1, first=3))
    assert store.next_seq() == 4


def test_readers_see_whole_commits_while_they_are_written(kind, store):
    """A reader finds a dense prefix, and the projections of exactly the commits it is made of."""
    commits, width = 200, 3
    store.commit(rows(width), [Write("s", b"last", b"0")])
    reader = kind.reader(store)
    done, problems, looks = threading.Event(), [], []

    def read():
        while not done.is_set():
            # In this order a commit in between can only make `after` larger.
            before = int(reader.get("s", b"last"))
            count = reader.next_seq()
            after = int(reader.get("s", b"last"))
            if not (before + 1) * width <= count <= (after + 1) * width or count % width:
                problems.append((before, count, after))
            read = [seq for seq, _ in reader.entries(0, count - 1)]
            if read != list(range(count)):
                problems.append(read)
            looks.append(count)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(1, commits):
        store.commit(rows(width, first=number * width), [Write("s", b"last", b"%d" % number)])
    done.set()
    for thread in threads:
        thread.join()
    if reader is not store:
        reader.close()
    assert problems == []
    assert looks
    assert store.next_seq() == commits * width


def test_a_read_that_began_goes_on_while_entries_are_added(store):
    """An iteration over entries neither repeats nor misses one because of a commit meanwhile."""
    store.commit(rows(1500))
    reading = store.entries()
    first = [next(reading) for _ in range(10)]
    store.commit(rows(500, first=1500))
    rest = list(reading)
    assert rows(2000)[: 10 + len(rest)] == first + rest
    assert len(rest) >= 1490


def test_many_keys_are_read_at_once(store):
    """`get_many` gives the keys that are there and says nothing of the others."""
    store.commit([], [Write("s", b"%d" % key, b"v%d" % key) for key in range(10)])
    assert {b"3": b"v3", b"7": b"v7"} == store.get_many("s", [b"3", b"absent", b"7", b"3"])
    assert store.get_many("s", []) == {}
    assert store.get_many("absent", [b"3"]) == {}


def test_a_scan_goes_on_after_a_key(store):
    """`scan(space, after)` begins behind `after`, whether that key is there or not."""
    store.commit([], [Write(space, key, b"v") for space in ("r", "s", "t") for key in (b"", b"a", b"c", b"\xff")])
    assert [b"c", b"\xff"] == [key for key, _ in store.scan("s", b"a")]
    assert [b"c", b"\xff"] == [key for key, _ in store.scan("s", b"b")]
    assert [b"", b"a", b"c", b"\xff"] == [key for key, _ in store.scan("s", b"")]
    assert list(store.scan("s", b"\xff")) == []


def test_the_last_key_of_a_space_is_found(store):
    """`last` gives the highest key by its bytes, None where there is no key."""
    assert store.last("s") is None
    store.commit(
        [], [Write("s", b"a", b"1"), Write("s", b"\xfe", b"2"), Write("s", b"ab", b"3"), Write("t", b"\xff", b"")]
    )
    assert store.last("s") == (b"\xfe", b"2")


@pytest.mark.parametrize("space", ["s", "shared/s"])
def test_of_two_who_add_a_key_the_first_wins(store, space):
    """`add` writes what is absent, leaves what is there, and answers what stands for every key asked."""
    assert store.add(space, {b"a": b"1", b"b": b"1"}) == {b"a": b"1", b"b": b"1"}
    assert store.add(space, {b"b": b"2", b"c": b"2"}) == {b"b": b"1", b"c": b"2"}
    assert store.add(space, {}) == {}
    assert [(b"a", b"1"), (b"b", b"1"), (b"c", b"2")] == list(store.scan(space))


@pytest.mark.parametrize("space", ["s", "shared/s"])
def test_erased_keys_are_gone(store, space):
    """`erase` removes exactly the keys asked for; what is not there is no mistake."""
    store.commit(rows(1), [Write(each, b"%d" % key, b"v") for each in (space, "other") for key in range(5)])
    store.erase(space, [b"1", b"3", b"absent"])
    store.erase(space, [b"1"])
    store.erase(space, [])
    assert [b"0", b"2", b"4"] == [key for key, _ in store.scan(space)]
    assert len(list(store.scan("other"))) == 5
    assert store.traces([b"absent from every file"]) == []


def test_compacting_changes_nothing_that_can_be_read(store):
    """`compact` writes the files anew; everything is there afterwards, and writing goes on."""
    store.commit(rows(3), [Write(space, b"%d" % key, b"v" * 100) for space in ("s", "shared/s") for key in range(100)])
    store.trim("s", 50)
    before = everything(store)
    store.compact()
    assert before == everything(store)
    store.commit(rows(1, first=3))
    assert rows(4) == list(store.entries())


def test_pruning_takes_the_oldest_entries(store):
    """Entries below the mark are gone, the others keep their places, and the chain goes on where it was."""
    assert store.first_seq() == 0
    store.commit(rows(10), [Write("s", b"k", b"v")])
    store.prune(4)
    assert store.first_seq() == 4
    assert store.next_seq() == 10
    assert rows(6, first=4) == list(store.entries())
    store.prune(2)
    assert store.first_seq() == 4
    store.commit(rows(1, first=10))
    store.reopen()
    assert rows(7, first=4) == list(store.entries())
    assert store.get("s", b"k") == b"v"


def test_pruning_everything_leaves_the_last_entry(store):
    """However far a chain is pruned, it knows where it was; many entries go in steps."""
    store.prune(5)
    store.commit(rows(5000))
    store.prune(6000)
    assert rows(1, first=4999) == list(store.entries())
    store.reopen()
    assert store.next_seq() == 5000
    store.commit(rows(1, first=5000))


def test_a_shared_turn_ends_with_its_block(store):
    """Reading and writing go on within a turn, and another one can follow, also after an error."""
    with store.shared_turn():
        store.commit(rows(1), [Write("shared/s", b"k", b"1")])
        assert store.get("shared/s", b"k") == b"1"
    with pytest.raises(RuntimeError, match="cannot go on"), store.shared_turn():
        raise RuntimeError("cannot go on")
    with store.shared_turn():
        store.commit(rows(1, first=1))
    assert rows(2) == list(store.entries())


def test_closing_twice_is_no_mistake(store):
    """Two owners of one store may both let go of it."""
    store.close()
    store.close()
