"""The contract of the store of customers, over both databases."""

from __future__ import annotations

import threading

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiki.engage.action_log import ActionLog
from kiki.engage.customer_store import CustomerStore
from kiki.engage.database import SqliteDatabase, open_database
from kiki.engage.event import OptIn, OptOut, OptOutReason, Order, PrivacyKind, PrivacyRequest, Refund, Touch, TouchKind
from kiki.engage.journey_book import JourneyBook
from kiki.engage.keyring import Keyring
from kiki.engage.playbook_text import parse_playbook
from kiki.engage.profile import Profile
from kiki.engage.roster import call_the_roll
from kiki.errors import InvalidInput, StoreUnavailable
from kiki.ledger.memory import MemoryStore
from kiki.ledger.subjects import Subjects
from tests.engage.conftest import NOW
from tests.engage.running import PLAYBOOK

ANN = Profile(
    customer="c-1",
    email="Ann@Example.com",
    phone="+1 555 123-4567",
    first_name="Ann",
    last_name="Leemannsson",
    zone="Europe/Zurich",
    tags=("vip", "b2b"),
    total_spend=450_000_000,
    purchase_count=3,
    last_purchase=NOW - 5,
    engagement_score=8.5,
    email_marketing=True,
    changed_at=10,
)


def stopped(store: CustomerStore, channel: str, address: str = "", customer: str = "c-1") -> bool:
    with store.database.writing() as tx:
        return store.suppressions.holds(tx, customer, channel, address)


def test_a_profile_comes_back_as_it_was(store):
    store.keep("shop", [ANN])
    assert store.profile("c-1") == Profile(
        **{**{f: getattr(ANN, f) for f in ANN.__struct_fields__}, "tags": ("b2b", "vip")}
    )
    assert store.profile("nobody") is None
    assert store.count() == 1


def test_names_and_addresses_stand_nowhere_in_clear(tmp_path, keys, clock):
    path = tmp_path / "engage.db"
    store = CustomerStore(open_database(path), keys, clock)
    store.keep("shop", [ANN, OptOut(id="o", at=1, reason=OptOutReason.STOPPED, address="+15551234567", channel="sms")])
    store.close()
    found = b"".join(each.read_bytes() for each in tmp_path.iterdir()).lower()
    for text in (b"ann@", b"example.com", b"15551234567", b"123-4567", b"leemannsson"):
        assert text not in found


def test_an_older_version_never_replaces_a_newer_one(store):
    newer = Profile(customer="c-1", segment="new", changed_at=20)
    older = Profile(customer="c-1", segment="old", changed_at=19)
    store.keep("shop", [newer, older])
    assert store.profile("c-1").segment == "new"
    store.keep("shop", [older])
    assert store.profile("c-1").segment == "new"
    store.keep("shop", [Profile(customer="c-1", segment="same moment", changed_at=20)])
    assert store.profile("c-1").segment == "same moment"


def test_an_event_told_twice_is_kept_once(store):
    order = Order(id="shop:order:1", customer="c-1", at=NOW, amount=5_000_000)
    refund = Refund(id="shop:refund:1", order="shop:order:1", customer="c-1", at=NOW + 1, amount=1_000_000)
    first = store.keep("shop", [refund, order, order])
    assert (first.events, first.repeated) == (2, 1)
    again = store.keep("shop", [order])
    assert (again.events, again.repeated) == (0, 1)
    person = store.person("c-1")
    assert [type(each) for each in store.events(person)] == [Order, Refund]
    assert store.profile("c-1").last_purchase == NOW


@pytest.mark.parametrize("refund_first", [False, True])
def test_a_refund_that_names_its_order_alone_is_its_buyer_s(store, refund_first):
    """As Shopify's webhook tells it; the next reading tells it again with the customer."""
    order = Order(id="shop:order:1", customer="c-1", at=NOW, amount=10_000_000, margin=3_000_000)
    refund = Refund(id="shop:refund:1", order="shop:order:1", at=NOW + 1, amount=5_000_000)
    for each in (refund, order) if refund_first else (order, refund):
        store.keep("shop", [each])
    store.keep("shop", [msgspec.structs.replace(refund, customer="c-1")])
    assert [type(each) for each in store.events(store.person("c-1"))] == [Order, Refund]
    [(_, margin)] = JourneyBook(store.database, store.clock).earnings(400_000, NOW, NOW + 1)[store.person("c-1")]
    assert margin == -1_500_000


def test_a_row_that_gives_back_more_later_is_one_refund_of_the_larger_sum(store):
    """As a column `refunded` grows; told late, the smaller sum changes nothing."""
    order = Order(id="csv:order:1", customer="c-1", at=NOW, amount=100_000_000)
    refund = Refund(id="csv:refund:1", order="csv:order:1", customer="c-1", at=NOW + 1, amount=10_000_000)
    more = msgspec.structs.replace(refund, amount=30_000_000)
    kept = [store.keep("csv", [each]).events for each in (order, refund, more, refund, more)]
    assert kept == [1, 1, 1, 0, 0]
    assert [each.amount for each in store.events(store.person("c-1"))] == [100_000_000, 30_000_000]
    earned = JourneyBook(store.database, store.clock).earnings(1_000_000, NOW - 1, NOW + 1)[store.person("c-1")]
    assert [margin for _, margin in earned] == [100_000_000, -30_000_000]


def test_who_has_orders_and_no_totals_has_bought(store):
    store.keep("crm", [Profile(customer="c-2"), Profile(customer="c-3", purchase_count=7, total_spend=9_000_000)])
    for customer in ("c-2", "c-3"):
        order = Order(id=f"crm:order:{customer}", customer=customer, at=NOW, amount=10_000_000)
        store.keep("crm", [order, Refund(id=f"r-{customer}", order=order.id, at=NOW, amount=4_000_000)])
    book = JourneyBook(store.database, store.clock)
    assert book.bought() == {store.person("c-2"): (1, 6_000_000)}
    playbook = parse_playbook(PLAYBOOK)
    people = call_the_roll(store, ActionLog(store.database, store.clock), book, playbook, None).people
    told = dict(zip(people.customers, zip(people.purchases.tolist(), people.spend.tolist(), strict=True), strict=True))
    assert told == {"c-2": (1, 6_000_000), "c-3": (7, 9_000_000)}


def test_opens_are_no_engagement(store):
    store.keep("shop", [Touch(id="a", at=NOW, kind=TouchKind.OPENED, customer="c-1")])
    assert store.profile("c-1").last_engagement is None
    store.keep("shop", [Touch(id="b", at=NOW, kind=TouchKind.CLICKED, customer="c-1")])
    assert store.profile("c-1").last_engagement == NOW


def test_a_cursor_is_kept_with_its_page_or_not_at_all(store):
    assert store.cursor("shop") == ""
    store.keep("shop", [ANN], "page-1")
    assert store.cursor("shop") == "page-1"
    with pytest.raises(InvalidInput):
        store.keep("shop", [Profile(customer="x" * 500)], "page-2")
    assert store.cursor("shop") == "page-1"


@pytest.mark.parametrize("channel", ["email", ""])
def test_an_opt_out_by_address_holds_for_that_address(store, channel):
    store.keep("shop", [ANN])
    store.keep(
        "mail", [OptOut(id="o", at=1, reason=OptOutReason.UNSUBSCRIBED, channel=channel, address="ANN@example.com ")]
    )
    assert stopped(store, "email", "ann@example.com")
    assert stopped(store, "sms", "ann@example.com") is (channel == "")
    assert not stopped(store, "email", "bob@example.com", "c-2")


def test_start_lifts_stop_of_its_channel_and_a_late_stop_does_not_come_back(store):
    stop = OptOut(id="1", at=10, reason=OptOutReason.STOPPED, channel="sms", address="+15551234567")
    start = OptIn(id="2", at=20, channel="sms", address="+15551234567")
    late = OptOut(id="3", at=15, reason=OptOutReason.STOPPED, channel="sms", address="+15551234567")
    store.keep("twilio", [stop])
    assert stopped(store, "sms", "+15551234567")
    store.keep("twilio", [start])
    assert not stopped(store, "sms", "+15551234567")
    store.keep("twilio", [late])
    assert not stopped(store, "sms", "+15551234567")
    store.keep("twilio", [OptOut(id="4", at=30, reason=OptOutReason.STOPPED, channel="sms", address="+15551234567")])
    assert stopped(store, "sms", "+15551234567")


def test_who_was_erased_is_not_brought_back_by_an_import(store):
    store.keep("shop", [ANN])
    with store.database.writing() as tx:
        tx.run("DELETE FROM engage_profiles WHERE customer = ?", ("c-1",))
    assert store.keys.forget("c-1")
    kept = store.keep("shop", [ANN, Order(id="o", customer="c-1", at=1, amount=1)], "next")
    assert (kept.profiles, kept.events, kept.erased) == (0, 0, 2)
    assert store.profile("c-1") is None
    assert store.cursor("shop") == "next"


def test_a_demand_of_a_platform_is_kept_once(store):
    demand = PrivacyRequest(id="shopify:redact:c-1", at=1, kind=PrivacyKind.DELETION, customer="c-1")
    assert store.demands.keep(demand)
    assert not store.demands.keep(demand)
    [(name, kept)] = store.demands.waiting()
    assert kept == msgspec.structs.replace(demand, id=name)
    assert name.startswith("shopify:")
    assert "c-1" not in name
    store.demands.became(name, "DSR-1")
    assert store.demands.waiting() == []


def test_a_store_is_opened_with_its_own_keys_only(where, store, clock):
    database = open_database(where)
    with pytest.raises(InvalidInput, match="another key store"):
        CustomerStore(database, Keyring(Subjects(MemoryStore())), clock)
    database.close()


def test_what_fails_is_undone_and_says_nothing_personal(store):
    def twice() -> None:
        with store.database.writing() as tx:
            for _ in range(2):
                tx.run("INSERT INTO engage_cursors (source, cursor, at) VALUES (?, ?, ?)", ("secret-name", "x", 1))

    with pytest.raises(StoreUnavailable) as caught:
        twice()
    assert "secret" not in str(caught.value)
    assert store.cursor("secret-name") == ""


def test_many_threads_keep_the_same_records_once(store):
    orders = [Order(id=f"o-{n}", customer=f"c-{n % 7}", at=n, amount=1) for n in range(40)]
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(store.keep("shop", orders).events)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 40


moments = st.integers(0, 5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(st.lists(st.tuples(st.booleans(), moments), max_size=8))
def test_suppression_follows_the_newest_word_whatever_the_order(told):
    """Of an opt-out and an opt-in of one moment the opt-in holds when it was told last, the opt-out when it was."""
    store = CustomerStore(SqliteDatabase(None), Keyring(Subjects(MemoryStore())), lambda: NOW)
    at, lifted = None, None
    for number, (out, moment) in enumerate(told):
        if out:
            store.keep("s", [OptOut(id=str(number), at=moment, reason=OptOutReason.MANUAL, customer="c-1")])
            if lifted is None or lifted < moment:
                at, lifted = moment, None
        else:
            store.keep("s", [OptIn(id=str(number), at=moment, channel="", customer="c-1")])
            if at is not None and at <= moment:
                lifted = moment
    assert stopped(store, "email") is (at is not None and lifted is None)
    store.close()


def test_a_letter_that_postgresql_does_not_keep_ends_no_reading(store):
    order = Order(id="order\0", customer="c-1", at=1, amount=1, currency="USD", code="x\0")
    kept = store.keep("shop", [Profile(customer="c-1", tags=("a\0b",), locale="de\0", first_name="Ann\0"), order])
    assert (1, 1) == (kept.profiles, kept.events)
    assert 1 == store.keep("shop", [order]).repeated
    assert "c-1" == store.profile("c-1").customer
    assert store.profile("\0") is None
