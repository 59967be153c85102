"""A campaign plan: what shall run where, when, and for how much. Pure.

`Plan.version` is a hash of what it means, so a comment or another order of keys is no new version, and a run always
finishes under the version that it began with. `plan_text` reads what people write.
"""

from __future__ import annotations

from datetime import date, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final

import msgspec

from kiki.errors import InvalidInput, PlanError

PLATFORMS: Final = ("google_ads", "meta", "tiktok", "linkedin", "microsoft", "amazon", "x", "tradedesk")
"""The platforms that a plan may name."""
SANDBOX: Final = "sandbox"
"""`platforms: sandbox`: every platform is played by the sandbox, and no money is spent."""


class Objective(StrEnum):
    """What a campaign is for."""

    AWARENESS = "awareness"
    TRAFFIC = "traffic"
    LEADS = "leads"
    SALES = "sales"
    APP = "app"


class Pacing(StrEnum):
    """How a campaign's money is spread over its days."""

    EVEN = "even"
    """The budget of each day as written."""
    ADAPTIVE = "adaptive"
    """Days follow a forecast line; together they stay within the sum of the days."""


class Allocation(StrEnum):
    """How money is divided among the campaigns of a plan."""

    FIXED = "fixed"
    """Each has its own budget."""
    ADAPTIVE = "adaptive"
    """Budgets move towards what earns more, within the plan's sum a day."""


class Absence(StrEnum):
    """What becomes of running campaigns while the guard cannot be asked. Nothing new is spent either way."""

    LEAVE = "leave"
    """They run on what is reserved already, until the day ends; then they are paused."""
    PAUSE = "pause"
    """They are paused at once."""


class Bound(StrEnum):
    """Which value of a prediction a bid rests on."""

    MEAN = "mean"
    LOWER = "lower"
    """The lower end of the 80 % interval: careful where the model is unsure."""


class ValueBid(msgspec.Struct, frozen=True, kw_only=True):
    """A bid that follows what a customer is worth."""

    share: float
    """Of the predicted lifetime value."""
    floor: int = 0
    """Micros: never less."""
    ceiling: int | None = None
    """Micros: never more."""
    bound: Bound = Bound.LOWER


class Audience(msgspec.Struct, frozen=True, kw_only=True):
    """A list of customers that a platform may know of."""

    list: str
    """The name of the list."""
    consent: str
    """The purpose that every person on it must have consented to."""


class PlannedCampaign(msgspec.Struct, frozen=True, kw_only=True):
    """One campaign on one platform."""

    name: str
    platform: str
    objective: Objective
    daily_budget: int
    """Micros."""
    bid: int | ValueBid | None = None
    """Micros; None: the platform bids by itself."""
    starts: date
    ends: date
    """The last day."""
    weekdays: tuple[int, ...] = tuple(range(7))
    """The days on which it runs, Monday is 0."""
    countries: tuple[str, ...] = ()
    audience: Audience | None = None
    settings: dict[str, str | int | float | bool] = {}
    """What only the platform knows."""
    scopes: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """Added to its own reservations; unset, it is no part of a plan's version."""

    @property
    def days(self) -> list[date]:
        """The days on which it runs."""
        span = (self.ends - self.starts).days + 1
        every = (self.starts + timedelta(days=day) for day in range(span))
        return [day for day in every if day.weekday() in self.weekdays]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Where campaigns of one platform live; secrets are no part of a plan."""

    account: str
    settings: dict[str, str | int | float | bool] = {}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A whole plan. Money in micros of `currency`, days inclusive."""

    name: str
    currency: str
    time_zone: str = "UTC"
    """Of dates that no account's own zone rules, and of reports."""
    starts: date
    ends: date
    budget: int | None = None
    """The most that all campaigns together may cost, in micros."""
    platforms: dict[str, Account]
    campaigns: tuple[PlannedCampaign, ...]
    sandbox: bool = False
    pacing: Pacing = Pacing.EVEN
    allocation: Allocation = Allocation.FIXED
    on_guard_down: Absence = Absence.LEAVE
    approval_above: int | None = None
    """Micros: a day whose budgets add up to more waits for a person's approval."""
    scopes: dict[str, str] = {}
    """Added to every reservation, beside `campaign` and `platform`."""

    @property
    def version(self) -> str:
        """16 hexadecimal digits that stand for what the plan means."""
        return sha256(self.dump()).hexdigest()[:16]

    def dump(self) -> bytes:
        """The plan as it is kept: canonical JSON, one form for one meaning."""
        return msgspec.json.encode(self, order="sorted")

    @classmethod
    def load(cls, data: bytes) -> Plan:
        """The plan that `dump` wrote; raises `PlanError`."""
        try:
            return msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise PlanError([f"the kept plan cannot be read: {error}"]) from error

    def scopes_of(self, campaign: PlannedCampaign) -> dict[str, str]:
        """Everything that a campaign's money is counted under; its own word goes before the plan's."""
        own = {} if isinstance(campaign.scopes, msgspec.UnsetType) else campaign.scopes
        return {**self.scopes, **own, "campaign": campaign.name, "platform": campaign.platform}

    def campaign(self, name: str) -> PlannedCampaign:
        """The campaign of that name; raises `InvalidInput`."""
        for campaign in self.campaigns:
            if campaign.name == name:
                return campaign
        raise InvalidInput(f"the plan {self.name!r} has no campaign {name[:60]!r}")
