"""What a plan would do, before anything is done: asked of its platforms and of the guard, and nothing is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import msgspec

from kiki.errors import KikiError
from kiki.flow.budget_reach import highest_budgets, worst_of_all
from kiki.flow.guard_line import UNAVAILABLE, GuardLine, guard_mismatch
from kiki.flow.lane import peak
from kiki.flow.lane_world import Worlds
from kiki.flow.plan import Plan, PlannedCampaign
from kiki.flow.plan_diff import Change, Problem, Step, compare, held_at_once, outlived, removed, unfit
from kiki.flow.platform import Limits, Platform, campaign_name, campaign_of
from kiki.flow.words import amount_in_words
from kiki.outbound.outcome import Outcome


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What running a plan would do. Money in micros."""

    plan: str
    version: str
    currency: str
    starts: str
    ends: str
    planned: int
    """All days as written."""
    worst: int
    """The most that the platforms may bill for them."""
    budget: int | None
    changes: list[Change]
    problems: list[Problem]
    """What keeps it from running as written; none of them is a mistake in the file."""
    approval: str
    """Why a person must approve it first; empty when nobody must."""
    run: str = ""
    """The run of this very plan that is open: it asks the guard for its money day by day, and holds a part of it."""


async def preview(
    plan: Plan,
    worlds: Worlds,
    guard: GuardLine,
    earlier: Iterable[Plan] = (),
    *,
    open_run: str = "",
    changed: str | None = None,
) -> Preview:
    """Ask every platform and the guard. `earlier` are plans of the same name whose campaigns may still be there, newest first.

    `open_run` is a run of this very plan; `changed` says which run keeps this plan from being started, because it is open under another version.
    """
    earlier = list(earlier)
    platforms, problems = await _platforms(plan, worlds)
    problems += [] if changed is None else [Problem(what=changed)]
    known = {name: each.limits for name, each in platforms.items()}
    limits = {name: known.get(name, Limits(overdelivery=2.0)) for name in plan.platforms}
    highest = highest_budgets(plan, limits)
    changes = await asyncio.gather(
        *(_change(plan, each, platforms, limits, highest[each.name]) for each in plan.campaigns)
    )
    gone = await asyncio.gather(*(_gone(plan, each, platforms) for each in _dropped(plan, earlier)))
    accounts = await asyncio.gather(*(_account(plan, each) for each in platforms.values()))
    problems += [each for each in accounts if each is not None]
    # The oldest plan that had it is the one that made it.
    made_until = {each.name: each.ends for old in earlier for each in old.campaigns}
    for campaign, change in zip(plan.campaigns, changes, strict=True):
        if change.step in {Step.CHANGE, Step.NOTHING}:
            problem = outlived(campaign, made_until.get(campaign.name, campaign.ends))
            problems += [] if problem is None else [problem]
        problem = unfit(campaign, limits[campaign.platform], plan.currency)
        problems += [] if problem is None else [problem]
    overdelivery = {name: each.overdelivery for name, each in limits.items()}
    problems += await _guarded(plan, guard, overdelivery, is_open=bool(open_run))
    planned = sum(each.daily_budget * len(each.days) for each in plan.campaigns)
    if plan.budget is not None and planned > plan.budget:
        said = f"the days as written cost {amount_in_words(planned, plan.currency)}, more than the plan's total of "
        problems.append(Problem(what=said + amount_in_words(plan.budget, plan.currency)))
    return Preview(
        plan=plan.name,
        version=plan.version,
        currency=plan.currency,
        starts=str(plan.starts),
        ends=str(plan.ends),
        planned=planned,
        worst=worst_of_all(plan, limits),
        budget=plan.budget,
        changes=[*changes, *(each for each in gone if each is not None)],
        problems=problems,
        approval=_approval(plan),
        run=open_run,
    )


async def _platforms(plan: Plan, worlds: Worlds) -> tuple[dict[str, Platform], list[Problem]]:
    found: dict[str, Platform] = {}
    problems = []
    for name in plan.platforms:
        try:
            found[name] = await worlds.platform(plan, name)
        except KikiError as error:
            on_it = [each.name for each in plan.campaigns if each.platform == name]
            problems.append(Problem(what=f"{name} cannot be asked: {' '.join(str(error).split())}", campaigns=on_it))
    return found, problems


async def _account(plan: Plan, platform: Platform) -> Problem | None:
    told = await platform.currency()
    if not told.is_done:
        return Problem(what=f"the {platform.name} account {platform.account} cannot be asked: {_why(told)}")
    if told.value["currency"] != plan.currency:
        said = f"the {platform.name} account {platform.account} is in {told.value['currency']}"
        return Problem(what=f"{said}, and the plan in {plan.currency}: nothing will run there")
    return None


async def _change(
    plan: Plan,
    campaign: PlannedCampaign,
    platforms: Mapping[str, Platform],
    limits: Mapping[str, Limits],
    highest: Mapping[date, int],
) -> Change:
    platform = platforms.get(campaign.platform)
    found = None if platform is None else await platform.lookup(campaign_name(plan.name, campaign.name))
    if found is None or not found.is_done:
        details = [] if found is None else [f"the platform cannot be asked: {_why(found)}"]
        return Change(campaign=campaign.name, platform=campaign.platform, step=Step.UNKNOWN, details=details)
    return compare(plan, campaign, campaign_of(found), limits[campaign.platform], highest)


def _dropped(plan: Plan, earlier: Iterable[Plan]) -> list[PlannedCampaign]:
    mine = {each.name for each in plan.campaigns}
    found = {each.name: each for old in earlier for each in old.campaigns if each.name not in mine}
    return [found[name] for name in sorted(found)]


async def _gone(plan: Plan, campaign: PlannedCampaign, platforms: Mapping[str, Platform]) -> Change | None:
    platform = platforms.get(campaign.platform)
    if platform is None:
        return None
    found = await platform.lookup(campaign_name(plan.name, campaign.name))
    return removed(campaign.name, campaign.platform, campaign_of(found))


async def _guarded(plan: Plan, guard: GuardLine, overdelivery: Mapping[str, float], *, is_open: bool) -> list[Problem]:
    """Whether the guard would hold what the plan needs at once: in all, under each scope, for each campaign.

    Of a plan that runs, `is_open`, it holds a part already: what it needs beside that only its run knows.
    """
    counted = await guard.currency()
    if counted.code == UNAVAILABLE:
        return [_away(counted)]
    if not counted.is_done:
        return [Problem(what=f"the guard does not tell its currency, so nothing will run: {_why(counted)}")]
    if counted.value["currency"] != plan.currency:
        return [Problem(what=guard_mismatch(str(counted.value["currency"]), plan.currency))]
    if is_open:
        return []
    problems: list[Problem] = []
    said: set[str] = set()
    for where, campaigns in _groups(plan):
        micros, day = held_at_once(campaigns, overdelivery)
        answer = await guard.check(micros, _shared(plan, campaigns))
        if answer.code == UNAVAILABLE:
            return [_away(answer)]
        if answer.is_done or answer.message in said:
            continue
        said.add(answer.message)
        needs = f"on {day} {where} needs {amount_in_words(micros, plan.currency)} set aside at once"
        names = [each.name for each in campaigns]
        problems.append(Problem(what=f"{needs}, and the guard says: {answer.message}", campaigns=names))
    return problems


def _away(answer: Outcome) -> Problem:
    return Problem(what=f"the guard cannot be asked, so nothing would be spent: {answer.message}")


def _groups(plan: Plan) -> list[tuple[str, list[PlannedCampaign]]]:
    """The campaigns whose money the guard counts together: all, those of one scope, each; none of these twice."""
    found: dict[tuple[str, ...], tuple[str, list[PlannedCampaign]]] = {}

    def add(where: str, campaigns: list[PlannedCampaign]) -> None:
        found.setdefault(tuple(each.name for each in campaigns), (where, campaigns))

    add("the plan", list(plan.campaigns))
    scopes = {each.name: plan.scopes_of(each) for each in plan.campaigns}
    for kind, value in dict.fromkeys(pair for own in scopes.values() for pair in own.items()):
        if kind == "campaign":
            add(f"{value} on {scopes[value]['platform']}", [plan.campaign(value)])
        else:
            where = value if kind == "platform" else f"{kind} {value}"
            add(where, [each for each in plan.campaigns if scopes[each.name].get(kind) == value])
    return list(found.values())


def _shared(plan: Plan, campaigns: Sequence[PlannedCampaign]) -> dict[str, str]:
    """The scopes that all of these are counted under."""
    first, *others = (plan.scopes_of(each) for each in campaigns)
    return {kind: value for kind, value in first.items() if all(each.get(kind) == value for each in others)}


def _approval(plan: Plan) -> str:
    above, highest = plan.approval_above, peak(plan)
    if above is None or highest <= above:
        return ""
    return f"its highest day costs {amount_in_words(highest, plan.currency)}, above {amount_in_words(above, plan.currency)}"


def _why(outcome: Outcome) -> str:
    return outcome.message or outcome.code
