"""One way to talk SQL to both databases of engage: SQLite in a file (apsw, its own SQLite), or PostgreSQL.

Statements are written once, in what the two have in common, with `?` for values. A transaction that ends without an
exception is durable. Whoever writes takes its turn at the beginning. Foreign errors become `StoreUnavailable`, without
statements and values: those hold personal data.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from kiki.errors import MissingExtra, StoreUnavailable

Row = tuple[Any, ...]

SCHEMA: Final = "kiki_engage"
_SCHEMA_LOCK: Final = 7_274_050
_BUSY_MS: Final = 10_000
_ANSWER_MS: Final = 30_000
_TEXTS_AT_ONCE: Final = 500


class Statements(Protocol):
    """What may be said inside a transaction."""

    def run(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """The rows of one statement; none of one that returns nothing."""
        ...

    def many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """One statement for each row of values."""
        ...


class Database(Protocol):
    """A place where engage keeps what it knows. Thread-safe."""

    is_shared: bool
    """Whether other processes may write to it at the same time."""
    for_update: str
    """What a SELECT ends with that keeps others from the rows it found."""

    def writing(self) -> Any:
        """A transaction, as a context manager that gives `Statements`."""
        ...

    def read(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """The rows of one statement outside any transaction."""
        ...

    def scrub(self) -> None:
        """Let nothing that was erased stay in a log of changes."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def open_database(where: str | Path | None) -> Database:
    """A SQLite file, the PostgreSQL of a `postgresql://` address, or None: memory, forgotten at the end."""
    if where is not None and str(where).startswith(("postgresql://", "postgres://")):
        return PostgresDatabase(str(where))
    return SqliteDatabase(None if where is None else Path(where))


def read_in(database: Database, statement: str, values: Sequence[object], texts: Iterable[str]) -> Iterator[Row]:
    """The rows of a statement that ends with `IN`, for any number of texts: a database takes so many at once and no more."""
    wanted = sorted(set(texts))
    for first in range(0, len(wanted), _TEXTS_AT_ONCE):
        some = wanted[first : first + _TEXTS_AT_ONCE]
        yield from database.read(f"{statement} ({', '.join('?' * len(some))})", (*values, *some))


class SqliteDatabase:
    """One file: WAL, synchronous=FULL, and nothing that was erased stays in free pages."""

    is_shared = False
    for_update = ""

    def __init__(self, path: Path | None) -> None:
        import apsw

        self._error = apsw.Error
        self._turn = threading.RLock()
        self._reading = threading.RLock()
        name = ":memory:" if path is None else str(path)
        try:
            if path is not None:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not path.exists():
                    path.touch(mode=0o600)
            self._connection = self._opened(apsw.Connection(name))
            # A reader of its own: a long look must not keep an opt-out from being written.
            self._reader = self._connection if path is None else self._opened(apsw.Connection(name))
        except (apsw.Error, OSError) as error:
            raise StoreUnavailable(f"the database at {name} cannot be opened: {error}") from error
        if path is None:
            self._reading = self._turn

    @staticmethod
    def _opened(connection: Any) -> Any:
        connection.set_busy_timeout(_BUSY_MS)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        return connection

    @contextmanager
    def writing(self) -> Iterator[Statements]:
        """A transaction."""
        with self._turn:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self
                    self._connection.execute("COMMIT")
                except BaseException:
                    with suppress(self._error):
                        self._connection.execute("ROLLBACK")
                    raise
            except self._error as error:
                raise _unavailable(error) from None

    def run(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """The rows of one statement inside the transaction."""
        return list(self._connection.execute(statement, values))

    def many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """One statement for each row."""
        self._connection.executemany(statement, rows)

    def read(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """The rows of one statement."""
        with self._reading:
            try:
                return list(self._reader.execute(statement, values))
            except self._error as error:
                raise _unavailable(error) from None

    def scrub(self) -> None:
        """Write the log back into the file, whose freed pages are zeroed, and cut it off."""
        with self._turn, self._reading:
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except self._error as error:
                raise _unavailable(error) from None

    def close(self) -> None:
        """Let go of the file."""
        with self._turn, self._reading:
            self._reader.close()
            self._connection.close()


class PostgresDatabase:
    """A shared database; each thread has a connection of its own, made anew when it was lost."""

    is_shared = True
    for_update = " FOR UPDATE"

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtra("postgres", "customers in PostgreSQL") from error
        self._psycopg = psycopg
        self._url = url
        self._own = threading.local()
        self._all: set[Any] = set()
        self._lock = threading.Lock()
        # A schema of its own, by name: where the user is called as the ledger's schema is ("kiki"), unqualified tables would
        # be made in that one from the day on which it exists, and hide those that were made before.
        connection = self._connection()
        try:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        except psycopg.Error as error:
            raise _unavailable(error) from None

    def _connection(self) -> Any:
        connection = getattr(self._own, "connection", None)
        if connection is None or connection.closed or connection.broken:
            try:
                connection = self._psycopg.connect(
                    self._url,
                    autocommit=True,
                    connect_timeout=5,
                    options=f"-c statement_timeout={_ANSWER_MS} -c synchronous_commit=on -c search_path={SCHEMA}",
                    application_name="kiki-engage",
                )
            except self._psycopg.Error:
                raise StoreUnavailable("the PostgreSQL that customers and points are kept in does not answer") from None
            self._own.connection = connection
            with self._lock:
                self._all = {each for each in self._all if not each.closed} | {connection}
        return connection

    @contextmanager
    def writing(self) -> Iterator[Statements]:
        """A transaction."""
        connection = self._connection()
        try:
            with connection.transaction():
                yield _PostgresStatements(connection)
        except self._psycopg.Error as error:
            raise _unavailable(error) from None

    def read(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """The rows of one statement."""
        try:
            return _PostgresStatements(self._connection()).run(statement, values)
        except self._psycopg.Error as error:
            raise _unavailable(error) from None

    def scrub(self) -> None:
        """Nothing: what PostgreSQL keeps of old rows is for its own vacuum, and holds ciphertext without a key."""

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for connection in self._all:
                connection.close()
            self._all.clear()


class _PostgresStatements:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def run(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        cursor = self._connection.execute(statement.replace("?", "%s"), _storable(values))
        return cursor.fetchall() if cursor.description is not None else []

    def many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(statement.replace("?", "%s"), map(_storable, rows))


def _storable(values: Sequence[object]) -> list[object]:
    """PostgreSQL keeps no U+0000 in a text: one such letter in a shop's tag must not end the reading of all customers."""
    return [each.replace("\0", "\ufffd") if isinstance(each, str) and "\0" in each else each for each in values]


def _unavailable(error: BaseException) -> StoreUnavailable:
    # Neither the words (they may quote a value) nor the statement: only what kind of trouble it is.
    state = getattr(error, "sqlstate", None)
    return StoreUnavailable(
        f"the database of customers and points failed: {type(error).__name__}{f' ({state})' if state else ''}"
    )
