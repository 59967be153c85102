"""TikTok's Business API as it documents itself: one envelope around everything, and 200 whatever happened."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar

from aiohttp import web

from kiki.flow.plan import Account
from kiki.flow.platform import Status
from kiki.money import MICROS
from tests.flow.fakes.fake import TOKEN, Fake, FakeCampaign

STATUS = {Status.ACTIVE: "ENABLE", Status.PAUSED: "DISABLE"}
WORDS = {word: status for status, word in STATUS.items()} | {"DELETE": Status.ENDED}
REGIONS = {"US": "6252001", "CA": "6251999", "DE": "2921044"}
ADVERTISER = "7000000000001"
PIXEL = "7000000000777"


class TikTokFake(Fake):
    NAME = "tiktok"
    ENVIRON: ClassVar[dict[str, str]] = {"TIKTOK_ACCESS_TOKEN": TOKEN}
    ACCOUNT = Account(account=ADVERTISER, settings={"pixel": PIXEL, "pixel_code": "C4ABC", "per_minute": 60000})

    def __init__(self, **changes: str) -> None:
        super().__init__(**changes)
        self.ad_groups: dict[str, dict[str, Any]] = {}
        self.seen: set[str] = set()
        """Request ids that were taken."""
        self.page = 2
        self.throttle = 40100

    def environ(self) -> dict[str, str]:
        return {**self.ENVIRON, "TIKTOK_URL": self.url}

    def routes(self, router: web.UrlDispatcher) -> None:
        root = "/open_api/v1.3/"
        router.add_get(root + "advertiser/info/", self._info)
        router.add_get(root + "tool/region/", self._regions)
        router.add_get(root + "report/integrated/get/", self._report)
        router.add_post(root + "event/track/", self._events)
        for by in ("", "smart_plus/"):
            router.add_get(root + by + "campaign/get/", self._campaigns)
            router.add_post(root + by + "campaign/create/", self._create)
            router.add_post(root + by + "campaign/update/", self._update)
            router.add_post(root + by + "campaign/status/update/", self._set_status)
            router.add_get(root + by + "adgroup/get/", self._get_ad_groups)
            router.add_post(root + by + "adgroup/create/", self._create_ad_group)
            router.add_post(root + by + "adgroup/update/", self._update_ad_group)

    def is_known(self, request: web.Request, content: bytes) -> bool:
        return request.headers.get("Access-Token") == self.token

    def throttled(self) -> web.Response:
        return envelope(self.throttle, "Too many requests. Please retry in some time.")

    def refused(self, message: str = "the sum is too small") -> web.Response:
        return envelope(40002, message)

    def unauthorized(self) -> web.Response:
        return envelope(40105, "Access token is incorrect or has been revoked.")

    # -- reading -------------------------------------------------------------------------------------

    async def _info(self, request: web.Request) -> web.Response:
        assert json.loads(request.query["advertiser_ids"]) == [ADVERTISER]
        found = {"advertiser_id": ADVERTISER, "currency": self.currency, "display_timezone": self.time_zone}
        return envelope(0, "OK", {"list": [{**found, "timezone": "Etc/GMT+5"}]})

    async def _regions(self, request: web.Request) -> web.Response:
        assert json.loads(request.query["placements"]) == ["PLACEMENT_TIKTOK"]
        regions = [
            {"location_id": number, "region_code": code, "level": "COUNTRY", "name": code, "parent_id": "0"}
            for code, number in REGIONS.items()
        ]
        return envelope(0, "OK", {"region_info": regions})

    async def _campaigns(self, request: web.Request) -> web.Response:
        assert request.query["advertiser_id"] == ADVERTISER
        wanted = json.loads(request.query["filtering"])
        found = [each for each in self.campaigns.values() if each.more["by"] == self._by(request)]
        if "campaign_name" in wanted:
            # A search, not a comparison.
            found = [each for each in found if wanted["campaign_name"].lower() in each.name.lower()]
        if "campaign_ids" in wanted:
            found = [each for each in found if each.id in wanted["campaign_ids"]]
        elif wanted.get("primary_status") != "STATUS_ALL":
            found = [each for each in found if each.status is not Status.ENDED]
        return self._paged(request, [self._shown(each) for each in found])

    def _shown(self, campaign: FakeCampaign) -> dict[str, Any]:
        ended = campaign.status is Status.ENDED
        return {
            "campaign_id": campaign.id,
            "campaign_name": campaign.name,
            "operation_status": STATUS.get(campaign.status, "DISABLE"),
            "secondary_status": "CAMPAIGN_STATUS_DELETE" if ended else "CAMPAIGN_STATUS_DISABLE",
            "budget": (campaign.budget or 0) / MICROS,
            "budget_mode": "BUDGET_MODE_DAY",
        }

    async def _get_ad_groups(self, request: web.Request) -> web.Response:
        [campaign] = json.loads(request.query["filtering"])["campaign_ids"]
        found = [each for each in self.ad_groups.values() if each["campaign_id"] == campaign]
        return self._paged(request, found)

    async def _report(self, request: web.Request) -> web.Response:
        query = request.query
        assert (query["report_type"], query["data_level"]) == ("BASIC", "AUCTION_CAMPAIGN")
        assert query["start_date"] == query["end_date"]
        [wanted] = json.loads(query["filtering"])
        [campaign] = json.loads(wanted["filter_value"])
        bill = self.bills.get((campaign, date.fromisoformat(query["start_date"])))
        rows = []
        if bill is not None:
            metrics = {
                "spend": f"{Decimal(bill.spent) / MICROS:f}",
                "impressions": str(bill.impressions),
                "clicks": str(bill.clicks),
                "conversion": str(bill.conversions),
            }
            dimensions = {"campaign_id": campaign, "stat_time_day": f"{query['start_date']} 00:00:00"}
            rows = [{"dimensions": dimensions, "metrics": metrics}]
        return self._paged(request, rows)

    def _paged(self, request: web.Request, found: list[dict[str, Any]]) -> web.Response:
        number = int(request.query["page"])
        pages = -(-len(found) // self.page)
        info = {"page": number, "page_size": self.page, "total_number": len(found), "total_page": pages}
        rows = found[(number - 1) * self.page : number * self.page]
        return envelope(0, "OK", {"list": rows, "page_info": info})

    # -- writing -------------------------------------------------------------------------------------

    def _by(self, request: web.Request) -> str:
        return "smart_plus/" if "/smart_plus/" in request.path else ""

    def _is_repeated(self, body: dict[str, Any]) -> bool:
        assert body["request_id"].isdigit()
        assert int(body["request_id"]) < 2**63
        repeated = body["request_id"] in self.seen
        self.seen.add(body["request_id"])
        return repeated

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["advertiser_id"] == ADVERTISER
        if self._is_repeated(body):
            return envelope(40050, "duplicated request")
        assert body["budget_optimize_on"] is True
        # Without a word about it TikTok makes what may spend.
        made = FakeCampaign(self.next_id(), body["campaign_name"], WORDS[body.get("operation_status", "ENABLE")])
        made.budget = round(Decimal(str(body["budget"])) * MICROS)
        made.more["by"] = self._by(request)
        self.campaigns[made.id] = made
        return envelope(0, "OK", {"campaign_id": made.id})

    async def _create_ad_group(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self._is_repeated(body):
            return envelope(40050, "duplicated request")
        campaign = self.campaigns[body["campaign_id"]]
        field = "conversion_bid_price" if self._by(request) else "bid_price"
        if (body["bid_type"] == "BID_TYPE_CUSTOM") != (field in body):
            return envelope(40002, f"{field} is required, or not allowed")
        made = {
            "adgroup_id": self.next_id(),
            "campaign_id": campaign.id,
            "bid_type": body["bid_type"],
            "bid_price": body.get("bid_price", 0),
            "conversion_bid_price": body.get("conversion_bid_price", 0),
            "secondary_status": "ADGROUP_STATUS_CAMPAIGN_DISABLE",
        }
        if field in body:
            campaign.bid = round(Decimal(str(body[field])) * MICROS)
        self.ad_groups[made["adgroup_id"]] = made
        return envelope(0, "OK", {"adgroup_id": made["adgroup_id"]})

    async def _update(self, request: web.Request) -> web.Response:
        body = await request.json()
        campaign = self.campaigns.get(body["campaign_id"])
        if campaign is None or campaign.more["by"] != self._by(request):
            return envelope(40002, "campaign does not exist")
        campaign.budget = round(Decimal(str(body["budget"])) * MICROS)
        return envelope(0, "OK", {"campaign_id": campaign.id})

    async def _update_ad_group(self, request: web.Request) -> web.Response:
        body = await request.json()
        group = self.ad_groups[body["adgroup_id"]]
        campaign = self.campaigns[group["campaign_id"]]
        field = "conversion_bid_price" if self._by(request) else "bid_price"
        group |= {name: body[name] for name in (field, "bid_type") if name in body}
        campaign.bid = round(Decimal(str(body[field])) * MICROS)
        return envelope(0, "OK", {"adgroup_id": group["adgroup_id"]})

    async def _set_status(self, request: web.Request) -> web.Response:
        body = await request.json()
        [number] = body["campaign_ids"]
        campaign = self.campaigns.get(number)
        if campaign is None or campaign.more["by"] != self._by(request):
            return envelope(40002, "campaign does not exist")
        if campaign.status is WORDS[body["operation_status"]]:
            return envelope(40012, "no update")
        campaign.status = WORDS[body["operation_status"]]
        return envelope(0, "OK", {"campaign_ids": [number], "status": body["operation_status"]})

    async def _events(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert (body["event_source"], body["event_source_id"]) == ("web", "C4ABC")
        for each in body["data"]:
            assert each["user"]["ttclid"].startswith("click-")
            assert each["properties"]["currency"] == self.currency
            self.uploads[each["event_id"]] = round(Decimal(str(each["properties"]["value"])) * MICROS)
        return envelope(0, "OK", {})


def envelope(code: int, message: str, data: Any = None) -> web.Response:
    return web.json_response({"code": code, "message": message, "request_id": "2026", "data": data or {}})
