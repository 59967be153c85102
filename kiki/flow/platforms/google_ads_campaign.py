"""What Google Ads is told of a campaign, in the canonical JSON of its own messages. Pure: the day is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

from kiki.clock import SECOND
from kiki.flow.plan import Objective
from kiki.flow.platform import CampaignSpec, ValueUpload
from kiki.flow.platforms.amounts import whole_currency

MANUAL_CPC: Final = "MANUAL_CPC"
TARGET_SPEND: Final = "TARGET_SPEND"
MAXIMIZE_CONVERSIONS: Final = "MAXIMIZE_CONVERSIONS"
BY_OBJECTIVE: Final = {
    Objective.AWARENESS: TARGET_SPEND,
    Objective.TRAFFIC: TARGET_SPEND,
    Objective.LEADS: MAXIMIZE_CONVERSIONS,
    Objective.SALES: MAXIMIZE_CONVERSIONS,
}
"""Which strategy bids when the plan leaves it to Google."""
CHANNELS: Final = ("SEARCH", "DISPLAY")
BID_FIELDS: Final = {
    TARGET_SPEND: ("targetSpend", "cpcBidCeilingMicros"),
    MAXIMIZE_CONVERSIONS: ("maximizeConversions", "targetCpaMicros"),
}
"""Where the bid of a strategy of Google's is written."""
STRATEGIES: Final = (MANUAL_CPC, TARGET_SPEND, MAXIMIZE_CONVERSIONS)


def creation(
    spec: CampaignSpec,
    *,
    customer: str,
    channel: str,
    strategy: str,
    places: Sequence[str],
    eu_political: bool,
    today: date,
) -> list[dict[str, Any]]:
    """One atomic mutate: budget, campaign, places and, where it bids by hand, a first ad group."""
    root = f"customers/{customer}"
    budget, campaign = f"{root}/campaignBudgets/-1", f"{root}/campaigns/-2"
    declared = "CONTAINS_EU_POLITICAL_ADVERTISING" if eu_political else "DOES_NOT_CONTAIN_EU_POLITICAL_ADVERTISING"
    wanted = {
        "resourceName": campaign,
        "name": spec.name,
        "status": "PAUSED",
        "advertisingChannelType": channel,
        "campaignBudget": budget,
        "containsEuPoliticalAdvertising": declared,
        "startDateTime": f"{max(spec.starts, today)} 00:00:00",  # Google begins nothing in the past
        "endDateTime": f"{spec.ends} 23:59:59",
        "networkSettings": {
            "targetGoogleSearch": channel == "SEARCH",
            "targetSearchNetwork": False,
            "targetContentNetwork": channel == "DISPLAY",
        },
        **bidding(strategy, spec.bid),
    }
    operations: list[dict[str, Any]] = [
        {
            "campaignBudgetOperation": {
                "create": {
                    "resourceName": budget,
                    "amountMicros": str(spec.daily_budget),
                    "deliveryMethod": "STANDARD",
                    "explicitlyShared": False,
                }
            }
        },
        {"campaignOperation": {"create": wanted}},
    ]
    operations += [
        {"campaignCriterionOperation": {"create": {"campaign": campaign, "location": {"geoTargetConstant": place}}}}
        for place in places
    ]
    if strategy == MANUAL_CPC and spec.bid:
        group = {
            "name": spec.name,
            "campaign": campaign,
            "status": "ENABLED",
            "type": f"{channel}_STANDARD",
            "cpcBidMicros": str(spec.bid),
        }
        operations.append({"adGroupOperation": {"create": group}})
    return operations


def bidding(strategy: str, bid: int | None) -> dict[str, Any]:
    """How a campaign bids."""
    if strategy == MANUAL_CPC:
        return {"manualCpc": {}}
    field, amount = BID_FIELDS[strategy]
    return {field: {amount: str(bid)} if bid else {}}


def conversion(value: ValueUpload, currency: str, *, customer: str, action: str, click_id: str) -> dict[str, Any]:
    """What a conversion was worth, with the consent that it rests on."""
    moment = datetime.fromtimestamp(value.at // SECOND, UTC)
    return {
        click_id: value.click,
        "conversionAction": f"customers/{customer}/conversionActions/{action}",
        "conversionDateTime": moment.strftime("%Y-%m-%d %H:%M:%S+00:00"),
        "conversionValue": whole_currency(value.value),
        "currencyCode": currency,
        "orderId": value.order,
        "consent": {"adUserData": "GRANTED"},
    }
