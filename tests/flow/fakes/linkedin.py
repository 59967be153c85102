"""LinkedIn's REST interface as it documents itself: Rest.li 2.0, decimal texts, ids of what was made in a header."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import unquote

from aiohttp import web

from kiki.flow.plan import Account
from kiki.flow.platform import Status
from kiki.flow.words import DECIMALS
from kiki.money import MICROS
from tests.flow.fakes.fake import REFRESH, Fake, FakeCampaign

STATUS = {Status.ACTIVE: "ACTIVE", Status.PAUSED: "PAUSED", Status.ENDED: "ARCHIVED"}
WORDS = {word: status for status, word in STATUS.items()}
ACCOUNT = "5001"
VERSION = "202608"


class LinkedInFake(Fake):
    NAME = "linkedin"
    RENEWS = True
    ENVIRON: ClassVar[dict[str, str]] = {
        "LINKEDIN_CLIENT_ID": "client-of-ours",
        "LINKEDIN_CLIENT_SECRET": "a-client-secret-of-theirs",
        "LINKEDIN_REFRESH_TOKEN": REFRESH,
    }
    ACCOUNT = Account(
        account=ACCOUNT,
        settings={
            "campaign_group": 6001,
            "organization": 7001,
            "political": False,
            "geo": "US=103644278 DE=101282230",
            "conversion": 8001,
            "per_minute": 60000,
        },
    )

    def __init__(self, **changes: str) -> None:
        super().__init__(**changes)
        self.page = 2
        self.day_limit = False

    def environ(self) -> dict[str, str]:
        return {**self.ENVIRON, "LINKEDIN_URL": self.url, "LINKEDIN_TOKEN_URL": f"{self.url}/oauth/v2/token"}

    def routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/oauth/v2/token", self.renew_token)
        router.add_get(f"/rest/adAccounts/{ACCOUNT}", self._account)
        router.add_get(f"/rest/adAccounts/{ACCOUNT}/adCampaigns", self._search)
        router.add_post(f"/rest/adAccounts/{ACCOUNT}/adCampaigns", self._create)
        router.add_get(f"/rest/adAccounts/{ACCOUNT}/adCampaigns/{{id}}", self._get)
        router.add_post(f"/rest/adAccounts/{ACCOUNT}/adCampaigns/{{id}}", self._update)
        router.add_get("/rest/adAnalytics", self._analytics)
        router.add_post("/rest/conversionEvents", self._conversions)

    def is_known(self, request: web.Request, content: bytes) -> bool:
        assert request.headers.get("LinkedIn-Version") == VERSION
        assert request.headers.get("X-RestLi-Protocol-Version") == "2.0.0"
        return super().is_known(request, content)

    def throttled(self) -> web.Response:
        what = "APPLICATION DAY" if self.day_limit else "MEMBER MINUTE"
        return error(429, f"Resource level throttle {what} limit for calls to this resource is reached.", 101)

    def refused(self, message: str = "the sum is too small") -> web.Response:
        return error(400, message, 100)

    def unauthorized(self) -> web.Response:
        return error(401, "The token used in the request has expired", 65601)

    # -- reading -------------------------------------------------------------------------------------

    async def _account(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {"id": int(ACCOUNT), "currency": self.currency, "status": "ACTIVE", "type": "BUSINESS"}
        )

    async def _search(self, request: web.Request) -> web.Response:
        raw = request.rel_url.raw_query_string
        found = re.search(r"search=\(name:\(values:List\(([^(),]*)\)\),status:\(values:List\(([A-Z_,]+)\)\)\)", raw)
        assert found, raw
        assert request.query["q"] == "search"
        name, statuses = unquote(found[1]), found[2].split(",")
        named = [each for each in self.campaigns.values() if name in each.name and STATUS[each.status] in statuses]
        start = int(request.query.get("pageToken", "p0")[1:])
        more = {"nextPageToken": f"p{start + self.page}"} if start + self.page < len(named) else {}
        shown = [self._shown(each) for each in named[start : start + self.page]]
        return web.json_response({"elements": shown, "metadata": more})

    async def _get(self, request: web.Request) -> web.Response:
        campaign = self.campaigns.get(request.match_info["id"])
        return missing() if campaign is None else web.json_response(self._shown(campaign))

    def _shown(self, campaign: FakeCampaign) -> dict[str, Any]:
        shown = {
            "id": int(campaign.id),
            "name": campaign.name,
            "status": STATUS[campaign.status],
            "dailyBudget": self._money(campaign.budget or 0),
            "optimizationTargetType": campaign.more["optimised"],
            "account": f"urn:li:sponsoredAccount:{ACCOUNT}",
        }
        return shown | ({"unitCost": self._money(campaign.bid)} if campaign.bid else {})

    async def _analytics(self, request: web.Request) -> web.Response:
        raw = request.rel_url.raw_query_string
        when = re.search(r"dateRange=\(start:(\(year:(\d+),month:(\d+),day:(\d+)\)),end:(\([^)]*\))\)", raw)
        whose = re.search(r"campaigns=List\(urn%3Ali%3AsponsoredCampaign%3A(\d+)\)", raw)
        assert when, raw
        assert whose, raw
        assert when[1] == when[5]
        bill = self.bills.get((whose[1], date(int(when[2]), int(when[3]), int(when[4]))))
        rows = []
        if bill is not None:
            rows.append(
                {
                    "costInLocalCurrency": f"{Decimal(bill.spent) / MICROS:f}",
                    "impressions": bill.impressions,
                    "clicks": bill.clicks,
                    "externalWebsiteConversions": bill.conversions,
                    "conversionValueInLocalCurrency": f"{Decimal(bill.value) / MICROS:f}",
                }
            )
        return web.json_response({"elements": rows, "paging": {"start": 0, "count": 10, "links": []}})

    def _money(self, micros: int) -> dict[str, str]:
        return {"amount": f"{Decimal(micros) / MICROS:f}", "currencyCode": self.currency}

    def _micros(self, money: dict[str, str]) -> int:
        assert money["currencyCode"] == self.currency
        assert isinstance(money["amount"], str)
        _, _, decimals = money["amount"].partition(".")
        assert len(decimals) == DECIMALS.get(self.currency, 2)
        return round(Decimal(money["amount"]) * MICROS)

    # -- writing -------------------------------------------------------------------------------------

    async def _create(self, request: web.Request) -> web.Response:
        assert request.headers["X-RestLi-Method"] == "CREATE"
        body = await request.json()
        assert body["campaignGroup"] == "urn:li:sponsoredCampaignGroup:6001"
        if (body["optimizationTargetType"] == "NONE") != ("unitCost" in body):
            return error(400, "unitCost is required, or not allowed", 100)
        made = FakeCampaign(self.next_id(), body["name"], WORDS[body["status"]], self._micros(body["dailyBudget"]))
        made.more["optimised"] = body["optimizationTargetType"]
        made.bid = self._micros(body["unitCost"]) if "unitCost" in body else None
        self.campaigns[made.id] = made
        return web.Response(status=201, headers={"x-restli-id": made.id})

    async def _update(self, request: web.Request) -> web.Response:
        assert request.headers["X-RestLi-Method"] == "PARTIAL_UPDATE"
        campaign = self.campaigns.get(request.match_info["id"])
        change = (await request.json())["patch"]["$set"]
        if campaign is None:
            return missing()
        if campaign.status is Status.ENDED:
            return error(400, "Campaign is archived", 100)
        if "status" in change:
            campaign.status = WORDS[change["status"]]
        if "dailyBudget" in change:
            campaign.budget = self._micros(change["dailyBudget"])
        if "unitCost" in change:
            campaign.bid = self._micros(change["unitCost"])
            campaign.more["optimised"] = change["optimizationTargetType"]
        return web.Response(status=204)

    async def _conversions(self, request: web.Request) -> web.Response:
        assert request.headers["X-RestLi-Method"] == "BATCH_CREATE"
        taken = []
        for each in (await request.json())["elements"]:
            assert each["conversion"] == "urn:lla:llaPartnerConversion:8001"
            [who] = each["user"]["userIds"]
            if who["idValue"].startswith("bad"):
                taken.append({"status": 400, "error": {"message": "no such person"}})
                continue
            self.uploads[each["eventId"]] = self._micros(each["conversionValue"])
            taken.append({"status": 201})
        return web.json_response({"elements": taken})


def error(status: int, message: str, code: int) -> web.Response:
    return web.json_response({"status": status, "serviceErrorCode": code, "message": message}, status=status)


def missing() -> web.Response:
    return error(404, "Could not find entity", 0)
