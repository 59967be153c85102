"""One campaign of a plan, day by day: the interpreter. It asks its `Port` in the same order every time.

Before a day begins its worst case is held at the guard; only then may the platform spend on it. A campaign whose next day
is not held is paused before that day begins. After a day the platform's report ends its hold. The order of things that
must never change: hold → fence → write; pause confirmed → nothing more is held; report final → hold ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, Final

import msgspec

from kiki.flow.guard_line import UNAVAILABLE, guard_mismatch
from kiki.flow.lane_money import LaneMoney, worst_case
from kiki.flow.lane_twins import LaneTwins
from kiki.flow.lane_write import CREATE, LaneWrites, campaign_of, outcome_of
from kiki.flow.plan import Absence, Plan, PlannedCampaign
from kiki.flow.platform import CampaignSpec, CampaignState, SpendReport, Status, campaign_name
from kiki.flow.port import Json, Port
from kiki.flow.story import Story
from kiki.flow.world import Timing, World
from kiki.outbound.outcome import Fate, Outcome, refused

PAUSE: Final = "pause"
RESUME: Final = "resume"
CANCEL: Final = "cancel"
APPROVE: Final = "approve"
SIGNALS: Final = (PAUSE, RESUME, CANCEL, APPROVE)

COMPLETED: Final = "completed"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"


async def run_lane(run: str, plan: Plan, name: str, port: Port, world: World) -> Json:
    """Execute one campaign to its end; how it ended, and its books."""
    return await _Lane(run, plan, plan.campaign(name), port, world).execute()


class _Lane:
    def __init__(self, run: str, plan: Plan, campaign: PlannedCampaign, port: Port, world: World) -> None:
        self._plan = plan
        self._campaign = campaign
        self._port = port
        self._world = world
        self._name = campaign_name(plan.name, campaign.name)
        scopes = plan.scopes_of(campaign)
        self._story = Story(port, world.guard, run, scopes)
        self._writes = LaneWrites(port, world, self._story, self._name, plan.version)
        self._twins = LaneTwins(world, self._story, self._writes, self._name)
        self._money = LaneMoney(port, world, self._story, campaign.name, plan.version, scopes)
        self._id = ""
        # What the platform may be doing: everything not known to be otherwise.
        self._may_spend = False
        self._budget_in_force = 0
        self._bid_in_force: int | None = None
        self._stopped_at = 0
        """When a pause was last confirmed."""
        self._paused_by_user = False
        self._cancelled = False

    async def execute(self) -> Json:
        starts, ends = str(self._campaign.starts), str(self._campaign.ends)
        await self._story.tell("start", "flow.lane_started", version=self._plan.version, starts=starts, ends=ends)
        if not await self._approved():
            return await self._end(CANCELLED)
        made = await self._ensure()
        if not made.is_done:
            await self._story.tell("ensure/failed", "flow.failed", code=made.code, message=made.message)
            return await self._end(FAILED, code=made.code, message=made.message)
        days = self._days()
        for day in days:
            await self._prepare(day)
            await self._live_through(day)
            if self._cancelled:
                break
        await self._stop("stop", until=None)
        await self._settle_rest()
        if self._money.holds or self._money.doubtful or self._may_spend:
            # Given up after a month: a person must reconcile it. Its holds stay.
            message = "a platform or the guard did not answer for too long; kiki campaign reconcile ends it"
            await self._story.tell("unsettled", "flow.failed", code="unsettled", message=message)
            return await self._end(FAILED, code="unsettled", message=message)
        return await self._end(CANCELLED if self._cancelled else COMPLETED)

    def _days(self) -> list[date]:
        span = (self._campaign.ends - self._campaign.starts).days + 1
        return [self._campaign.starts + timedelta(days=each) for each in range(span)]

    # -- beginning -----------------------------------------------------------------------------------

    async def _approved(self) -> bool:
        above = self._plan.approval_above
        if above is None or peak(self._plan) <= above:
            return True
        await self._story.tell("approval/asked", "flow.approval_asked", peak=peak(self._plan), above=above)
        number = 0
        while True:
            signal = await self._port.signal(f"approval/{number}", None)
            number += 1
            if signal is not None and signal["kind"] == APPROVE:
                await self._story.tell("approval/given", "flow.approved", actor=str(signal.get("actor", "")))
                return True
            if signal is not None and signal["kind"] == CANCEL:
                self._cancelled = True
                return False

    async def _ensure(self) -> Outcome:
        platform, calendar = self._world.platform, self._world.calendar
        over = calendar.start_of(self._campaign.ends) + calendar.span(Timing.DAY)
        counted = await self._guard_counts(over)
        if not counted.is_done:
            return counted
        currency = await self._writes.ask("currency", platform.currency, until=over)
        if not currency.is_done:
            return currency
        if currency.value["currency"] != self._plan.currency:
            message = f"the account is in {currency.value['currency']}, the plan in {self._plan.currency}"
            return refused("currency_mismatch", message)
        spec = self._spec()
        await self._twins.begin("ensure/before", until=over)
        made = await self._writes.write(
            "ensure",
            lambda key: platform.ensure_campaign(spec, key),
            lambda state: state.whole,
            until=over,
            does=CREATE,
            micros=spec.daily_budget,
        )
        state = campaign_of(made)
        if state is not None:
            self._id = state.id
            self._take_note_of(state)
        if self._twins.is_ours:
            await self._choose("ensure/chosen")
        return made

    async def _guard_counts(self, until: int) -> Outcome:
        """Whether the guard counts in the plan's currency; while it does not answer, nothing is made."""
        guard = self._world.guard
        counted = await self._writes.read("guard-currency", guard.currency)
        if counted.code == UNAVAILABLE:
            await self._story.tell("guard-currency/told", "flow.guard_silent")
            counted = await self._writes.ask("guard-currency/again", guard.currency, until=until)
        if not counted.is_done:
            said = f"the guard does not tell its currency, so nothing runs: {counted.message or counted.code}"
            return msgspec.structs.replace(counted, message=said)
        if counted.value["currency"] != self._plan.currency:
            return refused("currency_mismatch", guard_mismatch(counted.value["currency"], self._plan.currency))
        return counted

    async def _choose(self, step: str) -> None:
        """Of two campaigns that were made the foremost, which any other run of this plan would choose too."""
        until = await self._port.now(f"{step}/now") + self._world.calendar.span(Timing.CHOOSE)
        state, twins = await self._twins.see(step, until=until)
        if state is None:
            return
        if self._id and state.whole:
            self._id = state.id
            self._take_note_of(state)
        await self._twins.part(step, self._id or state.id, state, twins, until=until)

    def _spec(self) -> CampaignSpec:
        campaign = self._campaign
        return CampaignSpec(
            name=self._name,
            objective=campaign.objective,
            daily_budget=campaign.daily_budget,
            bid=campaign.bid if isinstance(campaign.bid, int) else None,
            starts=campaign.starts,
            ends=campaign.ends,
            countries=campaign.countries,
            settings=campaign.settings,
        )

    # -- a day ---------------------------------------------------------------------------------------

    async def _prepare(self, day: date) -> None:
        """Before `day` begins: its money is held and the campaign set for it, or the campaign is paused."""
        calendar = self._world.calendar
        begins = calendar.start_of(day)
        await self._listen(f"{day}/before", begins - calendar.span(Timing.LEAD))
        await self._look(f"{day}/look")
        if not self._wanted(day):
            await self._stop(f"{day}/off", until=begins)
            return
        if not await self._offer(str(day), day) and self._may_spend:
            await self._stop(f"{day}/unheld", until=begins)

    async def _look(self, step: str) -> None:
        """See what the platform shows: an effect that came late, or what somebody did by hand."""
        state, twins = await self._twins.see(step)
        if state is None:
            return
        await self._twins.part(step, self._id or state.id, state, twins)
        if state.id != self._id:
            return
        active = state.status is Status.ACTIVE
        if active and not self._may_spend:
            await self._story.tell(f"{step}/active-told", "flow.drift", found="active")
            self._may_spend = True
        if state.daily_budget is not None and state.daily_budget != self._budget_in_force:
            await self._story.tell(f"{step}/budget-told", "flow.drift", found="budget", budget=state.daily_budget)
            self._budget_in_force = state.daily_budget

    async def _offer(self, step: str, day: date) -> bool:
        """Hold a day's money and set the campaign for it; whether it is held."""
        budget = await self._day_budget(step, day)
        if day not in self._money.holds and not await self._hold(step, day, budget):
            return False
        # It may have been held earlier, for the budget that was advised then.
        await self._set(step, day, min(budget, self._money.nominal(day)))
        return True

    async def _ask_ahead(self, step: str, day: date) -> None:
        """Hold the money of a coming day early, if it is there; else it is asked for again before the day begins."""
        if day not in self._campaign.days or not self._wanted(day) or day in self._money.holds:
            return
        budget = await self._day_budget(step, day)
        if budget > 0:
            await self._money.reserve(f"{step}/reserve", day, budget, self._worst(budget))

    def _worst(self, budget: int) -> int:
        # Until the new budget is set the old one is in force, on the new day too.
        highest = max(budget, self._budget_in_force if self._may_spend else 0)
        return worst_case(highest, self._world.platform.limits.overdelivery)

    def _wanted(self, day: date) -> bool:
        return day in self._campaign.days and not self._paused_by_user and not self._cancelled

    async def _day_budget(self, step: str, day: date) -> int:
        spent = self._money.spent

        async def act() -> Json:
            plain: Json = msgspec.to_builtins(await self._world.advice.daily_budget(self._campaign, day, spent))
            return plain

        advised = outcome_of(await self._port.step(f"{step}/budget", act))
        return int(advised.value.get("micros", self._campaign.daily_budget)) if advised.is_done else 0

    async def _hold(self, step: str, day: date, budget: int) -> bool:
        """Whether the worst case of the day is held; a guard that cannot be asked is asked until it is too late."""
        if budget <= 0:
            return False
        calendar = self._world.calendar
        last_call = calendar.start_of(day) - calendar.span(Timing.LAST_CALL)
        micros = self._worst(budget)
        number = 0
        while True:
            held = await self._money.reserve(f"{step}/reserve/{number}", day, budget, micros)
            if held.is_done:
                return True
            if held.code != UNAVAILABLE:
                return False
            if self._plan.on_guard_down is Absence.PAUSE and self._may_spend:
                await self._stop(f"{step}/guard-down/{number}", until=calendar.start_of(day))
            now = await self._port.now(f"{step}/reserve/{number}/now")
            ends = calendar.start_of(day) + calendar.span(Timing.DAY)
            if now >= last_call and self._may_spend:
                return False
            if now >= ends:
                return False
            # Paused already: the day may begin late, once the guard answers.
            latest = last_call if self._may_spend else ends
            await self._listen(f"{step}/reserve/{number}/wait", min(latest, now + calendar.span(Timing.RETRY)))
            number += 1
            if not self._wanted(day):
                return False

    async def _set(self, step: str, day: date, budget: int) -> None:
        """Budget, bid and status for a day that is held."""
        calendar, platform = self._world.calendar, self._world.platform
        begins = calendar.start_of(day)
        ends = begins + calendar.span(Timing.DAY)
        # The day before is held for what was in force then: a higher budget waits for its own day.
        if budget > self._budget_in_force and self._may_spend:
            await self._listen(f"{step}/begin", begins)
            if not self._wanted(day):
                await self._stop(f"{step}/off", until=ends)
                return
        if budget != self._budget_in_force:
            written = await self._writes.write(
                f"{step}/set-budget",
                lambda key: platform.set_budget(self._id, budget, key),
                lambda state: state.daily_budget == budget,
                until=ends,
                does="set_budget",
                micros=budget,
            )
            await self._budget_written(step, budget, written)
        await self._bid(step, day, ends)
        if not self._may_spend and self._wanted(day) and self._is_covered(day, self._budget_in_force):
            await self._listen(f"{step}/begin-2", begins)
            if self._wanted(day):
                await self._start(f"{step}/resume", ends)

    def _is_covered(self, day: date, budget: int) -> bool:
        """Whether the day's hold covers the worst that this budget may cost."""
        held = self._money.holds.get(day)
        return held is not None and worst_case(budget, self._world.platform.limits.overdelivery) <= held.micros

    async def _budget_written(self, step: str, budget: int, written: Outcome) -> None:
        if written.is_done:
            self._budget_in_force = budget
            return
        # Either may be in force: the higher one is what must be held for.
        if written.fate is Fate.UNKNOWN:
            self._budget_in_force = max(self._budget_in_force, budget)
        await self._story.tell(f"{step}/budget-told", "flow.budget_not_set", budget=budget, code=written.code)

    async def _bid(self, step: str, day: date, until: int) -> None:
        platform = self._world.platform
        if self._campaign.bid is None:
            return

        async def act() -> Json:
            plain: Json = msgspec.to_builtins(await self._world.advice.bid(self._campaign, day))
            return plain

        advised = outcome_of(await self._port.step(f"{step}/bid", act))
        micros = int(advised.value.get("micros", 0)) if advised.is_done else 0
        if "source" in advised.value:
            await self._story.tell(f"{step}/bid-told", "flow.bid_chosen", day=str(day), **advised.value)
        if micros > 0 and micros != self._bid_in_force:
            written = await self._writes.write(
                f"{step}/set-bid",
                lambda key: platform.set_bid(self._id, micros, key),
                lambda state: state.bid == micros,
                until=until,
                does="set_bid",
                micros=micros,
            )
            self._bid_in_force = micros if written.is_done else None

    async def _start(self, step: str, until: int) -> None:
        self._may_spend = True
        platform = self._world.platform
        started = await self._writes.write(
            step,
            lambda key: platform.resume(self._id, key),
            lambda state: state.status is Status.ACTIVE,
            until=until,
            does="resume",
        )
        if started.fate is Fate.REFUSED:
            self._may_spend = False
            await self._story.tell(f"{step}/told", "flow.not_started", code=started.code, message=started.message)

    async def _live_through(self, day: date) -> None:
        """The day itself: signals are followed, and money that was refused is asked for again now and then."""
        calendar = self._world.calendar
        ends = calendar.start_of(day) + calendar.span(Timing.DAY - Timing.LEAD)
        ahead = calendar.start_of(day) + calendar.span(Timing.DAY - Timing.AHEAD)
        number, asked = 0, False
        while True:
            step = f"{day}/live/{number}"
            number += 1
            now = await self._port.now(f"{step}/now")
            if now >= ahead and not asked:
                asked = True
                await self._settle_past(f"{step}/settle", day)
                await self._ask_ahead(f"{step}/ahead", day + timedelta(days=1))
            lacking = self._wanted(day) and not self._may_spend and day not in self._money.holds
            again = min(ends, now + calendar.span(Timing.AGAIN)) if lacking else ends
            if now < self._writes.doubt_until and not self._may_spend:
                again = min(again, self._writes.doubt_until)
            if not asked and ahead < again:
                signal = await self._heed(step, ahead)
                if signal is None and not self._cancelled:
                    continue
            else:
                signal = await self._heed(step, again)
            if signal is None and (again >= ends or self._cancelled):
                return
            if not self._may_spend:
                await self._look(f"{step}/look")
            if not self._wanted(day):
                if self._may_spend:
                    await self._stop(f"{step}/stop", until=None)
            elif day not in self._money.holds:
                await self._offer(step, day)
            elif not self._may_spend:
                await self._start(f"{step}/resume", ends)

    # -- stopping ------------------------------------------------------------------------------------

    async def _stop(self, step: str, *, until: int | None) -> None:
        """Pause, and know that it is paused. `until` None: however long it takes, within reason."""
        if not self._id or not self._may_spend:
            return
        calendar, platform = self._world.calendar, self._world.platform
        now = await self._port.now(f"{step}/now")
        latest = max(until or 0, now + calendar.span(Timing.DAY if until is None else Timing.RETRY))
        paused = await self._writes.write(
            step,
            lambda key: platform.pause(self._id, key),
            lambda state: state.status is not Status.ACTIVE,
            until=latest,
            does="pause",
        )
        if paused.is_done:
            self._may_spend = False
            self._stopped_at = await self._port.now(f"{step}/done")
        else:
            await self._story.tell(f"{step}/told", "flow.not_paused", code=paused.code, message=paused.message)

    # -- money after a day ---------------------------------------------------------------------------

    async def _settle_past(self, step: str, today: date) -> None:
        """Settle every earlier day whose report is final, and follow the reports of settled ones."""
        await self._resolve_doubts(step)
        for day in sorted({*self._money.holds, *self._unheld(today)}):
            if day < today:
                await self._settle_day(f"{step}/{day}", day)
        for day in sorted(self._money.books):
            if day >= today - timedelta(days=Timing.REVISE_DAYS):
                report = await self._report(f"{step}/revise/{day}", day)
                if report is not None:
                    await self._money.revise(f"{step}/revise/{day}", report)

    def _unheld(self, today: date) -> list[date]:
        """Days on which the campaign may have spent although nothing was held."""
        told = {*self._money.holds, *self._money.books, *self._money.doubtful}
        return [day for day in self._days() if day < today and day not in told]

    async def _settle_day(self, step: str, day: date, *, at_last: bool = False) -> bool:
        if not self._id:
            return True
        report = await self._report(step, day)
        if report is None or not (report.final or at_last):
            return False
        if day in self._money.holds:
            return await self._money.settle(step, report)
        return await self._money.record_unheld(step, report)

    async def _report(self, step: str, day: date) -> SpendReport | None:
        platform = self._world.platform
        outcome = await self._writes.read(f"{step}/report", lambda: platform.spend_report(self._id, day))
        given = outcome.value.get("report") if outcome.is_done else None
        return None if given is None else msgspec.convert(given, SpendReport)

    async def _settle_rest(self) -> None:
        """After the last day: wait for the reports, and for the guard."""
        calendar = self._world.calendar
        number = 0
        while True:
            # A pause that came late adds days after the last one, whose reports are followed as long.
            last = max([self._campaign.ends, *self._money.holds, *self._money.books])
            deadline = calendar.start_of(last + timedelta(days=Timing.SETTLE_DAYS))
            revised = calendar.start_of(last + timedelta(days=1 + Timing.REVISE_DAYS))
            await self._resolve_doubts(f"rest/{number}")
            now = await self._port.now(f"rest/{number}/now")
            await self._look(f"rest/{number}/look")
            await self._stop(f"rest/{number}/stop", until=None)
            settled = await self._settle_all(f"rest/{number}", now, at_last=now >= deadline)
            told = await self._story.finish(f"rest/{number}/story")
            certain = not self._money.doubtful and not self._may_spend and now >= self._writes.doubt_until
            certain &= self._twins.is_alone
            if settled and told and certain and (now >= revised or not self._money.books):
                return
            # Not after one try of a runner that was away for a month.
            if now >= deadline + calendar.span(Timing.DAY) and number >= Timing.SETTLE_ROUNDS:
                return
            await self._port.sleep(f"rest/{number}/wait", now + calendar.span(Timing.DAY / 4))
            number += 1

    async def _settle_all(self, step: str, now: int, *, at_last: bool) -> bool:
        """Whether every hold has ended and every book says what the platform says."""
        calendar = self._world.calendar
        begun = (
            [*(day for day in self._days() if calendar.start_of(day) <= now), *self._overrun(now)] if self._id else []
        )
        settled = True
        for day in sorted({*self._money.holds, *begun} - {*self._money.books} - {*self._money.doubtful}):
            if day in begun:
                settled &= await self._settle_day(f"{step}/{day}", day, at_last=at_last)
            else:
                # Held for a day that never came: the campaign was paused before.
                nothing = SpendReport(day=day, spent=0, final=True)
                settled &= await self._money.settle(f"{step}/{day}", nothing)
        for day in sorted({*self._money.books} & {*begun}):
            report = await self._report(f"{step}/revise/{day}", day)
            settled &= report is not None and await self._money.revise(f"{step}/revise/{day}", report)
        return settled

    def _overrun(self, now: int) -> list[date]:
        """Days after the last one on which it may have spent: the pause came late."""
        calendar, days = self._world.calendar, []
        day = self._campaign.ends + timedelta(days=1)
        while calendar.start_of(day) < (now if self._may_spend else self._stopped_at):
            days.append(day)
            day += timedelta(days=1)
        return days

    async def _resolve_doubts(self, step: str) -> None:
        for day, (nominal, micros) in sorted(self._money.doubtful.items()):
            await self._money.reserve(f"{step}/doubt/{day}", day, nominal, micros)

    # -- listening -----------------------------------------------------------------------------------

    async def _listen(self, step: str, until: int) -> None:
        """Wait, and follow every signal that comes meanwhile."""
        number = 0
        while await self._heed(f"{step}/{number}", until) is not None:
            number += 1
            if (self._paused_by_user or self._cancelled) and self._may_spend:
                await self._stop(f"{step}/{number}/stop", until=None)

    async def _heed(self, step: str, until: int) -> Mapping[str, Any] | None:
        if self._cancelled:
            return None
        signal = await self._port.signal(step, until)
        if signal is None:
            return None
        kind = signal["kind"]
        self._paused_by_user = {PAUSE: True, RESUME: False}.get(kind, self._paused_by_user)
        self._cancelled |= kind == CANCEL
        await self._story.tell(f"{step}/told", "flow.signal", kind=kind, actor=str(signal.get("actor", "")))
        return signal

    def _take_note_of(self, state: CampaignState) -> None:
        self._may_spend = state.status is Status.ACTIVE
        self._budget_in_force = state.daily_budget or self._campaign.daily_budget
        self._bid_in_force = state.bid

    async def _end(self, how: str, **detail: str) -> Json:
        await self._story.tell("end", "flow.lane_ended", how=how, **{k: v for k, v in detail.items() if v})
        return {
            "how": how,
            "campaign": self._id,
            "spent": self._money.spent,
            "open": [str(day) for day in sorted(self._money.holds)],
            **detail,
        }


def peak(plan: Plan) -> int:
    """The highest sum of daily budgets on any day, in micros."""
    sums: dict[date, int] = {}
    for campaign in plan.campaigns:
        for day in campaign.days:
            sums[day] = sums.get(day, 0) + campaign.daily_budget
    return max(sums.values(), default=0)
