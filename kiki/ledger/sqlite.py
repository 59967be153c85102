"""A ledger in one SQLite file: WAL, synchronous=FULL, one writer that owns it, any number of readers.

apsw brings its own SQLite: the one that ships with Python 3.11 may carry the WAL-reset corruption fixed in
3.51.3. Each commit is one transaction and one fsync of the write-ahead log.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

import apsw

from kiki.errors import LedgerCorrupt, LedgerLocked, LedgerUnavailable
from kiki.ledger.store import Write, require_dense

_FORMAT = 1
_APPLICATION = int.from_bytes(b"kiki", "big")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS projection (
    space TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (space, key)
) WITHOUT ROWID;
"""
_READ_ROWS = 1000
_ASKED_AT_ONCE = (1, 16, 512)
_SORTED_FROM = 1000
_CACHE_KIB = 65_536
_PRUNE_ROWS = 4096
_GREP_BYTES = 1 << 20
_BUSY_MS = 5000


def _translated(error: apsw.Error, path: Path) -> LedgerCorrupt | LedgerUnavailable:
    if isinstance(error, apsw.NotADBError | apsw.CorruptError):
        return LedgerCorrupt(
            f"{path} is not a readable ledger: {error}", hint="restore it from a backup; kiki changes nothing in it"
        )
    full = isinstance(error, apsw.FullError) or getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_WRITE
    unavailable = LedgerUnavailable(
        f"the ledger {path} failed: {error}", hint="free some space on its disk" if full else None
    )
    # A write that failed was rolled back. A failed sync is another matter: the kernel may have dropped the
    # pages, so only a new process may look at what is there.
    unavailable.recoverable = full or isinstance(error, apsw.BusyError)
    return unavailable


class SqliteReader:
    """Reads a ledger file while its owner writes it; takes no lock of its own."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reading = threading.Lock()
        if not self.path.exists():
            raise LedgerUnavailable(f"there is no ledger at {self.path}", hint="start a service or a guard on it first")
        self._read = self._connect(apsw.SQLITE_OPEN_READONLY)

    def _connect(self, flags: int) -> apsw.Connection:
        self._require_head()
        try:
            connection = apsw.Connection(str(self.path), flags=flags)
            connection.set_busy_timeout(_BUSY_MS)
            # The first statement opens the file for real, so that a damaged one is found here.
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        except apsw.Error as error:
            raise _translated(error, self.path) from error
        return connection

    def _require_head(self) -> None:
        """Raise `LedgerCorrupt` for an empty file beside a log that is not: SQLite would throw the log away unread."""
        log = self.path.with_name(self.path.name + "-wal")
        if self.path.exists() and not self.path.stat().st_size and log.exists() and log.stat().st_size:
            raise LedgerCorrupt(
                f"the ledger {self.path} is empty, and the log beside it, {log.name}, is not: the file was cut off",
                hint="restore the file from a backup, and keep what is there now; nothing was changed",
            )

    def entries(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Entries in order, read a thousand at a time so that no read holds up the log's checkpoints."""
        end = 2**62 if last is None else last
        while True:
            rows = self._query(
                "SELECT seq, body FROM entry WHERE seq >= ? AND seq <= ? ORDER BY seq LIMIT ?", first, end, _READ_ROWS
            )
            yield from rows
            if len(rows) < _READ_ROWS:
                return
            first = rows[-1][0] + 1

    def first_seq(self) -> int:
        """The lowest sequence that is still there, 0 when there is none."""
        return self._query("SELECT min(seq) FROM entry")[0][0] or 0

    def next_seq(self) -> int:
        """One more than the last entry's sequence, 0 when there is none."""
        rows = self._query("SELECT max(seq) FROM entry")
        return 0 if rows[0][0] is None else rows[0][0] + 1

    def get(self, space: str, key: bytes) -> bytes | None:
        """The value of one projected key."""
        rows = self._query("SELECT value FROM projection WHERE space = ? AND key = ?", space, key)
        return rows[0][0] if rows else None

    def get_many(self, space: str, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that are there."""
        asked, found = list(keys), dict[bytes, bytes]()
        for at in range(0, len(asked), _ASKED_AT_ONCE[-1]):
            part = asked[at : at + _ASKED_AT_ONCE[-1]]
            # Few lengths of statement, so that each stays prepared: what is missing to one is asked for twice.
            length = next(each for each in _ASKED_AT_ONCE if each >= len(part))
            marks = ",".join("?" * length)
            statement = f"SELECT key, value FROM projection WHERE space = ? AND key IN ({marks})"  # noqa: S608
            found.update(self._query(statement, space, *part, *part[:1] * (length - len(part))))
        return found

    def scan(self, space: str, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The keys of a space after `after`, with their values, in the order of the keys' bytes."""
        first = "SELECT key, value FROM projection WHERE space = ? ORDER BY key LIMIT ?"
        following = "SELECT key, value FROM projection WHERE space = ? AND key > ? ORDER BY key LIMIT ?"
        rows = self._query(following, space, after, _READ_ROWS) if after else self._query(first, space, _READ_ROWS)
        while rows:
            yield from rows
            rows = self._query(following, space, rows[-1][0], _READ_ROWS)

    def last(self, space: str) -> tuple[bytes, bytes] | None:
        """The highest key of a space with its value."""
        rows = self._query("SELECT key, value FROM projection WHERE space = ? ORDER BY key DESC LIMIT 1", space)
        return rows[0] if rows else None

    def spaces(self) -> list[str]:
        """The names of all projections."""
        found: list[str] = []
        last = ""
        # Skips from name to name along the primary key: a DISTINCT would walk every key.
        while rows := self._query("SELECT space FROM projection WHERE space > ? ORDER BY space LIMIT 1", last):
            last = rows[0][0]
            found.append(last)
        return found

    def _query(self, sql: str, *bindings: apsw.SQLiteValue) -> list[Any]:
        try:
            with self._reading:
                return self._read.execute(sql, bindings).fetchall()
        except apsw.Error as error:
            raise _translated(error, self.path) from error

    def close(self) -> None:
        """Let go of the file."""
        self._read.close()


class SqliteStore(SqliteReader):
    """Owns a ledger file, under a lock that ends with the process."""

    is_shared = False

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reading = threading.Lock()
        self._lock = self._own()
        try:
            self._open()
        except BaseException:
            self._lock.close()
            raise

    def _own(self) -> IO[bytes]:
        lock_path = self.path.with_name(self.path.name + ".lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.fdopen(os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
        except OSError as error:
            raise LedgerUnavailable(f"the ledger {self.path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = lock.read(64).decode("ascii", "replace").strip() or "unknown"
            lock.close()
            if owner == str(os.getpid()):
                raise LedgerLocked(
                    f"the ledger {self.path} is open already in this process, or in one of its number in another "
                    f"container (pid {owner})",
                    hint="use what has it open (a guard's consents are guard.consents), or close that first",
                ) from error
            raise LedgerLocked(
                f"another process (pid {owner}) owns the ledger {self.path}",
                hint="stop it, talk to it through its service, or use a ledger of your own",
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n".encode())
        lock.flush()
        return lock

    def _open(self) -> None:
        # Created with its final permissions: a ledger is nobody else's to read. An existing one is not touched
        # like this: closing any descriptor of a file drops the locks that SQLite has on it in this process.
        if self.path.is_dir():
            raise LedgerUnavailable(f"the ledger {self.path} cannot be opened: {os.strerror(errno.EISDIR)}")
        with suppress(FileExistsError):
            try:
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            except FileExistsError:
                raise
            except OSError as error:
                raise LedgerUnavailable(f"the ledger {self.path} cannot be opened: {error.strerror}") from error
        self._write = self._connect(apsw.SQLITE_OPEN_READWRITE)
        try:
            self._prepare()
            self._read = self._connect(apsw.SQLITE_OPEN_READONLY)
            self._next = self.next_seq()
        except apsw.Error as error:
            self._write.close()
            raise _translated(error, self.path) from error
        except BaseException:
            self._write.close()
            raise

    def _prepare(self) -> None:
        write = self._write
        owner, version = write.pragma("application_id"), write.pragma("user_version")
        is_new = not write.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        if owner != _APPLICATION and not (is_new and owner == version == 0):
            raise LedgerCorrupt(
                f"{self.path} is a database of another program", hint="give the ledger a file of its own"
            )
        if version not in (0, _FORMAT):
            raise LedgerCorrupt(
                f"{self.path} has ledger format {version}; this kiki knows {_FORMAT}",
                hint="use the kiki version that wrote it, or a newer one",
            )
        write.pragma("journal_mode", "wal")
        write.pragma("synchronous", "full")
        write.pragma("secure_delete", True)
        write.pragma("cache_size", -_CACHE_KIB)
        if version == 0:
            with write:
                write.execute(_SCHEMA)
                write.pragma("application_id", _APPLICATION)
                write.pragma("user_version", _FORMAT)

    def commit(
        self,
        entries: Sequence[tuple[int, bytes]],
        writes: Iterable[Write] = (),
        *,
        under_epoch: tuple[str, int] | None = None,
    ) -> None:
        """Write entries and projections in one transaction and wait until the disk has it."""
        require_dense(entries, self._next)
        execute, executemany = self._write.execute, self._write.executemany
        changes = list(writes)
        if len(changes) >= _SORTED_FROM:
            # Keys are random: in their order, each page of the tree is read and written once. One key's keep theirs.
            changes.sort(key=lambda write: write[:2])
        try:
            execute("BEGIN IMMEDIATE")
            try:
                executemany("INSERT INTO entry (seq, body) VALUES (?, ?)", entries)
                for space, key, value in changes:
                    if value is None:
                        execute("DELETE FROM projection WHERE space = ? AND key = ?", (space, key))
                    else:
                        execute("INSERT OR REPLACE INTO projection VALUES (?, ?, ?)", (space, key, value))
                execute("COMMIT")
                self._next += len(entries)
            except BaseException:
                if self._write.in_transaction:
                    execute("ROLLBACK")
                raise
        except apsw.Error as error:
            raise _translated(error, self.path) from error

    def add(self, space: str, rows: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Write the keys that are absent; what stands afterwards for each."""
        found = self.get_many(space, rows)
        absent = [Write(space, key, value) for key, value in rows.items() if key not in found]
        if absent:
            self.commit([], absent)
        return {**rows, **found}

    def erase(self, space: str, keys: Iterable[bytes]) -> None:
        """Remove keys and overwrite their bytes, in the file and in its write-ahead log."""
        self.commit([], [Write(space, key, None) for key in keys])
        self.flush_log()

    def flush_log(self) -> None:
        """Move everything into the database file and empty the write-ahead log, which still holds old pages."""
        try:
            with self._reading:
                # Nobody of this process reads meanwhile; a reader elsewhere is waited for.
                busy, _, _ = self._write.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0]
        except apsw.Error as error:
            raise _translated(error, self.path) from error
        if busy:
            failure = LedgerUnavailable(
                f"the write-ahead log of {self.path} cannot be emptied while another process reads it",
                hint="end the readers (an export or verification that runs) and ask again",
            )
            failure.recoverable = True
            raise failure

    def traces(self, needles: Iterable[bytes]) -> list[str]:
        """Which of the database, its log and the log's index hold any of these bytes, free pages included."""
        wanted = list(needles)
        files = [self.path, *(self.path.with_name(self.path.name + suffix) for suffix in ("-wal", "-shm"))]
        return [file.name for file in files if file.exists() and _holds_any(file, wanted)]

    def compact(self) -> None:
        """Write the file anew without what was removed, and empty the log."""
        try:
            self._write.execute("VACUUM")
        except apsw.Error as error:
            raise _translated(error, self.path) from error
        self.flush_log()

    def prune(self, before: int) -> None:
        """Remove the entries below `before`, some thousand at a time."""
        try:
            while self._delete_entries(min(before, self._next - 1)):
                pass
        except apsw.Error as error:
            raise _translated(error, self.path) from error

    def _delete_entries(self, before: int) -> int:
        self._write.execute(
            "DELETE FROM entry WHERE seq IN (SELECT seq FROM entry WHERE seq < ? ORDER BY seq LIMIT ?)",
            (before, _PRUNE_ROWS),
        )
        return self._write.changes()

    def shared_turn(self) -> AbstractContextManager[None]:
        """Nobody else may write this file."""
        return nullcontext()

    def trim(self, space: str, most: int = 1000) -> int:
        """Remove up to `most` keys of a space in a transaction of its own; how many were removed."""
        try:
            self._write.execute(
                "DELETE FROM projection WHERE space = ?1 AND key IN "
                "(SELECT key FROM projection WHERE space = ?1 ORDER BY key LIMIT ?2)",
                (space, most),
            )
            return self._write.changes()
        except apsw.Error as error:
            raise _translated(error, self.path) from error

    def reopen(self) -> None:
        """Close both connections and read from the file what became durable."""
        for connection in (self._read, self._write):
            connection.close(True)
        self._open()

    def close(self) -> None:
        """Let go of the files and of the lock."""
        self._read.close()
        self._write.close()
        self._lock.close()


def _holds_any(file: Path, needles: Sequence[bytes]) -> bool:
    overlap = max(map(len, needles), default=1) - 1
    # Through SQLite's own file system layer: closing a plain descriptor of the database would drop the locks that
    # this process has on it.
    stream = apsw.VFSFile("", str(file), [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0])
    try:
        tail = b""
        for offset in range(0, stream.xFileSize(), _GREP_BYTES):
            window = tail + stream.xRead(_GREP_BYTES, offset)
            if any(needle in window for needle in needles):
                return True
            tail = window[-overlap:] if overlap else b""
    finally:
        stream.xClose()
    return False
