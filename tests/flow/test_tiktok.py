"""TikTok, judged by TikTok's own kit: its models take our bodies, and it drives our fake."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import business_api_client as kit
import pytest
from business_api_client.models.filtering_report_integrated_get import FilteringReportIntegratedGet
from business_api_client.tiktok_business.tiktok_exceptions import TiktokSDKError

from kiki.clock import SECOND
from kiki.flow.platform import Platform, Status, campaign_of
from kiki.flow.platforms.tiktok_campaign import request_id
from kiki.flow.platforms.tiktok_reply import judge
from kiki.money import MICROS
from kiki.outbound.exchange import Reply
from kiki.outbound.outcome import Fate
from tests.flow.fakes import fake as faults
from tests.flow.fakes.fake import TOKEN, Bill
from tests.flow.fakes.tiktok import ADVERTISER, TikTokFake, envelope
from tests.flow.test_platform_contract import KEY, NAME, campaign, spec, today, value

MODELS = {
    "campaign/create/": kit.CampaignCreateBody,
    "campaign/update/": kit.CampaignUpdateBody,
    "campaign/status/update/": kit.CampaignStatusUpdateBody,
    "adgroup/create/": kit.AdgroupCreateBody,
    "adgroup/update/": kit.AdgroupUpdateBody,
    "smart_plus/campaign/create/": kit.SmartPlusCampaignCreateBody,
    "smart_plus/campaign/update/": kit.SmartPlusCampaignUpdateBody,
    "smart_plus/campaign/status/update/": kit.SmartPlusCampaignStatusUpdateBody,
    "smart_plus/adgroup/create/": kit.SmartPlusAdgroupCreateBody,
    "smart_plus/adgroup/update/": kit.SmartPlusAdgroupUpdateBody,
}
KINDS = {"str": str, "float": (int, float), "bool": bool, "int": int}


@pytest.fixture
async def fake() -> AsyncIterator[TikTokFake]:
    async with TikTokFake() as played:
        yield played


@pytest.fixture
async def platform(fake: TikTokFake) -> AsyncIterator[Platform]:
    opened = fake.open()
    yield opened
    await opened.close()


async def everything(platform: Platform, fake: TikTokFake) -> None:
    for number, (objective, bid) in enumerate(
        [("traffic", 2 * MICROS), ("awareness", None), ("sales", 2 * MICROS), ("leads", None)]
    ):
        name = f"{NAME}-{number}"
        state = campaign(
            await platform.ensure_campaign(spec(fake, name=name, objective=objective, bid=bid), KEY + name)
        )
        for call in (
            platform.set_budget(state.id, 150 * MICROS, KEY),
            platform.set_bid(state.id, 3_500_000, KEY),
            platform.resume(state.id, KEY),
            platform.pause(state.id, KEY),
        ):
            assert (await call).is_done
        if bid is not None or objective != "leads":
            assert 3_500_000 == campaign(await platform.lookup(name)).bid
    await fake.bill(state.id, today(), Bill(1_500_000, 10, 2, 1))
    assert (await platform.spend_report(state.id, today())).is_done
    assert (await platform.upload_values(state.id, [value("o-1")], KEY)).is_done
    assert (await platform.archive(state.id, KEY)).is_done


def fits(kind: str, given: Any) -> bool:
    """Whether a value is what the kit's model declares; the model itself takes any."""
    if kind.startswith("list["):
        return isinstance(given, list) and all(fits(kind[5:-1], each) for each in given)
    return isinstance(given, KINDS.get(kind, dict))  # type: ignore[arg-type]


async def test_the_kits_models_take_every_body(platform: Platform, fake: TikTokFake) -> None:
    await everything(platform, fake)
    seen = set()
    for got in fake.writes:
        tail = got.path.removeprefix("/open_api/v1.3/")
        if tail == "event/track/":
            continue
        model = MODELS[tail]
        made = model(**got.json)  # unknown fields and missing ones raise
        for name, given in got.json.items():
            assert fits(model.swagger_types[name], given), (name, given)
        if "targeting_spec" in got.json:
            kit.SmartPlusAdgroupCreateBodyTargetingSpec(**got.json["targeting_spec"])
        assert made.advertiser_id == ADVERTISER
        seen.add(tail)
    assert seen == {*MODELS}


FILTERS = {
    "campaign/get/": kit.FilteringCampaignGet,
    "adgroup/get/": kit.FilteringAdgroupGet,
    "smart_plus/campaign/get/": kit.FilteringSmartPlusCampaignGet,
    "smart_plus/adgroup/get/": kit.FilteringSmartPlusAdgroupGet,
    "report/integrated/get/": FilteringReportIntegratedGet,
}


async def test_the_kits_models_take_every_filter(platform: Platform, fake: TikTokFake) -> None:
    await everything(platform, fake)
    seen = set()
    for got in fake.got:
        tail = got.path.removeprefix("/open_api/v1.3/")
        if "filtering" in got.query:
            wanted = json.loads(got.query["filtering"])
            for each in wanted if isinstance(wanted, list) else [wanted]:
                FILTERS[tail](**each)
            seen.add(tail)
    assert seen == {*FILTERS}


def test_the_kits_models_refuse_what_tiktok_does_not_know() -> None:
    with pytest.raises(TypeError):
        kit.CampaignUpdateBody(advertiser_id="1", campaign_id="2", daily_budget=3.0)
    with pytest.raises(ValueError, match="request_id"):
        kit.SmartPlusCampaignCreateBody(advertiser_id="1", campaign_name="a", objective_type="WEB_CONVERSIONS")


async def test_what_is_made_is_disabled_although_the_kit_would_enable_it(platform: Platform, fake: TikTokFake) -> None:
    assert (
        "ENABLE"
        == kit.CampaignCreateBody(advertiser_id="1", campaign_name="a", objective_type="REACH").operation_status
    )
    await platform.ensure_campaign(spec(fake), KEY)
    await platform.ensure_campaign(spec(fake, name=f"{NAME}-2", objective="sales"), "2" + KEY[1:])
    made = [each.json for each in fake.writes if each.path.endswith("campaign/create/")]
    assert ["DISABLE", "DISABLE"] == [each["operation_status"] for each in made]
    assert ["TRAFFIC", "WEB_CONVERSIONS"] == [each["objective_type"] for each in made]


@pytest.fixture
def apis(fake: TikTokFake) -> Iterator[kit.ApiClient]:
    configuration = kit.Configuration()
    configuration.host = fake.url
    client = kit.ApiClient(configuration)
    yield client
    client.pool.close()
    client.pool.join()


async def test_tiktoks_kit_drives_the_fake(fake: TikTokFake, apis: kit.ApiClient) -> None:
    def drive() -> dict[str, Any]:
        campaigns, groups = kit.CampaignCreationApi(apis), kit.AdgroupApi(apis)
        body = kit.CampaignCreateBody(
            advertiser_id=ADVERTISER,
            request_id="123",
            campaign_name=NAME,
            objective_type="TRAFFIC",
            operation_status="DISABLE",
            budget_mode="BUDGET_MODE_DAY",
            budget=120.5,
            budget_optimize_on=True,
        )
        made = campaigns.campaign_create(TOKEN, body=body)
        with pytest.raises(TiktokSDKError) as repeated:
            campaigns.campaign_create(TOKEN, body=body)
        number = made["data"]["campaign_id"]
        campaigns.campaign_status_update(
            TOKEN,
            body=kit.CampaignStatusUpdateBody(
                advertiser_id=ADVERTISER, campaign_ids=[number], operation_status="ENABLE"
            ),
        )
        group = groups.adgroup_create(
            TOKEN,
            body=kit.AdgroupCreateBody(
                advertiser_id=ADVERTISER,
                campaign_id=number,
                adgroup_name=NAME,
                request_id="124",
                budget=0.0,
                budget_mode="BUDGET_MODE_INFINITE",
                billing_event="CPC",
                bid_type="BID_TYPE_CUSTOM",
                bid_price=1.5,
                optimization_goal="CLICK",
                pacing="PACING_MODE_SMOOTH",
                schedule_type="SCHEDULE_FROM_NOW",
                schedule_start_time="2026-12-01 00:00:00",
            ),
        )
        found = campaigns.campaign_get(
            ADVERTISER, TOKEN, filtering=json.dumps({"campaign_name": NAME}), page=1, page_size=10
        )
        return {"made": made, "repeated": repeated, "group": group, "found": found}

    told = await asyncio.to_thread(drive)
    assert "40050" in str(told["repeated"].value)
    assert {"adgroup_id"} == {*told["group"]["data"]}
    [shown] = told["found"]["data"]["list"]
    assert (NAME, 120.5, "ENABLE") == (shown["campaign_name"], shown["budget"], shown["operation_status"])
    [truth] = await fake.truth()
    assert (120_500_000, 1_500_000, Status.ACTIVE) == (truth.daily_budget, truth.bid, truth.status)


async def test_tiktoks_kit_reads_200_with_an_error_inside(fake: TikTokFake, apis: kit.ApiClient) -> None:
    await fake.fail(faults.THROTTLED)
    body = kit.CampaignUpdateBody(advertiser_id=ADVERTISER, campaign_id="1", budget=1.0)
    with pytest.raises(TiktokSDKError) as told:
        await asyncio.to_thread(kit.CampaignCreationApi(apis).campaign_update, TOKEN, body=body)
    assert "40100" in str(told.value)
    assert 200 == fake.said[-1].status


def test_a_request_id_follows_from_the_key_alone() -> None:
    assert request_id(KEY, "campaign") == request_id(KEY, "campaign")
    assert 3 == len({request_id(KEY, "campaign"), request_id(KEY, "adgroup"), request_id("1" + KEY[1:], "campaign")})
    assert all(int(request_id(f"{number}", "campaign")) < 2**60 for number in range(1000))


async def test_a_request_that_tiktok_has_seen_is_read_back(platform: Platform, fake: TikTokFake) -> None:
    fake.seen.add(request_id(KEY, "campaign"))
    outcome = await platform.ensure_campaign(spec(fake), KEY)
    # It was taken, and nobody can see what became of it: that is not a refusal.
    assert ("unknown", "conflict") == (outcome.fate.value, outcome.code)
    state = campaign(await platform.ensure_campaign(spec(fake), "1" + KEY[1:]))
    fake.seen.clear()
    fake.seen.add(request_id("2" + KEY[1:], "adgroup"))
    fake.ad_groups.clear()
    again = await platform.ensure_campaign(spec(fake), "2" + KEY[1:])
    assert state.id == campaign(again).id


@pytest.mark.parametrize("kind", [faults.LOST_BEFORE, faults.LOST_AFTER, faults.THROTTLED, faults.INVALID])
async def test_a_campaign_without_its_ad_group_is_not_whole_and_is_completed(fake: TikTokFake, kind: str) -> None:
    platform = fake.open()
    meet, writes = fake._meet, []

    def second(write: bool) -> str | None:
        writes.extend([write] * write)
        return kind if write and len(writes) == 2 else meet(write)

    fake._meet = second  # type: ignore[method-assign]
    outcome = await platform.ensure_campaign(spec(fake, objective="sales"), KEY)
    assert (Fate.UNKNOWN if kind.startswith("lost") else Fate.REFUSED) is outcome.fate
    platform.line.rate_budget._closed_until = 0  # type: ignore[attr-defined]
    shown = campaign_of(await platform.lookup(NAME))
    assert shown is not None
    assert (kind == faults.LOST_AFTER, Status.PAUSED) == (shown.whole, shown.status)
    again = campaign(await platform.ensure_campaign(spec(fake, objective="sales"), KEY))
    await platform.close()
    assert again.whole
    assert (1, 1) == (len(fake.campaigns), len(fake.ad_groups))


async def test_pages_are_turned(platform: Platform, fake: TikTokFake) -> None:
    for number in range(5):
        name = f"{NAME}-{number}"
        await platform.ensure_campaign(spec(fake, name=name), KEY + name)
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))
    assert state.id == campaign(await platform.lookup(NAME)).id
    assert 6 == len(fake.campaigns)


async def test_setting_what_is_set_already_is_done(platform: Platform, fake: TikTokFake) -> None:
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))
    assert (await platform.pause(state.id, KEY)).is_done
    assert 40012 == fake.said[-1].json["code"]


@pytest.mark.parametrize(
    ("code", "status", "write", "expected", "seconds"),
    [
        (40100, 200, True, ("refused", "throttled"), 5),
        (40132, 200, True, ("refused", "throttled"), 60),
        (40016, 200, False, ("refused", "throttled"), 5),
        (61000, 200, False, ("refused", "throttled"), 60),
        (40105, 200, True, ("refused", "unauthorized"), None),
        (40102, 401, True, ("refused", "unauthorized"), None),
        (40001, 200, True, ("refused", "unauthorized"), None),
        (40002, 200, True, ("refused", "invalid"), None),
        (40007, 200, True, ("refused", "not_found"), None),
        (40050, 200, True, ("refused", "conflict"), None),
        (40202, 200, True, ("refused", "unavailable"), 1),
        (20001, 200, True, ("unknown", "server_error"), None),
        (50000, 200, True, ("unknown", "server_error"), None),
        (50002, 200, False, ("refused", "unavailable"), None),
        (51010, 500, True, ("unknown", "server_error"), None),
        (40002, 503, True, ("unknown", "server_error"), None),
        (60001, 200, True, ("unknown", "server_error"), None),
        (12345, 200, True, ("unknown", "server_error"), None),
    ],
)
def test_what_a_code_means(code: int, status: int, write: bool, expected: tuple[str, str], seconds: int | None) -> None:
    answer = envelope(code, "m")
    reply = Reply(status=status, headers={}, content=(answer.text or "").encode(), write=write, now=1000 * SECOND)
    outcome = judge(reply)
    assert outcome is not None
    assert expected == (outcome.fate.value, outcome.code)
    assert (None if seconds is None else (1000 + seconds) * SECOND) == outcome.retry_at


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"code": "40100"}', b'{"code": true}', b'{"code": 0}', b"<html>"]
)
def test_an_envelope_without_a_code_is_what_its_status_says(content: bytes) -> None:
    assert judge(Reply(status=200, headers={}, content=content, write=True, now=0)) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"countries": ("US", "XX")}, "does not deliver to XX"),
        ({"countries": ()}, "write countries"),
        ({"objective": "app"}, "app campaigns"),
        ({"settings": {"smart": True}}, "not known"),
    ],
)
async def test_what_tiktok_cannot_do_is_said(
    platform: Platform, fake: TikTokFake, changes: dict[str, Any], said: str
) -> None:
    outcome = await platform.ensure_campaign(spec(fake, **changes), KEY)
    assert ("refused", "invalid") == (outcome.fate.value, outcome.code)
    assert said in outcome.message
    assert [] == fake.writes
