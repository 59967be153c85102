"""What platforms demand in a person's name reaches the shield's desk as what it is: access is not deletion."""

from __future__ import annotations

import base64
import hmac
import json
from hashlib import sha256

import pytest

from kiki.engage.customer_store import CustomerStore
from kiki.engage.database import open_database
from kiki.engage.keyring import Keyring
from kiki.engage.post_room import PostRoom
from kiki.engage.profile import Profile
from kiki.engage.retention_engine import RetentionEngine
from kiki.engage.shield_line import GuardLine
from kiki.engage.unsubscribe import UnsubscribeLinks
from kiki.engage.webhook import WebhookCall
from kiki.engage.webhooks.shopify import ShopifyReader
from kiki.errors import Unavailable
from kiki.settings import Secret
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.request_desk import RequestDesk
from tests.engage.conftest import DAY, MovedClock

SHOP = "demo.myshopify.com"
SECRET = "shpss_0123456789"


class Room:
    """A post room over a desk that may be away."""

    def __init__(self, folder, guard) -> None:
        self.clock = MovedClock()
        self.store = CustomerStore(open_database(folder / "engage.db"), Keyring.of_guard(guard.decider), self.clock)
        self.desk = RequestDesk(guard.decider, consents=guard.consents, packages=folder / "requests")
        self.away = False
        links = UnsubscribeLinks("http://127.0.0.1", [Secret("x" * 16)])
        engine = RetentionEngine(self.store, GuardLine(guard), {}, links.url)
        self.room = PostRoom(engine, [ShopifyReader(Secret(SECRET), shop=SHOP)], links, self)

    def demand(self, customer: str, kind: str, key: str, by: str) -> str:
        if self.away:
            raise Unavailable("the shield is away")
        made = self.desk.create(customer, kind, requested_by=by, key=key)
        if made.state in {"received", "identity_pending"}:
            made = self.desk.verify_identity(made.id, method="operator", actor=by, note="signed")
        return made.id

    def call(self, topic: str, body: dict) -> int:
        raw = json.dumps(body).encode()
        proof = base64.b64encode(hmac.new(SECRET.encode(), raw, sha256).digest()).decode()
        headers = {"x-shopify-hmac-sha256": proof, "x-shopify-topic": topic, "x-shopify-shop-domain": SHOP}
        call = WebhookCall("POST", "https://example.com/v1/webhooks/shopify", headers, raw)
        taken = self.room.take("shopify", call)
        assert taken.has_demands
        return taken.new

    @property
    def requests(self) -> list[tuple[str, str, str]]:
        return sorted((each.customer, str(each.kind), str(each.state)) for each in self.desk.list())


@pytest.fixture
def room(tmp_path):
    with BudgetGuard.open(tmp_path / "shield.db", limit=10) as guard:
        made = Room(tmp_path, guard)
        yield made
        made.store.close()


def about(customer: int, **more) -> dict:
    return {"shop_id": 5, "shop_domain": SHOP, "customer": {"id": customer, "email": "ann@example.com"}, **more}


@pytest.mark.parametrize("away", [False, True])
def test_who_wants_to_see_their_data_is_not_erased(room, away):
    assert 1 == room.call("customers/data_request", about(7, orders_requested=[1], data_request={"id": 9}))
    assert 1 == room.call("customers/redact", about(8, orders_to_redact=[1]))
    assert [] == room.requests  # a platform gets its answer first
    if away:
        room.away = True
        assert 0 == room.room.pass_on()
        room.away = False
    assert 2 == room.room.pass_on()
    assert [("7", "ACCESS", "verified"), ("8", "DELETION", "verified")] == room.requests
    assert [] == room.store.demands.waiting()


def test_a_shop_that_leaves_takes_its_customers_along_and_nobody_else(room):
    room.store.keep("shopify", [Profile(customer="11"), Profile(customer="12")])
    room.store.keep("csv", [Profile(customer="c-1")])
    gone = {"shop_id": 5, "shop_domain": SHOP}
    assert [1, 0] == [room.call("shop/redact", gone), room.call("shop/redact", gone)]
    room.room.pass_on()
    assert [("11", "DELETION", "verified"), ("12", "DELETION", "verified")] == room.requests
    # It comes back, and leaves once more: the same body is another demand.
    room.store.keep("shopify", [Profile(customer="13")])
    room.clock.advance(30 * DAY)
    assert 1 == room.call("shop/redact", gone)
    room.room.pass_on()
    assert ("13", "DELETION", "verified") in room.requests
