"""Ledgers in PostgreSQL: one chain for each replica, all of them in one database, and what they share.

A store claims its chain with a session lock and raises the chain's fence; every transaction checks the fence, so a
process that lost its session can never append again, whatever it believes. Entries are inserted under a role that
can do nothing else with them. Spaces whose names begin with `shared/` belong to all chains.

It needs a session of its own: a pooler in front of it must pool sessions, not transactions.

What an erasure leaves: the write-ahead log and its archive, base backups, standbys that lag, and, until the page is
used again or `compact` ran, free space within pages. Give them a short horizon.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Final, NamedTuple

from kiki.errors import LedgerCorrupt, LedgerLocked, LedgerUnavailable
from kiki.ledger.postgres_connection import CONNECT_SECONDS, Session, Step, identifier_of, sql
from kiki.ledger.postgres_schema import PRUNER, current_revision, prepare
from kiki.ledger.store import SHARED, Write, require_dense

logger = logging.getLogger("kiki.ledger")

SCHEMA: Final = "kiki"
UNFINISHED: Final = "copy"
"""The space that marks a chain into which a ledger is being copied."""

_READ_ROWS: Final = 1000
_WRITE_ROWS: Final = 5000
_PRUNE_ROWS: Final = 4096
_END: Final = 2**62
_HORIZON_SECONDS: Final = 10.0


class Chain(NamedTuple):
    """One replica's chain in the database."""

    id: int
    name: str


class _Table:
    """The statements on one table of projections: a chain's own, or the shared one."""

    def __init__(self, schema: sql.Identifier, name: str, *, of_chain: bool) -> None:
        def composed(text: str) -> sql.Composed:
            return sql.SQL(text).format(  # type: ignore[arg-type]  # the texts below, and nothing from outside
                table=sql.SQL("{}.{}").format(schema, sql.Identifier(name)),
                chain=sql.SQL("chain = %(chain)s AND " if of_chain else ""),
                column=sql.SQL("chain, " if of_chain else ""),
                value=sql.SQL("%(chain)s, " if of_chain else ""),
            )

        given = "unnest(%(spaces)b::text[], %(keys)b::bytea[]) AS given (space, key)"
        given_values = (
            "unnest(%(spaces)b::text[], %(keys)b::bytea[], %(values)b::bytea[]) AS given (space, key, value)"
        )
        self.get = composed("SELECT value FROM {table} WHERE {chain}space = %(space)s AND key = %(key)s")
        self.get_many = composed(
            "SELECT key, value FROM {table} WHERE {chain}space = %(space)s AND key = ANY(%(keys)b::bytea[])"
        )
        page = " ORDER BY key LIMIT %(rows)s"
        self.first = composed("SELECT key, value FROM {table} WHERE {chain}space = %(space)s" + page)
        self.following = composed(
            "SELECT key, value FROM {table} WHERE {chain}space = %(space)s AND key > %(after)s" + page
        )
        self.last = composed(
            "SELECT key, value FROM {table} WHERE {chain}space = %(space)s ORDER BY key DESC LIMIT 1"
        )
        # Skips from name to name along the primary key: a DISTINCT would walk every key.
        self.spaces = composed(
            "WITH RECURSIVE found (space) AS ("
            "(SELECT space FROM {table} WHERE {chain}true ORDER BY space LIMIT 1) UNION ALL "
            "SELECT (SELECT space FROM {table} WHERE {chain}space > found.space ORDER BY space LIMIT 1) "
            "FROM found WHERE found.space IS NOT NULL) SELECT space FROM found WHERE space IS NOT NULL"
        )
        self.put = composed(
            "INSERT INTO {table} AS known ({column}space, key, value) "
            "SELECT {value}space, key, value FROM " + given_values + " "
            "ON CONFLICT ({column}space, key) DO UPDATE SET value = excluded.value"
        )
        self.add = composed(
            "INSERT INTO {table} ({column}space, key, value) "
            "SELECT {value}space, key, value FROM " + given_values + " ON CONFLICT DO NOTHING"
        )
        self.remove = composed(
            "DELETE FROM {table} AS known USING " + given + " "
            "WHERE {chain}known.space = given.space AND known.key = given.key"
        )
        self.trim = composed(
            "WITH gone AS (DELETE FROM {table} WHERE {chain}space = %(space)s AND key IN "
            "(SELECT key FROM {table} WHERE {chain}space = %(space)s ORDER BY key LIMIT %(rows)s) RETURNING 1) "
            "SELECT count(*) FROM gone"
        )
        self.vacuum = composed("VACUUM (INDEX_CLEANUP ON) {table}")
        self.compact = composed("VACUUM (FULL) {table}")


class _Statements:
    """Every statement of a store, with the schema's name in place."""

    def __init__(self, schema: str) -> None:
        name = identifier_of(schema)

        def composed(text: str) -> sql.Composed:
            return sql.SQL(text).format(schema=name)  # type: ignore[arg-type]  # the texts below, nothing from outside

        self.own = _Table(name, "projection", of_chain=True)
        self.shared = _Table(name, "shared", of_chain=False)
        self.entries = composed(
            "SELECT seq, body FROM {schema}.entry WHERE chain = %s AND seq >= %s AND seq <= %s ORDER BY seq LIMIT %s"
        )
        self.first_seq = composed("SELECT min(seq) FROM {schema}.entry WHERE chain = %s")
        self.next_seq = composed("SELECT max(seq) + 1 FROM {schema}.entry WHERE chain = %s")
        self.chains = composed("SELECT id, name FROM {schema}.chain ORDER BY id")
        self.claim = composed("UPDATE {schema}.chain SET fence = fence + 1 WHERE name = %s RETURNING id, fence")
        self.found = composed("INSERT INTO {schema}.chain (name, fence) VALUES (%s, 1) RETURNING id, fence")
        self.admit = composed("SELECT {schema}.admit(%s, %s, %s, %s)")
        self.append = composed(
            "INSERT INTO {schema}.entry (chain, seq, body) "
            "SELECT %s, %s + at - 1, body FROM unnest(%b::bytea[]) WITH ORDINALITY AS given (body, at)"
        )
        self.prune = composed(
            "WITH gone AS (DELETE FROM {schema}.entry WHERE chain = %(chain)s AND seq IN (SELECT seq FROM {schema}.entry "
            "WHERE chain = %(chain)s AND seq < %(before)s ORDER BY seq LIMIT %(rows)s) RETURNING 1) "
            "SELECT count(*) FROM gone"
        )
        self.raise_epoch = composed("SELECT {schema}.raise_epoch(%s)")
        self.epoch = composed("SELECT epoch FROM {schema}.shared_window WHERE name = %s")
        self.may_vacuum = composed(
            "SELECT pg_has_role(session_user, relowner, 'MEMBER') FROM pg_class "
            "WHERE oid = to_regclass('{schema}.shared')"
        )

    def table(self, space: str) -> _Table:
        """Where a space lies."""
        return self.shared if space.startswith(SHARED) else self.own


_BECOME: Final = sql.SQL("SELECT set_config('role', {}, true)").format(PRUNER)
_TRY_LOCK: Final = sql.SQL("SELECT pg_try_advisory_lock(%s)").format()
_LOCK: Final = sql.SQL("SELECT pg_advisory_lock(%s)").format()
_UNLOCK: Final = sql.SQL("SELECT pg_advisory_unlock(%s)").format()
# A lock's 64-bit key is shown in two halves.
_HOLDERS: Final = sql.SQL(
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
    "AND (classid::bigint << 32 | objid::bigint) = %s "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
).format()
_OWNER: Final = sql.SQL("SELECT application_name FROM pg_stat_activity WHERE pid = %s").format()
_TERMINATE: Final = sql.SQL("SELECT pg_terminate_backend(%s)").format()
_NOW: Final = sql.SQL("SELECT pg_current_xact_id()::text::bigint").format()
# Whoever began before a row was deleted may still see it, so VACUUM has to leave it in place.
_WATCHERS: Final = sql.SQL(
    "SELECT count(*) FROM (SELECT backend_xmin AS seen FROM pg_stat_activity "
    "WHERE pid <> pg_backend_pid() AND datname = current_database() "
    "UNION ALL SELECT xmin FROM pg_replication_slots "
    "UNION ALL SELECT transaction FROM pg_prepared_xacts WHERE database = current_database()) AS looking "
    "WHERE age(seen) >= age((%s % 4294967296)::text::xid)"
).format()
