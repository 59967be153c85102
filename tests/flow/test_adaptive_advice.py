from __future__ import annotations

import asyncio
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki import BudgetGuard, CampaignRunner
from kiki.flow.adaptive_advice import AdaptiveAdvice
from kiki.flow.customer_value import CustomerValue
from kiki.flow.lane_money import worst_case
from kiki.flow.plan import Plan
from kiki.flow.plan_text import parse_plan
from kiki.flow.planned_advice import PlannedAdvice
from kiki.flow.platform import Limits
from kiki.flow.progress import begin
from kiki.flow.run_store import RunStore
from tests.flow.own_time import OwnTime

UNIT = 1_000_000
FIRST = date(2026, 12, 1)
TEXT = """\
plan: spring
currency: USD
starts: 2026-12-01
ends: 2026-12-{days:02}
platforms: sandbox
pacing: {pacing}
allocation: {allocation}
campaigns:
  - {{name: search, platform: google_ads, budget: $100/day}}
  - {{name: social, platform: meta, budget: $100/day}}
"""


def plan_of(pacing: str, allocation: str, days: int = 14) -> Plan:
    return parse_plan(TEXT.format(pacing=pacing, allocation=allocation, days=days))


class Kept(dict):
    def first(self, key, value):
        return self.setdefault(key, value)


def advice_of(plan, lanes, kept=None, limits=Limits(overdelivery=1.0, budget_step=10_000)):
    async def limits_of(_):
        return limits

    planned = PlannedAdvice(CustomerValue(None), limits)
    keep = Kept() if kept is None else kept
    return AdaptiveAdvice(plan, planned, lanes=lambda: lanes, limits_of=limits_of, keep_first=keep.first)


def told(plan, spent, value, budget=100 * UNIT):
    lanes = begin(plan).lanes
    for name, lane in lanes.items():
        lane.budget = budget
        for number, (cost, worth) in enumerate(zip(spent[name], value[name], strict=True)):
            lane.spent[str(FIRST + timedelta(days=number))] = cost
            lane.value[str(FIRST + timedelta(days=number))] = worth
    return lanes


async def asked(advice, plan, name, day):
    found = await advice.daily_budget(plan.campaign(name), day, {})
    assert found.is_done
    return found.value["micros"]


async def test_a_campaign_that_spent_too_little_gets_more_as_far_as_the_platform_bears():
    plan = plan_of("adaptive", "fixed")
    lanes = begin(plan).lanes
    lanes["search"].budget = 100 * UNIT
    spent = {str(FIRST + timedelta(days=number)): 10 * UNIT for number in range(10)}
    found = await advice_of(plan, lanes).daily_budget(plan.campaign("search"), date(2026, 12, 11), spent)
    assert 120 * UNIT == found.value["micros"]


async def test_money_moves_to_what_earns_more_within_the_days_sum_and_the_learning_phase():
    plan = plan_of("even", "adaptive")
    returns = {"search": [400 * UNIT] * 8, "social": [50 * UNIT] * 8}
    lanes = told(plan, {"search": [100 * UNIT] * 8, "social": [100 * UNIT] * 8}, returns)
    advice, day = advice_of(plan, lanes), date(2026, 12, 10)
    search, social = await asked(advice, plan, "search", day), await asked(advice, plan, "social", day)
    assert 120 * UNIT >= search > 110 * UNIT > social >= 80 * UNIT - 10_000
    assert search + social <= 200 * UNIT


async def test_all_lanes_divide_alike_whatever_was_reported_between_their_questions():
    plan, kept, day = plan_of("even", "adaptive"), Kept(), date(2026, 12, 10)
    spent = {"search": [100 * UNIT] * 8, "social": [100 * UNIT] * 8}
    one = told(plan, spent, {"search": [400 * UNIT] * 8, "social": [50 * UNIT] * 8})
    other = told(plan, spent, {"search": [50 * UNIT] * 8, "social": [400 * UNIT] * 8})
    search = await asked(advice_of(plan, one, kept), plan, "search", day)
    assert search == await asked(advice_of(plan, other, kept), plan, "search", day)
    assert search + await asked(advice_of(plan, other, kept), plan, "social", day) <= 200 * UNIT


async def test_a_campaign_that_has_ended_gets_nothing_and_frees_its_share():
    plan, day = plan_of("even", "adaptive"), date(2026, 12, 10)
    lanes = begin(plan).lanes
    lanes["social"].how = "cancelled"
    advice = advice_of(plan, lanes)
    assert 0 == await asked(advice, plan, "social", day)
    assert 100 * UNIT == await asked(advice, plan, "search", day)


@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_what_was_kept_first_stays(where, tmp_path, request):
    place = tmp_path / "flow.db" if where == "sqlite" else request.getfixturevalue("postgres")
    store = RunStore.open(place)
    store.create("run-1", plan_of("even", "adaptive"))
    assert b"one" == store.keep_first("run-1", "division/2026-12-01", b"one")
    assert b"one" == store.keep_first("run-1", "division/2026-12-01", b"two")
    assert b"two" == store.keep_first("run-1", "division/2026-12-02", b"two")
    store.close()


def test_an_adaptive_plan_runs_to_its_end_within_its_sum():
    with (
        OwnTime(FIRST) as days,
        days.sandbox() as sandbox,
        BudgetGuard.open(limit="10000", window="30d") as guard,
        CampaignRunner.open(guard=guard, sandbox=sandbox.url, **days.runner) as runner,
    ):
        run = runner.start(plan_of("adaptive", "adaptive", days=4))
        status = days.live_through(runner, run)
        assert "completed" == status.state
        assert 0 < status.spent
        for lane in status.lanes:
            assert 4 == len(lane.spent)


@pytest.mark.parametrize("allocation", ["fixed", "adaptive"])
@settings(max_examples=60)
@given(lag=st.integers(0, 3), idle=st.tuples(st.integers(0, 6), st.integers(0, 6)), data=st.data())
def test_what_is_billed_stays_within_the_planned_sum_however_late_reports_come(allocation, lag, idle, data):
    """Campaigns that find nobody for some days and then spend all that they are given; a day is held until it is reported."""
    social = data.draw(st.sampled_from([100, 500]))
    text = TEXT.format(pacing="adaptive", allocation=allocation, days=10)
    plan = parse_plan(text.replace("meta, budget: $100", f"meta, budget: ${social}"))
    limits = Limits(overdelivery=2.0, budget_step=10_000)
    lanes = begin(plan).lanes
    advice = advice_of(plan, lanes, limits=limits)
    billed: dict[str, dict[str, int]] = {name: {} for name in lanes}
    worth = data.draw(st.permutations([1, 5]))
    for number in range(10):
        day = FIRST + timedelta(days=number)
        final = str(day - timedelta(days=lag))
        for lane, times in zip(lanes.values(), worth, strict=True):
            lane.spent = {each: micros for each, micros in billed[lane.campaign].items() if each < final}
            lane.value = {each: micros * times for each, micros in lane.spent.items()}
            lane.held = {each: micros for each, micros in lane.held.items() if each not in lane.spent}
        for campaign, days in zip(plan.campaigns, idle, strict=True):
            lane = lanes[campaign.name]
            found = asyncio.run(advice.daily_budget(campaign, day, lane.spent))
            lane.budget = budget = found.value["micros"]
            lane.held[str(day)] = worst_case(budget, limits.overdelivery)
            billed[campaign.name][str(day)] = budget if number >= days else 0
    sums = [sum(days.values()) for days in billed.values()]
    assert 10 * (100 + social) * UNIT >= sum(sums)
    if allocation == "fixed":
        assert all(total <= 10 * each.daily_budget for total, each in zip(sums, plan.campaigns, strict=True))
