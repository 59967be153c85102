"""What LinkedIn answers: campaigns, reports, and why it has had enough. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec

from kiki.clock import SECOND
from kiki.flow.platform import Status
from kiki.flow.platforms.amounts import Count, CurrencyCode
from kiki.outbound.exchange import THROTTLED, Reply
from kiki.outbound.outcome import Outcome, refused
from kiki.outbound.rate_budget import retry_after

DAY_LIMIT_FOR: Final = 3600 * SECOND
"""How long an account is left alone whose calls of the day are used up: the limit may be raised, and pauses must not wait."""

STATUS: Final = {
    "ACTIVE": Status.ACTIVE,
    "PAUSED": Status.PAUSED,
    "DRAFT": Status.PAUSED,
    **dict.fromkeys(("ARCHIVED", "COMPLETED", "CANCELED", "PENDING_DELETION", "REMOVED"), Status.ENDED),
}


class MoneyFields(msgspec.Struct):
    """An amount as decimal text."""

    amount: Decimal
    currency: str = msgspec.field(name="currencyCode", default="")


class CampaignFields(msgspec.Struct, rename="camel"):
    """A campaign; what does not apply is missing."""

    id: Count
    name: str
    status: str
    daily_budget: MoneyFields | None = None
    unit_cost: MoneyFields | None = None
    optimization_target_type: str = "NONE"

    @property
    def standing(self) -> Status:
        """Whether it may spend; a word that we do not know may."""
        return STATUS.get(self.status, Status.ACTIVE)


class Found(msgspec.Struct):
    """One page of a search."""

    elements: list[CampaignFields]
    metadata: dict[str, Any] = {}

    @property
    def next_page(self) -> str:
        """The token of the next page; empty: this is the last."""
        return str(self.metadata.get("nextPageToken") or "")


class AccountFields(msgspec.Struct):
    """The ad account."""

    currency: CurrencyCode


class Measured(msgspec.Struct, rename="camel"):
    """What was measured, in whole currency."""

    cost_in_local_currency: Decimal = Decimal(0)
    impressions: Count = 0
    clicks: Count = 0
    external_website_conversions: Count = 0
    conversion_value_in_local_currency: Decimal = Decimal(0)


class Analytics(msgspec.Struct):
    """A report."""

    elements: list[Measured]


class Taken(msgspec.Struct):
    """Whether one event was taken."""

    status: int


class TakenAll(msgspec.Struct):
    """Whether each event was taken."""

    elements: list[Taken]


def judge(reply: Reply) -> Outcome | None:
    """What 429 means: of a limit a day LinkedIn does not say when it ends, and it ends with the day in UTC."""
    said = reply.json
    message = str(said.get("message", "")) if isinstance(said, dict) else ""
    if reply.status != 429:
        return None
    until = retry_after(reply.headers, reply.now)
    if until is None and "DAY limit" in message:
        midnight = (reply.now // (86400 * SECOND) + 1) * 86400 * SECOND
        until = min(midnight, reply.now + DAY_LIMIT_FOR)
    return refused(THROTTLED, message, retry_at=until)
