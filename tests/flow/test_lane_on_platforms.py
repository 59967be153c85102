"""A whole campaign on every platform: the lane with its real adapter against the platform's fake, time moved by hand.

Answers are lost, calls come too often, the runner dies; in the end the platform has one campaign, paused, and our books say
what it billed.
"""

from __future__ import annotations

import itertools
import random
from datetime import date, timedelta
from typing import Any

import msgspec
import pytest

from kiki.flow.lane import run_lane
from kiki.flow.memory_engine import Journal, MemoryPort, VirtualTime
from kiki.flow.plan import Account, Objective, Plan, PlannedCampaign
from kiki.flow.plan_calendar import ZoneCalendar
from kiki.flow.platform import CampaignSpec, Platform, Status, campaign_name
from kiki.flow.world import World
from kiki.money import MICROS
from kiki.outbound.rate_budget import RateBudget
from tests.flow.fakes import fake as faults
from tests.flow.fakes.fake import Bill, Fake
from tests.flow.model import AsPlanned, ModelGuard, OwnAllowance
from tests.flow.test_lane import Crash
from tests.flow.test_platform_contract import CASES

FIRST, LAST = date(2027, 3, 1), date(2027, 3, 3)
DAYS = [FIRST + timedelta(days=each) for each in range((LAST - FIRST).days + 1)]
NAME = "social"
KINDS = (faults.LOST_BEFORE, faults.LOST_AFTER, faults.ERROR_BEFORE, faults.ERROR_AFTER, faults.THROTTLED)


def plan_for(fake: Fake) -> Plan:
    campaign = PlannedCampaign(
        name=NAME,
        platform=fake.NAME,
        objective=Objective.TRAFFIC,
        daily_budget=fake.BUDGET * MICROS,
        bid=2 * MICROS,
        starts=FIRST,
        ends=LAST,
        countries=("US",),
        settings=dict(fake.SETTINGS),
    )
    return Plan(
        name="spring",
        currency="USD",
        time_zone="UTC",
        starts=FIRST,
        ends=LAST,
        platforms={fake.NAME: Account(account=fake.ACCOUNT.account)},
        campaigns=(campaign,),
    )


def spec_of(plan: Plan) -> CampaignSpec:
    campaign = plan.campaigns[0]
    wanted = {
        name: getattr(campaign, name) for name in ("daily_budget", "bid", "starts", "ends", "countries", "settings")
    }
    return CampaignSpec(name=campaign_name(plan.name, NAME), objective=campaign.objective, **wanted)


def moved(platform: Any, time: VirtualTime) -> Platform:
    """The adapter under the clock of the test; its pace is a matter of other tests."""
    line = platform.line
    platform._clock = line._clock = time.now
    if hasattr(platform, "_reports") and hasattr(platform._reports, "_clock"):
        platform._reports._clock = time.now
    line.rate_budget = RateBudget(None)
    opened: Platform = platform
    return opened


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", [name for name in CASES if name != "sandbox"])
async def test_a_campaign_lives_its_days_whatever_goes_wrong(case: str, seed: int) -> None:
    chance = random.Random(f"{case} {seed}")
    async with CASES[case]() as fake:
        if not fake.BILLS:
            pytest.skip("nobody can say what this fake billed")
        plan = plan_for(fake)
        calendar = ZoneCalendar(fake.time_zone)
        time = VirtualTime(calendar.start_of(FIRST) - calendar.span(24))
        platform = moved(fake.open(), time)
        # Made once beforehand, so that the bills have a campaign to stand for: the lane finds it.
        made = await platform.ensure_campaign(spec_of(plan), "0" * 32)
        assert made.is_done, made
        number = msgspec.convert(made.value["campaign"]["id"], str)
        for day in DAYS:
            await fake.bill(number, day, Bill(chance.randrange(1, fake.BUDGET * 100) * 10_000))
        guard = ModelGuard(10**13, itertools.repeat("ok"))
        world = World(
            guard=guard,
            platform=platform,
            calendar=calendar,
            allowance=OwnAllowance(None),
            advice=AsPlanned(),
            fence=_nobody_else,
            now=time.now,
        )
        result, died = await _to_the_end(plan, world, time, fake, chance)
        await platform.close()

        assert died
        assert "completed" == result["how"]
        assert {str(day): fake.bills[number, day].spent for day in DAYS} == {
            day: spent for day, spent in result["spent"].items() if spent
        }  # a pause that came late adds a day, which cost nothing here
        assert {} == guard.holds
        [truth] = await fake.truth()
        assert (number, Status.PAUSED) == (truth.id, truth.status)


async def _to_the_end(
    plan: Plan, world: World, time: VirtualTime, fake: Fake, chance: random.Random
) -> tuple[dict[str, Any], int]:
    """The lane, started again whenever it dies; a fault or a death now and then."""
    journal, deaths = Journal(), iter(sorted(chance.sample(range(10, 200), 3)))
    next_death = next(deaths, None)
    moments = itertools.count()
    died = 0

    def at(_step: str, _moment: str) -> None:
        nonlocal next_death
        number = next(moments)
        if next_death is not None and number >= next_death:
            next_death = next(deaths, None)
            raise Crash

    while True:
        if chance.random() < 0.9:
            await fake.fail(chance.choice(KINDS))
            await fake.fail(chance.choice(KINDS), read=True)
        try:
            result: dict[str, Any] = await run_lane("run-1", plan, NAME, MemoryPort(journal, time, at), world)
        except Crash:
            died += 1
            continue
        return result, died


async def _nobody_else() -> None:
    """The fence: this runner has the run."""
