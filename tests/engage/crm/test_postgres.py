from __future__ import annotations

import psycopg
import pytest

from kiki.clock import SECOND
from kiki.engage.crm.postgres import PostgresSource
from kiki.engage.event import Order, Refund
from kiki.engage.profile import Profile
from kiki.errors import ConfigurationError, SourceUnavailable
from kiki.outbound.outcome import Fate
from kiki.settings import Secret

CUSTOMERS = """
SELECT id AS customer, mail AS email, total AS total_spend, bought AS last_purchase, may_mail AS email_marketing,
       updated AS changed_at
FROM buyers -- all of them, 100 %
"""
ORDERS = "SELECT id, buyer AS customer, placed AS at, amount, back AS refunded, placed AS changed_at FROM sales;"


@pytest.fixture
def shop(postgres):
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS buyers, sales, kiki_customers")
        connection.execute(
            "CREATE TABLE buyers (id bigint, mail text, total numeric, bought timestamptz, may_mail boolean, updated timestamp)"
        )
        connection.execute(
            "CREATE TABLE sales (id int, buyer bigint, placed timestamptz, amount numeric, back numeric)"
        )
        yield connection


def source(postgres, customers=CUSTOMERS, orders=""):
    return PostgresSource(Secret(postgres), customers, orders)


def records(pages):
    return [record for page in pages for record in page.records]


def test_rows_as_records(shop, postgres):
    shop.execute(
        "INSERT INTO buyers VALUES (7, 'ann@example.com', 12.345678901, '2020-01-01 00:00+00', false, '2026-01-01')"
    )
    shop.execute("INSERT INTO buyers VALUES (8, NULL, NULL, NULL, NULL, NULL)")
    shop.execute("INSERT INTO sales VALUES (1, 7, '2020-01-01 00:00+00', 20.50, 5)")
    other, ann, order, refund = records(source(postgres, orders=ORDERS).changes(""))
    assert isinstance(ann, Profile)
    assert ("7", 12_345_679, 1_577_836_800 * SECOND, False) == (
        ann.customer,
        ann.total_spend,
        ann.last_purchase,
        ann.email_marketing,
    )
    # What is absent is absent: no beginning of time, no zero that somebody wrote.
    assert Profile(customer="8") == other
    assert isinstance(order, Order)
    assert isinstance(refund, Refund)
    assert ("postgres:order:1", 20_500_000, 5_000_000, order.id) == (
        order.id,
        order.amount,
        refund.amount,
        refund.order,
    )


def test_no_row_is_left_out_for_its_number_or_its_age(shop, postgres):
    """The original read a thousand buyers of the last 180 days, and nobody it should have won back."""
    shop.execute(
        "INSERT INTO buyers SELECT n, 'c' || n, 1, '2019-01-01', NULL, '2019-01-01'::timestamp + n / 3 * interval '1 second' "
        "FROM generate_series(1, 5432) AS n"
    )
    line = source(postgres)
    pages = list(line.changes(""))
    assert [str(n) for n in range(1, 5433)] == sorted((one.customer for one in records(pages)), key=int)
    assert [] == records(line.changes(pages[-1].cursor))
    shop.execute("UPDATE buyers SET updated = '2026-05-05' WHERE id IN (3, 4000)")
    assert ["3", "4000"] == sorted(one.customer for one in records(line.changes(pages[-1].cursor)))


def test_reading_goes_on_after_any_page(shop, postgres):
    shop.execute("INSERT INTO buyers SELECT n, 'c', 1, NULL, NULL, '2026-01-01' FROM generate_series(1, 3500) AS n")
    told, cursor = [], ""
    while page := next(source(postgres).changes(cursor), None):
        told += [one.customer for one in page.records]
        cursor = page.cursor
    assert [str(n) for n in range(1, 3501)] == sorted(told, key=int)


def test_what_is_young_waits_for_transactions_that_began_before(shop, postgres):
    shop.execute("INSERT INTO buyers VALUES (1, 'a', 1, NULL, NULL, now() AT TIME ZONE 'UTC')")
    assert [] == records(source(postgres).changes(""))


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT id AS customer FROM buyers", "changed_at"),
        ("SELECT id AS customer, mail AS e_mail, updated AS changed_at FROM buyers", "'e_mail' is not known"),
        ("SELEC id FROM buyers", "syntax error"),
        ("SELECT * FROM nowhere", "does not exist"),
        ("DELETE FROM buyers RETURNING id AS customer, updated AS changed_at", "syntax error"),
        (
            "SELECT 1 AS customer, now() AS changed_at) AS x; DROP TABLE buyers; SELECT (1",
            "cannot insert multiple commands",
        ),
    ],
)
def test_a_query_that_cannot_be_used_says_why(shop, postgres, query, problem):
    with pytest.raises(ConfigurationError, match=problem):
        list(source(postgres, query).changes(""))
    assert problem in " ".join(source(postgres, query).check())
    assert 0 == shop.execute("SELECT count(*) FROM buyers").fetchone()[0]


def test_a_row_that_makes_no_sense_is_named_and_shows_nobody(shop, postgres):
    shop.execute("INSERT INTO buyers VALUES (5, 'ann@example.com', -3, NULL, NULL, '2026-01-01')")
    shop.execute("INSERT INTO buyers VALUES (6, 'bob@example.com', 7, NULL, NULL, '2026-01-02')")
    shop.execute("INSERT INTO sales VALUES (1, 5, NULL, 20, 0), (2, 5, '2026-01-01', 20, 0)")
    first, second = source(postgres, orders=ORDERS).changes("")
    assert (
        "customer '5': field total_spend: total_spend is an amount such as 12.34, not below zero",
    ) == first.problems
    assert (["5", "6"], 0) == ([one.customer for one in first.records], first.records[0].total_spend)
    assert (("orders '1': column at: it is empty",), 1) == (second.problems, len(second.records))


def test_a_server_that_is_not_there_is_unavailable_and_no_password_is_shown(shop, postgres):
    line = source("postgresql://kiki:geheim@127.0.0.1:1/shop")
    with pytest.raises(SourceUnavailable) as caught:
        list(line.changes(""))
    assert "geheim" not in str(caught.value)
    assert Fate.REFUSED is line.tag("1", ["a"]).fate


def test_fields_and_tags_are_added_in_a_table_of_ours(shop, postgres):
    line = source(postgres)
    assert all(one.is_done for one in line.upsert({"7": {"kiki_churn": "high"}, "8": {"kiki_churn": "low"}}).values())
    assert line.upsert({"7": {"kiki_segment": "win-back"}})["7"].is_done
    assert line.tag("7", ["b", "a"]).is_done
    assert line.tag("7", ["c", "a"]).is_done
    [kept] = shop.execute("SELECT fields, tags FROM kiki_customers WHERE customer = '7'").fetchall()
    assert ({"kiki_churn": "high", "kiki_segment": "win-back"}, ["a", "b", "c"]) == kept
    assert () == line.check()
