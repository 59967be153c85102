"""The adapter of TikTok: its Business API, with the budget on the campaign and one ad group.

Campaigns for sales and leads are made in Smart+, which is where TikTok lets such campaigns be made from 2027 on; all others
by its manual interface. Every creation carries a request id that follows from the idempotency key: one that TikTok has seen
is read back instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, ClassVar, Final, TypeVar

import msgspec

from kiki.clock import SECOND
from kiki.flow.plan import Account, Objective
from kiki.flow.platform import CampaignSpec, CampaignState, Limits, SpendReport, Twin, ValueUpload
from kiki.flow.platforms.ad_account import (
    PAGES_MAX,
    AboutAccount,
    AdAccount,
    Fates,
    about_account,
    each_of,
    endless,
    fates_of,
    foremost,
    read_back,
    shown_campaign,
    shown_report,
    unfinished,
)
from kiki.flow.platforms.amounts import (
    exact_micros,
    json_request,
    json_text,
    total_billed,
    whole_count,
    whole_currency,
)
from kiki.flow.platforms.credentials import Credentials
from kiki.flow.platforms.tiktok_campaign import (
    MANUAL,
    PLACEMENTS,
    PURPOSES,
    SMART,
    Purpose,
    ad_group_body,
    bid_field_of,
    campaign_body,
    event_body,
    wrong_spec,
)
from kiki.flow.platforms.tiktok_reply import (
    AdGroupFields,
    AdvertiserFields,
    CampaignFields,
    Envelope,
    MadeAdGroup,
    MadeCampaign,
    Page,
    Regions,
    ReportRow,
    judge,
)
from kiki.money import MICROS
from kiki.outbound.exchange import CONFLICT, INVALID, NOT_FOUND, Request
from kiki.outbound.line import Line
from kiki.outbound.oauth import FixedToken
from kiki.outbound.outcome import Outcome, done, refused, unknown

Kind = TypeVar("Kind")

URL: Final = "https://business-api.tiktok.com"
VERSION: Final = "v1.3"
PER_MINUTE: Final = 600
UPLOAD_MAX: Final = 1000
PAGE: Final = 100
LIMITS: Final = Limits(
    overdelivery=1.25, report_hours=48, timeout_seconds=60.0, late_seconds=900.0, values_again_hours=48
)
BUDGET_MIN_USD: Final = 50 * MICROS
"""Of a campaign, a day; TikTok has other sums for other currencies, and refuses what is less."""

SETTINGS: Final = ("version", "pixel", "pixel_code", "value_event", "per_minute")
_CAMPAIGN: Final = ("campaign_id", "campaign_name", "operation_status", "secondary_status", "budget")
_AD_GROUP: Final = ("adgroup_id", "bid_type", "bid_price", "conversion_bid_price", "secondary_status")


class _Found(msgspec.Struct):
    """A campaign, and by which interface it is written to."""

    shown: CampaignFields
    by: str


class TikTok(AdAccount):
    """See `Platform`."""

    NAME: ClassVar[str] = "tiktok"
    CAMPAIGN_ID: ClassVar[re.Pattern[str]] = re.compile(r"[0-9]{1,25}")

    def __init__(self, advertiser: str, line: Line, settings: Mapping[str, str]) -> None:
        super().__init__(advertiser, line, LIMITS)
        self._settings = settings

    @classmethod
    def open(cls, account: Account, environ: Mapping[str, str]) -> TikTok:
        """See `Adapter`."""
        told = Credentials(cls.NAME, account, environ)
        advertiser = told.account(r"[0-9]{5,25}", "write the advertiser id, digits alone")
        token = told.secret("TIKTOK_ACCESS_TOKEN", "a long-term access token of your app for this advertiser")
        url = told.address("TIKTOK_URL", URL)
        version = told.setting("version", VERSION, r"v[0-9]\.[0-9]", "write a version of the API, such as v1.3")
        settings = {
            "pixel": told.setting("pixel", "", r"|[0-9]{1,25}", "write the pixel's id, digits alone"),
            "pixel_code": told.setting(
                "pixel_code", "", r"|[A-Z0-9]{1,40}", "write the pixel's code, as in its script"
            ),
            "value_event": told.setting("value_event", "CompletePayment", r"[A-Za-z]{1,40}", "write an event's name"),
        }
        per_minute = told.per_minute(PER_MINUTE)
        told.settings_known(SETTINGS)
        told.require()
        line = Line(
            f"{url}/open_api/{version}",
            authorization=FixedToken(token, header="Access-Token", scheme=""),
            judge=judge,
            per_minute=per_minute,
            timeout_seconds=LIMITS.timeout_seconds,
        )
        return cls(advertiser, line, settings)

    async def lookup(self, name: str) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        found = await self._campaigns({"campaign_name": name, "primary_status": "STATUS_ALL"})
        if isinstance(found, Outcome):
            return found
        named = [each for each in found if each.shown.campaign_name == name]
        if not named:
            return done()
        chosen, twins = foremost(
            named,
            lambda each: Twin(id=each.shown.campaign_id, status=each.shown.status),
            lambda each: int(each.shown.campaign_id),
        )
        groups = await self._ad_groups(chosen)
        if isinstance(groups, Outcome):
            return groups
        return shown_campaign(self._state(chosen, groups, about), twins)

    async def ensure_campaign(self, spec: CampaignSpec, key: str) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        wrong = wrong_spec(spec, about.currency, self._settings["pixel"])
        if wrong is not None:
            return wrong
        campaign = unfinished(await self.lookup(spec.name))
        if isinstance(campaign, Outcome):
            return campaign
        purpose = PURPOSES[Objective(spec.objective)]
        places = await self._places(spec.countries, purpose)
        if isinstance(places, Outcome):
            return places
        if not campaign:
            body = campaign_body(spec, purpose, self.account, key)
            made = await self._post(f"{purpose.by}campaign/create/", body, MadeCampaign)
            if isinstance(made, Outcome):
                return await self._taken_before(made, spec.name)
            campaign = made.campaign_id
        body = ad_group_body(
            spec,
            purpose,
            key,
            advertiser=self.account,
            campaign=campaign,
            places=places,
            pixel=self._settings["pixel"],
            time_zone=about.time_zone,
            now=datetime.fromtimestamp(self._clock() / SECOND, UTC),
        )
        group = await self._post(f"{purpose.by}adgroup/create/", body, MadeAdGroup)
        if isinstance(group, Outcome):
            return await self._taken_before(group, spec.name)
        return read_back(await self.lookup(spec.name))

    async def set_budget(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`."""
        found = await self._to_be_set(campaign, micros)
        if isinstance(found, Outcome):
            return found
        body = {"advertiser_id": self.account, "campaign_id": campaign, "budget": whole_currency(micros)}
        return await self._set(f"{found.by}campaign/update/", body)

    async def set_bid(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`."""
        found = await self._to_be_set(campaign, micros)
        if isinstance(found, Outcome):
            return found
        groups = await self._ad_groups(found)
        if isinstance(groups, Outcome):
            return groups
        if not groups:
            return refused(INVALID, "not sent: the campaign has no ad group to bid for")

        async def bid(group: AdGroupFields) -> Outcome:
            body = {
                "advertiser_id": self.account,
                "adgroup_id": group.adgroup_id,
                bid_field_of(found.by): whole_currency(micros),
            }
            if found.by == MANUAL and group.bid_type == "BID_TYPE_NO_BID":
                body["bid_type"] = "BID_TYPE_CUSTOM"
            return await self._set(f"{found.by}adgroup/update/", body)

        return await each_of(groups, "ad groups have the bid", bid)

    async def pause(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._set_status(campaign, "DISABLE")

    async def resume(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._set_status(campaign, "ENABLE")

    async def archive(self, campaign: str, key: str) -> Outcome:
        """See `Platform`. TikTok calls it deleted, and still shows it."""
        return await self._set_status(campaign, "DELETE")

    async def spend_report(self, campaign: str, day: date) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        wrong = about if isinstance(about, Outcome) else self.no_id(campaign)
        if wrong is not None:
            return wrong
        assert isinstance(about, AboutAccount)
        asked = {
            "report_type": "BASIC",
            "data_level": "AUCTION_CAMPAIGN",
            "dimensions": json_text(["campaign_id", "stat_time_day"]),
            "metrics": json_text(["spend", "impressions", "clicks", "conversion"]),
            "start_date": str(day),
            "end_date": str(day),
            "filtering": json_text(
                [{"field_name": "campaign_ids", "filter_type": "IN", "filter_value": json_text([campaign])}]
            ),
        }
        rows = await self._all("report/integrated/get/", asked, ReportRow)
        if isinstance(rows, Outcome):
            return rows
        spent = total_billed(each.metrics.spend for each in rows)
        if isinstance(spent, Outcome):
            return spent
        return shown_report(
            SpendReport(
                day=day,
                spent=spent,
                impressions=sum(whole_count(each.metrics.impressions) for each in rows),
                clicks=sum(whole_count(each.metrics.clicks) for each in rows),
                conversions=sum(whole_count(each.metrics.conversion) for each in rows),
                final=self.is_final(day, about.time_zone),
            )
        )

    async def upload_values(self, campaign: str, values: Sequence[ValueUpload], key: str) -> Outcome:
        """See `Platform`."""
        return await self.upload(values, UPLOAD_MAX, self._send_values)

    async def _send_values(self, batch: Sequence[ValueUpload], currency: str) -> Fates | Outcome:
        if not self._settings["pixel_code"]:
            return refused(INVALID, "not sent: the plan's setting 'pixel_code' says where events go")
        body = {
            "event_source": "web",
            "event_source_id": self._settings["pixel_code"],
            "data": [event_body(each, currency, self._settings["value_event"]) for each in batch],
        }
        taken = await self._set("event/track/", body)
        return fates_of(batch) if taken.is_done else taken

    # -- below ---------------------------------------------------------------------------------------

    async def _ask_about(self) -> AboutAccount | Outcome:
        asked = {
            "advertiser_ids": json_text([self.account]),
            "fields": json_text(["currency", "timezone", "display_timezone"]),
        }
        told = await self._get("advertiser/info/", asked, Page[AdvertiserFields])
        if isinstance(told, Outcome):
            return told
        if not told.items:
            return refused(NOT_FOUND, f"TikTok shows no advertiser {self.account}")
        if told.items[0].currency == "USD":
            self._limits = msgspec.structs.replace(self._limits, budget_min=BUDGET_MIN_USD)
        return about_account(told.items[0].currency, told.items[0].display_timezone or told.items[0].timezone)

    async def _places(self, countries: Sequence[str], purpose: Purpose) -> list[str] | Outcome:
        """TikTok's own ids of countries."""
        asked = {
            "advertiser_id": self.account,
            "placements": json_text(PLACEMENTS),
            "objective_type": purpose.objective,
            "level_range": "TO_COUNTRY",
        }
        told = await self._get("tool/region/", asked, Regions)
        if isinstance(told, Outcome):
            return told
        found = {each.region_code: each.location_id for each in told.region_info if each.level in {"", "COUNTRY"}}
        missing = [each for each in countries if each not in found]
        if missing:
            return refused(INVALID, f"not sent: TikTok does not deliver to {', '.join(missing)} from this account")
        return [found[each] for each in countries]

    async def _campaigns(self, filtering: Mapping[str, Any]) -> list[_Found] | Outcome:
        """Campaigns of both interfaces; one that both show belongs to Smart+."""
        asked = {"advertiser_id": self.account, "filtering": json_text(filtering), "fields": json_text(_CAMPAIGN)}
        found: dict[str, _Found] = {}
        for by in (MANUAL, SMART):
            shown = await self._all(f"{by}campaign/get/", asked, CampaignFields)
            if isinstance(shown, Outcome):
                return shown
            found |= {each.campaign_id: _Found(each, by) for each in shown}
        return list(found.values())

    async def _campaign(self, campaign: str) -> _Found | Outcome:
        wrong = self.no_id(campaign)
        if wrong is not None:
            return wrong
        found = await self._campaigns({"campaign_ids": [campaign]})
        if isinstance(found, Outcome):
            return found
        return found[0] if found else refused(NOT_FOUND, f"the account has no campaign {campaign}")

    async def _to_be_set(self, campaign: str, micros: int) -> _Found | Outcome:
        """The campaign as it is, for an amount that its currency can say."""
        return await self.wrong_amount(micros) or await self._campaign(campaign)

    async def _ad_groups(self, found: _Found) -> list[AdGroupFields] | Outcome:
        asked = {
            "advertiser_id": self.account,
            "filtering": json_text({"campaign_ids": [found.shown.campaign_id]}),
            "fields": json_text(_AD_GROUP),
        }
        groups = await self._all(f"{found.by}adgroup/get/", asked, AdGroupFields)
        return groups if isinstance(groups, Outcome) else [each for each in groups if not each.is_deleted]

    def _state(self, found: _Found, groups: Sequence[AdGroupFields], about: AboutAccount) -> CampaignState:
        shown = found.shown
        bids = {each.bid(bid_field_of(found.by)) for each in groups}
        bid = bids.pop() if len(bids) == 1 else None
        return CampaignState(
            id=shown.campaign_id,
            name=shown.campaign_name,
            status=shown.status,
            daily_budget=exact_micros(shown.budget) if shown.budget is not None else None,
            bid=bid,
            currency=about.currency,
            account=self.account,
            whole=bool(groups),
        )

    async def _taken_before(self, answer: Outcome, name: str) -> Outcome:
        """A creation that TikTok has seen before is read back; any other answer stays as it is."""
        if answer.code != CONFLICT:
            return answer
        found = await self.lookup(name)
        return found if "campaign" in found.value else unknown(CONFLICT, "taken before, and not to be seen yet")

    async def _set_status(self, campaign: str, word: str) -> Outcome:
        found = await self._campaign(campaign)
        if isinstance(found, Outcome):
            return found
        if found.shown.is_deleted:
            return refused(INVALID, "not sent: the campaign has been deleted")
        body = {"advertiser_id": self.account, "campaign_ids": [campaign], "operation_status": word}
        return await self._set(f"{found.by}campaign/status/update/", body)

    async def _set(self, path: str, body: Mapping[str, Any]) -> Outcome:
        answer = await self._post(path, body, msgspec.Raw)
        return answer if isinstance(answer, Outcome) else done()

    async def _post(self, path: str, body: Mapping[str, Any], kind: type[Kind]) -> Kind | Outcome:
        return await self._data(kind, json_request("POST", path, body, write=True))

    async def _get(self, path: str, asked: Mapping[str, str], kind: type[Kind]) -> Kind | Outcome:
        return await self._data(kind, Request(method="GET", path=path, write=False, params=asked))

    async def _data(self, kind: type[Kind], request: Request) -> Kind | Outcome:
        answer = await self.answer(Envelope[kind], request)  # type: ignore[valid-type]  # a type at run time
        return answer if isinstance(answer, Outcome) else answer.data

    async def _all(self, path: str, asked: Mapping[str, str], kind: type[Kind]) -> list[Kind] | Outcome:
        """All pages of a list."""
        found: list[Kind] = []
        whose = {} if "advertiser_id" in asked else {"advertiser_id": self.account}
        for number in range(1, PAGES_MAX + 1):
            paging = {"page": str(number), "page_size": str(PAGE)}
            page = await self._get(path, {**asked, **whose, **paging}, Page[kind])  # type: ignore[valid-type]
            if isinstance(page, Outcome):
                return page
            found += page.items
            if number >= page.page_info.total_page:
                return found
        return endless(path)
