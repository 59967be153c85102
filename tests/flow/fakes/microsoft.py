"""Microsoft Advertising as its REST reference for version 13 describes it: one host plays campaigns, accounts and reports."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar

from aiohttp import web

from kiki.flow.plan import Account
from kiki.flow.platform import Status
from kiki.money import MICROS
from tests.flow.fakes.fake import REFRESH, Fake, FakeCampaign

ACCOUNT = "180519321"
TIME_ZONES = {"America/New_York": "EasternTimeUSCanada", "Asia/Tokyo": "OsakaSapporoTokyo"}
STATUS = {Status.ACTIVE: "Active", Status.PAUSED: "Paused", Status.ENDED: "Deleted"}
READS = ("Query", "QueryByAccountId", "QueryByCampaignId", "QueryByIds", "Submit", "Poll", "report.zip")
INVALID_CAMPAIGN = (1100, "CampaignServiceInvalidCampaignId")


def exact(micros: int | None) -> float | None:
    return None if micros is None else float(Decimal(micros) / MICROS)


def micros(amount: float) -> int:
    return round(amount * MICROS)


class MicrosoftFake(Fake):
    NAME = "microsoft"
    ENVIRON: ClassVar[Mapping[str, str]] = {
        "MICROSOFT_ADS_DEVELOPER_TOKEN": "a-developer-token",
        "MICROSOFT_ADS_CLIENT_ID": "an-application",
        "MICROSOFT_ADS_CLIENT_SECRET": "a-secret-of-the-application",
        "MICROSOFT_ADS_REFRESH_TOKEN": REFRESH,
        "MICROSOFT_ADS_CUSTOMER_ID": "220011",
    }
    ACCOUNT = Account(account=ACCOUNT, settings={"conversion_goal": "Offline sales"})
    RENEWS = True
    SHOWS_ENDED = False

    def __init__(self, **about: Any) -> None:
        super().__init__(**about)
        self.groups: dict[str, dict[str, Any]] = {}
        self.criterions: list[dict[str, Any]] = []
        self.reports: dict[str, dict[str, Any]] = {}
        self.server_status: dict[str, str] = {}
        """What the server itself made of a campaign's status."""
        self.pending = 0
        """So many looks find a report not made."""
        self.failing = False
        self.downloads: list[Mapping[str, str]] = []

    def environ(self) -> dict[str, str]:
        return {**self.ENVIRON, "MICROSOFT_ADS_URL": self.url, "MICROSOFT_ADS_TOKEN_URL": f"{self.url}/token"}

    def routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/token", self.renew_token)
        router.add_post("/CustomerManagement/v13/Account/Query", self.account)
        campaigns = "/CampaignManagement/v13"
        router.add_post(f"{campaigns}/Campaigns/QueryByAccountId", self.list_campaigns)
        router.add_post(f"{campaigns}/Campaigns", self.add_campaigns)
        router.add_put(f"{campaigns}/Campaigns", self.update_campaigns)
        router.add_post(f"{campaigns}/AdGroups/QueryByCampaignId", self.list_groups)
        router.add_post(f"{campaigns}/AdGroups", self.add_groups)
        router.add_put(f"{campaigns}/AdGroups", self.update_groups)
        router.add_post(f"{campaigns}/CampaignCriterions/QueryByIds", self.list_criterions)
        router.add_post(f"{campaigns}/CampaignCriterions", self.add_criterions)
        router.add_post(f"{campaigns}/OfflineConversions/Apply", self.apply)
        router.add_post("/Reporting/v13/GenerateReport/Submit", self.submit)
        router.add_post("/Reporting/v13/GenerateReport/Poll", self.poll)
        router.add_get("/download/{number}/report.zip", self.download)

    # -- manners -------------------------------------------------------------------------------------

    def is_write(self, request: web.Request) -> bool:
        return request.path.rsplit("/", 1)[-1] not in READS

    def answers_always(self, request: web.Request) -> bool:
        return super().answers_always(request) or request.path.startswith("/download/")

    def is_known(self, request: web.Request, content: bytes) -> bool:
        named = ("DeveloperToken", "a-developer-token"), ("CustomerId", "220011"), ("CustomerAccountId", ACCOUNT)
        return super().is_known(request, content) and all(request.headers.get(name) == value for name, value in named)

    def fault(self, status: int, code: int, word: str, message: str) -> web.Response:
        error = {"Code": code, "Detail": None, "ErrorCode": word, "Message": message}
        body = {"TrackingId": "6f2a", "Errors": [error], "Type": "AdApiFaultDetail"}
        return web.json_response(body, status=status)

    def throttled(self) -> web.Response:
        return self.fault(400, 117, "CallRateExceeded", "You have exceeded the number of calls; wait 60 seconds.")

    def unauthorized(self) -> web.Response:
        return self.fault(401, 109, "AuthenticationTokenExpired", "The authentication token has expired.")

    def refused(self, message: str = "the sum is too small") -> web.Response:
        return self.partial(1105, "CampaignServiceCampaignDailyBudgetAmountIsBelowMinimum", message)

    def partial(self, code: int, word: str, message: str = "", **more: Any) -> web.Response:
        error = {
            "Code": code,
            "Details": None,
            "ErrorCode": word,
            "FieldPath": None,
            "ForwardCompatibilityMap": None,
            "Index": 0,
            "Message": message,
            "Type": "BatchError",
        }
        return web.json_response({"PartialErrors": [error], **more})

    async def account(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert ACCOUNT == body["AccountId"]
        about = {"Id": ACCOUNT, "CurrencyCode": self.currency, "TimeZone": TIME_ZONES[self.time_zone], "Name": "Shop"}
        return web.json_response({"Account": about})

    # -- campaigns -----------------------------------------------------------------------------------

    def shown(self, campaign: FakeCampaign) -> dict[str, Any]:
        return {
            **campaign.more,
            "Id": campaign.id,
            "Name": campaign.name,
            "Status": self.server_status.get(campaign.id, STATUS[campaign.status]),
            "DailyBudget": exact(campaign.budget),
        }

    async def list_campaigns(self, request: web.Request) -> web.Response:
        body = await request.json()
        kinds = {each.strip() for each in body["CampaignType"].split(",")}
        found = [
            self.shown(each)
            for each in self.campaigns.values()
            if each.status is not Status.ENDED and each.more["CampaignType"] in kinds
        ]
        return web.json_response({"Campaigns": found})

    async def add_campaigns(self, request: web.Request) -> web.Response:
        (given,) = (await request.json())["Campaigns"]
        if any(
            each.name.lower() == given["Name"].lower() and each.status is not Status.ENDED
            for each in self.campaigns.values()
        ):
            return self.partial(1115, "CampaignServiceCampaignNameAlreadyExists", CampaignIds=[])
        campaign = FakeCampaign(
            id=self.next_id(),
            name=given.pop("Name"),
            status=Status(given.pop("Status").lower()),
            budget=micros(given.pop("DailyBudget")),
            more=given,
        )
        self.campaigns[campaign.id] = campaign
        return web.json_response({"CampaignIds": [campaign.id], "PartialErrors": []})

    async def update_campaigns(self, request: web.Request) -> web.Response:
        (given,) = (await request.json())["Campaigns"]
        campaign = self.campaigns.get(given["Id"])
        if campaign is None or campaign.status is Status.ENDED:
            return self.partial(*INVALID_CAMPAIGN)
        if given.get("Status"):
            campaign.status = Status(given["Status"].lower())
            self.server_status.pop(campaign.id, None)
        if given.get("DailyBudget"):
            campaign.budget = micros(given["DailyBudget"])
        return web.json_response({"PartialErrors": []})

    async def list_groups(self, request: web.Request) -> web.Response:
        campaign = (await request.json())["CampaignId"]
        found = [{**each, "CampaignId": None} for each in self.groups.values() if each["CampaignId"] == campaign]
        return web.json_response({"AdGroups": found})

    async def add_groups(self, request: web.Request) -> web.Response:
        body = await request.json()
        (given,) = body["AdGroups"]
        if any(
            each["CampaignId"] == body["CampaignId"] and each["Name"] == given["Name"] for each in self.groups.values()
        ):
            return self.partial(1208, "CampaignServiceAdGroupNameAlreadyExists", AdGroupIds=[])
        group = {**given, "Id": self.next_id(), "CampaignId": body["CampaignId"]}
        self.groups[group["Id"]] = group
        self._bid(group)
        return web.json_response({"AdGroupIds": [group["Id"]], "PartialErrors": [], "InheritedBidStrategyTypes": None})

    async def update_groups(self, request: web.Request) -> web.Response:
        (given,) = (await request.json())["AdGroups"]
        group = self.groups.get(given["Id"])
        if group is None:
            return self.partial(1201, "CampaignServiceInvalidAdGroupId")
        group |= given
        self._bid(group)
        return web.json_response({"PartialErrors": [], "InheritedBidStrategyTypes": None})

    def _bid(self, group: Mapping[str, Any]) -> None:
        bid = group.get("CpcBid")
        self.campaigns[group["CampaignId"]].bid = micros(bid["Amount"]) if bid else None

    async def list_criterions(self, request: web.Request) -> web.Response:
        campaign = (await request.json())["CampaignId"]
        found = [each for each in self.criterions if each["CampaignId"] == campaign]
        return web.json_response({"CampaignCriterions": found, "PartialErrors": []})

    async def add_criterions(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert "Targets" == body["CriterionType"]
        made = [{**each, "Id": self.next_id()} for each in body["CampaignCriterions"]]
        self.criterions += made
        return web.json_response({"CampaignCriterionIds": [each["Id"] for each in made], "NestedPartialErrors": []})

    async def apply(self, request: web.Request) -> web.Response:
        for each in (await request.json())["OfflineConversions"]:
            assert (self.currency, "Offline sales") == (each["ConversionCurrencyCode"], each["ConversionName"])
            self.uploads[each["MicrosoftClickId"].removeprefix("click-")] = micros(each["ConversionValue"])
        return web.json_response({"PartialErrors": []})

    # -- reports -------------------------------------------------------------------------------------

    async def submit(self, request: web.Request) -> web.Response:
        asked = (await request.json())["ReportRequest"]
        assert TIME_ZONES[self.time_zone] == asked["Time"]["ReportTimeZone"]
        number = f"3000000{len(self.reports)}"
        self.reports[number] = asked
        return web.json_response({"ReportRequestId": number})

    async def poll(self, request: web.Request) -> web.Response:
        number = (await request.json())["ReportRequestId"]
        if number not in self.reports:
            return self.fault(400, 2100, "ReportingServiceInvalidReportId", "no such report")
        status = "Success"
        if self.pending:
            self.pending -= 1
            status = "Pending"
        if self.failing:
            status = "Error"
        url = f"{self.url}/download/{number}/report.zip" if status == "Success" and self.rows(number) else None
        return web.json_response({"ReportRequestStatus": {"Status": status, "ReportDownloadUrl": url}})

    def rows(self, number: str) -> list[dict[str, Any]]:
        asked = self.reports[number]
        start = asked["Time"]["CustomDateRangeStart"]
        day = date(start["Year"], start["Month"], start["Day"])
        (scope,) = asked["Scope"]["Campaigns"]
        bill = self.bills.get((scope["CampaignId"], day))
        if bill is None:
            return []
        row = {
            "TimePeriod": str(day),
            "CampaignId": scope["CampaignId"],
            "Spend": str(Decimal(bill.spent) / MICROS),
            "Impressions": bill.impressions,
            "Clicks": bill.clicks,
            "Conversions": bill.conversions,
            "Revenue": str(Decimal(bill.value) / MICROS),
        }
        return [{name: row[name] for name in asked["Columns"]}]

    async def download(self, request: web.Request) -> web.Response:
        self.downloads.append(dict(request.headers))
        rows = self.rows(request.match_info["number"])
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{request.match_info['number']}.csv", "\ufeff" + text.getvalue())
        return web.Response(body=packed.getvalue(), content_type="application/octet-stream")
