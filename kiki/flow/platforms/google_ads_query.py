"""What Google Ads is asked: queries in GAQL. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final

ACCOUNT: Final = "SELECT customer.currency_code, customer.time_zone FROM customer LIMIT 1"

_CAMPAIGN: Final = (
    *("campaign.id", "campaign.name", "campaign.status", "campaign.bidding_strategy_type"),
    *("campaign.target_spend.cpc_bid_ceiling_micros", "campaign.maximize_conversions.target_cpa_micros"),
    *("campaign_budget.resource_name", "campaign_budget.amount_micros", "campaign_budget.explicitly_shared"),
)
_METRICS: Final = (
    *("metrics.cost_micros", "metrics.impressions", "metrics.clicks", "metrics.conversions"),
    "metrics.conversions_value",
)


def campaign_named(name: str) -> str:
    """Campaigns of that name, removed ones too."""
    return _select(_CAMPAIGN, "campaign", f"campaign.name = {_quoted(name)}")


def campaign_numbered(campaign: str) -> str:
    """The campaign with that id."""
    return _select(_CAMPAIGN, "campaign", f"campaign.id = {campaign}")


def ad_groups(campaign: str) -> str:
    """The ad groups that a campaign bids for."""
    fields = ("ad_group.resource_name", "ad_group.cpc_bid_micros")
    return _select(fields, "ad_group", f"campaign.id = {campaign}", "ad_group.status != 'REMOVED'")


def spend(campaign: str, day: date) -> str:
    """What a campaign cost on a day of the account's time zone."""
    return _select(_METRICS, "campaign", f"campaign.id = {campaign}", f"segments.date = '{day}'")


def places(countries: Sequence[str]) -> str:
    """Google's own names of countries."""
    codes = ", ".join(map(_quoted, countries))
    fields = ("geo_target_constant.resource_name", "geo_target_constant.country_code")
    wanted = (f"geo_target_constant.country_code IN ({codes})", "geo_target_constant.target_type = 'Country'")
    return _select(fields, "geo_target_constant", *wanted)


def _select(fields: Sequence[str], table: str, *conditions: str) -> str:
    return f"SELECT {', '.join(fields)} FROM {table} WHERE {' AND '.join(conditions)}"  # noqa: S608  # texts of ours, ids and quoted names


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
