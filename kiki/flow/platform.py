"""What every ad platform can do for a campaign, in one language: `Platform`. Pure but for the protocol's awaitables.

Money is integer micros of the account's currency; an adapter alone knows micros, minor units and decimal strings. Every
write takes an idempotency key and says a `Fate`; writes set a state (never add to one), so that repeating one is safe.
A campaign is found again by its name, which is deterministic: `campaign_name`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from typing import Protocol

import msgspec

from kiki.outbound.outcome import Outcome


class Status(StrEnum):
    """Whether a campaign may spend."""

    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"
    """Removed, archived or over: it never spends again."""


class CampaignSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign as the plan wants it."""

    name: str
    """The deterministic name on the platform, unique in the account."""
    objective: str
    """A word of `kiki.flow.plan.Objective`."""
    daily_budget: int
    """Micros a day."""
    bid: int | None = None
    """Micros for a click, a thousand impressions or an acquisition, as the platform's strategy reads it; None: automatic."""
    starts: date
    ends: date
    countries: Sequence[str] = ()
    """ISO 3166-1 alpha-2."""
    settings: dict[str, str | int | float | bool] = {}
    """What only this platform knows, by the plan's `settings`."""


class CampaignState(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign as the platform shows it."""

    id: str
    name: str
    status: Status
    daily_budget: int | None = None
    """Micros; None: the platform does not say."""
    bid: int | None = None
    currency: str = ""
    account: str = ""
    whole: bool = True
    """False: the platform has the campaign without what it bids for, such as its ad set; `ensure_campaign` adds that."""


class Twin(msgspec.Struct, frozen=True, kw_only=True):
    """Another campaign of the same name that has not ended."""

    id: str
    status: Status


class SpendReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a platform says it billed for a campaign on one day of the account's time zone."""

    day: date
    spent: int
    """Micros."""
    impressions: int = 0
    clicks: int = 0
    conversions: int = 0
    value: int = 0
    """What the conversions were worth, in micros."""
    final: bool = False
    """The platform has stopped changing it."""


class ValueUpload(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversion turned out to be worth, to teach the platform's bidding."""

    order: str
    """The order's id, which makes a repeat the same upload."""
    click: str
    """The platform's click id."""
    at: int
    """When it happened, in microseconds since the epoch."""
    value: int
    """Micros."""
    consented: bool = False


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan must know of a platform before it may promise anything."""

    overdelivery: float
    """How many times the daily budget may be billed on one day, at worst: 2.0 on Google."""
    budget_min: int = 0
    """The smallest daily budget, in micros."""
    budget_step: int = 1
    """Budgets and bids are whole multiples of so many micros: 10,000 where a platform counts cents."""
    learning_change: float = 0.2
    """A budget that changes by more than this share starts the learning phase anew."""
    report_hours: int = 24
    """How long after a day's end its report may still change much."""
    timeout_seconds: float = 30.0
    """After how long an unanswered call is given up as unknown."""
    late_seconds: float = 900.0
    """For how long after that its effect may still come."""
    values_at_once: int = 500
    """So many values go out in one request at most."""
    values_again_hours: float | None = None
    """For so long an order whose value comes again is known there, and counts once; None: for good, 0: not at all."""


class Platform(Protocol):
    """One account on one platform. Every method may be called again with the same arguments at any time.

    Reads give an `Outcome` whose value holds the struct as builtins under the name below, so that it can be journaled:
    `lookup` → `campaign` (absent: there is none) and `twins` (absent: there are none), `spend_report` → `report`. Writes give
    `campaign` where they learn it.
    """

    @property
    def name(self) -> str:
        """The platform's name in a plan: `google_ads`, `meta`, `tiktok`, `linkedin`, `microsoft`, `amazon`, `x`, `tradedesk`."""
        ...

    @property
    def account(self) -> str:
        """The account's id there."""
        ...

    @property
    def limits(self) -> Limits:
        """What a plan must know."""
        ...

    async def currency(self) -> Outcome:
        """The account's currency, under `currency`, and its time zone, under `time_zone`."""
        ...

    async def lookup(self, name: str) -> Outcome:
        """The campaign of that name, whatever its status."""
        ...

    async def ensure_campaign(self, spec: CampaignSpec, key: str) -> Outcome:
        """Make the campaign, paused, unless one of that name is there already; then that one is the answer."""
        ...

    async def set_budget(self, campaign: str, micros: int, key: str) -> Outcome:
        """Set the daily budget of a campaign, by the platform's id."""
        ...

    async def set_bid(self, campaign: str, micros: int, key: str) -> Outcome:
        """Set the bid of a campaign."""
        ...

    async def pause(self, campaign: str, key: str) -> Outcome:
        """Let it spend nothing more."""
        ...

    async def resume(self, campaign: str, key: str) -> Outcome:
        """Let it spend."""
        ...

    async def archive(self, campaign: str, key: str) -> Outcome:
        """Let it end for good, which is for a twin that never spent; `unsupported` where names are unique."""
        ...

    async def spend_report(self, campaign: str, day: date) -> Outcome:
        """What was billed on one day."""
        ...

    async def upload_values(self, campaign: str, values: Sequence[ValueUpload], key: str) -> Outcome:
        """Tell what conversions were worth; `accepted` and `rejected` say how many.

        `orders` has the `Fate` of each one, by its order; what became of one that is missing there nobody knows.
        """
        ...

    async def close(self) -> None:
        """Give connections free."""
        ...


def campaign_of(outcome: Outcome) -> CampaignState | None:
    """The campaign in an answer of `lookup` or a write; None when there is none in it."""
    given = outcome.value.get("campaign") if outcome.is_done else None
    return None if given is None else msgspec.convert(given, CampaignState)


NAME_PREFIX = "kiki"


def campaign_name(plan: str, campaign: str) -> str:
    """The name on the platform: the same for every run, version and attempt of a plan, so that it is found again."""
    return f"{NAME_PREFIX}/{plan}/{campaign}"
