"""What Microsoft is told of a campaign, its ad group and its countries. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from kiki.clock import to_datetime
from kiki.flow.plan import Objective
from kiki.flow.platform import CampaignSpec, ValueUpload
from kiki.flow.platforms.ad_account import AboutAccount
from kiki.flow.platforms.amounts import whole_currency, wrong_amounts
from kiki.flow.platforms.campaign_settings import CampaignSettings
from kiki.outbound.outcome import Outcome

AD_GROUP: Final = "kiki"
"""The name of the one ad group of a campaign of ours."""
NAME_MAX: Final = 128
LOCATIONS: Final[Mapping[str, str]] = {"US": "190", "CA": "32", "GB": "188"}
"""Ids of countries; of others the plan's `locations` tells."""
SCHEMES: Final[Mapping[Objective, str]] = {
    Objective.AWARENESS: "MaxClicks",
    Objective.TRAFFIC: "MaxClicks",
    Objective.LEADS: "MaxConversions",
    Objective.SALES: "MaxConversions",
}
"""How the platform bids by itself."""


def parts_of(spec: CampaignSpec, about: AboutAccount, zone: str) -> dict[str, Any] | Outcome:
    """What a campaign is made of, or why it cannot be made."""
    settings = CampaignSettings(spec.settings)
    kind = settings.word("campaign_type", "Search", ("Search", "Audience"))
    languages = settings.text("languages", "All", r"[A-Za-z]+(,[A-Za-z]+)*", "write languages such as English,French")
    given = settings.text(
        "locations", "", r"([0-9]{1,10}(,[0-9]{1,10})*)?", "write Microsoft's location ids, such as 190,32"
    )
    locations = [each for each in given.split(",") if each] or [LOCATIONS.get(each, "") for each in spec.countries]
    if "" in locations:
        named = ", ".join(each for each in spec.countries if each not in LOCATIONS)
        settings.wrong(f"Microsoft's ids of {named} are not known here; set 'locations' to them")
    settings.name(spec.name, NAME_MAX, "Microsoft")
    objective = Objective(spec.objective)
    if objective not in SCHEMES:
        settings.wrong(f"campaigns for {objective} are not made here; the objectives are {', '.join(SCHEMES)}")
    wrong = settings.refusal or wrong_amounts(about.currency, spec.daily_budget, spec.bid)
    if wrong is not None:
        return wrong
    group: dict[str, Any] = {
        "Name": AD_GROUP,
        # Without its countries it would be shown in all.
        "Status": "Paused" if locations else "Active",
        "StartDate": plain_date(spec.starts),
        "EndDate": plain_date(spec.ends),
    }
    if spec.bid is not None:
        group["CpcBid"] = {"Amount": whole_currency(spec.bid)}
    campaign = {
        "Name": spec.name,
        "Status": "Paused",
        "CampaignType": kind,
        "BudgetType": "DailyBudgetStandard",
        "DailyBudget": whole_currency(spec.daily_budget),
        "BiddingScheme": {"Type": "EnhancedCpc" if spec.bid is not None else SCHEMES[objective]},
        "Languages": languages.split(","),
        "TimeZone": zone,
    }
    return {"campaign": campaign, "group": group, "locations": locations}


def location(campaign: str, location: str) -> dict[str, Any]:
    """A country that a campaign is shown in."""
    return {
        "Type": "BiddableCampaignCriterion",
        "CampaignId": campaign,
        "Criterion": {"Type": "LocationCriterion", "LocationId": location},
        "CriterionBid": {"Type": "BidMultiplier", "Multiplier": 0.0},
    }


def plain_date(day: date) -> dict[str, int]:
    """A day of a schedule or a report."""
    return {"Day": day.day, "Month": day.month, "Year": day.year}


def conversion(value: ValueUpload, currency: str, goal: str) -> dict[str, Any]:
    """What a conversion was worth."""
    return {
        "MicrosoftClickId": value.click,
        "ConversionName": goal,
        "ConversionTime": to_datetime(value.at).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ConversionValue": whole_currency(value.value),
        "ConversionCurrencyCode": currency,
    }
