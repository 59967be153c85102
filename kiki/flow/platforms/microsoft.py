"""Microsoft Advertising, API version 13, over its REST interface. Money there is a double of whole currency units.

A campaign has one ad group, which carries the bid. `BudgetPaused` is what the server does to a campaign that has spent its
budget; it goes on by itself the next month or day, so here it is an active campaign.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date
from typing import Any, ClassVar, Final, Self, TypeVar

from kiki.clock import Clock, wall_micros
from kiki.flow.plan import Account
from kiki.flow.platform import CampaignSpec, CampaignState, Limits, SpendReport, Twin, ValueUpload
from kiki.flow.platforms.ad_account import (
    AboutAccount,
    AdAccount,
    Fates,
    about_account,
    fates_of,
    foremost,
    read_back,
    shown_campaign,
    shown_report,
    unfinished,
)
from kiki.flow.platforms.amounts import exact_micros, json_request, whole_currency
from kiki.flow.platforms.credentials import Credentials
from kiki.flow.platforms.downloads import Downloads, unzipped
from kiki.flow.platforms.microsoft_campaign import AD_GROUP, conversion, location, parts_of, plain_date
from kiki.flow.platforms.microsoft_reply import (
    RATE_PAUSE,
    AccountAnswer,
    AdGroup,
    AdGroupIds,
    AdGroups,
    CampaignCriterions,
    CampaignIds,
    Campaigns,
    CampaignShown,
    CriterionIds,
    Polled,
    ReportStatus,
    Submitted,
    Updated,
    judge,
    partly,
    spend_of,
)
from kiki.flow.platforms.microsoft_zones import REPORT_ZONES, ZONES
from kiki.outbound.exchange import (
    CONFLICT,
    NOT_FOUND,
    NOT_READY,
    SERVER_ERROR,
    THROTTLED,
    UNREADABLE,
    UNSUPPORTED,
)
from kiki.outbound.line import Line
from kiki.outbound.oauth import OAuth2
from kiki.outbound.outcome import Outcome, done, refused, unknown

Kind = TypeVar("Kind")

CAMPAIGNS_URL: Final = "https://campaign.api.bingads.microsoft.com"
ACCOUNTS_URL: Final = "https://clientcenter.api.bingads.microsoft.com"
REPORTS_URL: Final = "https://reporting.api.bingads.microsoft.com"
TOKEN_URL: Final = "https://login.microsoftonline.com/common/oauth2/v2.0/token"
SCOPE: Final = "https://ads.microsoft.com/msads.manage offline_access"
VERSION: Final = "v13"
LIMITS: Final = Limits(overdelivery=2.0, budget_min=50_000, report_hours=72)

UPLOAD_MAX: Final = 1000
ALL_TYPES: Final = "Search, Shopping, DynamicSearchAds, Audience, Hotel, PerformanceMax, App"

POLLS: Final = (1.0, 2.0, 4.0)
"""Seconds between looks at a report; what takes longer is asked for again at the next call."""
ASKED_MAX: Final = 1000


class Microsoft(AdAccount):
    """See `Platform`. `open` makes one."""

    NAME: ClassVar[str] = "microsoft"

    def __init__(
        self,
        account: str,
        line: Line,
        *,
        urls: tuple[str, str, str] = (CAMPAIGNS_URL, ACCOUNTS_URL, REPORTS_URL),
        version: str = VERSION,
        goal: str = "",
        clock: Clock = wall_micros,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        super().__init__(account, line, LIMITS, clock=clock)
        campaigns, accounts, reports = urls
        self._campaigns = f"{campaigns}/CampaignManagement/{version}"
        self._accounts = f"{accounts}/CustomerManagement/{version}"
        self._reports = f"{reports}/Reporting/{version}"
        self._goal = goal
        self._sleep = sleep
        self._downloads = Downloads(reports)
        self._asked: dict[tuple[str, date], str] = {}
        """Reports that were ordered and not seen yet."""
        self._zone = ""
        """The account's time zone as Microsoft calls it."""

    @classmethod
    def open(cls, account: Account, environ: Mapping[str, str]) -> Self:
        """See `Adapter`."""
        told = Credentials(cls.NAME, account, environ)
        developer = told.secret("MICROSOFT_ADS_DEVELOPER_TOKEN", "the developer token")
        client_id = told.text("MICROSOFT_ADS_CLIENT_ID", "the id of the application in Microsoft Entra")
        client_secret = told.secret("MICROSOFT_ADS_CLIENT_SECRET", "the secret of that application")
        refresh = told.secret("MICROSOFT_ADS_REFRESH_TOKEN", "the refresh token of a user of the account")
        customer = told.text("MICROSOFT_ADS_CUSTOMER_ID", "the id of the manager account (customer)")
        # One address in place of all three hosts: a gateway, or what plays the platform.
        own = told.optional("MICROSOFT_ADS_URL")
        url = told.address("MICROSOFT_ADS_URL", CAMPAIGNS_URL)
        token_url = told.address("MICROSOFT_ADS_TOKEN_URL", TOKEN_URL)
        accepted = "write a version such as v13"
        version = told.setting("version", VERSION, r"v[0-9]{1,3}", accepted, environ="MICROSOFT_ADS_VERSION")
        goal = told.setting(
            "conversion_goal", "", r"[^\r\n]{0,100}", "write the name of a goal for offline conversions"
        )
        name = told.account(r"[0-9]{1,20}", "write the account's id, which is a number")
        per_minute = told.per_minute()
        told.settings_known({"version", "conversion_goal", "per_minute"})
        told.require()
        line = Line(
            url,
            authorization=OAuth2(token_url, client_id, client_secret, refresh, fields={"scope": SCOPE}),
            headers={"DeveloperToken": developer, "CustomerId": customer, "CustomerAccountId": name},
            judge=judge,
            per_minute=per_minute,
            timeout_seconds=LIMITS.timeout_seconds,
        )
        urls = (url, url, url) if own else (CAMPAIGNS_URL, ACCOUNTS_URL, REPORTS_URL)
        return cls(name, line, urls=urls, version=version, goal=goal)

    async def close(self) -> None:
        """See `Platform`."""
        await self._downloads.close()
        await super().close()

    async def _ask_about(self) -> AboutAccount | Outcome:
        told = await self._read(AccountAnswer, f"{self._accounts}/Account/Query", {"AccountId": self.account})
        if isinstance(told, Outcome):
            return told
        self._zone = told.account.time_zone
        return about_account(told.account.currency_code, ZONES.get(self._zone, self._zone))

    async def lookup(self, name: str) -> Outcome:
        """See `Platform`. Microsoft lists no campaign that was deleted."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        found = await self._list()
        if isinstance(found, Outcome):
            return found
        same = [each for each in found if each.name == name]
        if not same:
            return done()
        chosen, twins = foremost(same, lambda each: Twin(id=each.id, status=each.standing))
        group = await self._ad_group(chosen.id)
        if isinstance(group, Outcome):
            return group
        return shown_campaign(self._state(chosen, group, about), twins)

    async def ensure_campaign(self, spec: CampaignSpec, key: str) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        parts = parts_of(spec, about, self._zone)
        if isinstance(parts, Outcome):
            return parts
        campaign = unfinished(await self.lookup(spec.name))
        if isinstance(campaign, Outcome):
            return campaign
        if not campaign:
            body = {"AccountId": self.account, "Campaigns": [parts["campaign"]]}
            made = await self._write(CampaignIds, "POST", "Campaigns", body)
            if isinstance(made, Outcome):
                return await self.taken_since(made, spec.name)
            if len(made.campaign_ids) != 1 or made.campaign_ids[0] is None:
                return unknown(UNREADABLE, "the campaign was taken and has no id")
            campaign = made.campaign_ids[0]
        failure = await self._complete(campaign, parts)
        return read_back(await self.lookup(spec.name)) if failure is None else failure

    async def set_budget(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`."""
        wrong = await self.wrong_amount(micros)
        return wrong or await self._update(campaign, {"DailyBudget": whole_currency(micros)})

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
        change = {"Id": group.id, "CpcBid": {"Amount": whole_currency(micros)}}
        put = await self._write(Updated, "PUT", "AdGroups", {"CampaignId": campaign, "AdGroups": [change]})
        return put if isinstance(put, Outcome) else done()

    async def pause(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._update(campaign, {"Status": "Paused"})

    async def resume(self, campaign: str, key: str) -> Outcome:
        """See `Platform`."""
        return await self._update(campaign, {"Status": "Active"})

    async def spend_report(self, campaign: str, day: date) -> Outcome:
        """See `Platform`. A report that is not made within some seconds is `not_ready`, and asked for at the next call."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        wrong = self.no_id(campaign)
        if wrong is not None:
            return wrong
        asked = (campaign, day)
        number = self._asked.get(asked) or await self._order(campaign, day)
        if isinstance(number, Outcome):
            return number
        self._asked[asked] = number
        status = await self._made(number)
        if isinstance(status, Outcome):
            if status.code not in {NOT_READY, THROTTLED} and not status.is_transient:
                self._asked.pop(asked, None)
            return status
        self._asked.pop(asked, None)
        # Success without an address: the platform has nothing of that day.
        if not status.report_download_url:
            return shown_report(SpendReport(day=day, spent=0, final=self.is_final(day, about.time_zone)))
        file = await self._downloads.fetch(status.report_download_url)
        if isinstance(file, Outcome):
            return file
        report = spend_of(unzipped(file.content), campaign, day, final=self.is_final(day, about.time_zone))
        return file.nonsense("no report in it") if report is None else shown_report(report)

    async def upload_values(self, campaign: str, values: Sequence[ValueUpload], key: str) -> Outcome:
        """See `Platform`. Needs the account's `conversion_goal`."""
        if not self._goal:
            return refused(UNSUPPORTED, "not sent: values go to a goal; set 'conversion_goal' of the account")
        return await self.upload(values, UPLOAD_MAX, self._send_values)

    # -- campaigns -----------------------------------------------------------------------------------

    async def _complete(self, campaign: str, parts: Mapping[str, Any]) -> Outcome | None:
        """The ad group and the countries, as far as they are not there; why not, if that fails."""
        group = await self._ad_group(campaign)
        if isinstance(group, Outcome):
            return group
        if group is None:
            body = {"CampaignId": campaign, "AdGroups": [parts["group"]]}
            made = await self._write(AdGroupIds, "POST", "AdGroups", body)
            if isinstance(made, Outcome) and made.code != CONFLICT:
                return made
        if not parts["locations"]:
            return None
        asked = {"CampaignId": campaign, "CriterionType": "Location"}
        there = await self._read(CampaignCriterions, f"{self._campaigns}/CampaignCriterions/QueryByIds", asked)
        if isinstance(there, Outcome):
            return there
        if group is None:
            # Made just now, or by another runner that was quicker.
            group = await self._ad_group(campaign)
        if isinstance(group, Outcome) or group is None:
            return group or unknown(UNREADABLE, "the ad group was made and is not shown")
        known = {each.criterion.location_id for each in there.campaign_criterions or () if each and each.criterion}
        lacking = [each for each in parts["locations"] if each not in known]
        criterions = [location(campaign, each) for each in lacking]
        if criterions:
            body = {"CriterionType": "Targets", "CampaignCriterions": criterions}
            added = await self._write(CriterionIds, "POST", "CampaignCriterions", body)
            if isinstance(added, Outcome):
                return added
        body = {"CampaignId": campaign, "AdGroups": [{"Id": group.id, "Status": "Active"}]}
        put = await self._write(Updated, "PUT", "AdGroups", body)
        return put if isinstance(put, Outcome) else None

    async def _list(self) -> list[CampaignShown] | Outcome:
        asked = {"AccountId": self.account, "CampaignType": ALL_TYPES}
        found = await self._read(Campaigns, f"{self._campaigns}/Campaigns/QueryByAccountId", asked)
        return found if isinstance(found, Outcome) else [each for each in found.campaigns or () if each is not None]

    async def _ad_group(self, campaign: str) -> AdGroup | Outcome | None:
        found = await self._read(AdGroups, f"{self._campaigns}/AdGroups/QueryByCampaignId", {"CampaignId": campaign})
        if isinstance(found, Outcome):
            return found
        return next((each for each in found.ad_groups or () if each is not None and each.name == AD_GROUP), None)

    def _state(self, campaign: CampaignShown, group: AdGroup | None, about: AboutAccount) -> CampaignState:
        budget = campaign.daily_budget
        bid = group.cpc_bid.amount if group is not None and group.cpc_bid is not None else None
        return CampaignState(
            id=campaign.id,
            name=campaign.name,
            status=campaign.standing,
            daily_budget=None if budget is None else exact_micros(budget),
            bid=None if bid is None else exact_micros(bid),
            currency=about.currency,
            account=self.account,
            # The ad group is active once its countries are there.
            whole=group is not None and group.status == "Active",
        )

    async def _update(self, campaign: str, change: Mapping[str, Any]) -> Outcome:
        wrong = self.no_id(campaign)
        if wrong is not None:
            return wrong
        body = {"AccountId": self.account, "Campaigns": [{"Id": campaign, **change}]}
        put = await self._write(Updated, "PUT", "Campaigns", body)
        return put if isinstance(put, Outcome) else done()

    # -- reports -------------------------------------------------------------------------------------

    async def _order(self, campaign: str, day: date) -> str | Outcome:
        """The number of a report that the platform begins to make. It changes nothing that costs money."""
        for old in list(self._asked)[: max(0, len(self._asked) - ASKED_MAX)]:
            del self._asked[old]
        request = {
            "Type": "CampaignPerformanceReportRequest",
            "ReportName": "kiki",
            "Format": "Csv",
            "FormatVersion": "2.0",
            "ExcludeReportHeader": True,
            "ExcludeReportFooter": True,
            "ExcludeColumnHeaders": False,
            "ReturnOnlyCompleteData": False,
            "Aggregation": "Daily",
            "Columns": ["TimePeriod", "CampaignId", "Spend", "Impressions", "Clicks", "Conversions", "Revenue"],
            "Scope": {"AccountIds": [self.account], "Campaigns": [{"AccountId": self.account, "CampaignId": campaign}]},
            "Time": {
                "CustomDateRangeStart": plain_date(day),
                "CustomDateRangeEnd": plain_date(day),
                "ReportTimeZone": REPORT_ZONES.get(self._zone, self._zone),
            },
        }
        told = await self._read(Submitted, f"{self._reports}/GenerateReport/Submit", {"ReportRequest": request})
        return told if isinstance(told, Outcome) else told.report_request_id

    async def _made(self, number: str) -> ReportStatus | Outcome:
        """The report once it is made; `not_ready` after some looks."""
        for pause in (*POLLS, None):
            polled = await self._read(Polled, f"{self._reports}/GenerateReport/Poll", {"ReportRequestId": number})
            if isinstance(polled, Outcome):
                return polled
            status = polled.report_request_status
            if status.status == "Success":
                return status
            if status.status != "Pending":
                return refused(SERVER_ERROR, f"the report ended as {status.status}")
            if pause is not None:
                await self._sleep(pause)
        return refused(NOT_READY, "the report is not made yet", retry_at=self._clock() + RATE_PAUSE)

    # -- values --------------------------------------------------------------------------------------

    async def _send_values(self, batch: Sequence[ValueUpload], currency: str) -> Fates | Outcome:
        body = {"OfflineConversions": [conversion(each, currency, self._goal) for each in batch]}
        taken = await self.answer(
            Updated, json_request("POST", f"{self._campaigns}/OfflineConversions/Apply", body, write=True)
        )
        if isinstance(taken, Outcome):
            return taken
        places = {each.index for each in taken.partial_errors or () if each is not None}
        wrong = {each for each in places if each is not None}
        # An error that does not say which it is about may be about any of them.
        return fates_of(batch, wrong) if len(wrong) == len(places) else {}

    # -- calls ---------------------------------------------------------------------------------------

    async def _read(self, kind: type[Kind], url: str, body: Mapping[str, Any]) -> Kind | Outcome:
        return await self.answer(kind, json_request("POST", url, body, write=False))

    async def _write(self, kind: type[Kind], method: str, path: str, body: Mapping[str, Any]) -> Kind | Outcome:
        """One thing changed or none: an error about the one of the list is a refusal of the whole."""
        reply = await self.line.send(json_request(method, f"{self._campaigns}/{path}", body, write=True))
        if isinstance(reply, Outcome):
            return reply
        wrong = partly(reply)
        return reply.read(kind) if wrong is None else wrong
