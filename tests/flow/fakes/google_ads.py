"""Google Ads as its REST interface documents it: searches in GAQL, mutates that are atomic, failures with their reasons."""

from __future__ import annotations

import re
from datetime import date
from typing import Any, ClassVar

from aiohttp import web

from kiki.flow.plan import Account
from kiki.flow.platform import Status
from kiki.money import MICROS
from tests.flow.fakes.fake import REFRESH, Fake, FakeCampaign

CUSTOMER = "1234567890"
STATUS = {Status.ACTIVE: "ENABLED", Status.PAUSED: "PAUSED", Status.ENDED: "REMOVED"}
WORDS = {word: status for status, word in STATUS.items()}
COUNTRIES = {"US": "2840", "CA": "2124", "DE": "2276"}
FAILURE = "type.googleapis.com/google.ads.googleads.v26.errors.GoogleAdsFailure"


class GoogleAdsFake(Fake):
    NAME = "google_ads"
    RENEWS = True
    ENVIRON: ClassVar[dict[str, str]] = {
        "GOOGLE_ADS_DEVELOPER_TOKEN": "a-developer-token-of-theirs",
        "GOOGLE_ADS_CLIENT_ID": "client-1.apps.example",
        "GOOGLE_ADS_CLIENT_SECRET": "a-client-secret-of-theirs",
        "GOOGLE_ADS_REFRESH_TOKEN": REFRESH,
        "GOOGLE_ADS_LOGIN_CUSTOMER_ID": "999-888-7777",
    }
    OPTIONAL = ("GOOGLE_ADS_LOGIN_CUSTOMER_ID",)
    ACCOUNT = Account(
        account="123-456-7890", settings={"eu_political": False, "conversion_action": 77, "per_minute": 60000}
    )

    def __init__(self, **changes: str) -> None:
        super().__init__(**changes)
        self.retry_delay = "30s"

    def environ(self) -> dict[str, str]:
        return {**self.ENVIRON, "GOOGLE_ADS_URL": self.url, "GOOGLE_ADS_TOKEN_URL": f"{self.url}/token"}

    def routes(self, router: web.UrlDispatcher) -> None:
        root = f"/v26/customers/{CUSTOMER}"
        router.add_post(root + "/googleAds:search", self._search)
        router.add_post(root + "/googleAds:mutate", self._mutate)
        router.add_post(root + "/campaigns:mutate", self._set_campaigns)
        router.add_post(root + "/campaignBudgets:mutate", self._set_budgets)
        router.add_post(root + ":uploadClickConversions", self._upload)
        router.add_post("/token", self.renew_token)

    def is_write(self, request: web.Request) -> bool:
        return not request.path.endswith(":search")

    def is_known(self, request: web.Request, content: bytes) -> bool:
        return (
            super().is_known(request, content)
            and request.headers.get("developer-token") == self.ENVIRON["GOOGLE_ADS_DEVELOPER_TOKEN"]
            and request.headers.get("login-customer-id") == "9998887777"
        )

    def throttled(self) -> web.Response:
        details = {
            "quotaErrorDetails": {"rateScope": "ACCOUNT", "rateName": "Requests", "retryDelay": self.retry_delay}
        }
        error = {"errorCode": {"quotaError": "RESOURCE_TEMPORARILY_EXHAUSTED"}, "message": "Too many requests."}
        return failure(429, "RESOURCE_EXHAUSTED", [{**error, "details": details}])

    def refused(self, message: str = "the sum is too small") -> web.Response:
        return failure(
            400,
            "INVALID_ARGUMENT",
            [{"errorCode": {"campaignBudgetError": "BUDGET_BELOW_PER_DAY_MINIMUM"}, "message": message}],
        )

    def unauthorized(self) -> web.Response:
        return failure(
            401,
            "UNAUTHENTICATED",
            [{"errorCode": {"authenticationError": "OAUTH_TOKEN_EXPIRED"}, "message": "expired"}],
        )

    # -- searches ------------------------------------------------------------------------------------

    async def _search(self, request: web.Request) -> web.Response:
        asked = (await request.json())["query"]
        found = re.fullmatch(
            r"SELECT (?P<fields>.+) FROM (?P<table>\w+)(?: WHERE (?P<where>.+?))?(?: LIMIT \d+)?", asked
        )
        assert found, asked
        rows = {
            "customer": self._customers,
            "campaign": self._campaign_rows,
            "ad_group": self._ad_group_rows,
            "geo_target_constant": self._places,
        }[found["table"]](found["where"] or "", found["fields"])
        wanted = found["fields"].split(", ")
        return web.json_response(
            {"results": [_only(row, wanted) for row in rows], "fieldMask": ",".join(map(_mask, wanted))}
        )

    def _customers(self, _where: str, _fields: str) -> list[dict[str, Any]]:
        return [{"customer": {"currencyCode": self.currency, "timeZone": self.time_zone}}]

    def _places(self, where: str, _fields: str) -> list[dict[str, Any]]:
        codes = re.findall(r"'([A-Z]{2})'", where)
        return [
            {"geoTargetConstant": {"resourceName": f"geoTargetConstants/{COUNTRIES[code]}", "countryCode": code}}
            for code in codes
            if code in COUNTRIES
        ]

    def _campaign_rows(self, where: str, fields: str) -> list[dict[str, Any]]:
        found = self._where(where)
        if "metrics." not in fields:
            return [self._row(each) for each in found]
        day = re.search(r"segments.date = '([0-9-]+)'", where)
        assert day
        bills = [self.bills.get((each.id, date.fromisoformat(day[1]))) for each in found]
        # What was not measured has no row at all.
        return [
            {
                "metrics": {
                    "costMicros": str(bill.spent),
                    "impressions": str(bill.impressions),
                    "clicks": str(bill.clicks),
                    "conversions": float(bill.conversions),
                    "conversionsValue": bill.value / MICROS,
                }
            }
            for bill in bills
            if bill is not None
        ]

    def _ad_group_rows(self, where: str, _fields: str) -> list[dict[str, Any]]:
        assert "ad_group.status != 'REMOVED'" in where
        return [
            {"adGroup": {"resourceName": f"customers/{CUSTOMER}/adGroups/{each.id}1", "cpcBidMicros": str(each.bid)}}
            for each in self._where(where)
            if each.more["strategy"] == "MANUAL_CPC"
        ]

    def _where(self, where: str) -> list[FakeCampaign]:
        name = re.search(r"campaign\.name = '((?:[^'\\]|\\.)*)'", where)
        number = re.search(r"campaign\.id = (\d+)", where)
        if name:
            return self.named(re.sub(r"\\(.)", r"\1", name[1]))
        assert number, where
        return [self.campaigns[number[1]]] if number[1] in self.campaigns else []

    def _row(self, campaign: FakeCampaign) -> dict[str, Any]:
        strategy = campaign.more["strategy"]
        limit = {"TARGET_SPEND": ("targetSpend", "cpcBidCeilingMicros")}.get(
            strategy, ("maximizeConversions", "targetCpaMicros")
        )
        row: dict[str, Any] = {
            "campaign": {
                "resourceName": f"customers/{CUSTOMER}/campaigns/{campaign.id}",
                "id": campaign.id,
                "name": campaign.name,
                "status": STATUS[campaign.status],
                "biddingStrategyType": strategy,
            },
            "campaignBudget": {
                "resourceName": f"customers/{CUSTOMER}/campaignBudgets/{campaign.id}0",
                "amountMicros": str(campaign.budget),
                "explicitlyShared": campaign.more.get("shared", False),
            },
        }
        if strategy != "MANUAL_CPC":
            row["campaign"][limit[0]] = {limit[1]: str(campaign.bid)} if campaign.bid else {}
        return row

    # -- mutates -------------------------------------------------------------------------------------

    async def _mutate(self, request: web.Request) -> web.Response:
        operations = (await request.json())["mutateOperations"]
        creates = {name: op[name]["create"] for op in operations for name in op if "create" in op[name]}
        if not creates:
            for op in operations:
                group = op["adGroupOperation"]
                assert group["updateMask"] == "cpcBidMicros"
                campaign = self.campaigns[group["update"]["resourceName"].rsplit("/", 1)[1][:-1]]
                campaign.bid = int(group["update"]["cpcBidMicros"])
            return web.json_response({"mutateOperationResponses": [{"adGroupResult": {}} for _ in operations]})
        budget, wanted = creates["campaignBudgetOperation"], creates["campaignOperation"]
        if [each for each in self.named(wanted["name"]) if each.status is not Status.ENDED]:
            error = {"errorCode": {"campaignError": "DUPLICATE_CAMPAIGN_NAME"}, "message": "taken"}
            return failure(400, "INVALID_ARGUMENT", [error])
        assert wanted["campaignBudget"] == budget["resourceName"]
        made = FakeCampaign(self.next_id(), wanted["name"], WORDS[wanted["status"]], int(budget["amountMicros"]))
        made.more["countries"] = [
            op["campaignCriterionOperation"]["create"]["location"]["geoTargetConstant"]
            for op in operations
            if "campaignCriterionOperation" in op
        ]
        if "manualCpc" in wanted:
            made.more["strategy"], made.bid = "MANUAL_CPC", int(creates["adGroupOperation"]["cpcBidMicros"])
        elif "targetSpend" in wanted:
            made.more["strategy"] = "TARGET_SPEND"
        else:
            made.more["strategy"] = "MAXIMIZE_CONVERSIONS"
        self.campaigns[made.id] = made
        return web.json_response(
            {
                "mutateOperationResponses": [
                    {"campaignBudgetResult": {"resourceName": f"customers/{CUSTOMER}/campaignBudgets/{made.id}0"}},
                    {"campaignResult": {"resourceName": f"customers/{CUSTOMER}/campaigns/{made.id}"}},
                ]
            }
        )

    async def _set_campaigns(self, request: web.Request) -> web.Response:
        [operation] = (await request.json())["operations"]
        update, mask = operation["update"], operation["updateMask"]
        campaign = self.campaigns.get(update["resourceName"].rsplit("/", 1)[1])
        if campaign is None:
            return not_found(update["resourceName"])
        if campaign.status is Status.ENDED:
            error = {
                "errorCode": {"contextError": "OPERATION_NOT_PERMITTED_FOR_REMOVED_RESOURCE"},
                "message": "removed",
            }
            return failure(400, "INVALID_ARGUMENT", [error])
        if mask == "status":
            campaign.status = WORDS[update["status"]]
        else:
            outer, inner = mask.split(".")
            campaign.bid = int(update[outer][inner])
        return web.json_response({"results": [{"resourceName": update["resourceName"]}]})

    async def _set_budgets(self, request: web.Request) -> web.Response:
        [operation] = (await request.json())["operations"]
        assert operation["updateMask"] == "amountMicros"
        campaign = self.campaigns.get(operation["update"]["resourceName"].rsplit("/", 1)[1][:-1])
        if campaign is None:
            return not_found(operation["update"]["resourceName"])
        campaign.budget = int(operation["update"]["amountMicros"])
        return web.json_response({"results": [{"resourceName": operation["update"]["resourceName"]}]})

    async def _upload(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["partialFailure"] is True
        results, errors = [], []
        for number, each in enumerate(body["conversions"]):
            assert each["conversionAction"] == f"customers/{CUSTOMER}/conversionActions/77"
            order, reason = each["orderId"], ""
            if order in self.uploads:
                reason = "CLICK_CONVERSION_ALREADY_EXISTS"
            elif each["gclid"].startswith("bad"):
                reason = "UNPARSEABLE_GCLID"
            if reason:
                where = {"fieldPathElements": [{"fieldName": "conversions", "index": number}]}
                code = {"conversionUploadError": reason}
                errors.append({"errorCode": code, "message": reason.lower(), "location": where})
                results.append({})
                continue
            self.uploads[order] = round(each["conversionValue"] * MICROS)
            results.append({"gclid": each["gclid"], "conversionDateTime": each["conversionDateTime"]})
        partial = {"code": 3, "message": "some failed", "details": [{"@type": FAILURE, "errors": errors}]}
        return web.json_response(
            {"results": results, "jobId": "1"} | ({"partialFailureError": partial} if errors else {})
        )


def failure(status: int, word: str, errors: list[dict[str, Any]]) -> web.Response:
    details = [{"@type": FAILURE, "errors": errors, "requestId": "abc"}]
    error = {"code": status, "message": "Request contains an error.", "status": word, "details": details}
    return web.json_response({"error": error}, status=status)


def not_found(name: str) -> web.Response:
    error = {"errorCode": {"mutateError": "RESOURCE_NOT_FOUND"}, "message": f"Resource was not found: {name}"}
    return failure(400, "INVALID_ARGUMENT", [error])


def _only(row: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """Google answers what was selected, and the names of its resources."""
    tops = {_camel(each.split(".")[0]) for each in fields} | {"metrics"}
    assert set(row) <= tops, (row, fields)
    return row


def _mask(path: str) -> str:
    return ".".join(map(_camel, path.split(".")))


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(each.title() for each in tail)
