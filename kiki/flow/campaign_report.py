"""What a run came to so far: spend, value and pacing for each platform and day. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import msgspec

from kiki.flow.plan import Plan
from kiki.flow.progress import Alert, LaneProgress
from kiki.flow.run_status import RunStatus


class PlatformReport(msgspec.Struct, frozen=True, kw_only=True):
    """One platform, or all of them. Money in micros."""

    platform: str
    campaigns: int
    planned: int
    """All days as written."""
    planned_so_far: int
    """Those whose report has come."""
    spent: int
    held: int
    value: int
    """What the conversions were worth, as the platform says."""
    unknown: int
    """Calls that were not answered; all of them were read back."""

    @property
    def pacing(self) -> float | None:
        """What was spent as a share of what was planned for the same days."""
        return self.spent / self.planned_so_far if self.planned_so_far else None

    @property
    def returned(self) -> float | None:
        """Value for each unit spent."""
        return self.value / self.spent if self.spent else None


class DayReport(msgspec.Struct, frozen=True, kw_only=True):
    """One day over all campaigns, micros; `settled` says how many of its campaigns' reports have come."""

    day: date
    planned: int
    spent: int
    value: int
    campaigns: int
    settled: int


class CampaignReport(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    run: str
    plan: str
    version: str
    state: str
    currency: str
    sandbox: bool
    starts: date
    ends: date
    budget: int | None
    total: PlatformReport
    platforms: list[PlatformReport]
    days: list[DayReport]
    alerts: list[Alert]

    @property
    def settled_days(self) -> dict[date, int]:
        """What days cost on which every campaign's report has come; what a forecast begins with."""
        return {each.day: each.spent for each in self.days if each.settled >= each.campaigns > 0}


def report_of(status: RunStatus, plan: Plan) -> CampaignReport:
    """The report of a run as it stands."""
    names = sorted({lane.platform for lane in status.lanes})
    return CampaignReport(
        run=status.run,
        plan=status.plan,
        version=status.version,
        state=status.state,
        currency=status.currency,
        sandbox=status.sandbox,
        starts=plan.starts,
        ends=plan.ends,
        budget=plan.budget,
        total=_sum("all", status.lanes),
        platforms=[_sum(name, [lane for lane in status.lanes if lane.platform == name]) for name in names],
        days=_days(status.lanes, plan),
        alerts=status.alerts,
    )


def _sum(name: str, lanes: Iterable[LaneProgress]) -> PlatformReport:
    lanes = list(lanes)
    return PlatformReport(
        platform=name,
        campaigns=len(lanes),
        planned=sum(lane.planned for lane in lanes),
        planned_so_far=sum(lane.planned_so_far for lane in lanes),
        spent=sum(lane.spent_total for lane in lanes),
        held=sum(lane.held_total for lane in lanes),
        value=sum(lane.value_total for lane in lanes),
        unknown=sum(lane.unknown for lane in lanes),
    )


def _days(lanes: Iterable[LaneProgress], plan: Plan) -> list[DayReport]:
    lanes = list(lanes)
    planned: dict[date, list[int]] = {}
    for campaign in plan.campaigns:
        for day in campaign.days:
            planned.setdefault(day, []).append(campaign.daily_budget)
    told = {date.fromisoformat(day) for lane in lanes for day in lane.spent}
    found = []
    for day in sorted({*planned, *told}):
        key = str(day)
        found.append(
            DayReport(
                day=day,
                planned=sum(planned.get(day, [])),
                spent=sum(lane.spent.get(key, 0) for lane in lanes),
                value=sum(lane.value.get(key, 0) for lane in lanes),
                campaigns=len(planned.get(day, [])),
                settled=sum(key in lane.spent for lane in lanes),
            )
        )
    return found
