"""A desk over a ledger in memory, a shop that knows customers, and a channel for codes: for the tests of requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kiki.shield.opening import open_decider
from kiki.shield.request_desk import RequestDesk
from tests.ledger.doubles import FakeClock
from tests.shield.privacy_doubles import Channel, Shop


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def shop() -> Shop:
    shop = Shop()
    shop.records["c-1"] = ["order 1", "order 2"]
    return shop


@pytest.fixture
def channel() -> Channel:
    return Channel()


@pytest.fixture
def desk(clock: FakeClock, shop: Shop, channel: Channel) -> Iterator[RequestDesk]:
    decider = open_decider(None, None, clock=clock)
    desk = RequestDesk(decider, [shop], channel=channel)
    yield desk
    desk.close()
    decider.close()
