"""A database becomes a ledger: migrations, rights, settings that lose nothing, and no password in any message."""

from __future__ import annotations

import subprocess
import sys
import threading
import traceback
from contextlib import closing
from urllib.parse import quote

import pytest

from kiki.errors import DatabaseError, LedgerCorrupt, LedgerUnavailable
from kiki.ledger import postgres_schema
from kiki.ledger.postgres import UNFINISHED, PostgresReader, PostgresStore
from kiki.ledger.store import Write
from tests.ledger.postgres_chain import admin, rows, store
from tests.servers import running_postgres

__all__ = ["admin", "store"]


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
    for each in opened:
        each.commit(rows(1))
        assert len(each.readers()) == 4
        each.close()


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
