from __future__ import annotations

import time

import pytest
from hubspot.crm import deals
from hubspot.crm.associations import v4 as ties
from hubspot.crm.contacts import (
    ApiClient,
    BatchApi,
    BatchInputSimplePublicObjectBatchInputUpsert,
    Configuration,
    PublicObjectSearchRequest,
    SearchApi,
    SimplePublicObjectBatchInputUpsert,
)

from kiki.clock import SECOND
from kiki.engage.crm.hubspot import HubSpotSource
from kiki.engage.event import Order
from kiki.engage.moment import write_moment
from kiki.errors import SourceUnavailable
from kiki.outbound.outcome import Fate
from kiki.settings import Secret
from tests.engage.fakes.hubspot import TOKEN, FakeHubSpot, throttled
from tests.engage.fakes.service import Fault

BEGAN = 1_790_000_000_000


@pytest.fixture
def portal():
    with FakeHubSpot() as fake:
        yield fake


def source(portal, token=TOKEN, **options):
    options = {"per_minute": 1_000_000, "sleep": lambda _seconds: None} | options
    return portal.closing(HubSpotSource(Secret(token), base_url=portal.url, **options))


def customers(pages):
    return [record.customer for page in pages for record in page.records]


def test_a_contact_is_a_profile_and_what_is_not_told_is_absent(portal):
    portal.contact(
        7, BEGAN, firstname="Ann", hs_country_region_code="ch", hs_email_optout="true", total_revenue="120.456",
        num_associated_deals="3", recent_deal_close_date="1789000000000", kiki_tags="vip;tea",
    )  # fmt: skip
    portal.contact(8, BEGAN)
    [page] = source(portal).changes("")
    ann, other = page.records
    assert ("7", "Ann", "CH", False, 120_456_000, 3, ("tea", "vip")) == (
        ann.customer,
        ann.first_name,
        ann.country,
        ann.email_marketing,
        ann.total_spend,
        ann.purchase_count,
        ann.tags,
    )
    assert ("2026-09-10T00:26:40Z", BEGAN * 1000) == (write_moment(ann.last_purchase), ann.changed_at)
    assert (None, None, 0) == (other.last_purchase, other.email_marketing, other.purchase_count)


@pytest.mark.parametrize(
    ("told", "zone"),
    [
        ("america_slash_new_york", "America/New_York"),
        ("america_slash_port_hyphen_au_hyphen_prince", "America/Port-au-Prince"),
        ("us_slash_eastern", "US/Eastern"),
        ("Europe/Vienna", "Europe/Vienna"),
        ("mars_slash_phobos", "mars_slash_phobos"),
        (None, ""),
    ],
)
def test_a_zone_is_read_as_hubspot_writes_it(portal, told, zone):
    portal.contact(1, BEGAN, **({} if told is None else {"hs_timezone": told}))
    [page] = source(portal).changes("")
    assert zone == page.records[0].zone


def test_reading_passes_the_wall_of_ten_thousand(portal):
    for number in range(1, 10_801):
        portal.contact(number, BEGAN + number // 3)
    assert [str(number) for number in range(1, 10_801)] == sorted(customers(source(portal).changes("")), key=int)


def test_a_crowd_that_changed_in_one_millisecond_is_read_by_its_ids(portal):
    for number in range(1, 1_101):
        portal.contact(number, BEGAN + (5 if number > 50 else 0) + (9 if number > 1_050 else 0))
    line = source(portal)
    pages = list(line.changes(""))
    assert [str(number) for number in range(1, 1_101)] == sorted(customers(pages), key=int)
    assert [] == customers(line.changes(pages[-1].cursor))


def test_reading_goes_on_after_any_page(portal):
    for number in range(1, 1_301):
        portal.contact(number, BEGAN + (number // 7 if number < 600 else 100))
    told, cursor = [], ""
    while page := next(source(portal).changes(cursor), None):
        told += [record.customer for record in page.records]
        cursor = page.cursor
        assert len(cursor) <= 4_000
    assert [str(number) for number in range(1, 1_301)] == sorted(told, key=int)


def test_a_property_that_makes_no_sense_spoils_nobody_else(portal):
    portal.contact(1, BEGAN, total_revenue="-12.00", firstname="Ann")
    portal.contact(2, BEGAN)
    [page] = source(portal).changes("")
    assert (["1", "2"], "Ann", 0) == (customers([page]), page.records[0].first_name, page.records[0].total_spend)
    assert (
        "customer '1': field total_revenue: total_spend is an amount such as 12.34, not below zero",
    ) == page.problems


def test_only_what_changed_is_read_again_and_what_is_young_waits(portal):
    now = time.time_ns() // 1_000_000
    portal.contact(1, BEGAN)
    line = source(portal)
    [page] = line.changes("")
    portal.contact(2, now - 40_000)
    portal.contact(3, now)
    assert ["2"] == customers(line.changes(page.cursor))


@pytest.mark.parametrize(("policy", "seconds"), [("TEN_SECONDLY_ROLLING", 10), ("SECONDLY", 1)])
def test_a_limit_that_was_reached_is_waited_for(portal, policy, seconds):
    portal.contact(1, BEGAN)
    portal.faults.append(throttled(policy))
    now, slept = [time.time_ns() // 1000], []

    def sleep(wait):
        slept.append(wait)
        now[0] += round(wait * SECOND) + 1

    assert ["1"] == customers(source(portal, clock=lambda: now[0], sleep=sleep).changes(""))
    assert [seconds] == [round(wait) for wait in slept]


def test_a_daily_limit_ends_the_reading_and_says_until_when(portal):
    portal.faults.append(throttled("DAILY"))
    with pytest.raises(SourceUnavailable, match="DAILY") as caught:
        list(source(portal).changes(""))
    assert 3500 < caught.value.retry_after < 3700


def test_a_token_that_expires_in_the_middle_is_named(portal):
    for number in range(1, 401):
        portal.contact(number, BEGAN + number)
    reading = source(portal).changes("")
    first = next(reading)
    portal.token = "pat-renewed"
    with pytest.raises(SourceUnavailable, match="hubspot: 401") as caught:
        next(reading)
    assert "HUBSPOT_API_KEY" in caught.value.hint
    rest = customers(source(portal, token="pat-renewed").changes(first.cursor))
    assert 400 == len({*customers([first]), *rest}) == len(rest) + len(first.records)


def test_a_dated_version_is_asked_by_its_path():
    with FakeHubSpot(version="2026-03") as portal:
        portal.contact(1, BEGAN)
        portal.deal(5, BEGAN, 1)
        contacts, deals = source(portal, version="2026-03").changes("")
        assert (["1"], ["hubspot:order:5"]) == (customers([contacts]), [each.id for each in orders([deals])])


def test_fields_are_written_back_in_batches_and_each_has_an_outcome(portal):
    for number in range(1, 151):
        portal.contact(number, BEGAN)
    updates = {str(number): {"kiki_churn": "high"} for number in range(1, 151)} | {"999": {"kiki_churn": "low"}}
    outcomes = source(portal).upsert(updates)
    assert 150 == sum(one.is_done for one in outcomes.values())
    assert (Fate.REFUSED, 2) == (outcomes["999"].fate, len(portal.calls))
    assert "high" == portal.contacts["150"]["kiki_churn"]
    assert "c150@example.com" == portal.contacts["150"]["email"]


def test_one_bad_property_spoils_one_customer_and_not_the_batch(portal):
    portal.contact(1, BEGAN)
    portal.contact(2, BEGAN)
    outcomes = source(portal).upsert({"1": {"kiki_churn": "high"}, "2": {"nonsense": "x"}})
    assert (Fate.DONE, Fate.REFUSED) == (outcomes["1"].fate, outcomes["2"].fate)


def test_customers_of_a_shop_are_known_by_a_unique_property(portal):
    portal.properties.add("shop_id")
    portal.unique.add("shop_id")
    portal.contact(1, BEGAN, shop_id="c-17")
    portal.contact(2, BEGAN)
    line = source(portal, id_property="shop_id")
    assert ["c-17"] == customers(line.changes(""))
    assert line.upsert({"c-17": {"kiki_churn": "low"}})["c-17"].is_done
    assert ("low", 2) == (portal.contacts["1"]["kiki_churn"], len(portal.contacts))


def orders(pages):
    return [record for page in pages for record in page.records if isinstance(record, Order)]


def test_a_deal_that_is_won_is_an_order_of_its_first_contact(portal):
    for number in (7, 8):
        portal.contact(number, BEGAN, shop_id=f"c-{number}")
    portal.properties.add("shop_id")
    portal.deal(1, BEGAN, 8, 7, amount_in_home_currency="90.25", deal_currency_code="EUR")
    portal.deal(2, BEGAN + 1, 7, hs_is_closed_won="false")
    portal.deal(3, BEGAN + 2)
    portal.deal(4, BEGAN + 3, 8, amount="-4")
    portal.deal(5, BEGAN + 4, 8, deal_currency_code="USD")
    portal.deal(6, BEGAN + 5, 8, amount="")
    [_, page] = source(portal).changes("")
    first, second = page.records
    assert ("hubspot:order:1", "7", 90_250_000, "") == (first.id, first.customer, first.amount, first.currency)
    assert ("8", 100_500_000, "USD") == (second.customer, second.amount, second.currency)
    assert "2026-09-10T00:26:40Z" == write_moment(first.at)
    assert ("deal '4': it needs a day and an amount such as 12.34, not below zero",) == page.problems
    [_, page] = source(portal, id_property="shop_id").changes("")
    assert ["c-7", "c-8"] == [each.customer for each in page.records]
    assert [] == orders(source(portal, deals=False).changes(""))


def test_deals_are_read_past_the_wall_and_after_any_page(portal):
    portal.contact(1, BEGAN)
    for number in range(1, 1_301):
        portal.deal(number, BEGAN + (number // 7 if number < 600 else 100), 1)
    told, cursor = [], ""
    while page := next(source(portal).changes(cursor), None):
        told += [each.id for each in orders([page])]
        cursor = page.cursor
        assert len(cursor) <= 4_000
    assert 1_300 == len(told) == len(set(told))
    portal.deal(9, BEGAN + 9_000, 1)
    assert ["hubspot:order:9"] == [each.id for each in orders(source(portal).changes(cursor))]


def test_a_token_that_may_not_read_deals_is_told_what_to_do(portal):
    portal.contact(1, BEGAN)
    portal.may_read_deals = False
    reading = source(portal).changes("")
    assert ["1"] == customers([next(reading)])
    with pytest.raises(SourceUnavailable, match="deals") as caught:
        next(reading)
    assert "crm.objects.deals.read" in caught.value.hint
    assert "KIKI_ENGAGE_DEALS=false" in source(portal).check()[0]


def test_tags_are_added_to_those_that_are_there(portal):
    portal.contact(1, BEGAN, kiki_tags="vip")
    assert source(portal).tag("1", ["tea", "vip"]).is_done
    assert "tea;vip" == portal.contacts["1"]["kiki_tags"]


def test_a_write_that_was_not_answered_is_unknown_for_each(portal):
    portal.contact(1, BEGAN)
    portal.faults.append(Fault.CUT_AFTER_TAKING)
    assert {"1": Fate.UNKNOWN} == {
        customer: one.fate for customer, one in source(portal).upsert({"1": {"kiki_churn": "x"}}).items()
    }


def test_check_says_which_property_is_missing(portal):
    assert () == source(portal).check()
    portal.properties.discard("kiki_tags")
    assert ("property kiki_tags does not exist",) == source(portal).check()
    [problem] = source(portal, token="wrong").check()
    assert "HUBSPOT_API_KEY" in problem


def test_the_official_kit_drives_the_fake(portal):
    portal.contact(7, BEGAN, firstname="Ann")
    configuration = Configuration(host=portal.url)
    configuration.access_token = TOKEN
    with ApiClient(configuration) as client:
        asked = PublicObjectSearchRequest(
            filter_groups=[{"filters": [{"propertyName": "lastmodifieddate", "operator": "GTE", "value": str(BEGAN)}]}],
            sorts=[{"propertyName": "lastmodifieddate", "direction": "ASCENDING"}],
            properties=["firstname"],
            limit=200,
            after="0",
            query=None,
        )
        found = SearchApi(client).do_search(asked)
        assert ("7", "Ann") == (found.results[0].id, found.results[0].properties["firstname"])
        one = SimplePublicObjectBatchInputUpsert(
            id="c7@example.com", id_property="email", properties={"kiki_churn": "high"}
        )
        made = BatchApi(client).upsert(BatchInputSimplePublicObjectBatchInputUpsert(inputs=[one]))
    assert (False, "high") == (made.results[0].new, portal.contacts["7"]["kiki_churn"])


def test_the_official_kit_finds_the_fake_s_deals_and_their_contacts(portal):
    portal.deal(5, BEGAN, 7)
    portal.deal(6, BEGAN)
    configuration = deals.Configuration(host=portal.url)
    configuration.access_token = TOKEN
    won = {"propertyName": "hs_is_closed_won", "operator": "EQ", "value": "true"}
    with deals.ApiClient(configuration) as client:
        asked = deals.PublicObjectSearchRequest(
            filter_groups=[{"filters": [won]}], sorts=[], properties=["amount"], limit=200, after="0", query=None
        )
        found = deals.SearchApi(client).do_search(asked).results
    assert [("5", "100.50"), ("6", "100.50")] == [(one.id, one.properties["amount"]) for one in found]
    configuration = ties.Configuration(host=portal.url)
    configuration.access_token = TOKEN
    with ties.ApiClient(configuration) as client:
        inputs = [ties.PublicFetchAssociationsBatchRequest(id=one.id) for one in found]
        asked = ties.BatchInputPublicFetchAssociationsBatchRequest(inputs=inputs)
        [tied] = ties.BatchApi(client).get_page("deals", "contacts", asked).results
    assert ("5", ["7"]) == (tied._from.id, [str(one.to_object_id) for one in tied.to])
