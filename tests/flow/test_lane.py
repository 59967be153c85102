"""A lane against a model platform and a model guard, with everything going wrong."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.errors import RunTaken
from kiki.flow.lane import run_lane
from kiki.flow.memory_engine import Journal, MemoryPort, VirtualTime
from kiki.flow.plan import Plan
from kiki.flow.plan_calendar import QuickCalendar
from kiki.flow.plan_text import parse_plan
from kiki.flow.platform import Status
from kiki.flow.world import World
from tests.flow.model import DAY, FAULTS, AsPlanned, ModelGuard, ModelPlatform, OwnAllowance

FIRST = date(2026, 12, 1)
START = 1_796_000_000_000_000

PLAN = """\
plan: spring
currency: USD
starts: 2026-12-01
ends: 2026-12-04
platforms: {meta: {account: act_1}}
campaigns:
  - {name: social, platform: meta, budget: $100/day, bid: $1.50}
"""


class Crash(BaseException):
    """The process dies here."""


class Case:
    """One lane with its surroundings."""

    def __init__(
        self,
        plan: Plan | str = PLAN,
        *,
        limit: int = 10_000_000_000,
        platform_faults: Sequence[str] = (),
        guard_faults: Sequence[str] = (),
        crashes: Sequence[int] = (),
        intensity: Callable[[date], float] = lambda _day: 0.5,
        correction: Callable[[date], int] = lambda _day: 0,
        total: int | None = None,
        away_hours: float = 0.0,
    ) -> None:
        self.plan = parse_plan(plan) if isinstance(plan, str) else plan
        self.time = VirtualTime(START - DAY)
        calendar = QuickCalendar(FIRST, START, DAY)
        self.platform = ModelPlatform(
            self.time, calendar, _then_fine(platform_faults), intensity, correction=correction
        )
        self.guard = ModelGuard(limit, _then_fine(guard_faults))
        self.guard.may_settle = self._is_final
        self.journal = Journal()
        self.allowance = OwnAllowance(total)
        self.fenced = False
        self._away = int(away_hours * DAY / 24)
        self._crashes = set(crashes)
        self._boundaries = itertools.count()
        self.world = World(
            guard=self.guard,
            platform=self.platform,
            calendar=calendar,
            allowance=self.allowance,
            advice=AsPlanned(),
            fence=self._fence,
            now=self.time.now,
        )

    async def _fence(self) -> float:
        if self.fenced:
            raise RunTaken("another runner has the run")
        return asyncio.get_running_loop().time() + 60

    def _is_final(self, key: str) -> bool:
        days = [note.detail["day"] for note in self.guard.notes.values() if note.detail.get("key") == key]
        if not days:
            return True  # the guard has the hold, and not yet the note about it
        (day,) = {*days}
        calendar = self.platform.calendar
        ends = calendar.start_of(date.fromisoformat(str(day))) + calendar.span(24 + self.platform.report_hours)
        return self.time.now() >= ends

    def _at(self, _step: str, _moment: str) -> None:
        if next(self._boundaries) in self._crashes:
            raise Crash

    def run(self) -> dict[str, Any]:
        """To the end, started again after every crash."""
        while True:
            port = MemoryPort(self.journal, self.time, self._at)
            try:
                return asyncio.run(run_lane("run-1", self.plan, "social", port, self.world))
            except Crash:
                if self._away:
                    asyncio.run(self.time.wait_until(self.time.now() + self._away))

    @property
    def days(self) -> list[date]:
        return self.plan.campaigns[0].days

    def check(self, result: dict[str, Any]) -> None:
        """What must hold whatever went wrong."""
        later = [self.days[-1] + timedelta(days=each) for each in range(1, 4)]
        truth = self.platform.truth([*self.days, *later])
        assert truth == {day: result["spent"].get(day, 0) for day in truth}
        assert {} == self.guard.holds, "a hold leaked"
        assert [] == result["open"]
        assert self.guard.most_held <= self.guard.limit
        assert all(len(effects) == 1 for effects in self.platform.effects.values()), "one key, two meanings"
        assert self.platform.made <= 1
        assert self.platform.twin is None, "a twin was left"
        assert self.platform.state is None or self.platform.state.status is Status.PAUSED
        assert sum(self.allowance.taken.values()) >= sum(truth.values()) - self.guard.recorded
        known = sum(max(self.platform.correction(day), 0) for day in self.days)
        unheld = sum(
            int(note.detail["change"])
            for note in self.guard.notes.values()
            if note.event == "flow.drift" and note.detail.get("unheld")
        )
        assert self.guard.recorded <= known + unheld, "spent beyond what was held, and nobody said so"


def _by_day(values: dict[date, Any], else_: Any) -> Callable[[date], Any]:
    return lambda day: values.get(day, else_)


def _then_fine(faults: Sequence[str]) -> Any:
    return itertools.chain(faults, itertools.repeat("ok"))


def test_a_quiet_campaign_runs_its_days_and_the_books_agree() -> None:
    case = Case()
    result = case.run()

    case.check(result)
    assert "completed" == result["how"]
    assert {str(day): 100_000_000 for day in case.days} == result["spent"]
    assert 400_000_000 == case.guard.spent
    assert 0 == case.guard.recorded
    events = {note.event for note in case.guard.notes.values()}
    assert {"flow.reserved", "flow.called", "flow.settled", "flow.lane_ended"} <= events


def test_the_worst_case_is_held_before_anything_may_be_spent() -> None:
    case = Case(intensity=lambda _day: 1.0)
    result = case.run()

    case.check(result)
    assert 800_000_000 == sum(result["spent"].values())
    assert 0 == case.guard.recorded


def test_a_day_that_is_not_held_is_paused_before_it_begins() -> None:
    # Room for two worst days, of which each turns out to cost all of it.
    case = Case(limit=400_000_000, intensity=lambda _day: 1.0)
    result = case.run()

    case.check(result)
    assert 400_000_000 == case.guard.spent
    assert 0 == case.guard.recorded
    assert [200_000_000, 200_000_000, 0, 0] == [result["spent"][str(day)] for day in case.days]


def test_money_that_becomes_free_during_a_day_is_used() -> None:
    case = Case(limit=200_000_000, intensity=lambda _day: 1.0)

    def free_again() -> None:
        case.guard.limit = 10_000_000_000

    case.time.at(START + DAY + DAY // 2, free_again)
    result = case.run()

    case.check(result)
    assert [200_000_000] * 4 == [result["spent"][str(day)] for day in case.days]
    starts = [moment for moment, active, _ in case.platform.history if active]
    assert 2 == len(starts)
    assert START + DAY + DAY // 2 <= starts[1] <= START + DAY + DAY * 3 // 4


def test_what_a_campaign_costs_that_cannot_be_paused_is_recorded_and_said() -> None:
    """Money for two days only, and a platform that takes no pause until the third day is over."""
    case = Case(limit=400_000_000, intensity=lambda _day: 1.0)
    case.platform.stubborn_until = START + 3 * DAY - DAY // 4
    result = case.run()

    assert [200_000_000, 200_000_000, 200_000_000, 0] == [result["spent"][str(day)] for day in case.days]
    assert 200_000_000 == case.guard.recorded
    assert {} == case.guard.holds
    assert Status.PAUSED is case.platform.state.status
    told = [note for note in case.guard.notes.values() if note.event == "flow.not_paused"]
    assert told


def test_what_a_campaign_costs_after_its_last_day_is_recorded_and_said() -> None:
    """A platform that takes no pause until noon of the day after."""
    case = Case(intensity=lambda _day: 1.0)
    case.platform.stubborn_until = START + 4 * DAY + DAY // 2
    result = case.run()

    assert 200_000_000 == result["spent"]["2026-12-05"]
    assert 200_000_000 == case.guard.recorded
    case.check(result)


@pytest.mark.parametrize("crash", range(0, 240, 3))
def test_a_runner_may_be_away_for_the_night_and_no_day_lacks_its_money(crash: int) -> None:
    case = Case(crashes=[crash], away_hours=7, intensity=lambda _day: 1.0)
    result = case.run()

    case.check(result)
    late_pause = result["spent"].get("2026-12-05", 0)
    assert late_pause == case.guard.recorded


def test_the_plan_s_own_total_holds_too() -> None:
    case = Case(PLAN.replace("currency: USD", "currency: USD\nbudget: $450 total"), total=450_000_000)
    result = case.run()

    case.check(result)
    assert sum(result["spent"].values()) <= 450_000_000


def test_an_account_in_another_currency_is_never_touched() -> None:
    case = Case()
    case.platform.money = "EUR"
    result = case.run()

    assert ("failed", "currency_mismatch") == (result["how"], result["code"])
    assert None is case.platform.state
    assert {} == case.guard.answers


def test_a_guard_in_another_currency_counts_nothing_of_the_plan() -> None:
    case = Case()
    case.guard.money = "EUR"
    result = case.run()

    assert ("failed", "currency_mismatch") == (result["how"], result["code"])
    assert "the guard counts in EUR, and the plan is in USD" in result["message"]
    assert None is case.platform.state
    assert {} == case.guard.answers


def test_a_late_correction_is_followed_in_both_directions() -> None:
    changes = dict(zip(Case().days, (5_000_000, -3_000_000, 0, 1), strict=True))
    case = Case(correction=_by_day(changes, 0))
    result = case.run()

    case.check(result)
    assert 5_000_001 == case.guard.recorded


def test_pause_and_resume_by_a_person() -> None:
    case = Case()
    case.time.at(START + DAY // 2, lambda: case.journal.signal(kind="pause", actor="ada"))
    case.time.at(START + 2 * DAY + DAY // 2, lambda: case.journal.signal(kind="resume", actor="ada"))
    result = case.run()

    case.check(result)
    assert "completed" == result["how"]
    assert [True, False, True, True] == [result["spent"][str(day)] > 0 for day in case.days]


def test_a_cancelled_campaign_stops_at_once_and_is_settled() -> None:
    case = Case()
    case.time.at(START + DAY // 2, lambda: case.journal.signal(kind="cancel", actor="ada"))
    result = case.run()

    case.check(result)
    assert "cancelled" == result["how"]
    assert 100_000_000 == sum(result["spent"].values())


def test_a_large_plan_waits_for_approval() -> None:
    case = Case(PLAN.replace("currency: USD", "currency: USD\napproval_above: $50/day"))
    case.time.at(START - DAY // 2, lambda: case.journal.signal(kind="approve", actor="cfo"))
    result = case.run()

    case.check(result)
    assert "completed" == result["how"]
    assert "flow.approved" in {note.event for note in case.guard.notes.values()}


def test_a_pause_that_comes_before_the_approval_holds_after_it() -> None:
    case = Case(PLAN.replace("currency: USD", "currency: USD\napproval_above: $50/day"))
    for hour, kind in enumerate(["pause", "resume", "pause", "approve"]):
        case.time.at(START - DAY // 2 + hour, lambda kind=kind: case.journal.signal(kind=kind, actor="ada"))
    case.time.at(START + 2 * DAY + DAY // 2, lambda: case.journal.signal(kind="resume", actor="ada"))
    result = case.run()

    case.check(result)
    assert [False, False, True, True] == [result["spent"].get(str(day), 0) > 0 for day in case.days]
    told = [note.detail["kind"] for note in case.guard.notes.values() if note.event == "flow.signal"]
    assert ["pause", "resume"] == told, "the pause stands behind the approval, so that the status says paused"


def test_a_plan_that_nobody_approves_spends_nothing() -> None:
    case = Case(PLAN.replace("currency: USD", "currency: USD\napproval_above: $50/day"))
    case.time.at(START + DAY, lambda: case.journal.signal(kind="cancel", actor="cfo"))
    result = case.run()

    assert "cancelled" == result["how"]
    assert None is case.platform.state


def test_a_runner_that_lost_the_run_writes_nothing_more() -> None:
    case = Case()

    def take_over() -> None:
        case.fenced = True

    case.time.at(START + DAY // 2, take_over)
    calls = 0
    try:
        case.run()
    except RunTaken:
        calls = len(case.platform.effects)
    assert calls
    assert all(note.event != "flow.lane_ended" for note in case.guard.notes.values())


@pytest.mark.parametrize("rate", [0.15, 0.4, 0.7])
@pytest.mark.parametrize("policy", ["leave", "pause"])
def test_hundreds_of_bad_weeks_end_with_books_that_agree(rate: float, policy: str) -> None:
    days = Case().days
    for seed in range(150):
        chance = random.Random(f"{seed} {rate}")

        def faults(chance: random.Random = chance) -> list[str]:
            return [chance.choice(FAULTS[1:]) if chance.random() < rate else "ok" for _ in range(250)]

        limit = chance.choice([150_000_000, 450_000_000, 10_000_000_000])
        case = Case(
            PLAN.replace("currency: USD", f"currency: USD\non_guard_down: {policy}"),
            limit=limit,
            platform_faults=faults(),
            guard_faults=faults(),
            crashes=chance.sample(range(600), 10),
            intensity=_by_day({day: chance.random() for day in days}, 0.5),
            correction=_by_day({day: chance.randint(-20_000_000, 20_000_000) for day in days}, 0),
        )
        for _ in range(chance.randint(0, 2)):
            kind = chance.choice(["pause", "resume", "cancel"])
            moment = START + int((chance.random() * 5 - 0.9) * DAY)
            case.time.at(moment, lambda case=case, kind=kind: case.journal.signal(kind=kind))
        case.check(case.run())


@given(crashes=st.lists(st.integers(0, 400), max_size=12))
@settings(deadline=None)
def test_a_crash_at_any_boundary_changes_nothing(crashes: list[int]) -> None:
    quiet, case = Case(), Case(crashes=crashes)
    expected = quiet.run()
    result = case.run()

    case.check(result)
    assert expected == result
    assert quiet.journal.entries == case.journal.entries


@given(
    platform_faults=st.lists(st.sampled_from(FAULTS), max_size=60),
    guard_faults=st.lists(st.sampled_from(FAULTS), max_size=40),
    crashes=st.lists(st.integers(0, 500), max_size=8),
    limit=st.sampled_from([150_000_000, 250_000_000, 450_000_000, 10_000_000_000]),
    shares=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    corrections=st.lists(st.integers(-20_000_000, 20_000_000), min_size=4, max_size=4),
    signals=st.lists(st.tuples(st.floats(-0.9, 4.5), st.sampled_from(["pause", "resume", "cancel"])), max_size=3),
    policy=st.sampled_from(["leave", "pause"]),
)
@settings(deadline=None, max_examples=300)
def test_whatever_goes_wrong_the_books_agree_in_the_end(
    platform_faults: list[str],
    guard_faults: list[str],
    crashes: list[int],
    limit: int,
    shares: list[float],
    corrections: list[int],
    signals: list[tuple[float, str]],
    policy: str,
) -> None:
    days = Case().days
    case = Case(
        PLAN.replace("currency: USD", f"currency: USD\non_guard_down: {policy}"),
        limit=limit,
        platform_faults=platform_faults,
        guard_faults=guard_faults,
        crashes=crashes,
        intensity=_by_day(dict(zip(days, shares, strict=True)), 0.5),
        correction=_by_day(dict(zip(days, corrections, strict=True)), 0),
    )
    for when, kind in signals:
        case.time.at(START + int(when * DAY), lambda kind=kind: case.journal.signal(kind=kind))
    case.check(case.run())
