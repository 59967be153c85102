"""Files of conversions: what is read of them, and every mistake with its row."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kiki.clock import SECOND, to_iso
from kiki.errors import InvalidInput, UploadError
from kiki.flow.conversion import COLUMNS, CONVERSIONS_MAX, Conversion, check_conversions, parse_at, parse_conversions
from kiki.flow.plan import Plan
from kiki.flow.plan_file import read_conversions, read_plan
from kiki.flow.plan_text import parse_plan
from tests.flow.plans import SPRING

PLAN = parse_plan(SPRING)
HEAD = "order,click,at,value,customer\n"
NOW = round(datetime(2026, 12, 24, tzinfo=UTC).timestamp()) * SECOND


def micros(*moment: int) -> int:
    return round(datetime(*moment, tzinfo=UTC).timestamp()) * SECOND


def read(text: str, plan: Plan = PLAN) -> list[Conversion]:
    return parse_conversions(text, plan, NOW)


def problems(text: str, plan: Plan = PLAN) -> list[str]:
    with pytest.raises(UploadError) as caught:
        read(text, plan)
    return list(caught.value.problems)


def outcome(text: str) -> tuple[list[Conversion], list[str]]:
    try:
        return read(text), []
    except UploadError as error:
        return [], list(error.problems)


def test_a_file_as_a_spreadsheet_writes_it() -> None:
    text = (
        "\ufeffCustomer, Order ,click,at,value\r\n"
        "c-1,1001,gclid-1,2026-12-01T14:03:00-05:00,49.90\r\n"
        '"c,2",1002,gclid-2,2026-12-01 14:03,"$1,249.00"\r\n'
        "\r\n"
        "c-3,1003,gclid-3,2026-12-01T19:03:00.5Z,15 USD\r\n"
        "c-1,1001,gclid-1,2026-12-01T19:03:00Z,49.9\r\n"
    )
    assert [
        Conversion(order="1001", click="gclid-1", at=micros(2026, 12, 1, 19, 3), value=49_900_000, customer="c-1"),
        Conversion(order="1002", click="gclid-2", at=micros(2026, 12, 1, 19, 3), value=1_249_000_000, customer="c,2"),
        Conversion(
            order="1003", click="gclid-3", at=micros(2026, 12, 1, 19, 3) + SECOND // 2, value=15_000_000, customer="c-3"
        ),
    ] == read(text)
    assert [] == read(HEAD)


def test_a_file_with_semicolons_is_the_same() -> None:
    text = HEAD + "1,c-1,2026-12-01T14:03:00-05:00,49.90,c-17\n2,c-2,2026-12-01 18:20,15,c-18\n"
    assert read(text) == read("\ufeff" + text.replace(",", ";").replace("\n", "\r\n"))
    assert 2 == len(read(text))


def test_every_mistake_is_named_with_its_row() -> None:
    text = HEAD + (
        "1,,2026-12-01T14:03:00-05:00,49.905,c-1\n"
        "2,x,2026-12-32 18:20,12o,c-2\n"
        "3,x,2026-12-01 18:20,12,c-3\n"
        "3,x,2026-12-01 18:20,13,c-3\n"
        ",x,2027-01-01 18:20,13,\n"
        "4,x,2026-11-01 01:30,13,c-4\n"
        "5,x,2026-12-01 01:30,13,c-5,more\n"
        "6,x,2026-12-01 01:30,-5,c-6\n"
        "7,x,2026-12-01 01:30,€5,c-7\n"
        f"8,{'x' * 513},1969-12-01 01:30,5,c-8\n"
        f"{'9' * 65},x\ty,2026-12-01,5,*\n"
    )
    said = problems(text)
    assert [2, 3, *range(5, 13)] == sorted({int(each.split()[1].rstrip(":")) for each in said})
    for row, words in (
        (2, "click: it is empty"),
        (2, "value: '49.905' has more decimals than USD"),
        (
            3,
            "at: '2026-12-32 18:20' is not a moment: write 2026-12-01T14:03:00-05:00, or 2026-12-01 14:03 in America/New_York",
        ),
        (3, "value: '12o' is not an amount"),
        (5, "the order of row 4 again, with another value"),
        (6, "order: it is empty"),
        (6, "customer: the customer id is empty"),
        (6, "at: 2027-01-01T23:20:00.000000Z is in the future"),
        (7, "in an hour in which the clocks of America/New_York change"),
        (8, "it has 6 fields, and the first row names 5"),
        (9, "value: '-5' is not an amount"),
        (10, "value: '€5' is not in USD"),
        (11, "click: write 1 to 512 printable characters"),
        (11, "at: it is before 1970"),
        (12, "order: write 1 to 64 printable characters"),
        (12, "click: write 1 to 512 printable characters"),
        (12, "at: '2026-12-01' is not a moment"),
    ):
        assert any(
            each.startswith(f"row {row}: {words}") or (f"row {row}:" in each and words in each) for each in said
        ), words
    assert said == sorted(said, key=lambda each: int(each.split()[1].rstrip(":")))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "row 1: the column 'order' is missing"),
        ("order|click|at|value|customer\n", "row 1: the column 'order|click|at|value|customer' is not known"),
        (HEAD.replace(",", ";") + "1;c;2026-12-01 18:20;1,249;k\n", "row 2: value: '1,249' may be two amounts"),
        ("order,click,at,value,customer,email\n", "row 1: the column 'email' is not known"),
        ("order,click,at,value\n", "row 1: the column 'customer' is missing"),
        ("order,click,at,value,customer,order\n", "row 1: a column stands twice"),
        (HEAD + '1,"x,2026-12-01 18:20,12,c\n', "row 2: this is not CSV, and what follows was not read"),
        ('"order\n', "row 1: this is not CSV"),
    ],
)
def test_what_is_no_such_file_is_said(text: str, words: str) -> None:
    assert problems(text)[0].startswith(words)


def test_too_many_rows_are_refused_with_the_limit() -> None:
    rows = [f"{number},x,2026-12-01 18:20,12,c-{number}\n" for number in range(CONVERSIONS_MAX + 1)]
    assert CONVERSIONS_MAX == len(read(HEAD + "".join(rows[:-1]) + "\n\n"))
    assert [
        f"row {CONVERSIONS_MAX + 2}: there are more than 5000 rows; divide them, for each order is sent once"
    ] == problems(HEAD + "".join(rows))
    assert 101 == len(problems(HEAD + ",,,,\n" + "a,,,\n" * 200))


def test_other_currencies_and_zones_are_the_plan_s() -> None:
    plan = parse_plan(
        SPRING.replace("USD", "JPY")
        .replace("$", "")
        .replace("America/New_York", "Asia/Tokyo")
        .replace(".00", "")
        .replace("1.20", "120")
    )
    (found,) = read(HEAD + "1,x,2026-12-01 09:00,1500,c\n", plan)
    assert (micros(2026, 12, 1, 0, 0), 1_500_000_000) == (found.at, found.value)
    assert "has more decimals than JPY: 0" in problems(HEAD + "1,x,2026-12-01 09:00,15.5,c\n", plan)[0]


def test_what_a_program_made_is_checked_alike() -> None:
    good = Conversion(order="1", click="x", at=NOW, value=1, customer="c")
    assert [good] == check_conversions([good, good], NOW)
    bad = [good, Conversion(order="1", click="y", at=NOW + 1, value=0, customer="")]
    with pytest.raises(UploadError) as caught:
        check_conversions(bad, NOW)
    assert [
        "row 2: customer: the customer id is empty: name who it is about",
        "row 2: at: 2026-12-24T00:00:00.000001Z is in the future",
        "row 2: value: it is not a positive amount",
        "row 2: the order of row 1 again, with another click and at and value and customer",
    ] == list(caught.value.problems)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(HEAD.encode() + b"\xe9")
    (tmp_path / "large").write_bytes(b"x" * (4 * 1024 * 1024 + 1))
    for name, words in (
        ("latin", "latin:2: the file is not UTF-8"),
        ("large", "at most 4194304 bytes"),
        ("none", "No such file"),
    ):
        with pytest.raises(UploadError, match=words):
            read_conversions(tmp_path / name, PLAN, NOW)


def test_what_is_no_path_is_refused_in_words() -> None:
    with pytest.raises(InvalidInput, match="a plan is named by its path, and this is of the type int"):
        read_plan(5)  # type: ignore[arg-type]


def test_clocks_that_change_need_an_offset() -> None:
    zone = "America/New_York"
    for text in ("2026-11-01 01:30", "2026-03-08 02:30:59"):
        with pytest.raises(InvalidInput, match="write its offset"):
            parse_at(text, zone)
    assert micros(2026, 11, 1, 5, 30) == parse_at("2026-11-01T01:30:00-04:00", zone)
    assert micros(2026, 11, 1, 7, 0) == parse_at("2026-11-01 02:00", zone)
    with pytest.raises(InvalidInput):
        parse_at("0001-01-01 00:00", "Asia/Tokyo")


FIELD = st.text(max_size=20) | st.sampled_from(
    [
        "1",
        "c-1",
        "2026-12-01 09:00",
        "2026-12-01T09:00:00Z",
        "12.50",
        "$1,000.00",
        "9999-12-31 23:59",
        "",
        "'",
        '"',
        "\0",
        "=1+1",
    ]
)


@given(
    st.text(max_size=300)
    | st.lists(st.lists(FIELD, min_size=4, max_size=6), max_size=5).map(
        lambda rows: HEAD + "\n".join(",".join(row) for row in rows)
    )
)
@example(HEAD + "1,x,0001-01-01 00:00,1,c")
@example(HEAD + "1,x,9999-12-31 23:59,1,c")
def test_any_text_is_read_or_refused(text: str) -> None:
    found, said = outcome(text)
    assert all(each.startswith(("row ", "and ")) for each in said)
    assert len(found) == len({each.order for each in found})
    assert all(each.order and each.click and each.customer for each in found)
    assert all(0 <= each.at <= NOW and each.value > 0 for each in found)


PRINTABLE = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=30).filter(lambda text: text != "*")


@given(
    st.lists(
        st.builds(
            Conversion,
            order=PRINTABLE,
            click=PRINTABLE,
            at=st.integers(0, NOW),
            value=st.integers(1, 10**9).map(lambda cents: cents * 10_000),
            customer=PRINTABLE,
        ),
        unique_by=lambda each: each.order,
        max_size=5,
    )
)
def test_what_is_written_is_read_again(given: list[Conversion]) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for each in given:
        cents = each.value // 10_000
        writer.writerow([each.order, each.click, to_iso(each.at), f"{cents // 100}.{cents % 100:02}", each.customer])
    assert given == read(out.getvalue())
