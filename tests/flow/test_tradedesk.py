"""The Trade Desk: its own package (ttd-workflows) drives the fake of the Workflows, and its models judge what we write.

What is read over version 3, and its reports, no package of theirs speaks: those parts of the fake follow the reference alone.
"""

from __future__ import annotations

import asyncio
import json
from datetime import date
from typing import Any

import msgspec
import pytest
import ttd_workflows
from ttd_workflows import Workflows
from ttd_workflows.models import (
    AdGroupCreateWorkflowInputWithValidation,
    AdGroupUpdateWorkflowInputWithValidation,
    CampaignCreateWorkflowInputWithValidation,
)

from kiki.clock import SECOND
from kiki.errors import ConfigurationError
from kiki.flow.plan import Account
from kiki.flow.platform import CampaignSpec
from kiki.flow.platforms.tradedesk import TradeDesk
from kiki.outbound.outcome import Fate
from tests.flow.fakes.fake import INVALID, LOST_AFTER, THROTTLED, Bill
from tests.flow.fakes.tradedesk import ADVERTISER, TTD_TOKEN, TradeDeskFake

NAME = "kiki/spring-sale/display"
DAY = date(2026, 12, 1)
SPEC = CampaignSpec(
    name=NAME,
    objective="sales",
    daily_budget=50_500_000,
    bid=4_250_000,
    starts=DAY,
    ends=date(2026, 12, 14),
    countries=("US",),
    settings={"geo_bid_list": "98765"},
)
MODELS: dict[tuple[str, str], Any] = {
    ("POST", "/workflows/campaign"): CampaignCreateWorkflowInputWithValidation,
    ("POST", "/workflows/adgroup"): AdGroupCreateWorkflowInputWithValidation,
    ("PATCH", "/workflows/adgroup"): AdGroupUpdateWorkflowInputWithValidation,
}


def kit(fake: TradeDeskFake) -> Workflows:
    return Workflows(ttd_auth=TTD_TOKEN, server_url=f"{fake.url}/workflows")


async def test_their_models_read_every_body_that_we_write() -> None:
    async with TradeDeskFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        for outcome in (
            await platform.set_budget(campaign, 60_000_000, "k"),
            await platform.set_bid(campaign, 2_010_000, "k"),
            await platform.resume(campaign, "k"),
            await platform.pause(campaign, "k"),
            await platform.archive(campaign, "k"),
        ):
            assert outcome.is_done, outcome
        await platform.close()
        *writes, archived = fake.writes
        assert ("POST", "/workflows/campaign/archive", {}, [campaign]) == (*archived[:3], archived.json)
        assert set(MODELS) == {(each.method, each.path) for each in writes}
        for got in writes:
            read = MODELS[got.method, got.path].model_validate(got.json)
            # Nothing that their model does not know, nothing that it reads otherwise.
            assert got.json == json.loads(read.model_dump_json(by_alias=True, exclude_unset=True)), got.path


async def test_their_package_makes_and_changes_what_we_see() -> None:
    async with TradeDeskFake() as fake:
        platform = fake.open()
        await platform.ensure_campaign(SPEC, "k")
        made, added = (each.json for each in fake.writes)

        def drive() -> tuple[Any, Any, Any]:
            with kit(fake) as workflows:
                named = json.loads(json.dumps(made))
                named["primaryInput"]["name"] = "theirs"
                campaign = workflows.campaign.create(
                    request=CampaignCreateWorkflowInputWithValidation.model_validate(named)
                )
                number = campaign.campaign_payload.campaign.id
                group = workflows.ad_groups.create(
                    request=AdGroupCreateWorkflowInputWithValidation.model_validate({**added, "campaignId": number})
                )
                change = {"id": group.ad_group_payload.ad_group.id, "primaryInput": {"isEnabled": True}}
                changed = workflows.ad_groups.update(
                    request=AdGroupUpdateWorkflowInputWithValidation.model_validate(change)
                )
                spare = workflows.campaign.create(
                    request=CampaignCreateWorkflowInputWithValidation.model_validate(named)
                )
                workflows.campaigns.archive(request_body=[spare.campaign_payload.campaign.id])
                return campaign, group, changed

        campaign, group, changed = await asyncio.to_thread(drive)
        assert "theirs" == campaign.campaign_payload.campaign.name
        assert 50.5 == group.ad_group_payload.ad_group.budget.daily_target_in_advertiser_currency
        assert changed.ad_group_payload.ad_group.is_enabled
        shown = (await platform.lookup("theirs")).value["campaign"]
        assert ("active", 50_500_000, 4_250_000) == (shown["status"], shown["daily_budget"], shown["bid"])
        # Byte for byte what we wrote, but for the name and the id.
        theirs = [each.json for each in fake.writes[2:4]]
        assert {**made["primaryInput"], "name": "theirs"} == theirs[0]["primaryInput"]
        assert added["primaryInput"] == theirs[1]["primaryInput"]
        await platform.close()


async def test_their_package_reads_the_errors_of_the_fake() -> None:
    async with TradeDeskFake() as fake:
        await fake.fail(INVALID)
        await fake.fail(THROTTLED)

        def drive() -> None:
            with kit(fake) as workflows:
                wanted = {"id": "grp1", "primaryInput": {"isEnabled": False}}
                workflows.ad_groups.update(request=AdGroupUpdateWorkflowInputWithValidation.model_validate(wanted))

        with pytest.raises(ttd_workflows.models.ProblemDetailsError):
            await asyncio.to_thread(drive)
        with pytest.raises(ttd_workflows.models.APIError) as limited:
            await asyncio.to_thread(drive)
        assert 429 == limited.value.status_code


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "2500"}, 2.5),
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "x", "retry-after": "3"}, 3),
        ({}, 60),
    ],
)
async def test_429_says_when_in_milliseconds_or_seconds(headers: dict[str, str], seconds: float) -> None:
    async with TradeDeskFake() as fake:
        fake.retry = headers
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        await fake.fail(THROTTLED)
        before = platform._clock()  # type: ignore[attr-defined]
        refused = await platform.pause(campaign, "k")
        assert (Fate.REFUSED, "throttled") == (refused.fate, refused.code)
        assert refused.retry_at is not None
        after = platform._clock()  # type: ignore[attr-defined]
        assert before <= refused.retry_at - seconds * SECOND <= after
        await platform.close()


async def test_pausing_disables_every_ad_group_and_resuming_enables_ours() -> None:
    async with TradeDeskFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        fake.groups["grpother"] = {"name": "somebody's", "campaignId": campaign, "isEnabled": True, "budget": {}}
        assert "active" == (await platform.lookup(NAME)).value["campaign"]["status"]
        assert (await platform.pause(campaign, "k")).is_done
        assert not any(each["isEnabled"] for each in fake.groups.values())
        assert (await platform.resume(campaign, "k")).is_done
        assert ["kiki"] == [each["name"] for each in fake.groups.values() if each["isEnabled"]]
        await platform.close()


async def test_an_ad_group_whose_answer_was_lost_is_not_made_twice() -> None:
    async with TradeDeskFake() as fake:
        platform = fake.open()
        await fake.fail(LOST_AFTER)
        assert Fate.UNKNOWN is (await platform.ensure_campaign(SPEC, "k")).fate
        assert (1, 0) == (len(fake.made), len(fake.groups))
        assert (await platform.ensure_campaign(SPEC, "k")).is_done
        assert (await platform.ensure_campaign(SPEC, "k")).is_done
        assert (1, 1) == (len(fake.made), len(fake.groups))
        await platform.close()


async def test_campaigns_are_looked_for_on_every_page() -> None:
    async with TradeDeskFake() as fake:
        fake.page = 2
        platform = fake.open()
        for name in (f"{NAME}-2", NAME.upper(), f"{NAME}-3", NAME, NAME):
            fake.made[f"cmp{fake.next_id()}"] = {"name": name}
        found = await platform.lookup(NAME)
        assert (NAME, 1) == (found.value["campaign"]["name"], len(found.value["twins"]))
        await platform.close()


async def test_a_report_that_is_not_made_is_no_zero_and_is_ordered_once() -> None:
    async with TradeDeskFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        await fake.bill(campaign, DAY, Bill(1_234_560_000, 12_345, 5))
        fake.pending = 2
        for _ in range(2):
            waiting = await platform.spend_report(campaign, DAY)
            assert (Fate.REFUSED, "not_ready") == (waiting.fate, waiting.code)
            assert waiting.is_transient
            assert "report" not in waiting.value
        made = await platform.spend_report(campaign, DAY)
        assert (1_234_560_000, 12_345, 5) == tuple(
            made.value["report"][name] for name in ("spent", "impressions", "clicks")
        )
        assert 1 == len(fake.schedules)
        (headers,) = fake.downloads
        assert not [name for name in headers if name.lower() in {"ttd-auth", "authorization"}]
        await platform.close()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda fake: fake.columns.remove("Clicks"), "the template lacks a column"),
        (lambda fake: setattr(fake, "state", "Failed"), "the report ended as Failed"),
    ],
)
async def test_a_report_that_cannot_be_used_is_no_zero(spoil: Any, said: str) -> None:
    async with TradeDeskFake() as fake:
        platform = fake.open()
        campaign = (await platform.ensure_campaign(SPEC, "k")).value["campaign"]["id"]
        await fake.bill(campaign, DAY, Bill(1_000_000))
        spoil(fake)
        refused = await platform.spend_report(campaign, DAY)
        assert Fate.REFUSED is refused.fate
        assert said in refused.message
        await platform.close()


async def test_without_a_template_spend_is_not_said_to_be_zero() -> None:
    async with TradeDeskFake() as fake:
        platform = TradeDesk.open(Account(account=ADVERTISER), fake.environ())
        refused = await platform.spend_report("abc", DAY)
        assert (Fate.REFUSED, "unsupported") == (refused.fate, refused.code)
        assert "report_template" in refused.message
        await platform.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settings": {}}, "set 'geo_bid_list' to one that holds US"),
        ({"settings": {"geo_bid_list": "1", "chanel": "TV"}}, "did you mean 'channel'"),
        ({"settings": {"geo_bid_list": "1", "channel": "Radio"}}, "write one of Display"),
        ({"name": "x" * 257}, "257 letters"),
        ({"daily_budget": 1}, "no positive multiple"),
    ],
)
async def test_what_cannot_be_done_is_refused_before_anything_is_made(changes: dict[str, Any], said: str) -> None:
    async with TradeDeskFake() as fake:
        platform = fake.open()
        refused = await platform.ensure_campaign(msgspec.structs.replace(SPEC, **changes), "k")
        assert (Fate.REFUSED, "invalid") == (refused.fate, refused.code)
        assert said in refused.message
        assert not fake.writes
        await platform.close()


def test_the_report_template_is_a_number() -> None:
    with pytest.raises(ConfigurationError, match="report_template is 'daily'"):
        TradeDesk.open(Account(account=ADVERTISER, settings={"report_template": "daily"}), TradeDeskFake.ENVIRON)
