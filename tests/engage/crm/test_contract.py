"""What every source does, whatever it speaks to; and that no answer of a provider, however mad, is more than an error of ours."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from kiki.engage.crm.csv_file import CsvSource
from kiki.engage.crm.hubspot import HubSpotSource
from kiki.engage.crm.postgres import PostgresSource
from kiki.engage.crm.salesforce import SalesforceSource
from kiki.engage.crm.shopify import ShopifySource
from kiki.engage.source import Source
from kiki.errors import InvalidInput, KikiError
from kiki.outbound.oauth import FixedToken
from kiki.outbound.outcome import Outcome
from kiki.settings import Secret
from tests.engage.fakes import hubspot, salesforce, shopify
from tests.engage.fakes.service import Answer, FakeService

CUSTOMERS = 2_300


@dataclass
class Subject:
    """A source over `CUSTOMERS` customers who never bought; how its customers are called, and what was written back."""

    open: Callable[[], Source]
    customer: str
    """The first one's id."""
    written: Callable[[], tuple[str | None, set[str]]]
    """The first one's field `kiki_churn`, and the tags, of which one was there before where the system has any."""


def idle(_seconds: float) -> None:
    """No waiting in tests."""


@contextlib.contextmanager
def shopify_subject(bulk: bool) -> Iterator[Subject]:
    with shopify.FakeShopify(speed=10_000) as shop:
        shop.polls_until_done = 0
        for number in range(1, CUSTOMERS + 1):
            shop.customer(number, f"2026-09-{1 + number % 28:02d}T10:00:00Z", tags=["before"])
        first = "gid://shopify/Customer/1"

        def written():
            return shop.fields.get((first, "kiki", "kiki_churn")), set(shop.customers[first]["tags"])

        def opened():
            return shop.closing(ShopifySource("tea", Secret(shopify.TOKEN), base_url=shop.url, bulk=bulk, sleep=idle))

        yield Subject(opened, "1", written)


@contextlib.contextmanager
def hubspot_subject() -> Iterator[Subject]:
    with hubspot.FakeHubSpot() as portal:
        for number in range(1, CUSTOMERS + 1):
            portal.contact(number, 1_790_000_000_000 + number // 4, kiki_tags="before")

        def written():
            one = portal.contacts["1"]
            return one.get("kiki_churn"), set(one["kiki_tags"].split(";"))

        def opened():
            return portal.closing(
                HubSpotSource(Secret(hubspot.TOKEN), base_url=portal.url, per_minute=1_000_000, sleep=idle)
            )

        yield Subject(opened, "1", written)


@contextlib.contextmanager
def salesforce_subject(bulk: bool) -> Iterator[Subject]:
    with salesforce.FakeSalesforce(page=500) as org:
        for number in range(1, CUSTOMERS + 1):
            org.contact(number, f"2026-01-{1 + number % 28:02d}T00:00:00.000+0000")
        first = next(iter(org.contacts))
        org.topics.append((first, "before"))

        def written():
            return org.contacts[first].get("kiki_churn__c"), {topic for who, topic in org.topics if who == first}

        def opened():
            return org.closing(SalesforceSource(org.url, FixedToken(Secret(salesforce.TOKEN)), bulk=bulk, sleep=idle))

        yield Subject(opened, first, written)


@contextlib.contextmanager
def csv_subject(folder) -> Iterator[Subject]:
    rows = "".join(f"c-{number},c{number}@example.com\n" for number in range(1, CUSTOMERS + 1))
    (folder / "customers.csv").write_text(f"customer,email\n{rows}")

    def written():
        with (folder / "customers.kiki.csv").open(newline="") as file:
            [one] = (row for row in csv.DictReader(file) if row["customer"] == "c-1")
        return one["kiki_churn"], {*one["kiki_tags"].split(";"), "before"}

    yield Subject(lambda: CsvSource(folder / "customers.csv"), "c-1", written)


@contextlib.contextmanager
def postgres_subject(url: str) -> Iterator[Subject]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS people, kiki_customers")
        connection.execute(
            "CREATE TABLE people AS SELECT 'c-' || n AS customer, timestamptz '2026-01-01' + n / 5 * interval '1 second' "
            f"AS changed_at FROM generate_series(1, {CUSTOMERS}) AS n"
        )

        def written():
            row = connection.execute("SELECT fields->>'kiki_churn', tags FROM kiki_customers").fetchone()
            return row[0], {*row[1], "before"}

        yield Subject(lambda: PostgresSource(Secret(url), "SELECT * FROM people"), "c-1", written)


SUBJECTS: dict[str, Callable[[Any], Any]] = {
    "shopify": lambda _: shopify_subject(bulk=False),
    "shopify-bulk": lambda _: shopify_subject(bulk=True),
    "hubspot": lambda _: hubspot_subject(),
    "salesforce": lambda _: salesforce_subject(bulk=False),
    "salesforce-bulk": lambda _: salesforce_subject(bulk=True),
    "csv": lambda request: csv_subject(request.getfixturevalue("tmp_path")),
    "postgres": lambda request: postgres_subject(request.getfixturevalue("postgres")),
}


@pytest.fixture(params=SUBJECTS)
def subject(request):
    with SUBJECTS[request.param](request) as made:
        yield made


def test_what_every_source_promises(subject):
    # Everything is told once, in pages whose cursors are small, and a purchase that never was is absent.
    pages = list(subject.open().changes(""))
    records = [record for page in pages for record in page.records]
    assert CUSTOMERS == len(records) == len({record.customer for record in records})
    assert {None} == {record.last_purchase for record in records}
    assert all(len(page.cursor) <= 4_000 for page in pages)
    # Nothing is told again that did not change; another source's cursor is refused.
    assert [] == [record for page in subject.open().changes(pages[-1].cursor) for record in page.records]
    with pytest.raises(InvalidInput, match="cursor"):
        list(subject.open().changes("[1]"))
    # What is written back is added to what is there, and writing it again changes nothing.
    source = subject.open()
    for _ in range(2):
        assert {subject.customer: True} == {
            customer: outcome.is_done
            for customer, outcome in source.upsert({subject.customer: {"kiki_churn": "high"}}).items()
        }
        assert source.tag(subject.customer, ["b", "a"]).is_done
    assert ("high", {"a", "b", "before"}) == subject.written()
    source.close()


NONSENSE = (
    b"", b"null", b"[]", b"{}", b'"x"', b"7", b"\xff\xfe", b"<html>", b'{"data": null}', b'{"data": {}}', b'{"data": []}',
    b'{"data": {"page": {"nodes": [{}], "pageInfo": null}}}', b'{"data": {"page": null, "done": null, "node": 7}}',
    b'{"data": {"done": {"bulkOperation": null, "userErrors": null}}}', b'{"data": {"done": []}}',
    b'{"results": [{}]}', b'{"results": [{"id": "1", "properties": {}}]}', b'{"results": null, "errors": 7}',
    b'{"results": [7], "errors": [{"context": 7}]}', b'{"records": [{}], "done": false}', b'{"records": 7}', b'[{"success": 7}]',
    b'{"id": "750", "state": 7}', b'{"errors": 7}', b'{"errors": [7]}', b'{"errors": [{"extensions": 7}]}',
    b"[" * 5_000,
)  # fmt: skip


class Mad(FakeService):
    """Answers everything with the same."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer

    def handle(self, _call) -> Answer:
        return self.answer


class QuickTime:
    """A clock that only sleeping moves, so that patience ends at once."""

    def __init__(self) -> None:
        self.now = 1_795_000_000_000_000

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(max(seconds, 450.0) * 1_000_000)


def opened(kind: str, url: str) -> Source:
    time = QuickTime()
    if kind == "hubspot":
        return HubSpotSource(Secret("t"), base_url=url, per_minute=1_000_000, clock=time, sleep=time.sleep)
    if kind == "salesforce":
        return SalesforceSource(url, FixedToken(Secret("t")), bulk=False, clock=time, sleep=time.sleep)
    if kind == "salesforce-bulk":
        return SalesforceSource(url, FixedToken(Secret("t")), clock=time, sleep=time.sleep, external_id="Shop_Id__c")
    bulk = kind == "shopify-bulk"
    return ShopifySource("tea", Secret("t"), base_url=url, bulk=bulk, webhooks=True, clock=time, sleep=time.sleep)


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("kind", ["shopify", "shopify-bulk", "hubspot", "salesforce", "salesforce-bulk"])
def test_no_answer_is_more_than_an_error_of_ours(kind, status):
    with Mad(Answer(status, b"")) as mad:
        source = mad.closing(opened(kind, mad.url))
        for body in NONSENSE:
            mad.answer = Answer(status, body)
            with contextlib.suppress(KikiError):
                for _, _page in zip(range(3), source.changes(""), strict=False):
                    pass
            with contextlib.suppress(KikiError):
                outcomes = source.upsert({"1": {"kiki_churn": "x"}, "2": {"kiki_churn": "y"}})
                assert {"1", "2"} == set(outcomes)
                assert all(isinstance(one, Outcome) for one in outcomes.values())
            assert isinstance(source.tag("1", ["a"]), Outcome)
            assert all(isinstance(one, str) for one in source.check())
