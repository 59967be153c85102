"""Google Ads, judged by Google's own messages: what we send parses in them and is their canonical form; so does our fake."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any

import pytest
from google.ads.googleads.v26.errors.types.errors import GoogleAdsFailure
from google.ads.googleads.v26.services.types.campaign_budget_service import (
    MutateCampaignBudgetsRequest,
    MutateCampaignBudgetsResponse,
)
from google.ads.googleads.v26.services.types.campaign_service import MutateCampaignsRequest, MutateCampaignsResponse
from google.ads.googleads.v26.services.types.conversion_upload_service import (
    UploadClickConversionsRequest,
    UploadClickConversionsResponse,
)
from google.ads.googleads.v26.services.types.google_ads_service import (
    MutateGoogleAdsRequest,
    MutateGoogleAdsResponse,
    SearchGoogleAdsRequest,
    SearchGoogleAdsResponse,
)
from google.protobuf import json_format

from kiki.clock import SECOND
from kiki.flow.plan import Account
from kiki.flow.platform import Platform
from kiki.flow.platforms.google_ads import GoogleAds
from kiki.flow.platforms.google_ads_query import campaign_named
from kiki.flow.platforms.google_ads_reply import judge
from kiki.money import MICROS
from kiki.outbound.exchange import Reply
from kiki.outbound.outcome import Fate
from tests.flow.fakes import fake as faults
from tests.flow.fakes.fake import Bill, Said
from tests.flow.fakes.google_ads import FAILURE, GoogleAdsFake, failure
from tests.flow.test_platform_contract import KEY, NAME, campaign, spec, today, value

REQUESTS = {
    "googleAds:search": (SearchGoogleAdsRequest, SearchGoogleAdsResponse),
    "googleAds:mutate": (MutateGoogleAdsRequest, MutateGoogleAdsResponse),
    "campaigns:mutate": (MutateCampaignsRequest, MutateCampaignsResponse),
    "campaignBudgets:mutate": (MutateCampaignBudgetsRequest, MutateCampaignBudgetsResponse),
    "1234567890:uploadClickConversions": (UploadClickConversionsRequest, UploadClickConversionsResponse),
}


@pytest.fixture
async def fake() -> AsyncIterator[GoogleAdsFake]:
    async with GoogleAdsFake() as played:
        yield played


@pytest.fixture
async def platform(fake: GoogleAdsFake) -> AsyncIterator[Platform]:
    opened = fake.open()
    yield opened
    await opened.close()


def parsed(body: Any, kind: Any) -> Any:
    """The body as Google's own message, which refuses fields that it does not know."""
    return json_format.ParseDict(body, kind.pb(kind()))


async def everything(platform: Platform, fake: GoogleAdsFake) -> None:
    """Every kind of request that the adapter sends, and every answer that the fake gives."""
    for number, (objective, bid) in enumerate([("traffic", 2 * MICROS), ("traffic", None), ("sales", None)]):
        wanted = spec(fake, name=f"{NAME}-{number}", objective=objective, bid=bid, countries=("US", "DE"))
        state = campaign(await platform.ensure_campaign(wanted, KEY))
        for call in (
            platform.set_budget(state.id, 150 * MICROS, KEY),
            platform.set_bid(state.id, 3 * MICROS, KEY),
            platform.resume(state.id, KEY),
            platform.pause(state.id, KEY),
        ):
            assert (await call).is_done
        assert 3 * MICROS == campaign(await platform.lookup(f"{NAME}-{number}")).bid
    await fake.bill(state.id, today(), Bill(1_500_000, 10, 2, 1, 9_990_000))
    assert (await platform.spend_report(state.id, today())).is_done
    assert (
        await platform.upload_values(state.id, [value("o-1"), value("o-2", click="bad"), value("o-1")], KEY)
    ).is_done
    await fake.fail(faults.INVALID)
    assert Fate.REFUSED is (await platform.pause(state.id, KEY)).fate
    await fake.fail(faults.THROTTLED)
    assert Fate.REFUSED is (await platform.pause(state.id, KEY)).fate


async def test_what_is_sent_is_googles_own_message_in_its_canonical_form(
    platform: Platform, fake: GoogleAdsFake
) -> None:
    await everything(platform, fake)
    seen = set()
    for each in fake.got:
        tail = each.path.rsplit("/", 1)[1]
        message = parsed(each.json, REQUESTS[tail][0])
        assert each.json == json_format.MessageToDict(message), each.json
        seen.add(tail)
    assert seen == {*REQUESTS}
    assert all(each.path.startswith("/v26/customers/1234567890") for each in fake.got)


async def test_what_the_fake_answers_is_googles_own_message_too(platform: Platform, fake: GoogleAdsFake) -> None:
    await everything(platform, fake)
    failures = 0
    for each in fake.said:
        tail = each.path.rsplit("/", 1)[1]
        if each.status == 200:
            parsed(each.json, REQUESTS[tail][1]) if "partialFailureError" not in each.json else read_upload(each)
        else:
            failures += 1
            [detail] = each.json["error"]["details"]
            assert FAILURE == detail.pop("@type")
            parsed(detail, GoogleAdsFailure)
    assert 2 == failures


def read_upload(said: Said) -> None:
    status = said.json.pop("partialFailureError")
    parsed(said.json, UploadClickConversionsResponse)
    [detail] = status["details"]
    assert FAILURE == detail.pop("@type")
    parsed(detail, GoogleAdsFailure)


def test_an_object_that_google_does_not_know_is_refused_by_its_message() -> None:
    # The first kiki sent this to campaignBidModifiers.
    body = {"operations": [{"update": {"resourceName": "x", "biddingStrategy": {"targetCpa": 1}}}]}
    with pytest.raises(json_format.ParseError):
        parsed(body, MutateCampaignsRequest)


async def test_the_developer_token_is_not_the_bearer(platform: Platform, fake: GoogleAdsFake) -> None:
    assert (await platform.currency()).is_done
    [got] = fake.got
    assert "Bearer an-access-token-of-theirs" == got.headers["Authorization"]
    assert "a-developer-token-of-theirs" == got.headers["developer-token"]
    assert "9998887777" == got.headers["login-customer-id"]


async def test_a_campaign_and_its_budget_are_made_in_one_mutate_or_not_at_all(
    platform: Platform, fake: GoogleAdsFake
) -> None:
    await platform.ensure_campaign(spec(fake, countries=("US", "CA")), KEY)
    [made] = [each for each in fake.got if each.path.endswith("googleAds:mutate")]
    assert [
        "campaignBudgetOperation",
        "campaignOperation",
        *["campaignCriterionOperation"] * 2,
        "adGroupOperation",
    ] == [name for each in made.json["mutateOperations"] for name in each]
    wanted = made.json["mutateOperations"][1]["campaignOperation"]["create"]
    assert ("PAUSED", "DOES_NOT_CONTAIN_EU_POLITICAL_ADVERTISING") == (
        wanted["status"],
        wanted["containsEuPoliticalAdvertising"],
    )
    assert "partialFailure" not in made.json


async def test_a_campaign_whose_first_day_has_passed_begins_today(platform: Platform, fake: GoogleAdsFake) -> None:
    await platform.ensure_campaign(spec(fake, starts=today() - timedelta(days=9)), KEY)
    wanted = fake.writes[-1].json["mutateOperations"][1]["campaignOperation"]["create"]
    began = date.fromisoformat(wanted["startDateTime"][:10])
    assert timedelta() <= today() - began <= timedelta(days=1)
    assert f"{today() + timedelta(days=14)} 23:59:59" == wanted["endDateTime"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"countries": ("US", "XX")}, "knows no country XX"),
        ({"objective": "app"}, "app campaigns"),
        ({"settings": {"chanel": "SEARCH"}}, "did you mean 'channel'?"),
        ({"settings": {"channel": "SEARCH", "strategy": "MANUAL_CPM"}}, "write one of MANUAL_CPC"),
    ],
)
async def test_what_google_cannot_do_is_said_and_not_sent(
    platform: Platform, fake: GoogleAdsFake, changes: dict[str, Any], said: str
) -> None:
    outcome = await platform.ensure_campaign(spec(fake, **changes), KEY)
    assert ("refused", "invalid") == (outcome.fate.value, outcome.code)
    assert said in outcome.message
    assert [] == fake.writes


async def test_a_shared_budget_is_left_alone(platform: Platform, fake: GoogleAdsFake) -> None:
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))
    fake.campaigns[state.id].more["shared"] = True
    outcome = await platform.set_budget(state.id, 150 * MICROS, KEY)
    assert "shares its budget" in outcome.message
    assert 120 * MICROS == fake.campaigns[state.id].budget


async def test_the_name_of_a_removed_campaign_may_be_used_again(platform: Platform, fake: GoogleAdsFake) -> None:
    first = campaign(await platform.ensure_campaign(spec(fake), KEY))
    await fake.end(first.id)
    second = GoogleAdsFake.named(fake, NAME)[0]
    fake.campaigns["77777"] = type(second)("77777", NAME, budget=1 * MICROS, more={"strategy": "TARGET_SPEND"})
    found = await platform.lookup(NAME)
    assert "77777" == campaign(found).id


@pytest.mark.parametrize(
    ("errors", "code", "seconds"),
    [
        ([{"errorCode": {"quotaError": "RESOURCE_EXHAUSTED"}}], "throttled", 900),
        (
            [
                {
                    "errorCode": {"quotaError": "RESOURCE_EXHAUSTED"},
                    "details": {"quotaErrorDetails": {"rateScope": "DEVELOPER", "retryDelay": "12.5s"}},
                }
            ],
            "throttled",
            12.5,
        ),
        ([{"errorCode": {"quotaError": "EXCESSIVE_SHORT_TERM_QUERY_RESOURCE_CONSUMPTION"}}], "throttled", None),
        ([{"errorCode": {"authorizationError": "USER_PERMISSION_DENIED"}}], "unauthorized", None),
        ([{"errorCode": {"campaignError": "DUPLICATE_CAMPAIGN_NAME"}}], "conflict", None),
        (
            [{"errorCode": {"rangeError": "TOO_LOW"}}, {"errorCode": {"quotaError": "RESOURCE_EXHAUSTED"}}],
            "throttled",
            900,
        ),
        ([{"errorCode": {"rangeError": "TOO_LOW"}}], "invalid", None),
        ([{"errorCode": "nonsense"}], "invalid", None),
    ],
)
def test_what_a_failure_means(errors: list[dict[str, Any]], code: str, seconds: float | None) -> None:
    answer = failure(400, "INVALID_ARGUMENT", errors)
    reply = Reply(status=400, headers={}, content=(answer.text or "").encode(), write=True, now=1000 * SECOND)
    outcome = judge(reply)
    assert outcome is not None
    assert ("refused", code) == (outcome.fate.value, outcome.code)
    assert (None if seconds is None else round((1000 + seconds) * SECOND)) == outcome.retry_at


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"[1]", b"null", b'{"error": 1}', b'{"error": {"details": 3}}', b'{"error": {"details": [{}]}}'],
)
@pytest.mark.parametrize("status", [200, 400, 429, 500])
def test_a_failure_that_says_nothing_is_what_its_status_says(content: bytes, status: int) -> None:
    assert judge(Reply(status=status, headers={}, content=content, write=True, now=0)) is None


async def test_an_error_inside_200_is_a_refusal(platform: Platform, fake: GoogleAdsFake) -> None:
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))

    def friendly(message: str = "") -> Any:
        from aiohttp import web

        errors = [{"errorCode": {"campaignError": "INVALID_STATUS_CHANGE"}, "message": "no"}]
        status = {"code": 3, "message": "m", "details": [{"@type": FAILURE, "errors": errors}]}
        return web.json_response({"partialFailureError": status, "results": [{}]})

    fake.refused = friendly  # type: ignore[method-assign]
    await fake.fail(faults.INVALID)
    outcome = await platform.resume(state.id, KEY)
    assert ("refused", "invalid") == (outcome.fate.value, outcome.code)
    assert "INVALID_STATUS_CHANGE" in outcome.message


async def test_a_conversion_that_google_has_already_counts_as_taken(platform: Platform, fake: GoogleAdsFake) -> None:
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))
    told = await platform.upload_values(state.id, [value("o-1"), value("o-2", click="bad-click")], KEY)
    assert (1, 1) == (told.value["accepted"], told.value["rejected"])
    assert {"o-1": "done", "o-2": "refused"} == told.value["orders"]
    told = await platform.upload_values(state.id, [value("o-1"), value("o-3")], KEY)
    assert (2, 0) == (told.value["accepted"], told.value["rejected"])


async def test_another_version_is_a_setting(fake: GoogleAdsFake) -> None:
    account = Account(account="1234567890", settings={**fake.ACCOUNT.settings, "version": "v27"})
    platform = GoogleAds.open(account, fake.environ())
    assert Fate.REFUSED is (await platform.currency()).fate
    await platform.close()
    assert fake.got[0].path.startswith("/v27/")


def test_a_name_cannot_leave_its_quotes() -> None:
    assert r"campaign.name = 'a\' OR campaign.id > 0 \\'" in campaign_named("a' OR campaign.id > 0 \\")
