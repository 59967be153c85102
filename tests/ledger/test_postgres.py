"""What only the PostgreSQL store promises: one fenced writer a chain, entries nobody alters, no doubt about commits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import traceback
from contextlib import closing, suppress
from urllib.parse import quote

import psycopg
import pytest

from kiki.errors import DatabaseError, EpochPassed, LedgerCorrupt, LedgerLocked, LedgerUnavailable
from kiki.ledger import postgres as postgres_module
from kiki.ledger import postgres_schema
from kiki.ledger.ledger import Ledger, read_entries
from kiki.ledger.postgres import UNFINISHED, PostgresReader, PostgresStore
from kiki.ledger.store import Write
from kiki.shield.fact import Halted, decode_fact
from tests.servers import running_postgres

OWN = """
import sys
from kiki.ledger.postgres import PostgresStore
store = PostgresStore(sys.argv[1], "one")
print("owned", flush=True)
sys.stdin.read()
"""


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
    deadline = time.monotonic() + 5
    while admin(f"SELECT FROM pg_stat_activity WHERE pid = {session.pid}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- one owner -----------------------------------------------------------------------------------------


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


# -- what nobody may do with entries -------------------------------------------------------------------

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


# -- setting up ----------------------------------------------------------------------------------------


def test_replicas_that_start_at_once_migrate_once(postgres):
    """Whoever comes first makes the schema; the others wait and find it ready."""
    opened, failed = [], []

    def start(name):
        try:
            opened.append(PostgresStore(postgres, name))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=start, args=(f"replica-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for store in opened:
        store.commit(rows(1))
        assert len(store.readers()) == 4
        store.close()


def test_an_older_kiki_works_on_a_newer_schema(store, postgres, admin):
    """Migrations only add, so while a fleet is updated both versions go on."""
    store.commit(rows(1))
    admin("UPDATE kiki.alembic_version SET version_num = '0999'")
    admin("ALTER TABLE kiki.entry ADD COLUMN later text DEFAULT 'added'")
    store.commit(rows(1, first=1))
    with closing(PostgresStore(postgres, "two")) as other:
        other.commit(rows(2))
    assert rows(2) == list(store.entries())


def test_the_head_is_the_newest_migration():
    """The revision that this version asks for is the last one that it brings."""
    versions = postgres_schema._MIGRATIONS / "versions"
    assert max(path.stem.rpartition("_")[2] for path in versions.glob("*_*.py")) == postgres_schema.HEAD


def test_a_login_without_rights_is_told_what_an_administrator_has_to_run(postgres_server, postgres, admin):
    """The hint holds the statements; after exactly these, it starts."""
    admin(f'CREATE ROLE "limited ""one" LOGIN PASSWORD \'{postgres_server.password}\'')
    try:
        url = postgres_server.url(postgres.rpartition("/")[2], quote('limited "one'))
        with pytest.raises(DatabaseError, match="may not set up the ledger") as refused:
            PostgresStore(url, "one", schema="evidence")
        for statement in refused.value.hint.splitlines()[1:]:
            admin(statement)
        with closing(PostgresStore(url, "one", schema="evidence")) as store:
            store.commit(rows(2))
            store.prune(1)
            store.erase("shared/s", [b"k"])
    finally:
        admin('DROP OWNED BY "limited ""one"')
        admin('DROP SCHEMA IF EXISTS evidence CASCADE; DROP ROLE "limited ""one"')


def test_a_login_that_owns_nothing_can_write_but_is_warned_about_erasure(
    postgres_server, store, postgres, admin, caplog
):
    """An administrator may keep the tables: then the login needs only the two roles."""
    admin(f"CREATE ROLE writes_only LOGIN PASSWORD '{postgres_server.password}'")
    try:
        admin("GRANT kiki_writer TO writes_only")
        url = postgres_server.url(postgres.rpartition("/")[2], "writes_only")
        with closing(PostgresStore(url, "two")) as other:
            assert "does not own the tables" in caplog.text
            other.commit(rows(3), [Write("shared/s", b"k", b"v")])
            other.erase("shared/s", [b"k"])
            assert list(other.scan("shared/s")) == []
            with pytest.raises(LedgerUnavailable, match="may not write them anew"):
                other.compact()
            with pytest.raises(LedgerUnavailable, match="permission denied to set role"):
                other.prune(2)
            assert rows(3) == list(other.entries())
    finally:
        admin("REVOKE kiki_writer FROM writes_only")
        admin("DROP ROLE writes_only")


@pytest.mark.parametrize("mode", ["off", "local", "remote_write"])
def test_commits_that_would_be_acknowledged_too_early_are_refused(postgres, admin, mode):
    """A ledger on a server that answers before it is durable is no ledger; the message says what to set."""
    admin(f"ALTER DATABASE {postgres.rpartition('/')[2]} SET synchronous_commit = {mode}")
    with pytest.raises(DatabaseError, match=f"synchronous_commit is {mode}.*SET synchronous_commit = on"):
        PostgresStore(postgres, "one")
    admin(f"ALTER DATABASE {postgres.rpartition('/')[2]} SET synchronous_commit = remote_apply")
    PostgresStore(postgres, "one").close()


def test_a_server_that_never_syncs_is_refused():
    with running_postgres("-c", "fsync=off") as server:
        url = server.new_database()
        with pytest.raises(DatabaseError, match="set fsync = on"):
            PostgresStore(url, "one")


def test_reading_what_is_not_there_says_so(postgres):
    with pytest.raises(LedgerUnavailable, match="there is no ledger in"):
        PostgresReader(postgres)


def test_a_damaged_schema_is_no_ledger(store, admin):
    """Somebody dropped a table: nothing is made in its place."""
    admin("DROP TABLE kiki.projection")
    with pytest.raises(LedgerCorrupt, match="not whole"):
        store.get("s", b"k")
    with pytest.raises(LedgerCorrupt, match="not whole"):
        store.commit(rows(1), [Write("s", b"k", b"v")])
    assert store.next_seq() == 0


def test_no_message_holds_the_password(postgres_server, postgres):
    """Not of a wrong password, a wrong port, an unreadable URL, nor of what prints a store."""
    right, wrong = postgres_server.password, "s3cr3t/p@ss word"
    base = f"127.0.0.1:{postgres_server.port}/{postgres.rpartition('/')[2]}"
    urls = [
        f"postgresql://kiki:{quote(wrong, safe='')}@{base}",
        f"postgresql://kiki:{quote(wrong, safe='')}@127.0.0.1:1/db",
        f"postgresql://kiki:{quote(wrong, safe='')}@127.0.0.1:port/db",
        f"postgresql://kiki:{wrong}@{base}",
        f"postgres://kiki:{wrong}@{base}?unknown={quote(wrong, safe='')}",
        f"mysql://kiki:{quote(wrong, safe='')}@{base}",
        f"host=127.0.0.1 password='{wrong}'",
        "postgresql://",
    ]
    for url in urls:
        with pytest.raises((LedgerUnavailable, DatabaseError)) as failed:
            PostgresStore(url, "one", connect_timeout=2)
        said = "".join(traceback.format_exception(failed.value)) + repr(failed.value) + str(failed.value.hint)
        assert "s3cr3t" not in said
        assert "p@ss" not in said
        assert quote(wrong, safe="") not in said
    with closing(PostgresStore(postgres.replace("postgresql://", "postgres://"), "one")) as store:
        said = f"{store!r} {store._read!r} {vars(store)['_read']}"
        assert base in said
        assert right not in said
        assert quote(right, safe="") not in said


def test_without_psycopg_the_extra_is_named():
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "try:\n    import kiki.ledger.postgres\n"
        "except Exception as error:\n    print(type(error).__name__, error, error.hint)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "MissingExtra a ledger in PostgreSQL needs the extra 'postgres' pip install 'kiki[postgres]'\n"


def test_an_unfinished_copy_is_nobodys_ledger(store, postgres):
    """Whoever would begin to write there is refused."""
    store.commit([], [Write(UNFINISHED, b"chain", b"x")])
    with pytest.raises(LedgerUnavailable, match="being copied"):
        PostgresStore(postgres, "two")
    PostgresStore(postgres, "two", unfinished=True).close()


# -- what all chains share -----------------------------------------------------------------------------


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
        for problem in ("failed", "the turn on what all share", "the turn on what all share"):
            with pytest.raises(LedgerUnavailable, match=problem):
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
        assert started.wait(10)
        other.raise_epoch("w")
        found = [reader.next_seq() for reader in other.readers()]
        thread.join()
        assert [reader.next_seq() for reader in other.readers()] == found
    assert found[0] > 0


# -- erasing -------------------------------------------------------------------------------------------


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
    store.erase("shared/subject", [b"k"])


# -- faults --------------------------------------------------------------------------------------------


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
            deadline = time.monotonic() + 20
            while any(len(done) < before[name] + 100 for name, done in load.acknowledged.items()):
                assert time.monotonic() < deadline, load.problems
                time.sleep(0.01)
            own_postgres.crash()
            time.sleep(0.1)
            own_postgres.start()
    assert load.problems == []
    assert load.failures > 0
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
    with closing(PostgresStore(url, "one", answer_timeout=0.5, connect_timeout=2)) as store:
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
