"""What only the PostgreSQL store promises: one fenced writer a chain, entries nobody alters, epochs, real erasure."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing, suppress

import msgspec
import psycopg
import pytest

from kiki.errors import DatabaseError, EpochPassed, LedgerCorrupt, LedgerLocked, LedgerUnavailable
from kiki.ledger import postgres as postgres_module
from kiki.ledger.entry import encode_entry
from kiki.ledger.ledger import Ledger
from kiki.ledger.postgres import PostgresReader, PostgresStore
from kiki.ledger.store import Write
from tests.ledger.postgres_chain import admin, rows, store, terminate

__all__ = ["admin", "store"]

OWN = """
import sys
from kiki.ledger.postgres import PostgresStore
store = PostgresStore(sys.argv[1], "one")
print("owned", flush=True)
sys.stdin.read()
"""


class Noted(msgspec.Struct, array_like=True, tag="noted", frozen=True):
    """A fact of no domain."""

    text: str


# -- one owner ---------------------------------------------------------------------------------------


def test_a_chain_has_one_owner_and_the_next_one_is_told_who(postgres, monkeypatch):
    """While a process lives, nobody else gets its chain; when it is killed, its chain is free."""
    monkeypatch.setattr(postgres_module, "_CLAIM_SECONDS", 0.2)
    with subprocess.Popen(
        [sys.executable, "-c", OWN, postgres], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "owned\n"
        with pytest.raises(LedgerLocked, match=f"pid {process.pid}.*chain one"):
            PostgresStore(postgres, "one")
        PostgresStore(postgres, "two").close()
        process.kill()
    PostgresStore(postgres, "one").close()


def test_each_replica_has_a_chain_and_all_of_them_share_what_is_shared(store, postgres):
    """Entries and own spaces stay apart, shared spaces are the same; readers find every chain."""
    with closing(PostgresStore(postgres, "two")) as other:
        store.commit(rows(3), [Write("s", b"k", b"one"), Write("shared/s", b"k", b"one")])
        other.commit(rows(5), [Write("s", b"k", b"two"), Write("shared/s", b"k", b"two"), Write("t", b"", b"")])
        assert (store.get("s", b"k"), other.get("s", b"k")) == (b"one", b"two")
        assert store.get("shared/s", b"k") == other.get("shared/s", b"k") == b"two"
        assert store.spaces() == ["s", "shared/s"]
        assert other.spaces() == ["s", "shared/s", "t"]
        readers = other.readers()
        assert [("one", 3), ("two", 5)] == [(reader.chain.name, reader.next_seq()) for reader in readers]
        assert [rows(3), rows(5)] == [list(reader.entries()) for reader in readers]
        assert readers[0].get("s", b"k") == b"one"
    with closing(PostgresReader(postgres)) as reader:
        assert reader.get("shared/s", b"k") == b"two"
        assert len(reader.readers()) == 2
        with pytest.raises(LedgerUnavailable, match="several chains"):
            reader.next_seq()
    for name in ("two", 2):
        with closing(PostgresReader(postgres, name)) as reader:
            assert reader.next_seq() == 5
    with pytest.raises(LedgerUnavailable, match="no chain three") as refused:
        PostgresReader(postgres, "three")
    assert refused.value.hint == "there are: one, two"


def test_nobody_goes_on_behind_an_unsigned_end_that_is_no_chain(store, admin, postgres):
    """The next checkpoint would cover it, and the ledger would never hold again."""
    chain = Write("meta", b"chain", b"one")
    store.commit([(seq, encode_entry(seq, seq, Noted("well"))) for seq in range(3)], [chain])
    assert 3 == Ledger(store).next_seq
    admin("INSERT INTO kiki.entry (chain, seq, body) SELECT chain, 3, body FROM kiki.entry WHERE seq = 1")
    store.reopen()
    with pytest.raises(LedgerCorrupt, match="entry 1 of the ledger stands where entry 3 belongs"):
        Ledger(store)


def test_schemas_are_ledgers_of_their_own(store, postgres):
    """The same chain name in another schema is another chain, with other shared spaces."""
    with closing(PostgresStore(postgres, "one", schema="kiki_keys")) as keys:
        keys.commit(rows(1), [Write("shared/s", b"k", b"v")])
        assert store.spaces() == []
        assert store.next_seq() == 0
    with pytest.raises(DatabaseError, match="expected a to z"):
        PostgresStore(postgres, "one", schema='kiki"; DROP TABLE x; --')


def test_who_lost_the_fence_writes_nothing_more(store, admin):
    """Even with its session alive, as behind a pooler, an older claim is refused in the transaction itself."""
    store.commit(rows(1), [Write("shared/s", b"k", b"before")])
    admin("UPDATE kiki.chain SET fence = fence + 1")
    attempts = [
        lambda: store.commit(rows(1, first=1), [Write("shared/s", b"k", b"after")]),
        lambda: store.add("shared/s", {b"new": b"v"}),
        lambda: store.erase("shared/s", [b"k"]),
        lambda: store.trim("shared/s"),
        lambda: store.prune(1),
        lambda: store.raise_epoch("window"),
    ]
    for attempt in attempts:
        with pytest.raises(LedgerUnavailable, match="another process has claimed this chain"):
            attempt()
    assert rows(1) == list(store.entries())
    assert [(b"k", b"before")] == list(store.scan("shared/s"))
    assert store.epoch("window") == 0


def test_who_lost_the_session_to_another_never_appends_again(store, postgres, admin, monkeypatch):
    """The chain goes to whoever claims it next; the old owner is refused until that one ends."""
    monkeypatch.setattr(postgres_module, "_CLAIM_SECONDS", 0.2)
    store.commit(rows(2))
    terminate(admin, store._write)
    with closing(PostgresStore(postgres, "one")) as heir:
        heir.commit(rows(1, first=2))
        for attempt in (lambda: store.commit(rows(1, first=2)), lambda: store.commit(rows(1, first=2)), store.reopen):
            with pytest.raises(LedgerUnavailable) as refused:
                attempt()
            assert refused.value.recoverable
        heir.commit(rows(1, first=3))
    store.reopen()
    assert store.next_seq() == 4
    store.commit(rows(1, first=4))
    assert rows(5) == list(store.entries())


def test_a_lost_session_is_claimed_again_by_the_next_write(store, admin):
    """The first write fails, since its fate is unknown; the next one goes on with a higher fence."""
    store.commit(rows(1))
    fence = store._fence
    terminate(admin, store._write)
    with pytest.raises(LedgerUnavailable, match="known when it answers again") as lost:
        store.add("shared/s", {b"k": b"v"})
    assert lost.value.recoverable
    assert store.add("shared/s", {b"k": b"v"}) == {b"k": b"v"}
    assert store._fence > fence
    store.commit(rows(1, first=1))


def test_a_session_that_only_the_server_believes_in_is_ended(store, monkeypatch):
    """After a partition the server may keep the old session, with its lock, for as long as nothing is heard of it."""
    store.commit(rows(1))
    kept = store._write._connection
    with monkeypatch.context() as partition:
        partition.setattr(type(store._write), "close", lambda *_, **_options: None)
        store.reopen()
    store.commit(rows(1, first=1))
    with pytest.raises(psycopg.OperationalError):
        kept.execute("SELECT 1")
    kept.close()


def test_reading_goes_on_after_its_connection_was_lost(store, postgres, admin):
    """A reader connects again by itself."""
    store.commit(rows(3), [Write("s", b"k", b"v")])
    with closing(PostgresReader(postgres)) as reader:
        for each in (store, reader):
            terminate(admin, each._read)
            with pytest.raises(LedgerUnavailable):
                each.get("s", b"k")
            assert each.get("s", b"k") == b"v"
            assert rows(3) == list(each.entries())


def test_a_closed_store_stays_closed(postgres):
    """Nothing is read or written through it any more, and nothing connects again."""
    store = PostgresStore(postgres, "one")
    store.close()
    for attempt in (store.next_seq, store.reopen, lambda: store.commit(rows(1)), lambda: store.add("s", {b"": b""})):
        with pytest.raises(LedgerUnavailable, match="closed"):
            attempt()


# -- what nobody may do with entries -----------------------------------------------------------------

ALTERING = (
    "UPDATE kiki.entry SET body = 'forged'",
    "INSERT INTO kiki.entry SELECT chain, seq, 'forged' FROM kiki.entry ON CONFLICT (chain, seq) DO UPDATE SET body = ''",
    "DELETE FROM kiki.entry",
    "TRUNCATE kiki.entry",
    "ALTER TABLE kiki.entry DISABLE TRIGGER ALL",
    "DROP TABLE kiki.entry",
    "CREATE OR REPLACE FUNCTION kiki.keep_entries() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "DELETE FROM kiki.chain",
    "UPDATE kiki.chain SET name = 'other'",
)


@pytest.mark.parametrize("statement", ALTERING)
def test_the_writer_can_neither_alter_nor_remove_an_entry(store, statement):
    """Whatever gets into a statement of the writing session, its role has no right for it."""
    store.commit(rows(3))
    assert [("kiki_writer",)] == store._write._connection.execute("SELECT current_user").fetchall()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        store._write._connection.execute(statement)
    assert rows(3) == list(store.entries())


@pytest.mark.parametrize(
    "statement", ["UPDATE kiki.entry SET body = ''", "DELETE FROM kiki.entry", "TRUNCATE kiki.entry"]
)
def test_even_the_owner_and_the_superuser_are_refused_while_the_trigger_stands(store, admin, postgres, statement):
    """A grant made by mistake, or a slip of an administrator, alters nothing."""
    store.commit(rows(3))
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="never changed"):
        admin(statement)
    with psycopg.connect(postgres) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)
    assert rows(3) == list(store.entries())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE kiki.entry SET body = ''",
        "INSERT INTO kiki.entry VALUES (1, 3, '')",
        "SELECT body FROM kiki.entry",
        "SELECT * FROM kiki.shared",
        "TRUNCATE kiki.entry",
    ],
)
def test_the_pruner_can_only_remove(store, postgres, statement):
    """The role that removes what is past its retention can neither read nor write anything."""
    store.commit(rows(3))
    with psycopg.connect(postgres) as connection:
        connection.execute("SET ROLE kiki_pruner")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)
    store.prune(2)
    assert store.first_seq() == 2
    assert [("kiki_writer",)] == store._write._connection.execute("SELECT current_user").fetchall()


# -- what all chains share ---------------------------------------------------------------------------


def test_one_replica_at_a_time_has_the_shared_turn(store, postgres):
    """Counting up by reading and writing loses nothing when it is done within a turn."""
    each = 40

    def count(mine):
        for _ in range(each):
            with mine.shared_turn():
                value = int(mine.get("shared/s", b"count") or 0)
                mine.commit([], [Write("shared/s", b"count", b"%d" % (value + 1))])

    with closing(PostgresStore(postgres, "two")) as other:
        threads = [threading.Thread(target=count, args=(mine,)) for mine in (store, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert store.get("shared/s", b"count") == b"%d" % (2 * each)


def test_a_turn_that_was_lost_writes_nothing(store, postgres, admin):
    """With the connection the turn is gone: what was read may be old, so the rest of the block must not write."""
    store.commit([], [Write("shared/s", b"k", b"before")])
    with store.shared_turn():
        terminate(admin, store._write)
        for _ in range(2):
            with pytest.raises(LedgerUnavailable, match="the turn on what all share"):
                store.commit([], [Write("shared/s", b"k", b"within")])
    assert store.get("shared/s", b"k") == b"before"
    with store.shared_turn():
        store.commit([], [Write("shared/s", b"k", b"after")])


def test_all_who_race_to_add_hear_the_same(store, postgres):
    """Many keys, added by two replicas in opposite order: both get one value for each, and no deadlock."""
    keys = [b"%03d" % number for number in range(500)]
    heard = {}

    def add(mine, name, order):
        heard[name] = {}
        for at in range(0, len(order), 50):
            heard[name] |= mine.add("shared/s", dict.fromkeys(order[at : at + 50], name))

    with closing(PostgresStore(postgres, "two")) as other:
        threads = [
            threading.Thread(target=add, args=(store, b"one", keys)),
            threading.Thread(target=add, args=(other, b"two", keys[::-1])),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert heard[b"one"] == heard[b"two"] == dict(store.scan("shared/s"))
    assert len(heard[b"one"]) == len(keys)


def test_nothing_is_appended_under_an_epoch_that_is_over(store):
    """An epoch begins at 0 and only rises; each window has its own; other entries do not care."""
    assert store.epoch("w") == 0
    store.commit(rows(1), under_epoch=("w", 0))
    assert store.raise_epoch("w") == 1
    with pytest.raises(EpochPassed, match="in epoch 1 now, this was decided in epoch 0"):
        store.commit(rows(1, first=1), [Write("shared/s", b"k", b"v")], under_epoch=("w", 0))
    assert rows(1) == list(store.entries())
    assert list(store.scan("shared/s")) == []
    store.commit(rows(1, first=1), under_epoch=("w", 1))
    store.commit(rows(1, first=2), under_epoch=("other", 0))
    store.commit(rows(1, first=3))
    assert store.raise_epoch("w") == 2
    assert (store.epoch("w"), store.epoch("other")) == (2, 0)


def test_after_the_epoch_was_raised_no_entry_of_the_old_one_arrives(store, postgres):
    """Whoever rebuilds a window raises its epoch and reads the chains: what is there then is all there will be."""
    started = threading.Event()

    def write():
        with suppress(EpochPassed):
            for seq in range(100_000):
                store.commit(rows(1, first=seq), under_epoch=("w", 0))
                started.set()

    with closing(PostgresStore(postgres, "two")) as other:
        thread = threading.Thread(target=write)
        thread.start()
        assert started.wait(60)
        other.raise_epoch("w")
        found = [reader.next_seq() for reader in other.readers()]
        thread.join()
        assert [reader.next_seq() for reader in other.readers()] == found
    assert found[0] > 0


# -- erasing -----------------------------------------------------------------------------------------


def test_erased_bytes_leave_the_tables(own_postgres):
    """After erasing and compacting, no file of the database itself holds them; the log and its archive may."""
    secret, other = b"canary-wrapped-key-0123456789abcdef", b"key-of-somebody-else"

    def found():
        own_postgres.execute("CHECKPOINT")
        files = [path for path in (own_postgres.data / "base").rglob("*") if path.is_file()]
        return {needle for needle in (secret, other) for path in files if needle in path.read_bytes()}

    with closing(PostgresStore(own_postgres.new_database(), "one")) as store:
        store.add("shared/subject", {secret: secret * 3, b"b": other})
        assert found() == {secret, other}
        store.erase("shared/subject", [secret])
        store.compact()
        assert found() == {other}


@pytest.mark.parametrize("login", ["kiki", "superuser"])
def test_erasing_says_so_when_a_transaction_still_sees_the_rows(store, postgres, monkeypatch, login):
    """VACUUM must leave what somebody may still look at: the erasure is not complete, and asking again completes it."""
    monkeypatch.setattr(postgres_module, "_WATCHED_SECONDS", 0.2)
    store.add("shared/subject", {b"k": b"v"})
    with psycopg.connect(postgres.replace("kiki:", f"{login}:")) as watcher:
        watcher.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        watcher.execute("SELECT 1 FROM kiki.shared")
        with pytest.raises(LedgerUnavailable, match="a transaction still sees it") as refused:
            store.erase("shared/subject", [b"k"])
        assert refused.value.recoverable
        assert store.get("shared/subject", b"k") is None
    monkeypatch.undo()  # nobody in particular looks any more, and whoever else does ends soon
    store.erase("shared/subject", [b"k"])


def test_the_turn_is_one_threads(store):
    """A look at a shared window takes it on a thread of its own; a change meanwhile waits for it."""
    inside, order = threading.Event(), []

    def other():
        with store.shared_turn():
            order.append("other")
            inside.set()

    with store.shared_turn():
        thread = threading.Thread(target=other)
        thread.start()
        assert not inside.wait(0.2)
        with store.shared_turn():
            order.append("within")
    thread.join()
    assert ["within", "other"] == order
