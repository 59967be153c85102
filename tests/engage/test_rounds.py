"""What runs by itself, and a playbook in a currency that the shield does not count in."""

from __future__ import annotations

import asyncio

import pytest

from kiki.engage.metrics import EngageMetrics
from kiki.engage.playbook_shelf import PlaybookShelf
from kiki.engage.playbook_text import parse_playbook
from kiki.engage.post_room import PostRoom
from kiki.engage.rounds import Rounds
from kiki.engage.unsubscribe import UnsubscribeLinks
from kiki.errors import InvalidInput
from kiki.settings import Secret
from kiki.telemetry import new_registry
from tests.engage.test_retention_engine import TEXT, Shop

ABROAD = TEXT.replace("currency: USD", "currency: EUR").replace("playbook: book", "playbook: abroad")


def test_a_playbook_in_another_currency_than_the_shield_s_does_nothing():
    shop = Shop(ABROAD)
    for do in (lambda: shop.engine.plan(shop.playbook), shop.run):
        with pytest.raises(InvalidInput, match="the shield counts in USD, and the playbook 'abroad' is in EUR"):
            do()
    assert shop.mails.sent == []
    assert shop.engine.log.counts() == {}
    assert shop.guard.status()[0].held == 0
    shop.close()


def test_a_service_runs_its_other_playbooks_and_says_which_one_is_wrong():
    shop = Shop()
    shelf = PlaybookShelf({"abroad": parse_playbook(ABROAD), "book": shop.playbook})
    post_room = PostRoom(shop.engine, (), UnsubscribeLinks("http://127.0.0.1", [Secret("x" * 16)]))
    metrics = EngageMetrics(new_registry())
    rounds = Rounds(shop.engine, shelf, post_room, None, metrics, run_seconds=3600, poll_seconds=3600)

    async def once():
        rounds.start()
        async with asyncio.timeout(60):
            while "abroad" not in rounds.failure:  # noqa: ASYNC110 - a round tells nobody that it ended
                await asyncio.sleep(0.01)
        await rounds.stop()

    asyncio.run(once())
    assert len(shop.mails.sent) == 60 - len(shop.held_out())
    shop.close()
