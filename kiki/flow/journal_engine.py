"""The engine: lanes as coroutines over journals in the run store. One `Runner` a process, under a stable executor id.

After a start all journals of a runner's open runs are read at once and the lanes run again from their beginning, past
everything that was journaled, without a single effect, up to the first question that has no answer yet. Why this is our
own and not a library: docs/design/flow-engine.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from kiki.clock import SECOND, Clock, wall_micros
from kiki.errors import KikiError, LedgerUnavailable, RunTaken
from kiki.flow.plan import Plan
from kiki.flow.port import Act, Json, Port
from kiki.flow.run_rows import CANCELLED, COMPLETED, FAILED, Entry, Signal
from kiki.flow.run_store import RunStore
from kiki.outbound.fence import Fence

logger = logging.getLogger("kiki.flow")

LEASE_SECONDS: Final = 15.0
GRACE_SECONDS: Final = 930.0
"""The longest time for which a platform's call by a dead runner may still have an effect."""
POLL_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 1.0
_LONGEST_NAP: Final = 3600.0

LaneStart = Callable[[str, Plan, Json, str, Port, Fence], Awaitable[Json]]
"""Runs one lane: run, plan, settings, campaign, port, fence."""


class JournalPort:
    """A `Port` of one lane over the store."""

    def __init__(self, store: RunStore, run: str, epoch: int, lane: str, past: Sequence[Entry], clock: Clock) -> None:
        self._store = store
        self._run = run
        self._epoch = epoch
        self._lane = lane
        self._past = past
        self._clock = clock
        self._place = 0
        """How many answers were given: the next one's place in the journal."""
        self._inbox: dict[int, Json] = {}
        self._taken: set[int] = set()
        """Numbers of messages that were taken: who looked before that delivers them after it."""
        self._told = asyncio.Event()

    def deliver(self, signal: Signal) -> None:
        """A message to the lane; delivering it again changes nothing, also after it was taken."""
        if signal.number not in self._taken:
            self._inbox.setdefault(signal.number, signal.body)
            self._told.set()

    @property
    def is_resuming(self) -> bool:
        """See `Port`: the first step behind what earlier lives have journaled."""
        return 0 < len(self._past) == self._place

    async def step(self, key: str, act: Act) -> Json:
        """See `Port`."""
        known = self._known(key)
        return await self._keep(key, await act()) if known is None else known

    async def sleep(self, key: str, until: int) -> None:
        """See `Port`."""
        if self._known(key) is None:
            await self._nap(until)
            await self._keep(key, {})

    async def signal(self, key: str, until: int | None) -> Mapping[str, Any] | None:
        """See `Port`."""
        known = self._known(key)
        if known is None:
            known = await self._hear(key, until)
        given: Mapping[str, Any] | None = known.get("signal")
        return given

    async def now(self, key: str) -> int:
        """See `Port`."""
        known = self._known(key)
        return int((await self._keep(key, {"now": self._clock()}) if known is None else known)["now"])

    async def _nap(self, until: int) -> None:
        left = (until - self._clock()) / SECOND
        if left > 0:
            # In stretches, because a wall clock may be set while we sleep.
            await asyncio.sleep(min(left, _LONGEST_NAP))
            await self._nap(until)

    async def _hear(self, key: str, until: int | None) -> Json:
        while not self._inbox:
            left = _LONGEST_NAP if until is None else min((until - self._clock()) / SECOND, _LONGEST_NAP)
            if left <= 0:
                return await self._keep(key, {})
            self._told.clear()
            try:
                async with asyncio.timeout(left):
                    await self._told.wait()
            except TimeoutError:
                continue
        number = min(self._inbox)
        kept = await self._keep(key, {"signal": self._inbox[number]}, number)
        self._taken.add(number)
        del self._inbox[number]
        return kept

    def _known(self, key: str) -> Json | None:
        if self._place >= len(self._past):
            return None
        entry = self._past[self._place]
        if entry.key != key:
            raise RuntimeError(f"{self._lane} asked {key!r} where it had asked {entry.key!r}: it is not deterministic")
        self._place += 1
        found: Json = msgspec.json.decode(entry.value)
        return found

    async def _keep(self, key: str, value: Json, signal: int | None = None) -> Json:
        data = msgspec.json.encode(value)
        entry = Entry(key, data, told="event" in value)
        while True:
            try:
                kept = self._store.journal.append(self._run, self._epoch, self._lane, self._place, entry, signal)
                await asyncio.wrap_future(kept)
                break
            except LedgerUnavailable as error:
                # The disk is full or the database away: the answer is kept here until it can be kept there.
                logger.warning("a journal could not be written, trying again", extra={"code": error.code})
                await asyncio.sleep(_RETRY_SECONDS)
        self._past = ()  # everything that was known has been asked again
        self._place += 1
        result: Json = msgspec.json.decode(data)
        return result


class Runner:
    """Takes runs, executes their lanes, keeps their leases; until it is drained."""

    def __init__(
        self,
        store: RunStore,
        executor: str,
        start: LaneStart,
        *,
        clock: Clock = wall_micros,
        lease_seconds: float = LEASE_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._store = store
        self._executor = executor
        self._start = start
        self._clock = clock
        self._lease = lease_seconds
        self._grace = grace_seconds
        self._poll = poll_seconds
        self._held: dict[str, int] = {}
        self._ports: dict[str, JournalPort] = {}
        self._tasks: dict[str, dict[str, asyncio.Task[None]]] = {}
        self._lost: set[str] = set()
        """Runs of which a lane was told that its lease is over."""
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Work until `drain` is called; raises `RunTaken` when another process is this executor."""
        let_go = await asyncio.to_thread(self._store.claim, self._executor)
        try:
            await self.work()
        finally:
            await asyncio.to_thread(let_go)

    async def work(self) -> None:
        """The same for a caller that has claimed the executor."""
        renewed = float("-inf")
        loop = asyncio.get_running_loop()
        while not self._ended.is_set():
            try:
                if loop.time() - renewed >= self._lease / 3:
                    await self._renew()
                    renewed = loop.time()
                for run in list(self._lost):
                    # Whether somebody else has it or the lease only came too late: begin anew, or leave it.
                    await self._abandon(run)
                    self._held.pop(run, None)
                    self._lost.discard(run)
                await self._take()
                await self._listen()
            except (KikiError, OSError) as error:
                logger.warning("the store of runs does not answer", extra={"detail": str(error)[:200]})
            except Exception:
                logger.exception("the runner stumbled, and goes on")
            try:
                async with asyncio.timeout(self._poll):
                    await self._ended.wait()
            except TimeoutError:
                continue

    async def drain(self) -> None:
        """Stop between two questions of each lane, and give the runs back so that others may go on at once."""
        self._ended.set()
        for run in list(self._tasks):
            await self._abandon(run)
        await asyncio.to_thread(self._store.give_back, self._executor, self._held)
        self._held.clear()

    @property
    def held(self) -> dict[str, int]:
        """The runs of this runner with their epochs."""
        return dict(self._held)

    async def _renew(self) -> None:
        for run in await asyncio.to_thread(self._store.renew, self._executor, self._lease, self._held):
            logger.warning("a run was taken over by another runner", extra={"run": run})
            await self._abandon(run)
            self._held.pop(run, None)

    async def _take(self) -> None:
        fresh = await asyncio.to_thread(
            self._store.take, self._executor, self._lease, grace=self._grace, but=self._held
        )
        if not fresh:
            return
        found = await asyncio.to_thread(self._store.open_work, [*fresh])
        if self._ended.is_set():
            # Drained meanwhile: nobody would stop these lanes any more, or give their runs back.
            await asyncio.to_thread(self._store.give_back, self._executor, fresh)
            return
        for run, epoch in fresh.items():
            self._held[run] = epoch
            work, tasks = found[run], self._tasks.setdefault(run, {})
            for campaign, lane in work.lanes.items():
                port = JournalPort(self._store, run, epoch, lane, work.journals[lane], self._clock)
                self._ports[lane] = port
                live = self._live(run, epoch, work.plan, work.settings, campaign, lane, port)
                tasks[lane] = asyncio.create_task(live)

    async def _listen(self) -> None:
        for signal in await asyncio.to_thread(self._store.waiting):
            port = self._ports.get(signal.lane)
            if port is not None:
                port.deliver(signal)

    async def _live(
        self, run: str, epoch: int, plan: Plan, settings: Json, campaign: str, lane: str, port: JournalPort
    ) -> None:
        async def fence() -> float:
            # From before the question on: what the answer took is time that the lease has lost.
            asked = asyncio.get_running_loop().time()
            return asked + await asyncio.to_thread(self._store.fence, run, epoch)

        try:
            result = await self._start(run, plan, settings, campaign, port, fence)
            how = result["how"] if result["how"] in {COMPLETED, CANCELLED} else FAILED
            await asyncio.to_thread(self._store.end_lane, run, epoch, lane, how, result)
        except RunTaken:
            logger.warning("a lane stopped: its run was taken over", extra={"run": run, "lane": lane})
            self._lost.add(run)
            return
        except LedgerUnavailable as error:
            # The database was away in the middle of a step: the lane begins again from its journal.
            logger.warning("a lane begins again: %s", error, extra={"run": run, "lane": lane})
            self._lost.add(run)
            return
        except Exception:
            # A mistake of ours: nothing is given back and nothing goes on until somebody looks.
            logger.exception("a lane broke and stands still; its holds stay", extra={"run": run, "lane": lane})
            return
        finally:
            self._ports.pop(lane, None)
        self._tasks.get(run, {}).pop(lane, None)
        if not self._tasks.get(run):
            self._tasks.pop(run, None)
            self._held.pop(run, None)

    async def _abandon(self, run: str) -> None:
        tasks = self._tasks.pop(run, {})
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        for lane in tasks:
            self._ports.pop(lane, None)
