from __future__ import annotations

import pytest
import requests
from requests.adapters import HTTPAdapter
from simple_salesforce import Salesforce, format_soql

from kiki.engage.crm import salesforce_bulk
from kiki.engage.crm.salesforce import SalesforceSource
from kiki.engage.crm.salesforce_text import escaped
from kiki.engage.event import Order
from kiki.engage.moment import write_moment
from kiki.errors import SourceUnavailable
from kiki.outbound.oauth import FixedToken, OAuth2
from kiki.outbound.outcome import Fate
from kiki.settings import Secret
from tests.engage.fakes.salesforce import TOKEN, FakeSalesforce
from tests.engage.fakes.service import Answer, Fault


@pytest.fixture
def org():
    with FakeSalesforce(page=200) as fake:
        yield fake


def source(org, authorization=None, **options):
    options = {"bulk": False, "sleep": lambda _seconds: None} | options
    return org.closing(SalesforceSource(org.url, authorization or FixedToken(Secret(TOKEN)), **options))


def customers(pages):
    return [record.customer for page in pages for record in page.records]


def stamp(number):
    return f"2026-01-{1 + number // 100:02d}T00:00:{number % 50:02d}.000+0000"


def test_contacts_as_profiles_and_the_deleted_ones_as_gone(org):
    org.contact(1, FirstName="Ann", HasOptedOutOfEmail=True, LTV__c=120.5, MobilePhone="+15551234567")
    org.contact(2, IsDeleted=True)
    org.contact(3)
    [page] = source(org, fields={"total_spend": "LTV__c"}).changes("")
    ann, other = page.records
    assert ("Ann", False, 120_500_000, "+15551234567") == (
        ann.first_name,
        ann.email_marketing,
        ann.total_spend,
        ann.phone,
    )
    assert (None, None, ("003000000000002AAA",)) == (other.email_marketing, other.last_purchase, page.gone)


@pytest.mark.parametrize("bulk", [False, True])
def test_every_page_is_read_and_then_only_what_is_new(org, bulk):
    for number in range(1, 4_501 if bulk else 1_001):
        org.contact(number, stamp(number % 2_000))
    line = source(org, bulk=bulk)
    pages = list(line.changes(""))
    assert sorted(org.contacts) == sorted(customers(pages))
    org.contact(7, "2026-06-05T00:00:00.000+0000")
    assert ["003000000000007AAA"] == customers(line.changes(pages[-1].cursor))


@pytest.mark.parametrize("bulk", [False, True])
def test_reading_goes_on_after_any_page(org, bulk):
    for number in range(1, 5_001 if bulk else 1_001):
        org.contact(number, stamp(number % 1_000))
    told, cursor = [], ""
    while page := next(source(org, bulk=bulk).changes(cursor), None):
        told += [one.customer for one in page.records]
        cursor = page.cursor
    assert sorted(org.contacts) == sorted(told)
    assert len(org.jobs) == bulk


def test_what_was_won_is_an_order_of_its_primary_contact(org):
    for number in (1, 2):
        org.contact(number, Shop_Id__c=f"c-{number}")
    org.deal(1, 1, 2)
    org.deal(2, 2, IsWon=False)
    org.deal(3)
    org.deal(4, 2, Amount=None)
    org.deal(5, 2, Amount=-1.0)
    org.deal(6, 1, IsDeleted=True)
    [_, page] = source(org).changes("")
    [order] = page.records
    assert ("salesforce:order:006000000000001AAA", "003000000000001AAA", 100_500_000, "") == (
        order.id,
        order.customer,
        order.amount,
        order.currency,
    )
    assert ("2026-01-05T00:00:00Z", 1) == (write_moment(order.at), len(page.problems))
    assert "006000000000005AAA" in page.problems[0]
    [_, page] = source(org, external_id="Shop_Id__c").changes("")
    assert ["c-1"] == [each.customer for each in page.records]
    assert ["c-1", "c-2"] == sorted(customers(source(org, external_id="Shop_Id__c", deals=False).changes("")))


def test_orders_are_read_by_pages_and_then_only_what_is_new(org):
    org.contact(1)
    org.deal_fields.append("CurrencyIsoCode")
    for number in range(1, 501):
        org.deal(number, 1, stamp=stamp(number % 200), CurrencyIsoCode="CHF")
    line, told, cursor = source(org), [], ""
    while page := next(source(org).changes(cursor), None):
        told += [each.id for each in page.records if isinstance(each, Order)]
        cursor = page.cursor
    assert 500 == len(told) == len(set(told))
    org.deal(7, 1, stamp="2026-06-05T00:00:00.000+0000", CurrencyIsoCode="EUR")
    [page] = line.changes(cursor)
    assert [("salesforce:order:006000000000007AAA", "EUR")] == [(each.id, each.currency) for each in page.records]


def test_who_may_not_read_opportunities_is_told_what_to_do(org):
    org.contact(1)
    org.deal_fields.clear()
    reading = source(org).changes("")
    assert ["003000000000001AAA"] == customers([next(reading)])
    with pytest.raises(SourceUnavailable, match="opportunities") as caught:
        next(reading)
    assert "KIKI_ENGAGE_DEALS=false" in caught.value.hint
    assert "KIKI_ENGAGE_DEALS=false" in source(org).check()[0]


def test_a_bulk_query_that_failed_is_read_by_pages(org):
    org.contact(1)
    pages = source(org, bulk=True).changes("")
    next(pages)
    org.jobs["750000"]["state"] = "Failed"
    assert 1 == len(customers(pages))


def test_a_question_is_written_as_a_url(org):
    """The original wrote the blanks of its SOQL as they were."""
    org.contact(1)
    list(source(org).changes(""))
    assert " " not in org.calls[0].path
    assert org.calls[0].query["q"].startswith("SELECT Id, SystemModstamp, IsDeleted, Email")


@pytest.mark.parametrize("text", ["O'Hara", "a\\b", "\\'", "x' OR Id != '", "漢"])
def test_quotes_are_escaped_as_the_kit_escapes_them(text):
    assert format_soql("{}", text) == f"'{escaped(text)}'"


def test_a_token_that_expires_in_the_middle_is_named(org):
    for number in range(1, 401):
        org.contact(number)
    reading = source(org).changes("")
    first = next(reading)
    org.token = "00Drenewed"
    with pytest.raises(SourceUnavailable, match="401") as caught:
        next(reading)
    assert "SALESFORCE_ACCESS_TOKEN" in caught.value.hint
    rest = customers(source(org, FixedToken(Secret("00Drenewed"))).changes(first.cursor))
    assert 400 == len({*customers([first]), *rest}) == len(rest) + len(first.records)


def test_client_credentials_renew_themselves_in_the_middle(org):
    for number in range(1, 401):
        org.contact(number)
    authorization = OAuth2(f"{org.url}/services/oauth2/token", "client", Secret("geheim"), None)
    reading = source(org, authorization).changes("")
    first = next(reading)
    org.token = "00Drenewed"
    assert 400 == len(customers([first, *reading]))
    assert (2, "client_credentials") == (org.tokens_given, org.calls[0].form["grant_type"])


def test_the_calls_of_a_day_that_are_used_up_end_the_reading(org):
    org.faults.append(
        Answer(403, [{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}])
    )
    with pytest.raises(SourceUnavailable, match="used up") as caught:
        list(source(org).changes(""))
    assert caught.value.retry_after > 3_000


@pytest.mark.parametrize("external_id", ["", "Shop_Id__c"])
@pytest.mark.parametrize("many", [False, True])
def test_fields_are_written_back_and_each_row_has_an_outcome(org, external_id, many, monkeypatch):
    if many:
        monkeypatch.setattr("kiki.engage.crm.salesforce.BULK_FROM", 100)
        assert salesforce_bulk.BULK_FROM == 2_000
    for number in range(1, 451):
        org.contact(number, Shop_Id__c=f"c-{number}")
    names = [one["Shop_Id__c"] if external_id else one["Id"] for one in org.contacts.values()]
    org.row_errors[names[7]] = ["DUPLICATES_DETECTED"]
    outcomes = source(org, external_id=external_id).upsert({name: {"kiki_churn": "high"} for name in names})
    assert (449, "conflict") == (sum(one.is_done for one in outcomes.values()), outcomes[names[7]].code)
    churn = [one.get("kiki_churn__c") for one in org.contacts.values()]
    assert (449, 450) == (churn.count("high"), len(churn))
    assert len(org.jobs) == many


def test_a_locked_row_is_tried_again_and_a_duplicate_is_not(org):
    for number in (1, 2):
        org.contact(number)
    locked, double = org.contacts
    org.row_errors = {locked: ["UNABLE_TO_LOCK_ROW"] * 2, double: ["DUPLICATES_DETECTED"] * 2}
    outcomes = source(org).upsert({locked: {"kiki_churn": "x"}, double: {"kiki_churn": "x"}})
    assert (Fate.DONE, Fate.REFUSED, 3) == (outcomes[locked].fate, outcomes[double].fate, len(org.calls))
    assert "salesforce: DUPLICATES_DETECTED" == outcomes[double].message


def test_a_write_that_was_not_answered_is_unknown(org):
    org.contact(1)
    [name] = org.contacts
    org.faults.append(Fault.SERVER_ERROR_AFTER_TAKING)
    assert Fate.UNKNOWN is source(org).upsert({name: {"kiki_churn": "x"}})[name].fate


def test_tags_are_topics_and_are_added(org):
    org.contact(1, Shop_Id__c="c-1")
    [name] = org.contacts
    org.topics.append((name, "vip"))
    assert source(org, external_id="Shop_Id__c").tag("c-1", ["tea", "vip"]).is_done
    assert [(name, "vip"), (name, "tea")] == org.topics
    assert "not_found" == source(org, external_id="Shop_Id__c").tag("c-2' OR Id != '", ["tea"]).code


def test_check_says_which_field_is_missing(org):
    assert () == source(org, external_id="Shop_Id__c").check()
    problems = source(org, fields={"total_spend": "Nope__c"}, external_id="LTV__c").check()
    assert ("Contact has no field Nope__c", "LTV__c is no external id of Contact") == problems


class Loopback(HTTPAdapter):
    """Salesforce's kit writes https into every address; the fake speaks plain HTTP."""

    def send(self, request, **options):
        request.url = request.url.replace("https://", "http://")
        return super().send(request, **options)


def test_the_kit_drives_the_fake(org):
    for number in range(1, 451):
        org.contact(number, Shop_Id__c=f"c-{number}")
    with requests.Session() as session:
        session.mount("https://", Loopback())
        kit = Salesforce(instance_url=org.url, session_id=TOKEN, version="66.0", session=session)
        assert 450 == kit.query_all("SELECT Id, Email FROM Contact")["totalSize"]
        assert 450 == len(list(kit.query_all_iter("SELECT Id, Email FROM Contact")))
        results = kit.restful(
            "composite/sobjects/Contact/Shop_Id__c",
            method="PATCH",
            json={
                "allOrNone": False,
                "records": [{"attributes": {"type": "Contact"}, "Shop_Id__c": "c-1", "LTV__c": 5}],
            },
        )
        [job] = kit.bulk2.Contact.upsert(
            records=[{"Shop_Id__c": "c-2", "kiki_churn__c": "high"}], external_id_field="Shop_Id__c", wait=0
        )
        pages = list(kit.bulk2.Contact.query("SELECT Id, Email FROM Contact", wait=0))
    assert (True, 5) == (results[0]["success"], org.contacts["003000000000001AAA"]["LTV__c"])
    assert ("high", 1) == (org.contacts["003000000000002AAA"]["kiki_churn__c"], job["numberRecordsProcessed"])
    assert "c450@example.com" in pages[0]
