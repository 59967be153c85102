"""What only the SQLite store promises: one owner, private files, every commit synced, nothing foreign touched."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing

import apsw
import pytest

from kiki.errors import LedgerCorrupt, LedgerLocked, LedgerUnavailable
from kiki.ledger.sqlite import SqliteReader, SqliteStore
from kiki.ledger.store import Write

OWN = """
import sys
from kiki.ledger.sqlite import SqliteStore
from kiki.ledger.store import Write
store = SqliteStore(sys.argv[1])
store.commit([(0, b"first")], [Write("s", b"k", b"v")])
print("owned", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def other_owner(path):
    """A process that owns the ledger at `path` and has written one entry."""
    with subprocess.Popen(
        [sys.executable, "-c", OWN, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "owned\n"
        yield process
        process.kill()


def test_a_second_owner_in_this_process_is_refused(path):
    """One writer at a time, also within a process; the message names the owner."""
    store = SqliteStore(path)
    with pytest.raises(LedgerLocked, match=f"in this process.*pid {os.getpid()}"):
        SqliteStore(path)
    store.close()
    SqliteStore(path).close()


def test_a_second_process_is_refused_and_told_who_owns_it(path, other_owner):
    """The message names the process that has the ledger, and reading is still possible."""
    with pytest.raises(LedgerLocked, match=f"another process .pid {other_owner.pid}"):
        SqliteStore(path)
    reader = SqliteReader(path)
    assert list(reader.entries()) == [(0, b"first")]
    reader.close()


def test_the_lock_of_a_killed_owner_is_free(path, other_owner):
    """A crash leaves no lock behind, and what was committed is there."""
    other_owner.send_signal(signal.SIGKILL)
    other_owner.wait()
    store = SqliteStore(path)
    assert list(store.entries()) == [(0, b"first")]
    assert store.get("s", b"k") == b"v"
    store.close()


def test_a_failed_opening_gives_the_lock_back(path):
    """After a refusal to open, the same process may try again."""
    path.write_bytes(b"this is not a database, whatever its name says\n" * 100)
    with pytest.raises(LedgerCorrupt):
        SqliteStore(path)
    path.unlink()
    SqliteStore(path).close()


def test_all_files_are_private(path):
    """Nobody but the owner may read the ledger, its log or its lock, whatever the umask is."""
    old = os.umask(0)
    try:
        store = SqliteStore(path)
        store.commit([(0, b"x")])
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    finally:
        os.umask(old)
    store.close()
    assert modes == {"ledger.db": 0o600, "ledger.db-wal": 0o600, "ledger.db-shm": 0o600, "ledger.db.lock": 0o600}


def test_every_commit_is_synced(path):
    """The writing connection really uses a write-ahead log and a full sync, also after `reopen`."""
    store = SqliteStore(path)
    for _ in range(2):
        assert store._write.pragma("journal_mode") == "wal"
        assert store._write.pragma("synchronous") == 2
        store.reopen()
    store.close()


def test_committed_entries_are_in_the_files_when_commit_returns(path):
    """A copy of the files as they are, without closing anything, holds all that was committed."""
    store = SqliteStore(path)
    for seq in range(5):
        store.commit([(seq, b"%d" % seq)])
    # Copied by another process: reading them here would drop this process's locks on them.
    copy = path.with_name("copy.db")
    for suffix in ("", "-wal"):
        subprocess.run(["cp", f"{path}{suffix}", f"{copy}{suffix}"], check=True)
    again = SqliteStore(copy)
    assert [(seq, b"%d" % seq) for seq in range(5)] == list(again.entries())
    again.close()
    store.close()


@pytest.mark.parametrize("content", [b"seq,body\n1,2\n" * 50, os.urandom(4096)], ids=["text", "noise"])
def test_a_file_that_is_no_database_is_named_and_left_alone(path, content):
    """A damaged or foreign file raises `LedgerCorrupt` with its path, and stays as it was."""
    path.write_bytes(content)
    for opened in (SqliteStore, SqliteReader):
        with pytest.raises(LedgerCorrupt, match=r"ledger\.db"):
            opened(path)
    assert content == path.read_bytes()


@pytest.mark.parametrize("version", [0, 1])
def test_the_database_of_another_program_is_refused(path, version):
    """A good SQLite file with foreign tables is not taken for a ledger and gets none of ours."""
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE customers (name TEXT)")
        foreign.execute(f"PRAGMA user_version = {version}")
    foreign.close()
    before = path.read_bytes()
    with pytest.raises(LedgerCorrupt, match=r"ledger\.db"):
        SqliteStore(path).close()
    assert before == path.read_bytes()


def test_a_damaged_page_is_corruption_and_not_an_empty_ledger(path):
    """What cannot be read raises; it is never passed over."""
    store = SqliteStore(path)
    store.commit([(seq, b"x" * 2000) for seq in range(50)])
    store.close()
    content = bytearray(path.read_bytes())
    content[4096 : 4096 * 8] = os.urandom(4096 * 7)
    path.write_bytes(content)
    with pytest.raises(LedgerCorrupt, match=r"ledger\.db"), closing(SqliteStore(path)) as store:
        list(store.entries())


def test_a_newer_format_is_refused_untouched(path):
    """A ledger of a later kiki is named as such and not written to."""
    store = SqliteStore(path)
    store._write.pragma("user_version", 2)
    store.close()
    before = path.read_bytes()
    with pytest.raises(LedgerCorrupt, match="format 2; this kiki knows 1"):
        SqliteStore(path)
    assert before == path.read_bytes()


def test_a_path_that_cannot_be_opened_is_named(tmp_path):
    """A folder, or a file where a folder should be, gives the path and the reason."""
    with pytest.raises(LedgerUnavailable, match=f"{tmp_path}.*irectory"):
        SqliteStore(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnavailable, match=r"ledger\.db"):
        SqliteStore(tmp_path / "file" / "ledger.db")


def test_missing_folders_are_made_and_private(tmp_path):
    """The folder of a ledger is made when it is not there, readable by its owner alone."""
    store = SqliteStore(tmp_path / "data" / "ledger.db")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    store.close()


def test_a_reader_of_nothing_says_so_and_makes_nothing(path):
    """Looking at a ledger that is not there leaves no file."""
    with pytest.raises(LedgerUnavailable, match="there is no ledger"):
        SqliteReader(path)
    assert list(path.parent.iterdir()) == []


def test_a_reader_cannot_write(path):
    """The reading connection is refused every change by SQLite itself."""
    store = SqliteStore(path)
    reader = SqliteReader(path)
    for connection in (reader._read, store._read):
        with pytest.raises(apsw.ReadOnlyError):
            connection.execute("DELETE FROM entry")
    reader.close()
    store.close()


def test_reopen_leaves_the_locks_of_a_reader_in_this_process_alone(path):
    """Another program that opens and closes the file cannot remove the log under us.

    POSIX drops all locks that a process has on a file when it closes any descriptor of it; a ledger that
    touches its file while a reader in the same process has it open would lose later commits.
    """
    store = SqliteStore(path)
    store.commit([(0, b"first")])
    reader = SqliteReader(path)
    list(reader.entries())
    store.reopen()
    store.commit([(1, b"second")])
    visit = "import sys, sqlite3; db = sqlite3.connect(sys.argv[1]); db.execute('select * from entry').fetchall(); db.close()"
    subprocess.run([sys.executable, "-c", visit, str(path)], check=True)
    wal = path.with_name(path.name + "-wal")
    assert wal.exists()
    store.commit([(2, b"third")], [Write("s", b"k", b"v")])
    look = (
        "import sys, sqlite3; print(sqlite3.connect(sys.argv[1]).execute('select count(*) from entry').fetchone()[0])"
    )
    seen = subprocess.run([sys.executable, "-c", look, str(path)], check=True, capture_output=True, text=True)
    assert seen.stdout == "3\n"
    reader.close()
    store.close()


def test_closing_twice_is_no_mistake(path):
    """The second close finds nothing to do."""
    store = SqliteStore(path)
    store.close()
    store.close()


def test_after_close_nothing_is_written_and_the_error_is_ours(path):
    """A closed store refuses as an unavailable ledger."""
    store = SqliteStore(path)
    store.close()
    with pytest.raises(LedgerUnavailable):
        store.commit([(0, b"late")])
    with pytest.raises(LedgerUnavailable):
        store.next_seq()
