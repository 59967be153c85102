"""`CampaignRunner` in a script: a guard in this process, a sandbox over HTTP, and whatever may happen in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest

from kiki import BudgetGuard, CampaignRunner
from kiki.clock import SECOND
from kiki.errors import Conflict, InvalidInput, NotFound, PlanChanged, PlanError, RunTaken
from kiki.flow.guard_line import UNAVAILABLE, EmbeddedGuard
from kiki.flow.plan import Plan
from kiki.flow.plan_diff import Step
from kiki.flow.plan_text import parse_plan
from kiki.flow.progress import Phase
from kiki.flow.run_status import RunStatus
from kiki.flow.sandbox.local import LocalSandbox
from kiki.outbound.outcome import unknown
from kiki.shield.fact import Noted, decode_fact
from tests.flow.own_time import DAY_SECONDS, OwnTime, until

FIRST = date(2026, 12, 1)

TEXT = """\
plan: spring
currency: USD
starts: 2026-12-01
ends: 2026-12-03
platforms: sandbox
campaigns:
  - {name: search, platform: google_ads, budget: $100/day, bid: $1.20}
  - {name: social, platform: meta, budget: $200/day, bid: {ltv: 2%, ceiling: $4}}
"""
PLAN = parse_plan(TEXT)


@pytest.fixture
def days() -> Iterator[OwnTime]:
    with OwnTime(FIRST) as found:
        yield found


@pytest.fixture
def sandbox(days: OwnTime) -> Iterator[LocalSandbox]:
    with days.sandbox() as found:
        yield found


@pytest.fixture
def guard() -> Iterator[BudgetGuard]:
    with BudgetGuard.open(limit="10000", window="30d") as found:
        yield found


def runner_of(days: OwnTime, guard, sandbox: LocalSandbox, where: Path | None = None, **options) -> CampaignRunner:
    return CampaignRunner.open(where, guard=guard, sandbox=sandbox.url, **days.runner, **options)


def agree(status: RunStatus, sandbox: LocalSandbox, guard: BudgetGuard) -> None:
    """Our books, the platforms' and the guard's say the same."""
    campaigns = {each["name"].rpartition("/")[2]: each for each in sandbox.books()["campaigns"]}
    for lane in status.lanes:
        bills = {day: bill["billed"] for day, bill in campaigns[lane.campaign]["bills"].items() if bill["billed"]}
        assert bills == {day: spent for day, spent in lane.spent.items() if spent}
        assert "paused" == campaigns[lane.campaign]["status"]
    assert [] == guard.holds()


def test_a_plan_runs_to_its_end_and_three_books_agree(days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox):
    with runner_of(days, guard, sandbox) as runner:
        run = runner.start(PLAN)
        status = days.live_through(runner, run)
        events = runner.events(run)

    assert "completed" == status.state
    assert [Phase.ENDED, Phase.ENDED] == [lane.phase for lane in status.lanes]
    assert all(3 == sum(spent > 0 for spent in lane.spent.values()) for lane in status.lanes)
    agree(status, sandbox, guard)
    # Every word of the story is a fact in the guard's ledger, under its campaign.
    for lane in status.lanes:
        told = [each.event for each in events if each.lane == f"{run}/{lane.campaign}"]
        noted = [note.event for note in notes_of(guard, lane.campaign)]
        assert told == noted
        assert {"flow.lane_started", "flow.called", "flow.reserved", "flow.settled", "flow.lane_ended"} <= {*noted}
    assert {1_200_000, 2_550_000} == {campaign["bid"] for campaign in sandbox.books()["campaigns"]}


def notes_of(guard: BudgetGuard, campaign: str):
    facts = [decode_fact(entry) for entry in guard.decider.ledger.read()]
    return [fact for fact in facts if isinstance(fact, Noted) and f"campaign:{campaign}" in fact.scopes]


def test_the_same_plan_is_the_same_run(days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox):
    with runner_of(days, guard, sandbox) as runner:
        run = runner.start(PLAN)
        assert run == runner.start(parse_plan(f"# a comment\n{TEXT}"))
        assert [run] == [row.run for row in runner.runs()]


def test_an_edited_plan_is_named_and_refused_while_the_run_is_open(
    days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox
):
    edited = parse_plan(TEXT.replace("$100/day", "$120/day"))
    with runner_of(days, guard, sandbox) as runner:
        run = runner.start(PLAN)
        with pytest.raises(PlanChanged, match=f"{PLAN.version}.*{edited.version}"):
            runner.start(edited)
        assert PLAN == runner.plan(run)
        assert "completed" == days.end(runner, run).state
        assert run != runner.start(edited)


def test_an_ended_plan_starts_anew_only_when_that_is_said(days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox):
    with runner_of(days, guard, sandbox) as runner:
        run = runner.start(PLAN)
        runner.cancel(run)
        assert "cancelled" == days.end(runner, run).state
        assert run == runner.start(PLAN)
        assert f"{run}-2" == runner.start(PLAN, again=True)


def test_a_runner_goes_on_where_another_stopped(
    days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox, tmp_path: Path
):
    with runner_of(days, guard, sandbox, tmp_path / "flow.db") as runner:
        run = runner.start(PLAN)
        runner.work()
        until(lambda: any(lane.held for lane in runner.status(run).lanes))
    with runner_of(days, guard, sandbox, tmp_path / "flow.db") as runner:
        runner.work()
        until(lambda: all(lane.active for lane in runner.status(run).lanes))
        status = days.end(runner, run)

    assert "completed" == status.state
    agree(status, sandbox, guard)
    assert [] == sandbox.books()["duplicates"]


def test_pause_resume_and_cancel_by_a_person(days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox):
    with runner_of(days, guard, sandbox) as runner:
        run = runner.start(PLAN)
        runner.work()
        until(lambda: runner.status(run).lanes[0].active and runner.status(run).lanes[1].active)
        assert 1 == runner.pause(run, "search", actor="ada")
        until(lambda: not runner.status(run).lanes[0].active)
        assert Phase.PAUSED is runner.status(run).lanes[0].phase
        assert runner.status(run).lanes[1].active
        runner.resume(run, "search", actor="ada")
        until(lambda: runner.status(run).lanes[0].active)
        assert 2 == runner.cancel(run, actor="bob")
        status = days.end(runner, run)
        with pytest.raises(Conflict, match="ended"):
            runner.pause(run)

    assert "cancelled" == status.state
    agree(status, sandbox, guard)


def test_a_large_plan_waits_for_a_person(days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox):
    plan = parse_plan(TEXT.replace("currency: USD", "currency: USD\napproval_above: $250/day"))
    with runner_of(days, guard, sandbox) as runner:
        run = runner.start(plan)
        runner.work()
        until(lambda: all(lane.phase is Phase.APPROVAL for lane in runner.status(run).lanes))
        assert [] == sandbox.books()["campaigns"]
        runner.approve(run, actor="cfo")
        until(lambda: all(lane.phase is Phase.RUNNING for lane in runner.status(run).lanes))
        runner.cancel(run)
        days.end(runner, run)


def test_two_runners_of_one_name_are_refused(days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox, tmp_path: Path):
    with runner_of(days, guard, sandbox, tmp_path / "flow.db") as one:
        one.work()
        with runner_of(days, guard, sandbox, tmp_path / "flow.db") as two:
            with pytest.raises(RunTaken, match="runner"):
                two.work()
            with pytest.raises(RunTaken):
                two.adopt("runner")


def test_while_the_runner_is_away_a_platform_ends_a_campaign_on_its_last_day(
    days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox, tmp_path: Path
):
    with runner_of(days, guard, sandbox, tmp_path / "flow.db") as runner:
        run = runner.start(PLAN)
        runner.work()
        until(lambda: all(lane.active for lane in runner.status(run).lanes))
    days.go_to(PLAN.ends + timedelta(days=2), 0.1)
    with runner_of(days, guard, sandbox, tmp_path / "flow.db") as runner:
        status = days.end(runner, run)

    agree(status, sandbox, guard)
    for campaign in sandbox.books()["campaigns"]:
        assert str(PLAN.ends) == max(day for day, bill in campaign["bills"].items() if bill["billed"])


def test_the_runs_of_a_dead_runner_are_adopted_by_word(
    days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox, tmp_path: Path
):
    with runner_of(days, guard, sandbox, tmp_path / "flow.db", executor="a") as runner:
        run = runner.start(PLAN)
        # As if it had died: its lease stands.
        assert {run: 1} == runner.store.take("a", 3600, grace=0)
    with runner_of(days, guard, sandbox, tmp_path / "flow.db", executor="b") as runner:
        runner.work()
        time.sleep(0.2)
        assert {} == runner.held
        assert [run] == runner.adopt("a")
        until(lambda: run in runner.held)
        runner.cancel(run)
        days.end(runner, run)


def test_a_preview_says_what_would_be_made_and_changes_nothing(
    days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox
):
    with runner_of(days, guard, sandbox) as runner:
        found = runner.preview(PLAN)
    assert [Step.CREATE, Step.CREATE] == [change.step for change in found.changes]
    assert (900_000_000, 1_650_000_000, []) == (found.planned, found.worst, found.problems)
    assert [] == sandbox.books()["campaigns"]


def test_a_preview_beside_what_is_there(days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox):
    less = parse_plan(TEXT.replace("$100/day", "$150/day").replace("  - {name: social", "  - {name: video"))
    with runner_of(days, guard, sandbox) as runner:
        run = runner.start(PLAN)
        runner.work()
        until(lambda: all(lane.active for lane in runner.status(run).lanes))
        assert [Step.NOTHING, Step.CHANGE] == [each.step for each in runner.preview(PLAN).changes]
        found = {change.campaign: change for change in runner.preview(less).changes}
        assert {"search": Step.CHANGE, "video": Step.CREATE, "social": Step.PAUSE} == {
            name: change.step for name, change in found.items()
        }
        assert ["budget $100.00/day → $150.00/day (the platform learns anew)"] == found["search"].details
        assert f"run {run} of plan 'spring' is open under version" in runner.preview(less).problems[0].what
        longer = parse_plan(TEXT.replace("ends: 2026-12-03", "ends: 2026-12-09"))
        said = "search was made to end on 2026-12-03, and google_ads lets it spend nothing after that day"
        assert any(said in problem.what for problem in runner.preview(longer).problems)
        # What it holds already counts against no plan of its own.
        guard.spend("8000")
        assert (run, []) == (runner.preview(PLAN).run, runner.preview(PLAN).problems)
        runner.cancel(run)
        days.end(runner, run)


def test_a_preview_says_what_the_guard_would_not_hold(days: OwnTime, sandbox: LocalSandbox):
    with BudgetGuard.open(limit="500", window="30d") as guard, runner_of(days, guard, sandbox) as runner:
        problems = runner.preview(PLAN).problems
    assert (
        "needs $1,100.00 set aside at once, and the guard says: 1100.00 never fits budget 'default'" in problems[0].what
    )
    assert ["search", "social"] == problems[0].campaigns


def test_a_preview_asks_the_guard_for_every_scope_of_a_campaign(days: OwnTime, sandbox: LocalSandbox, tmp_path: Path):
    text = TEXT.replace("platform: meta", "platform: meta, scopes: {team: growth}, audience: {list: vip, consent: ads}")
    policy = tmp_path / "budgets.yaml"
    policy.write_text("budgets:\n  - {name: growth, scope: team:growth, limit: 100, window: 30d}\n")
    with BudgetGuard.open(policy=policy) as guard, runner_of(days, guard, sandbox) as runner:
        found = runner.preview(parse_plan(text))
        assert [["social"]] == [problem.campaigns for problem in found.problems]
        assert "team growth needs $700.00" in found.problems[0].what
        assert "never fits budget 'growth'" in found.problems[0].what
        assert "audience vip is put on it by you, at the platform; it needs consent to ads" in found.changes[1].details
        assert [] == runner.preview(PLAN).problems


def test_a_preview_beside_a_guard_in_another_currency(days: OwnTime, sandbox: LocalSandbox):
    with (
        BudgetGuard.open(limit="10000", window="30d", currency="JPY") as guard,
        runner_of(days, guard, sandbox) as runner,
    ):
        (problem,) = runner.preview(PLAN).problems
        assert "the guard counts in JPY, and the plan is in USD: nothing will run" == problem.what
        run = runner.start(PLAN)
        assert "failed" == days.end(runner, run).state
        assert [] == sandbox.books()["campaigns"]


def test_a_preview_without_platforms_and_without_credentials_says_so(guard: BudgetGuard):
    with CampaignRunner.open(guard=guard, sandbox="http://127.0.0.1:9", environ={}) as runner:
        found = runner.preview(PLAN)
        assert [Step.UNKNOWN, Step.UNKNOWN] == [change.step for change in found.changes]
        assert ["search"] == found.problems[0].campaigns


def test_what_nobody_knows_is_said(days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox, tmp_path: Path):
    with runner_of(days, guard, sandbox) as runner:
        for ask in (runner.status, runner.plan, runner.events, runner.pause):
            with pytest.raises(NotFound, match="no run 'nobody'"):
                ask("nobody")
        run = runner.start(PLAN)
        with pytest.raises(InvalidInput, match="no campaign 'nobody'"):
            runner.pause(run, "nobody")
        with pytest.raises(PlanError, match="No such file"):
            runner.start(tmp_path / "nobody.yaml")
        bad = tmp_path / "bad.yaml"
        bad.write_bytes(b"plan: \xff")
        with pytest.raises(PlanError, match=r"bad\.yaml:1: the file is not UTF-8"):
            runner.start(bad)


def test_a_status_is_json_and_back(days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox):
    with runner_of(days, guard, sandbox) as runner:
        status = runner.status(runner.start(PLAN))
    assert status == msgspec.json.decode(msgspec.json.encode(status), type=RunStatus)


def test_old_plans_are_read_as_they_were_written():
    assert PLAN == Plan.load(PLAN.dump())


class FlakyGuard(EmbeddedGuard):
    """A guard that cannot be asked while it is `down`."""

    down = False

    async def _ask(self, ask):
        if self.down:
            ask.close()
            return unknown(UNAVAILABLE, "nobody answers")
        return await ask

    async def reserve(self, micros, scopes, key):
        return await self._ask(super().reserve(micros, scopes, key))

    async def commit(self, hold, micros):
        return await self._ask(super().commit(hold, micros))

    async def release(self, hold):
        return await self._ask(super().release(hold))

    async def record(self, micros, scopes, key):
        return await self._ask(super().record(micros, scopes, key))

    async def note(self, notes):
        return await self._ask(super().note(notes))

    async def currency(self):
        return await self._ask(super().currency())


@pytest.mark.parametrize("policy", ["leave", "pause"])
def test_while_the_guard_is_away_nothing_new_is_spent(
    days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox, policy: str
):
    line = FlakyGuard(guard)
    plan = parse_plan(TEXT.replace("currency: USD", f"currency: USD\non_guard_down: {policy}"))
    with runner_of(days, line, sandbox) as runner:
        run = runner.start(plan)
        runner.work()
        until(lambda: all(lane.active for lane in runner.status(run).lanes))
        line.down = True
        held = {hold.id for hold in guard.holds()}
        days.pass_until(lambda: not any(lane.active for lane in runner.status(run).lanes))
        assert held >= {hold.id for hold in guard.holds()}
        assert any(alert.event == "flow.guard_silent" for alert in runner.status(run).alerts)
        line.down = False
        status = days.end(runner, run)

    assert "completed" == status.state
    agree(status, sandbox, guard)


def test_a_guard_that_is_away_from_the_start_is_said_and_waited_for(
    days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox
):
    line = FlakyGuard(guard)
    line.down = True
    with runner_of(days, line, sandbox) as runner:
        run = runner.start(PLAN)
        runner.work()
        until(lambda: 2 == len(runner.status(run).alerts))
        assert {"flow.guard_silent"} == {alert.event for alert in runner.status(run).alerts}
        assert [] == sandbox.books()["campaigns"]
        line.down = False
        until(lambda: all(lane.active for lane in runner.status(run).lanes))
        status = days.end(runner, run)

    assert "completed" == status.state
    agree(status, sandbox, guard)


def test_credentials_revoked_in_the_middle_are_told_and_waited_for(
    days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox, tmp_path: Path
):
    def revoke(*, refreshable: bool) -> None:
        where = f"{sandbox.url}/sandbox/accounts/meta/sandbox-meta/revoke"
        assert httpx.post(where, json={"refreshable": refreshable}, timeout=60).is_success

    with runner_of(days, guard, sandbox, tmp_path / "flow.db") as runner:
        run = runner.start(PLAN)
        runner.work()
        until(lambda: all(lane.active for lane in runner.status(run).lanes))
        revoke(refreshable=False)
        days.pass_until(lambda: any(alert.event == "flow.not_paused" for alert in runner.status(run).alerts))
        (told,) = {alert.detail["code"] for alert in runner.status(run).alerts if alert.event == "flow.not_paused"}
        assert "unauthorized" == told
        assert any(finding.kind == "unreadable" for finding in runner.reconcile(run, act=False).findings)
    # Somebody gives new ones: what was spent meanwhile is counted, and the campaign is paused at last.
    revoke(refreshable=True)
    with runner_of(days, guard, sandbox, tmp_path / "flow.db") as runner:
        status = days.end(runner, run)

    agree(status, sandbox, guard)


def test_a_clock_that_jumps_leaves_books_that_agree(days: OwnTime, guard: BudgetGuard, sandbox: LocalSandbox):
    """In days of the plan: the runner's clock is set forward and back while campaigns run; the sandbox's is not."""
    offset = [0]
    clock = lambda: days() + offset[0]
    options = {**days.runner, "clock": clock, "lease_seconds": 0.3, "grace_seconds": 0.1}
    with CampaignRunner.open(guard=guard, sandbox=sandbox.url, **options) as runner:
        run = runner.start(PLAN)
        runner.work()
        until(lambda: all(lane.active for lane in runner.status(run).lanes))
        for jump in (0.6, -0.6, -0.4, 0.4, 1.5, -1.5):
            seen = len(runner.events(run))
            offset[0] += round(jump * DAY_SECONDS * SECOND)
            days.pass_until(lambda seen=seen: len(runner.events(run)) > seen or not runner.status(run).is_running)
        status = days.end(runner, run)

    assert "completed" == status.state
    agree(status, sandbox, guard)
    keys = [effect for effect in sandbox.books()["effects"] if len(effect["values"]) > 1]
    assert [] == keys
    assert [] == sandbox.books()["duplicates"]
