"""Runs, leases, journals and signals, durable in SQLite (one machine) or PostgreSQL (a fleet).

A run belongs to one runner at a time. The lease ends by itself; each takeover raises the run's epoch, and whatever is
journaled under an older one is refused in the same transaction that would have kept it. Journal entries of many lanes go
into one commit: whoever waits for the disk waits together.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec
import sqlalchemy as sa

from kiki.clock import Clock, wall_micros
from kiki.errors import InvalidInput, LedgerUnavailable, NotFound, RunTaken
from kiki.flow.executor import claim
from kiki.flow.plan import Plan
from kiki.flow.port import Json
from kiki.flow.run_tables import (
    SCHEMA_VERSION,
    allowances,
    decided_once,
    journal,
    lanes,
    metadata,
    runs,
    schema,
    signals,
)
from kiki.outbound.outcome import Outcome, done, refused

RUNNING: Final = "running"
COMPLETED: Final = "completed"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"

IDLE_SECONDS: Final = 5
TAKEN_AT_ONCE: Final = 50
SCHEMA: Final = "kiki_flow"
_SCHEMA_LOCK: Final = 7_274_052
_BATCH_MAX: Final = 1000
_ROWS_AT_ONCE: Final = 500


class RunRow(NamedTuple):
    """One run as the store has it."""

    run: str
    plan_name: str
    version: str
    state: str
    made_at: int
    ended_at: int | None
    owner: str
    epoch: int
    leased_until: int


class LaneRow(NamedTuple):
    """One lane of a run."""

    lane: str
    run: str
    campaign: str
    state: str
    result: Json


class Entry(NamedTuple):
    """One journaled answer."""

    key: str
    value: bytes
    told: bool = False
    """A word of the story."""


class Told(NamedTuple):
    """One word of a run's story."""

    number: int
    at: int
    lane: str
    event: str
    detail: dict[str, str | int | bool]


class OpenRun(NamedTuple):
    """What a runner needs to go on with a run."""

    plan: Plan
    settings: Json
    lanes: dict[str, str]
    """By campaign, those that have not ended."""
    journals: dict[str, list[Entry]]
    """By lane, in order."""


class Signal(NamedTuple):
    """A message for a lane that it has not taken yet."""

    number: int
    lane: str
    body: Json


class _Append(NamedTuple):
    run: str
    epoch: int
    lane: str
    place: int
    entry: Entry
    signal: int | None
    kept: Future[None]


class RunStore:
    """The store of one process; any thread may call it."""

    def __init__(self, engine: sa.Engine, clock: Clock = wall_micros) -> None:
        self._engine = engine
        self._clock = clock
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._appends: queue.SimpleQueue[_Append | None] = queue.SimpleQueue()
        self._make_schema()
        self._writer = threading.Thread(target=self._write, name="kiki-flow-journal", daemon=True)
        self._writer.start()

    @classmethod
    def open(cls, where: str | Path, clock: Clock = wall_micros) -> Self:
        """The store in a SQLite file, or in the PostgreSQL that a `postgresql://` address names."""
        return cls(open_engine(where), clock)

    def claim(self, executor: str) -> Callable[[], None]:
        """Be this executor until the function that comes back is called; raises `RunTaken` when a process is it."""
        return claim(self._engine, executor)

    def close(self) -> None:
        """Keep what waits, then let go of the database."""
        self._appends.put(None)
        self._writer.join()
        self._engine.dispose()

    # -- runs ----------------------------------------------------------------------------------------

    def create(self, run: str, plan: Plan, settings: Json | None = None) -> None:
        """Write a run and its lanes down; nothing happens when it is there already."""
        with self._writing() as connection:
            if connection.execute(sa.select(runs.c.run).where(runs.c.run == run)).first() is not None:
                return
            connection.execute(
                sa.insert(runs).values(
                    run=run,
                    plan_name=plan.name,
                    version=plan.version,
                    plan=plan.dump(),
                    state=RUNNING,
                    made_at=self._clock(),
                    budget=plan.budget,
                    settings=msgspec.json.encode(settings or {}),
                )
            )
            connection.execute(
                sa.insert(lanes),
                [
                    {"lane": lane_of(run, each.name), "run": run, "campaign": each.name, "state": RUNNING}
                    for each in plan.campaigns
                ],
            )

    def runs(self, state: str | None = None) -> list[RunRow]:
        """Every run, or those in one state, newest first."""
        columns = [runs.c[name] for name in RunRow._fields]
        found = sa.select(*columns).order_by(runs.c.made_at.desc(), runs.c.run)
        if state is not None:
            found = found.where(runs.c.state == state)
        with self._reading() as connection:
            return [RunRow(*row) for row in connection.execute(found)]

    def run(self, run: str) -> RunRow:
        """One run; raises `NotFound`."""
        columns = [runs.c[name] for name in RunRow._fields]
        with self._reading() as connection:
            row = connection.execute(sa.select(*columns).where(runs.c.run == run)).first()
        if row is None:
            raise NotFound(f"there is no run {run!r}", hint="list them: kiki campaign status")
        return RunRow(*row)

    def plan(self, run: str) -> tuple[Plan, Json]:
        """The plan that a run was started with, and its settings; raises `NotFound`."""
        with self._reading() as connection:
            row = connection.execute(sa.select(runs.c.plan, runs.c.settings).where(runs.c.run == run)).first()
        if row is None:
            raise NotFound(f"there is no run {run!r}", hint="list them: kiki campaign status")
        return Plan.load(row[0]), msgspec.json.decode(row[1])

    def open_work(self, run_names: Sequence[str]) -> dict[str, OpenRun]:
        """What there is to do for these runs, with everything journaled so far."""
        found: dict[str, OpenRun] = {}
        with self._reading() as connection:
            for some in _chunks(run_names):
                wanted = sa.select(runs.c.run, runs.c.plan, runs.c.settings).where(runs.c.run.in_(some))
                for run, plan, settings in connection.execute(wanted):
                    found[run] = OpenRun(Plan.load(plan), msgspec.json.decode(settings), {}, {})
                mine = (lanes.c.run.in_(some)) & (lanes.c.state == RUNNING)
                for run, lane, campaign in connection.execute(
                    sa.select(lanes.c.run, lanes.c.lane, lanes.c.campaign).where(mine)
                ):
                    found[run].lanes[campaign] = lane
                    found[run].journals[lane] = []
                entries = sa.select(lanes.c.run, journal.c.lane, journal.c.key, journal.c.value)
                entries = entries.join(lanes, lanes.c.lane == journal.c.lane).where(mine)
                for run, lane, key, value in connection.execute(entries.order_by(journal.c.lane, journal.c.place)):
                    found[run].journals[lane].append(Entry(key, bytes(value)))
        return found

    def lanes(self, run: str) -> list[LaneRow]:
        """The lanes of a run."""
        found = sa.select(*(lanes.c[name] for name in LaneRow._fields)).where(lanes.c.run == run).order_by(lanes.c.lane)
        with self._reading() as connection:
            rows = connection.execute(found)
            return [LaneRow(lane, own, name, state, msgspec.json.decode(data)) for lane, own, name, state, data in rows]

    def end_lane(self, run: str, epoch: int, lane: str, state: str, result: Json) -> None:
        """Write down how a lane ended, and with the last one how the run did; raises `RunTaken`."""
        with self._writing() as connection:
            self._require_epoch(connection, run, epoch)
            data = msgspec.json.encode(result)
            connection.execute(sa.update(lanes).where(lanes.c.lane == lane).values(state=state, result=data))
            states = {row[0] for row in connection.execute(sa.select(lanes.c.state).where(lanes.c.run == run))}
            if RUNNING not in states:
                how = next((each for each in (FAILED, CANCELLED) if each in states), COMPLETED)
                ended = {"state": how, "ended_at": self._clock(), "owner": "", "leased_until": 0}
                connection.execute(sa.update(runs).where(runs.c.run == run).values(**ended))

    # -- leases --------------------------------------------------------------------------------------

    def take(
        self, owner: str, seconds: float, *, grace: float, but: Collection[str] = (), most: int = TAKEN_AT_ONCE
    ) -> dict[str, int]:
        """Lease runs that nobody has, `but` those that the caller holds: their epochs.

        `grace` seconds must have passed since another's lease ended; a runner's own are free at once after a restart, all
        of them. Of others at most so many, so that the runners of a fleet share what there is.
        """
        with self._writing() as connection:
            now = self._now(connection)
            free = sa.or_(runs.c.owner == "", runs.c.leased_until + round(grace * 1e6) < now)
            open_runs = sa.select(runs.c.run, runs.c.epoch).where(runs.c.state == RUNNING).order_by(runs.c.made_at)
            taken: dict[str, int] = {}
            for wanted in (
                open_runs.where(runs.c.owner == owner),
                open_runs.where(runs.c.owner != owner, free).limit(most),
            ):
                # Two runners that look at once share what there is instead of waiting for each other.
                rows = wanted if self._is_sqlite else wanted.with_for_update(skip_locked=True)
                taken |= {row[0]: row[1] + 1 for row in connection.execute(rows) if row[0] not in but}
            until = now + round(seconds * 1e6)
            for name, epoch in taken.items():
                lease = {"owner": owner, "epoch": epoch, "leased_until": until}
                connection.execute(sa.update(runs).where(runs.c.run == name).values(**lease))
        return taken

    def renew(self, owner: str, seconds: float, held: Mapping[str, int]) -> set[str]:
        """Prolong leases; the runs that are not this owner's any more."""
        if not held:
            return set()
        with self._writing() as connection:
            until = self._now(connection) + round(seconds * 1e6)
            mine = runs.c.owner == owner
            connection.execute(sa.update(runs).where(mine, runs.c.state == RUNNING).values(leased_until=until))
            found = connection.execute(sa.select(runs.c.run, runs.c.epoch).where(mine, runs.c.state == RUNNING))
            still = {(row[0], row[1]) for row in found}
        return {run for run, epoch in held.items() if (run, epoch) not in still}

    def give_back(self, owner: str, held: Mapping[str, int]) -> None:
        """Let others take these runs at once."""
        with self._writing() as connection:
            for run, epoch in held.items():
                mine = (runs.c.run == run) & (runs.c.owner == owner) & (runs.c.epoch == epoch)
                connection.execute(sa.update(runs).where(mine).values(owner="", leased_until=0))

    def release_owner(self, owner: str) -> list[str]:
        """Free every run of a runner that is known to be dead: an operator's word; the runs."""
        with self._writing() as connection:
            mine = (runs.c.owner == owner) & (runs.c.state == RUNNING)
            found = [row[0] for row in connection.execute(sa.select(runs.c.run).where(mine))]
            connection.execute(sa.update(runs).where(mine).values(owner="", leased_until=0))
        return found

    def fence(self, run: str, epoch: int) -> float:
        """For how many seconds the run is still ours; raises `RunTaken` when it is not: the last look before a write."""
        with self._reading() as connection:
            now = self._now(connection)
            row = connection.execute(sa.select(runs.c.epoch, runs.c.leased_until).where(runs.c.run == run)).first()
        if row is None or row[0] != epoch or row[1] <= now:
            raise RunTaken(f"the lease of {run} is over: another runner may have it")
        return float(row[1] - now) / 1e6

    # -- journals ------------------------------------------------------------------------------------

    def append(
        self, run: str, epoch: int, lane: str, place: int, entry: Entry, signal: int | None = None
    ) -> Future[None]:
        """Journal an answer; the future is done when it is durable, or fails with `RunTaken` or `LedgerUnavailable`.

        `signal` is the message that the answer takes: it is taken with it, or not at all.
        """
        kept: Future[None] = Future()
        # A lane that is cancelled while it waits must not take the answer from the writer, which would stumble over it.
        kept.set_running_or_notify_cancel()
        self._appends.put(_Append(run, epoch, lane, place, entry, signal, kept))
        return kept

    def steps(self, run: str, after: int = 0, most: int = 1000) -> list[tuple[int, int, str, str, Json]]:
        """What the lanes of a run journaled after that number: number, moment, lane, key, value."""
        with self._reading() as connection:
            found = connection.execute(_journaled(run, after, most))
            return [(number, at, lane, key, msgspec.json.decode(value)) for number, at, lane, key, value in found]

    def story(self, run: str, after: int = 0, most: int | None = None) -> list[Told]:
        """What the lanes of a run told after that number, in order."""
        with self._reading() as connection:
            found = connection.execute(_journaled(run, after, most).where(journal.c.told == 1))
            rows = [(number, at, lane, msgspec.json.decode(value)) for number, at, lane, _, value in found]
        return [Told(number, at, lane, value["event"], value["detail"]) for number, at, lane, value in rows]

    # -- signals -------------------------------------------------------------------------------------

    def send(self, run: str, body: Json, campaign: str | None = None) -> int:
        """Leave a message for every lane of a run that has not ended, or for one; how many."""
        wanted = sa.select(lanes.c.lane).where(lanes.c.run == run, lanes.c.state == RUNNING)
        if campaign is not None:
            wanted = wanted.where(lanes.c.campaign == campaign)
        with self._writing() as connection:
            to = [row[0] for row in connection.execute(wanted)]
            data, now = msgspec.json.encode(body), self._clock()
            if to:
                connection.execute(sa.insert(signals), [{"lane": lane, "body": data, "at": now} for lane in to])
        return len(to)

    def waiting(self) -> list[Signal]:
        """Every message that no lane has taken, oldest first."""
        rows = sa.select(signals.c.number, signals.c.lane, signals.c.body).where(signals.c.taken == 0)
        with self._reading() as connection:
            found = connection.execute(rows.order_by(signals.c.number))
            return [Signal(number, lane, msgspec.json.decode(body)) for number, lane, body in found]

    # -- the plan's total ----------------------------------------------------------------------------

    def allow(self, run: str, key: str, micros: int) -> Outcome:
        """Take from what the plan may cost in total; by key, so that asking again takes once."""
        with self._writing() as connection:
            row = connection.execute(sa.select(runs.c.budget).where(runs.c.run == run).with_for_update()).first()
            if row is None or row[0] is None:
                return done()
            mine = (allowances.c.run == run) & (allowances.c.key == key)
            if connection.execute(sa.select(allowances.c.key).where(mine)).first() is not None:
                return done()
            total = sa.select(sa.func.coalesce(sa.func.sum(allowances.c.micros), 0)).where(allowances.c.run == run)
            if int(connection.execute(total).scalar_one()) + micros > row[0]:
                return refused("plan_budget_exhausted", "the plan's total budget has no room for it")
            connection.execute(sa.insert(allowances).values(run=run, key=key, micros=micros))
        return done()

    def settle_allowance(self, run: str, key: str, micros: int) -> Outcome:
        """Say what was spent of it."""
        with self._writing() as connection:
            mine = (allowances.c.run == run) & (allowances.c.key == key)
            connection.execute(sa.update(allowances).where(mine).values(micros=micros))
        return done()

    def keep_first(self, run: str, key: str, value: bytes) -> bytes:
        """What was first kept of a run under this key: `value`, unless another lane or an earlier life was before."""
        mine = (decided_once.c.run == run) & (decided_once.c.key == key)
        with self._writing() as connection:
            if not self._is_sqlite:
                connection.execute(sa.select(runs.c.run).where(runs.c.run == run).with_for_update())
            kept = connection.execute(sa.select(decided_once.c.value).where(mine)).scalar_one_or_none()
            if kept is None:
                connection.execute(sa.insert(decided_once).values(run=run, key=key, value=value))
        return value if kept is None else bytes(kept)

    # -- inside --------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """A look; raises `LedgerUnavailable` when the database does not answer."""
        try:
            with self._engine.connect().execution_options(reads=True) as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise LedgerUnavailable(f"the store of runs could not be read: {_said(error)}") from error

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """A transaction; raises `LedgerUnavailable` when the database does not take it, or nobody knows whether it did."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise LedgerUnavailable(f"the store of runs could not be written: {_said(error)}") from error

    def _now(self, connection: sa.Connection) -> int:
        """The database's clock decides about leases of a fleet; on one machine there is only one."""
        if self._is_sqlite:
            return self._clock()
        seconds = sa.text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        return int(connection.execute(seconds).scalar_one())

    def _require_epoch(self, connection: sa.Connection, run: str, epoch: int) -> None:
        wanted = sa.select(runs.c.epoch).where(runs.c.run == run).with_for_update()
        if connection.execute(wanted).scalar_one_or_none() != epoch:
            raise RunTaken(f"another runner took {run} over")

    def _write(self) -> None:
        while (first := self._appends.get()) is not None:
            batch = [first]
            while len(batch) < _BATCH_MAX:
                try:
                    more = self._appends.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._appends.put(None)
                    break
                batch.append(more)
            self._keep(batch)

    def _keep(self, batch: Sequence[_Append]) -> None:
        try:
            lost = self._commit(batch)
        except sa.exc.IntegrityError:
            # Somebody else journaled one of these places: a runner that lost its run. Who it is shows one by one.
            if len(batch) == 1:
                batch[0].kept.set_exception(RunTaken(f"another runner journaled for {batch[0].run}"))
            else:
                for each in batch:
                    self._keep([each])
            return
        except sa.exc.SQLAlchemyError as error:
            problem = LedgerUnavailable(f"the store of runs could not be written: {_said(error)}")
            for each in batch:
                each.kept.set_exception(problem)
            return
        for each in batch:
            if (each.run, each.epoch) in lost:
                each.kept.set_exception(RunTaken(f"another runner took {each.run} over"))
            else:
                each.kept.set_result(None)

    def _commit(self, batch: Sequence[_Append]) -> set[tuple[str, int]]:
        """Keep what is under the epoch in force; the runs and epochs that are over."""
        asked = {(each.run, each.epoch) for each in batch}
        with self._engine.begin() as connection:
            mine = sa.select(runs.c.run, runs.c.epoch).where(runs.c.run.in_([run for run, _ in asked]))
            if not self._is_sqlite:
                mine = mine.with_for_update(read=True)
            current = {(row[0], row[1]) for row in connection.execute(mine)}
            lost = asked - current
            kept = [each for each in batch if (each.run, each.epoch) not in lost]
            if kept:
                now = self._clock()
                rows = [
                    {
                        "lane": e.lane,
                        "place": e.place,
                        "key": e.entry.key,
                        "value": e.entry.value,
                        "at": now,
                        "told": int(e.entry.told),
                    }
                    for e in kept
                ]
                if self._is_sqlite:
                    connection.execute(sa.insert(journal), rows)
                else:
                    # One statement: the driver sends many in a pipeline, and whoever is frozen within one keeps its locks,
                    # because the server takes that for work.
                    connection.execute(sa.insert(journal).values(rows))
            taken = [each.signal for each in kept if each.signal is not None]
            if taken:
                connection.execute(sa.update(signals).where(signals.c.number.in_(taken)).values(taken=1))
        return lost

    def _make_schema(self) -> None:
        with self._engine.begin() as connection:
            if not self._is_sqlite:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:number)"), {"number": _SCHEMA_LOCK})
                connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            metadata.create_all(connection)
            version = connection.execute(sa.select(schema.c.version)).scalar_one_or_none()
            if version is None:
                connection.execute(sa.insert(schema).values(version=SCHEMA_VERSION))
            elif version != SCHEMA_VERSION:
                raise InvalidInput(f"the store of runs has version {version}, and this kiki reads {SCHEMA_VERSION}")


def _journaled(run: str, after: int, most: int | None) -> sa.Select[Any]:
    return (
        sa.select(journal.c.number, journal.c.at, journal.c.lane, journal.c.key, journal.c.value)
        .join(lanes, lanes.c.lane == journal.c.lane)
        .where(lanes.c.run == run, journal.c.number > after)
        .order_by(journal.c.number)
        .limit(most)
    )


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), _ROWS_AT_ONCE):
        yield names[first : first + _ROWS_AT_ONCE]


def lane_of(run: str, campaign: str) -> str:
    """The id of a lane."""
    return f"{run}/{campaign}"


def open_engine(where: str | Path) -> sa.Engine:
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


def _said(error: Exception) -> str:
    """The driver's words, without the statement and its values."""
    origin = getattr(error, "orig", None)
    return " ".join(str(origin or error).split())[:200]
