"""X Ads as its reference for API version 12 describes it: parameters in the query, `data` and `next_cursor` in answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import web
from oauthlib.oauth1 import Client

from kiki.flow.plan import Account
from kiki.flow.platform import Status
from tests.flow.fakes.fake import Fake, FakeCampaign

ACCOUNT = "18ce54d4x5t"
KEYS = ("a-consumer-key", "a-consumer-secret", "a-user-token", "a-user-token-secret")
STATUS = {"ACTIVE": Status.ACTIVE, "PAUSED": Status.PAUSED}
LOCATIONS = {"US": "96683cc9126741d1", "CA": "3376992a082d67c7", "JP": "06ef846bfc783874"}
CREATES = {
    "campaigns": {"name", "funding_instrument_id", "daily_budget_amount_local_micro"},
    "line_items": {"campaign_id", "objective", "product_type", "placements", "start_time"},
    "targeting_criteria": {"line_item_id", "targeting_type", "targeting_value"},
}


class XFake(Fake):
    NAME = "x"
    ENVIRON: Mapping[str, str] = {
        "X_ADS_CONSUMER_KEY": KEYS[0],
        "X_ADS_CONSUMER_SECRET": KEYS[1],
        "X_ADS_ACCESS_TOKEN": KEYS[2],
        "X_ADS_ACCESS_TOKEN_SECRET": KEYS[3],
    }
    ACCOUNT = Account(account=ACCOUNT, settings={"pixel": "o8z6j", "event": "tw-o8z6j-o8z21"})

    def __init__(self, **about: Any) -> None:
        super().__init__(**about)
        self.items: dict[str, dict[str, Any]] = {}
        self.targeting: list[dict[str, Any]] = []
        self.instruments = [{"id": "lygyi", "able_to_fund": True, "deleted": False}]
        self.versions: set[str] = set()
        self.page = 1000
        self.reset = 4_000_000_000  # far ahead: what is closed until then stays closed

    def environ(self) -> dict[str, str]:
        return {**self.ENVIRON, "X_ADS_URL": self.url}

    def routes(self, router: web.UrlDispatcher) -> None:
        below = "/{version}/accounts/{account}"
        router.add_get(below, self.account)
        router.add_get(f"{below}/funding_instruments", self.funding)
        for kind in CREATES:
            router.add_get(f"{below}/{kind}", getattr(self, f"list_{kind}"))
            router.add_post(f"{below}/{kind}", getattr(self, f"create_{kind}"))
        router.add_get(f"{below}/campaigns/{{id}}", self.get_campaign)
        router.add_put(f"{below}/campaigns/{{id}}", self.put_campaign)
        router.add_delete(f"{below}/campaigns/{{id}}", self.delete_campaign)
        router.add_put(f"{below}/line_items/{{id}}", self.put_line_item)
        router.add_get("/{version}/targeting_criteria/locations", self.locations)
        router.add_get("/{version}/stats/accounts/{account}", self.stats)
        router.add_post("/{version}/measurement/conversions/{pixel}", self.convert)

    # -- manners -------------------------------------------------------------------------------------

    def is_known(self, request: web.Request, content: bytes) -> bool:
        """The signature is computed anew, by the package that X's own kit signs with."""
        self.versions.add(request.path.split("/")[1])
        header = request.headers.get("Authorization", "")
        given = dict(re.findall(r'(\w+)="([^"]*)"', header))
        signer = Client(
            KEYS[0],
            client_secret=KEYS[1],
            resource_owner_key=KEYS[2],
            resource_owner_secret=KEYS[3],
            nonce=given.get("oauth_nonce"),
            timestamp=given.get("oauth_timestamp"),
        )
        _, headers, _ = signer.sign(f"{self.url}{request.rel_url.raw_path_qs}".replace("+", "%20"), request.method)
        expected = dict(re.findall(r'(\w+)="([^"]*)"', headers["Authorization"]))
        return bool(given) and given == expected

    def throttled(self) -> web.Response:
        headers = {"x-account-rate-limit-reset": str(self.reset), "x-rate-limit-reset": str(self.reset + 60)}
        return self._errors(429, "TOO_MANY_REQUESTS", "Too Many Requests", headers)

    def refused(self, message: str = "the sum is too small") -> web.Response:
        return self._errors(400, "INVALID_PARAMETER", message)

    def unauthorized(self) -> web.Response:
        return self._errors(401, "UNAUTHORIZED_ACCESS", "This request is not properly authenticated")

    def _errors(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
        body = {"errors": [{"code": code, "message": message, "parameter": ""}], "request": {"params": {}}}
        return web.json_response(body, status=status, headers=headers)

    def _missing(self) -> web.Response:
        return self._errors(404, "NOT_FOUND", "nothing of that id")

    def _list(self, request: web.Request, found: list[dict[str, Any]]) -> web.Response:
        start = int(request.query.get("cursor", "0"))
        size = min(self.page, int(request.query.get("count", "200")))
        more = str(start + size) if start + size < len(found) else None
        return web.json_response({"data": found[start : start + size], "next_cursor": more, "request": {"params": {}}})

    def _one(self, data: Any) -> web.Response:
        return web.json_response({"data": data, "request": {"params": {}}})

    # -- the account ---------------------------------------------------------------------------------

    async def account(self, request: web.Request) -> web.Response:
        return self._one({"id": ACCOUNT, "name": "Shop", "timezone": self.time_zone, "approval_status": "ACCEPTED"})

    async def funding(self, request: web.Request) -> web.Response:
        return self._list(request, [{**each, "currency": self.currency} for each in self.instruments])

    # -- campaigns -----------------------------------------------------------------------------------

    def shown(self, campaign: FakeCampaign) -> dict[str, Any]:
        ended = campaign.status is Status.ENDED
        return {
            "id": campaign.id,
            "name": campaign.name,
            "entity_status": "PAUSED" if ended else campaign.status.upper(),
            "effective_status": campaign.status.upper(),
            "currency": self.currency,
            "daily_budget_amount_local_micro": campaign.budget,
            "total_budget_amount_local_micro": None,
            "funding_instrument_id": campaign.more.get("funding_instrument_id"),
            "budget_optimization": campaign.more.get("budget_optimization"),
            "created_at": "2026-11-01T10:00:00Z",
            "deleted": ended,
            "servable": True,
        }

    async def list_campaigns(self, request: web.Request) -> web.Response:
        prefix, deleted = request.query.get("q", "").lower(), request.query.get("with_deleted") == "true"
        found = [
            self.shown(each)
            for each in self.campaigns.values()
            if each.name.lower().startswith(prefix) and (deleted or each.status is not Status.ENDED)
        ]
        return self._list(request, found)

    async def create_campaigns(self, request: web.Request) -> web.Response:
        lacking = CREATES["campaigns"] - set(request.query)
        if lacking:
            return self.refused(f"missing {sorted(lacking)}")
        if request.query["funding_instrument_id"] not in {each["id"] for each in self.instruments}:
            return self.refused("no such funding instrument")
        campaign = FakeCampaign(
            id=self.next_id(),
            name=request.query["name"],
            status=STATUS[request.query.get("entity_status", "ACTIVE")],
            budget=int(request.query["daily_budget_amount_local_micro"]),
            more=dict(request.query),
        )
        self.campaigns[campaign.id] = campaign
        return self._one(self.shown(campaign))

    async def get_campaign(self, request: web.Request) -> web.Response:
        campaign = self.campaigns.get(request.match_info["id"])
        return self._missing() if campaign is None else self._one(self.shown(campaign))

    async def put_campaign(self, request: web.Request) -> web.Response:
        campaign = self.campaigns.get(request.match_info["id"])
        if campaign is None or campaign.status is Status.ENDED:
            return self._missing()
        if "entity_status" in request.query:
            campaign.status = STATUS[request.query["entity_status"]]
        if "daily_budget_amount_local_micro" in request.query:
            campaign.budget = int(request.query["daily_budget_amount_local_micro"])
        return self._one(self.shown(campaign))

    async def delete_campaign(self, request: web.Request) -> web.Response:
        campaign = self.campaigns.get(request.match_info["id"])
        if campaign is None or campaign.status is Status.ENDED:
            return self._missing()
        campaign.status = Status.ENDED
        return self._one(self.shown(campaign))

    async def list_line_items(self, request: web.Request) -> web.Response:
        ids = request.query.get("campaign_ids")
        found = [each for each in self.items.values() if ids is None or each["campaign_id"] in ids.split(",")]
        return self._list(request, found)

    async def create_line_items(self, request: web.Request) -> web.Response:
        lacking = CREATES["line_items"] - set(request.query)
        if lacking or request.query["campaign_id"] not in self.campaigns:
            return self.refused(f"missing {sorted(lacking)}")
        item: dict[str, Any] = {"id": self.next_id(), "deleted": False, "currency": self.currency, **request.query}
        self._bid(item, request)
        self.items[item["id"]] = item
        return self._one(item)

    async def put_line_item(self, request: web.Request) -> web.Response:
        item = self.items.get(request.match_info["id"])
        if item is None:
            return self._missing()
        item |= request.query
        self._bid(item, request)
        return self._one(item)

    def _bid(self, item: dict[str, Any], request: web.Request) -> None:
        text = request.query.get("bid_amount_local_micro")
        item["bid_amount_local_micro"] = int(text) if text else item.get("bid_amount_local_micro")
        self.campaigns[item["campaign_id"]].bid = item["bid_amount_local_micro"]

    async def locations(self, request: web.Request) -> web.Response:
        country = request.query.get("country_code", "")
        found = [
            {"name": code, "country_code": code, "location_type": "COUNTRIES", "targeting_value": value}
            for code, value in LOCATIONS.items()
            if code == country
        ]
        return self._list(request, found)

    async def list_targeting_criteria(self, request: web.Request) -> web.Response:
        ids = request.query.get("line_item_ids", "").split(",")
        return self._list(request, [each for each in self.targeting if each["line_item_id"] in ids])

    async def create_targeting_criteria(self, request: web.Request) -> web.Response:
        if CREATES["targeting_criteria"] - set(request.query):
            return self.refused()
        made = {"id": self.next_id(), "deleted": False, **request.query}
        self.targeting.append(made)
        return self._one(made)

    # -- statistics and conversions --------------------------------------------------------------------

    async def stats(self, request: web.Request) -> web.Response:
        starts = datetime.fromisoformat(request.query["start_time"])
        ends = datetime.fromisoformat(request.query["end_time"])
        zone = ZoneInfo(self.time_zone)
        local = starts.astimezone(zone)
        whole = all((each.minute, each.second) == (0, 0) for each in (starts, ends))
        midnight = (local.hour, ends.astimezone(zone).hour) == (0, 0) and ends.astimezone(
            zone
        ).date() == local.date() + timedelta(days=1)
        if not whole or not midnight or request.query["granularity"] != "DAY":
            return self.refused("start_time and end_time are whole days of the account's time zone")
        data = [
            self._stats(each, local.date(), request.query["placement"])
            for each in request.query["entity_ids"].split(",")
        ]
        return web.json_response({"data": data, "request": {"params": {}}, "data_type": "stats"})

    def _stats(self, campaign: str, day: date, placement: str) -> dict[str, Any]:
        bill = self.bills.get((campaign, day))
        here = bill is not None and placement == "ALL_ON_TWITTER"
        metrics = {
            "billed_charge_local_micro": [bill.spent] if bill and here else None,
            "impressions": [bill.impressions] if bill and here else None,
            "clicks": [bill.clicks] if bill and here else None,
            "engagements": None,
        }
        return {"id": campaign, "id_data": [{"segment": None, "metrics": metrics}]}

    async def convert(self, request: web.Request) -> web.Response:
        body = await request.json()
        for each in body["conversions"]:
            if set(each) - {"conversion_time", "event_id", "identifiers", "conversion_id", "price_currency", "value"}:
                return self.refused("unknown field")
            if each["price_currency"] != self.currency or not each["identifiers"][0]["twclid"]:
                return self.refused("wrong currency")
            self.uploads[each["conversion_id"]] = round(each["value"] * 10**6)
        return self._one({"conversions_processed": len(body["conversions"]), "debug_id": "cd65f50b"})
