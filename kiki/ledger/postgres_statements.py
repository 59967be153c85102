"""The SQL of a ledger in PostgreSQL, with the schema's name in place. Every statement goes along a primary key."""

from __future__ import annotations

from typing import Final

from kiki.ledger.postgres_connection import identifier_of, sql
from kiki.ledger.postgres_schema import PRUNER
from kiki.ledger.store import SHARED


class Table:
    """The statements on one table of projections: a chain's own, or the shared one."""

    def __init__(self, schema: sql.Identifier, name: str, *, of_chain: bool) -> None:
        parts = {
            "table": sql.SQL("{}.{}").format(schema, sql.Identifier(name)),
            "in_chain": sql.SQL("chain = %(chain)s AND " if of_chain else ""),
            "chain": sql.SQL("chain, " if of_chain else ""),
            "this_chain": sql.SQL("%(chain)s, " if of_chain else ""),
        }

        def composed(text: str) -> sql.Composed:
            return sql.SQL(text).format(**parts)

        self.get = composed("SELECT value FROM {table} WHERE {in_chain}space = %(space)s AND key = %(key)s")
        self.get_many = composed(
            "SELECT key, value FROM {table} WHERE {in_chain}space = %(space)s AND key = ANY(%(keys)b::bytea[])"
        )
        self.first = composed(
            "SELECT key, value FROM {table} WHERE {in_chain}space = %(space)s ORDER BY key LIMIT %(rows)s"
        )
        self.following = composed(
            "SELECT key, value FROM {table} WHERE {in_chain}space = %(space)s AND key > %(after)s "
            "ORDER BY key LIMIT %(rows)s"
        )
        self.last = composed(
            "SELECT key, value FROM {table} WHERE {in_chain}space = %(space)s ORDER BY key DESC LIMIT 1"
        )
        # Skips from name to name along the primary key: a DISTINCT would walk every key.
        self.spaces = composed(
            "WITH RECURSIVE found (space) AS ("
            "(SELECT space FROM {table} WHERE {in_chain}true ORDER BY space LIMIT 1) UNION ALL "
            "SELECT (SELECT space FROM {table} WHERE {in_chain}space > found.space ORDER BY space LIMIT 1) "
            "FROM found WHERE found.space IS NOT NULL) SELECT space FROM found WHERE space IS NOT NULL"
        )
        self.put = composed(
            "INSERT INTO {table} ({chain}space, key, value) SELECT {this_chain}space, key, value "
            "FROM unnest(%(spaces)b::text[], %(keys)b::bytea[], %(values)b::bytea[]) AS given (space, key, value) "
            "ON CONFLICT ({chain}space, key) DO UPDATE SET value = excluded.value"
        )
        self.add = composed(
            "INSERT INTO {table} ({chain}space, key, value) SELECT {this_chain}space, key, value "
            "FROM unnest(%(spaces)b::text[], %(keys)b::bytea[], %(values)b::bytea[]) AS given (space, key, value) "
            "ON CONFLICT DO NOTHING"
        )
        self.remove = composed(
            "DELETE FROM {table} AS known USING unnest(%(spaces)b::text[], %(keys)b::bytea[]) AS given (space, key) "
            "WHERE {in_chain}known.space = given.space AND known.key = given.key"
        )
        self.trim = composed(
            "WITH gone AS (DELETE FROM {table} WHERE {in_chain}space = %(space)s AND key IN "
            "(SELECT key FROM {table} WHERE {in_chain}space = %(space)s ORDER BY key LIMIT %(rows)s) RETURNING 1) "
            "SELECT count(*) FROM gone"
        )
        self.vacuum = composed("VACUUM (INDEX_CLEANUP ON) {table}")
        self.compact = composed("VACUUM (FULL) {table}")


class Statements:
    """Every statement of a store, with the schema's name in place."""

    def __init__(self, schema: str) -> None:
        name = identifier_of(schema)

        def composed(text: str) -> sql.Composed:
            return sql.SQL(text).format(schema=name)

        self.own = Table(name, "projection", of_chain=True)
        self.shared = Table(name, "shared", of_chain=False)
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

    def table(self, space: str) -> Table:
        """Where a space lies."""
        return self.shared if space.startswith(SHARED) else self.own


BECOME_PRUNER: Final = sql.SQL("SELECT set_config('role', {}, true)").format(PRUNER)
TRY_LOCK: Final = sql.SQL("SELECT pg_try_advisory_lock(%s)").format()
LOCK: Final = sql.SQL("SELECT pg_advisory_lock(%s)").format()
UNLOCK: Final = sql.SQL("SELECT pg_advisory_unlock(%s)").format()
# A lock's 64-bit key is shown in two halves.
HOLDERS: Final = sql.SQL(
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
    "AND (classid::bigint << 32 | objid::bigint) = %s "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
).format()
OWNER: Final = sql.SQL("SELECT application_name FROM pg_stat_activity WHERE pid = %s").format()
TERMINATE: Final = sql.SQL("SELECT pg_terminate_backend(%s)").format()
THIS_TRANSACTION: Final = sql.SQL("SELECT pg_current_xact_id()::xid::text").format()
# Whoever began before a row was deleted may still see it, so VACUUM has to leave it in place. Whoever has no
# database is a standby that tells what its readers still see; whoever has no user is a vacuum of the server's own.
WATCHERS: Final = sql.SQL(
    "SELECT count(*) FROM (SELECT backend_xmin AS seen FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
    "AND usesysid IS NOT NULL AND coalesce(datname, current_database()) = current_database() "
    "UNION ALL SELECT xmin FROM pg_replication_slots "
    "UNION ALL SELECT transaction FROM pg_prepared_xacts WHERE database = current_database()) AS looking "
    "WHERE age(seen) >= age(%s::xid)"
).format()
