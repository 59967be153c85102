"""The Trade Desk: its Workflows as its own package types them, its REST version 3 and MyReports as its reference has them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar

from aiohttp import web

from kiki.flow.plan import Account
from kiki.flow.platform import CampaignState, Status
from kiki.money import MICROS
from tests.flow.fakes.fake import Fake

ADVERTISER = "adv123x"
TTD_TOKEN = "a-long-lived-token-of-theirs"
TEMPLATE = "4711"
SHOWN = {
    "description": None,
    "associatedBidLists": [],
    "creativeIds": [],
    "flights": [],
    "roiGoal": {"maximizeReach": True},
    "comscoreSettings": {"isEnabled": False, "demographicMemberIds": None, "mobileDemographicMemberIds": None},
    "contractTargeting": {"allowOpenMarketBiddingWhenTargetingContracts": True},
    "dimensionalBiddingAutoOptimizationSettings": [],
    "isUseClicksAsConversionsEnabled": False,
    "isUseSecondaryConversionsEnabled": False,
}
"""What the workflows tell of an ad group beside what was written."""


def exact(micros: int) -> float:
    return float(Decimal(micros) / MICROS)


def micros(amount: float | None) -> int | None:
    return None if amount is None else round(amount * MICROS)


class TradeDeskFake(Fake):
    NAME = "tradedesk"
    ENVIRON: ClassVar[Mapping[str, str]] = {"TRADEDESK_TOKEN": TTD_TOKEN}
    ACCOUNT = Account(account=ADVERTISER, settings={"report_template": TEMPLATE, "time_zone": "America/New_York"})
    SETTINGS: ClassVar[Mapping[str, str | int | float | bool]] = {"geo_bid_list": "98765"}
    VALUES = False

    def __init__(self, **about: Any) -> None:
        super().__init__(**about)
        self.made: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.archived: set[str] = set()
        self.schedules: dict[int, dict[str, Any]] = {}
        self.pending = 0
        """So many looks find a report not made."""
        self.state = "Complete"
        self.columns = ["Date", "Campaign ID", "Advertiser Cost (Adv Currency)", "Impressions", "Clicks", "Campaign"]
        self.page = 100
        self.retry = {"retry-after": "7"}
        self.downloads: list[Mapping[str, str]] = []

    def environ(self) -> dict[str, str]:
        return {**self.ENVIRON, "TRADEDESK_URL": self.url}

    def routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/v3/advertiser/{id}", self.advertiser)
        router.add_post("/v3/campaign/query/advertiser", self.query_campaigns)
        router.add_post("/v3/adgroup/query/campaign", self.query_groups)
        router.add_post("/v3/myreports/reportschedule", self.schedule)
        router.add_post("/v3/myreports/reportexecution/query/advertisers", self.executions)
        router.add_post("/workflows/campaign", self.create_campaign)
        router.add_post("/workflows/campaign/archive", self.archive_campaigns)
        router.add_post("/workflows/adgroup", self.create_group)
        router.add_patch("/workflows/adgroup", self.patch_group)
        router.add_get("/file/{number}", self.download)

    # -- manners -------------------------------------------------------------------------------------

    def is_write(self, request: web.Request) -> bool:
        return request.path.startswith("/workflows/")

    def answers_always(self, request: web.Request) -> bool:
        return request.path.startswith("/file/")

    def is_known(self, request: web.Request, content: bytes) -> bool:
        return request.headers.get("TTD-Auth") == TTD_TOKEN

    def throttled(self) -> web.Response:
        return web.json_response({"Message": "Too many requests"}, status=429, headers=self.retry)

    def unauthorized(self) -> web.Response:
        return web.json_response({"Message": "The token is not valid"}, status=401)

    def refused(self, message: str = "the sum is too small") -> web.Response:
        problem = {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": message, "errors": {}}
        return web.json_response(problem, status=400)

    async def truth(self) -> list[CampaignState]:
        return [self._state(number) for number in self.made]

    def _state(self, number: str) -> CampaignState:
        own = [each for each in self.groups.values() if each["campaignId"] == number]
        enabled = any(each["isEnabled"] for each in own)
        status = Status.ENDED if number in self.archived else Status.ACTIVE if enabled else Status.PAUSED
        first = own[0] if own else {"budget": {}}
        return CampaignState(
            id=number,
            name=self.made[number]["name"],
            status=status,
            daily_budget=micros(first["budget"].get("dailyTargetInAdvertiserCurrency")),
            bid=micros(first.get("maxBidCPMInAdvertiserCurrency")),
            currency=self.currency,
            account=ADVERTISER,
        )

    async def end(self, campaign: str) -> None:
        self.archived.add(campaign)

    # -- version 3 -----------------------------------------------------------------------------------

    async def advertiser(self, request: web.Request) -> web.Response:
        about = {"AdvertiserId": ADVERTISER, "AdvertiserName": "Shop", "CurrencyCode": self.currency, "PartnerId": "p"}
        return web.json_response(about)

    def _found(self, found: list[dict[str, Any]], body: Mapping[str, Any]) -> web.Response:
        start, size = body["PageStartIndex"], min(body["PageSize"], self.page)
        return web.json_response(
            {
                "Result": found[start : start + size],
                "ResultCount": len(found[start : start + size]),
                "TotalFilteredCount": len(found),
                "TotalUnfilteredCount": len(found),
            }
        )

    async def query_campaigns(self, request: web.Request) -> web.Response:
        body = await request.json()
        found = [
            {
                "CampaignId": number,
                "CampaignName": made["name"],
                "AdvertiserId": ADVERTISER,
                "Availability": "Archived" if number in self.archived else "Available",
            }
            for number, made in self.made.items()
        ]
        return self._found([each for each in found if each["Availability"] in body["Availabilities"]], body)

    async def query_groups(self, request: web.Request) -> web.Response:
        body = await request.json()

        def money(amount: float | None) -> dict[str, Any] | None:
            return None if amount is None else {"Amount": amount, "CurrencyCode": self.currency}

        found = [
            {
                "AdGroupId": number,
                "AdGroupName": each["name"],
                "CampaignId": each["campaignId"],
                "IsEnabled": each["isEnabled"],
                "Availability": "Available",
                "RTBAttributes": {
                    "BudgetSettings": {
                        "DailyBudget": money(each["budget"].get("dailyTargetInAdvertiserCurrency")),
                        "Budget": money(each["budget"].get("budgetInAdvertiserCurrency")),
                    },
                    "BaseBidCPM": money(each.get("baseBidCPMInAdvertiserCurrency")),
                    "MaxBidCPM": money(each.get("maxBidCPMInAdvertiserCurrency")),
                },
            }
            for number, each in self.groups.items()
            if each["campaignId"] == body["CampaignId"]
        ]
        return self._found(found, body)

    # -- workflows -----------------------------------------------------------------------------------

    async def create_campaign(self, request: web.Request) -> web.Response:
        given = (await request.json())["primaryInput"]
        if given["advertiserId"] != ADVERTISER:
            return self.refused("no such advertiser")
        number = f"cmp{self.next_id()}"
        self.made[number] = given
        flight = {
            "id": "1",
            "startDateInclusiveUTC": given["startDateInUtc"],
            "endDateExclusiveUTC": given["endDateInUtc"],
            "budgetInAdvertiserCurrency": given["budget"]["budgetInAdvertiserCurrency"],
        }
        shown = {"id": number, "name": given["name"], "primaryChannel": given["primaryChannel"], "flights": [flight]}
        return web.json_response({"campaign": shown, "adGroups": None}, status=201)

    async def archive_campaigns(self, request: web.Request) -> web.Response:
        ids = await request.json()
        forced = request.query.get("forceArchive") == "true"
        if not forced and any(self._state(each).status is Status.ACTIVE for each in ids):
            return self.refused("an active campaign cannot be archived")
        self.archived |= {*ids} & {*self.made}
        return web.json_response([*ids])

    async def create_group(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["campaignId"] not in self.made:
            return self.refused("no such campaign")
        number = f"grp{self.next_id()}"
        self.groups[number] = {**body["primaryInput"], "campaignId": body["campaignId"]}
        return self._shown(number, 201)

    async def patch_group(self, request: web.Request) -> web.Response:
        body = await request.json()
        group = self.groups.get(body["id"])
        if group is None or group["campaignId"] in self.archived:
            return self.refused("no such ad group")
        change = dict(body["primaryInput"])
        group["budget"] |= change.pop("budget", {})
        group |= change
        return self._shown(body["id"], 200)

    def _shown(self, number: str, status: int) -> web.Response:
        group = self.groups[number]
        budget = {"allocationType": "Maximum", "budgetInAdvertiserCurrency": 0, **group["budget"]}
        shown = {**SHOWN, **group, "id": number, "budget": budget}
        lists = [{**each, "id": each["bidListId"]} for each in group.get("associatedBidLists", [])]
        return web.json_response({"adGroup": {**shown, "associatedBidLists": lists}}, status=status)

    # -- reports -------------------------------------------------------------------------------------

    async def schedule(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["ReportTemplateId"] != int(TEMPLATE) or body["AdvertiserFilters"] != [ADVERTISER]:
            return web.json_response({"Message": "The request failed validation."}, status=400)
        number = 9000 + len(self.schedules)
        self.schedules[number] = body
        return web.json_response({**body, "ReportScheduleId": number})

    async def executions(self, request: web.Request) -> web.Response:
        (number,) = (await request.json())["ReportScheduleIds"]
        state = self.state
        if self.pending:
            self.pending -= 1
            state = "Pending"
        url = f"{self.url}/file/{number}" if state == "Complete" else None
        execution = {
            "ReportExecutionId": number * 10,
            "ReportExecutionState": state,
            "ReportScheduleId": number,
            "ReportDeliveries": [{"DownloadURL": url, "DeliveredPath": None}] if url else [],
        }
        return web.json_response({"Result": [execution], "ResultCount": 1, "TotalFilteredCount": 1})

    async def download(self, request: web.Request) -> web.Response:
        self.downloads.append(dict(request.headers))
        body = self.schedules[int(request.match_info["number"])]
        day = date.fromisoformat(body["ReportStartDateInclusive"][:10])
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        for (campaign, billed_day), bill in self.bills.items():
            if billed_day == day:
                row = {
                    "Date": f"{day}T00:00:00",
                    "Campaign ID": campaign,
                    "Advertiser Cost (Adv Currency)": f"{Decimal(bill.spent) / MICROS:,}",
                    "Impressions": f"{bill.impressions:,}",
                    "Clicks": bill.clicks,
                    "Campaign": self.made[campaign]["name"],
                }
                writer.writerow({name: row[name] for name in self.columns})
        return web.Response(text=text.getvalue(), content_type="text/csv")
