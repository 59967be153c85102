"""Order logs from files and tables: what is read, what is said, what is refused with its rows."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value import order_files, order_lines, order_log
from kiki.value.order_columns import OrderColumns
from kiki.value.order_log import read_orders
from kiki.value.purchases import summarise

UNTIL = date(2026, 6, 30)


@pytest.fixture(params=["arrow", "pandas"])
def engine(request, monkeypatch):
    if request.param == "pandas":
        for module in (order_log, order_lines):
            monkeypatch.setattr(module, "ARROW", False)
    return request.param


def lines_of(orders):
    days = orders.as_of(10**6)
    return [
        (orders.ids[customer], str(np.datetime64(int(day), "D")), amount)
        for customer, day, amount in zip(*days, strict=True)
    ]


def written(tmp_path, text, name="log.csv"):
    path = tmp_path / name
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


LOG = 'customer_id,date,cds,amount\n007,2026-01-02,1,11.77\n7,2026-01-02,1,5\n"é,😀",2026-02-01,2,0.00\n007,2026-01-02,3,0.23\n'
EXPECTED = [("007", "2026-01-02", 12_000_000), ("7", "2026-01-02", 5_000_000), ("é,😀", "2026-02-01", 0)]


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "LOG.CSV.GZ"])
def test_a_csv_is_read(engine, tmp_path, name):
    if name == "LOG.CSV.GZ":
        path = tmp_path / name
        path.write_bytes(gzip.compress(LOG.encode()))
    else:
        path = written(tmp_path, LOG, name)
    told = []
    orders = read_orders(path, until=UNTIL, progress=lambda done, total: told.append((done, total)))
    assert EXPECTED == lines_of(orders)
    assert (path.stat().st_size,) * 2 == told[-1]
    assert "customers are read from column 'customer_id'" in orders.notes


@pytest.mark.parametrize(
    "text",
    [
        LOG.replace("\n", "\r\n"), LOG.replace("\n", "\r"), "\ufeff" + LOG.replace("\n", "\r").rstrip(), "\ufeff" + LOG, LOG + "\n\n",
        LOG.replace(",date", ", Date ").replace("cds", "CDs "),
    ],
    ids=["CRLF", "CR", "BOM and CR", "BOM", "blank lines", "names with spaces"],
)  # fmt: skip
def test_csv_files_as_people_save_them(tmp_path, text):
    assert EXPECTED == lines_of(read_orders(written(tmp_path, text), until=UNTIL))


def test_semicolons_and_tabs_separate_too(tmp_path):
    for sign in ";\t":
        path = written(tmp_path, f"id{sign}day{sign}total\n1{sign}20260102{sign}2.5\n")
        assert [("1", "2026-01-02", 2_500_000)] == lines_of(read_orders(path, until=UNTIL))


def test_parquet_and_table_are_read_alike(engine, tmp_path):
    frame = pd.DataFrame(
        {
            "customer": ["007", "7", "é,😀", "007"],
            "when": pd.to_datetime(["2026-01-02 23:59", "2026-01-02 00:00", "2026-02-01 00:00", "2026-01-02 00:00"]),
            "amount": [11.77, 5, 0, 0.23],
        }
    )
    frame.to_parquet(tmp_path / "log.parquet")
    for source in (tmp_path / "log.parquet", frame, frame.set_index(np.array([5, 5, 1, 2]))):
        assert EXPECTED == lines_of(read_orders(source, columns=OrderColumns(date="when"), until=UNTIL))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["1", "01", "b", "B", "é", "_"]),
            st.integers(0, 60),
            st.integers(-500, 2000),
            st.sampled_from("xyz"),
        ),
        min_size=1,
        max_size=50,
    ),
    st.booleans(),
)
def test_arrow_and_pandas_give_identical_orders(rows, with_ids):
    frame = pd.DataFrame(rows, columns=["customer", "day", "cents", "invoice"])
    frame = frame.assign(
        date=pd.Timestamp("2026-01-01") + pd.to_timedelta(frame["day"], unit="D"), amount=frame["cents"] / 100
    )
    columns = OrderColumns(date="date", order="invoice" if with_ids else None)
    first = read_orders(frame, columns=columns, until=UNTIL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_log, "ARROW", False)
        patch.setattr(order_lines, "ARROW", False)
        second = read_orders(frame, columns=columns, until=UNTIL)
    assert lines_of(first) == lines_of(second)
    assert (first.notes, first.unmatched.tolist()) == (second.notes, second.unmatched.tolist())


def result_of(source, *, arrow=True, **options):
    """What is read, or what is said: by Arrow, or by pandas alone."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (order_log, order_lines):
            patch.setattr(module, "ARROW", arrow)
        try:
            orders = read_orders(source, until=UNTIL, **options)
        except InvalidInput as refused:
            return str(refused)
        return lines_of(orders), orders.notes, orders.unmatched.tolist()


IDS = (
    st.lists(st.text(max_size=9), min_size=1, max_size=6).filter(any)
    | st.lists(st.text("0123456789", min_size=8, max_size=8), min_size=1, max_size=6)
    | st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=6)
)


@given(IDS, st.randoms(use_true_random=False))
def test_ids_of_any_text_are_told_apart_and_sorted_by_code_point(ids, chance):
    lines = [(chance.choice(ids), chance.randrange(20000, 20010), chance.randrange(-3, 9)) for _ in range(40)]
    frame = pd.DataFrame(lines, columns=["id", "day", "amount"]).assign(
        date=lambda table: table["day"].to_numpy().astype("datetime64[D]").astype("datetime64[s]")
    )
    columns = OrderColumns(date="date")
    quick = result_of(frame, columns=columns)
    assert quick == result_of(frame, columns=columns, arrow=False)
    if not isinstance(quick, str):
        found = [line[0] for line in quick[0]]
        assert found == sorted(found)
        assert {str(line[0]) for line in lines if line[2] >= 0 and line[0] != ""} >= set(found)


@given(
    st.lists(
        st.sampled_from(["1", "b", ",", '"', "\n", "\r\n", "2026-01-02", ",2026-01-02 10:00,", "-5", "é"]), max_size=30
    )
)
def test_any_csv_is_read_or_refused_by_arrow_as_by_pandas(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("logs") / "log.csv"
    path.write_text("id,date,amount\n1,2026-01-01,3\n" + "".join(parts), encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_files, "_PIECE_BYTES", 20)
        quick, slow = result_of(path), result_of(path, arrow=False)
        assert quick == slow or (isinstance(quick, str) and isinstance(slow, str))


def test_a_quote_that_nobody_closes_is_refused(engine, tmp_path):
    path = written(tmp_path, LOG + '7,2026-03-01,1,5\n"7,2026-03-01,1,5\n')
    with pytest.raises(InvalidInput, match="not a table of equal lines"):
        read_orders(path, until=UNTIL)


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-01-31", "UTC", "2026-01-31"),
        ("20260131", "UTC", "2026-01-31"),
        ("2026/01/31 10:00", "UTC", "2026-01-31"),
        ("2026-01-31T23:30:00.123456", "Asia/Tokyo", "2026-01-31"),
        ("2026-01-31T23:30:00Z", "Asia/Tokyo", "2026-02-01"),
        ("2026-01-31 23:30:00-05:00", "UTC", "2026-02-01"),
        ("2026-01-31T01:30+0200", "UTC", "2026-01-30"),
    ],
)
def test_dates_as_text(tmp_path, text, zone, expected):
    path = written(tmp_path, f"id,date,amount\n1,{text},5\n")
    assert [("1", expected, 5_000_000)] == lines_of(read_orders(path, tz=zone, until=UNTIL))


def test_two_columns_of_a_name_are_refused_when_they_matter(engine, tmp_path):
    for head in ("id,date,amount,amount", 'id,date,amount,"amount"', '"the\nid",date,amount,amount'):
        path = written(tmp_path, f"{head}\n1,2026-01-31,5,6\n")
        with pytest.raises(InvalidInput, match="there are 2 columns 'amount'; give each a name of its own"):
            read_orders(path, columns=OrderColumns(customer=head.split(",")[0].strip('"')), until=UNTIL)
    path = written(tmp_path, "id,note,date,note,amount,,\n1,a,2026-01-31,b,5,c,d\n")
    assert [("1", "2026-01-31", 5_000_000)] == lines_of(read_orders(path, until=UNTIL))


def test_columns_of_other_types():
    moment = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
    for dates, amounts, ids in (
        (pd.to_datetime([moment]), [Decimal("1.10")], [17850.0]),
        ([moment], ["1.10"], [17850]),
        ([date(2026, 2, 1)], np.array([1.1]), pd.Categorical(["17850"])),
        ([20260201], pd.array([1.1], dtype="Float64"), ["17850"]),
    ):
        frame = pd.DataFrame({"id": ids, "date": dates, "amount": amounts})
        assert [("17850", "2026-02-01", 1_100_000)] == lines_of(read_orders(frame, tz="Asia/Tokyo", until=UNTIL))


def test_a_price_beside_a_quantity_is_the_price_of_one(engine, tmp_path):
    text = "Invoice,Quantity,InvoiceDate,{price},Customer ID,Country\n1,6,2025-12-01 08:26:00,2.55,17850.0,UK\n1,2,2025-12-01 08:26:00,1,17850.0,UK\n"
    for name in ("Price", "UnitPrice"):
        path = written(tmp_path, text.format(price=name) + "C2,-6,2025-12-02 08:30:00,2.55,17850.0,UK\n")
        orders = read_orders(path, until=UNTIL)
        assert [("17850.0", "2025-12-01", 2_000_000)] == lines_of(orders)
        assert any("times 'Quantity'" in note for note in orders.notes)
        alone = read_orders(path, columns=OrderColumns(amount=name), until=UNTIL)
        assert [("17850.0", "2025-12-01", 3_550_000), ("17850.0", "2025-12-02", 2_550_000)] == lines_of(alone)
    with pytest.raises(InvalidInput, match="no column looks like the amount"):
        read_orders(written(tmp_path, "id,date,unit_price\n1,2026-01-01,5\n"), until=UNTIL)
    with pytest.raises(InvalidInput, match=r"an amount is a decimal number.*row 1"):
        read_orders(written(tmp_path, "id,date,price,quantity\n1,2026-01-01,5,some\n"), until=UNTIL)


def test_refunds_without_an_order_are_named_with_their_rows(engine, tmp_path):
    path = written(tmp_path, "id,date,amount\nb,2026-01-05,9\na,2026-01-03,-4\na,2026-01-01,3\nb,2026-01-06,-9.01\n")
    orders = read_orders(path, until=UNTIL)
    assert [("a", "2026-01-01", 3_000_000), ("b", "2026-01-05", 9_000_000)] == lines_of(orders)
    assert [2, 4] == orders.unmatched.tolist()
    assert "2 refunds have no order they could belong to and are not counted: rows 2, 4" in orders.notes


def test_lines_without_a_customer_are_left_out_and_said(tmp_path):
    orders = read_orders(written(tmp_path, "id,date,amount\n,2026-01-05,9\na,2026-01-03,4\n"), until=UNTIL)
    assert [("a", "2026-01-03", 4_000_000)] == lines_of(orders)
    assert "1 lines without a customer are left out: row 1" in orders.notes


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        pytest.param(
            "1,05.01.2026,5,EUR", "a date is written as .*row 2 \\('05.01.2026'\\)", id="date of another form"
        ),
        pytest.param("1,2026-02-30,5,EUR", "a date is written as .*row 2", id="no such day"),
        pytest.param("1,,5,EUR", "a date is written as .*row 2", id="no date"),
        pytest.param("1,2026-07-01,5,EUR", "in the future: row 2", id="future"),
        pytest.param("1,1001-07-01,5,EUR", "before 1900: row 2", id="a slip of the year"),
        pytest.param("1,2026-01-01,nan,EUR", "an amount is a decimal number.*row 2", id="NaN"),
        pytest.param("1,2026-01-01,inf,EUR", "an amount is a decimal number.*row 2", id="infinity"),
        pytest.param("1,2026-01-01,,EUR", "an amount is a decimal number.*row 2", id="no amount"),
        pytest.param("1,2026-01-01,1e12,EUR", "an amount is a decimal number.*row 2", id="huge"),
        pytest.param("1,2026-01-01,$5,EUR", "an amount is a decimal number.*row 2 \\('\\$5'\\)", id="with a sign"),
        pytest.param("1,2026-01-01,5,USD", "began in 'EUR': row 2 \\('USD'\\)", id="mixed currencies"),
        pytest.param("1,2026-01-01,5,EUR,6", "not a table of equal lines", id="a field too many"),
    ],
)
def test_bad_lines_are_named_with_their_row(tmp_path, rows, said):
    path = written(tmp_path, f"id,date,amount,currency\n1,2026-01-01,5,eur\n{rows}\n")
    with pytest.raises(InvalidInput, match=said):
        read_orders(path, until=UNTIL)


def test_every_kind_of_mistake_is_said_at_once(tmp_path):
    path = written(tmp_path, "id,date,amount\n" + "1,tomorrow,much\n" * 12)
    with pytest.raises(InvalidInput, match=r"(?s)row 10 \('tomorrow'\) and 2 more.*row 10 \('much'\) and 2 more"):
        read_orders(path, until=UNTIL)


def test_rows_are_counted_across_stretches(tmp_path, monkeypatch):
    monkeypatch.setattr(order_files, "_CHUNK_ROWS", 2)
    monkeypatch.setattr(order_files, "_PIECE_BYTES", 50)
    text = "id,date,amount,currency\n" + "1,2026-01-01,5,EUR\n" * 4
    assert [("1", "2026-01-01", 20_000_000)] == lines_of(read_orders(written(tmp_path, text), until=UNTIL))
    with pytest.raises(InvalidInput, match="row 5"):
        read_orders(written(tmp_path, text + "1,x,5,EUR\n"), until=UNTIL)
    with pytest.raises(InvalidInput, match=r"row 5 .*'USD'"):
        read_orders(written(tmp_path, text + "1,2026-01-01,5,USD\n"), until=UNTIL)


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (b"", "log.csv", "empty"),
        (b"", "log.csv.gz", "empty"),
        (b"id,date,amount\n", "log.csv", "the order log is empty"),
        (b"id,date\n1,2", "log.csv", "no column looks like the amount"),
        (b"id,date,amount\n\xff,2026-01-01,5\n", "log.csv", "not UTF-8"),
        (b"x", "log.xlsx", "ends in .csv"),
        (b"x", "log.parquet", "no whole Parquet"),
    ],
)
def test_files_that_are_no_log_are_refused(tmp_path, data, name, said):
    with pytest.raises(InvalidInput, match=said):
        read_orders(written(tmp_path, data, name), until=UNTIL)


def test_broken_gzip_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "log.csv.gz"
    for data in (b"no gzip", gzip.compress(LOG.encode() * 500)[:-20]):
        path.write_bytes(data)
        with pytest.raises(InvalidInput, match="no whole gzip"):
            read_orders(path, until=UNTIL)
    with pytest.raises(InvalidInput, match="there is no file"):
        read_orders(Path("nowhere.csv"))


def test_a_line_without_an_end_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(order_files, "LINE_BYTES_MAX", 100_000)
    monkeypatch.setattr(order_files, "_PIECE_BYTES", 10_000)
    path = tmp_path / "log.csv.gz"
    for before in ("", LOG.partition("\n")[0] + "\n", LOG):
        path.write_bytes(gzip.compress(before.encode() + bytes(1_000_000)))
        with pytest.raises(InvalidInput, match="more than 100,000 bytes"):
            read_orders(path, until=UNTIL)


def test_an_empty_table_and_wrong_options_are_refused():
    frame = pd.DataFrame({"id": ["1"], "date": ["2026-01-01"], "amount": [1.0], "currency": ["EUR"]})
    with pytest.raises(InvalidInput, match="empty"):
        read_orders(frame.iloc[:0])
    with pytest.raises(InvalidInput, match="not a time zone"):
        read_orders(frame, tz="Mars/Phobos")
    with pytest.raises(InvalidInput, match="the log is in 'EUR', not in 'USD'"):
        read_orders(frame, currency="USD")
    with pytest.raises(InvalidInput, match="no column 'who'"):
        read_orders(frame, columns=OrderColumns(customer="who"))
    assert "EUR" == summarise(read_orders(frame, currency="eur", until=UNTIL)).currency


def test_today_is_the_last_day_by_default():
    tomorrow = datetime.now(UTC).date() + timedelta(days=2)
    with pytest.raises(InvalidInput, match="future"):
        read_orders(pd.DataFrame({"id": ["1"], "date": [str(tomorrow)], "amount": [1.0]}))


def test_the_first_customer_of_cdnow_has_the_published_summary(engine, tmp_path):
    """Fader and Hardie's 1/10 sample, customer 0001: x 2, t_x 30.43, T 38.86 weeks, zbar 22.35."""
    text = "master_id,customer_id,date,cds,amount\n"
    text += "00004,0001,1997-01-01,2,29.33\n00004,0001,1997-01-18,2,29.73\n"
    text += "00004,0001,1997-08-02,1,14.96\n00004,0001,1997-12-12,2,26.48\n"
    summary = summarise(read_orders(written(tmp_path, text, "cdnow.csv.gz")), date(1997, 9, 30))
    assert (["0001"], [2]) == (summary.ids.tolist(), summary.x.tolist())
    assert (30.43, 38.86) == (round(summary.tx[0] / 7, 2), round(summary.T[0] / 7, 2))
    assert [22.345] == summary.mean_amount_repeat.tolist()
