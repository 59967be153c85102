"""The tables of engage, the same in SQLite and PostgreSQL. Pure.

Everything about a person hangs on `person`, the random reference of the key store. Only `engage_profiles` knows whose
it is, so erasing that row and the key leaves counts and amounts that name nobody.
"""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = 1

TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS engage_meta (name TEXT PRIMARY KEY, value BYTEA NOT NULL)",
    # What can be asked about in a playbook has a column; how to reach somebody is in `sealed`.
    """CREATE TABLE IF NOT EXISTS engage_profiles (
        customer TEXT PRIMARY KEY,
        person TEXT NOT NULL UNIQUE,
        source TEXT NOT NULL DEFAULT '',
        changed_at BIGINT NOT NULL DEFAULT 0,
        sealed BYTEA NOT NULL DEFAULT '',
        email_hash BYTEA,
        phone_hash BYTEA,
        locale TEXT NOT NULL DEFAULT '',
        zone TEXT NOT NULL DEFAULT '',
        country TEXT NOT NULL DEFAULT '',
        tags TEXT NOT NULL DEFAULT '',
        segment TEXT NOT NULL DEFAULT '',
        is_test SMALLINT NOT NULL DEFAULT 0,
        email_marketing SMALLINT,
        sms_marketing SMALLINT,
        total_spend BIGINT NOT NULL DEFAULT 0,
        purchase_count BIGINT NOT NULL DEFAULT 0,
        last_purchase BIGINT,
        last_engagement BIGINT,
        engagement_score DOUBLE PRECISION NOT NULL DEFAULT 0
    )""",
    "CREATE INDEX IF NOT EXISTS engage_profiles_by_email ON engage_profiles (email_hash)",
    "CREATE INDEX IF NOT EXISTS engage_profiles_by_phone ON engage_profiles (phone_hash)",
    """CREATE TABLE IF NOT EXISTS engage_events (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        person TEXT NOT NULL DEFAULT '',
        action TEXT NOT NULL DEFAULT '',
        at BIGINT NOT NULL,
        amount BIGINT NOT NULL DEFAULT 0,
        margin BIGINT,
        data BYTEA NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS engage_events_by_person ON engage_events (person, at)",
    "CREATE INDEX IF NOT EXISTS engage_events_by_time ON engage_events (at)",
    # Outlives erasure: nothing but keyed hashes of an id or an address.
    """CREATE TABLE IF NOT EXISTS engage_suppressions (
        hash BYTEA NOT NULL,
        channel TEXT NOT NULL,
        reason TEXT NOT NULL,
        at BIGINT NOT NULL,
        lifted_at BIGINT,
        PRIMARY KEY (hash, channel)
    )""",
    """CREATE TABLE IF NOT EXISTS engage_cursors (
        source TEXT PRIMARY KEY, cursor TEXT NOT NULL, at BIGINT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS engage_privacy_requests (
        id TEXT PRIMARY KEY, kind TEXT NOT NULL, customer TEXT NOT NULL, at BIGINT NOT NULL, request TEXT NOT NULL DEFAULT ''
    )""",
    # Who takes part in what since when: the outcome of both arms is counted from here.
    """CREATE TABLE IF NOT EXISTS engage_assignments (
        experiment TEXT NOT NULL,
        person TEXT NOT NULL,
        entry BIGINT NOT NULL,
        arm TEXT NOT NULL,
        propensity DOUBLE PRECISION NOT NULL,
        at BIGINT NOT NULL,
        before BIGINT NOT NULL DEFAULT 0,
        features BYTEA NOT NULL,
        PRIMARY KEY (experiment, person, entry)
    )""",
    "CREATE INDEX IF NOT EXISTS engage_assignments_by_time ON engage_assignments (experiment, at)",
    """CREATE TABLE IF NOT EXISTS engage_journeys (
        playbook TEXT NOT NULL,
        journey TEXT NOT NULL,
        person TEXT NOT NULL,
        entry BIGINT NOT NULL,
        entered_at BIGINT NOT NULL,
        step BIGINT NOT NULL,
        due BIGINT NOT NULL,
        state TEXT NOT NULL,
        PRIMARY KEY (playbook, journey, person, entry)
    )""",
    # Which way of a split that learns somebody went, for good.
    """CREATE TABLE IF NOT EXISTS engage_ways (
        split TEXT NOT NULL,
        person TEXT NOT NULL,
        way BIGINT NOT NULL,
        share BIGINT NOT NULL,
        at BIGINT NOT NULL,
        PRIMARY KEY (split, person)
    )""",
    "CREATE INDEX IF NOT EXISTS engage_journeys_by_due ON engage_journeys (playbook, state, due)",
    "CREATE INDEX IF NOT EXISTS engage_journeys_by_person ON engage_journeys (person)",
    """CREATE TABLE IF NOT EXISTS engage_actions (
        action TEXT PRIMARY KEY,
        dedup TEXT NOT NULL UNIQUE,
        playbook TEXT NOT NULL,
        step TEXT NOT NULL,
        person TEXT NOT NULL,
        channel TEXT NOT NULL,
        offer TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        cost BIGINT NOT NULL,
        propensity DOUBLE PRECISION NOT NULL DEFAULT 1,
        decided_at BIGINT NOT NULL,
        counted_at BIGINT NOT NULL,
        taken_at BIGINT,
        taken_by TEXT NOT NULL DEFAULT '',
        ended_at BIGINT,
        hold TEXT NOT NULL DEFAULT '',
        settled SMALLINT NOT NULL DEFAULT 0,
        provider_id TEXT NOT NULL DEFAULT '',
        delivery_rank BIGINT NOT NULL DEFAULT -1,
        delivery TEXT NOT NULL DEFAULT ''
    )""",
    "CREATE INDEX IF NOT EXISTS engage_actions_by_person ON engage_actions (person, counted_at)",
    "CREATE INDEX IF NOT EXISTS engage_actions_by_state ON engage_actions (state, taken_at)",
    "CREATE INDEX IF NOT EXISTS engage_actions_by_playbook ON engage_actions (playbook, decided_at)",
    # The last verdict about each person, so that the same no is written down once and not at every look.
    """CREATE TABLE IF NOT EXISTS engage_verdicts (
        playbook TEXT NOT NULL, person TEXT NOT NULL, verdict TEXT NOT NULL, at BIGINT NOT NULL,
        PRIMARY KEY (playbook, person)
    )""",
)
