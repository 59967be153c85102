"""What Amazon Ads answers: its things as far as they matter here, the three lists inside a 207, its reports. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec

from kiki.flow.platform import Status
from kiki.flow.platforms.amounts import billed_micros, exact_micros
from kiki.flow.platforms.downloads import gunzipped
from kiki.outbound.exchange import (
    CONFLICT,
    INVALID,
    NOT_FOUND,
    SERVER_ERROR,
    THROTTLED,
    UNAUTHORIZED,
    UNAVAILABLE,
    Reply,
)
from kiki.outbound.outcome import Outcome, refused, unknown

Kind = TypeVar("Kind")

CODES: Final[Mapping[str, str]] = {
    "TOO_MANY_REQUESTS": THROTTLED,
    "CONFLICT": UNAVAILABLE,  # "please retry your request"
    "UNAUTHORIZED": UNAUTHORIZED,
    "FORBIDDEN": UNAUTHORIZED,
    "NOT_FOUND": NOT_FOUND,
    "RESOURCE_ID_NOT_FOUND": NOT_FOUND,
    "FIELD_VALUE_NOT_UNIQUE": CONFLICT,
    "DUPLICATE_FIELD_VALUE_FOUND": CONFLICT,
}
"""Codes of Amazon that mean more than that the request is wrong."""
INTERNAL_ERROR: Final = "INTERNAL_ERROR"
PARTIAL: Final = "partial"
"""One thing took effect in a part of its marketplaces."""
GZIP: Final = b"\x1f\x8b"

_STATES: Final[Mapping[str, Status]] = {"ENABLED": Status.ACTIVE, "PAUSED": Status.PAUSED, "ARCHIVED": Status.ENDED}


class Profile(msgspec.Struct, rename="camel"):
    """An advertiser in one marketplace."""

    profile_id: int
    country_code: str
    currency_code: str
    timezone: str


class Amount(msgspec.Struct, rename="camel"):
    """Money, in whole currency."""

    value: Decimal | None = None
    currency_code: str = ""


class Monetary(msgspec.Struct, rename="camel"):
    """A level of a budget."""

    monetary_budget: Amount | None = None


class BudgetValue(msgspec.Struct, rename="camel"):
    """A level of a budget."""

    monetary_budget_value: Monetary | None = None


class Budget(msgspec.Struct, rename="camel"):
    """A budget of a campaign."""

    budget_value: BudgetValue | None = None
    recurrence_time_period: str = ""


class CampaignShown(msgspec.Struct, rename="camel"):
    """A campaign."""

    campaign_id: str
    name: str
    state: str
    budgets: list[Budget] = []

    @property
    def status(self) -> Status:
        """Whether it may spend; a state of tomorrow's API may."""
        return _STATES.get(self.state, Status.ACTIVE)

    @property
    def daily_budget(self) -> int | None:
        """Micros a day."""
        for each in self.budgets:
            monetary = each.budget_value.monetary_budget_value if each.budget_value is not None else None
            amount = monetary.monetary_budget if monetary is not None else None
            if each.recurrence_time_period == "DAILY" and amount is not None and amount.value is not None:
                return exact_micros(amount.value)
        return None


class Campaigns(msgspec.Struct, rename="camel"):
    """To query/campaigns."""

    campaigns: list[CampaignShown] = []
    next_token: str | None = None


class Bid(msgspec.Struct, rename="camel"):
    """The bid of an ad group."""

    default_bid: Decimal | None = None


class AdGroup(msgspec.Struct, rename="camel"):
    """An ad group."""

    ad_group_id: str
    name: str
    bid: Bid | None = None


class AdGroups(msgspec.Struct, rename="camel"):
    """To query/adGroups."""

    ad_groups: list[AdGroup] = []
    next_token: str | None = None


class MadeCampaign(msgspec.Struct):
    """A campaign that was taken."""

    index: int
    campaign: CampaignShown


class MadeAdGroup(msgspec.Struct, rename="camel"):
    """An ad group that was taken."""

    index: int
    ad_group: AdGroup


class Ordered(msgspec.Struct, rename="camel"):
    """To a report that was ordered, or asked after."""

    report_id: str
    status: str = ""
    url: str | None = None
    failure_reason: str | None = None


class Row(msgspec.Struct, rename="camel"):
    """One campaign on one day, in a report."""

    campaign_id: int
    date: str
    cost: Decimal = Decimal()
    impressions: int = 0
    clicks: int = 0
    purchases14d: int = 0
    sales14d: Decimal = Decimal()


class Billed(msgspec.Struct, frozen=True):
    """A row in micros."""

    spent: int
    impressions: int
    clicks: int
    conversions: int
    value: int


def judge(reply: Reply) -> Outcome | None:
    """A code beside the status says more than the status, except where the status says enough."""
    said = reply.json
    code = str(said.get("code")) if isinstance(said, dict) else ""
    if reply.status < 400 or reply.status in {401, 403, 429} or reply.status >= 500 or code not in CODES:
        return None
    return refused(CODES[code], f"{code}: {said.get('message', '')}")


def taken(reply: Reply, kind: type[Kind]) -> Kind | Outcome:
    """The one thing of a list that was sent: taken, refused, or nobody knows. HTTP 207 says nothing by itself."""
    said = reply.json
    if not isinstance(said, dict):
        return reply.nonsense("no lists of what was taken and what was not")
    errors = [inner for each in _first(said, "error") for inner in _dicts(each.get("errors"))]
    if _first(said, "error"):
        return _refusal(errors)
    if _first(said, "partialSuccess"):
        return unknown(PARTIAL, "taken in a part of its marketplaces")
    for each in _first(said, "success"):
        try:
            return msgspec.convert(each, kind, strict=False)
        except msgspec.ValidationError as error:
            return reply.nonsense(str(error))
    return reply.nonsense("what was sent is in none of its lists")


def _refusal(errors: list[Mapping[str, Any]]) -> Outcome:
    codes = [str(each.get("code", "")) for each in errors]
    message = "; ".join(f"{each.get('code', '')}: {each.get('message', '')}" for each in errors[:5])
    if INTERNAL_ERROR in codes:
        return unknown(SERVER_ERROR, message)
    return refused(next((CODES[code] for code in codes if code in CODES), INVALID), message)


def _first(said: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [each for each in _dicts(said.get(name)) if each.get("index") == 0]


def _dicts(given: Any) -> Iterable[Mapping[str, Any]]:
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else ()


def billed(content: bytes, day: str) -> dict[str, Billed] | None:
    """What campaigns cost on a day, by their ids, from a report's file; None: nobody understands it."""
    plain = gunzipped(content) if content.startswith(GZIP) else content
    try:
        rows = msgspec.json.decode(plain or b"", type=list[Row])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    found: dict[str, Billed] = {}
    for row in rows:
        spent, value = billed_micros(row.cost), billed_micros(row.sales14d)
        # Two rows of one campaign on one day are no report that was asked for.
        if row.date != day or spent is None or value is None or str(row.campaign_id) in found:
            return None
        found[str(row.campaign_id)] = Billed(spent, row.impressions, row.clicks, row.purchases14d, value)
    return found
