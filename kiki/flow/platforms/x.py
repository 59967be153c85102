"""X Ads, API version 12. Money there is `local_micro`: micros as they are here.

A campaign has one line item of its own name, which carries the bid, the days and the countries; it is active once they are
there, because a paused campaign lets nothing spend. Parameters of reads and of writes are in the query.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import ClassVar, Final, Self, TypeVar
from urllib.parse import quote

from kiki.clock import Clock, wall_micros
from kiki.flow.plan import Account
from kiki.flow.platform import CampaignSpec, CampaignState, Limits, SpendReport, Twin, ValueUpload
from kiki.flow.platforms.ad_account import (
    PAGES_MAX,
    AboutAccount,
    AdAccount,
    Fates,
    about_account,
    day_start,
    endless,
    fates_of,
    foremost,
    read_back,
    shown_campaign,
    shown_report,
    unfinished,
    zone_of,
)
from kiki.flow.platforms.amounts import json_request
from kiki.flow.platforms.credentials import Credentials
from kiki.flow.platforms.oauth1 import OAuth1
from kiki.flow.platforms.x_campaign import campaign_params, conversion, line_item
from kiki.flow.platforms.x_reply import (
    AccountShown,
    CampaignShown,
    FundingInstrument,
    LineItem,
    Location,
    Page,
    Stats,
    Targeting,
    Uploaded,
    data_of,
    judge,
    rates,
    total,
)
from kiki.outbound.exchange import INVALID, NOT_FOUND, UNSUPPORTED, Request
from kiki.outbound.line import Line
from kiki.outbound.outcome import Outcome, done, refused

Kind = TypeVar("Kind")

URL: Final = "https://ads-api.x.com"
VERSION: Final = "12"
PAGE: Final = 1000
UPLOAD_MAX: Final = 500

PLACEMENTS: Final = ("ALL_ON_TWITTER", "PUBLISHER_NETWORK")
"""Where money is spent; X reports each by itself."""
LIMITS: Final = Limits(overdelivery=1.2, report_hours=72, values_again_hours=0)


class X(AdAccount):
    """See `Platform`. `open` makes one."""

    NAME: ClassVar[str] = "x"

    def __init__(
        self,
        account: str,
        line: Line,
        *,
        funding_instrument: str = "",
        pixel: str = "",
        event: str = "",
        clock: Clock = wall_micros,
    ) -> None:
        super().__init__(account, line, LIMITS, clock=clock)
        self._funding_instrument = funding_instrument
        self._pixel = pixel
        self._event = event

    @classmethod
    def open(cls, account: Account, environ: Mapping[str, str]) -> Self:
        """See `Adapter`."""
        told = Credentials(cls.NAME, account, environ)
        consumer_key = told.text("X_ADS_CONSUMER_KEY", "the key of the application")
        consumer_secret = told.secret("X_ADS_CONSUMER_SECRET", "the secret of the application")
        token = told.text("X_ADS_ACCESS_TOKEN", "the access token of a user of the account")
        token_secret = told.secret("X_ADS_ACCESS_TOKEN_SECRET", "the secret of that token")
        url = told.address("X_ADS_URL", URL)
        ids = "write an id as X shows it"
        version = told.setting("version", VERSION, r"[0-9]{1,3}", "write a number such as 12", environ="X_ADS_VERSION")
        funding = told.setting("funding_instrument", "", r"[a-z0-9]{0,32}", ids)
        pixel = told.setting("pixel", "", r"[a-z0-9]{0,32}", ids)
        event = told.setting("event", "", r"(tw-[a-z0-9]+-[a-z0-9]+)?", "write an event's id such as tw-abc12-def34")
        name = told.account(r"[a-z0-9]{1,32}", "write the account's id, such as 18ce54d4x5t")
        per_minute = told.per_minute()
        told.settings_known({"version", "funding_instrument", "pixel", "event", "per_minute"})
        told.require()
        line = Line(
            f"{url}/{version}",
            authorization=OAuth1(consumer_key, consumer_secret, token, token_secret),
            judge=judge,
            rates=rates,
            per_minute=per_minute,
            timeout_seconds=LIMITS.timeout_seconds,
        )
        return cls(name, line, funding_instrument=funding, pixel=pixel, event=event)

    async def _ask_about(self) -> AboutAccount | Outcome:
        account = await self._one(AccountShown, "GET", "")
        if isinstance(account, Outcome):
            return account
        funding = await self._funding()
        return funding if isinstance(funding, Outcome) else about_account(funding.currency, account.timezone)

    async def _funding(self) -> FundingInstrument | Outcome:
        """What pays; the plan must say which when there are several."""
        found = await self._all(FundingInstrument, "funding_instruments")
        if isinstance(found, Outcome):
            return found
        wanted = self._funding_instrument
        able = [each for each in found if not each.deleted and (each.id == wanted if wanted else each.able_to_fund)]
        if not able:
            return refused(NOT_FOUND, f"the account has no funding instrument {wanted or 'that is able to fund'}")
        if len(able) > 1:
            named = ", ".join(each.id for each in able[:10])
            return refused(
                INVALID, f"the account has several funding instruments; set 'funding_instrument' to one of {named}"
            )
        return able[0]

    async def lookup(self, name: str) -> Outcome:
        """See `Platform`."""
        asked = {"q": name, "with_deleted": "true"}
        found = await self._all(CampaignShown, "campaigns", asked)
        if isinstance(found, Outcome):
            return found
        # X searches by the beginning of a name.
        same = [each for each in found if each.name == name]
        if not same:
            return done()
        chosen, twins = foremost(same, lambda each: Twin(id=each.id, status=each.status))
        item = await self._line_item(chosen)
        if isinstance(item, Outcome):
            return item
        return shown_campaign(self._state(chosen, item), twins)

    async def ensure_campaign(self, spec: CampaignSpec, key: str) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        parts = line_item(spec, about)
        if isinstance(parts, Outcome):
            return parts
        campaign = unfinished(await self.lookup(spec.name))
        if isinstance(campaign, Outcome):
            return campaign
        if not campaign:
            funding = await self._funding()
            if isinstance(funding, Outcome):
                return funding
            made = await self._one(CampaignShown, "POST", "campaigns", campaign_params(spec, funding.id))
            if isinstance(made, Outcome):
                return made
            campaign = made.id
        failure = await self._complete(campaign, spec, parts)
        return read_back(await self.lookup(spec.name)) if failure is None else failure

    async def set_budget(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`."""
        wrong = await self.wrong_amount(micros)
        return wrong or await self._put(campaign, {"daily_budget_amount_local_micro": str(micros)})

    async def set_bid(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`. The bid of the campaign's own line item."""
        wrong = await self.wrong_amount(micros)
        if wrong is not None:
            return wrong
        shown = await self._one(CampaignShown, "GET", f"campaigns/{_part(campaign)}")
        if isinstance(shown, Outcome):
            return shown
        item = await self._line_item(shown)
        if isinstance(item, Outcome):
            return item
        if item is None:
            return refused(NOT_FOUND, f"campaign {campaign} has no line item of its name")
        params = {"bid_amount_local_micro": str(micros), "bid_strategy": "MAX"}
        put = await self._one(LineItem, "PUT", f"line_items/{_part(item.id)}", params)
        return put if isinstance(put, Outcome) else done()

    async def pause(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._put(campaign, {"entity_status": "PAUSED"})

    async def resume(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._put(campaign, {"entity_status": "ACTIVE"})

    async def archive(self, campaign: str, key: str) -> Outcome:
        """See `Platform`. X calls it deleted, and still shows it to who asks for such."""
        ended = await self._one(CampaignShown, "DELETE", f"campaigns/{_part(campaign)}")
        return ended if isinstance(ended, Outcome) else done()

    async def spend_report(self, campaign: str, day: date) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        spent = impressions = clicks = 0
        for placement in PLACEMENTS:
            params = {
                "entity": "CAMPAIGN",
                "entity_ids": campaign,
                "start_time": _local(day, about.time_zone),
                "end_time": _local(day + timedelta(days=1), about.time_zone),
                "granularity": "DAY",
                "placement": placement,
                "metric_groups": "BILLING,ENGAGEMENT",
            }
            told = await self._data(list[Stats], "GET", f"stats/accounts/{self.account}", params)
            if isinstance(told, Outcome):
                return told
            # A campaign that X does not know of in its answer has not been counted: that is no zero.
            mine = [segment.metrics for stats in told if stats.id == campaign for segment in stats.id_data]
            if not mine:
                return refused(NOT_FOUND, f"the statistics have no campaign {campaign}")
            spent += total(each.billed_charge_local_micro for each in mine)
            impressions += total(each.impressions for each in mine)
            clicks += total(each.clicks for each in mine)
        final = self.is_final(day, about.time_zone)
        return shown_report(SpendReport(day=day, spent=spent, impressions=impressions, clicks=clicks, final=final))

    async def upload_values(self, campaign: str, values: Sequence[ValueUpload], key: str) -> Outcome:
        """See `Platform`. Needs the account's `pixel` and `event`."""
        if not self._pixel or not self._event:
            return refused(UNSUPPORTED, "not sent: values go to a pixel; set 'pixel' and 'event' of the account")
        return await self.upload(values, UPLOAD_MAX, self._send_values)

    # -- parts ---------------------------------------------------------------------------------------

    async def _complete(self, campaign: str, spec: CampaignSpec, parts: Mapping[str, str]) -> Outcome | None:
        """The line item and its countries, as far as they are not there; why not, if that fails."""
        values = await self._locations(spec.countries)
        if isinstance(values, Outcome):
            return values
        item = await self._line_item_of(campaign, spec.name)
        if isinstance(item, Outcome):
            return item
        if item is None:
            made = await self._one(LineItem, "POST", "line_items", {"campaign_id": campaign, **parts})
            if isinstance(made, Outcome):
                return made
            item = made
        there = await self._all(Targeting, "targeting_criteria", {"line_item_ids": item.id}) if values else []
        if isinstance(there, Outcome):
            return there
        known = {str(each.targeting_value) for each in there if each.targeting_type == "LOCATION"}
        for value in values:
            if value not in known:
                params = {"line_item_id": item.id, "targeting_type": "LOCATION", "targeting_value": value}
                added = await self._one(Targeting, "POST", "targeting_criteria", params)
                if isinstance(added, Outcome):
                    return added
        if item.entity_status == "ACTIVE":
            return None
        put = await self._one(LineItem, "PUT", f"line_items/{_part(item.id)}", {"entity_status": "ACTIVE"})
        return put if isinstance(put, Outcome) else None

    async def _locations(self, countries: Iterable[str]) -> list[str] | Outcome:
        """What X calls those countries."""
        values = []
        for country in countries:
            params = {"country_code": country, "location_type": "COUNTRIES"}
            told = await self._data(list[Location], "GET", "targeting_criteria/locations", params)
            if isinstance(told, Outcome):
                return told
            found = [each.targeting_value for each in told if each.country_code in {"", country}]
            if len(found) != 1:
                return refused(INVALID, f"not sent: X knows {len(found)} countries {country!r}")
            values.append(found[0])
        return values

    async def _line_item(self, campaign: CampaignShown) -> LineItem | Outcome | None:
        return await self._line_item_of(campaign.id, campaign.name, with_deleted=campaign.deleted)

    async def _line_item_of(self, campaign: str, name: str, *, with_deleted: bool = False) -> LineItem | Outcome | None:
        params = {"campaign_ids": campaign, "with_deleted": "true" if with_deleted else "false"}
        found = await self._all(LineItem, "line_items", params)
        if isinstance(found, Outcome):
            return found
        return next((each for each in found if each.name == name), None)

    def _state(self, campaign: CampaignShown, item: LineItem | None) -> CampaignState:
        return CampaignState(
            id=campaign.id,
            name=campaign.name,
            status=campaign.status,
            daily_budget=campaign.daily_budget_amount_local_micro,
            bid=item.bid_amount_local_micro if item is not None else None,
            currency=campaign.currency,
            account=self.account,
            # The line item is active once its countries are there.
            whole=item is not None and item.entity_status == "ACTIVE",
        )

    async def _send_values(self, batch: Sequence[ValueUpload], currency: str) -> Fates | Outcome:
        body = {"conversions": [conversion(each, currency, self._event) for each in batch]}
        sent = json_request("POST", f"measurement/conversions/{self._pixel}", body, write=True)
        taken = data_of(await self.line.send(sent), Uploaded)
        if isinstance(taken, Outcome):
            return taken
        # X counts, and names none: where some are missing nobody knows which.
        return fates_of(batch) if taken.conversions_processed == len(batch) else {}

    # -- calls ---------------------------------------------------------------------------------------

    async def _put(self, campaign: str, params: Mapping[str, str]) -> Outcome:
        put = await self._one(CampaignShown, "PUT", f"campaigns/{_part(campaign)}", params)
        return put if isinstance(put, Outcome) else done()

    async def _one(
        self, kind: type[Kind], method: str, path: str, params: Mapping[str, str] | None = None
    ) -> Kind | Outcome:
        """The one thing that a call below the account answers with."""
        return await self._data(kind, method, f"accounts/{self.account}/{path}".rstrip("/"), params or {})

    async def _data(self, kind: type[Kind], method: str, path: str, params: Mapping[str, str]) -> Kind | Outcome:
        request = Request(method=method, path=path, write=method != "GET", params=params)
        return data_of(await self.line.send(request), kind)

    async def _all(self, kind: type[Kind], path: str, params: Mapping[str, str] | None = None) -> list[Kind] | Outcome:
        """Everything that a list below the account holds, page by page."""
        found: list[Kind] = []
        cursor: str | None = ""
        for _ in range(PAGES_MAX):
            query = {**(params or {}), "count": str(PAGE), **({"cursor": cursor} if cursor else {})}
            request = Request(method="GET", path=f"accounts/{self.account}/{path}", write=False, params=query)
            reply = await self.line.send(request)
            if isinstance(reply, Outcome):
                return reply
            page = reply.read(Page[kind])  # type: ignore[valid-type]
            if isinstance(page, Outcome):
                return page
            found.extend(page.data)
            cursor = page.next_cursor or None
            if cursor is None:
                return found
        return endless(path)


def _local(day: date, time_zone: str) -> str:
    """Midnight in the account's own time zone, with its offset: X takes whole hours of it only."""
    return day_start(day, time_zone).astimezone(zone_of(time_zone)).isoformat()


def _part(text: str) -> str:
    return quote(text, safe="")
