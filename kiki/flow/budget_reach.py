"""How high a campaign's budget may go on each of its days, where pacing or allocation moves it; and what all may cost then. Pure.

These are bounds on what `AdaptiveAdvice` may advise, whatever the reports say: a budget grows by at most `learning_change` a
day, pacing stays within the campaign's sum, and an allocation within the day's money of the campaigns that run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from typing import Final

from kiki.flow.lane_money import worst_case
from kiki.flow.plan import Allocation, Pacing, Plan, PlannedCampaign
from kiki.flow.platform import Limits

_UNWEIGHTED_DAYS: Final = 14
"""Before so many days were reported, weekdays count alike."""


def highest_budgets(plan: Plan, limits: Mapping[str, Limits]) -> dict[str, dict[date, int]]:
    """By campaign and day, in micros."""
    found: dict[str, dict[date, int]] = {each.name: {} for each in plan.campaigns}
    last: dict[str, int] = {}
    for day in sorted({day for each in plan.campaigns for day in each.days}):
        running = [each for each in plan.campaigns if day in each.days]
        paced = {each.name: _paced(plan, each, day, last.get(each.name), limits[each.platform]) for each in running}
        for each in running:
            budget = paced[each.name]
            if plan.allocation is not Allocation.FIXED:
                of = limits[each.platform]
                grown = int(last.get(each.name, each.daily_budget) * (1 + of.learning_change))
                budget = min(max(grown, of.budget_min), sum(paced.values()))
            found[each.name][day] = last[each.name] = budget
    return found


def worst_of_all(plan: Plan, limits: Mapping[str, Limits]) -> int:
    """The most that the platforms may bill for all days, in micros: an allocation may give the money to those that bill most beyond it."""
    planned = {each.name: each.daily_budget * len(each.days) for each in plan.campaigns}
    over = {each.name: limits[each.platform].overdelivery for each in plan.campaigns}
    if plan.allocation is Allocation.FIXED:
        return sum(worst_case(each.daily_budget, over[each.name]) * len(each.days) for each in plan.campaigns)
    left, worst = sum(planned.values()), 0
    reach = {name: sum(days.values()) for name, days in highest_budgets(plan, limits).items()}
    for name in sorted(reach, key=lambda each: -over[each]):
        some = min(reach[name], left)
        worst, left = worst + worst_case(some, over[name]), left - some
    return worst


def _paced(plan: Plan, campaign: PlannedCampaign, day: date, last: int | None, limits: Limits) -> int:
    """What pacing may give the campaign by itself; `last` is the most that may be in force before."""
    if plan.pacing is Pacing.EVEN or last is None:
        return campaign.daily_budget
    total, place = campaign.daily_budget * len(campaign.days), campaign.days.index(day)
    most = last * (1 + limits.learning_change)
    if place < _UNWEIGHTED_DAYS:
        # All that the days before left, on an equal line; but a budget does not fall faster than it may, either.
        most = min(most, max(total / (len(campaign.days) - place), last * (1 - limits.learning_change)))
    return math.floor(min(most, total) / limits.budget_step) * limits.budget_step
