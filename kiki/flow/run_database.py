"""The database of the store of runs: a SQLite file (one machine) or PostgreSQL (a fleet), with flow's tables in it.

What differs between the two is here; foreign errors end here as `LedgerUnavailable`, without statements and values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from kiki.clock import Clock
from kiki.errors import InvalidInput, LedgerUnavailable
from kiki.flow.run_tables import SCHEMA_VERSION, metadata, schema

IDLE_SECONDS: Final = 5
SCHEMA: Final = "kiki_flow"
_SCHEMA_LOCK: Final = 7_274_052
_ITEMS_AT_ONCE: Final = 500

Item = TypeVar("Item")


class RunDatabase:
    """Transactions of one process; any thread may call it."""

    def __init__(self, where: str | Path, clock: Clock) -> None:
        """`where` is a SQLite file, or a `postgresql://` address."""
        self.engine = _engine(where)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._clock = clock
        try:
            self._make_schema()
        except sa.exc.SQLAlchemyError as error:
            self.engine.dispose()
            raise LedgerUnavailable(f"the store of runs cannot be opened: {_said(error)}") from error

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A look; raises `LedgerUnavailable` when the database does not answer."""
        try:
            with self.engine.connect().execution_options(reads=True) as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise LedgerUnavailable(f"the store of runs could not be read: {_said(error)}") from error

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction; raises `LedgerUnavailable` when the database does not take it, or nobody knows whether it did."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise unwritten(error) from error

    def now(self, connection: sa.Connection) -> int:
        """The database's clock decides about leases of a fleet; on one machine there is only one."""
        if self.is_sqlite:
            return self._clock()
        seconds = sa.text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        return int(connection.execute(seconds).scalar_one())

    def _make_schema(self) -> None:
        with self.engine.begin() as connection:
            if not self.is_sqlite:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:number)"), {"number": _SCHEMA_LOCK})
                connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            metadata.create_all(connection)
            version = connection.execute(sa.select(schema.c.version)).scalar_one_or_none()
            if version is None:
                connection.execute(sa.insert(schema).values(version=SCHEMA_VERSION))
            elif version != SCHEMA_VERSION:
                raise InvalidInput(f"the store of runs has version {version}, and this kiki reads {SCHEMA_VERSION}")


def _engine(where: str | Path) -> sa.Engine:
    """SQLite with a write-ahead log that is synced at every commit, or PostgreSQL."""
    text = str(where)
    if text.startswith(("postgresql://", "postgres://")):
        address = sa.engine.make_url(text).set(drivername="postgresql+psycopg")
        # A runner that is frozen within a transaction must not keep its runs from whoever takes them over.
        options = f"-c idle_in_transaction_session_timeout={IDLE_SECONDS * 1000}"
        # A schema by name: unqualified tables would land in the ledger's as soon as there is one of the user's name
        # ("kiki"), and those that were made before would be hidden.
        options += f" -c search_path={SCHEMA}"
        return sa.create_engine(
            address, pool_pre_ping=True, pool_size=5, max_overflow=10, connect_args={"options": options}
        )
    path = Path(where)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)  # SQLite would let everybody read it
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

    @sa.event.listens_for(engine, "connect")
    def _durable(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where SQLAlchemy says so, below
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # Whoever may write takes its turn at the beginning: a read that becomes a write could not wait.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if _writes(connection) else "BEGIN")

    return engine


def _writes(connection: sa.Connection) -> bool:
    return not connection.get_execution_options().get("reads", False)


def in_parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items, as many at a time as a statement takes."""
    for first in range(0, len(items), _ITEMS_AT_ONCE):
        yield items[first : first + _ITEMS_AT_ONCE]


def unwritten(error: Exception) -> LedgerUnavailable:
    """A transaction that the database did not take, or nobody knows whether it did."""
    return LedgerUnavailable(f"the store of runs could not be written: {_said(error)}")


def _said(error: Exception) -> str:
    """The driver's words, without the statement and its values."""
    origin = getattr(error, "orig", None)
    return " ".join(str(origin or error).split())[:200]
