"""The Trade Desk: writes over its Workflows, reads over its REST API version 3. Money there is whole advertiser currency.

A campaign there is never paused; its ad groups are enabled or not. Ours has one ad group, which carries the daily target,
the bid for a thousand impressions and whether it may spend. Paused means that no ad group of the campaign is enabled, ours
or anybody's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any, ClassVar, Final, Self, TypeVar

import msgspec

from kiki.clock import Clock, wall_micros
from kiki.flow.plan import Account
from kiki.flow.platform import CampaignSpec, CampaignState, Limits, SpendReport, Status, Twin, ValueUpload
from kiki.flow.platforms.ad_account import (
    PAGES_MAX,
    AboutAccount,
    AdAccount,
    about_account,
    endless,
    foremost,
    read_back,
    shown_campaign,
    shown_report,
    unfinished,
)
from kiki.flow.platforms.amounts import exact_micros, json_request, whole_currency
from kiki.flow.platforms.credentials import Credentials
from kiki.flow.platforms.day_reports import DayReports
from kiki.flow.platforms.downloads import Downloads
from kiki.flow.platforms.tradedesk_campaign import AD_GROUP, ad_group, bid_of, campaign_body
from kiki.flow.platforms.tradedesk_reply import (
    AdGroup,
    AdGroupPayload,
    Advertiser,
    Billed,
    CampaignPayload,
    CampaignShown,
    Execution,
    Money,
    Result,
    Schedule,
    billed,
    has_columns,
    judge,
)
from kiki.outbound.exchange import NOT_FOUND, SERVER_ERROR, UNREADABLE, UNSUPPORTED, Request
from kiki.outbound.line import Line
from kiki.outbound.oauth import FixedToken
from kiki.outbound.outcome import Outcome, done, refused

Kind = TypeVar("Kind")

URL: Final = "https://api.thetradedesk.com"
VERSION: Final = "v3"
PER_MINUTE: Final = 300
LIMITS: Final = Limits(overdelivery=1.2, budget_min=1_000_000, report_hours=48)
PAGE: Final = 100
MADE: Final = "Complete"
MAKING: Final = {"Pending", "InProgress", "Queued", "Running", "Created"}


class TradeDesk(AdAccount):
    """See `Platform`. `open` makes one. The account is an advertiser."""

    NAME: ClassVar[str] = "tradedesk"
    CAMPAIGN_ID: ClassVar[re.Pattern[str]] = re.compile(r"[0-9a-z]{1,32}")

    def __init__(
        self,
        account: str,
        line: Line,
        *,
        url: str = URL,
        version: str = VERSION,
        template: str = "",
        time_zone: str = "UTC",
        clock: Clock = wall_micros,
    ) -> None:
        super().__init__(account, line, LIMITS, clock=clock)
        self._workflows = f"{url}/workflows"
        self._rest = f"{url}/{version}"
        self._template = template
        self._time_zone = time_zone
        self._downloads = Downloads(url)
        self._reports = DayReports[Billed](self._order, self._look, clock)

    @classmethod
    def open(cls, account: Account, environ: Mapping[str, str]) -> Self:
        """See `Adapter`."""
        told = Credentials(cls.NAME, account, environ)
        token = told.secret("TRADEDESK_TOKEN", "a long-lived API token of The Trade Desk")
        url = told.address("TRADEDESK_URL", URL)
        version = told.setting(
            "version", VERSION, r"v[0-9]{1,3}", "write a version such as v3", environ="TRADEDESK_VERSION"
        )
        template = told.setting("report_template", "", r"[0-9]{0,20}", "write the number of a MyReports template")
        zone = told.setting("time_zone", "UTC", r"[A-Za-z0-9_+/-]{1,64}", "write a zone such as Europe/Vienna")
        name = told.account(r"[0-9a-z]{1,32}", "write the advertiser's id, such as abc123d")
        per_minute = told.per_minute(PER_MINUTE)
        told.settings_known({"version", "report_template", "time_zone", "per_minute"})
        told.require()
        line = Line(
            url,
            authorization=FixedToken(token, header="TTD-Auth", scheme=""),
            judge=judge,
            per_minute=per_minute,
            timeout_seconds=LIMITS.timeout_seconds,
        )
        return cls(name, line, url=url, version=version, template=template, time_zone=zone)

    async def close(self) -> None:
        """See `Platform`."""
        await self._downloads.close()
        await super().close()

    async def _ask_about(self) -> AboutAccount | Outcome:
        told = await self._rest_read(Advertiser, "GET", f"advertiser/{self.account}")
        return told if isinstance(told, Outcome) else about_account(told.currency_code, self._time_zone)

    async def lookup(self, name: str) -> Outcome:
        """See `Platform`. All campaigns of the advertiser are looked through: names are not unique there."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        query = {"AdvertiserId": self.account, "Availabilities": ["Available", "Archived"]}
        found = await self._all(CampaignShown, "campaign/query/advertiser", query)
        if isinstance(found, Outcome):
            return found
        states = []
        for each in found:
            if each.campaign_name == name:
                # Whether one may spend is known of its ad groups alone.
                groups = await self._ad_groups(each.campaign_id)
                if isinstance(groups, Outcome):
                    return groups
                states.append(self._state(each, groups, about))
        if not states:
            return done()
        chosen, twins = foremost(states, lambda each: Twin(id=each.id, status=each.status))
        return shown_campaign(chosen, twins)

    async def ensure_campaign(self, spec: CampaignSpec, key: str) -> Outcome:
        """See `Platform`."""
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        group = ad_group(spec, about.currency)
        if isinstance(group, Outcome):
            return group
        campaign = unfinished(await self.lookup(spec.name))
        if isinstance(campaign, Outcome):
            return campaign
        if not campaign:
            body = campaign_body(spec, group["channel"], self.account, self._time_zone)
            made = await self._write(CampaignPayload, "POST", "campaign", body)
            if isinstance(made, Outcome):
                return made
            campaign = made.campaign.id
        own = await self._own_group(campaign)
        if isinstance(own, Outcome):
            return own
        if own is None:
            body = {"campaignId": campaign, "primaryInput": group}
            added = await self._write(AdGroupPayload, "POST", "adgroup", body)
            if isinstance(added, Outcome):
                return added
        return read_back(await self.lookup(spec.name))

    async def set_budget(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`. The daily target of the campaign's own ad group."""
        wrong = await self.wrong_amount(micros) or self.no_id(campaign)
        if wrong is not None:
            return wrong
        return await self._change_own(campaign, {"budget": {"dailyTargetInAdvertiserCurrency": whole_currency(micros)}})

    async def set_bid(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`. For a thousand impressions; base and maximum are one, so that nothing bids above it."""
        wrong = await self.wrong_amount(micros) or self.no_id(campaign)
        return wrong or await self._change_own(campaign, bid_of(micros))

    async def pause(self, campaign: str, key: str) -> Outcome:
        """See `Platform`. Every ad group that is enabled is disabled, whoever made it."""
        wrong = self.no_id(campaign)
        if wrong is not None:
            return wrong
        groups = await self._ad_groups(campaign, archived=True)
        if isinstance(groups, Outcome):
            return groups
        if not groups:
            return refused(NOT_FOUND, f"there is no campaign {campaign}, or it has no ad group")
        for each in groups:
            if _is_archived(each):
                continue
            # Our own is written even when it is shown as disabled: what is shown may be older than what is on its way.
            if each.is_enabled or each.name == AD_GROUP:
                put = await self._change(each.ad_group_id, {"isEnabled": False})
                if not put.is_done:
                    return put
        return done()

    async def resume(self, campaign: str, key: str) -> Outcome:
        """See `Platform`. The campaign's own ad group is enabled, nobody else's."""
        return self.no_id(campaign) or await self._change_own(campaign, {"isEnabled": True})

    async def archive(self, campaign: str, key: str) -> Outcome:
        """See `Platform`. Without `forceArchive`: what somebody has set to work since is not ended."""
        wrong = self.no_id(campaign)
        if wrong is not None:
            return wrong
        ended = await self._write(list[str], "POST", "campaign/archive", [campaign])
        return ended if isinstance(ended, Outcome) else done()

    async def spend_report(self, campaign: str, day: date) -> Outcome:
        """See `Platform`. Needs `report_template`; `not_ready` until the day's report is made."""
        wrong = self.no_id(campaign)
        if wrong is not None:
            return wrong
        if not self._template:
            message = "spend is reported by a MyReports template; set 'report_template' of the account to its number"
            return refused(UNSUPPORTED, message)
        rows = await self._reports.rows(day)
        if isinstance(rows, Outcome):
            return rows
        row = rows.get(campaign) or Billed(0, 0, 0)
        final = self.is_final(day, self._time_zone)
        return shown_report(SpendReport(day=day, final=final, **msgspec.structs.asdict(row)))

    async def upload_values(self, campaign: str, values: Sequence[ValueUpload], key: str) -> Outcome:
        """See `Platform`. Its conversions are measured by tracking tags and uploaded by person, not by click."""
        return refused(UNSUPPORTED, "not sent: The Trade Desk takes no values by click id")

    # -- campaigns -----------------------------------------------------------------------------------

    async def _ad_groups(self, campaign: str, *, archived: bool = False) -> list[AdGroup] | Outcome:
        query = {"CampaignId": campaign, "Availabilities": ["Available", "Archived"]}
        found = await self._all(AdGroup, "adgroup/query/campaign", query)
        return found if isinstance(found, Outcome) else [each for each in found if archived or not _is_archived(each)]

    async def _own_group(self, campaign: str) -> AdGroup | Outcome | None:
        groups = await self._ad_groups(campaign)
        return groups if isinstance(groups, Outcome) else next((each for each in groups if each.name == AD_GROUP), None)

    def _state(self, campaign: CampaignShown, groups: Sequence[AdGroup], about: AboutAccount) -> CampaignState:
        own = next((each for each in groups if each.name == AD_GROUP), None)
        how = own.attributes if own is not None else None
        daily = how.budget_settings.daily_budget if how is not None and how.budget_settings is not None else None
        status = Status.ACTIVE if any(each.is_enabled for each in groups) else Status.PAUSED
        return CampaignState(
            id=campaign.campaign_id,
            name=campaign.campaign_name,
            status=Status.ENDED if _is_archived(campaign) else status,
            daily_budget=_micros(daily),
            bid=_micros(how.max_bid) if how is not None else None,
            currency=about.currency,
            account=self.account,
            whole=own is not None,
        )

    async def _change_own(self, campaign: str, change: Mapping[str, Any]) -> Outcome:
        own = await self._own_group(campaign)
        if isinstance(own, Outcome):
            return own
        if own is None:
            return refused(NOT_FOUND, f"campaign {campaign} has no ad group {AD_GROUP!r}")
        return await self._change(own.ad_group_id, change)

    async def _change(self, group: str, change: Mapping[str, Any]) -> Outcome:
        put = await self._write(AdGroupPayload, "PATCH", "adgroup", {"id": group, "primaryInput": dict(change)})
        return put if isinstance(put, Outcome) else done()

    # -- reports -------------------------------------------------------------------------------------

    async def _order(self, day: date) -> str | Outcome:
        """The number of a report that runs once; it changes nothing that costs money."""
        body = {
            "ReportScheduleName": f"kiki {self.account} {day}",
            "ReportTemplateId": int(self._template),
            "ReportScheduleType": "Once",
            "ReportFileFormat": "CSV",
            "ReportDateFormat": "Sortable",
            "ReportNumericFormat": "US",
            "IncludeHeaders": True,
            "ReportDateRange": "Custom",
            "ReportStartDateInclusive": f"{day}T00:00:00",
            "ReportEndDateExclusive": f"{day + timedelta(days=1)}T00:00:00",
            "TimeZone": self._time_zone,
            "AdvertiserFilters": [self.account],
        }
        told = await self._rest_read(Schedule, "POST", "myreports/reportschedule", body)
        return told if isinstance(told, Outcome) else str(told.report_schedule_id)

    async def _look(self, number: str, day: date) -> Mapping[str, Billed] | Outcome:
        """A report's rows, once it is made."""
        query = {
            "AdvertiserIds": [self.account],
            "ReportScheduleIds": [int(number)],
            "PageStartIndex": 0,
            "PageSize": 10,
        }
        told = await self._rest_read(Result[Execution], "POST", "myreports/reportexecution/query/advertisers", query)
        if isinstance(told, Outcome):
            return told
        states = [each.report_execution_state for each in told.result]
        if not told.result or states[0] in MAKING:
            return self._reports.pending()
        deliveries = told.result[0].report_deliveries or []
        if states[0] != MADE or not deliveries or not deliveries[0].url:
            return refused(SERVER_ERROR, f"the report ended as {states[0]}")
        file = await self._downloads.fetch(deliveries[0].url)
        if isinstance(file, Outcome):
            return file
        if not has_columns(file.content):
            return refused(UNREADABLE, "the template lacks a column that is read; docs/platforms.md lists them")
        rows = billed(file.content, str(day))
        return file.nonsense("no report in it") if rows is None else rows

    # -- calls ---------------------------------------------------------------------------------------

    async def _all(self, kind: type[Kind], path: str, query: Mapping[str, Any]) -> list[Kind] | Outcome:
        """Everything that a query finds, page by page."""
        found: list[Kind] = []
        for _ in range(PAGES_MAX):
            asked = {**query, "PageStartIndex": len(found), "PageSize": PAGE}
            page: Result[Kind] | Outcome = await self._rest_read(Result[kind], "POST", path, asked)  # type: ignore[valid-type]
            if isinstance(page, Outcome):
                return page
            found.extend(page.result)
            if not page.result or len(found) >= page.total_filtered_count:
                return found
        return endless(path)

    async def _rest_read(
        self, kind: type[Kind], method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Kind | Outcome:
        path = f"{self._rest}/{path}"
        if body is None:
            return await self.answer(kind, Request(method=method, path=path, write=False))
        return await self.answer(kind, json_request(method, path, body, write=False))

    async def _write(
        self, kind: type[Kind], method: str, path: str, body: Mapping[str, Any] | list[str]
    ) -> Kind | Outcome:
        return await self.answer(kind, json_request(method, f"{self._workflows}/{path}", body, write=True))


def _micros(money: Money | None) -> int | None:
    return exact_micros(money.amount) if money is not None and money.amount is not None else None


def _is_archived(shown: CampaignShown | AdGroup) -> bool:
    return shown.availability == "Archived"
