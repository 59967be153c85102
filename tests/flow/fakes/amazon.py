"""Amazon Ads as its unified API version 1 and its reporting version 3 describe themselves."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from aiohttp import web

from kiki.flow.plan import Account
from kiki.flow.platform import Status
from kiki.money import MICROS
from tests.flow.fakes.fake import REFRESH, Fake, FakeCampaign

PROFILE = "3312345678901234"
STATES = {Status.ACTIVE: "ENABLED", Status.PAUSED: "PAUSED", Status.ENDED: "ARCHIVED"}
NAMED = {state: status for status, state in STATES.items()}
CAMPAIGN = {
    "adProduct",
    "name",
    "state",
    "marketplaceScope",
    "startDateTime",
    "endDateTime",
    "autoCreationSettings",
    "budgets",
}
AD_GROUP = {"adProduct", "campaignId", "name", "state", "bid"}


def exact(micros: int | None) -> float | None:
    return None if micros is None else float(Decimal(micros) / MICROS)


class AmazonFake(Fake):
    NAME = "amazon"
    ENVIRON: ClassVar[Mapping[str, str]] = {
        "AMAZON_ADS_CLIENT_ID": "amzn1.application-oa2-client.abc",
        "AMAZON_ADS_CLIENT_SECRET": "a-client-secret-of-theirs",
        "AMAZON_ADS_REFRESH_TOKEN": REFRESH,
    }
    ACCOUNT = Account(account=PROFILE, settings={"ads_account": "amzn1.ads-account.g.abc"})
    CURRENCIES = ("USD", "EUR", "JPY")
    RENEWS = True
    VALUES = False

    def __init__(self, **about: Any) -> None:
        super().__init__(**about)
        self.groups: dict[str, dict[str, Any]] = {}
        self.reports: dict[str, dict[str, Any]] = {}
        self.pending = 0
        """So many looks find a report not made."""
        self.failing = False
        self.partial = False
        self.page = 100
        self.downloads: list[Mapping[str, str]] = []

    def environ(self) -> dict[str, str]:
        return {**self.ENVIRON, "AMAZON_ADS_URL": self.url, "AMAZON_ADS_TOKEN_URL": f"{self.url}/auth/o2/token"}

    def routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/auth/o2/token", self.renew_token)
        router.add_get("/v2/profiles", self.profiles)
        router.add_get("/v2/profiles/{id}", self.profile)
        for verb in ("query", "create", "update"):
            router.add_post(f"/adsApi/v1/{verb}/campaigns", getattr(self, f"{verb}_campaigns"))
            router.add_post(f"/adsApi/v1/{verb}/adGroups", getattr(self, f"{verb}_groups"))
        router.add_post("/reporting/reports", self.order)
        router.add_get("/reporting/reports/{number}", self.report)
        router.add_get("/files/{number}", self.download)

    # -- manners -------------------------------------------------------------------------------------

    def is_write(self, request: web.Request) -> bool:
        return "/create/" in request.path or "/update/" in request.path

    def answers_always(self, request: web.Request) -> bool:
        return super().answers_always(request) or request.path.startswith("/files/")

    def is_known(self, request: web.Request, content: bytes) -> bool:
        client = request.headers.get("Amazon-Ads-ClientId") or request.headers.get("Amazon-Advertising-API-ClientId")
        scope = request.headers.get("Amazon-Advertising-API-Scope")
        known = client == self.ENVIRON["AMAZON_ADS_CLIENT_ID"] and scope == PROFILE
        return super().is_known(request, content) and known

    def throttled(self) -> web.Response:
        body = {"code": "TOO_MANY_REQUESTS", "message": "Too many requests"}
        return web.json_response(body, status=429, headers={"Retry-After": "7"})

    def unauthorized(self) -> web.Response:
        return web.json_response({"code": "UNAUTHORIZED", "message": "Not authorized"}, status=401)

    def refused(self, message: str = "the sum is too small") -> web.Response:
        return self.error("FIELD_VALUE_IS_BELOW_MINIMUM_LIMIT", message)

    def error(self, code: str, message: str = "", index: int = 0) -> web.Response:
        errors = [{"code": code, "message": message, "fieldLocation": f"$.campaigns[{index}]"}]
        return web.json_response({"success": [], "error": [{"index": index, "errors": errors}]}, status=207)

    def took(self, name: str, thing: Mapping[str, Any]) -> web.Response:
        if self.partial:
            part = {"index": 0, name: thing, "errors": [{"code": "UNSUPPORTED_MARKETPLACE", "message": "BE"}]}
            return web.json_response({"success": [], "partialSuccess": [part], "error": []}, status=207)
        return web.json_response({"success": [{"index": 0, name: thing}], "error": []}, status=207)

    async def profiles(self, request: web.Request) -> web.Response:
        return web.json_response([self._profile()])

    async def profile(self, request: web.Request) -> web.Response:
        return web.json_response(self._profile())

    def _profile(self) -> dict[str, Any]:
        return {
            "profileId": int(PROFILE),
            "countryCode": "US",
            "currencyCode": self.currency,
            "timezone": self.time_zone,
            "accountInfo": {"marketplaceStringId": "ATVPDKIKX0DER", "id": "ENTITY1", "type": "seller", "name": "Shop"},
        }

    # -- campaigns -----------------------------------------------------------------------------------

    def shown(self, campaign: FakeCampaign) -> dict[str, Any]:
        amount = {"currencyCode": self.currency, "value": exact(campaign.budget)}
        return {
            **campaign.more,
            "campaignId": campaign.id,
            "name": campaign.name,
            "state": STATES[campaign.status],
            "creationDateTime": "2026-11-01T10:00:00Z",
            "lastUpdatedDateTime": "2026-11-01T10:00:00Z",
            "budgets": [
                {
                    "budgetType": "MONETARY",
                    "budgetValue": {"monetaryBudgetValue": {"monetaryBudget": amount}},
                    "recurrenceTimePeriod": "DAILY",
                }
            ],
        }

    async def query_campaigns(self, request: web.Request) -> web.Response:
        body = await request.json()
        names = {each.lower() for each in body.get("nameFilter", {}).get("include", [])}
        found = [self.shown(each) for each in self.campaigns.values() if not names or each.name.lower() in names]
        return self._page("campaigns", found, body)

    def _page(self, name: str, found: list[dict[str, Any]], body: Mapping[str, Any]) -> web.Response:
        if body.get("adProductFilter", {}).get("include") != ["SPONSORED_PRODUCTS"]:
            return web.json_response({"code": "BAD_REQUEST", "message": "adProductFilter"}, status=400)
        start, size = int(body.get("nextToken") or 0), min(self.page, body.get("maxResults") or 100)
        more = {"nextToken": str(start + size)} if start + size < len(found) else {}
        return web.json_response({name: found[start : start + size], **more})

    async def create_campaigns(self, request: web.Request) -> web.Response:
        (given,) = (await request.json())["campaigns"]
        if set(given) - CAMPAIGN or CAMPAIGN - {"endDateTime"} - set(given):
            return self.error("BAD_REQUEST", "fields")
        if any(each.name == given["name"] and each.status is not Status.ENDED for each in self.campaigns.values()):
            return self.error("FIELD_VALUE_NOT_UNIQUE", "name")
        campaign = FakeCampaign(
            id=self.next_id(),
            name=given.pop("name"),
            status=NAMED[given.pop("state")],
            budget=self._budget(given.pop("budgets")),
            more=given,
        )
        self.campaigns[campaign.id] = campaign
        return self.took("campaign", self.shown(campaign))

    def _budget(self, budgets: list[dict[str, Any]]) -> int:
        (budget,) = budgets
        assert ("MONETARY", "DAILY") == (budget["budgetType"], budget["recurrenceTimePeriod"])
        amount = budget["budgetValue"]["monetaryBudgetValue"]["monetaryBudget"]
        assert {"value"} == set(amount)
        return round(amount["value"] * MICROS)

    async def update_campaigns(self, request: web.Request) -> web.Response:
        (given,) = (await request.json())["campaigns"]
        campaign = self.campaigns.get(given["campaignId"])
        if campaign is None:
            return self.error("RESOURCE_ID_NOT_FOUND", "no such campaign")
        if campaign.status is Status.ENDED:
            return self.error("ARCHIVED_RESOURCE_CANNOT_EDIT", "archived")
        if "state" in given:
            campaign.status = NAMED[given["state"]]
        if "budgets" in given:
            campaign.budget = self._budget(given["budgets"])
        return self.took("campaign", self.shown(campaign))

    async def query_groups(self, request: web.Request) -> web.Response:
        body = await request.json()
        ids = body.get("campaignIdFilter", {}).get("include")
        found = [each for each in self.groups.values() if ids is None or each["campaignId"] in ids]
        return self._page("adGroups", found, body)

    async def create_groups(self, request: web.Request) -> web.Response:
        (given,) = (await request.json())["adGroups"]
        if set(given) != AD_GROUP:
            return self.error("BAD_REQUEST", "fields")
        group = {**given, "adGroupId": self.next_id(), "bid": {"currencyCode": self.currency, **given["bid"]}}
        self.groups[group["adGroupId"]] = group
        self.campaigns[group["campaignId"]].bid = round(group["bid"]["defaultBid"] * MICROS)
        return self.took("adGroup", group)

    async def update_groups(self, request: web.Request) -> web.Response:
        (given,) = (await request.json())["adGroups"]
        group = self.groups.get(given["adGroupId"])
        if group is None:
            return self.error("RESOURCE_ID_NOT_FOUND", "no such ad group")
        group["bid"] |= given["bid"]
        self.campaigns[group["campaignId"]].bid = round(group["bid"]["defaultBid"] * MICROS)
        return self.took("adGroup", group)

    # -- reports -------------------------------------------------------------------------------------

    async def order(self, request: web.Request) -> web.Response:
        body = await request.json()
        for number, known in self.reports.items():
            if known["body"] == body and not known["made"]:
                detail = {"code": "425", "detail": f"The Request is a duplicate of : {number}"}
                return web.json_response(detail, status=425)
        number = str(UUID(int=len(self.reports) + 2**100))
        self.reports[number] = {"body": body, "made": False}
        return web.json_response({"reportId": number, "status": "PENDING", "url": None, "failureReason": None})

    async def report(self, request: web.Request) -> web.Response:
        number = request.match_info["number"]
        report = self.reports.get(number)
        if report is None:
            return web.json_response({"code": "NOT_FOUND", "message": "no such report"}, status=404)
        status = "COMPLETED"
        if self.pending:
            self.pending -= 1
            status = "PROCESSING"
        elif self.failing:
            status = "FAILED"
        report["made"] = status == "COMPLETED"
        url = f"{self.url}/files/{number}" if report["made"] else None
        return web.json_response({"reportId": number, "status": status, "url": url, "failureReason": None})

    async def download(self, request: web.Request) -> web.Response:
        self.downloads.append(dict(request.headers))
        body = self.reports[request.match_info["number"]]["body"]
        columns = body["configuration"]["columns"]
        rows = []
        for (campaign, day), bill in self.bills.items():
            if str(day) == body["startDate"]:
                row = {
                    "date": str(day),
                    "campaignId": int(campaign),
                    "cost": exact(bill.spent),
                    "impressions": bill.impressions,
                    "clicks": bill.clicks,
                    "purchases14d": bill.conversions,
                    "sales14d": exact(bill.value),
                }
                rows.append({name: row[name] for name in columns})
        return web.Response(body=gzip.compress(json.dumps(rows).encode()), content_type="application/x-gzip")
