"""What to bid and spend where nobody advises otherwise: what the plan says, and what customers are worth."""

from __future__ import annotations

from datetime import date

from kiki.flow.customer_value import CustomerValue
from kiki.flow.plan import PlannedCampaign
from kiki.flow.platform import Limits
from kiki.outbound.outcome import Outcome, done


class PlannedAdvice:
    """See `Advice`."""

    def __init__(self, values: CustomerValue, limits: Limits) -> None:
        self._values = values
        self._step = limits.budget_step

    async def bid(self, campaign: PlannedCampaign, day: date) -> Outcome:
        """The bid as written, or the share of what a new customer is worth, never rounded up."""
        bid = campaign.bid
        if bid is None:
            return done()
        if isinstance(bid, int):
            return done(micros=bid)
        worth = await self._values.of_new(campaign.platform, bid.bound)
        micros = max(round(worth.micros * bid.share), bid.floor)
        if bid.ceiling is not None:
            micros = min(micros, bid.ceiling)
        whole = micros // self._step * self._step
        return done(micros=whole, source=worth.source.value, ltv=worth.micros)

    async def daily_budget(self, campaign: PlannedCampaign, day: date, spent: dict[str, int]) -> Outcome:
        """The budget as written."""
        return done(micros=campaign.daily_budget)
