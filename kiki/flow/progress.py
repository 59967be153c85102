"""How a run stands, read from its story: one fold over what its lanes told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from enum import StrEnum
from typing import Any, Final

import msgspec

from kiki.flow.plan import Plan, PlannedCampaign

ALERTS: Final = frozenset(
    {
        *("flow.drift", "flow.not_paused", "flow.not_started", "flow.budget_not_set", "flow.failed"),
        "flow.guard_silent",
    }
)
"""Words of a story that somebody should look at."""
ALERTS_KEPT: Final = 20


class Phase(StrEnum):
    """What a lane is about."""

    PLANNED = "planned"
    """Nothing was done yet."""
    APPROVAL = "waiting for approval"
    RUNNING = "running"
    PAUSED = "paused by a person"
    CANCELLED = "being cancelled"
    ENDED = "ended"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something that did not go as it should."""

    at: int
    campaign: str
    event: str
    detail: dict[str, str | int | bool]


class LaneProgress(msgspec.Struct, kw_only=True):
    """One campaign of a run. Money in micros."""

    campaign: str
    platform: str
    phase: Phase = Phase.PLANNED
    how: str = ""
    """Once it has ended: completed, cancelled or failed, or handed_over."""
    active: bool = False
    """Whether the platform was last told to let it spend."""
    budget: int | None = None
    """The daily budget that was last set."""
    bid: int | None = None
    planned: int
    """What its days cost as planned."""
    planned_so_far: int = 0
    """The same for the days that are settled."""
    days: int
    spent: dict[str, int] = {}
    """Settled days, as billed."""
    value: dict[str, int] = {}
    """What the conversions of settled days were worth, as the platform says."""
    held: dict[str, int] = {}
    """Days whose worst case is set aside now."""
    holds: dict[str, str] = {}
    """The guard's holds of those days."""
    refused: dict[str, str] = {}
    """Days for which no money was given, with the reason."""
    unknown: int = 0
    """Calls whose fate is not known."""
    last_at: int | None = None
    last_event: str = ""

    @property
    def spent_total(self) -> int:
        """All settled days."""
        return sum(self.spent.values())

    @property
    def value_total(self) -> int:
        """All settled days."""
        return sum(self.value.values())

    @property
    def held_total(self) -> int:
        """All that is set aside."""
        return sum(self.held.values())


class Progress(msgspec.Struct, kw_only=True):
    """All lanes of a run, and its newest alerts."""

    lanes: dict[str, LaneProgress]
    alerts: list[Alert] = []
    number: int = 0
    """Of the last word that is in it."""


def begin(plan: Plan) -> Progress:
    """A run of which nothing was told yet."""
    return Progress(lanes={each.name: _planned(each) for each in plan.campaigns})


def _planned(campaign: PlannedCampaign) -> LaneProgress:
    days = len(campaign.days)
    return LaneProgress(
        campaign=campaign.name, platform=campaign.platform, planned=days * campaign.daily_budget, days=days
    )


def follow(progress: Progress, told: Iterable[tuple[int, int, str, str, Mapping[str, Any]]], plan: Plan) -> Progress:
    """Take in more of the story: number, moment, campaign, event, detail. Changes `progress` and gives it back."""
    for number, at, campaign, event, detail in told:
        progress.number = number
        lane = progress.lanes.get(campaign)
        if lane is None:
            continue
        lane.last_at, lane.last_event = at, event
        _take_in(lane, event, detail)
        if event == "flow.settled":
            lane.planned_so_far += _planned_on(plan.campaign(campaign), str(detail["day"]))
        if event in ALERTS:
            alert = Alert(at=at, campaign=campaign, event=event, detail=dict(detail))
            progress.alerts = [*progress.alerts[1 - ALERTS_KEPT :], alert]
    return progress


def _planned_on(campaign: PlannedCampaign, day: str) -> int:
    return campaign.daily_budget if date.fromisoformat(day) in campaign.days else 0


def _take_in(lane: LaneProgress, event: str, detail: Mapping[str, Any]) -> None:
    day = str(detail.get("day", ""))
    match event:
        case "flow.lane_started" | "flow.approved":
            lane.phase = Phase.RUNNING
        case "flow.approval_asked":
            lane.phase = Phase.APPROVAL
        case "flow.signal":
            words = {"pause": Phase.PAUSED, "resume": Phase.RUNNING, "cancel": Phase.CANCELLED}
            lane.phase = words.get(str(detail["kind"]), lane.phase)
        case "flow.called" | "flow.read_back":
            _call(lane, detail)
        case "flow.reserved":
            lane.held[day], lane.holds[day] = int(detail["micros"]), str(detail["hold"])
            lane.refused.pop(day, None)
        case "flow.refused":
            lane.refused[day] = str(detail["code"])
        case "flow.settled":
            lane.spent[day] = int(detail["spent"])
            lane.value[day] = int(detail.get("value", 0))
            lane.held.pop(day, None)
            lane.holds.pop(day, None)
        case "flow.credited":
            lane.spent[day] = lane.spent.get(day, 0) + int(detail["change"])
        case "flow.drift" | "flow.revised":
            if "change" in detail:
                lane.spent[day] = lane.spent.get(day, 0) + int(detail["change"])
            lane.active |= detail.get("found") == "active"
            if detail.get("found") == "budget":
                lane.budget = int(detail["budget"])
        case "flow.lane_ended":
            lane.phase, lane.how = Phase.ENDED, str(detail["how"])
        case _:
            pass


def _call(lane: LaneProgress, detail: Mapping[str, Any]) -> None:
    fate, does, micros = detail["fate"], detail.get("does"), detail.get("micros")
    lane.unknown += fate == "unknown"
    if fate != "done":
        return
    if does in {"create", "set_budget"} and micros is not None:
        lane.budget = int(micros)
    elif does == "set_bid" and micros is not None:
        lane.bid = int(micros)
    elif does in {"resume", "pause"}:
        lane.active = does == "resume"
