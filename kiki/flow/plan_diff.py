"""A plan beside what its platforms show now: what would be made, changed, paused or left. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from enum import StrEnum

import msgspec

from kiki.flow.lane_money import worst_case
from kiki.flow.plan import Plan, PlannedCampaign, ValueBid
from kiki.flow.platform import CampaignState, Limits, Status
from kiki.flow.words import amount_in_words


class Step(StrEnum):
    """What becomes of one campaign."""

    CREATE = "create"
    CHANGE = "change"
    PAUSE = "pause"
    NOTHING = "nothing"
    UNKNOWN = "unknown"
    """The platform cannot be asked."""
    CREATE_AGAIN = "ended"
    """It is there and has ended on the platform, so it cannot run again under this name."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One campaign, and what would be done about it."""

    campaign: str
    platform: str
    step: Step
    details: list[str]
    """What differs, in words."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that keeps a plan, or a part of it, from running as written."""

    what: str
    campaigns: list[str] = []


def compare(
    plan: Plan, campaign: PlannedCampaign, state: CampaignState | None, limits: Limits, highest: Mapping[date, int]
) -> Change:
    """One campaign of the plan beside the platform's; None: there is none of its name.

    `highest` is the highest budget that it may have on each of its days, in micros.
    """
    money = plan.currency
    if state is None:
        details = [
            f"{amount_in_words(campaign.daily_budget, money)}/day on {len(campaign.days)} days",
            _worst_in_words(highest, limits, money),
            bid_in_words(campaign, money),
        ]
        if campaign.audience is not None:
            named, purpose = campaign.audience.list, campaign.audience.consent
            details.append(f"audience {named} is put on it by you, at the platform; it needs consent to {purpose}")
        return Change(campaign=campaign.name, platform=campaign.platform, step=Step.CREATE, details=details)
    if state.status is Status.ENDED:
        details = ["it has ended on the platform: give the campaign another name"]
        return Change(campaign=campaign.name, platform=campaign.platform, step=Step.CREATE_AGAIN, details=details)
    details = []
    if state.daily_budget is not None and state.daily_budget != campaign.daily_budget:
        was, becomes = (amount_in_words(each, money) for each in (state.daily_budget, campaign.daily_budget))
        details.append(f"budget {was}/day → {becomes}/day{_learning(state.daily_budget, campaign, limits)}")
    if isinstance(campaign.bid, int) and state.bid != campaign.bid:
        was = "automatic" if state.bid is None else amount_in_words(state.bid, money)
        details.append(f"bid {was} → {amount_in_words(campaign.bid, money)}")
    if isinstance(campaign.bid, ValueBid):
        details.append(bid_in_words(campaign, money))
    step = Step.CHANGE if details else Step.NOTHING
    return Change(campaign=campaign.name, platform=campaign.platform, step=step, details=details)


def _worst_in_words(highest: Mapping[date, int], limits: Limits, currency: str) -> str:
    """What is held for a day at worst; where budgets grow day by day, for the first one, too."""
    worst = [worst_case(highest[day], limits.overdelivery) for day in sorted(highest)]
    said = f"at worst {amount_in_words(max(worst), currency)} on one day"
    if worst[0] == max(worst):
        return said
    grows = f"{limits.learning_change:.0%}".replace("%", " %")
    return f"{said}, {amount_in_words(worst[0], currency)} on the first: its budget may grow by {grows} a day"


def removed(name: str, platform: str, state: CampaignState | None) -> Change | None:
    """A campaign that an earlier version of the plan had; None when it spends nothing any more."""
    if state is None or state.status is not Status.ACTIVE:
        return None
    return Change(campaign=name, platform=platform, step=Step.PAUSE, details=["the plan has it no more"])


def outlived(campaign: PlannedCampaign, until: date) -> Problem | None:
    """A campaign that is there, and was made for fewer days: platforms are told the last one when a campaign is made."""
    if campaign.ends <= until:
        return None
    said = f"{campaign.name} was made to end on {until}, and {campaign.platform} lets it spend nothing after that day"
    return Problem(what=f"{said}: give the campaign another name for the days after it", campaigns=[campaign.name])


def bid_in_words(campaign: PlannedCampaign, currency: str) -> str:
    """How a campaign bids."""
    bid = campaign.bid
    if bid is None:
        return "the platform bids by itself"
    if isinstance(bid, int):
        return f"bid {amount_in_words(bid, currency)}"
    low = f", at least {amount_in_words(bid.floor, currency)}" if bid.floor else ""
    high = f", at most {amount_in_words(bid.ceiling, currency)}" if bid.ceiling is not None else ""
    which = (
        "the lower end of the 80 % interval of a new customer's value" if bid.bound == "lower" else "the expected value"
    )
    return f"bid {bid.share * 100:.4g}% of {which}{low}{high}"


def _learning(was: int, campaign: PlannedCampaign, limits: Limits) -> str:
    change = abs(campaign.daily_budget - was) / was if was else 1.0
    return " (the platform learns anew)" if change > limits.learning_change else ""


def unfit(campaign: PlannedCampaign, limits: Limits, currency: str) -> Problem | None:
    """What a platform would not take of a campaign."""
    budget = campaign.daily_budget
    if budget < limits.budget_min:
        least = amount_in_words(limits.budget_min, currency)
        said = f"{campaign.platform} takes no budget below {least}/day, and this is {amount_in_words(budget, currency)}"
        return Problem(what=said, campaigns=[campaign.name])
    amounts = [budget, *([campaign.bid] if isinstance(campaign.bid, int) else [])]
    if any(each % limits.budget_step for each in amounts):
        step = amount_in_words(limits.budget_step, currency)
        return Problem(what=f"{campaign.platform} counts in steps of {step}", campaigns=[campaign.name])
    return None


def held_at_once(campaigns: Iterable[PlannedCampaign], overdelivery: Mapping[str, float]) -> tuple[int, date]:
    """The most that is set aside for these at one time, in micros, and the day: a day's worst case and the next one's."""
    days: dict[date, int] = {}
    for each in campaigns:
        worst = worst_case(each.daily_budget, overdelivery.get(each.platform, 1.0))
        for day in each.days:
            days[day] = days.get(day, 0) + worst
    both = {day: micros + days.get(date.fromordinal(day.toordinal() + 1), 0) for day, micros in days.items()}
    day = min(both, key=lambda each: (-both[each], each))
    return both[day], day
