"""Amazon Ads: Sponsored Products over the unified API version 1, reports over version 3. Money there is whole currency.

A campaign has one ad group, which carries the bid. Every write answers 207 with three lists; which of them holds what was
sent is the outcome. A report takes up to three hours to make and holds a day of every campaign of the profile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any, ClassVar, Final, NamedTuple, Self, TypeVar

import msgspec

from kiki.clock import Clock, to_datetime, wall_micros
from kiki.flow.plan import Account
from kiki.flow.platform import CampaignSpec, CampaignState, Limits, SpendReport, Twin, ValueUpload
from kiki.flow.platforms.ad_account import (
    PAGES_MAX,
    AboutAccount,
    AdAccount,
    about_account,
    day_start,
    endless,
    foremost,
    read_back,
    shown_campaign,
    shown_report,
    unfinished,
)
from kiki.flow.platforms.amazon_reply import (
    AdGroup,
    AdGroups,
    Billed,
    Campaigns,
    CampaignShown,
    MadeAdGroup,
    MadeCampaign,
    Ordered,
    Profile,
    billed,
    judge,
    taken,
)
from kiki.flow.platforms.amounts import dump, exact_micros, json_request, whole_currency, wrong_amounts
from kiki.flow.platforms.campaign_settings import CampaignSettings
from kiki.flow.platforms.credentials import Credentials
from kiki.flow.platforms.day_reports import DayReports
from kiki.flow.platforms.downloads import Downloads
from kiki.outbound.exchange import CONFLICT, NOT_FOUND, SERVER_ERROR, UNSUPPORTED, Request
from kiki.outbound.line import Line
from kiki.outbound.oauth import OAuth2
from kiki.outbound.outcome import Outcome, done, refused

Kind = TypeVar("Kind")


class Region(NamedTuple):
    """Where advertisers of a part of the world are."""

    url: str
    token_url: str


REGIONS: Final[Mapping[str, Region]] = {
    "NA": Region("https://advertising-api.amazon.com", "https://api.amazon.com/auth/o2/token"),
    "EU": Region("https://advertising-api-eu.amazon.com", "https://api.amazon.co.uk/auth/o2/token"),
    "FE": Region("https://advertising-api-fe.amazon.com", "https://api.amazon.co.jp/auth/o2/token"),
}
VERSION: Final = "v1"
LIMITS: Final = Limits(overdelivery=2.0, budget_min=1_000_000, report_hours=72)
PRODUCT: Final = "SPONSORED_PRODUCTS"
AD_GROUP: Final = "kiki"
"""The name of the one ad group of a campaign of ours."""
NAME_MAX: Final = 128
PAGE: Final = 100
REPORT_HEADERS: Final = {"Content-Type": "application/vnd.createasyncreportrequest.v3+json"}
COLUMNS: Final = ("date", "campaignId", "cost", "impressions", "clicks", "purchases14d", "sales14d")

_DUPLICATE: Final = re.compile(rb"duplicate of\s*:\s*([0-9a-f-]{36})")


class Amazon(AdAccount):
    """See `Platform`. `open` makes one. The account is an advertising profile: one advertiser in one marketplace."""

    NAME: ClassVar[str] = "amazon"
    CAMPAIGN_ID: ClassVar[re.Pattern[str]] = re.compile(r"[0-9A-Za-z_-]{1,64}")

    def __init__(
        self, account: str, line: Line, *, url: str, version: str = VERSION, clock: Clock = wall_micros
    ) -> None:
        super().__init__(account, line, LIMITS, clock=clock)
        self._version = version
        self._country = ""
        self._downloads = Downloads(url)
        self._reports = DayReports[Billed](self._order, self._look, clock)

    @classmethod
    def open(cls, account: Account, environ: Mapping[str, str]) -> Self:
        """See `Adapter`."""
        told = Credentials(cls.NAME, account, environ)
        client_id = told.text("AMAZON_ADS_CLIENT_ID", "the client id of Login with Amazon")
        client_secret = told.secret("AMAZON_ADS_CLIENT_SECRET", "its client secret")
        refresh = told.secret("AMAZON_ADS_REFRESH_TOKEN", "the refresh token of a user of the profile")
        named = told.setting(
            "region", "NA", "|".join(REGIONS), f"write one of {', '.join(REGIONS)}", environ="AMAZON_ADS_REGION"
        )
        region = REGIONS.get(named, REGIONS["NA"])
        url = told.address("AMAZON_ADS_URL", region.url)
        token_url = told.address("AMAZON_ADS_TOKEN_URL", region.token_url)
        version = told.setting(
            "version", VERSION, r"v[0-9]{1,3}", "write a version such as v1", environ="AMAZON_ADS_VERSION"
        )
        accepted = "write the account's id such as amzn1.ads-account.g.abc"
        ads_account = told.setting("ads_account", "", r"[A-Za-z0-9._-]{0,100}", accepted)
        profile = told.account(r"[0-9]{1,20}", "write the profile's id, which is a number")
        per_minute = told.per_minute()
        told.settings_known({"region", "version", "ads_account", "per_minute"})
        told.require()
        # Version 1 and the reports know the application under different names.
        headers = {
            "Amazon-Ads-ClientId": client_id,
            "Amazon-Advertising-API-ClientId": client_id,
            "Amazon-Advertising-API-Scope": profile,
            **({"Amazon-Ads-AccountId": ads_account} if ads_account else {}),
        }
        line = Line(
            url,
            authorization=OAuth2(token_url, client_id, client_secret, refresh),
            headers=headers,
            judge=judge,
            per_minute=per_minute,
            timeout_seconds=LIMITS.timeout_seconds,
        )
        return cls(profile, line, url=url, version=version)

    async def close(self) -> None:
        """See `Platform`."""
        await self._downloads.close()
        await super().close()

    async def _ask_about(self) -> AboutAccount | Outcome:
        profile = await self.answer(Profile, Request(method="GET", path=f"v2/profiles/{self.account}", write=False))
        if isinstance(profile, Outcome):
            return profile
        self._country = profile.country_code
        return about_account(profile.currency_code, profile.timezone)

    async def lookup(self, name: str) -> Outcome:
        """See `Platform`. One that was archived counts only when there is no other."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        found = await self._query(Campaigns, "campaigns", {"nameFilter": _exactly(name)})
        if isinstance(found, Outcome):
            return found
        same = [each for page in found for each in page.campaigns if each.name == name]
        if not same:
            return done()
        chosen, twins = foremost(same, lambda each: Twin(id=each.campaign_id, status=each.status))
        group = await self._ad_group(chosen.campaign_id)
        if isinstance(group, Outcome):
            return group
        return shown_campaign(self._state(chosen, group, about), twins)

    async def ensure_campaign(self, spec: CampaignSpec, key: str) -> Outcome:
        """See `Platform`. Without a bid no ad group is made: Amazon has none that bids by itself."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        wrong = self._wrong_spec(spec) or wrong_amounts(about.currency, spec.daily_budget, spec.bid)
        if wrong is not None:
            return wrong
        campaign = unfinished(await self.lookup(spec.name))
        if isinstance(campaign, Outcome):
            return campaign
        if not campaign:
            made = await self._write(MadeCampaign, "create/campaigns", {"campaigns": [self._campaign(spec, about)]})
            if isinstance(made, Outcome):
                return await self.taken_since(made, spec.name)
            campaign = made.campaign.campaign_id
        failure = await self._complete(campaign, spec)
        return read_back(await self.lookup(spec.name)) if failure is None else failure

    async def set_budget(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`."""
        wrong = await self.wrong_amount(micros)
        return wrong or await self._update(campaign, {"budgets": [_budget(micros)]})

    async def set_bid(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`. The default bid for a click in the campaign's own ad group."""
        wrong = await self.wrong_amount(micros) or self.no_id(campaign)
        if wrong is not None:
            return wrong
        group = await self._ad_group(campaign)
        if isinstance(group, Outcome):
            return group
        if group is None:
            return refused(NOT_FOUND, f"campaign {campaign} has no ad group {AD_GROUP!r}")
        change = {"adGroupId": group.ad_group_id, "bid": {"defaultBid": whole_currency(micros)}}
        put = await self._write(MadeAdGroup, "update/adGroups", {"adGroups": [change]})
        return put if isinstance(put, Outcome) else done()

    async def pause(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._update(campaign, {"state": "PAUSED"})

    async def resume(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._update(campaign, {"state": "ENABLED"})

    async def spend_report(self, campaign: str, day: date) -> Outcome:
        """See `Platform`. `not_ready` until the day's report is made; a campaign without a row in it cost nothing."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        wrong = self.no_id(campaign)
        if wrong is not None:
            return wrong
        rows = await self._reports.rows(day)
        if isinstance(rows, Outcome):
            return rows
        row = rows.get(campaign) or Billed(0, 0, 0, 0, 0)
        final = self.is_final(day, about.time_zone)
        return shown_report(SpendReport(day=day, final=final, **msgspec.structs.asdict(row)))

    async def upload_values(self, campaign: str, values: Sequence[ValueUpload], key: str) -> Outcome:
        """See `Platform`. Amazon's events are matched by persons, not by clicks, and so are not offered."""
        return refused(UNSUPPORTED, "not sent: Amazon takes no values by click id")

    # -- campaigns -----------------------------------------------------------------------------------

    def _wrong_spec(self, spec: CampaignSpec) -> Outcome | None:
        settings = CampaignSettings(spec.settings)
        settings.flag("automatic_targets", default=False, meaning="Amazon chooses what the ads are shown beside")
        settings.name(spec.name, NAME_MAX, "Amazon")
        elsewhere = [each for each in spec.countries if each != self._country]
        if elsewhere:
            settings.wrong(
                f"the profile sells in {self._country}, not in {', '.join(elsewhere)}; each country has its own"
            )
        return settings.refusal

    def _campaign(self, spec: CampaignSpec, about: AboutAccount) -> dict[str, Any]:
        starts = day_start(spec.starts, about.time_zone)
        ends = day_start(spec.ends + timedelta(days=1), about.time_zone) - timedelta(seconds=1)
        return {
            "adProduct": PRODUCT,
            "name": spec.name,
            "state": "PAUSED",
            "marketplaceScope": "SINGLE_MARKETPLACE",
            # What began already begins now: Amazon takes no moment of the past.
            "startDateTime": max(starts, to_datetime(self._clock())).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "endDateTime": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "autoCreationSettings": {"autoCreateTargets": bool(spec.settings.get("automatic_targets", False))},
            "budgets": [_budget(spec.daily_budget)],
        }

    async def _complete(self, campaign: str, spec: CampaignSpec) -> Outcome | None:
        """The ad group, if it is not there; why not, if that fails."""
        if spec.bid is None:
            return None
        group = await self._ad_group(campaign)
        if group is not None:
            return group if isinstance(group, Outcome) else None
        wanted = {
            "adProduct": PRODUCT,
            "campaignId": campaign,
            "name": AD_GROUP,
            "state": "ENABLED",
            "bid": {"defaultBid": whole_currency(spec.bid)},
        }
        made = await self._write(MadeAdGroup, "create/adGroups", {"adGroups": [wanted]})
        return made if isinstance(made, Outcome) and made.code != CONFLICT else None

    async def _ad_group(self, campaign: str) -> AdGroup | Outcome | None:
        asked = {"campaignIdFilter": {"include": [campaign]}, "nameFilter": _exactly(AD_GROUP)}
        found = await self._query(AdGroups, "adGroups", asked)
        if isinstance(found, Outcome):
            return found
        return next((each for page in found for each in page.ad_groups if each.name == AD_GROUP), None)

    def _state(self, campaign: CampaignShown, group: AdGroup | None, about: AboutAccount) -> CampaignState:
        bid = group.bid.default_bid if group is not None and group.bid is not None else None
        return CampaignState(
            id=campaign.campaign_id,
            name=campaign.name,
            status=campaign.status,
            daily_budget=campaign.daily_budget,
            bid=None if bid is None else exact_micros(bid),
            currency=about.currency,
            account=self.account,
            whole=group is not None,
        )

    async def _update(self, campaign: str, change: Mapping[str, Any]) -> Outcome:
        wrong = self.no_id(campaign)
        if wrong is not None:
            return wrong
        body = {"campaigns": [{"campaignId": campaign, **change}]}
        put = await self._write(MadeCampaign, "update/campaigns", body)
        return put if isinstance(put, Outcome) else done()

    # -- reports -------------------------------------------------------------------------------------

    async def _look(self, number: str, day: date) -> Mapping[str, Billed] | Outcome:
        """A report's rows, once it is made."""
        report = await self.answer(Ordered, Request(method="GET", path=f"reporting/reports/{number}", write=False))
        if isinstance(report, Outcome):
            return report
        if report.status in {"PENDING", "PROCESSING"}:
            return self._reports.pending()
        if report.status != "COMPLETED" or not report.url:
            return refused(SERVER_ERROR, f"the report ended as {report.status}: {report.failure_reason or ''}")
        file = await self._downloads.fetch(report.url)
        if isinstance(file, Outcome):
            return file
        rows = billed(file.content, str(day))
        return file.nonsense("no report in it") if rows is None else rows

    async def _order(self, day: date) -> str | Outcome:
        """The number of a report that Amazon begins to make; it changes nothing that costs money."""
        body = {
            "name": f"kiki {day}",
            "startDate": str(day),
            "endDate": str(day),
            "configuration": {
                "adProduct": PRODUCT,
                "reportTypeId": "spCampaigns",
                "groupBy": ["campaign"],
                "columns": list(COLUMNS),
                "timeUnit": "DAILY",
                "format": "GZIP_JSON",
            },
        }
        sent = Request(method="POST", path="reporting/reports", write=False, content=dump(body), headers=REPORT_HEADERS)
        reply = await self.line.send(sent)
        if isinstance(reply, Outcome):
            # 425: the same report is being made already, and the refusal names it.
            same = _DUPLICATE.search(reply.message.encode())
            return same[1].decode() if same is not None else reply
        ordered = reply.read(Ordered)
        return ordered if isinstance(ordered, Outcome) else ordered.report_id

    # -- calls ---------------------------------------------------------------------------------------

    async def _query(self, kind: type[Kind], what: str, filters: Mapping[str, Any]) -> list[Kind] | Outcome:
        """Everything that a query finds, page by page."""
        pages: list[Kind] = []
        token: str | None = ""
        for _ in range(PAGES_MAX):
            body = {"adProductFilter": {"include": [PRODUCT]}, **filters, "maxResults": PAGE}
            if token:
                body["nextToken"] = token
            page = await self.answer(kind, self._request(f"query/{what}", body, write=False))
            if isinstance(page, Outcome):
                return page
            pages.append(page)
            token = getattr(page, "next_token", None) or None
            if token is None:
                return pages
        return endless(f"query/{what}")

    async def _write(self, kind: type[Kind], path: str, body: Mapping[str, Any]) -> Kind | Outcome:
        reply = await self.line.send(self._request(path, body, write=True))
        return reply if isinstance(reply, Outcome) else taken(reply, kind)

    def _request(self, path: str, body: Mapping[str, Any], *, write: bool) -> Request:
        return json_request("POST", f"adsApi/{self._version}/{path}", body, write=write)


def _budget(micros: int) -> dict[str, Any]:
    return {
        "budgetType": "MONETARY",
        "budgetValue": {"monetaryBudgetValue": {"monetaryBudget": {"value": whole_currency(micros)}}},
        "recurrenceTimePeriod": "DAILY",
    }


def _exactly(name: str) -> dict[str, Any]:
    return {"include": [name], "queryTermMatchType": "EXACT_MATCH"}
