"""What to spend where a plan says `adaptive`: campaigns stay on their line, and money goes where its last unit earns most."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import Final

import msgspec

from kiki.flow.pacing import DayLine, day_budget, weekday_weights
from kiki.flow.plan import Allocation, Pacing, Plan, PlannedCampaign
from kiki.flow.planned_advice import PlannedAdvice
from kiki.flow.platform import Limits
from kiki.flow.progress import LaneProgress
from kiki.outbound.outcome import Outcome, done

_DIVISION: Final = msgspec.json.Decoder(dict[str, int])


class AdaptiveAdvice:
    """See `Advice`. Bids are those of the plan.

    All lanes must divide a day's money alike, whenever each of them asks: whoever asks first divides, and `keep_first` keeps
    that for the others and for every restart.
    """

    def __init__(
        self,
        plan: Plan,
        planned: PlannedAdvice,
        *,
        lanes: Callable[[], Mapping[str, LaneProgress]],
        limits_of: Callable[[str], Awaitable[Limits]],
        keep_first: Callable[[str, bytes], bytes],
    ) -> None:
        self._plan = plan
        self._planned = planned
        self._lanes = lanes
        self._limits_of = limits_of
        self._keep_first = keep_first

    async def bid(self, campaign: PlannedCampaign, day: date) -> Outcome:
        """See `Advice`."""
        return await self._planned.bid(campaign, day)

    async def daily_budget(self, campaign: PlannedCampaign, day: date, spent: dict[str, int]) -> Outcome:
        """See `Advice`."""
        lanes = await asyncio.to_thread(self._lanes)
        if self._plan.allocation is Allocation.FIXED:
            micros = await self._paced(campaign, day, lanes[campaign.name], spent)
            return done(micros=micros, source=str(self._plan.pacing))
        kept = await asyncio.to_thread(self._keep_first, f"division/{day}", await self._divide(day, lanes))
        return done(micros=_DIVISION.decode(kept).get(campaign.name, 0), source="allocation")

    async def _paced(self, campaign: PlannedCampaign, day: date, lane: LaneProgress, spent: Mapping[str, int]) -> int:
        """What the campaign may cost on a day by itself."""
        if day not in campaign.days:
            return 0
        if self._plan.pacing is Pacing.EVEN:
            return campaign.daily_budget
        limits = await self._limits_of(campaign.platform)
        return day_budget(
            _line(campaign, spent),
            day,
            _at_most(lane, spent, limits),
            before=lane.budget,
            change=limits.learning_change,
            step=limits.budget_step,
            least=limits.budget_min,
        )

    async def _divide(self, day: date, lanes: Mapping[str, LaneProgress]) -> bytes:
        """The day's money of all campaigns that run, divided anew."""
        from kiki.flow.allocation import Bounds, Day, allocate  # brings numpy: only where a plan asks for it

        running = [each for each in self._plan.campaigns if day in each.days and not lanes[each.name].how]
        total, left = 0, await self._left(day, lanes)
        bounds: dict[str, Bounds] = {}
        history: dict[str, list[Day]] = {}
        for campaign in running:
            lane = lanes[campaign.name]
            total += await self._paced(campaign, day, lane, lane.spent)
            limits = await self._limits_of(campaign.platform)
            before = lane.budget or campaign.daily_budget
            bounds[campaign.name] = Bounds(
                least=max(limits.budget_min, int(before * (1 - limits.learning_change))),
                most=int(before * (1 + limits.learning_change)),
                step=limits.budget_step,
            )
            history[campaign.name] = [Day(lane.spent[each], lane.value.get(each, 0)) for each in sorted(lane.spent)]
        if self._plan.pacing is Pacing.ADAPTIVE:
            total = max(min(total, left), 0)
        number, seed = (day - self._plan.starts).days, int(self._plan.version[:8], 16)
        divided = await asyncio.to_thread(allocate, total, history, bounds, day=number, seed=seed)
        return msgspec.json.encode(divided)

    async def _left(self, day: date, lanes: Mapping[str, LaneProgress]) -> int:
        """What all campaigns together may still cost: one that got more than its own leaves less for the others."""
        left = 0
        for campaign in self._plan.campaigns:
            lane = lanes[campaign.name]
            known = _at_most(lane, lane.spent, await self._limits_of(campaign.platform))
            own = _line(campaign, lane.spent).left_after(known, day)
            left += min(own, 0) if lane.how else own
        return left


def _line(campaign: PlannedCampaign, spent: Mapping[str, int]) -> DayLine:
    total = campaign.daily_budget * len(campaign.days)
    return DayLine(total=total, days=campaign.days, weights=weekday_weights(spent))


def _at_most(lane: LaneProgress, spent: Mapping[str, int], limits: Limits) -> dict[str, int]:
    """What days cost or, while their report is not final, may nominally have cost by the budget that they were held for."""
    open_days = {day: math.ceil(worst / limits.overdelivery) for day, worst in lane.held.items()}
    return open_days | dict(spent)
