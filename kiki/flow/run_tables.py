"""The tables of flow's store, the same in SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
)

SCHEMA_VERSION: Final = 1

metadata = MetaData()
_Micros = BigInteger
_Number = BigInteger().with_variant(Integer, "sqlite")

schema = Table("flow_schema", metadata, Column("version", Integer, primary_key=True))

runs = Table(
    "flow_runs",
    metadata,
    Column("run", String(128), primary_key=True),
    Column("plan_name", String(64), nullable=False),
    Column("version", String(16), nullable=False),
    Column("plan", LargeBinary, nullable=False),
    Column("state", String(16), nullable=False),
    Column("made_at", _Micros, nullable=False),
    Column("ended_at", _Micros),
    # The lease: who runs it, since which takeover, and until when nobody else may.
    Column("owner", String(128), nullable=False, default=""),
    Column("epoch", BigInteger, nullable=False, default=0),
    Column("leased_until", _Micros, nullable=False, default=0),
    # The part of the plan's total budget that a run may spend: no row in `flow_allowances` is needed without a total.
    Column("budget", _Micros),
    Column("settings", LargeBinary, nullable=False, default=b"{}"),
    Index("flow_runs_by_state", "state", "leased_until"),
)

lanes = Table(
    "flow_lanes",
    metadata,
    Column("lane", String(192), primary_key=True),
    Column("run", String(128), nullable=False),
    Column("campaign", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("result", LargeBinary, nullable=False, default=b"{}"),
    Index("flow_lanes_by_run", "run"),
)

journal = Table(
    "flow_journal",
    metadata,
    # In the order of writing; one run has one writer at a time, so its own entries never overtake each other.
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("lane", String(192), nullable=False),
    Column("place", Integer, nullable=False),
    Column("key", String(255), nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("at", _Micros, nullable=False),
    # 1: a word of the story, for whoever watches.
    Column("told", Integer, nullable=False, default=0),
    UniqueConstraint("lane", "place"),
)

signals = Table(
    "flow_signals",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("lane", String(192), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("at", _Micros, nullable=False),
    Column("taken", Integer, nullable=False, default=0),
    Index("flow_signals_by_taken", "taken", "lane"),
)

allowances = Table(
    "flow_allowances",
    metadata,
    Column("run", String(128), nullable=False),
    Column("key", String(64), nullable=False),
    Column("micros", _Micros, nullable=False),
    PrimaryKeyConstraint("run", "key"),
)

# What became of values that were uploaded: no customer, no click and no order in clear.
values = Table(
    "flow_values",
    metadata,
    # A campaign on a platform, an order of it, and what was said of that: as `value_log` hashes them.
    Column("place", LargeBinary(16), nullable=False),
    Column("order_hash", LargeBinary(16), nullable=False),
    Column("content", LargeBinary(16), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("fate", String(8), nullable=False),
    Column("first_at", _Micros, nullable=False),
    Column("at", _Micros, nullable=False),
    # 1: the ledger has this fate.
    Column("told", Integer, nullable=False),
    PrimaryKeyConstraint("place", "order_hash"),
    Index("flow_values_by_told", "place", "told"),
)

# What was decided once for all lanes of a run: whoever writes it first.
decided_once = Table(
    "flow_decided_once",
    metadata,
    Column("run", String(128), nullable=False),
    Column("key", String(64), nullable=False),
    Column("value", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run", "key"),
)
