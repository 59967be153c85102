from __future__ import annotations

import json
import time

import pytest
import shopify as kit

from kiki.clock import SECOND
from kiki.engage.crm.shopify import ShopifySource, judge
from kiki.engage.crm.shopify_text import SUBSCRIPTIONS_NEEDED
from kiki.engage.event import Order, Refund
from kiki.engage.moment import write_moment
from kiki.engage.profile import Profile
from kiki.errors import InvalidInput, SourceUnavailable
from kiki.outbound.exchange import Reply
from kiki.outbound.outcome import Fate
from kiki.settings import Secret
from tests.engage.fakes.service import Answer, Fault
from tests.engage.fakes.shopify import TOKEN, VERSION, FakeShopify, money


def day(number: int) -> str:
    return f"2026-09-{number:02d}T10:00:00Z"


@pytest.fixture
def shop():
    with FakeShopify(speed=1_000) as fake:
        yield fake


def source(shop, token=TOKEN, **options):
    options = {"bulk": False, "sleep": lambda seconds: time.sleep(min(seconds, 0.3))} | options
    return shop.closing(ShopifySource("tea.myshopify.com", Secret(token), base_url=shop.url, **options))


def records(pages):
    return [record for page in pages for record in page.records]


def test_a_customer_and_an_order_as_the_shop_has_them(shop):
    shop.customer(
        7, day(3), tags=["vip", "tea"], numberOfOrders="2", amountSpent={"amount": "49.9", "currencyCode": "CHF"}
    )
    placed = shop.order(
        9, 7, day(2), "49.90", discountCodes=["BACK"], lineItems=["55", "56"],
        refunds=[{"legacyResourceId": "4", "createdAt": day(4), "totalRefundedSet": money("10.0")}],
    )  # fmt: skip
    shop.customers["gid://shopify/Customer/7"]["lastOrder"] = placed
    profile, order, refund = records(source(shop).changes(""))
    assert isinstance(profile, Profile)
    assert ("7", "c7@example.com", ("tea", "vip"), 2, 49_900_000, "CH", True) == (
        profile.customer,
        profile.email,
        profile.tags,
        profile.purchase_count,
        profile.total_spend,
        profile.country,
        profile.email_marketing,
    )
    assert day(2) == write_moment(profile.last_purchase or 0)
    assert isinstance(order, Order)
    assert ("shopify:order:9", "7", 49_900_000, "BACK", ("55", "56")) == (
        order.id,
        order.customer,
        order.amount,
        order.code,
        order.products,
    )
    assert isinstance(refund, Refund)
    assert ("shopify:refund:4", "shopify:order:9", 10_000_000) == (refund.id, refund.order, refund.amount)


@pytest.mark.parametrize("bulk", [False, True])
def test_a_customer_that_makes_no_sense_spoils_nobody_else(shop, bulk):
    shop.customer(1, day(1), amountSpent={"amount": "-3.0", "currencyCode": "CHF"})
    shop.customer(2, day(2))
    pages = list(source(shop, bulk=bulk).changes(""))
    assert ["2"] == [one.customer for one in records(pages)]
    [problem] = [one for page in pages for one in page.problems]
    assert problem.startswith("customers 1: ")


def test_a_purchase_that_never_was_is_absent(shop):
    """The original made it the beginning of time, so that everybody was about to leave."""
    shop.customer(1, day(1))
    [profile] = records(source(shop).changes(""))
    assert profile.last_purchase is None


def test_every_page_is_read_and_then_only_what_is_new(shop):
    """The original read one page."""
    for number in range(1, 251):
        shop.customer(number, day(1 + number // 100))
    line = source(shop)
    pages = list(line.changes(""))
    assert [100, 100, 50] == [len(page.records) for page in pages]
    assert [] == records(line.changes(pages[-1].cursor))
    shop.customer(30, day(20), tags=["new"])
    shop.customer(999, pages and day(3))  # the same second as the last one that was told
    assert ["999", "30"] == [one.customer for one in records(line.changes(pages[-1].cursor))]


def test_reading_goes_on_after_any_page_and_tells_each_once(shop):
    for number in range(1, 331):
        shop.customer(number, day(1 + number % 9))
    for number in range(1, 61):
        shop.order(number, number, day(1 + number % 5))
    whole = records(source(shop).changes(""))
    for stop in range(1, 7):
        told, cursor = [], ""
        while True:
            reading = source(shop).changes(cursor)
            pages = [page for _, page in zip(range(stop), reading, strict=False)]
            if not pages:
                break
            told += records(pages)
            cursor = pages[-1].cursor
        assert [str(record.customer) for record in whole] == [str(record.customer) for record in told]
        assert len(whole) == len(told)


def test_bulk_reads_the_whole_shop_by_two_operations(shop):
    for number in range(1, 2501):
        shop.customer(number, day(5))
    for number in range(1, 1301):
        shop.order(number, number, day(5), lineItems=["8"] * (number % 3))
    line = source(shop, bulk=True)
    pages = list(line.changes(""))
    told = records(pages)
    assert (2500, 1300) == tuple(sum(isinstance(one, kind) for one in told) for kind in (Profile, Order))
    assert {(), ("8",)} == {one.products for one in told if isinstance(one, Order)}
    assert 2 == len(shop.operations)
    # From then on only what changes is read, from a little before the operation began.
    shop.customer(3, write_moment((time.time_ns() // 1_000 // SECOND - 20) * SECOND), tags=["late"])
    again = records(
        source(shop, bulk=True, clock=lambda: time.time_ns() // 1000 + 60 * SECOND).changes(pages[-1].cursor)
    )
    assert (["3"], 2) == ([one.customer for one in again], len(shop.operations))


def test_a_bulk_reading_goes_on_after_any_page(shop):
    for number in range(1, 2501):
        shop.customer(number, day(5))
    told, cursor = [], ""
    for _ in range(20):
        page = next(source(shop, bulk=True).changes(cursor), None)
        if page is None:
            break
        told += page.records
        cursor = page.cursor
    assert [str(number) for number in range(1, 2501)] == [one.customer for one in told]
    assert 2 == len(shop.operations)


def test_a_bulk_operation_that_failed_is_begun_anew(shop):
    shop.customer(1, day(5))
    pages = source(shop, bulk=True).changes("")
    first = next(pages)
    shop.operations["gid://shopify/BulkOperation/1"]["status"] = "FAILED"
    assert ["1"] == [one.customer for one in records(pages)]
    assert (3, ()) == (len(shop.operations), first.records)


def test_the_allowance_of_points_is_kept_to():
    """A page costs 602 points of a basic plan's 2,000, which here come back thirty times as fast."""
    with FakeShopify(speed=30) as shop:
        for number in range(1, 1501):
            shop.customer(number, day(5))
        assert 1500 == len(records(source(shop).changes("")))
        assert (0, 16) == (shop.throttled, len(shop.calls))


def test_who_is_throttled_waits_and_goes_on(shop):
    shop.customer(1, day(1))
    error = {"message": "Throttled", "extensions": {"code": "THROTTLED"}}
    cost = {
        "requestedQueryCost": 602,
        "actualQueryCost": None,
        "throttleStatus": {"maximumAvailable": 2000.0, "currentlyAvailable": 2, "restoreRate": 1000.0},
    }
    shop.faults.append(Answer(200, {"errors": [error], "extensions": {"cost": cost}}))
    slept = []
    line = source(shop, sleep=lambda seconds: (slept.append(seconds), time.sleep(seconds)))
    began = time.monotonic()
    assert ["1"] == [one.customer for one in records(line.changes(""))]
    assert 0.5 < time.monotonic() - began < 30


@pytest.mark.parametrize("extensions", [b"7", b"null", b'{"cost": 7}', b'{"cost": {"throttleStatus": null}}'])
def test_throttled_without_a_word_about_points_waits_a_second(extensions):
    content = b'{"errors": [{"extensions": {"code": "THROTTLED"}}], "extensions": ' + extensions + b"}"
    outcome = judge(Reply(status=200, headers={}, content=content, write=True, now=5))
    assert ("throttled", SECOND + 5) == (outcome.code, outcome.retry_at)


def test_a_token_that_expires_in_the_middle_is_named_and_reading_goes_on(shop):
    for number in range(1, 251):
        shop.customer(number, day(1 + number // 100))
    reading = source(shop).changes("")
    first = next(reading)
    shop.token = "shpat_renewed"
    with pytest.raises(SourceUnavailable, match="shopify: 401") as caught:
        next(reading)
    assert "SHOPIFY_ACCESS_TOKEN" in str(caught.value.hint)
    assert "shpat" not in str(caught.value) + str(caught.value.hint)
    rest = records(source(shop, token="shpat_renewed").changes(first.cursor))
    assert 250 == len({one.customer for one in (*first.records, *rest)}) == len(first.records) + len(rest)


def test_a_server_that_is_down_for_a_moment_is_asked_again(shop):
    shop.customer(1, day(1))
    shop.faults += [Answer(502, {}), Fault.CUT_AFTER_TAKING]
    assert ["1"] == [one.customer for one in records(source(shop).changes(""))]


def test_tags_are_added_and_the_others_stay(shop):
    """The original read a customer without its tags and wrote back the new one alone."""
    shop.customer(7, day(1), tags=["vip"])
    assert source(shop).tag("7", ["kiki-high", "kiki-high"]).is_done
    assert ["kiki-high", "vip"] == shop.customers["gid://shopify/Customer/7"]["tags"]


def test_user_errors_come_with_200_and_are_refusals(shop):
    outcome = source(shop).tag("404", ["a"])
    assert (Fate.REFUSED, "invalid", True) == (outcome.fate, outcome.code, "does not exist" in outcome.message)


def test_fields_are_written_back_and_each_customer_has_an_outcome(shop):
    shop.customer(7, day(1))
    outcomes = source(shop).upsert(
        {"7": {"kiki_churn": "high", "kiki_segment": "win-back"}, "404": {"kiki_churn": "low"}}
    )
    assert {"7": Fate.DONE, "404": Fate.REFUSED} == {customer: one.fate for customer, one in outcomes.items()}
    assert {
        ("gid://shopify/Customer/7", "kiki", "kiki_churn"): "high",
        ("gid://shopify/Customer/7", "kiki", "kiki_segment"): "win-back",
    } == shop.fields


def test_a_write_that_was_not_answered_is_unknown(shop):
    shop.customer(7, day(1))
    shop.faults.append(Fault.CUT_AFTER_TAKING)
    assert Fate.UNKNOWN is source(shop).tag("7", ["a"]).fate


def test_check_names_the_scope_that_hides_old_orders(shop):
    assert () == source(shop).check()
    shop.scopes, shop.served_version = ("read_customers", "read_orders", "write_customers"), "2027-01"
    old, version = source(shop).check()
    assert ("60 days" in old, "2027-01" in version) == (True, True)
    [problem] = source(shop, token="wrong").check()
    assert "SHOPIFY_ACCESS_TOKEN" in problem


def test_check_finds_a_webhook_that_shopify_deleted(shop):
    shop.subscriptions = set(SUBSCRIPTIONS_NEEDED)
    assert () == source(shop, webhooks=True).check()
    shop.subscriptions.discard("REFUNDS_CREATE")
    [problem] = source(shop, webhooks=True).check()
    assert "REFUNDS_CREATE" in problem


@pytest.mark.parametrize("cursor", ["nonsense", "[]", '{"customers":["a"]}'])
def test_another_sources_cursor_is_refused(shop, cursor):
    with pytest.raises(InvalidInput, match="cursor"):
        list(source(shop).changes(cursor))


def test_the_official_kit_drives_the_fake(shop):
    shop.customer(7, day(1), tags=["vip"])
    kit.Session.protocol, kit.Session.port = "http", shop.port
    session = kit.Session("127.0.0.1", VERSION, TOKEN)
    session.url = f"127.0.0.1:{shop.port}"
    kit.ShopifyResource.activate_session(session)
    try:
        kit.ShopifyResource.set_site(f"{shop.url}/admin/api/{VERSION}")
        asked = "{ customers(first: 1, query: \"updated_at:>='2026-01-01'\") { nodes { legacyResourceId tags } } }"
        [found] = json.loads(kit.GraphQL().execute(asked))["data"]["customers"]["nodes"]
        assert {"legacyResourceId": "7", "tags": ["vip"]} == found
        change = "mutation T($id: ID!, $tags: [String!]!) { tagsAdd(id: $id, tags: $tags) { userErrors { message } } }"
        kit.GraphQL().execute(change, {"id": "gid://shopify/Customer/7", "tags": ["tea"]})
        wrong = json.loads(kit.GraphQL().execute("{ customers(first: 1) { nodes { nonsense } } }"))
    finally:
        kit.ShopifyResource.clear_session()
    assert ["tea", "vip"] == shop.customers["gid://shopify/Customer/7"]["tags"]
    assert "nonsense" in wrong["errors"][0]["message"]
