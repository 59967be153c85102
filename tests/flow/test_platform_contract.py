"""What every adapter must do, whichever platform it speaks to: this suite is the definition.

Each case is a fake (tests/flow/fakes) that plays the platform over real sockets; the adapter is opened as a plan opens it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from kiki.errors import ConfigurationError
from kiki.flow.plan import Account
from kiki.flow.platform import CampaignSpec, CampaignState, Platform, SpendReport, Status, ValueUpload, campaign_name
from kiki.flow.platforms.registry import ADAPTERS, adapter_of
from kiki.money import MICROS
from kiki.outbound.breaker import BreakerState
from kiki.outbound.outcome import Fate, Outcome
from tests.flow.fakes import fake as faults
from tests.flow.fakes.amazon import AmazonFake
from tests.flow.fakes.fake import Bill, Fake
from tests.flow.fakes.google_ads import GoogleAdsFake
from tests.flow.fakes.linkedin import LinkedInFake
from tests.flow.fakes.meta import MetaFake
from tests.flow.fakes.microsoft import MicrosoftFake
from tests.flow.fakes.sandbox import SandboxFake
from tests.flow.fakes.tiktok import TikTokFake
from tests.flow.fakes.tradedesk import TradeDeskFake
from tests.flow.fakes.x import XFake
from tests.servers import free_port

CASES: dict[str, Callable[..., Fake]] = {
    "sandbox": SandboxFake,
    "google_ads": GoogleAdsFake,
    "meta": MetaFake,
    "linkedin": LinkedInFake,
    "tiktok": TikTokFake,
    "microsoft": MicrosoftFake,
    "amazon": AmazonFake,
    "x": XFake,
    "tradedesk": TradeDeskFake,
}
NAME = campaign_name("spring-sale", "search-brand")
KEY = "0123456789abcdef0123456789abcdef"


def today() -> date:
    """Asked anew by each test: a suite may run past midnight."""
    return datetime.now(UTC).date()


@pytest.fixture(params=[*CASES])
async def fake(request: pytest.FixtureRequest) -> AsyncIterator[Fake]:
    async with CASES[request.param]() as played:
        yield played


@pytest.fixture
async def platform(fake: Fake) -> AsyncIterator[Platform]:
    opened = fake.open()
    yield opened
    await opened.close()


def spec(fake: Fake, **changes: Any) -> CampaignSpec:
    wanted: dict[str, Any] = {
        "name": NAME,
        "objective": "traffic",
        "daily_budget": fake.BUDGET * MICROS,
        "bid": 2 * MICROS,
        "starts": today() + timedelta(days=1),
        "ends": today() + timedelta(days=14),
        "countries": ("US",),
        "settings": dict(fake.SETTINGS),
    }
    return CampaignSpec(**{**wanted, **changes})


def campaign(outcome: Outcome) -> CampaignState:
    assert outcome.is_done, outcome
    return msgspec.convert(outcome.value["campaign"], CampaignState)


async def made(platform: Platform, fake: Fake) -> CampaignState:
    return campaign(await platform.ensure_campaign(spec(fake), KEY))


def fate(outcome: Outcome) -> tuple[str, str]:
    return outcome.fate.value, outcome.code


async def test_the_account_says_its_currency_and_time_zone(fake: Fake, platform: Platform) -> None:
    told = await platform.currency()
    assert told.is_done, told
    assert "USD" == told.value["currency"]
    assert told.value["time_zone"] in {fake.time_zone, "UTC"}
    assert (fake.NAME, platform.limits.budget_step) == (platform.name, fake.unit())


async def test_what_is_not_there_is_not_found(fake: Fake, platform: Platform) -> None:
    nothing = await platform.lookup(NAME)
    assert (Fate.DONE, {}) == (nothing.fate, nothing.value)


async def test_a_campaign_is_made_paused_and_with_its_money(fake: Fake, platform: Platform) -> None:
    state = await made(platform, fake)
    [truth] = await fake.truth()
    assert (NAME, Status.PAUSED, fake.BUDGET * MICROS, 2 * MICROS) == (
        truth.name,
        truth.status,
        truth.daily_budget,
        truth.bid,
    )
    assert (truth.id, NAME, Status.PAUSED, truth.daily_budget) == (
        state.id,
        state.name,
        state.status,
        state.daily_budget,
    )
    assert state.bid in {None, truth.bid}
    assert state == campaign(await platform.lookup(NAME)) or state.bid is None
    assert ("USD", platform.account) == (state.currency, state.account)


async def test_a_campaign_that_is_there_is_the_answer_and_stays_as_it_is(fake: Fake, platform: Platform) -> None:
    first = await made(platform, fake)
    await platform.set_budget(first.id, fake.BUDGET * 2 * MICROS, KEY)
    again = campaign(await platform.ensure_campaign(spec(fake), "another" + KEY[7:]))
    assert (first.id, fake.BUDGET * 2 * MICROS) == (again.id, again.daily_budget)
    assert 1 == len(await fake.truth())


async def test_a_name_that_begins_like_another_is_another(fake: Fake, platform: Platform) -> None:
    longer = campaign(await platform.ensure_campaign(spec(fake, name=f"{NAME}-2"), "another" + KEY[7:]))
    assert {} == (await platform.lookup(NAME)).value
    state = await made(platform, fake)
    assert state.id != longer.id
    assert [NAME, f"{NAME}-2"] == sorted(each.name for each in await fake.truth())


async def test_ids_are_the_platforms_own(fake: Fake, platform: Platform) -> None:
    # The first kiki made ids of the second in which it was asked, without asking anybody.
    began = int(time.time())
    first = await made(platform, fake)
    second = campaign(await platform.ensure_campaign(spec(fake, name=f"{NAME}-2"), "another" + KEY[7:]))
    assert {first.id, second.id} == {each.id for each in await fake.truth()}
    assert 2 == len({first.id, second.id})
    assert not [each for each in (first.id, second.id) if str(began)[:6] in each]


async def test_a_campaign_that_bids_by_itself(fake: Fake, platform: Platform) -> None:
    state = campaign(await platform.ensure_campaign(spec(fake, bid=None), KEY))
    [truth] = await fake.truth()
    assert (Status.PAUSED, fake.BUDGET * MICROS, None) == (truth.status, truth.daily_budget, truth.bid)
    assert None is state.bid


async def test_it_is_set_started_and_paused(fake: Fake, platform: Platform) -> None:
    state = await made(platform, fake)
    for call, expected in [
        (platform.set_budget(state.id, 150 * MICROS, KEY), (Status.PAUSED, 150, 2)),
        (platform.set_bid(state.id, 3 * MICROS, KEY), (Status.PAUSED, 150, 3)),
        (platform.resume(state.id, KEY), (Status.ACTIVE, 150, 3)),
        (platform.resume(state.id, KEY), (Status.ACTIVE, 150, 3)),
        (platform.pause(state.id, KEY), (Status.PAUSED, 150, 3)),
    ]:
        outcome = await call
        assert outcome.is_done, outcome
        status, budget, bid = expected
        for shown in (*await fake.truth(), campaign(await platform.lookup(NAME))):
            assert (status, budget * MICROS, bid * MICROS) == (shown.status, shown.daily_budget, shown.bid)


@pytest.mark.parametrize("operation", ["create", "set_budget", "set_bid", "pause", "resume"])
@pytest.mark.parametrize(
    ("kind", "effect"),
    [
        (faults.ERROR_BEFORE, False),
        (faults.ERROR_AFTER, True),
        (faults.LOST_BEFORE, False),
        (faults.LOST_AFTER, True),
        (faults.GARBLED, True),
    ],
)
async def test_a_write_without_a_clear_answer_is_unknown(
    fake: Fake, platform: Platform, operation: str, kind: str, effect: bool
) -> None:
    state = None if operation == "create" else await made(platform, fake)
    if state is not None and operation == "pause":
        assert (await platform.resume(state.id, KEY)).is_done
    before = await fake.truth()
    await fake.fail(kind)
    outcome = await write(platform, fake, operation, state)
    assert Fate.UNKNOWN is outcome.fate, outcome
    assert effect == (before != await fake.truth())
    await fake.forgive()

    # Said again with the same key it is done, and done once.
    again = await write(platform, fake, operation, state)
    assert again.is_done, again
    [truth] = await fake.truth()
    shown = campaign(await platform.lookup(NAME))
    assert (truth.id, truth.status, truth.daily_budget, truth.bid) == (
        shown.id,
        shown.status,
        shown.daily_budget,
        shown.bid,
    )


UNIQUE = {"google_ads", "microsoft", "amazon"}
"""Where names are unique there is no twin to be archived."""


async def test_a_twin_is_archived_and_not_found_any_more(fake: Fake, platform: Platform) -> None:
    state = await made(platform, fake)
    sent = len(fake.got)
    outcome = await platform.archive(state.id, KEY)
    if fake.NAME in UNIQUE:
        assert ("refused", "unsupported") == fate(outcome)
        assert sent == len(fake.got)
        return
    assert outcome.is_done, outcome
    [truth] = await fake.truth()
    assert Status.ENDED is truth.status
    shown = campaign(await platform.lookup(NAME))
    assert (state.id, Status.ENDED) == (shown.id, shown.status)
    # Said again it is done, or refused for good: either way it has ended.
    again = await platform.archive(state.id, KEY)
    assert again.is_done or (again.fate is Fate.REFUSED and not again.is_transient), again
    [truth] = await fake.truth()
    assert Status.ENDED is truth.status


async def write(platform: Platform, fake: Fake, operation: str, state: CampaignState | None) -> Outcome:
    if state is None:
        return await platform.ensure_campaign(spec(fake), KEY)
    if operation == "set_budget":
        return await platform.set_budget(state.id, 130 * MICROS, KEY)
    if operation == "set_bid":
        return await platform.set_bid(state.id, 4 * MICROS, KEY)
    if operation == "archive":
        return await platform.archive(state.id, KEY)
    return await (platform.pause if operation == "pause" else platform.resume)(state.id, KEY)


@pytest.mark.parametrize("operation", ["create", "set_budget", "resume"])
async def test_too_often_is_a_refusal_that_says_when(fake: Fake, platform: Platform, operation: str) -> None:
    state = None if operation == "create" else await made(platform, fake)
    before = await fake.truth()
    await fake.fail(faults.THROTTLED)
    line = platform.line  # type: ignore[attr-defined]
    now = line._clock()
    line._clock = lambda: now  # some want to be left alone for seconds only, which a busy machine may take
    outcome = await write(platform, fake, operation, state)
    assert ("refused", "throttled") == fate(outcome)
    assert outcome.is_transient
    assert before == await fake.truth()
    sent = len(fake.got)
    # The account is left alone, whoever asks for what.
    silent = await platform.lookup(NAME)
    assert ("refused", "throttled") == fate(silent)
    assert silent.retry_at is not None
    assert silent.retry_at > now
    assert sent == len(fake.got)


async def test_a_read_that_is_not_answered_is_a_refusal(fake: Fake, platform: Platform) -> None:
    state = await made(platform, fake)
    for kind in (faults.ERROR_BEFORE, faults.LOST_BEFORE):
        await fake.fail(kind, read=True)
        assert ("refused", "unavailable") == fate(await platform.lookup(NAME))
        await fake.forgive()
    await fake.fail(faults.GARBLED, read=True)
    assert ("refused", "unreadable") == fate(await platform.spend_report(state.id, today()))


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name in CASES])
async def test_where_nobody_listens_nothing_is_said_to_have_happened(name: str) -> None:
    fake = CASES[name]()
    fake.url = f"http://127.0.0.1:{free_port()}"
    platform = fake.open()
    try:
        for outcome in (
            await platform.currency(),
            await platform.lookup(NAME),
            await platform.ensure_campaign(spec(fake), KEY),
            await platform.set_budget("12345", 130 * MICROS, KEY),
            await platform.pause("12345", KEY),
            await platform.spend_report("12345", today()),
        ):
            assert ("refused", "unavailable") == fate(outcome)
            assert outcome.is_transient
        assert Fate.REFUSED is (await platform.upload_values("12345", [value("o-1")], KEY)).fate
    finally:
        await platform.close()


async def test_a_refusal_is_no_reason_to_leave_the_platform_alone(fake: Fake, platform: Platform) -> None:
    state = await made(platform, fake)
    for _ in range(5):
        await fake.fail(faults.INVALID)
        outcome = await platform.set_budget(state.id, 130 * MICROS, KEY)
        assert ("refused", "invalid") == fate(outcome), outcome
        assert not outcome.is_transient
    await fake.forgive()
    [truth] = await fake.truth()
    assert fake.BUDGET * MICROS == truth.daily_budget
    assert (await platform.set_budget(state.id, 130 * MICROS, KEY)).is_done


async def test_a_platform_that_fails_is_left_alone_and_reads_go_on(fake: Fake, platform: Platform) -> None:
    state = await made(platform, fake)
    for _ in range(3):
        await fake.fail(faults.ERROR_BEFORE)
        assert Fate.UNKNOWN is (await platform.pause(state.id, KEY)).fate
    await fake.forgive()
    sent = len(fake.writes)
    assert ("refused", "unavailable") == fate(await platform.resume(state.id, KEY))
    assert sent == len(fake.writes)
    [truth] = await fake.truth()
    assert Status.PAUSED is truth.status
    assert campaign(await platform.lookup(NAME)).id == state.id
    line = platform.line  # type: ignore[attr-defined]
    assert BreakerState.OPEN is line.breakers["write"].state(time.time_ns() // 1000)
    assert BreakerState.CLOSED is line.breakers["read"].state(time.time_ns() // 1000)


async def test_a_token_that_is_not_taken(fake: Fake, platform: Platform) -> None:
    state = await made(platform, fake)
    await fake.fail(faults.UNAUTHORIZED)
    outcome = await platform.set_budget(state.id, 130 * MICROS, KEY)
    if fake.RENEWS:
        assert outcome.is_done, outcome
    else:
        assert ("refused", "unauthorized") == fate(outcome)


async def test_money_that_the_currency_cannot_say_is_not_sent(fake: Fake, platform: Platform) -> None:
    state = await made(platform, fake)
    sent = len(fake.got)
    for micros in (fake.unit() * 10_000 + 1, fake.unit() // 2, 0, -fake.unit(), fake.unit() * 3 - 1):
        assert ("refused", "invalid") == fate(await platform.set_budget(state.id, micros, KEY))
        assert ("refused", "invalid") == fate(await platform.set_bid(state.id, micros, KEY))
        outcome = await platform.ensure_campaign(spec(fake, name=f"{NAME}-3", daily_budget=micros), KEY)
        assert ("refused", "invalid") == fate(outcome)
    assert sent == len(fake.got)


@pytest.mark.parametrize("currency", ["EUR", "JPY", "KRW", "BHD"])
@pytest.mark.parametrize("case", [*CASES])
async def test_money_in_other_currencies_is_exact(case: str, currency: str) -> None:
    async with CASES[case](currency=currency) as fake:
        if currency not in fake.CURRENCIES:
            pytest.skip(f"{fake.NAME} has no accounts in {currency}")
        platform = fake.open()
        try:
            unit = fake.unit()
            budget, bid = 7_777 * MICROS + unit, 3 * MICROS + unit
            state = campaign(await platform.ensure_campaign(spec(fake, daily_budget=budget, bid=bid), KEY))
            assert (currency, unit) == (state.currency, platform.limits.budget_step)
            for more in (0, unit, 7 * unit):
                assert (await platform.set_budget(state.id, budget + more, KEY)).is_done
                assert (await platform.set_bid(state.id, bid + more, KEY)).is_done
                for shown in (*await fake.truth(), campaign(await platform.lookup(NAME))):
                    assert (budget + more, bid + more) == (shown.daily_budget, shown.bid)
            refused = await platform.set_budget(state.id, budget + unit // 2, KEY)
            assert ("refused", "invalid") == fate(refused)
            if fake.BILLS:
                spent = 123 * MICROS + unit
                day = today()
                await fake.bill(state.id, day, Bill(spent))
                assert spent == report(await platform.spend_report(state.id, day)).spent
        finally:
            await platform.close()


def report(outcome: Outcome) -> SpendReport:
    assert outcome.is_done, outcome
    return msgspec.convert(outcome.value["report"], SpendReport)


async def test_what_was_billed(fake: Fake, platform: Platform) -> None:
    state = await made(platform, fake)
    day = today()
    nothing = report(await platform.spend_report(state.id, day))
    assert (day, 0, False) == (nothing.day, nothing.spent, nothing.final)
    if not fake.BILLS:
        return
    long_ago = day - timedelta(days=40)
    await fake.bill(state.id, long_ago, Bill(12_340_000, 1000, 25, 3, 99_500_000))
    await fake.bill(state.id, long_ago - timedelta(days=1), Bill(1_000_000))
    told = report(await platform.spend_report(state.id, long_ago))
    assert (long_ago, 12_340_000, 1000, 25, True) == (
        told.day,
        told.spent,
        told.impressions,
        told.clicks,
        told.final,
    )
    # Before the day has ended in the account's time zone no report is final.
    assert not report(await platform.spend_report(state.id, day)).final


def value(order: str, **changes: Any) -> ValueUpload:
    wanted = {
        "order": order,
        "click": f"click-{order}",
        "at": (time.time_ns() // 1_000_000_000 - 3600) * 1_000_000,
        "value": 49_990_000,
        "consented": True,
    }
    return ValueUpload(**{**wanted, **changes})


async def test_values_go_out_with_consent_only(fake: Fake, platform: Platform) -> None:
    state = await made(platform, fake)
    if not fake.VALUES:
        sent = len(fake.got)
        refused = await platform.upload_values(state.id, [value("o-1")], KEY)
        assert ("refused", "unsupported", sent) == (*fate(refused), len(fake.got))
        return
    given = [value("o-1"), value("o-2", consented=False), value("o-3", value=125_000_000)]
    told = await platform.upload_values(state.id, given, KEY)
    assert told.is_done, told
    assert (2, 1) == (told.value["accepted"], told.value["rejected"])
    assert {"o-1": "done", "o-3": "done"} == told.value["orders"]
    assert {"o-1": 49_990_000, "o-3": 125_000_000} == await fake.uploaded()
    assert not [each for each in fake.got if b"o-2" in each.content or "o-2" in each.raw_query]

    again = await platform.upload_values(state.id, given, KEY)
    assert again.is_done, again
    assert {"o-1": 49_990_000, "o-3": 125_000_000} == await fake.uploaded()


async def test_nothing_is_sent_when_nobody_consented(fake: Fake, platform: Platform) -> None:
    if not fake.VALUES:
        return
    state = await made(platform, fake)
    sent = len(fake.got)
    told = await platform.upload_values(state.id, [value("o-1", consented=False)], KEY)
    assert (Fate.DONE, 0, 1) == (told.fate, told.value["accepted"], told.value["rejected"])
    assert {} == await fake.uploaded()
    assert sent == len(fake.got)


async def test_values_whose_answer_is_lost_are_unknown(fake: Fake, platform: Platform) -> None:
    if not fake.VALUES:
        return
    state = await made(platform, fake)
    await fake.fail(faults.LOST_AFTER)
    assert Fate.UNKNOWN is (await platform.upload_values(state.id, [value("o-1")], KEY)).fate
    assert {"o-1": 49_990_000} == await fake.uploaded()


async def test_a_campaign_that_has_ended_is_seen_to_have_ended(fake: Fake, platform: Platform) -> None:
    state = await made(platform, fake)
    await fake.end(state.id)
    assert Fate.REFUSED is (await platform.resume(state.id, KEY)).fate
    if not fake.SHOWS_ENDED:
        return
    shown = campaign(await platform.lookup(NAME))
    assert (state.id, Status.ENDED) == (shown.id, shown.status)
    # It is not made anew behind the back of who ended it.
    assert state.id == campaign(await platform.ensure_campaign(spec(fake), "another" + KEY[7:])).id


async def test_a_campaign_that_nobody_has_is_refused(fake: Fake, platform: Platform) -> None:
    for outcome in (
        await platform.set_budget("999999", 130 * MICROS, KEY),
        await platform.set_bid("999999", MICROS, KEY),
        await platform.pause("999999", KEY),
    ):
        assert Fate.REFUSED is outcome.fate, outcome
        assert not outcome.is_transient
    for evil in ("../other", "1' OR '1'='1", "1/2?x=1", ""):
        assert Fate.REFUSED is (await platform.pause(evil, KEY)).fate


async def test_no_secret_is_shown(fake: Fake, platform: Platform) -> None:
    secrets = [text for text in fake.environ().values() if len(text) > 8 and not text.startswith("http")]
    state = await made(platform, fake)
    said = [repr(platform)]
    for kind in (faults.INVALID, faults.UNAUTHORIZED, faults.ERROR_AFTER, faults.GARBLED, faults.THROTTLED):
        await fake.fail(kind)
        said.append(repr(await platform.set_budget(state.id, 130 * MICROS, KEY)))
        await fake.forgive()
    assert not [secret for secret in secrets if any(secret in text for text in said)]


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name in CASES])
def test_everything_that_is_missing_is_said_at_once(name: str) -> None:
    played = CASES[name]
    needed = set(played().ENVIRON)
    with pytest.raises(ConfigurationError) as caught:
        adapter_of(name).open(Account(account="?", settings={"versoin": "1"}), {})
    said = "\n".join(caught.value.problems)
    assert all(f"platform {name}: " in each for each in caught.value.problems)
    assert not {variable for variable in needed if variable not in said} - set(played.OPTIONAL)  # type: ignore[attr-defined]
    assert "account" in said
    assert "versoin" in said
    assert len(caught.value.problems) >= 3
