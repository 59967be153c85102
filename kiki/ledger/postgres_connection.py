"""One connection to the PostgreSQL that holds ledgers: bounded waiting, one round trip a transaction, clear failures.

Every statement is an index lookup or an insert, so the planner is kept from whatever reads whole tables. No
message, trace or representation holds the password.
"""

from __future__ import annotations

import os
import re
import select
import socket
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from kiki.errors import DatabaseError, EpochPassed, KikiError, LedgerCorrupt, LedgerUnavailable, MissingExtra

try:
    import psycopg
    from psycopg import conninfo, pq, sql
except ImportError as _missing:
    raise MissingExtra("postgres", "a ledger in PostgreSQL") from _missing

__all__ = ["ANSWER_SECONDS", "CONNECT_SECONDS", "Row", "Session", "Step", "Values", "identifier_of", "psycopg", "sql"]

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 10.0
"""How long a statement may take, lock waits included, before its outcome is called unknown."""
VERSION_MIN: Final = 130_000

FENCE_LOST: Final = "KI001"
"""The SQLSTATE of a write by a process whose chain was claimed by another one."""
EPOCH_PASSED: Final = "KI002"
"""The SQLSTATE of a write under an epoch that is over."""

_LOCK_SECONDS: Final = 5.0
_TRIES: Final = 3
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_DURABLE: Final = ("on", "remote_apply")

Row = tuple[Any, ...]
_Result = TypeVar("_Result")


Values = Sequence[object] | Mapping[str, object]


class Step(NamedTuple):
    """One statement of a transaction."""

    statement: sql.Composed
    values: Values = ()


class _AnswerTimeout(Exception):
    """The server did not answer in time."""


class _Connection(psycopg.Connection[Row]):
    """Waits for answers only so long: a server that stopped, or a network that swallows packets, never ends a wait."""

    answer_seconds: float | None = ANSWER_SECONDS
    gave_up = False
    """An answer did not come in time. What psycopg raises while it tidies up may hide that."""

    def wait(self, gen: Generator[Any, Any, _Result], *args: Any, **options: Any) -> _Result:
        seconds = self.answer_seconds
        try:
            return super().wait(gen if seconds is None else _bounded(gen, seconds), *args, **options)
        except _AnswerTimeout:
            self.gave_up = True
            raise


def _bounded(gen: Generator[Any, Any, _Result], seconds: float) -> Generator[Any, Any, _Result]:
    """The same steps, ended by an exception when they take too long. psycopg looks in every tenth of a second."""
    deadline = time.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                raise _AnswerTimeout
            wanted = gen.send(ready)
    except StopIteration as stop:
        result: _Result = stop.value
        return result


class Session:
    """A connection in autocommit; safe for several threads, which take turns.

    `heals` makes it connect again by itself after it was lost: for reading only, because what a writer lost with its
    connection is its claim. `role` is taken on after connecting.
    """

    def __init__(
        self,
        url: str,
        *,
        heals: bool = False,
        connect_timeout: float = CONNECT_SECONDS,
        answer_timeout: float | None = ANSWER_SECONDS,
    ) -> None:
        self._parts = _parts(url)
        self.place = place_of(self._parts)
        self._heals = heals
        self._connect_timeout = connect_timeout
        self._answer_timeout = answer_timeout
        self._turn = threading.RLock()
        self._connection = self._connect(self._answer_timeout)

    def __repr__(self) -> str:
        return f"Session({self.place})"

    @property
    def is_open(self) -> bool:
        """False once the connection was lost or closed."""
        return not self._connection.closed

    def is_alive(self) -> bool:
        """False once the connection was lost, also when its server let go of it while nobody asked anything.

        A statement sent there could not be told from one whose answer was lost: whoever looks first need not wonder.
        """
        with self._turn:
            if self.is_open:
                ready = select.poll()
                ready.register(self._connection.pgconn.socket, select.POLLIN)
                if ready.poll(0):
                    # Something was said without a question: a notice, or the end.
                    try:
                        self._connection.pgconn.consume_input()
                    except psycopg.Error:
                        self._connection.close()
            return self.is_open

    @property
    def pid(self) -> int:
        """The server process that serves this connection."""
        return self._connection.info.backend_pid

    @property
    def login(self) -> str:
        """Who logged in."""
        return self._connection.info.user

    def connect_once(self) -> psycopg.Connection[Row]:
        """Another connection, for a transaction that takes as long as it takes; the caller closes it."""
        connection = self._connect(None)
        connection.autocommit = False
        connection.prepare_threshold = None
        return connection

    def _connect(self, answer_timeout: float | None) -> _Connection:
        options: dict[str, Any] = {
            "connect_timeout": max(2, round(self._connect_timeout)),
            "application_name": f"kiki {socket.gethostname()} pid {os.getpid()}"[:63],
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            **self._parts,  # what the URL asks for goes first, except where the ledger depends on it
            "client_encoding": "UTF8",
        }
        try:
            connection = _Connection.connect(**options, autocommit=True)
        except psycopg.Error as error:
            # Without its cause: the text of libpq may repeat parts of a URL that was not quoted well.
            raise self._unreachable(error) from None
        try:
            connection.answer_seconds = answer_timeout
            connection.prepare_threshold = 0
            millis = 0 if answer_timeout is None else round(answer_timeout * 1000)
            settings = {
                "search_path": "pg_catalog",
                "default_transaction_isolation": "read committed",
                "default_transaction_read_only": "on" if self._heals else "off",
                "statement_timeout": f"{millis}ms",
                "lock_timeout": f"{min(millis, round(_LOCK_SECONDS * 1000))}ms",
                "idle_in_transaction_session_timeout": f"{millis}ms",
                # A client that vanished without a word must not keep its claim for hours.
                "tcp_keepalives_idle": "5",
                "tcp_keepalives_interval": "2",
                "tcp_keepalives_count": "3",
                # Every statement finds its rows by primary key; a young table's statistics say otherwise.
                "plan_cache_mode": "force_generic_plan",
                "enable_seqscan": "off",
                "enable_hashjoin": "off",
                "enable_mergejoin": "off",
                # From plain to compiled code is a matter of cost estimates, which are void without sequential scans.
                "jit": "off",
            }
            names, values = list(settings), list(settings.values())
            connection.execute(
                "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS given (name, value)",
                (names, values),
                prepare=False,
            )
        except BaseException as error:
            connection.close()
            if isinstance(error, psycopg.Error | _AnswerTimeout):
                raise self._unreachable(error) from None
            raise
        return connection

    def _unreachable(self, error: Exception) -> LedgerUnavailable:
        said = " ".join(str(error).split()) or "it did not answer in time"
        password = self._parts.get("password")
        if password:
            said = said.replace(str(password), "[redacted]")
        unavailable = LedgerUnavailable(
            f"PostgreSQL at {self.place} cannot be used: {said}",
            hint="start it, or correct DATABASE_URL (or DB_HOST, DB_PORT, DB_NAME, DB_USER and DB_PASSWORD)",
        )
        unavailable.recoverable = True
        return unavailable

    def query(self, statement: sql.Composed, values: Values = ()) -> list[Row]:
        """The rows of one statement, which is a transaction of its own; it may be one that must stand alone."""
        return self.transact([Step(statement, values)])[0]

    def transact(self, steps: Sequence[Step]) -> list[list[Row]]:
        """The rows of each statement. All of them in one transaction and one round trip; durable when this returns.

        Raises `LedgerUnavailable`, `LedgerCorrupt` or `EpochPassed`. When `is_open` is False afterwards, whether the
        transaction was committed is unknown; else it was not.
        """
        with self._turn:
            if self._heals and not self.is_alive():
                self._connection = self._connect(self._answer_timeout)
            if not self.is_open:
                raise self.translated(psycopg.OperationalError("the connection is closed"))
            for attempt in range(_TRIES):
                try:
                    return self._run(steps)
                except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure) as error:
                    # It was rolled back, so it may be said again.
                    if attempt == _TRIES - 1:
                        raise self.translated(error) from error
                except psycopg.Error as error:
                    raise self.translated(error) from error
                except _AnswerTimeout as error:
                    raise self.translated(error) from None
        raise AssertionError  # the last attempt returned or raised

    def _run(self, steps: Sequence[Step]) -> list[list[Row]]:
        connection = self._connection
        try:
            if len(steps) == 1:
                return [_rows(connection.execute(*steps[0], binary=True))]
            # Without a BEGIN, everything up to the pipeline's end is one transaction, which its end commits.
            with connection.pipeline():
                cursors = [connection.execute(*step, binary=True) for step in steps]
            return [_rows(cursor) for cursor in cursors]
        except BaseException as error:
            # Whatever is still on its way on this connection would be taken for the answer to the next statement.
            refused = isinstance(error, psycopg.Error) and not connection.gave_up
            if not refused or connection.pgconn.transaction_status != pq.TransactionStatus.IDLE:
                connection.close()
            if connection.gave_up:
                raise _AnswerTimeout from None
            raise

    def translated(self, error: Exception) -> KikiError:
        """What a failure of a statement means to whoever writes or reads a ledger."""
        state = getattr(error, "sqlstate", None) or ""
        if state == EPOCH_PASSED:
            return EpochPassed(_said(error))
        if state in {"XX001", "XX002"}:
            return LedgerCorrupt(
                f"PostgreSQL at {self.place} reports damaged data: {_said(error)}", hint="restore it from a backup"
            )
        if state in {"3F000", "42P01", "42703", "42883"}:
            return LedgerCorrupt(
                f"the ledger in PostgreSQL at {self.place} is not whole: {_said(error)}",
                hint="restore it from a backup; kiki changes nothing in it",
            )
        hint = {
            "53100": "free some space on its disk",
            "25006": "it became a standby: name the primary in DATABASE_URL",
            "42501": "grant what is missing to kiki_writer, kiki_pruner or the login",
            FENCE_LOST: "stop the other process, or give each replica a name of its own with KIKI_REPLICA",
        }.get(state)
        unknown = "" if self.is_open else "; whether the last commit is in it is known when it answers again"
        unavailable = LedgerUnavailable(f"PostgreSQL at {self.place} failed: {_said(error)}{unknown}", hint=hint)
        # PostgreSQL itself stops after a failed sync and recovers what is durable: reading it again tells the truth.
        unavailable.recoverable = True
        return unavailable

    def require_fit(self) -> None:
        """Raise `DatabaseError` unless what this server acknowledges is durable; keeps it so for this session."""
        rows = self.query(
            sql.SQL(
                "SELECT current_setting('server_version_num')::int, current_setting('fsync'), "
                "set_config('synchronous_commit', current_setting('synchronous_commit'), false), pg_is_in_recovery()"
            ).format()
        )
        version, fsync, synchronous, is_standby = rows[0]
        problems = []
        if version < VERSION_MIN:
            problems.append(f"PostgreSQL {version // 10_000} is too old: 13 or newer is needed")
        if fsync != "on":
            problems.append("fsync is off: a power cut would lose what was acknowledged; set fsync = on")
        if synchronous not in _DURABLE:
            problems.append(
                f"synchronous_commit is {synchronous}: commits would be acknowledged before they are durable; set it to "
                "on (ALTER DATABASE … SET synchronous_commit = on, or the same for the role)"
            )
        if is_standby:
            problems.append("it is a standby, which cannot be written: name the primary")
        if problems:
            raise DatabaseError(problems, hint=f"the database is {self.place}; nothing in it was changed")

    def close(self, *, for_good: bool = False) -> None:
        """Let go of the connection, and with it of every lock; `for_good` ends healing too."""
        self._heals &= not for_good
        self._connection.close()


def identifier_of(schema: str) -> sql.Identifier:
    """A schema's name for a statement; raises `DatabaseError` when it is none that needs no quotes."""
    if not _SCHEMA.fullmatch(schema):
        raise DatabaseError([f"schema {schema!r}: expected a to z, 0 to 9 and _, 63 characters at most"])
    return sql.Identifier(schema)


def place_of(parts: dict[str, Any]) -> str:
    """Where a database is, without who logs in and how."""
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def _parts(url: str) -> dict[str, Any]:
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        parts = {}
    if not url.startswith(("postgresql://", "postgres://")) or not parts:
        # The URL is not repeated: what makes it unreadable may be its password.
        raise DatabaseError(
            ["the URL cannot be read: expected postgresql://user:password@host:port/name"],
            hint="write special characters of the user and the password in percent form: %40 for @, %2F for /",
        )
    return parts


def _said(error: Exception) -> str:
    if isinstance(error, _AnswerTimeout):
        return "it did not answer in time"
    # The primary message alone: details may quote rows.
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return (primary or " ".join(str(error).split()) or type(error).__name__).rstrip(".")


def _rows(cursor: psycopg.Cursor[Row]) -> list[Row]:
    return cursor.fetchall() if cursor.description is not None else []
