"""Meta's Graph API as it documents itself: forms in, JSON out, errors with codes on 400, usage in headers."""

from __future__ import annotations

import hmac
import json
from datetime import date
from typing import Any, ClassVar

from aiohttp import web

from kiki.flow.plan import Account
from kiki.flow.platform import Status
from kiki.money import MICROS
from tests.flow.fakes.fake import TOKEN, Fake, FakeCampaign

STATUS = {Status.ACTIVE: "ACTIVE", Status.PAUSED: "PAUSED", Status.ENDED: "DELETED"}
WORDS = {word: status for status, word in STATUS.items()} | {"ARCHIVED": Status.ENDED}
SECRET = "an-app-secret-of-theirs"
PROOF = hmac.new(SECRET.encode(), TOKEN.encode(), "sha256").hexdigest()
WHOLE = {"JPY", "KRW"}
PIXEL = "555"
NONE = "LOWEST_COST_WITHOUT_CAP"


class MetaFake(Fake):
    NAME = "meta"
    ENVIRON: ClassVar[dict[str, str]] = {"META_ACCESS_TOKEN": TOKEN, "META_APP_SECRET": SECRET}
    OPTIONAL = ("META_APP_SECRET",)
    ACCOUNT = Account(
        account="act_1234", settings={"special_ad_categories": "NONE", "pixel": PIXEL, "per_minute": 60000}
    )
    UNITS: ClassVar[dict[str, int]] = {"BHD": MICROS // 100}

    def __init__(self, **changes: str) -> None:
        super().__init__(**changes)
        self.ad_sets: dict[str, dict[str, Any]] = {}
        self.headers: dict[str, str] = {}
        self.page = 2
        """Items on a page, whatever was asked for: so that somebody must turn it."""

    def environ(self) -> dict[str, str]:
        return {**self.ENVIRON, "META_URL": self.url}

    def routes(self, router: web.UrlDispatcher) -> None:
        root = "/v26.0"
        router.add_get(root + "/act_1234/campaigns", self._campaigns)
        router.add_post(root + "/act_1234/campaigns", self._create)
        router.add_post(root + "/act_1234/adsets", self._create_ad_set)
        router.add_get(root + "/{id}/adsets", self._ad_sets)
        router.add_get(root + "/{id}/insights", self._insights)
        router.add_post(root + f"/{PIXEL}/events", self._events)
        for end in ("", "/"):  # Meta's own kit ends with a slash
            router.add_get(root + "/act_1234" + end, self._account)
            router.add_get(root + "/{id}" + end, self._get)
            router.add_post(root + "/{id}" + end, self._set)

    def is_known(self, request: web.Request, content: bytes) -> bool:
        # Meta's own kit shows the token in the query, ours in a header; Meta takes both.
        shown = request.query.get("access_token") or request.headers.get("Authorization", "").removeprefix("Bearer ")
        proof = request.query.get("appsecret_proof") or PROOF.encode() in content
        return shown == self.token and proof in {PROOF, True}

    def throttled(self) -> web.Response:
        usage = {"1234": [{"type": "ads_management", "call_count": 100, "total_cputime": 1, "total_time": 1}]}
        usage["1234"][0]["estimated_time_to_regain_access"] = 7
        headers = {"X-Business-Use-Case-Usage": json.dumps(usage)}
        return error(80004, "There have been too many calls to this ad-account.", subcode=2446079, headers=headers)

    def refused(self, message: str = "the sum is too small") -> web.Response:
        return error(100, message, subcode=1885272)

    def unauthorized(self) -> web.Response:
        return error(190, "Error validating access token: it has expired.", kind="OAuthException", subcode=463)

    def unit(self) -> int:
        return MICROS if self.currency in WHOLE else MICROS // 100

    def minor(self, micros: int) -> int:
        assert micros % self.unit() == 0
        return micros // self.unit()

    # -- reading -------------------------------------------------------------------------------------

    async def _account(self, request: web.Request) -> web.Response:
        account = {
            "id": "act_1234",
            "currency": self.currency,
            "timezone_name": self.time_zone,
            "min_daily_budget": 100,
        }
        return self._answer(_only(account, request))

    async def _campaigns(self, request: web.Request) -> web.Response:
        [wanted] = json.loads(request.query["filtering"])
        assert (wanted["field"], wanted["operator"]) == ("name", "CONTAIN")
        shown = json.loads(request.query["effective_status"])
        found = [
            each
            for each in self.campaigns.values()
            if wanted["value"].lower() in each.name.lower() and STATUS[each.status] in shown
        ]
        return self._paged(request, [_only(self._shown(each), request) for each in found])

    async def _ad_sets(self, request: web.Request) -> web.Response:
        campaign = request.match_info["id"]
        found = [each for each in self.ad_sets.values() if each["campaign_id"] == campaign]
        return self._paged(request, [_only(each, request) for each in found])

    async def _get(self, request: web.Request) -> web.Response:
        campaign = self.campaigns.get(request.match_info["id"])
        return missing() if campaign is None else self._answer(_only(self._shown(campaign), request))

    async def _insights(self, request: web.Request) -> web.Response:
        span = json.loads(request.query["time_range"])
        assert span["since"] == span["until"]
        bill = self.bills.get((request.match_info["id"], date.fromisoformat(span["since"])))
        if bill is None:
            return self._answer({"data": []})
        row = {
            "spend": f"{bill.spent / MICROS:.6f}".rstrip("0").rstrip("."),
            "impressions": str(bill.impressions),
            "clicks": str(bill.clicks),
            "actions": [
                {"action_type": "link_click", "value": "9"},
                {"action_type": "purchase", "value": str(bill.conversions)},
            ],
            "action_values": [{"action_type": "purchase", "value": f"{bill.value / MICROS:.2f}"}],
            "date_start": span["since"],
            "date_stop": span["since"],
        }
        return self._answer({"data": [row], "paging": {"cursors": {"before": "MAZDZD", "after": "MAZDZD"}}})

    def _shown(self, campaign: FakeCampaign) -> dict[str, Any]:
        return {
            "id": campaign.id,
            "name": campaign.name,
            "status": STATUS[campaign.status],
            "daily_budget": str(self.minor(campaign.budget or 0)),
            "bid_strategy": campaign.more["bid_strategy"],
        }

    def _paged(self, request: web.Request, found: list[dict[str, Any]]) -> web.Response:
        start = int(request.query.get("after", 0))
        end = start + self.page
        paging: dict[str, Any] = {"cursors": {"before": str(start), "after": str(end)}}
        if end < len(found):
            paging["next"] = f"{self.url}/next"
        return self._answer({"data": found[start:end], "paging": paging})

    def _answer(self, body: Any) -> web.Response:
        return web.json_response(body, headers=self.headers)

    # -- writing -------------------------------------------------------------------------------------

    async def _create(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if "special_ad_categories" not in form:
            return error(100, "(#100) special_ad_categories is required")
        made = FakeCampaign(self.next_id(), form["name"], WORDS[form["status"]])
        made.budget = int(form["daily_budget"]) * self.unit()
        made.more |= {"bid_strategy": form["bid_strategy"], "objective": form["objective"]}
        self.campaigns[made.id] = made
        return self._answer({"id": made.id})

    async def _create_ad_set(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        campaign = self.campaigns.get(form["campaign_id"])
        if campaign is None or not json.loads(form["targeting"])["geo_locations"]["countries"]:
            return error(100, "Invalid parameter")
        if (campaign.more["bid_strategy"] != NONE) != ("bid_amount" in form):
            return error(100, "Bid amount required, or not allowed", subcode=1815857)
        made = {
            "id": f"{self.next_id()}000",
            "campaign_id": campaign.id,
            "status": form["status"],
            "name": form["name"],
        }
        if "bid_amount" in form:
            made["bid_amount"] = int(form["bid_amount"])
            campaign.bid = made["bid_amount"] * self.unit()
        self.ad_sets[made["id"]] = made
        return self._answer({"id": made["id"]})

    async def _set(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        node = request.match_info["id"]
        if node in self.ad_sets:
            self.ad_sets[node]["bid_amount"] = int(form["bid_amount"])
            self.campaigns[self.ad_sets[node]["campaign_id"]].bid = int(form["bid_amount"]) * self.unit()
            return self._answer({"success": True})
        campaign = self.campaigns.get(node)
        if campaign is None:
            return missing()
        if campaign.status is Status.ENDED:
            return error(100, "The campaign has been deleted", subcode=1487056)
        if "status" in form:
            campaign.status = WORDS[form["status"]]
        if "daily_budget" in form:
            campaign.budget = int(form["daily_budget"]) * self.unit()
        if "bid_strategy" in form:
            amounts = json.loads(form["adset_bid_amounts"])
            assert set(amounts) == {each for each, one in self.ad_sets.items() if one["campaign_id"] == node}
            campaign.more["bid_strategy"] = form["bid_strategy"]
            for each, amount in amounts.items():
                self.ad_sets[each]["bid_amount"] = amount
                campaign.bid = amount * self.unit()
        return self._answer({"success": True})

    async def _events(self, request: web.Request) -> web.Response:
        events = json.loads(str((await request.post())["data"]))
        for each in events:
            assert each["user_data"]["fbc"].startswith("fb.1.")
            assert each["custom_data"]["currency"] == self.currency
            self.uploads[each["event_id"]] = round(each["custom_data"]["value"] * MICROS)
        return self._answer({"events_received": len(events), "messages": [], "fbtrace_id": "A1"})


def error(
    code: int,
    message: str,
    *,
    kind: str = "OAuthException",
    subcode: int | None = None,
    status: int = 400,
    headers: dict[str, str] | None = None,
) -> web.Response:
    body = {"message": message, "type": kind, "code": code, "fbtrace_id": "A1"}
    if subcode is not None:
        body["error_subcode"] = subcode
    return web.json_response({"error": body}, status=status, headers=headers)


def missing() -> web.Response:
    return error(
        100, "Unsupported request. Object with that ID does not exist", kind="GraphMethodException", subcode=33
    )


def _only(shown: dict[str, Any], request: web.Request) -> dict[str, Any]:
    wanted = {"id", *request.query["fields"].split(",")}
    return {name: value for name, value in shown.items() if name in wanted}
