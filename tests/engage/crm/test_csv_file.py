from __future__ import annotations

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.engage.crm.csv_file import CsvSource
from kiki.engage.crm.field_map import parse_field_map
from kiki.engage.moment import optional_moment, parse_moment, write_moment
from kiki.errors import ConfigurationError, InvalidInput, SourceUnavailable

CUSTOMERS = """customer,email,first_name,total_spend,last_purchase,email_marketing,tags
c-1,ann@example.com,Ann,120.50,2026-01-05,no,vip;tea
c-2,bob@example.com,Bob,,,,
"""
ORDERS = """id,customer,at,amount,currency,margin,code,refunded
9,c-1,2026-01-05T10:00:00+01:00,20.50,CHF,8.20,BACK,5.00
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "customers.csv").write_text(CUSTOMERS)
    (tmp_path / "orders.csv").write_text(ORDERS)
    return tmp_path


def source(place):
    return CsvSource(place / "customers.csv", place / "orders.csv")


def records(pages):
    return [record for page in pages for record in page.records]


def test_files_as_records(place):
    ann, bob, order, refund = records(source(place).changes(""))
    assert (120_500_000, False, ("tea", "vip")) == (ann.total_spend, ann.email_marketing, ann.tags)
    assert ("c-2", None, None, 0) == (bob.customer, bob.last_purchase, bob.email_marketing, bob.total_spend)
    assert ("csv:order:9", 20_500_000, 8_200_000, "BACK") == (order.id, order.amount, order.margin, order.code)
    assert (5_000_000, order.id, "csv:refund:9") == (refund.amount, refund.order, refund.id)


def test_a_file_that_did_not_change_tells_nothing(place):
    *_, last = source(place).changes("")
    assert [] == records(source(place).changes(last.cursor))
    (place / "orders.csv").write_text(ORDERS + "10,c-2,2026-02-05,1.00,CHF,,,\n")
    assert {"csv:order:9", "csv:refund:9", "csv:order:10"} == {
        one.id for one in records(source(place).changes(last.cursor))
    }


def test_reading_goes_on_after_any_page(place):
    rows = "".join(f"c-{number},c{number}@example.com,,,,,\n" for number in range(3, 3_003))
    (place / "customers.csv").write_text(CUSTOMERS + rows)
    told, cursor = [], ""
    while page := next(source(place).changes(cursor), None):
        told += page.records
        cursor = page.cursor
    assert 3_002 + 2 == len(told)
    assert 3_002 == len({one.customer for one in told[:3_002]})


def test_every_mistake_is_told_with_its_line_before_any_record(place):
    (place / "customers.csv").write_text(
        CUSTOMERS
        + 'c-3,x,x,minus one,2026-13-05,,\nc-1,x,x,1,,,\n,x,x,1,,,\nc-4,x\n"c-5\nc-6",x,x,1.234567890123,01.02.2026,,\n'
    )
    with pytest.raises(ConfigurationError) as caught:
        next(source(place).changes(""))
    text = str(caught.value)
    for said in (
        "line 4: field total_spend",
        "line 5: customer 'c-1' stands in line 2",
        "line 6: column customer",
        "line 7: it has another number of columns",
        "line 9: field last_purchase",
    ):
        assert said in text
    assert source(place).check() == caught.value.problems


def test_a_header_that_is_not_ours_gets_the_list(place):
    (place / "customers.csv").write_text("id;mail\n1;x\n")
    with pytest.raises(ConfigurationError, match="column customer is missing") as caught:
        list(source(place).changes(""))
    assert "'mail' is not known: there are customer, changed_at, email" in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'customer\n"open', b""])
def test_what_is_no_csv_says_so(place, content):
    (place / "customers.csv").write_bytes(content)
    with pytest.raises(ConfigurationError):
        list(source(place).changes(""))


def test_a_file_that_is_not_there(place):
    (place / "orders.csv").unlink()
    with pytest.raises(SourceUnavailable, match=r"orders\.csv: No such file"):
        list(source(place).changes(""))


def test_what_nobody_would_hear_is_said_with_its_row(place):
    (place / "customers.csv").write_text(
        "customer,zone,country,last_purchase,last_engagement\n"
        "c-1,Mars/Base,Austria,2099-01-01,2026-01-01\n"
        "c-2,Europe/Vienna,at,2026-01-01,\n"
    )
    (place / "orders.csv").write_text(
        "id,customer,at,amount,refunded,refunded_at\n1,c-1,2099-01-01,1,,\n2,c-1,2026-01-01,1,1,2099-01-01\n"
    )
    with pytest.raises(ConfigurationError) as error:
        records(source(place).changes(""))
    assert [
        "customers.csv, line 2: column zone: no time zone of the IANA list: write it as Europe/Vienna",
        "customers.csv, line 2: column country: no code of two letters: write it as AT",
        "customers.csv, line 2: column last_purchase: it lies in the future",
        "orders.csv, line 2: column at: it lies in the future",
        "orders.csv, line 3: column refunded_at: it lies in the future",
    ] == [problem.removeprefix(f"{place}/") for problem in error.value.problems]
    assert error.value.problems[0].startswith(f"{place}/customers.csv, line 2")


def test_what_is_written_back_stands_beside_the_file(place):
    line = source(place)
    assert line.upsert({"c-1": {"kiki_churn": "high"}, "c-2": {"kiki_churn": "low"}})["c-2"].is_done
    assert line.upsert({"c-1": {"kiki_segment": "win, back"}})["c-1"].is_done
    assert line.tag("c-1", ["b", "a"]).is_done
    assert line.tag("c-1", ["c"]).is_done
    with (place / "customers.kiki.csv").open(newline="") as file:
        kept = {row["customer"]: row for row in csv.DictReader(file)}
    assert ("high", "win, back", "a;b;c", "low") == (
        kept["c-1"]["kiki_churn"],
        kept["c-1"]["kiki_segment"],
        kept["c-1"]["kiki_tags"],
        kept["c-2"]["kiki_churn"],
    )
    assert CUSTOMERS == (place / "customers.csv").read_text()


def test_a_map_of_fields_says_all_that_is_wrong():
    assert {"total_spend": "LTV__c", "last_purchase": "Last_Order__c"} == parse_field_map(
        "total_spend=LTV__c, last_purchase = Last_Order__c"
    )
    with pytest.raises(ValueError, match=r"'ltv' is no field.*'a b' is no name"):
        parse_field_map("ltv=x,segment=a b")


@given(st.integers(0, 4_000_000_000_000_000))
def test_moments_survive_their_text(micros):
    assert micros == parse_moment(write_moment(micros)) == parse_moment(write_moment(micros, zone="+0000"))


@pytest.mark.parametrize(
    "text", ["2026-11-22T10:00:00", "22.11.2026", "2026-02-30", "", "1790000000", "2026-11-22T25:00:00Z"]
)
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(InvalidInput):
        parse_moment(text)


def test_the_zero_time_of_other_programs_is_absent():
    assert (None, None, None) == tuple(map(optional_moment, (None, "", "0001-01-01T00:00:00Z")))
