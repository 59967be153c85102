"""Customers and orders in somebody's PostgreSQL, by queries that map its columns to our names.

    SELECT id AS customer, mail AS email, total AS total_spend, updated AS changed_at FROM shop.customers

Each reading is one ordered pass behind a server-side cursor in a read-only transaction: no row limit, no age limit, every
buyer. Rows whose `changed_at` is younger than the horizon wait, because a transaction that began before may still commit.
A query's own errors are told as they are. What is written back stands in a table of ours, `kiki_customers`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, LiteralString

import msgspec

from kiki.clock import SECOND, Clock, to_datetime, wall_micros
from kiki.engage.crm.field_map import moment_of
from kiki.engage.crm.mark import dump_cursor, parse_cursor
from kiki.engage.crm.rows import (
    CUSTOMER_COLUMNS,
    CUSTOMER_NEEDS,
    ORDER_COLUMNS,
    ORDER_NEEDS,
    column_problems,
    customer_row,
    order_row,
)
from kiki.engage.source import Page, Record
from kiki.errors import ConfigurationError, InvalidInput, KikiError, MissingExtra, SourceUnavailable
from kiki.outbound.exchange import CONNECTION_LOST, INVALID, UNAVAILABLE
from kiki.outbound.outcome import Outcome, done, refused, unknown
from kiki.settings import Secret

try:
    import psycopg
    from psycopg import sql
    from psycopg.rows import DictRow, dict_row
    from psycopg.types.json import Jsonb
except ImportError as _missing:
    raise MissingExtra("postgres", "customers in PostgreSQL") from _missing

PAGE: Final = 1_000
HORIZON: Final = 60 * SECOND
CONNECT_SECONDS: Final = 10
STATEMENT_SECONDS: Final = 900

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS kiki_customers (
    customer text PRIMARY KEY, fields jsonb NOT NULL DEFAULT '{}', tags text[] NOT NULL DEFAULT '{}',
    changed_at timestamptz NOT NULL DEFAULT now()
)"""
_SET_FIELDS: Final = """
INSERT INTO kiki_customers (customer, fields) VALUES (%s, %s)
ON CONFLICT (customer) DO UPDATE SET fields = kiki_customers.fields || excluded.fields, changed_at = now()"""
_ADD_TAGS: Final = """
INSERT INTO kiki_customers (customer, tags) VALUES (%s, %s)
ON CONFLICT (customer) DO UPDATE SET changed_at = now(),
    tags = ARRAY(SELECT DISTINCT tag FROM unnest(kiki_customers.tags || excluded.tags) AS tag ORDER BY tag)"""


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """The last row that was told."""

    at: int = -1
    key: str = ""


class _Cursor(msgspec.Struct, kw_only=True, omit_defaults=True):
    customers: _Place = _Place()
    orders: _Place = _Place()


class PostgresSource:
    """See `Source`."""

    name: Final = "postgres"

    def __init__(
        self, conninfo: Secret, customers: str, orders: str = "", *, horizon: int = HORIZON, clock: Clock = wall_micros
    ) -> None:
        """`customers` and `orders` are SELECTs whose columns have the names of `kiki.engage.crm.rows`."""
        self._conninfo = conninfo
        self._queries = {"customers": customers} | ({"orders": orders} if orders.strip() else {})
        self._horizon = horizon
        self._clock = clock

    def changes(self, since: str) -> Iterator[Page]:
        """See `Source`."""
        cursor = parse_cursor(since, _Cursor, self.name)
        for stream, query in self._queries.items():
            yield from self._pages(stream, query, cursor)

    def upsert(self, updates: Mapping[str, Mapping[str, str]]) -> Mapping[str, Outcome]:
        """See `Source`. All of them or none."""
        values = [(customer, Jsonb(dict(fields))) for customer, fields in updates.items()]
        return dict.fromkeys(updates, self._write(_SET_FIELDS, values))

    def tag(self, customer: str, tags: Collection[str]) -> Outcome:
        """See `Source`."""
        return self._write(_ADD_TAGS, [(customer, sorted(set(tags)))])

    def check(self) -> tuple[str, ...]:
        """See `Source`."""
        problems: list[str] = []
        for stream, query in self._queries.items():
            try:
                with self._reading() as connection:
                    nothing = (to_datetime(0), False, to_datetime(0), "")
                    columns = (
                        connection.execute(_wrapped(stream, query) + sql.SQL(" LIMIT 0"), nothing).description or []
                    )
                    problems += self._column_problems(stream, [column.name for column in columns])
            except KikiError as error:
                problems.append(str(error))
        return tuple(problems)

    def close(self) -> None:
        """Nothing is open between readings."""

    def _pages(self, stream: str, query: str, cursor: _Cursor) -> Iterator[Page]:
        place: _Place = getattr(cursor, stream)
        until = to_datetime(self._clock() - self._horizon)
        with self._reading() as connection, connection.cursor("kiki") as rows:
            rows.itersize = PAGE
            after = to_datetime(max(place.at, 0))
            rows.execute(_wrapped(stream, query), (until, place.at < 0, after, place.key))
            if wrong := self._column_problems(stream, [column.name for column in (rows.description or [])]):
                raise ConfigurationError(wrong)
            while page := rows.fetchmany(PAGE):
                records: list[Record] = []
                problems: list[str] = []
                for row in page:
                    at, key = row.pop("kiki_at"), row.pop("kiki_key")
                    records += self._records(stream, row, key, problems)
                    setattr(cursor, stream, _Place(moment_of(at) or 0, key))
                yield Page(tuple(records), dump_cursor(cursor), problems=tuple(problems))

    def _records(self, stream: str, row: DictRow, key: str, problems: list[str]) -> tuple[Record, ...]:
        try:
            return (customer_row(row, problems),) if stream == "customers" else tuple(order_row(row, self.name))
        except InvalidInput as error:
            # The id is the shop's own and names nobody.
            problems.append(f"{stream} {key[:60]!r}: {error}")
            return ()

    def _column_problems(self, stream: str, columns: list[str]) -> list[str]:
        known, needed = (
            (CUSTOMER_COLUMNS, (*CUSTOMER_NEEDS, "changed_at"))
            if stream == "customers"
            else (ORDER_COLUMNS, (*ORDER_NEEDS, "changed_at"))
        )
        told = [column for column in columns if column not in {"kiki_at", "kiki_key"}]
        return [f"the query of {stream}: {problem}" for problem in column_problems(told, known, needed)]

    @contextmanager
    def _reading(self) -> Iterator[psycopg.Connection[DictRow]]:
        try:
            with psycopg.connect(
                self._conninfo.reveal(),
                row_factory=dict_row,
                connect_timeout=CONNECT_SECONDS,
                options=f"-c TimeZone=UTC -c statement_timeout={STATEMENT_SECONDS}s -c default_transaction_read_only=on",
            ) as connection:
                yield connection
        except psycopg.OperationalError as error:
            hint = "check POSTGRES_CONN_STRING; reading goes on where it ended"
            raise SourceUnavailable(f"postgres: {self._plain(error)}", hint=hint) from None
        except psycopg.Error as error:
            raise ConfigurationError([f"the query is refused by PostgreSQL: {self._plain(error)}"]) from None

    def _write(self, statement: LiteralString, values: list[tuple[Any, ...]]) -> Outcome:
        committing = False
        try:
            with psycopg.connect(
                self._conninfo.reveal(), connect_timeout=CONNECT_SECONDS, autocommit=False
            ) as connection:
                connection.execute(_TABLE)
                with connection.cursor() as cursor:
                    cursor.executemany(statement, values)
                committing = True
                connection.commit()
        except psycopg.OperationalError as error:
            why = f"postgres: {self._plain(error)}"
            return unknown(CONNECTION_LOST, why) if committing else refused(UNAVAILABLE, why)
        except psycopg.Error as error:
            return refused(INVALID, f"postgres: {self._plain(error)}")
        return done()

    def _plain(self, error: psycopg.Error) -> str:
        """The server's first line without the password; details may quote a row."""
        text = (error.diag.message_primary or str(error)).partition("\n")[0]
        return text.replace(self._conninfo.reveal(), "***")[:300]


def _wrapped(stream: str, query: str) -> sql.Composed:
    """The user's SELECT as a table, in the order of change; as part of another SELECT it can only read."""
    key = sql.SQL('asked.{}::text COLLATE "C"').format(sql.Identifier("customer" if stream == "customers" else "id"))
    at = sql.SQL("COALESCE(asked.changed_at::timestamptz, 'epoch'::timestamptz)")
    # A line break ends a comment of the user's; a % of his is no placeholder.
    asked = sql.SQL(query.strip().rstrip(";").replace("%", "%%"))
    return sql.SQL(
        "SELECT asked.*, {at} AS kiki_at, {key} AS kiki_key FROM (\n{asked}\n) AS asked"
        " WHERE {at} <= %s AND (%s OR ({at}, {key}) > (%s, %s)) ORDER BY {at}, {key}"
    ).format(at=at, key=key, asked=asked)
