"""What a lane acts on: the guard, one platform, the fence, the plan's own allowance. Handed in, so that tests can break it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from kiki.flow.guard_line import GuardLine
from kiki.flow.plan import PlannedCampaign
from kiki.flow.plan_calendar import Calendar
from kiki.flow.platform import Platform
from kiki.outbound.fence import Fence
from kiki.outbound.outcome import Outcome


class Allowance(Protocol):
    """What is left of the plan's total budget, shared by its lanes. In micros; by key, so that asking again takes once."""

    async def take(self, key: str, micros: int) -> Outcome:
        """Take a worst case: done, or refused with `plan_budget_exhausted`."""
        ...

    async def settle(self, key: str, micros: int) -> Outcome:
        """Say what was really spent of it; the rest is free again. It may be more than was taken."""
        ...


class Advice(Protocol):
    """What to offer and how much to spend on a day; without it, what the plan says."""

    async def bid(self, campaign: PlannedCampaign, day: date) -> Outcome:
        """Done with `micros` (absent: leave the bid to the platform)."""
        ...

    async def daily_budget(self, campaign: PlannedCampaign, day: date, spent: dict[str, int]) -> Outcome:
        """Done with `micros`: what the day may nominally cost. `spent` are the reported days so far."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """Everything outside the plan."""

    guard: GuardLine
    platform: Platform
    calendar: Calendar
    allowance: Allowance
    advice: Advice
    fence: Fence
    """Raises `RunTaken` when another runner has the run; asked immediately before every write to a platform."""
    now: Callable[[], int]
    """Microseconds since the epoch; what a lane sees of it is journaled."""


class Timing:
    """How long before and after a day what is done, in the plan's hours."""

    AHEAD = 10.0
    """The next day's money is asked for so long before it begins: a runner may be away for that long."""
    LEAD = 2.0
    """The campaign is set for the next day, or paused, so long before it begins."""
    LAST_CALL = 0.5
    """So long before a day begins without its money reserved, the campaign is paused."""
    RETRY = 0.25
    """Between two attempts at something that did not work."""
    RETRY_LEAST = 0.005
    """The same at least, where the platform says that it listens again sooner."""
    AGAIN = 3.0
    """So often money that was refused for a day is asked for again on that day."""
    DAY = 24.0
    CHOOSE = 1.0
    """So long it is tried to see, and to archive, a twin of a campaign that was just made."""
    SETTLE_DAYS = 30
    """A report that is not final after so many days is taken as it is."""
    SETTLE_ROUNDS = 12
    """And nothing is given up before it was tried so often."""
    REVISE_DAYS = 3
    """So long a settled day is looked at again: reports are corrected late."""
