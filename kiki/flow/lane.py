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
from kiki.flow.lane_campaign import LaneCampaign
from kiki.flow.lane_money import LaneMoney
from kiki.flow.lane_question import ask, ask_until
from kiki.flow.plan import Absence, Plan, PlannedCampaign
from kiki.flow.platform import SpendReport
from kiki.flow.port import Json, Port
from kiki.flow.run_rows import CANCELLED, COMPLETED, FAILED
from kiki.flow.story import Story
from kiki.flow.world import Timing, World
from kiki.outbound.outcome import Outcome, refused

PAUSE: Final = "pause"
RESUME: Final = "resume"
CANCEL: Final = "cancel"
APPROVE: Final = "approve"


async def run_lane(run: str, plan: Plan, name: str, port: Port, world: World) -> Json:
    """Execute one campaign to its end; how it ended, and its books."""
    return await _Lane(run, plan, plan.campaign(name), port, world).execute()


class _Lane:
    def __init__(self, run: str, plan: Plan, planned: PlannedCampaign, port: Port, world: World) -> None:
        self._plan = plan
        self._planned = planned
        self._port = port
        self._world = world
        scopes = plan.scopes_of(planned)
        self._story = Story(port, world.guard, run, scopes)
        self._campaign = LaneCampaign(port, world, self._story, planned, plan=plan.name, version=plan.version)
        self._money = LaneMoney(port, world, self._story, planned.name, plan.version, scopes)
        self._paused_by_user = False
        self._cancelled = False

    async def execute(self) -> Json:
        starts, ends = str(self._planned.starts), str(self._planned.ends)
        await self._story.tell("start", "flow.lane_started", version=self._plan.version, starts=starts, ends=ends)
        if not await self._approved():
            return await self._end(CANCELLED)
        made = await self._ensure()
        if not made.is_done:
            await self._story.tell("ensure/failed", "flow.failed", code=made.code, message=made.message)
            return await self._end(FAILED, code=made.code, message=made.message)
        for day in self._days():
            await self._prepare(day)
            await self._live_through(day)
            if self._cancelled:
                break
        await self._campaign.stop("stop", until=None)
        await self._settle_rest()
        if self._money.holds or self._money.doubtful or self._campaign.may_spend:
            # Given up after a month: a person must reconcile it. Its holds stay.
            message = "a platform or the guard did not answer for too long; kiki campaign reconcile ends it"
            await self._story.tell("unsettled", "flow.failed", code="unsettled", message=message)
            return await self._end(FAILED, code="unsettled", message=message)
        return await self._end(CANCELLED if self._cancelled else COMPLETED)

    def _days(self) -> list[date]:
        span = (self._planned.ends - self._planned.starts).days + 1
        return [self._planned.starts + timedelta(days=each) for each in range(span)]

    # -- beginning -----------------------------------------------------------------------------------

    async def _approved(self) -> bool:
        above = self._plan.approval_above
        if above is None or peak(self._plan) <= above:
            return True
        await self._story.tell("approval/asked", "flow.approval_asked", peak=peak(self._plan), above=above)
        number, pause = 0, None
        while True:
            signal = await self._port.signal(f"approval/{number}", None)
            number += 1
            kind = "" if signal is None else signal["kind"]
            if signal is not None and kind == APPROVE:
                await self._story.tell("approval/given", "flow.approved", actor=_actor(signal))
                # Told only now: until here it waited for its approval, paused or not.
                if pause is not None:
                    self._paused_by_user = True
                    await self._story.tell("approval/paused", "flow.signal", kind=PAUSE, actor=_actor(pause))
                return True
            if kind == CANCEL:
                self._cancelled = True
                return False
            pause = {PAUSE: signal, RESUME: None}.get(kind, pause)

    async def _ensure(self) -> Outcome:
        platform, calendar = self._world.platform, self._world.calendar
        over = calendar.start_of(self._planned.ends) + calendar.span(Timing.DAY)
        counted = await self._guard_counts(over)
        if not counted.is_done:
            return counted
        currency = await ask_until(self._port, calendar, "currency", platform.currency, until=over)
        if not currency.is_done:
            return currency
        if currency.value["currency"] != self._plan.currency:
            message = f"the account is in {currency.value['currency']}, the plan in {self._plan.currency}"
            return refused("currency_mismatch", message)
        return await self._campaign.ensure(until=over)

    async def _guard_counts(self, until: int) -> Outcome:
        """Whether the guard counts in the plan's currency; while it does not answer, nothing is made."""
        guard = self._world.guard
        counted = await ask(self._port, "guard-currency", guard.currency)
        if counted.code == UNAVAILABLE:
            await self._story.tell("guard-currency/told", "flow.guard_silent")
            calendar, again = self._world.calendar, "guard-currency/again"
            counted = await ask_until(self._port, calendar, again, guard.currency, until=until)
        if not counted.is_done:
            said = f"the guard does not tell its currency, so nothing runs: {counted.message or counted.code}"
            return msgspec.structs.replace(counted, message=said)
        if counted.value["currency"] != self._plan.currency:
            return refused("currency_mismatch", guard_mismatch(counted.value["currency"], self._plan.currency))
        return counted

    # -- a day ---------------------------------------------------------------------------------------

    async def _prepare(self, day: date) -> None:
        """Before `day` begins: its money is held and the campaign set for it, or the campaign is paused."""
        calendar = self._world.calendar
        begins = calendar.start_of(day)
        await self._listen(f"{day}/before", begins - calendar.span(Timing.LEAD))
        await self._campaign.look(f"{day}/look")
        if not self._wanted(day):
            await self._campaign.stop(f"{day}/off", until=begins)
            return
        if not await self._offer(str(day), day) and self._campaign.may_spend:
            await self._campaign.stop(f"{day}/unheld", until=begins)

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
        if day not in self._planned.days or not self._wanted(day) or day in self._money.holds:
            return
        budget = await self._day_budget(step, day)
        if budget > 0:
            await self._money.reserve(f"{step}/reserve", day, budget, self._campaign.worst(budget))

    def _wanted(self, day: date) -> bool:
        return day in self._planned.days and not self._paused_by_user and not self._cancelled

    async def _day_budget(self, step: str, day: date) -> int:
        advice, spent = self._world.advice, self._money.spent
        advised = await ask(self._port, f"{step}/budget", lambda: advice.daily_budget(self._planned, day, spent))
        return int(advised.value.get("micros", self._planned.daily_budget)) if advised.is_done else 0

    async def _hold(self, step: str, day: date, budget: int) -> bool:
        """Whether the worst case of the day is held; a guard that cannot be asked is asked until it is too late."""
        if budget <= 0:
            return False
        calendar = self._world.calendar
        last_call = calendar.start_of(day) - calendar.span(Timing.LAST_CALL)
        micros = self._campaign.worst(budget)
        number = 0
        while True:
            held = await self._money.reserve(f"{step}/reserve/{number}", day, budget, micros)
            if held.is_done:
                return True
            if held.code != UNAVAILABLE:
                return False
            if self._plan.on_guard_down is Absence.PAUSE and self._campaign.may_spend:
                await self._campaign.stop(f"{step}/guard-down/{number}", until=calendar.start_of(day))
            now = await self._port.now(f"{step}/reserve/{number}/now")
            ends = calendar.start_of(day) + calendar.span(Timing.DAY)
            if now >= last_call and self._campaign.may_spend:
                return False
            if now >= ends:
                return False
            # Paused already: the day may begin late, once the guard answers.
            latest = last_call if self._campaign.may_spend else ends
            await self._listen(f"{step}/reserve/{number}/wait", min(latest, now + calendar.span(Timing.RETRY)))
            number += 1
            if not self._wanted(day):
                return False

    async def _set(self, step: str, day: date, budget: int) -> None:
        """Budget, bid and status for a day that is held."""
        calendar = self._world.calendar
        begins = calendar.start_of(day)
        ends = begins + calendar.span(Timing.DAY)
        # The day before is held for what was in force then: a higher budget waits for its own day.
        if budget > self._campaign.budget and self._campaign.may_spend:
            await self._listen(f"{step}/begin", begins)
            if not self._wanted(day):
                await self._campaign.stop(f"{step}/off", until=ends)
                return
        await self._campaign.set_budget(step, budget, until=ends)
        await self._bid(step, day, ends)
        if not self._campaign.may_spend and self._wanted(day) and self._is_covered(day):
            await self._listen(f"{step}/begin-2", begins)
            if self._wanted(day):
                await self._campaign.start(f"{step}/resume", until=ends)

    def _is_covered(self, day: date) -> bool:
        """Whether the day's hold covers the worst that the budget in force may cost."""
        held = self._money.holds.get(day)
        return held is not None and self._campaign.worst(self._campaign.budget) <= held.micros

    async def _bid(self, step: str, day: date, until: int) -> None:
        if self._planned.bid is None:
            return
        advised = await ask(self._port, f"{step}/bid", lambda: self._world.advice.bid(self._planned, day))
        micros = int(advised.value.get("micros", 0)) if advised.is_done else 0
        if "source" in advised.value:
            await self._story.tell(f"{step}/bid-told", "flow.bid_chosen", day=str(day), **advised.value)
        if micros > 0:
            await self._campaign.set_bid(step, micros, until=until)

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
            lacking = self._wanted(day) and not self._campaign.may_spend and day not in self._money.holds
            again = min(ends, now + calendar.span(Timing.AGAIN)) if lacking else ends
            if now < self._campaign.doubt_until and not self._campaign.may_spend:
                again = min(again, self._campaign.doubt_until)
            if not asked and ahead < again:
                signal = await self._heed(step, ahead)
                if signal is None and not self._cancelled:
                    continue
            else:
                signal = await self._heed(step, again)
            if signal is None and (again >= ends or self._cancelled):
                return
            if not self._campaign.may_spend:
                await self._campaign.look(f"{step}/look")
            if not self._wanted(day):
                if self._campaign.may_spend:
                    await self._campaign.stop(f"{step}/stop", until=None)
            elif day not in self._money.holds:
                await self._offer(step, day)
            elif not self._campaign.may_spend:
                await self._campaign.start(f"{step}/resume", until=ends)

    # -- money after a day ---------------------------------------------------------------------------

    async def _settle_past(self, step: str, today: date) -> None:
        """Settle every earlier day whose report is final, and follow the reports of settled ones."""
        await self._resolve_doubts(step)
        for day in sorted({*self._money.holds, *self._unheld(today)}):
            if day < today:
                await self._settle_day(f"{step}/{day}", day)
        for day in sorted(self._money.books):
            if day >= today - timedelta(days=Timing.REVISE_DAYS):
                report = await self._campaign.report(f"{step}/revise/{day}", day)
                if report is not None:
                    await self._money.revise(f"{step}/revise/{day}", report)

    def _unheld(self, today: date) -> list[date]:
        """Days on which the campaign may have spent although nothing was held."""
        told = {*self._money.holds, *self._money.books, *self._money.doubtful}
        return [day for day in self._days() if day < today and day not in told]

    async def _settle_day(self, step: str, day: date, *, at_last: bool = False) -> bool:
        if not self._campaign.id:
            return True
        report = await self._campaign.report(step, day)
        if report is None or not (report.final or at_last):
            return False
        if day in self._money.holds:
            return await self._money.settle(step, report)
        return await self._money.record_unheld(step, report)

    async def _settle_rest(self) -> None:
        """After the last day: wait for the reports, and for the guard."""
        calendar = self._world.calendar
        number = 0
        while True:
            # A pause that came late adds days after the last one, whose reports are followed as long.
            last = max([self._planned.ends, *self._money.holds, *self._money.books])
            deadline = calendar.start_of(last + timedelta(days=Timing.SETTLE_DAYS))
            revised = calendar.start_of(last + timedelta(days=1 + Timing.REVISE_DAYS))
            await self._resolve_doubts(f"rest/{number}")
            now = await self._port.now(f"rest/{number}/now")
            await self._campaign.look(f"rest/{number}/look")
            await self._campaign.stop(f"rest/{number}/stop", until=None)
            settled = await self._settle_all(f"rest/{number}", now, at_last=now >= deadline)
            told = await self._story.finish(f"rest/{number}/story")
            certain = not self._money.doubtful and self._campaign.is_at_rest(now)
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
            [*(day for day in self._days() if calendar.start_of(day) <= now), *self._overrun(now)]
            if self._campaign.id
            else []
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
            report = await self._campaign.report(f"{step}/revise/{day}", day)
            settled &= report is not None and await self._money.revise(f"{step}/revise/{day}", report)
        return settled

    def _overrun(self, now: int) -> list[date]:
        """Days after the last one on which it may have spent: the pause came late."""
        calendar, days = self._world.calendar, []
        day = self._planned.ends + timedelta(days=1)
        while calendar.start_of(day) < (now if self._campaign.may_spend else self._campaign.stopped_at):
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
            if (self._paused_by_user or self._cancelled) and self._campaign.may_spend:
                await self._campaign.stop(f"{step}/{number}/stop", until=None)

    async def _heed(self, step: str, until: int) -> Mapping[str, Any] | None:
        if self._cancelled:
            return None
        signal = await self._port.signal(step, until)
        if signal is None:
            return None
        kind = signal["kind"]
        self._paused_by_user = {PAUSE: True, RESUME: False}.get(kind, self._paused_by_user)
        self._cancelled |= kind == CANCEL
        await self._story.tell(f"{step}/told", "flow.signal", kind=kind, actor=_actor(signal))
        return signal

    async def _end(self, how: str, **detail: str) -> Json:
        await self._story.tell("end", "flow.lane_ended", how=how, **{k: v for k, v in detail.items() if v})
        return {
            "how": how,
            "campaign": self._campaign.id,
            "spent": self._money.spent,
            "open": [str(day) for day in sorted(self._money.holds)],
            **detail,
        }


def _actor(signal: Mapping[str, Any]) -> str:
    return str(signal.get("actor", ""))


def peak(plan: Plan) -> int:
    """The highest sum of daily budgets on any day, in micros."""
    sums: dict[date, int] = {}
    for campaign in plan.campaigns:
        for day in campaign.days:
            sums[day] = sums.get(day, 0) + campaign.daily_budget
    return max(sums.values(), default=0)
