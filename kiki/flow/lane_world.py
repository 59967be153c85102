"""From a run to the worlds of its lanes: one adapter an account, shared by all lanes, because its rates and breakers are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from kiki.clock import Clock
from kiki.errors import ConfigurationError, KikiError
from kiki.flow.adaptive_advice import AdaptiveAdvice
from kiki.flow.customer_value import CustomerValue
from kiki.flow.guard_line import GuardLine
from kiki.flow.lane import run_lane
from kiki.flow.lane_question import ask
from kiki.flow.plan import Allocation, Pacing, Plan
from kiki.flow.plan_calendar import Calendar, ZoneCalendar
from kiki.flow.planned_advice import PlannedAdvice
from kiki.flow.platform import Limits, Platform
from kiki.flow.platforms.registry import open_platform
from kiki.flow.port import Json, Port
from kiki.flow.progress import begin, follow
from kiki.flow.run_rows import FAILED
from kiki.flow.run_store import RunStore
from kiki.flow.world import Advice, World
from kiki.outbound.fence import Fence
from kiki.outbound.outcome import Outcome

logger = logging.getLogger("kiki.flow")

_RETRY_SECONDS: Final = 1.0
_SILENCE: Final = 60.0

AdviceMaker = Callable[[Plan, Limits, CustomerValue], Advice]
"""What chooses bids and budgets for a campaign of a plan."""


SandboxOf = Callable[[Plan], str]
"""The address of the sandbox that plays a plan's platforms."""


class StoreAllowance:
    """The total of one run's plan, in the store."""

    def __init__(self, store: RunStore, run: str) -> None:
        self._store = store
        self._run = run

    async def take(self, key: str, micros: int) -> Outcome:
        """See `Allowance`."""
        return await asyncio.to_thread(self._store.allow, self._run, key, micros)

    async def settle(self, key: str, micros: int) -> Outcome:
        """See `Allowance`."""
        return await asyncio.to_thread(self._store.settle_allowance, self._run, key, micros)


class Worlds:
    """Runs lanes for an engine; belongs to one event loop."""

    def __init__(
        self,
        store: RunStore,
        guard: GuardLine,
        values: CustomerValue,
        environ: Mapping[str, str],
        *,
        sandbox: str | SandboxOf | None,
        clock: Clock,
        advise: AdviceMaker | None = None,
    ) -> None:
        self._store = store
        self._guard = guard
        self._values = values
        self._environ = environ
        self._sandbox = sandbox
        self._clock = clock
        self._advise = advise
        self._opened: dict[tuple[str, ...], asyncio.Task[Platform]] = {}
        self.troubles: dict[str, str] = {}
        """Accounts that cannot be reached at all, and why."""

    async def run_lane(self, run: str, plan: Plan, settings: Json, campaign: str, port: Port, fence: Fence) -> Json:
        """Execute one campaign: what the engine starts for every lane."""
        platform = await self._reached(plan, plan.campaign(campaign).platform)
        calendar = await self._calendar(plan, platform, port)
        if isinstance(calendar, Outcome):
            return {"how": FAILED, "code": calendar.code, "message": calendar.message, "spent": {}, "open": []}
        world = World(
            guard=self._guard,
            platform=platform,
            calendar=calendar,
            allowance=StoreAllowance(self._store, run),
            advice=self._advice(run, plan, platform.limits),
            fence=fence,
            now=self._clock,
        )
        return await run_lane(run, plan, campaign, port, world)

    def _advice(self, run: str, plan: Plan, limits: Limits) -> Advice:
        if self._advise is not None:
            return self._advise(plan, limits, self._values)
        planned = PlannedAdvice(self._values, limits)
        if plan.pacing is Pacing.EVEN and plan.allocation is Allocation.FIXED:
            return planned

        async def limits_of(name: str) -> Limits:
            return (await self._reached(plan, name)).limits

        return AdaptiveAdvice(
            plan,
            planned,
            lanes=lambda: follow(begin(plan), self._store.story(run), plan).lanes,
            limits_of=limits_of,
            keep_first=partial(self._store.keep_first, run),
        )

    async def platform(self, plan: Plan, name: str) -> Platform:
        """The adapter of one of a plan's accounts. Raises `ConfigurationError` and `PlatformUnreachable`."""
        account = plan.platforms[name]
        own = (plan.name, plan.version) if plan.sandbox and callable(self._sandbox) else ()
        place = (name, account.account, plan.currency, plan.time_zone, str(plan.sandbox), *own)
        task = self._opened.get(place)
        if task is None:
            task = self._opened[place] = asyncio.create_task(self._open(plan, name))
        try:
            return await asyncio.shield(task)
        except KikiError:
            self._opened.pop(place, None)
            raise

    async def lacking(self, plan: Plan) -> list[str]:
        """What the environment lacks for a plan's platforms; a sandbox needs nothing."""
        problems: list[str] = []
        for name in () if plan.sandbox else plan.platforms:
            try:
                await self.platform(plan, name)
            except ConfigurationError as error:
                problems += error.problems
        return problems

    async def calendar(self, plan: Plan, platform: Platform) -> Calendar:
        """Days as the account counts them; as the plan does where the account cannot be asked."""
        quick: Calendar | None = getattr(platform, "calendar", None)
        if quick is not None:
            return quick
        told = await platform.currency()
        return ZoneCalendar(str(told.value.get("time_zone") or plan.time_zone))

    def opened(self) -> list[Platform]:
        """Every adapter that is open now."""
        done = (task for task in self._opened.values() if task.done() and not task.cancelled())
        return [task.result() for task in done if task.exception() is None]

    async def close(self) -> None:
        """Let go of every connection."""
        for platform in self.opened():
            await platform.close()
        self._opened.clear()
        await self._values.close()

    async def _open(self, plan: Plan, name: str) -> Platform:
        sandbox = self._sandbox
        if callable(sandbox):
            sandbox = await asyncio.to_thread(sandbox, plan) if plan.sandbox else None
        return await open_platform(plan, name, self._environ, sandbox=sandbox)

    async def _reached(self, plan: Plan, name: str) -> Platform:
        """The same, however long it takes: a run goes on when the credentials are there again."""
        loop, said_at, where = asyncio.get_running_loop(), float("-inf"), f"{name} {plan.platforms[name].account}"
        while True:
            try:
                platform = await self.platform(plan, name)
            except KikiError as error:
                self.troubles[where] = str(error)
                if loop.time() - said_at > _SILENCE:
                    logger.warning(
                        "%s cannot be used, and its campaigns wait: %s", where, " ".join(str(error).split())[:300]
                    )
                    said_at = loop.time()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self.troubles.pop(where, None)
            return platform

    async def _calendar(self, plan: Plan, platform: Platform, port: Port) -> Calendar | Outcome:
        """The same, journaled: a run keeps the days that it began with."""
        quick: Calendar | None = getattr(platform, "calendar", None)
        if quick is not None:
            return quick
        number = 0
        while True:
            told = await ask(port, f"account/{number}", platform.currency)
            if told.is_done:
                return ZoneCalendar(str(told.value.get("time_zone") or plan.time_zone))
            if not told.is_transient:
                return told
            now = await port.now(f"account/{number}/now")
            await port.sleep(f"account/{number}/wait", max(told.retry_at or 0, now + 60_000_000))
            number += 1
