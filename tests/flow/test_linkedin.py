"""LinkedIn, judged by its own Rest.li client: it drives our fake, and frames requests as we do. It knows no fields."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import pytest
from linkedin_api.clients.restli.client import RestliClient
from linkedin_api.clients.restli.utils import decoder, encoder
from linkedin_api.common import constants

from kiki.clock import SECOND
from kiki.errors import ConfigurationError
from kiki.flow.plan import Account
from kiki.flow.platform import Platform
from kiki.flow.platforms.linkedin import LinkedIn
from kiki.flow.platforms.linkedin_reply import STATUS, judge
from kiki.money import MICROS
from kiki.outbound.exchange import Reply
from kiki.outbound.outcome import Fate
from tests.flow.fakes import fake as faults
from tests.flow.fakes.fake import TOKEN, Bill
from tests.flow.fakes.linkedin import ACCOUNT, VERSION, LinkedInFake, error
from tests.flow.test_platform_contract import KEY, NAME, campaign, spec, today, value


@pytest.fixture
async def fake() -> AsyncIterator[LinkedInFake]:
    async with LinkedInFake() as played:
        yield played


@pytest.fixture
async def platform(fake: LinkedInFake) -> AsyncIterator[Platform]:
    opened = fake.open()
    yield opened
    await opened.close()


@pytest.fixture
def client(fake: LinkedInFake, monkeypatch: pytest.MonkeyPatch) -> RestliClient:
    monkeypatch.setattr(constants, "VERSIONED_BASE_URL", f"{fake.url}/rest")
    return RestliClient()


async def test_linkedins_client_drives_the_fake(fake: LinkedInFake, client: RestliClient) -> None:
    keys = {"account": ACCOUNT}
    common: dict[str, Any] = {"access_token": TOKEN, "version_string": VERSION}

    def drive() -> dict[str, Any]:
        account = client.get(resource_path="/adAccounts/{account}", path_keys=keys, **common)
        made = client.create(
            resource_path="/adAccounts/{account}/adCampaigns",
            path_keys=keys,
            entity={
                "account": f"urn:li:sponsoredAccount:{ACCOUNT}",
                "campaignGroup": "urn:li:sponsoredCampaignGroup:6001",
                "name": NAME,
                "status": "PAUSED",
                "optimizationTargetType": "NONE",
                "unitCost": {"amount": "2.00", "currencyCode": "USD"},
                "dailyBudget": {"amount": "120.00", "currencyCode": "USD"},
            },
            **common,
        )
        changed = client.partial_update(
            resource_path="/adAccounts/{account}/adCampaigns/{id}",
            path_keys={**keys, "id": made.entity_id},
            patch_set_object={"dailyBudget": {"amount": "130.00", "currencyCode": "USD"}},
            **common,
        )
        found = client.finder(
            resource_path="/adAccounts/{account}/adCampaigns",
            path_keys=keys,
            finder_name="search",
            query_params={"search": {"name": {"values": [NAME]}, "status": {"values": [*STATUS]}}, "pageSize": 100},
            **common,
        )
        return {"account": account, "made": made, "changed": changed, "found": found}

    told = await asyncio.to_thread(drive)
    assert ("USD", 201, 204) == (
        told["account"].entity["currency"],
        told["made"].status_code,
        told["changed"].status_code,
    )
    [shown] = told["found"].elements
    assert (NAME, "130.00") == (shown["name"], f"{float(shown['dailyBudget']['amount']):.2f}")


async def test_requests_are_framed_as_linkedins_client_frames_them(
    platform: Platform, fake: LinkedInFake, client: RestliClient
) -> None:
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))
    assert (await platform.set_budget(state.id, 130 * MICROS, KEY)).is_done
    ours = fake.writes[-1]

    def drive() -> None:
        client.partial_update(
            resource_path="/adAccounts/{account}/adCampaigns/{id}",
            path_keys={"account": ACCOUNT, "id": state.id},
            patch_set_object={"dailyBudget": {"amount": "130.00", "currencyCode": "USD"}},
            access_token=TOKEN,
            version_string=VERSION,
        )

    await asyncio.to_thread(drive)
    theirs = fake.writes[-1]
    assert (theirs.method, theirs.path, theirs.json) == (ours.method, ours.path, ours.json)
    for name in ("LinkedIn-Version", "X-RestLi-Protocol-Version", "X-RestLi-Method", "Authorization", "Content-Type"):
        assert theirs.headers[name] == ours.headers[name], name


async def test_queries_are_encoded_as_linkedins_client_encodes_them(platform: Platform, fake: LinkedInFake) -> None:
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))
    await platform.lookup("kiki/a (b), c:d&e%")
    searched = fake.got[-1].raw_query
    wanted = {"name": {"values": ["kiki/a (b), c:d&e%"]}, "status": {"values": [*STATUS]}}
    theirs = encoder.param_encode({"q": "search", "search": wanted, "pageSize": 100})
    assert sorted(searched.split("&")) == sorted(theirs.split("&"))

    await platform.spend_report(state.id, today())
    day = {"year": today().year, "month": today().month, "day": today().day}
    theirs = encoder.param_encode(
        {
            "q": "analytics",
            "pivot": "CAMPAIGN",
            "timeGranularity": "DAILY",
            "dateRange": {"start": day, "end": day},
            "campaigns": [f"urn:li:sponsoredCampaign:{state.id}"],
        }
    )
    ours = fake.got[-1].raw_query.split("&")
    ours_plain = dict(each.split("=", 1) for each in ours if not each.startswith("fields="))
    theirs_plain = dict(each.split("=", 1) for each in theirs.split("&"))
    # The client sorts the fields of an object; what they mean is the same.
    assert {name: decoder.decode(text) for name, text in ours_plain.items()} == {
        name: decoder.decode(text) for name, text in theirs_plain.items()
    }
    assert ["costInLocalCurrency"] == dict(parse_qsl("&".join(ours)))["fields"].split(",")[:1]


async def test_what_was_made_is_read_back_by_its_id(platform: Platform, fake: LinkedInFake) -> None:
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))
    assert fake.named(NAME)[0].id == state.id
    assert f"/rest/adAccounts/{ACCOUNT}/adCampaigns/{state.id}" == fake.got[-1].path


async def test_a_creation_that_cannot_be_read_back_is_unknown(platform: Platform, fake: LinkedInFake) -> None:
    await platform.currency()
    meet, reads = fake._meet, []

    def second(write: bool) -> str | None:
        reads.extend([write] * (not write))
        return faults.ERROR_BEFORE if not write and len(reads) == 2 else meet(write)

    fake._meet = second  # type: ignore[method-assign]
    outcome = await platform.ensure_campaign(spec(fake), KEY)
    assert (Fate.UNKNOWN, 1) == (outcome.fate, len(fake.campaigns))


async def test_what_is_made(platform: Platform, fake: LinkedInFake) -> None:
    await platform.ensure_campaign(spec(fake, countries=("US", "DE"), bid=None), KEY)
    body = fake.writes[-1].json
    assert {"amount": "120.00", "currencyCode": "USD"} == body["dailyBudget"]
    assert ("PAUSED", "NOT_POLITICAL", "MAX_CLICK") == (
        body["status"],
        body["politicalIntent"],
        body["optimizationTargetType"],
    )
    [places] = body["targetingCriteria"]["include"]["and"]
    assert ["urn:li:geo:103644278", "urn:li:geo:101282230"] == places["or"]["urn:li:adTargetingFacet:locations"]
    assert 14 * 86400 * 1000 >= body["runSchedule"]["end"] - body["runSchedule"]["start"] > 13 * 86400 * 1000
    assert "unitCost" not in body


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"countries": ("US", "FR")}, "no id of FR"),
        ({"countries": ()}, "no country"),
        ({"objective": "app"}, "no campaigns for apps"),
        ({"settings": {"type": "TEXT_AD"}}, "not known"),
    ],
)
async def test_what_linkedin_cannot_do_is_said_and_not_sent(
    platform: Platform, fake: LinkedInFake, changes: dict[str, Any], said: str
) -> None:
    outcome = await platform.ensure_campaign(spec(fake, **changes), KEY)
    assert ("refused", "invalid") == (outcome.fate.value, outcome.code)
    assert said in outcome.message
    assert [] == fake.writes


async def test_pages_are_turned(platform: Platform, fake: LinkedInFake) -> None:
    for number in range(5):
        await platform.ensure_campaign(spec(fake, name=f"{NAME}-{number}"), KEY)
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))
    assert state.id == campaign(await platform.lookup(NAME)).id
    assert 6 == len(fake.campaigns)


async def test_a_part_of_the_conversions_may_be_refused(platform: Platform, fake: LinkedInFake) -> None:
    told = await platform.upload_values("1", [value("o-1"), value("o-2", click="bad")], KEY)
    assert (1, 1) == (told.value["accepted"], told.value["rejected"])
    assert {"o-1": "done", "o-2": "refused"} == told.value["orders"]
    assert {"o-1"} == {*fake.uploads}


async def test_a_campaign_that_bids_by_itself_bids_by_hand_once_it_is_told(
    platform: Platform, fake: LinkedInFake
) -> None:
    state = campaign(await platform.ensure_campaign(spec(fake, bid=None), KEY))
    assert (await platform.set_bid(state.id, 3 * MICROS, KEY)).is_done
    assert 3 * MICROS == campaign(await platform.lookup(NAME)).bid
    assert "NONE" == fake.campaigns[state.id].more["optimised"]


@pytest.mark.parametrize(
    ("message", "retry_after", "now", "expected"),
    [
        ("Resource level throttle MEMBER MINUTE limit is reached.", None, 1000, None),
        ("Resource level throttle APPLICATION DAY limit is reached.", None, 1000, 1000 + 3600),
        ("Resource level throttle APPLICATION DAY limit is reached.", None, 86400 - 60, 86400),
        ("Resource level throttle APPLICATION DAY limit is reached.", "7", 1000, 1007),
    ],
)
def test_when_to_come_again(message: str, retry_after: str | None, now: int, expected: int | None) -> None:
    answer = error(429, message, 101)
    headers = {} if retry_after is None else {"retry-after": retry_after}
    content = (answer.text or "").encode()
    outcome = judge(Reply(status=429, headers=headers, content=content, write=True, now=now * SECOND))
    assert outcome is not None
    assert ("refused", "throttled") == (outcome.fate.value, outcome.code)
    assert (None if expected is None else expected * SECOND) == outcome.retry_at


@pytest.mark.parametrize("content", [b"", b"[]", b'{"message": 3}', b"<html>"])
def test_a_limit_without_words(content: bytes) -> None:
    reply = Reply(status=429, headers={}, content=content, write=True, now=0)
    outcome = judge(reply)
    assert outcome is not None
    assert "throttled" == outcome.code
    assert judge(Reply(status=400, headers={}, content=content, write=True, now=0)) is None


async def test_the_limit_of_a_day(platform: Platform, fake: LinkedInFake) -> None:
    fake.day_limit = True
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))
    await fake.fail(faults.THROTTLED)
    outcome = await platform.pause(state.id, KEY)
    assert outcome.retry_at is not None
    assert ("refused", "throttled") == (outcome.fate.value, outcome.code)


async def test_an_access_token_alone_is_enough(fake: LinkedInFake) -> None:
    environ = {"LINKEDIN_ACCESS_TOKEN": TOKEN, "LINKEDIN_URL": fake.url}
    platform = LinkedIn.open(fake.ACCOUNT, environ)
    assert (await platform.currency()).is_done
    await fake.fail(faults.UNAUTHORIZED, read=True)
    outcome = await platform.lookup(NAME)
    assert ("refused", "unauthorized") == (outcome.fate.value, outcome.code)
    await platform.close()


def test_without_tokens_both_ways_are_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        LinkedIn.open(Account(account="1", settings=LinkedInFake.ACCOUNT.settings), {})
    said = "\n".join(caught.value.problems)
    assert 3 == len(caught.value.problems)
    assert "LINKEDIN_ACCESS_TOKEN" in said


async def test_reports_are_exact(platform: Platform, fake: LinkedInFake) -> None:
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))
    await fake.bill(state.id, today(), Bill(12_345_678, 10, 2, 1, 5_500_000))
    told = await platform.spend_report(state.id, today())
    assert (12_345_678, 1, 5_500_000) == tuple(told.value["report"][each] for each in ("spent", "conversions", "value"))
