"""Whatever a platform answers, an adapter says an outcome; and what may have happened is never said not to have."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kiki.flow.platform import Platform
from kiki.money import MICROS
from kiki.outbound.outcome import Fate, Outcome
from tests.flow.fakes.fake import Bill, Fake
from tests.flow.test_platform_contract import CASES, KEY, NAME, campaign, spec, today, value

JUNK: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        2**63,
        2**70,
        1.5,
        -0.0,
        1e308,
        "",
        "x",
        "-5",
        "1e999999",
        "NaN",
        "sNaN",
        "-Infinity",
        "12.345678901",
        "٣",
    ),
    *([], [None], [[]], {}, {"a": 1}, {"id": None}, "\ud83d\ude00", "0" * 5000, "9" * 40),
)
SEEDS = 20


@pytest.fixture(params=[name for name in CASES if name != "sandbox"])
async def fake(request: pytest.FixtureRequest) -> AsyncIterator[Fake]:
    async with CASES[request.param]() as played:
        yield played


def spoiled(told: Any, chance: random.Random) -> Any:
    """The same answer with one of its values made nonsense, or left out."""
    places = list(_places(told))
    if not places or chance.random() < 0.1:
        return chance.choice(JUNK)
    owner, key = chance.choice(places)
    if isinstance(owner, dict) and chance.random() < 0.2:
        del owner[key]
    else:
        owner[key] = chance.choice(JUNK)
    return told


def _places(told: Any) -> Any:
    items = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else ()
    for key, each in list(items):
        yield told, key
        yield from _places(each)


async def test_nonsense_has_an_outcome_too(fake: Fake) -> None:
    platform = fake.open()
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))
    await fake.bill(state.id, today(), Bill(1_500_000, 10, 2, 1, 9_990_000))
    await platform.close()
    for seed in range(SEEDS):
        chance = random.Random(seed)
        platform = fake.open()
        try:
            if chance.random() < 0.7:
                await platform.currency()
            fake.garble = lambda told, chance=chance: spoiled(told, chance)
            for outcome in await _everything(platform, fake, state.id):
                assert isinstance(outcome, Outcome), seed
                assert outcome.fate in Fate
            fake.garble = None
        finally:
            await platform.close()


async def _everything(platform: Platform, fake: Fake, campaign_id: str) -> list[Outcome]:
    made = [
        await platform.lookup(NAME),
        await platform.ensure_campaign(spec(fake), KEY),
        await platform.spend_report(campaign_id, today()),
        await platform.set_budget(campaign_id, 150 * MICROS, KEY),
        await platform.set_bid(campaign_id, 3 * MICROS, KEY),
        await platform.pause(campaign_id, KEY),
        await platform.upload_values(campaign_id, [value("o-1")], KEY),
        await platform.currency(),
    ]
    for outcome in made:
        if "campaign" in outcome.value:
            campaign(outcome)
    return made


async def test_a_write_that_was_taken_is_never_said_to_be_refused(fake: Fake) -> None:
    """The answer of a write is nonsense, and reads are fine: it was done, so it is done or unknown."""
    platform = fake.open()
    state = campaign(await platform.ensure_campaign(spec(fake), KEY))
    await platform.close()
    for seed in range(SEEDS):
        chance = random.Random(seed)
        platform = fake.open()
        last = len(fake.got)
        try:
            await platform.currency()

            def garble(told: Any, chance: random.Random = chance) -> Any:
                return chance.choice(JUNK) if fake.got[-1].write else told

            fake.garble = garble
            micros = (130 + seed) * MICROS
            outcome = await platform.set_budget(state.id, micros, KEY)
            fake.garble = None
            [truth] = await fake.truth()
            assert micros == truth.daily_budget
            assert Fate.REFUSED is not outcome.fate, (seed, outcome)
        finally:
            await platform.close()
        assert len(fake.got) > last
