"""What TikTok is told of a campaign: which interface makes it, and with which words. Pure: the moment is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

import msgspec

from kiki.clock import SECOND
from kiki.flow.plan import Objective
from kiki.flow.platform import CampaignSpec, ValueUpload
from kiki.flow.platforms.ad_account import day_start
from kiki.flow.platforms.amounts import whole_currency, wrong_amounts
from kiki.flow.platforms.campaign_settings import CampaignSettings
from kiki.outbound.outcome import Outcome

PLACEMENTS: Final = ("PLACEMENT_TIKTOK",)
SMART: Final = "smart_plus/"
MANUAL: Final = ""


class Purpose(msgspec.Struct, frozen=True):
    """How TikTok names an objective, and with which interface it is made."""

    objective: str
    goal: str
    billing: str
    by: str = MANUAL
    event: str = ""
    """The conversion that is optimised for; it needs a pixel."""


PURPOSES: Final = {
    Objective.AWARENESS: Purpose("REACH", "REACH", "CPM"),
    Objective.TRAFFIC: Purpose("TRAFFIC", "CLICK", "CPC"),
    Objective.LEADS: Purpose("WEB_CONVERSIONS", "CONVERT", "OCPM", SMART, "FORM"),
    Objective.SALES: Purpose("WEB_CONVERSIONS", "CONVERT", "OCPM", SMART, "SHOPPING"),
}


def wrong_spec(spec: CampaignSpec, currency: str, pixel: str) -> Outcome | None:
    """Why the campaign cannot be made; None: it can."""
    settings = CampaignSettings(spec.settings)
    purpose = PURPOSES.get(Objective(spec.objective))
    if purpose is None:
        settings.wrong("app campaigns of TikTok are made by hand; kiki can steer them then")
    elif purpose.event and not pixel:
        settings.wrong(f"a campaign for {spec.objective} needs the account's setting 'pixel'")
    if not spec.countries:
        settings.wrong("TikTok wants to know where: write countries such as [US]")
    return settings.refusal or wrong_amounts(currency, spec.daily_budget, spec.bid)


def campaign_body(spec: CampaignSpec, purpose: Purpose, advertiser: str, key: str) -> dict[str, Any]:
    """A campaign, disabled, with its budget."""
    body = {
        "advertiser_id": advertiser,
        "request_id": request_id(key, "campaign"),
        "campaign_name": spec.name,
        "objective_type": purpose.objective,
        "operation_status": "DISABLE",
        "budget_mode": "BUDGET_MODE_DAY",
        "budget": whole_currency(spec.daily_budget),
        "budget_optimize_on": True,
    }
    return body | ({"sales_destination": "WEBSITE"} if purpose.by == SMART else {})


def ad_group_body(
    spec: CampaignSpec,
    purpose: Purpose,
    key: str,
    *,
    advertiser: str,
    campaign: str,
    places: Sequence[str],
    pixel: str,
    time_zone: str,
    now: datetime,
) -> dict[str, Any]:
    """The ad group is enabled in a disabled campaign, so that one write starts and stops all of it."""
    starts = max(day_start(spec.starts, time_zone), now)
    body: dict[str, Any] = {
        "advertiser_id": advertiser,
        "request_id": request_id(key, "adgroup"),
        "campaign_id": campaign,
        "adgroup_name": spec.name,
        "operation_status": "ENABLE",
        "promotion_type": "WEBSITE",
        "optimization_goal": purpose.goal,
        "billing_event": purpose.billing,
        "bid_type": "BID_TYPE_CUSTOM" if spec.bid else "BID_TYPE_NO_BID",
        "schedule_type": "SCHEDULE_START_END",
        "schedule_start_time": _moment(starts),
        "schedule_end_time": _moment(day_start(spec.ends + timedelta(days=1), time_zone)),
    }
    if spec.bid:
        body[bid_field_of(purpose.by)] = whole_currency(spec.bid)
    if purpose.by == SMART:
        return body | {
            "targeting_spec": {"location_ids": list(places)},
            "pixel_id": pixel,
            "optimization_event": purpose.event,
        }
    return body | {
        "placement_type": "PLACEMENT_TYPE_NORMAL",
        "placements": list(PLACEMENTS),
        "location_ids": list(places),
        "pacing": "PACING_MODE_SMOOTH",
        # The budget is the campaign's.
        "budget_mode": "BUDGET_MODE_INFINITE",
        "budget": Decimal(0),
        **({"frequency": 3, "frequency_schedule": 7} if purpose.goal == "REACH" else {}),
    }


def event_body(value: ValueUpload, currency: str, event: str) -> dict[str, Any]:
    """What a conversion was worth, as an event."""
    return {
        "event": event,
        "event_time": value.at // SECOND,
        "event_id": value.order,
        "user": {"ttclid": value.click},
        "properties": {"currency": currency, "value": whole_currency(value.value), "order_id": value.order},
    }


def request_id(key: str, what: str) -> str:
    """TikTok's idempotency key: a number of 60 bits in decimal, the same for the same key and thing."""
    return str(int(sha256(f"{key}/{what}".encode()).hexdigest()[:15], 16))


def bid_field_of(by: str) -> str:
    """Where an interface has the bid of an ad group."""
    return "conversion_bid_price" if by == SMART else "bid_price"


def _moment(moment: datetime) -> str:
    """UTC, which is what TikTok's schedules are in."""
    return moment.strftime("%Y-%m-%d %H:%M:%S")
