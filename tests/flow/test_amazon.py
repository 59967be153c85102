"""Amazon Ads: a community package (Amazon has none for Python) drives the fake, and its documented fields judge our bodies.

The lists of answers and the error codes were compared by hand with the specification of global campaigns that Amazon publishes.
"""

from __future__ import annotations

import asyncio
import json
import re
import warnings
from datetime import date, timedelta
from typing import Any

import msgspec
import pytest

from kiki.clock import SECOND
from kiki.errors import ConfigurationError
from kiki.flow.plan import Account
from kiki.flow.platform import CampaignSpec
from kiki.flow.platforms.amazon import REGIONS, Amazon
from kiki.flow.platforms.day_reports import PAUSE
from kiki.outbound.outcome import Fate
from tests.flow.fakes.amazon import PROFILE, AmazonFake
from tests.flow.fakes.fake import THROTTLED, TOKEN, Bill

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ad_api.api.profiles import Profiles
    from ad_api.api.reports import Reports
    from ad_api.api.v1.ad_groups import AdGroups
    from ad_api.api.v1.campaigns import Campaigns
    from ad_api.base import AdvertisingApiException, Marketplaces

NAME = "kiki/spring-sale/shop"
DAY = date(2036, 12, 1)
SPEC = CampaignSpec(
    name=NAME,
    objective="sales",
    daily_budget=50_500_000,
    bid=1_200_000,
    starts=DAY,
    ends=date(2036, 12, 14),
    countries=("US",),
)


def kit(kind: Any, fake: AmazonFake) -> Any:
    credentials = {
        "refresh_token": "unused",
        "client_id": fake.ENVIRON["AMAZON_ADS_CLIENT_ID"],
        "client_secret": "unused",
        "profile_id": PROFILE,
    }
    client = kind(credentials=credentials, access_token=TOKEN, marketplace=Marketplaces.US)
    client.endpoint = fake.url
    return client


def documented(method: Any) -> set[str]:
    """Every word in their documentation of a call, in which each field is named."""
    return set(re.findall(r"\w+", method.__doc__ or ""))


def fields(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {name for each in value.values() for name in fields(each)}
    return {name for each in value for name in fields(each)} if isinstance(value, list) else set()


async def test_their_documentation_knows_every_field_that_we_send() -> None:
    async with AmazonFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        for outcome in (
            await platform.set_budget(campaign, 60_000_000, "k"),
            await platform.set_bid(campaign, 2_010_000, "k"),
            await platform.resume(campaign, "k"),
            await platform.spend_report(campaign, DAY),
        ):
            assert outcome.is_done, outcome
        await platform.close()
        known = {
            "/adsApi/v1/query/campaigns": documented(Campaigns.query_campaigns),
            "/adsApi/v1/create/campaigns": documented(Campaigns.create_campaigns)
            | documented(AdGroups.create_ad_groups)  # where the shape of a budget is told in full
            | {"marketplaceScope", "autoCreateTargets"},  # of Amazon's own migration guide and specification
            "/adsApi/v1/update/campaigns": documented(Campaigns.update_campaigns)
            | documented(AdGroups.create_ad_groups),
            "/adsApi/v1/query/adGroups": documented(AdGroups.query_ad_groups),
            "/adsApi/v1/create/adGroups": documented(AdGroups.create_ad_groups),
            "/adsApi/v1/update/adGroups": documented(AdGroups.update_ad_groups),
            "/reporting/reports": documented(Reports.post_report),
        }
        sent = [each for each in fake.got if each.method == "POST"]
        assert set(known) == {each.path for each in sent}
        for got in sent:
            assert fields(got.json) <= known[got.path], got.path


async def test_their_package_sees_and_changes_what_we_made() -> None:
    async with AmazonFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]

        def drive() -> tuple[Any, Any, Any, Any]:
            campaigns, groups = kit(Campaigns, fake), kit(AdGroups, fake)
            product = {"adProductFilter": {"include": ["SPONSORED_PRODUCTS"]}}
            found = campaigns.query_campaigns(body=json.dumps(product)).payload
            own = groups.query_ad_groups(body=json.dumps(product)).payload
            change = {"campaigns": [{"campaignId": campaign, "state": "ENABLED"}]}
            changed = campaigns.update_campaigns(body=json.dumps(change)).payload
            return found, own, changed, kit(Profiles, fake).list_profiles().payload

        found, own, changed, profiles = await asyncio.to_thread(drive)
        (one,) = found["campaigns"]
        budget = one["budgets"][0]["budgetValue"]["monetaryBudgetValue"]["monetaryBudget"]
        assert (NAME, "PAUSED", {"currencyCode": "USD", "value": 50.5}) == (one["name"], one["state"], budget)
        assert ("2036-12-01T05:00:00Z", "2036-12-15T04:59:59Z") == (one["startDateTime"], one["endDateTime"])
        assert {"currencyCode": "USD", "defaultBid": 1.2} == own["adGroups"][0]["bid"]
        assert 0 == changed["success"][0]["index"]
        assert int(PROFILE) == profiles[0]["profileId"]
        assert "active" == (await platform.lookup(NAME)).value["campaign"]["status"]
        await platform.close()


async def test_their_package_reads_reports_and_errors_of_the_fake() -> None:
    async with AmazonFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        await fake.bill(campaign, DAY, Bill(12_340_000, 100, 5, 2, 50_000_000))
        assert (await platform.spend_report(campaign, DAY)).is_done
        ordered = next(each.json for each in fake.got if each.path == "/reporting/reports")

        def drive() -> list[dict[str, Any]]:
            reports = kit(Reports, fake)
            number = reports.post_report(body=json.dumps(ordered)).payload["reportId"]
            made = reports.get_report(number).payload
            rows: list[dict[str, Any]] = reports.download_report(url=made["url"], format="data").payload
            return rows

        (row,) = await asyncio.to_thread(drive)
        assert (int(campaign), 12.34, 2) == (row["campaignId"], row["cost"], row["purchases14d"])
        await fake.fail(THROTTLED, read=True)
        with pytest.raises(AdvertisingApiException):
            await asyncio.to_thread(lambda: kit(Profiles, fake).list_profiles())
        await platform.close()


async def test_a_207_is_what_its_lists_say() -> None:
    async with AmazonFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        fake.partial = True
        partial = await platform.pause(campaign, "k")
        assert (Fate.UNKNOWN, "partial") == (partial.fate, partial.code)
        fake.partial = False
        for code, fate, word in [
            ("FIELD_VALUE_IS_INVALID", Fate.REFUSED, "invalid"),
            ("TOO_MANY_REQUESTS", Fate.REFUSED, "throttled"),
            ("CONFLICT", Fate.REFUSED, "unavailable"),
            ("RESOURCE_ID_NOT_FOUND", Fate.REFUSED, "not_found"),
            ("INTERNAL_ERROR", Fate.UNKNOWN, "server_error"),
        ]:
            fake.took = lambda *_, code=code: fake.error(code)  # type: ignore[method-assign]
            outcome = await platform.pause(campaign, "k")
            assert (fate, word) == (outcome.fate, outcome.code)
        # An error about another one than the one that was sent says nothing about ours.
        fake.took = lambda *_: fake.error("FIELD_VALUE_IS_INVALID", index=1)  # type: ignore[method-assign]
        lost = await platform.pause(campaign, "k")
        assert (Fate.UNKNOWN, "unreadable") == (lost.fate, lost.code)
        await platform.close()


async def test_a_report_that_takes_hours_is_no_zero_and_is_ordered_once() -> None:
    async with AmazonFake() as fake:
        platform = fake.open()
        assert isinstance(platform, Amazon)
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        await fake.bill(campaign, DAY, Bill(12_340_000))
        now = platform._clock()
        platform._clock = platform._reports._clock = lambda: now
        fake.pending = 3
        for _ in range(3):
            waiting = await platform.spend_report(campaign, DAY)
            assert (Fate.REFUSED, "not_ready", now + PAUSE) == (waiting.fate, waiting.code, waiting.retry_at)
            assert waiting.is_transient
            assert "report" not in waiting.value
        made = await platform.spend_report(campaign, DAY)
        assert 12_340_000 == made.value["report"]["spent"]
        # The same report answers for the other campaigns of the profile, for a while.
        other = await platform.spend_report("424242", DAY)
        assert 0 == other.value["report"]["spent"]
        assert 1 == len(fake.reports)
        platform._clock = platform._reports._clock = lambda: now + 3600 * SECOND
        fake.failing = True
        failed = await platform.spend_report(campaign, DAY)
        assert Fate.REFUSED is failed.fate
        assert "report" not in failed.value
        await platform.close()


async def test_a_report_that_another_process_ordered_is_found_again() -> None:
    async with AmazonFake() as fake:
        first, second = fake.open(), fake.open()
        campaign = (await first.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        await fake.bill(campaign, DAY, Bill(12_340_000))
        fake.pending = 1
        assert "not_ready" == (await first.spend_report(campaign, DAY)).code
        made = await second.spend_report(campaign, DAY)
        assert made.is_done, made
        assert 12_340_000 == made.value["report"]["spent"]
        assert 1 == len(fake.reports)
        for each in (first, second):
            await each.close()


async def test_files_are_fetched_without_the_accounts_tokens() -> None:
    async with AmazonFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        assert (await platform.spend_report(campaign, DAY)).is_done
        (headers,) = fake.downloads
        assert not [name for name in headers if name.lower() == "authorization" or name.lower().startswith("amazon")]
        await platform.close()


async def test_retry_after_is_heeded() -> None:
    async with AmazonFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        await fake.fail(THROTTLED)
        refused = await platform.pause(campaign, "k")
        assert "throttled" == refused.code
        assert refused.retry_at is not None
        again = await platform.pause(campaign, "k")
        assert ("throttled", refused.retry_at) == (again.code, again.retry_at)
        await platform.close()


async def test_a_campaign_that_begins_today_begins_now() -> None:
    async with AmazonFake() as fake:
        platform = fake.open()
        assert isinstance(platform, Amazon)
        today = date(2036, 12, 1)
        noon = 2_111_763_600 * SECOND  # 2036-12-01 17:00 UTC
        platform._clock = lambda: noon
        begun = msgspec.structs.replace(SPEC, starts=today, ends=today + timedelta(days=1))
        assert (await platform.ensure_campaign(begun, "k")).is_done
        (made,) = fake.campaigns.values()
        assert "2036-12-01T17:00:00Z" == made.more["startDateTime"]
        await platform.close()


async def test_names_are_looked_for_on_every_page() -> None:
    async with AmazonFake() as fake:
        fake.page = 1
        platform = fake.open()
        await platform.ensure_campaign(msgspec.structs.replace(SPEC, name=NAME.upper()), "k")
        await platform.ensure_campaign(SPEC, "k")
        found = await platform.lookup(NAME)
        assert NAME == found.value["campaign"]["name"]
        await platform.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"countries": ("US", "CA")}, "sells in US, not in CA"),
        ({"name": "x" * 129}, "129 letters"),
        ({"settings": {"automatic_target": True}}, "did you mean 'automatic_targets'"),
        ({"daily_budget": 1}, "no positive multiple"),
    ],
)
async def test_what_amazon_cannot_do_is_refused_before_anything_is_made(changes: dict[str, Any], said: str) -> None:
    async with AmazonFake() as fake:
        platform = fake.open()
        refused = await platform.ensure_campaign(msgspec.structs.replace(SPEC, **changes), "k")
        assert (Fate.REFUSED, "invalid") == (refused.fate, refused.code)
        assert said in refused.message
        assert not fake.writes
        await platform.close()


def test_regions_have_their_own_hosts() -> None:
    assert {each.value["prod"]: f"https://{each.value['token_url']}" for each in Marketplaces} == {
        each.url.removeprefix("https://"): each.token_url for each in REGIONS.values()
    }
    with pytest.raises(ConfigurationError, match="write one of NA, EU, FE"):
        Amazon.open(Account(account=PROFILE, settings={"region": "US"}), AmazonFake.ENVIRON)
