"""Three books side by side: what differs is named, and what an ended campaign left open is brought to an end."""

from __future__ import annotations

import asyncio
import itertools
from datetime import date
from typing import Any

import msgspec

from kiki.flow.memory_engine import VirtualTime
from kiki.flow.plan_calendar import QuickCalendar
from kiki.flow.plan_text import parse_plan
from kiki.flow.platform import CampaignState, Status
from kiki.flow.progress import LaneProgress, Phase, begin
from kiki.flow.reconcile import Finding, Kind, Reconciliation, reconcile
from kiki.outbound.outcome import unknown
from tests.flow.model import DAY, ModelGuard, ModelPlatform

FIRST, START = date(2026, 12, 1), 1_796_000_000_000_000
PLAN = parse_plan(
    "plan: spring\ncurrency: USD\nstarts: 2026-12-01\nends: 2026-12-02\nplatforms: {meta: {account: act_1}}\n"
    "campaigns:\n  - {name: social, platform: meta, budget: $100/day}\n"
)
SCOPES = {"campaign": "social", "platform": "meta"}


class Case:
    """One campaign that has ended, as the platform billed it: half of the worst case on both days."""

    def __init__(self, spent: dict[str, int], phase: Phase = Phase.ENDED) -> None:
        self.time = VirtualTime(START + 6 * DAY)
        self.calendar = QuickCalendar(FIRST, START, DAY)
        fine = itertools.repeat("ok")
        self.platform = ModelPlatform(self.time, self.calendar, fine, lambda _day: 0.5)
        self.platform.state = CampaignState(id="c-1", name="kiki/spring/social", status=Status.PAUSED)
        self.platform.history = [(START, True, 100_000_000), (START + 2 * DAY, False, 100_000_000)]
        self.guard = ModelGuard(10_000_000_000, fine)
        self.lane: LaneProgress = begin(PLAN).lanes["social"]
        self.lane.phase, self.lane.spent = phase, spent

    async def hold(self, key: str) -> None:
        self.guard.scopes[key] = [f"{kind}:{value}" for kind, value in SCOPES.items()]
        await self.guard.reserve(200_000_000, SCOPES, key)

    def reconcile(self, *, act: bool = True) -> Reconciliation:
        case = self

        class Worlds:
            async def platform(self, *_: Any) -> Any:
                return case.platform

            async def calendar(self, *_: Any) -> Any:
                return case.calendar

        asked = reconcile("run-1", PLAN, [self.lane], Worlds(), self.guard, self.time.now(), act=act)  # type: ignore[arg-type]
        return asyncio.run(asked)


BILLED = {"2026-12-01": 100_000_000, "2026-12-02": 100_000_000}


def only(found: Reconciliation) -> Finding:
    (finding,) = found.findings
    return finding


def test_books_that_agree_have_nothing_to_say():
    found = Case(BILLED).reconcile()
    assert ([], True, 5) == (found.findings, found.is_clean, found.days)


def test_a_hold_that_an_ended_campaign_left_is_committed_with_what_was_billed():
    case = Case({"2026-12-01": 100_000_000})
    asyncio.run(case.hold("h"))
    case.lane.held, case.lane.holds = {"2026-12-02": 200_000_000}, {"2026-12-02": "h"}
    assert (Kind.HOLD, False) == (only(case.reconcile(act=False)).kind, only(case.reconcile(act=False)).solved)
    assert {"h": 200_000_000} == case.guard.holds
    assert (Kind.HOLD, True) == (only(case.reconcile()).kind, True)
    assert ({}, 100_000_000) == (case.guard.holds, case.guard.spent)


def test_a_hold_of_which_nothing_was_spent_is_released():
    case = Case({})
    case.platform.history = []
    asyncio.run(case.hold("h"))
    case.lane.holds = {"2026-12-02": "h"}
    assert only(case.reconcile()).solved
    assert ({}, 0) == (case.guard.holds, case.guard.spent)


def test_what_came_later_is_recorded_once():
    case = Case({**BILLED, "2026-12-02": 90_000_000})
    for _ in range(2):
        assert ("2026-12-02", True) == (only(case.reconcile()).day, only(case.reconcile()).solved)
    assert 10_000_000 == case.guard.recorded
    assert {"flow.reconciled"} == {note.event for note in case.guard.notes.values()}


def test_a_campaign_that_spends_although_it_has_ended_is_paused():
    case = Case(BILLED)
    case.platform.state = msgspec.structs.replace(case.platform.state, status=Status.ACTIVE)
    assert Kind.ACTIVE is only(case.reconcile(act=False)).kind
    assert only(case.reconcile()).solved
    assert Status.PAUSED is case.platform.state.status


def test_a_hold_that_nobody_knows_is_named_and_left_to_a_person():
    case = Case(BILLED)
    asyncio.run(case.hold("h"))
    found = case.reconcile()
    assert (Kind.ORPHAN, False) == (only(found).kind, found.is_clean)
    assert "hold h" in only(found).detail
    assert {"h": 200_000_000} == case.guard.holds


def test_a_running_campaign_is_only_compared():
    case = Case({**BILLED, "2026-12-02": 90_000_000}, Phase.RUNNING)
    assert (Kind.COST, False) == (only(case.reconcile()).kind, only(case.reconcile()).solved)
    assert ({}, 0) == (case.guard.answers, case.guard.recorded)


def test_a_platform_that_cannot_be_asked_is_named():
    case = Case(BILLED)

    async def lookup(_name: str) -> Any:
        return unknown("timeout")

    case.platform.lookup = lookup  # type: ignore[method-assign]
    assert Kind.UNREADABLE is only(case.reconcile()).kind
