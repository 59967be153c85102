"""Runs, leases, signals and what is left of a plan's total: durable in SQLite (one machine) or PostgreSQL (a fleet).

A run belongs to one runner at a time. The lease ends by itself; each takeover raises the run's epoch, and whatever comes
under an older one is refused. What the lanes of this process are answered is kept through `journal`, what became of
uploaded values in `values`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import sqlalchemy as sa

from kiki.clock import Clock, wall_micros
from kiki.errors import NotFound, RunTaken
from kiki.flow.executor import claim
from kiki.flow.journal_writer import JournalWriter
from kiki.flow.plan import Plan
from kiki.flow.port import Json
from kiki.flow.run_database import RunDatabase, in_parts
from kiki.flow.run_rows import (
    CANCELLED,
    COMPLETED,
    FAILED,
    RUNNING,
    Entry,
    LaneRow,
    OpenRun,
    RunRow,
    Signal,
    Told,
    lane_of,
)
from kiki.flow.run_tables import allowances, decided_once, journal, lanes, runs, signals
from kiki.flow.value_log import ValueLog
from kiki.outbound.outcome import Outcome, done, refused

TAKEN_AT_ONCE: Final = 50


class RunStore:
    """The store of one process; any thread may call it."""

    def __init__(self, database: RunDatabase, clock: Clock = wall_micros) -> None:
        self._database = database
        self._clock = clock
        self.journal = JournalWriter(database, clock)
        self.values = ValueLog(database, clock)

    @classmethod
    def open(cls, where: str | Path, clock: Clock = wall_micros) -> Self:
        """The store in a SQLite file, or in the PostgreSQL that a `postgresql://` address names."""
        return cls(RunDatabase(where, clock), clock)

    def claim(self, executor: str) -> Callable[[], None]:
        """Be this executor until the function that comes back is called; raises `RunTaken` when a process is it."""
        return claim(self._database.engine, executor)

    def close(self) -> None:
        """Keep what waits, then let go of the database."""
        self.journal.close()
        self._database.engine.dispose()

    # -- runs ----------------------------------------------------------------------------------------

    def create(self, run: str, plan: Plan, settings: Json | None = None) -> None:
        """Write a run and its lanes down; nothing happens when it is there already."""
        with self._database.writing() as connection:
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
        with self._database.reading() as connection:
            return [RunRow(*row) for row in connection.execute(found)]

    def run(self, run: str) -> RunRow:
        """One run; raises `NotFound`."""
        columns = [runs.c[name] for name in RunRow._fields]
        with self._database.reading() as connection:
            row = connection.execute(sa.select(*columns).where(runs.c.run == run)).first()
        if row is None:
            raise NotFound(f"there is no run {run!r}", hint="list them: kiki campaign status")
        return RunRow(*row)

    def plan(self, run: str) -> tuple[Plan, Json]:
        """The plan that a run was started with, and its settings; raises `NotFound`."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(runs.c.plan, runs.c.settings).where(runs.c.run == run)).first()
        if row is None:
            raise NotFound(f"there is no run {run!r}", hint="list them: kiki campaign status")
        return Plan.load(row[0]), msgspec.json.decode(row[1])

    def open_work(self, run_names: Sequence[str]) -> dict[str, OpenRun]:
        """What there is to do for these runs, with everything journaled so far."""
        found: dict[str, OpenRun] = {}
        with self._database.reading() as connection:
            for some in in_parts(run_names):
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
        with self._database.reading() as connection:
            rows = connection.execute(found)
            return [LaneRow(lane, own, name, state, msgspec.json.decode(data)) for lane, own, name, state, data in rows]

    def end_lane(self, run: str, epoch: int, lane: str, state: str, result: Json) -> None:
        """Write down how a lane ended, and with the last one how the run did; raises `RunTaken`."""
        with self._database.writing() as connection:
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
        with self._database.writing() as connection:
            now = self._database.now(connection)
            free = sa.or_(runs.c.owner == "", runs.c.leased_until + round(grace * 1e6) < now)
            open_runs = sa.select(runs.c.run, runs.c.epoch).where(runs.c.state == RUNNING).order_by(runs.c.made_at)
            taken: dict[str, int] = {}
            for wanted in (
                open_runs.where(runs.c.owner == owner),
                open_runs.where(runs.c.owner != owner, free).limit(most),
            ):
                # Two runners that look at once share what there is instead of waiting for each other.
                rows = wanted if self._database.is_sqlite else wanted.with_for_update(skip_locked=True)
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
        with self._database.writing() as connection:
            until = self._database.now(connection) + round(seconds * 1e6)
            mine = runs.c.owner == owner
            connection.execute(sa.update(runs).where(mine, runs.c.state == RUNNING).values(leased_until=until))
            found = connection.execute(sa.select(runs.c.run, runs.c.epoch).where(mine, runs.c.state == RUNNING))
            still = {(row[0], row[1]) for row in found}
        return {run for run, epoch in held.items() if (run, epoch) not in still}

    def give_back(self, owner: str, held: Mapping[str, int]) -> None:
        """Let others take these runs at once."""
        with self._database.writing() as connection:
            for run, epoch in held.items():
                mine = (runs.c.run == run) & (runs.c.owner == owner) & (runs.c.epoch == epoch)
                connection.execute(sa.update(runs).where(mine).values(owner="", leased_until=0))

    def release_owner(self, owner: str) -> list[str]:
        """Free every run of a runner that is known to be dead: an operator's word; the runs."""
        with self._database.writing() as connection:
            mine = (runs.c.owner == owner) & (runs.c.state == RUNNING)
            found = [row[0] for row in connection.execute(sa.select(runs.c.run).where(mine))]
            connection.execute(sa.update(runs).where(mine).values(owner="", leased_until=0))
        return found

    def fence(self, run: str, epoch: int) -> float:
        """For how many seconds the run is still ours; raises `RunTaken` when it is not: the last look before a write."""
        with self._database.reading() as connection:
            now = self._database.now(connection)
            row = connection.execute(sa.select(runs.c.epoch, runs.c.leased_until).where(runs.c.run == run)).first()
        if row is None or row[0] != epoch or row[1] <= now:
            raise RunTaken(f"the lease of {run} is over: another runner may have it")
        return float(row[1] - now) / 1e6

    # -- journals ------------------------------------------------------------------------------------

    def steps(self, run: str, after: int = 0, most: int = 1000) -> list[tuple[int, int, str, str, Json]]:
        """What the lanes of a run journaled after that number: number, moment, lane, key, value."""
        with self._database.reading() as connection:
            found = connection.execute(_journaled(run, after, most))
            return [(number, at, lane, key, msgspec.json.decode(value)) for number, at, lane, key, value in found]

    def story(self, run: str, after: int = 0, most: int | None = None) -> list[Told]:
        """What the lanes of a run told after that number, in order."""
        with self._database.reading() as connection:
            found = connection.execute(_journaled(run, after, most).where(journal.c.told == 1))
            rows = [(number, at, lane, msgspec.json.decode(value)) for number, at, lane, _, value in found]
        return [Told(number, at, lane, value["event"], value["detail"]) for number, at, lane, value in rows]

    # -- signals -------------------------------------------------------------------------------------

    def send(self, run: str, body: Json, campaign: str | None = None) -> int:
        """Leave a message for every lane of a run that has not ended, or for one; how many."""
        wanted = sa.select(lanes.c.lane).where(lanes.c.run == run, lanes.c.state == RUNNING)
        if campaign is not None:
            wanted = wanted.where(lanes.c.campaign == campaign)
        with self._database.writing() as connection:
            to = [row[0] for row in connection.execute(wanted)]
            data, now = msgspec.json.encode(body), self._clock()
            if to:
                connection.execute(sa.insert(signals), [{"lane": lane, "body": data, "at": now} for lane in to])
        return len(to)

    def waiting(self) -> list[Signal]:
        """Every message that no lane has taken, oldest first."""
        rows = sa.select(signals.c.number, signals.c.lane, signals.c.body).where(signals.c.taken == 0)
        with self._database.reading() as connection:
            found = connection.execute(rows.order_by(signals.c.number))
            return [Signal(number, lane, msgspec.json.decode(body)) for number, lane, body in found]

    # -- the plan's total ----------------------------------------------------------------------------

    def allow(self, run: str, key: str, micros: int) -> Outcome:
        """Take from what the plan may cost in total; by key, so that asking again takes once."""
        with self._database.writing() as connection:
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
        with self._database.writing() as connection:
            mine = (allowances.c.run == run) & (allowances.c.key == key)
            connection.execute(sa.update(allowances).where(mine).values(micros=micros))
        return done()

    def keep_first(self, run: str, key: str, value: bytes) -> bytes:
        """What was first kept of a run under this key: `value`, unless another lane or an earlier life was before."""
        mine = (decided_once.c.run == run) & (decided_once.c.key == key)
        with self._database.writing() as connection:
            if not self._database.is_sqlite:
                connection.execute(sa.select(runs.c.run).where(runs.c.run == run).with_for_update())
            kept = connection.execute(sa.select(decided_once.c.value).where(mine)).scalar_one_or_none()
            if kept is None:
                connection.execute(sa.insert(decided_once).values(run=run, key=key, value=value))
        return value if kept is None else bytes(kept)

    # -- inside --------------------------------------------------------------------------------------

    def _require_epoch(self, connection: sa.Connection, run: str, epoch: int) -> None:
        wanted = sa.select(runs.c.epoch).where(runs.c.run == run).with_for_update()
        if connection.execute(wanted).scalar_one_or_none() != epoch:
            raise RunTaken(f"another runner took {run} over")


def _journaled(run: str, after: int, most: int | None) -> sa.Select[Any]:
    return (
        sa.select(journal.c.number, journal.c.at, journal.c.lane, journal.c.key, journal.c.value)
        .join(lanes, lanes.c.lane == journal.c.lane)
        .where(lanes.c.run == run, journal.c.number > after)
        .order_by(journal.c.number)
        .limit(most)
    )
