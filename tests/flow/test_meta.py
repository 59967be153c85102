"""Meta, judged by Meta's own kit: it drives our fake, and its checkers take what we send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from facebook_business import apiconfig
from facebook_business.adobjects.adaccount import AdAccount
from facebook_business.adobjects.adset import AdSet
from facebook_business.adobjects.adspixel import AdsPixel
from facebook_business.adobjects.campaign import Campaign
from facebook_business.adobjects.serverside.action_source import ActionSource
from facebook_business.adobjects.serverside.custom_data import CustomData
from facebook_business.adobjects.serverside.event import Event
from facebook_business.adobjects.serverside.user_data import UserData
from facebook_business.api import FacebookAdsApi
from facebook_business.exceptions import FacebookBadObjectError, FacebookRequestError
from facebook_business.session import FacebookSession

from kiki.clock import SECOND
from kiki.flow.plan import Account
from kiki.flow.platform import Platform, Status, campaign_of
from kiki.flow.platforms.meta import Meta
from kiki.flow.platforms.meta_reply import judge, rates
from kiki.money import MICROS
from kiki.outbound.exchange import Reply
from kiki.outbound.outcome import Fate
from tests.flow.fakes import fake as faults
from tests.flow.fakes.fake import TOKEN, Bill, Got
from tests.flow.fakes.meta import PIXEL, PROOF, SECRET, MetaFake, error
from tests.flow.test_platform_contract import KEY, NAME, campaign, spec, today, value


@pytest.fixture
async def fake() -> AsyncIterator[MetaFake]:
    async with MetaFake() as played:
        yield played


@pytest.fixture
async def platform(fake: MetaFake) -> AsyncIterator[Platform]:
    opened = fake.open()
    yield opened
    await opened.close()


@pytest.fixture
def kit(fake: MetaFake, monkeypatch: pytest.MonkeyPatch) -> FacebookAdsApi:
    """Meta's kit against the fake; what it would only warn of it raises."""
    monkeypatch.setitem(apiconfig.ads_api_config, "STRICT_MODE", True)
    monkeypatch.setattr(FacebookSession, "GRAPH", fake.url)
    return FacebookAdsApi(FacebookSession("1", SECRET, TOKEN))


async def everything(platform: Platform, fake: MetaFake) -> None:
    for number, (objective, bid) in enumerate([("traffic", 2 * MICROS), ("sales", None), ("awareness", None)]):
        state = campaign(
            await platform.ensure_campaign(spec(fake, name=f"{NAME}-{number}", objective=objective, bid=bid), KEY)
        )
        for call in (
            platform.set_budget(state.id, 150 * MICROS, KEY),
            platform.set_bid(state.id, 3 * MICROS, KEY),
            platform.set_bid(state.id, 4 * MICROS, KEY),
            platform.resume(state.id, KEY),
            platform.pause(state.id, KEY),
        ):
            assert (await call).is_done
        assert 4 * MICROS == campaign(await platform.lookup(f"{NAME}-{number}")).bid
    await fake.bill(state.id, today(), Bill(1_500_000, 10, 2, 1, 9_990_000))
    assert (await platform.spend_report(state.id, today())).is_done
    assert (await platform.upload_values(state.id, [value("o-1")], KEY)).is_done
    assert (await platform.archive(state.id, KEY)).is_done


async def test_metas_kit_drives_the_fake(fake: MetaFake, kit: FacebookAdsApi) -> None:
    def drive() -> dict[str, Any]:
        account = AdAccount("act_1234", api=kit)
        made = account.create_campaign(
            params={
                "name": NAME,
                "objective": Campaign.Objective.outcome_traffic,
                "status": Campaign.Status.paused,
                "special_ad_categories": [Campaign.SpecialAdCategories.none],
                "daily_budget": 12_000,
                "bid_strategy": Campaign.BidStrategy.lowest_cost_without_cap,
            }
        )
        account.create_ad_set(
            params={
                "name": NAME,
                "campaign_id": made["id"],
                "status": "ACTIVE",
                "billing_event": AdSet.BillingEvent.impressions,
                "optimization_goal": AdSet.OptimizationGoal.reach,
                "targeting": {"geo_locations": {"countries": ["US"]}},
            }
        )
        Campaign(made["id"], api=kit).api_update(params={"daily_budget": 13_000})
        found = list(
            account.get_campaigns(
                fields=["id", "name", "daily_budget", "status"],
                params={
                    "filtering": [{"field": "name", "operator": "CONTAIN", "value": "kiki/"}],
                    "effective_status": ["ACTIVE", "PAUSED"],
                },
            )
        )
        groups = list(Campaign(made["id"], api=kit).get_ad_sets(fields=["id", "status"]))
        told = account.api_get(fields=["currency", "timezone_name"])
        return {"campaigns": found, "groups": groups, "account": told}

    told = await asyncio.to_thread(drive)
    [found] = told["campaigns"]
    assert (NAME, "13000", "PAUSED") == (found["name"], found["daily_budget"], found["status"])
    assert 1 == len(told["groups"])
    assert "USD" == told["account"]["currency"]


async def test_metas_kit_reads_the_fakes_errors(fake: MetaFake, kit: FacebookAdsApi) -> None:
    await fake.fail(faults.THROTTLED)
    with pytest.raises(FacebookRequestError) as caught:
        await asyncio.to_thread(Campaign("1", api=kit).api_update, params={"status": "PAUSED"})
    assert (80004, 2446079, 400) == (
        caught.value.api_error_code(),
        caught.value.api_error_subcode(),
        caught.value.http_status(),
    )
    await fake.fail(faults.UNAUTHORIZED)
    with pytest.raises(FacebookRequestError) as caught:
        await asyncio.to_thread(Campaign("1", api=kit).api_update, params={"status": "PAUSED"})
    assert 190 == caught.value.api_error_code()


def edge(kit: FacebookAdsApi, got: Got) -> Callable[..., Any]:
    """What of the kit sends the same request."""
    node, _, tail = got.path.removeprefix("/v26.0/").partition("/")
    if got.method == "GET":
        owner = {"campaigns": AdAccount, "adsets": Campaign, "insights": Campaign}.get(
            tail, AdAccount if node.startswith("act_") else Campaign
        )
        name = {"campaigns": "get_campaigns", "adsets": "get_ad_sets", "insights": "get_insights"}.get(tail, "api_get")
        return getattr(owner(node, api=kit), name)
    if tail:
        owner, name = {
            "campaigns": (AdAccount, "create_campaign"),
            "adsets": (AdAccount, "create_ad_set"),
            "events": (AdsPixel, "create_event"),
        }[tail]
        return getattr(owner(node, api=kit), name)
    return (AdSet if node.endswith("000") else Campaign)(node, api=kit).api_update


def plain(text: str) -> Any:
    """A value of a form as the kit's caller would write it."""
    if text[:1] in "[{":
        return json.loads(text)
    return int(text) if text.isdigit() else text


async def test_metas_checkers_take_what_we_send(platform: Platform, fake: MetaFake, kit: FacebookAdsApi) -> None:
    await everything(platform, fake)
    seen = set()
    for got in fake.got:
        given = {name: plain(text) for name, text in (got.form if got.write else got.query).items()}
        assert PROOF == given.pop("appsecret_proof")
        fields = str(given.pop("fields", "")).split(",") if "fields" in given else []
        paging = {name: given.pop(name) for name in ("limit", "after") if name in given}
        if "events" in got.path:
            given["data"] = [json.dumps(each) for each in given["data"]]
        if "campaign_id" in given:
            given["campaign_id"] = str(given["campaign_id"])
        if got.method == "GET" and not got.path.endswith(("campaigns", "adsets", "insights")):
            assert not paging
        request = edge(kit, got)(fields=fields, params=given, pending=True)
        unknown = [name for name in given if not request._param_checker.is_valid_key(name)]
        assert unknown in ([], ["filtering"]), (got.path, unknown)
        assert (got.method, tuple(each for each in got.path.removeprefix("/v26.0/").split("/"))) == (
            request._method,
            tuple(str(each) for each in request._path if each),
        )
        seen.add((got.method, got.path.rsplit("/", 1)[1] if got.path.count("/") == 3 else ""))
    assert {("GET", "campaigns"), ("POST", "campaigns"), ("POST", "adsets"), ("POST", "events"), ("POST", "")} <= seen
    assert {("GET", "insights"), ("GET", "adsets"), ("GET", "")} <= seen


def test_the_kit_would_only_have_warned(kit: FacebookAdsApi) -> None:
    with pytest.raises(FacebookBadObjectError):
        AdAccount("act_1", api=kit).create_campaign(params={"daily_budget": "12.50"}, pending=True)


async def test_an_event_is_what_metas_kit_would_make_of_it(platform: Platform, fake: MetaFake) -> None:
    given = value("o-1", value=49_990_000)
    assert (await platform.upload_values("1", [given], KEY)).is_done
    [sent] = json.loads(fake.writes[-1].form["data"])
    event = Event(
        event_name="Purchase",
        event_time=given.at // SECOND,
        event_id="o-1",
        action_source=ActionSource.SYSTEM_GENERATED,
        user_data=UserData(fbc=f"fb.1.{given.at // 1000}.click-o-1"),
        custom_data=CustomData(currency="usd", value=49.99, predicted_ltv=49.99, order_id="o-1"),
    ).normalize()
    sent["custom_data"]["currency"] = sent["custom_data"]["currency"].lower()
    assert event == sent
    assert fake.writes[-1].path.endswith(f"/{PIXEL}/events")


async def test_the_token_is_in_no_address(platform: Platform, fake: MetaFake) -> None:
    await everything(platform, fake)
    assert not [each for each in fake.got if TOKEN in each.raw_query or SECRET in each.raw_query]
    assert all(each.headers["Authorization"] == f"Bearer {TOKEN}" for each in fake.got)


async def test_without_an_app_secret_there_is_no_proof(fake: MetaFake) -> None:
    environ = {name: text for name, text in fake.environ().items() if name != "META_APP_SECRET"}
    platform = Meta.open(fake.ACCOUNT, environ)
    await platform.currency()
    await platform.close()
    assert "appsecret_proof" not in fake.got[0].query


async def test_pages_are_turned(platform: Platform, fake: MetaFake) -> None:
    for number in range(5):
        await platform.ensure_campaign(spec(fake, name=f"{NAME}-{number}"), KEY)
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))
    assert state.id == campaign(await platform.lookup(NAME)).id
    assert 6 == len(fake.campaigns)


@pytest.mark.parametrize("kind", [faults.LOST_BEFORE, faults.LOST_AFTER, faults.THROTTLED, faults.INVALID])
async def test_a_campaign_without_its_ad_set_is_not_whole_and_is_completed(fake: MetaFake, kind: str) -> None:
    platform = fake.open()
    meet, writes = fake._meet, []

    def second(write: bool) -> str | None:
        writes.extend([write] * write)
        return kind if write and len(writes) == 2 else meet(write)

    fake._meet = second  # type: ignore[method-assign]
    outcome = await platform.ensure_campaign(spec(fake), KEY)
    assert (Fate.UNKNOWN if kind.startswith("lost") else Fate.REFUSED) is outcome.fate
    platform.line.rate_budget._closed_until = 0  # type: ignore[attr-defined]
    shown = campaign_of(await platform.lookup(NAME))
    assert shown is not None
    assert (kind == faults.LOST_AFTER, Status.PAUSED) == (shown.whole, shown.status)
    again = campaign(await platform.ensure_campaign(spec(fake), KEY))
    await platform.close()
    assert again.whole
    assert (1, 1) == (len(fake.campaigns), len(fake.ad_sets))


async def test_an_ad_set_among_several_that_is_refused_leaves_the_bid_unknown(
    platform: Platform, fake: MetaFake
) -> None:
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))
    first = next(iter(fake.ad_sets.values()))
    fake.ad_sets["777000"] = {**first, "id": "777000"}
    meet, writes = fake._meet, []

    def second(write: bool) -> str | None:
        writes.extend([write] * write)
        return faults.INVALID if write and len(writes) == 2 else meet(write)

    fake._meet = second  # type: ignore[method-assign]
    outcome = await platform.set_bid(state.id, 3 * MICROS, KEY)
    assert ("unknown", "partly") == (outcome.fate.value, outcome.code)
    assert None is campaign(await platform.lookup(NAME)).bid
    fake._meet = meet  # type: ignore[method-assign]
    assert (await platform.set_bid(state.id, 3 * MICROS, KEY)).is_done
    assert 3 * MICROS == campaign(await platform.lookup(NAME)).bid


async def test_events_that_are_too_old_are_rejected_here(platform: Platform, fake: MetaFake) -> None:
    old = value("o-2", at=value("o-1").at - 8 * 86400 * SECOND)
    told = await platform.upload_values("1", [value("o-1"), old], KEY)
    assert (1, 1) == (told.value["accepted"], told.value["rejected"])
    assert {"o-1": "done", "o-2": "refused"} == told.value["orders"]
    assert {"o-1"} == {*fake.uploads}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"countries": ()}, "write countries"),
        ({"objective": "app"}, "app campaigns"),
        ({"settings": {"pixell": "1"}}, "not known"),
    ],
)
async def test_what_meta_cannot_do_is_said_and_not_sent(
    platform: Platform, fake: MetaFake, changes: dict[str, Any], said: str
) -> None:
    outcome = await platform.ensure_campaign(spec(fake, **changes), KEY)
    assert ("refused", "invalid") == (outcome.fate.value, outcome.code)
    assert said in outcome.message
    assert [] == fake.writes


async def test_sales_need_a_pixel(fake: MetaFake) -> None:
    account = Account(account="1234", settings={"special_ad_categories": "NONE"})
    platform = Meta.open(account, fake.environ())
    outcome = await platform.ensure_campaign(spec(fake, objective="sales"), KEY)
    assert "needs the account's setting 'pixel'" in outcome.message
    told = await platform.upload_values("1", [value("o-1")], KEY)
    assert ("refused", "invalid") == (told.fate.value, told.code)
    await platform.close()
    assert [] == fake.writes


def reply(answer: Any, *, write: bool = True, **headers: str) -> Reply:
    return Reply(
        status=answer.status,
        headers={name.replace("_", "-"): text for name, text in headers.items()},
        content=(answer.text or "").encode(),
        write=write,
        now=1000 * SECOND,
    )


@pytest.mark.parametrize("code", [4, 17, 32, 613, 80000, 80004, 80014])
@pytest.mark.parametrize("status", [400, 403, 429])
def test_too_often_is_a_code_whatever_the_status(code: int, status: int) -> None:
    outcome = judge(reply(error(code, "too many", status=status)))
    assert outcome is not None
    assert ("refused", "throttled") == (outcome.fate.value, outcome.code)


@pytest.mark.parametrize(
    ("code", "subcode", "status", "write", "expected"),
    [
        (190, 463, 400, True, ("refused", "unauthorized")),
        (200, None, 403, True, ("refused", "unauthorized")),
        (100, 33, 400, True, ("refused", "not_found")),
        (100, 1885272, 400, True, ("refused", "invalid")),
        (1, None, 500, True, ("unknown", "server_error")),
        (2, None, 400, True, ("unknown", "server_error")),
        (2, None, 400, False, ("refused", "unavailable")),
        (100, None, 500, True, ("unknown", "server_error")),
        (100, 1885272, 200, True, ("refused", "invalid")),
    ],
)
def test_what_an_error_means(
    code: int, subcode: int | None, status: int, write: bool, expected: tuple[str, str]
) -> None:
    outcome = judge(reply(error(code, "m", subcode=subcode, status=status), write=write))
    assert outcome is not None
    assert expected == (outcome.fate.value, outcome.code)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"x_business_use_case_usage": '{"1": [{"call_count": 28, "estimated_time_to_regain_access": 0}]}'}, None),
        ({"x_business_use_case_usage": '{"1": [{"call_count": 100, "estimated_time_to_regain_access": 19}]}'}, 19 * 60),
        ({"x_business_use_case_usage": '{"1": [{"total_time": 100}], "2": [{"total_cputime": 3}]}'}, 300),
        ({"x_ad_account_usage": '{"acc_id_util_pct": 9.67, "reset_time_duration": 100}'}, None),
        ({"x_ad_account_usage": '{"acc_id_util_pct": 100, "reset_time_duration": 100}'}, 100),
        ({"x_app_usage": '{"call_count": 101, "total_time": 5, "total_cputime": 5}'}, 300),
        ({"x_app_usage": "nonsense"}, None),
        ({"x_app_usage": "[1]", "x_business_use_case_usage": '{"1": 3, "2": [4]}'}, None),
        ({"x_business_use_case_usage": '{"1": [{"estimated_time_to_regain_access": 1e308}]}'}, 86400),
    ],
)
def test_usage_headers_say_when_to_come_again(headers: dict[str, str], seconds: int | None) -> None:
    until = rates(reply(error(100, "m"), **headers))
    assert (None if seconds is None else (1000 + seconds) * SECOND) == until


async def test_a_full_limit_closes_the_account_although_the_call_was_taken(platform: Platform, fake: MetaFake) -> None:
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))
    fake.headers = {"X-Ad-Account-Usage": '{"acc_id_util_pct": 100.0, "reset_time_duration": 600}'}
    assert (await platform.set_budget(state.id, 130 * MICROS, KEY)).is_done
    sent = len(fake.got)
    outcome = await platform.pause(state.id, KEY)
    assert ("refused", "throttled") == (outcome.fate.value, outcome.code)
    assert sent == len(fake.got)


async def test_the_smallest_budget_is_what_meta_says(platform: Platform, fake: MetaFake) -> None:
    await platform.currency()
    assert 1 * MICROS == platform.limits.budget_min
