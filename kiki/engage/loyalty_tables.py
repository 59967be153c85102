"""The tables of points and codes, the same in SQLite and PostgreSQL. A person is a random reference in all but one. Pure."""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = 1

TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS loyalty_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    # The one way from a customer's id to the reference: forgetting somebody takes this row away.
    "CREATE TABLE IF NOT EXISTS loyalty_people (name TEXT PRIMARY KEY, person TEXT NOT NULL UNIQUE)",
    (
        "CREATE TABLE IF NOT EXISTS loyalty_accounts ("
        "person TEXT PRIMARY KEY, last_place BIGINT NOT NULL, last_at BIGINT NOT NULL, "
        "debt BIGINT NOT NULL CHECK (debt >= 0), total BIGINT NOT NULL)"
    ),
    (
        "CREATE TABLE IF NOT EXISTS loyalty_entries ("
        "person TEXT NOT NULL, place BIGINT NOT NULL, kind TEXT NOT NULL, points BIGINT NOT NULL, at BIGINT NOT NULL, "
        "about BIGINT NOT NULL, order_id TEXT NOT NULL, call_key TEXT, asked TEXT NOT NULL, "
        "PRIMARY KEY (person, place), UNIQUE (person, call_key))"
    ),
    (
        "CREATE TABLE IF NOT EXISTS loyalty_lots ("
        "person TEXT NOT NULL, place BIGINT NOT NULL, points BIGINT NOT NULL, opens_at BIGINT NOT NULL, ends_at BIGINT, "
        "remaining BIGINT NOT NULL CHECK (remaining >= 0), expired BIGINT NOT NULL, "
        "returned BIGINT NOT NULL CHECK (returned <= points), forgiven BIGINT NOT NULL, PRIMARY KEY (person, place))"
    ),
    "CREATE INDEX IF NOT EXISTS loyalty_lots_by_end ON loyalty_lots (ends_at) WHERE remaining > 0",
    (
        "CREATE TABLE IF NOT EXISTS loyalty_takings ("
        "person TEXT NOT NULL, place BIGINT NOT NULL, points BIGINT NOT NULL, state TEXT NOT NULL, until BIGINT, "
        "returned BIGINT NOT NULL CHECK (returned <= points), PRIMARY KEY (person, place))"
    ),
    "CREATE INDEX IF NOT EXISTS loyalty_takings_by_end ON loyalty_takings (until) WHERE state = 'hold'",
    (
        "CREATE TABLE IF NOT EXISTS loyalty_parts ("
        "person TEXT NOT NULL, taking BIGINT NOT NULL, lot BIGINT NOT NULL, points BIGINT NOT NULL CHECK (points >= 0), "
        "PRIMARY KEY (person, taking, lot))"
    ),
    (
        "CREATE TABLE IF NOT EXISTS loyalty_codes ("
        "code TEXT PRIMARY KEY, pool TEXT NOT NULL, state TEXT NOT NULL, person TEXT NOT NULL, ends_at BIGINT, "
        "lock_key TEXT NOT NULL, locked_until BIGINT NOT NULL, order_id TEXT NOT NULL, changed_at BIGINT NOT NULL)"
    ),
    "CREATE INDEX IF NOT EXISTS loyalty_codes_by_pool ON loyalty_codes (pool, state, person)",
)
