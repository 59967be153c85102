"""The PostgreSQL store against bare COPY of the same rows into tables of the same shape, on one real server."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from functools import partial

import psycopg

from bench.measure import Row, rates, shown
from kiki.ledger.postgres import PostgresStore
from kiki.ledger.store import Write
from tests.servers import running_postgres

BODY = os.urandom(320)
SPACE = "key/00000000000000000000"
COPIES = (
    "CREATE TABLE bare_entry (LIKE kiki.entry INCLUDING ALL); "
    "CREATE TABLE bare_projection (LIKE kiki.projection INCLUDING ALL)"
)


def _rows(first: int, count: int) -> tuple[list[tuple[int, bytes]], list[tuple[bytes, bytes]]]:
    """Entries as they are written for spends, each with the place of its idempotency key."""
    entries = [(seq, BODY) for seq in range(first, first + count)]
    return entries, [(os.urandom(16), seq.to_bytes(8, "big")) for seq, _ in entries]


def _store(store: PostgresStore, batch: int, count: int) -> None:
    for _ in range(count // batch):
        entries, keys = _rows(store.next_seq(), batch)
        store.commit(entries, [Write(SPACE, key, place) for key, place in keys])


def _copy(connection: psycopg.Connection, chain: int, batch: int, count: int) -> None:
    for _ in range(count // batch):
        found = connection.execute("SELECT max(seq) + 1 FROM bare_entry WHERE chain = %s", [chain]).fetchone()
        entries, keys = _rows(found[0] or 0, batch)
        with connection.transaction(), connection.cursor() as cursor:
            with cursor.copy("COPY bare_entry FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["int8", "int8", "bytea"])
                for seq, body in entries:
                    copy.write_row((chain, seq, body))
            with cursor.copy("COPY bare_projection FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["int8", "text", "bytea", "bytea"])
                for key, place in keys:
                    copy.write_row((chain, SPACE, key, place))


def run() -> list[Row]:
    """All rows of this part."""
    table: list[Row] = []
    with running_postgres() as server:
        url = server.new_database()
        database = url.rpartition("/")[2]
        with closing(PostgresStore(url, "bench")) as store:
            server.execute(COPIES, database)
            with psycopg.connect(server.url(database, "superuser"), autocommit=True) as connection:
                for batch in (1, 16, 256, 1000):
                    subjects: dict[str, Callable[[int], object]] = {
                        "kiki": partial(_store, store, batch),
                        "bare": partial(_copy, connection, batch, batch),
                    }
                    found = rates(subjects, max(batch * 10, min(batch * 200, 8000)), rounds=5)
                    ratio = found["kiki"] / found["bare"]
                    name = f"entries with a key each, {batch} a commit"
                    table.append(Row(f"{name}: bare COPY", shown(found["bare"])))
                    table.append(Row(f"{name}: kiki", shown(found["kiki"])))
                    goal = (">= 0.6x", ratio >= 0.6) if batch >= 256 else ("", None)
                    table.append(Row(f"{name}: ratio to COPY", f"{ratio:.2f}x", *goal))
            reading = rates({"kiki": lambda _: sum(1 for _ in store.entries())}, store.next_seq(), rounds=3)["kiki"]
    return [*table, Row("entries read in order", shown(reading), ">= 100 k/s", reading >= 100_000)]
