"""What the first kiki did wrong on platforms, each as a test. What else it did wrong is in the tests of its parts.

The rest of the list: an invented object for Google, and one key as bearer and developer token (test_google_ads); an open
breaker that was not heeded, success without an effect, updates that were "not implemented" (test_platform_contract).
"""

from __future__ import annotations

import pytest

from kiki.flow.keys import write_key
from kiki.flow.platforms.registry import ADAPTERS
from kiki.flow.platforms.tiktok_campaign import request_id
from kiki.money import MICROS
from kiki.outbound.outcome import Outcome, refused
from tests.flow.test_lane import Case
from tests.flow.test_platform_contract import CASES, KEY, NAME, campaign, made, spec

ALL = [name for name in ADAPTERS if name in CASES]


@pytest.mark.parametrize("name", ALL)
async def test_thirteen_of_fourteen_connectors_never_sent_anything(name: str) -> None:
    async with CASES[name]() as fake:
        platform = fake.open()
        try:
            state = await made(platform, fake)
            for change in (
                platform.set_budget(state.id, 150 * MICROS, KEY),
                platform.set_bid(state.id, 3 * MICROS, KEY),
                platform.resume(state.id, KEY),
                platform.pause(state.id, KEY),
            ):
                before = len(fake.writes)
                assert (await change).is_done
                assert len(fake.writes) > before
        finally:
            await platform.close()


@pytest.mark.parametrize("name", ALL)
async def test_ids_were_seconds_and_collided(name: str) -> None:
    async with CASES[name]() as fake:
        platform = fake.open()
        try:
            wanted = [f"{NAME}-{number}" for number in range(5)]
            ids = [campaign(await platform.ensure_campaign(spec(fake, name=one), KEY + one)).id for one in wanted]
        finally:
            await platform.close()
        assert sorted(ids) == sorted(each.id for each in await fake.truth())
        assert 5 == len({*ids})


def test_keys_do_not_collide_and_come_again_after_a_crash() -> None:
    keys = [write_key("run", "version", f"lane/step-{number}", 1) for number in range(10_000)]
    assert 10_000 == len({*keys})
    assert 10_000 == len({request_id(key, "campaign") for key in keys})
    assert keys[7] == write_key("run", "version", "lane/step-7", 1)


def test_money_was_counted_as_spent_although_the_bid_failed() -> None:
    case = Case()

    async def no(campaign: str, key: str) -> Outcome:
        return refused("invalid", "the bid is too low")

    case.platform.resume = no  # type: ignore[method-assign]
    result = case.run()

    case.check(result)
    assert (0, {}) == (case.guard.spent, case.guard.holds)
    assert {0} == {*result["spent"].values()}
