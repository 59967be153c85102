"""X Ads: the fake is driven by X's own package, and what our adapter sends is compared with what that package sends.

The package (twitter-ads 11) stopped at API version 11, so its paths begin with /11/ where ours begin with /12/.
"""

from __future__ import annotations

import asyncio
from datetime import date, datetime
from typing import Any

import msgspec
import pytest
from twitter_ads.account import Account as TheirAccount
from twitter_ads.campaign import Campaign, FundingInstrument, LineItem, TargetingCriteria
from twitter_ads.client import Client
from twitter_ads.enum import GRANULARITY
from twitter_ads.error import BadRequest, NotAuthorized, RateLimit
from twitter_ads.http import Request

from kiki.errors import ConfigurationError
from kiki.flow.plan import Account
from kiki.flow.platform import CampaignSpec
from kiki.flow.platforms.x import X
from kiki.outbound.outcome import Fate
from tests.flow.fakes.fake import ERROR_BEFORE, INVALID, LOST_AFTER, THROTTLED, Bill
from tests.flow.fakes.x import ACCOUNT, KEYS, XFake

NAME = "kiki/spring-sale/social"
SPEC = CampaignSpec(
    name=NAME,
    objective="sales",
    daily_budget=50_000_000,
    bid=1_200_000,
    starts=date(2036, 12, 1),
    ends=date(2036, 12, 14),
    countries=("CA", "US"),
)


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """X's own package, which finds the fake where X is."""

    def at(fake: XFake) -> TheirAccount:
        monkeypatch.setattr(Request, "_DEFAULT_DOMAIN", fake.url)
        return TheirAccount(Client(*KEYS))

    return at


def load(account: TheirAccount) -> TheirAccount:
    loaded = TheirAccount.load(account.client, ACCOUNT)
    assert isinstance(loaded, TheirAccount)
    return loaded


async def test_their_package_finds_what_our_adapter_made(kit: Any) -> None:
    async with XFake() as fake:
        platform = fake.open()
        made = await platform.ensure_campaign(SPEC, "k")
        assert made.is_done, made

        def look() -> tuple[Campaign, LineItem, list[Any]]:
            account = load(kit(fake))
            assert "America/New_York" == account.timezone
            (campaign,) = account.campaigns()
            (item,) = account.line_items()
            return campaign, item, list(item.targeting_criteria())

        campaign, item, targeting = await asyncio.to_thread(look)
        assert (NAME, "PAUSED", 50_000_000) == (
            campaign.name,
            campaign.entity_status,
            campaign.daily_budget_amount_local_micro,
        )
        assert (NAME, "ACTIVE", 1_200_000, "MAX") == (
            item.name,
            item.entity_status,
            item.bid_amount_local_micro,
            item.bid_strategy,
        )
        assert ("2036-12-01T05:00:00Z", "2036-12-15T05:00:00Z") == (item.start_time, item.end_time)
        assert {"96683cc9126741d1", "3376992a082d67c7"} == {each.targeting_value for each in targeting}
        assert {"11", "12"} == fake.versions
        await platform.close()


async def test_their_package_sends_the_same_parameters(kit: Any) -> None:
    async with XFake() as ours, XFake() as theirs:
        platform = ours.open()
        await platform.ensure_campaign(SPEC, "k")
        (made,) = await ours.truth()
        await platform.set_budget(made.id, 60_000_000, "k")
        await platform.archive(made.id, "k")
        await platform.close()

        def drive() -> None:
            account = load(kit(theirs))
            (instrument,) = account.funding_instruments()
            assert isinstance(instrument, FundingInstrument)
            campaign = Campaign(account)
            campaign.name = NAME
            campaign.funding_instrument_id = instrument.id
            campaign.daily_budget_amount_local_micro = 50_000_000
            campaign.budget_optimization = "CAMPAIGN"
            campaign.entity_status = "PAUSED"
            campaign.standard_delivery = True
            campaign.save()
            item = LineItem(account)
            item.campaign_id = campaign.id
            item.name = NAME
            item.objective = "WEBSITE_CLICKS"
            item.product_type = "PROMOTED_TWEETS"
            item.placements = "ALL_ON_TWITTER"
            item.bid_strategy = "MAX"
            item.bid_amount_local_micro = 1_200_000
            item.entity_status = "PAUSED"
            item.start_time = datetime(2036, 12, 1, 5)
            item.end_time = datetime(2036, 12, 15, 5)
            item.save()
            for value in ("3376992a082d67c7", "96683cc9126741d1"):
                criterion = TargetingCriteria(account)
                criterion.line_item_id = item.id
                criterion.targeting_type = "LOCATION"
                criterion.targeting_value = value
                criterion.save()
            item.entity_status = "ACTIVE"
            item.save()
            campaign.daily_budget_amount_local_micro = 60_000_000
            campaign.save()
            campaign.delete()

        await asyncio.to_thread(drive)
        # What their objects send again of what they loaded, ours leaves as it is.
        changes = [{"entity_status": "ACTIVE"}, {"daily_budget_amount_local_micro": "60000000"}]
        assert [*changes, {}] == [each.query for each in ours.writes[4:]]
        for change, sent in zip(changes, theirs.writes[4:-1], strict=True):
            assert change.items() <= sent.query.items()
        assert [(each.method, each.path.removeprefix("/11")) for each in theirs.writes] == [
            (each.method, each.path.removeprefix("/12")) for each in ours.writes
        ]
        assert [each.query for each in theirs.writes[:4]] == [each.query for each in ours.writes[:4]]


async def test_their_package_reads_errors_and_spend_of_the_fake(kit: Any) -> None:
    async with XFake() as fake:
        platform = fake.open()
        await platform.ensure_campaign(SPEC, "k")
        (made,) = await fake.truth()
        await fake.bill(made.id, date(2036, 12, 1), Bill(12_345_678, 1000, 20))
        report = await platform.spend_report(made.id, date(2036, 12, 1))
        assert (12_345_678, 1000, 20, False) == tuple(
            report.value["report"][name] for name in ("spent", "impressions", "clicks", "final")
        )

        def look() -> Any:
            account = load(kit(fake))
            starts, ends = datetime(2036, 12, 1, 5), datetime(2036, 12, 2, 5)
            return Campaign.all_stats(
                account,
                [made.id],
                ["BILLING"],
                start_time=starts,
                end_time=ends,
                granularity=GRANULARITY.TOTAL,
            )

        with pytest.raises(BadRequest):
            await asyncio.to_thread(look)
        await fake.fail(THROTTLED, read=True)
        with pytest.raises(RateLimit) as limited:
            await asyncio.to_thread(lambda: load(kit(fake)))
        assert str(fake.reset) == limited.value.reset_at
        with pytest.raises(NotAuthorized):
            await asyncio.to_thread(lambda: TheirAccount.load(Client("other", *KEYS[1:]), ACCOUNT))
        await platform.close()


async def test_429_closes_the_account_until_the_reset_that_it_names() -> None:
    async with XFake() as fake:
        fake.reset = 4_000_000_000
        platform = fake.open()
        await platform.ensure_campaign(SPEC, "k")
        (made,) = await fake.truth()
        await fake.fail(THROTTLED)
        refused = await platform.pause(made.id, "k")
        assert (Fate.REFUSED, "throttled", 4_000_000_000 * 10**6) == (refused.fate, refused.code, refused.retry_at)
        before = len(fake.got)
        assert "throttled" == (await platform.pause(made.id, "k")).code
        assert before == len(fake.got)
        await platform.close()


async def test_validation_errors_open_no_breaker_and_5xx_do() -> None:
    async with XFake() as fake:
        platform = fake.open()
        await platform.ensure_campaign(SPEC, "k")
        (made,) = await fake.truth()
        await fake.fail(INVALID, times=5)
        for _ in range(5):
            assert "invalid" == (await platform.pause(made.id, "k")).code
        assert (await platform.pause(made.id, "k")).is_done
        await fake.fail(ERROR_BEFORE, times=3)
        for _ in range(3):
            assert Fate.UNKNOWN is (await platform.pause(made.id, "k")).fate
        held_back = await platform.pause(made.id, "k")
        assert (Fate.REFUSED, "unavailable") == (held_back.fate, held_back.code)
        await platform.close()


async def test_a_line_item_whose_answer_was_lost_is_not_made_twice() -> None:
    async with XFake() as fake:
        platform = fake.open()
        await fake.fail(LOST_AFTER)
        assert Fate.UNKNOWN is (await platform.ensure_campaign(SPEC, "k")).fate
        assert not fake.items
        assert (await platform.ensure_campaign(SPEC, "k")).is_done
        # Killed between two countries: the line item spends nothing until both are there.
        del fake.targeting[1:]
        (item,) = fake.items.values()
        item["entity_status"] = "PAUSED"
        assert not (await platform.lookup(NAME)).value["campaign"]["whole"]
        assert (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["whole"]
        assert (1, 1, 2) == (len(fake.campaigns), len(fake.items), len(fake.targeting))
        assert len(set(fake.campaigns) | set(fake.items)) == 2
        await platform.close()


async def test_names_are_searched_through_every_page_and_compared_whole() -> None:
    async with XFake() as fake:
        fake.page = 2
        platform = fake.open()
        for name in (f"{NAME}-2", f"{NAME}-3", f"{NAME}-4", NAME.upper(), NAME):
            await platform.ensure_campaign(SPEC if name == NAME else _named(name), "k")
        found = await platform.lookup(NAME)
        assert NAME == found.value["campaign"]["name"]
        assert "twins" not in found.value
        await platform.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"countries": ("ZZ",)}, "ZZ"),
        ({"objective": "app"}, "ios_app_store_identifier"),
        ({"settings": {"placement": "ALL_ON_TWITTER"}}, "did you mean 'placements'"),
        ({"daily_budget": 50_000_001}, "no positive multiple"),
        ({"name": "x" * 256}, "256 letters"),
    ],
)
async def test_what_x_cannot_do_is_refused_before_money_is_near(changes: dict[str, Any], said: str) -> None:
    async with XFake() as fake:
        platform = fake.open()
        refused = await platform.ensure_campaign(_changed(**changes), "k")
        assert (Fate.REFUSED, "invalid") == (refused.fate, refused.code)
        assert said in refused.message
        assert all(not each.get("bid") for each in fake.items.values())
        await platform.close()


async def test_the_plan_says_which_instrument_pays_when_there_are_several() -> None:
    async with XFake() as fake:
        fake.instruments.append({"id": "other", "able_to_fund": True, "deleted": False})
        platform = fake.open()
        refused = await platform.currency()
        assert "lygyi, other" in refused.message
        await platform.close()
        chosen = X.open(Account(account=ACCOUNT, settings={"funding_instrument": "other"}), fake.environ())
        assert (await chosen.ensure_campaign(SPEC, "k")).is_done
        assert ["other"] == [each.more["funding_instrument_id"] for each in fake.campaigns.values()]
        await chosen.close()


async def test_values_need_a_pixel() -> None:
    async with XFake() as fake:
        platform = X.open(Account(account=ACCOUNT), fake.environ())
        refused = await platform.upload_values("1", [], "k")
        assert (Fate.REFUSED, "unsupported") == (refused.fate, refused.code)
        await platform.close()


def test_every_missing_variable_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        X.open(Account(account="ACT"), {})
    problems = "\n".join(caught.value.problems)
    assert 5 == len(caught.value.problems)
    for name in (*XFake.ENVIRON, "18ce54d4x5t"):
        assert name in problems


def _named(name: str) -> CampaignSpec:
    return _changed(name=name)


def _changed(**changes: Any) -> CampaignSpec:
    return msgspec.structs.replace(SPEC, **changes)
