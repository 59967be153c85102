"""What Meta is told of a campaign: forms whose parts may be JSON. Pure: the moment is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from kiki.clock import SECOND
from kiki.flow.plan import Objective
from kiki.flow.platform import CampaignSpec, ValueUpload
from kiki.flow.platforms.ad_account import AboutAccount, day_start
from kiki.flow.platforms.amounts import json_text, whole_currency

WITHOUT_BID: Final = "LOWEST_COST_WITHOUT_CAP"
STRATEGIES: Final = ("LOWEST_COST_WITH_BID_CAP", "COST_CAP")


class Purpose(msgspec.Struct, frozen=True):
    """How Meta names an objective."""

    objective: str
    goal: str
    event: str = ""
    """The conversion that is optimised for; it needs a pixel."""


PURPOSES: Final = {
    Objective.AWARENESS: Purpose("OUTCOME_AWARENESS", "REACH"),
    Objective.TRAFFIC: Purpose("OUTCOME_TRAFFIC", "LINK_CLICKS"),
    Objective.LEADS: Purpose("OUTCOME_LEADS", "OFFSITE_CONVERSIONS", "LEAD"),
    Objective.SALES: Purpose("OUTCOME_SALES", "OFFSITE_CONVERSIONS", "PURCHASE"),
}


def campaign_form(spec: CampaignSpec, settings: Mapping[str, str], unit: int) -> dict[str, str]:
    """A campaign, paused, with its budget in Meta's unit of so many micros."""
    return {
        "name": spec.name,
        "objective": PURPOSES[Objective(spec.objective)].objective,
        "status": "PAUSED",
        "special_ad_categories": json_text(settings["special_ad_categories"].split(",")),
        "daily_budget": str(spec.daily_budget // unit),
        "bid_strategy": settings["bid_strategy"] if spec.bid else WITHOUT_BID,
    }


def ad_set_form(
    spec: CampaignSpec, settings: Mapping[str, str], campaign: str, about: AboutAccount, now: datetime
) -> dict[str, str]:
    """The ad set is active in a paused campaign, so that one write starts and stops all of it."""
    purpose = PURPOSES[Objective(spec.objective)]
    targeting = {
        "geo_locations": {"countries": list(spec.countries)},
        "targeting_automation": {"advantage_audience": 0},
    }
    form = {
        "name": spec.name,
        "campaign_id": campaign,
        "status": "ACTIVE",
        "billing_event": "IMPRESSIONS",
        "optimization_goal": purpose.goal,
        "targeting": json_text(targeting),
        "end_time": _moment(day_start(spec.ends + timedelta(days=1), about.time_zone)),
    }
    starts = day_start(spec.starts, about.time_zone)
    if starts > now:
        form["start_time"] = _moment(starts)
    if spec.bid:
        form["bid_amount"] = str(spec.bid // about.unit)
    if purpose.event:
        form["promoted_object"] = json_text({"pixel_id": settings["pixel"], "custom_event_type": purpose.event})
    return form | {name: settings[name] for name in ("dsa_beneficiary", "dsa_payor") if settings[name]}


def event(value: ValueUpload, currency: str, name: str) -> dict[str, Any]:
    """What a conversion was worth, as an event."""
    worth = whole_currency(value.value)
    click = value.click if value.click.startswith("fb.") else f"fb.1.{value.at // 1000}.{value.click}"
    return {
        "event_name": name,
        "event_time": value.at // SECOND,
        "event_id": value.order,
        "action_source": "system_generated",
        "user_data": {"fbc": click},
        "custom_data": {"currency": currency, "value": worth, "predicted_ltv": worth, "order_id": value.order},
    }


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S+0000")
