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
from kiki.flow.plan import Account, Objective
from kiki.flow.platform import CampaignSpec, CampaignState, Limits, SpendReport, Status, Twin, ValueUpload
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
)
from kiki.flow.platforms.amounts import JSON_HEADERS, dump, exact_micros, whole_currency, wrong_amounts
from kiki.flow.platforms.campaign_settings import CampaignSettings
from kiki.flow.platforms.credentials import Credentials
from kiki.flow.platforms.day_reports import DayReports
from kiki.flow.platforms.downloads import Downloads
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
AD_GROUP: Final = "kiki"
"""The name of the one ad group of a campaign of ours."""
NAME_MAX: Final = 256
PAGE: Final = 100
CHANNELS: Final = ("Display", "Video", "Audio", "TV", "NativeDisplay", "NativeVideo")
FUNNEL: Final[Mapping[Objective, str]] = {
    Objective.AWARENESS: "Awareness",
    Objective.TRAFFIC: "Consideration",
    Objective.LEADS: "Conversion",
    Objective.SALES: "Conversion",
    Objective.APP: "Conversion",
}
MADE: Final = "Complete"
MAKING: Final = {"Pending", "InProgress", "Queued", "Running", "Created"}

_ID: Final = re.compile(r"[0-9a-z]{1,32}")


class TradeDesk(AdAccount):
    """See `Platform`. `open` makes one. The account is an advertiser."""

    NAME: ClassVar[str] = "tradedesk"

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
        per_minute = told.setting("per_minute", str(PER_MINUTE), r"[1-9][0-9]{0,4}", "write calls a minute")
        told.settings_known({"version", "report_template", "time_zone", "per_minute"})
        told.require()
        line = Line(
            url,
            authorization=FixedToken(token, header="TTD-Auth", scheme=""),
            judge=judge,
            per_minute=int(per_minute) if per_minute.isdigit() else PER_MINUTE,
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
        group = self._group(spec)
        if isinstance(group, Outcome):
            return group
        wrong = wrong_amounts(about.currency, spec.daily_budget, spec.bid)
        if wrong is not None:
            return wrong
        there = await self.lookup(spec.name)
        if not there.is_done:
            return there
        if "campaign" in there.value:
            state = msgspec.convert(there.value["campaign"], CampaignState)
            if state.whole or state.status is Status.ENDED:
                return there
            campaign = state.id
        else:
            made = await self._write(CampaignPayload, "POST", "campaign", self._campaign(spec, group["channel"]))
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
        wrong = await self._wrong(campaign, micros)
        if wrong is not None:
            return wrong
        return await self._change_own(campaign, {"budget": {"dailyTargetInAdvertiserCurrency": whole_currency(micros)}})

    async def set_bid(self, campaign: str, micros: int, key: str) -> Outcome:
        """See `Platform`. For a thousand impressions; base and maximum are one, so that nothing bids above it."""
        wrong = await self._wrong(campaign, micros)
        return wrong or await self._change_own(campaign, _bid(micros))

    async def pause(self, campaign: str, key: str) -> Outcome:
        """See `Platform`. Every ad group that is enabled is disabled, whoever made it."""
        wrong = _no_id(campaign)
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
        return _no_id(campaign) or await self._change_own(campaign, {"isEnabled": True})

    async def archive(self, campaign: str, key: str) -> Outcome:
        """See `Platform`. Without `forceArchive`: what somebody has set to work since is not ended."""
        wrong = _no_id(campaign)
        if wrong is not None:
            return wrong
        ended = await self._write(list[str], "POST", "campaign/archive", [campaign])
        return ended if isinstance(ended, Outcome) else done()

    async def spend_report(self, campaign: str, day: date) -> Outcome:
        """See `Platform`. Needs `report_template`; `not_ready` until the day's report is made."""
        wrong = _no_id(campaign)
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

    def _group(self, spec: CampaignSpec) -> dict[str, Any] | Outcome:
        """What an ad group is made of, or why the campaign cannot be made."""
        settings = CampaignSettings(spec.settings)
        channel = settings.word("channel", "Display", CHANNELS)
        geography = settings.text("geo_bid_list", "", r"[0-9A-Za-z]{0,40}", "write the id of a bid list")
        if spec.countries and not geography:
            settings.wrong(
                f"countries are bid lists there; set 'geo_bid_list' to one that holds {', '.join(spec.countries)}"
            )
        if len(spec.name) > NAME_MAX:
            settings.wrong(f"its name has {len(spec.name)} letters, and The Trade Desk takes {NAME_MAX}")
        wrong = settings.refusal
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
            **(_bid(spec.bid) if spec.bid is not None else {}),
            **({"associatedBidLists": lists} if lists else {}),
        }

    def _campaign(self, spec: CampaignSpec, channel: str) -> dict[str, Any]:
        starts = day_start(spec.starts, self._time_zone)
        ends = day_start(spec.ends + timedelta(days=1), self._time_zone)
        return {
            "primaryInput": {
                "advertiserId": self.account,
                "name": spec.name,
                "primaryChannel": channel,
                "primaryGoal": {"maximizeReach": True},
                "timeZone": self._time_zone,
                "startDateInUtc": starts.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "endDateInUtc": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
                # The whole of its days is the most that the campaign ever spends, whatever becomes of its daily target.
                "budget": {
                    "pacingMode": "PaceToDailyCap",
                    "budgetInAdvertiserCurrency": whole_currency(_whole(spec)),
                },
            }
        }

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

    async def _wrong(self, campaign: str, micros: int) -> Outcome | None:
        about = await self.about()
        if isinstance(about, Outcome):
            return about
        return wrong_amounts(about.currency, micros) or _no_id(campaign)

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
        content, headers = (dump(body), JSON_HEADERS) if body is not None else (None, {})
        asked = Request(method=method, path=f"{self._rest}/{path}", write=False, content=content, headers=headers)
        reply = await self.line.send(asked)
        return reply if isinstance(reply, Outcome) else reply.read(kind)

    async def _write(
        self, kind: type[Kind], method: str, path: str, body: Mapping[str, Any] | list[str]
    ) -> Kind | Outcome:
        sent = Request(
            method=method, path=f"{self._workflows}/{path}", write=True, content=dump(body), headers=JSON_HEADERS
        )
        reply = await self.line.send(sent)
        return reply if isinstance(reply, Outcome) else reply.read(kind)


def _whole(spec: CampaignSpec) -> int:
    return spec.daily_budget * ((spec.ends - spec.starts).days + 1)


def _bid(micros: int) -> dict[str, Any]:
    bid = whole_currency(micros)
    return {"baseBidCPMInAdvertiserCurrency": bid, "maxBidCPMInAdvertiserCurrency": bid}


def _micros(money: Money | None) -> int | None:
    return exact_micros(money.amount) if money is not None and money.amount is not None else None


def _is_archived(shown: CampaignShown | AdGroup) -> bool:
    return shown.availability == "Archived"


def _no_id(campaign: str) -> Outcome | None:
    return (
        None if _ID.fullmatch(campaign) else refused(NOT_FOUND, f"not sent: {campaign[:40]!r} is no id of a campaign")
    )
