"""What X is told of a campaign and its line item. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from kiki.clock import to_datetime
from kiki.flow.plan import Objective
from kiki.flow.platform import CampaignSpec, ValueUpload
from kiki.flow.platforms.ad_account import AboutAccount, day_start
from kiki.flow.platforms.amounts import whole_currency, wrong_amounts
from kiki.flow.platforms.campaign_settings import CampaignSettings
from kiki.outbound.outcome import Outcome

NAME_MAX: Final = 255
OBJECTIVES: Final[Mapping[Objective, str]] = {
    Objective.AWARENESS: "REACH",
    Objective.TRAFFIC: "WEBSITE_CLICKS",
    Objective.LEADS: "WEBSITE_CLICKS",
    Objective.SALES: "WEBSITE_CLICKS",
    Objective.APP: "APP_INSTALLS",
}
_WORD: Final = r"[A-Z][A-Z0-9_]{0,39}"
_WORD_ACCEPTED: Final = "write a word of X's reference such as REACH"


def campaign_params(spec: CampaignSpec, funding: str) -> dict[str, str]:
    """A campaign, paused, with its budget."""
    return {
        "name": spec.name,
        "funding_instrument_id": funding,
        "daily_budget_amount_local_micro": str(spec.daily_budget),
        "budget_optimization": "CAMPAIGN",
        "entity_status": "PAUSED",
        "standard_delivery": "true",
    }


def line_item(spec: CampaignSpec, about: AboutAccount) -> dict[str, str] | Outcome:
    """The line item, or why the campaign cannot be made."""
    settings = CampaignSettings(spec.settings)
    objective = settings.text("objective", OBJECTIVES[Objective(spec.objective)], _WORD, _WORD_ACCEPTED)
    parts = {
        "objective": objective,
        "product_type": settings.text("product_type", "PROMOTED_TWEETS", _WORD, _WORD_ACCEPTED),
        "placements": settings.text("placements", "ALL_ON_TWITTER", rf"{_WORD}(,{_WORD})*", _WORD_ACCEPTED),
    }
    for name in ("goal", "pay_by"):
        word = settings.text(name, "", f"({_WORD})?", _WORD_ACCEPTED)
        if word:
            parts[name] = word
    apps = [
        (name, settings.text(name, "", r"[A-Za-z0-9._]{0,150}", "write the app's id in its store"))
        for name in ("ios_app_store_identifier", "android_app_store_identifier")
    ]
    parts |= {name: app for name, app in apps if app}
    if objective.startswith("APP_") and not any(app for _, app in apps):
        settings.wrong("a campaign for an app needs 'ios_app_store_identifier' or 'android_app_store_identifier'")
    settings.name(spec.name, NAME_MAX, "X")
    wrong = settings.refusal or wrong_amounts(about.currency, spec.daily_budget, spec.bid)
    if wrong is not None:
        return wrong
    bid = {"bid_strategy": "AUTO"}
    if spec.bid is not None:
        bid = {"bid_strategy": "MAX", "bid_amount_local_micro": str(spec.bid)}
    ends = day_start(spec.ends + timedelta(days=1), about.time_zone)
    return {
        **parts,
        **bid,
        "name": spec.name,
        # Without its countries it would be shown in all.
        "entity_status": "PAUSED" if spec.countries else "ACTIVE",
        "start_time": day_start(spec.starts, about.time_zone).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "end_time": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def conversion(value: ValueUpload, currency: str, event: str) -> dict[str, Any]:
    """What a conversion was worth."""
    return {
        "conversion_time": to_datetime(value.at).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        "event_id": event,
        "identifiers": [{"twclid": value.click}],
        "conversion_id": value.order,
        "price_currency": currency,
        "value": whole_currency(value.value),
    }
