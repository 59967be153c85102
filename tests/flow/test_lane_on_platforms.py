"""A lane over a real adapter over real sockets to each platform that is played, with everything going wrong on the way.

The platform's own bills judge: whatever was lost on the way, the books say what it billed, each campaign is made once, nothing
is held when all is over, and nothing spends.
"""

from __future__ import annotations

import itertools
import json
import random
from datetime import date, timedelta
from typing import Any

import pytest

from kiki.flow.lane import run_lane
from kiki.flow.memory_engine import Journal, MemoryPort, VirtualTime
from kiki.flow.plan_calendar import ZoneCalendar
from kiki.flow.plan_text import parse_plan
from kiki.flow.platform import Status
from kiki.flow.platforms.ad_account import AdAccount
from kiki.flow.world import World
from tests.flow.fakes import fake as faults
from tests.flow.fakes.fake import Bill, Fake
from tests.flow.model import DAY, AsPlanned, ModelGuard, OwnAllowance
from tests.flow.test_platform_contract import CASES

NAMES = [name for name in CASES if name != "sandbox"]
ZONE = "America/New_York"
PLAN = """\
plan: spring
currency: USD
starts: 2027-03-01
ends: 2027-03-04
platforms: {NAME: {account: "1"}}
campaigns:
  - {name: social, platform: NAME, objective: traffic, budget: $100/day, bid: $1.50, countries: [US], settings: SETTINGS}
"""
WRITE_FAULTS = (
    *(faults.ERROR_BEFORE, faults.ERROR_AFTER, faults.LOST_BEFORE, faults.LOST_AFTER, faults.GARBLED, faults.THROTTLED),
)
READ_FAULTS = (faults.ERROR_BEFORE, faults.LOST_BEFORE, faults.GARBLED, faults.THROTTLED)


class Case:
    def __init__(self, fake: Fake, seed: int) -> None:
        self.fake = fake
        self.chance = random.Random(seed)
        settings = json.dumps(dict(fake.SETTINGS))
        self.plan = parse_plan(PLAN.replace("NAME", fake.NAME).replace("SETTINGS", settings))
        calendar = ZoneCalendar(ZONE)
        self.time = VirtualTime(calendar.start_of(date(2027, 3, 1)) - DAY)
        self.guard = ModelGuard(10_000_000_000, itertools.repeat("ok"))
        self.platform: Any = fake.open()
        assert isinstance(self.platform, AdAccount)
        # All moments are the plan's: what waits for the platform does not wait in truth.
        self.platform._clock = self.platform.line._clock = self.time.now
        self.world = World(
            guard=self.guard,
            platform=self.platform,
            calendar=calendar,
            allowance=OwnAllowance(None),
            advice=AsPlanned(),
            fence=self._own,
            now=self.time.now,
        )
        self.bills: dict[str, int] = {}

    async def _own(self) -> None:
        """Nobody else has the run. Each time it is asked, things may go wrong with what comes."""
        if self.chance.random() < 0.4:
            await self.fake.fail(self.chance.choice(WRITE_FAULTS))
        if self.chance.random() < 0.2:
            await self.fake.fail(self.chance.choice(READ_FAULTS), read=True)

    async def run(self) -> dict[str, Any]:
        for number in range(4):
            day = date(2027, 3, 1) + timedelta(days=number)
            self.bills[str(day)] = self.chance.randrange(0, 12_500) * 10_000
        bills = self.bills
        campaigns = getattr(self.fake, "made", self.fake.campaigns)

        class Billed(dict[tuple[str, date], Bill]):
            """The one campaign that was ever started pays."""

            def get(self, key: tuple[str, date], default: Any = None) -> Any:
                spent = bills.get(str(key[1]), 0)
                return Bill(spent) if key[0] in campaigns and spent else default

            def items(self) -> Any:
                days = [date.fromisoformat(each) for each in bills]
                return [((campaign, day), Bill(bills[str(day)])) for campaign in campaigns for day in days]

        self.fake.bills = Billed()
        return dict(await run_lane("run-1", self.plan, "social", MemoryPort(Journal(), self.time), self.world))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NAMES)
async def test_the_books_agree_whatever_was_lost_on_the_way(name: str, seed: int) -> None:
    async with CASES[name](time_zone=ZONE) as fake:
        case = Case(fake, seed)
        try:
            result = await case.run()
        finally:
            await case.platform.close()
        assert "completed" == result["how"], result
        [truth] = await fake.truth()
        assert (Status.PAUSED, 100_000_000, 1_500_000) == (truth.status, truth.daily_budget, truth.bid)
        assert case.bills == {day: result["spent"].get(day, 0) for day in case.bills}
        assert ({}, []) == (case.guard.holds, result["open"])
        assert sum(case.bills.values()) == case.guard.spent
