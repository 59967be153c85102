"""One lane's campaign on its platform: what may be in force there, and what sees and changes it.

Nothing is decided here, and no money is held; what counts as in force is everything that is not known to be otherwise: of
two budgets the higher one, an activation that was not answered, what somebody set by hand.
"""

from __future__ import annotations

from datetime import date

import msgspec

from kiki.flow.lane_money import worst_case
from kiki.flow.lane_question import ask
from kiki.flow.lane_twins import LaneTwins
from kiki.flow.lane_write import CREATE, LaneWrites
from kiki.flow.plan import PlannedCampaign
from kiki.flow.platform import CampaignSpec, CampaignState, SpendReport, Status, campaign_name, campaign_of
from kiki.flow.port import Port
from kiki.flow.story import Story
from kiki.flow.world import Timing, World
from kiki.outbound.outcome import Fate, Outcome


class LaneCampaign:
    """The campaign as the lane knows it."""

    def __init__(
        self, port: Port, world: World, story: Story, planned: PlannedCampaign, *, plan: str, version: str
    ) -> None:
        self._port = port
        self._world = world
        self._story = story
        self._planned = planned
        self._name = campaign_name(plan, planned.name)
        self._writes = LaneWrites(port, world, story, self._name, version)
        self._twins = LaneTwins(port, world, story, self._writes, self._name)
        self.id = ""
        """Empty until the platform has it."""
        self.may_spend = False
        self.budget = 0
        """The daily budget that may be in force, in micros."""
        self._bid: int | None = None
        self.stopped_at = 0
        """When a pause was last confirmed."""

    @property
    def doubt_until(self) -> int:
        """Until then an unanswered write may still have its effect."""
        return self._writes.doubt_until

    def is_at_rest(self, now: int) -> bool:
        """Whether it spends nothing, no write can change that any more, and no twin of it is left."""
        return not self.may_spend and now >= self.doubt_until and self._twins.is_alone

    def worst(self, budget: int) -> int:
        """The most that may be billed for a day which this budget is set for, in micros."""
        # Until the new budget is set the old one is in force, on the new day too.
        highest = max(budget, self.budget if self.may_spend else 0)
        return worst_case(highest, self._world.platform.limits.overdelivery)

    async def ensure(self, *, until: int) -> Outcome:
        """Make it, paused, unless it is there."""
        spec = self._spec()
        await self._twins.begin("ensure/before", until=until)
        made = await self._writes.write(
            "ensure",
            lambda key: self._world.platform.ensure_campaign(spec, key),
            lambda state: state.whole,
            until=until,
            does=CREATE,
            micros=spec.daily_budget,
        )
        state = campaign_of(made)
        if state is not None:
            self._take_note_of(state)
        if self._twins.is_ours:
            await self._choose("ensure/chosen")
        return made

    async def look(self, step: str) -> None:
        """See what the platform shows: an effect that came late, or what somebody did by hand."""
        state, twins = await self._twins.see(step)
        if state is None:
            return
        await self._twins.part(step, self.id or state.id, state, twins)
        if state.id != self.id:
            return
        active = state.status is Status.ACTIVE
        if active and not self.may_spend:
            await self._story.tell(f"{step}/active-told", "flow.drift", found="active")
            self.may_spend = True
        if state.daily_budget is not None and state.daily_budget != self.budget:
            await self._story.tell(f"{step}/budget-told", "flow.drift", found="budget", budget=state.daily_budget)
            self.budget = state.daily_budget

    async def set_budget(self, step: str, budget: int, *, until: int) -> None:
        """Set the daily budget, in micros, if it is another one."""
        if budget == self.budget:
            return
        written = await self._writes.write(
            f"{step}/set-budget",
            lambda key: self._world.platform.set_budget(self.id, budget, key),
            lambda state: state.daily_budget == budget,
            until=until,
            does="set_budget",
            micros=budget,
        )
        if written.is_done:
            self.budget = budget
            return
        # Either may be in force: the higher one is what must be held for.
        if written.fate is Fate.UNKNOWN:
            self.budget = max(self.budget, budget)
        await self._story.tell(f"{step}/budget-told", "flow.budget_not_set", budget=budget, code=written.code)

    async def set_bid(self, step: str, bid: int, *, until: int) -> None:
        """Set the bid, in micros, if it is another one."""
        if bid == self._bid:
            return
        written = await self._writes.write(
            f"{step}/set-bid",
            lambda key: self._world.platform.set_bid(self.id, bid, key),
            lambda state: state.bid == bid,
            until=until,
            does="set_bid",
            micros=bid,
        )
        self._bid = bid if written.is_done else None

    async def start(self, step: str, *, until: int) -> None:
        """Let it spend."""
        self.may_spend = True
        started = await self._writes.write(
            step,
            lambda key: self._world.platform.resume(self.id, key),
            lambda state: state.status is Status.ACTIVE,
            until=until,
            does="resume",
        )
        if started.fate is Fate.REFUSED:
            self.may_spend = False
            await self._story.tell(f"{step}/told", "flow.not_started", code=started.code, message=started.message)

    async def stop(self, step: str, *, until: int | None) -> None:
        """Pause it, and know that it is paused. `until` None: however long it takes, within reason."""
        if not self.id or not self.may_spend:
            return
        calendar = self._world.calendar
        now = await self._port.now(f"{step}/now")
        latest = max(until or 0, now + calendar.span(Timing.DAY if until is None else Timing.RETRY))
        paused = await self._writes.write(
            step,
            lambda key: self._world.platform.pause(self.id, key),
            lambda state: state.status is not Status.ACTIVE,
            until=latest,
            does="pause",
        )
        if paused.is_done:
            self.may_spend = False
            self.stopped_at = await self._port.now(f"{step}/done")
        else:
            await self._story.tell(f"{step}/told", "flow.not_paused", code=paused.code, message=paused.message)

    async def report(self, step: str, day: date) -> SpendReport | None:
        """What was billed on a day; None while the platform does not say."""
        platform = self._world.platform
        outcome = await ask(self._port, f"{step}/report", lambda: platform.spend_report(self.id, day))
        given = outcome.value.get("report") if outcome.is_done else None
        return None if given is None else msgspec.convert(given, SpendReport)

    def _spec(self) -> CampaignSpec:
        planned = self._planned
        return CampaignSpec(
            name=self._name,
            objective=planned.objective,
            daily_budget=planned.daily_budget,
            bid=planned.bid if isinstance(planned.bid, int) else None,
            starts=planned.starts,
            ends=planned.ends,
            countries=planned.countries,
            settings=planned.settings,
        )

    async def _choose(self, step: str) -> None:
        """Of two campaigns that were made the foremost, which any other run of this plan would choose too."""
        until = await self._port.now(f"{step}/now") + self._world.calendar.span(Timing.CHOOSE)
        state, twins = await self._twins.see(step, until=until)
        if state is None:
            return
        if self.id and state.whole:
            self._take_note_of(state)
        await self._twins.part(step, self.id or state.id, state, twins, until=until)

    def _take_note_of(self, state: CampaignState) -> None:
        self.id = state.id
        self.may_spend = state.status is Status.ACTIVE
        self.budget = state.daily_budget or self._planned.daily_budget
        self._bid = state.bid
