"""Whatever platforms report, no advised budget is higher than what the plan's preview says."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.flow.adaptive_advice import AdaptiveAdvice
from kiki.flow.budget_reach import highest_budgets, worst_of_all
from kiki.flow.customer_value import CustomerValue
from kiki.flow.plan_diff import compare
from kiki.flow.plan_text import parse_plan
from kiki.flow.planned_advice import PlannedAdvice
from kiki.flow.platform import Limits
from kiki.flow.progress import LaneProgress

TEXT = """
plan: p
currency: USD
starts: 2026-12-01
ends: 2026-12-{last:02}
{how}
platforms: sandbox
campaigns:
  - {{name: small, platform: x, objective: sales, budget: $20.00/day}}
  - {{name: other, platform: tradedesk, objective: sales, budget: $20.00/day}}
"""
LIMITS = {"x": Limits(overdelivery=1.2), "tradedesk": Limits(overdelivery=1.0)}
HOW = ("pacing: adaptive", "allocation: adaptive", "pacing: adaptive\nallocation: adaptive")


def plan_of(how: str, last: int):
    return parse_plan(TEXT.format(how=how, last=last), "plan.yaml")


def test_what_the_run_of_one_day_held() -> None:
    plan = plan_of("allocation: adaptive", 1)
    found = highest_budgets(plan, LIMITS)
    told = {
        each.name: compare(plan, each, None, LIMITS[each.platform], found[each.name]).details[1]
        for each in plan.campaigns
    }
    assert told == {"small": "at worst $28.80 on one day", "other": "at worst $24.00 on one day"}
    assert worst_of_all(plan, LIMITS) == 44_800_000


def test_days_that_may_grow_are_told_with_the_first() -> None:
    plan = plan_of("pacing: adaptive", 3)
    small = plan.campaign("small")
    # Nothing spent on two of three days leaves all of it for the last; a budget grows by a fifth a day at most.
    said = "at worst $34.56 on one day, $24.00 on the first: its budget may grow by 20 % a day"
    assert compare(plan, small, None, LIMITS["x"], highest_budgets(plan, LIMITS)["small"]).details[1] == said
    assert worst_of_all(plan, LIMITS) == 3 * (24_000_000 + 20_000_000)


def test_a_plan_as_written_is_as_it_was() -> None:
    plan = plan_of("pacing: even", 14)
    assert {*highest_budgets(plan, LIMITS)["small"].values()} == {20_000_000}
    assert worst_of_all(plan, LIMITS) == 14 * 44_000_000


@pytest.mark.parametrize("how", HOW)
@settings(max_examples=25, deadline=None)
@given(last=st.integers(1, 31), lag=st.integers(0, 3), data=st.data())
def test_no_advice_is_above_it(how: str, last: int, lag: int, data: st.DataObject) -> None:
    plan = plan_of(how, last)
    reach = highest_budgets(plan, LIMITS)
    lanes = {
        each.name: LaneProgress(campaign=each.name, platform=each.platform, planned=0, days=last)
        for each in plan.campaigns
    }
    kept: dict[str, bytes] = {}

    async def limits_of(platform: str) -> Limits:
        return LIMITS[platform]

    planned = PlannedAdvice(CustomerValue(None), LIMITS["x"])
    advice = AdaptiveAdvice(plan, planned, lanes=lambda: lanes, limits_of=limits_of, keep_first=kept.setdefault)
    billed: dict[str, dict[date, int]] = {name: {} for name in lanes}
    for number in range(last):
        day = date(2026, 12, 1) + timedelta(days=number)
        for each in plan.campaigns:
            told = {d: micros for d, micros in billed[each.name].items() if d < day - timedelta(days=lag)}
            lanes[each.name].spent = {str(d): micros for d, micros in told.items()}
            lanes[each.name].value = {str(d): micros * data.draw(st.integers(0, 5)) for d, micros in told.items()}
        advised = {
            each.name: asyncio.run(advice.daily_budget(each, day, lanes[each.name].spent)) for each in plan.campaigns
        }
        for name, outcome in advised.items():
            micros = int(outcome.value["micros"])
            lanes[name].budget = micros or lanes[name].budget  # a lane without money is paused, and keeps what was set
            assert micros <= reach[name][day]
            billed[name][day] = int(micros * data.draw(st.sampled_from([0.0, 0.01, 0.5, 1.0, 1.2])))
