"""What The Trade Desk is told of a campaign and its ad group. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from kiki.flow.plan import Objective
from kiki.flow.platform import CampaignSpec
from kiki.flow.platforms.ad_account import day_start
from kiki.flow.platforms.amounts import whole_currency, wrong_amounts
from kiki.flow.platforms.campaign_settings import CampaignSettings
from kiki.outbound.outcome import Outcome

AD_GROUP: Final = "kiki"
"""The name of the one ad group of a campaign of ours."""
NAME_MAX: Final = 256
CHANNELS: Final = ("Display", "Video", "Audio", "TV", "NativeDisplay", "NativeVideo")
FUNNEL: Final[Mapping[Objective, str]] = {
    Objective.AWARENESS: "Awareness",
    Objective.TRAFFIC: "Consideration",
    Objective.LEADS: "Conversion",
    Objective.SALES: "Conversion",
    Objective.APP: "Conversion",
}


def campaign_body(spec: CampaignSpec, channel: str, advertiser: str, time_zone: str) -> dict[str, Any]:
    """A campaign without ad groups, which spends nothing."""
    starts = day_start(spec.starts, time_zone)
    ends = day_start(spec.ends + timedelta(days=1), time_zone)
    return {
        "primaryInput": {
            "advertiserId": advertiser,
            "name": spec.name,
            "primaryChannel": channel,
            "primaryGoal": {"maximizeReach": True},
            "timeZone": time_zone,
            "startDateInUtc": starts.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "endDateInUtc": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            # The whole of its days is the most that the campaign ever spends, whatever becomes of its daily target.
            "budget": {
                "pacingMode": "PaceToDailyCap",
                "budgetInAdvertiserCurrency": whole_currency(_whole(spec)),
            },
        }
    }


def ad_group(spec: CampaignSpec, currency: str) -> dict[str, Any] | Outcome:
    """Our one ad group, or why the campaign cannot be made."""
    settings = CampaignSettings(spec.settings)
    channel = settings.word("channel", "Display", CHANNELS)
    geography = settings.text("geo_bid_list", "", r"[0-9A-Za-z]{0,40}", "write the id of a bid list")
    if spec.countries and not geography:
        settings.wrong(
            f"countries are bid lists there; set 'geo_bid_list' to one that holds {', '.join(spec.countries)}"
        )
    settings.name(spec.name, NAME_MAX, "The Trade Desk")
    wrong = settings.refusal or wrong_amounts(currency, spec.daily_budget, spec.bid)
    if wrong is not None:
        return wrong
    lists = [{"bidListId": geography, "isEnabled": True, "isDefaultForDimension": False}] if geography else []
    return {
        "name": AD_GROUP,
        "channel": channel,
        "funnelLocation": FUNNEL[Objective(spec.objective)],
        "isEnabled": False,
        "budget": {
            "allocationType": "Maximum",
            "budgetInAdvertiserCurrency": whole_currency(_whole(spec)),
            "dailyTargetInAdvertiserCurrency": whole_currency(spec.daily_budget),
        },
        **(bid_of(spec.bid) if spec.bid is not None else {}),
        **({"associatedBidLists": lists} if lists else {}),
    }


def bid_of(micros: int) -> dict[str, Any]:
    """A bid for a thousand impressions; base and maximum are one, so that nothing bids above it."""
    bid = whole_currency(micros)
    return {"baseBidCPMInAdvertiserCurrency": bid, "maxBidCPMInAdvertiserCurrency": bid}


def _whole(spec: CampaignSpec) -> int:
    return spec.daily_budget * ((spec.ends - spec.starts).days + 1)
