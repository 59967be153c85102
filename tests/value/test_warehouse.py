"""The summary in the warehouse is the summary in memory, on any log."""

from __future__ import annotations

from datetime import date, timedelta

import ibis
import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value.order_columns import OrderColumns
from kiki.value.order_log import read_orders
from kiki.value.purchases import COLUMNS, summarise
from kiki.value.warehouse import (
    groups_expression,
    groups_in,
    last_day,
    purchases_expression,
    purchases_in,
    require_sound,
    scored_expression,
    unmatched_refunds,
)

# Ibis 12 speaks to DuckDB 2 in a way that DuckDB has announced to drop.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

FIRST = date(2024, 1, 1)
IDS = ("007", "7", "é,😀", "b", "B", "_")
LINES = st.lists(
    st.tuples(
        st.sampled_from(IDS),
        st.integers(0, 40),
        st.sampled_from([0.0, 0.01, 1.0, 2.5, 19.99, -0.01, -1.0, -2.5, -19.99]),
        st.sampled_from(["a", "b", None]),
    ),
    min_size=1,
    max_size=40,
)
WITH_IDS = OrderColumns(order="invoice")


def frame_of(lines):
    return pd.DataFrame(
        {
            "customer_id": pd.Series([line[0] for line in lines], dtype="str"),
            "date": pd.to_datetime([FIRST + timedelta(days=line[1]) for line in lines]),
            "amount": np.array([line[2] for line in lines], dtype=np.float64),
            "invoice": pd.Series([line[3] for line in lines], dtype="str"),
        }
    )


def random_log(seed, size=3000):
    chance = np.random.default_rng(seed)
    amounts = [0.0, 1.0, 2.5, 19.99, 5.0, -1.0, -2.5, -19.99]
    return [
        (
            f"{chance.integers(300):04}",
            int(chance.integers(400)),
            float(chance.choice(amounts)),
            "ab"[chance.integers(2)],
        )
        for _ in range(size)
    ]


def require_same(expected, actual):
    for name in COLUMNS:
        assert getattr(expected, name).tolist() == getattr(actual, name).tolist(), name
    assert expected.fingerprint == actual.fingerprint


def table_of(connection, frame):
    """Through DuckDB itself: Ibis 12 cannot create a table in DuckDB 2."""
    connection.con.register("lines", pa.Table.from_pandas(frame, preserve_index=False))
    connection.con.execute("CREATE OR REPLACE TABLE log AS SELECT * FROM lines")
    return connection.table("log")


@pytest.fixture(scope="module")
def connection():
    backend = ibis.duckdb.connect()
    yield backend
    backend.disconnect()


@settings(max_examples=30)
@given(LINES, st.integers(0, 45), st.booleans())
def test_duckdb_gives_the_purchases_of_memory(connection, lines, end, with_ids):
    columns = WITH_IDS if with_ids else OrderColumns()
    frame, cut = frame_of(lines), FIRST + timedelta(days=end)
    log = table_of(connection, frame)
    try:
        expected = summarise(read_orders(frame, columns=columns), cut)
    except InvalidInput:
        with pytest.raises(InvalidInput, match="nobody bought"):
            purchases_in(log, cut, columns=columns)
        return
    require_same(expected, purchases_in(log, cut, columns=columns))


@pytest.mark.parametrize("with_ids", [False, True])
def test_a_log_with_a_few_refunds_and_many_lines_a_day_gives_the_purchases_of_memory(connection, with_ids):
    columns = WITH_IDS if with_ids else OrderColumns()
    chance = np.random.default_rng(11)
    lines = [
        (customer, day, abs(amount) if int(customer) % 9 else amount, invoice)
        for customer, day, amount, invoice in random_log(11)
        for _ in range(chance.integers(1, 4))
    ]
    frame, cut = frame_of(lines), FIRST + timedelta(days=350)
    log = table_of(connection, frame)
    require_same(summarise(read_orders(frame, columns=columns), cut), purchases_in(log, cut, columns=columns))


def test_a_price_beside_a_quantity_is_the_price_of_one(connection):
    frame = frame_of(random_log(13)).assign(quantity=3.0).rename(columns={"amount": "price"})
    cut = FIRST + timedelta(days=350)
    expected = summarise(read_orders(frame), cut)
    require_same(expected, purchases_in(table_of(connection, frame), cut))
    assert (
        expected.sum_amount.sum() > 2.9 * summarise(read_orders(frame.drop(columns="quantity")), cut).sum_amount.sum()
    )


@pytest.mark.parametrize("with_ids", [False, True])
def test_unmatched_refunds_are_those_of_memory(connection, with_ids):
    columns = WITH_IDS if with_ids else OrderColumns()
    frame = frame_of(random_log(5))
    orders = read_orders(frame, columns=columns)
    log = table_of(connection, frame)
    found = unmatched_refunds(log, date(2026, 1, 1), columns=columns).to_pyarrow().to_pandas()
    rows = frame.iloc[orders.unmatched - 1]
    assert len(rows) == found["lines"].sum()
    days = (rows["date"] - pd.Timestamp(0)).dt.days
    assert sorted(set(zip(rows["customer_id"], days, strict=True))) == sorted(
        set(zip(found["customer"], found["day"], strict=True))
    )


@pytest.mark.parametrize("with_ids", [False, True])
def test_postgresql_gives_the_purchases_of_memory(postgres, with_ids):
    columns = WITH_IDS if with_ids else OrderColumns()
    frame, cut = frame_of([*random_log(7), *((name, 3, 1.0, None) for name in IDS)]), FIRST + timedelta(days=300)
    with psycopg.connect(postgres) as session:
        session.execute("CREATE TABLE log (customer_id text, date date, amount numeric(12, 2), invoice text)")
        with session.cursor().copy("COPY log FROM STDIN") as copy:
            for customer, moment, amount, invoice in frame.itertuples(index=False):
                copy.write_row((customer, moment.date(), amount, invoice if isinstance(invoice, str) else None))
    backend = ibis.connect(postgres)
    try:
        log = backend.table("log")
        expected = summarise(read_orders(frame, columns=columns), cut)
        require_same(expected, purchases_in(log, cut, columns=columns))
        assert expected.grouped()[0].x.size == groups_in(log, cut, columns=columns).x.size
    finally:
        backend.disconnect()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PySpark uses what pandas 3 calls deprecated
def test_spark_gives_the_purchases_of_memory():
    spark = pytest.importorskip("pyspark.sql", reason="pyspark is not installed")
    # A small log in a process that does not live long: one partition instead of two hundred, and no second compiler.
    quick = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    options = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.driver.extraJavaOptions": quick,
    }
    session = spark.SparkSession.builder.master("local[1]").config(map=options).getOrCreate()
    try:
        frame, cut = frame_of(random_log(9, 500)), FIRST + timedelta(days=300)
        backend = ibis.pyspark.connect(session)
        session.createDataFrame(frame).createOrReplaceTempView("log")
        log = backend.table("log")
        require_same(summarise(read_orders(frame), cut), purchases_in(log, cut))
    finally:
        session.stop()


def test_groups_and_scores_come_from_the_summary(connection):
    frame, cut = frame_of(random_log(3)), FIRST + timedelta(days=399)
    log = table_of(connection, frame)
    expected = summarise(read_orders(frame), cut)
    groups = groups_in(log, cut)
    mine, _ = expected.grouped()
    assert sorted(zip(*map(np.ndarray.tolist, mine), strict=True)) == sorted(
        zip(*map(np.ndarray.tolist, groups), strict=True)
    )
    summary = purchases_expression(log, cut)
    scores = (
        groups_expression(summary)
        .to_pyarrow()
        .to_pandas()
        .assign(expected=lambda row: row["x"] * 2.0)
        .drop(columns="customers")
    )
    scored = scored_expression(summary, scores).to_pyarrow().to_pandas().sort_values("ids")
    assert (expected.x * 2.0).tolist() == scored["expected"].tolist()
    with pytest.raises(InvalidInput, match="no column T"):
        scored_expression(summary, scores.drop(columns="T"))


def test_a_parquet_file_is_a_table_too(tmp_path, connection):
    frame, cut = frame_of(random_log(4)), FIRST + timedelta(days=200)
    path = tmp_path / "log.parquet"
    pq.write_table(pa.Table.from_pandas(frame), path)
    log = connection.read_parquet(path)
    assert FIRST + timedelta(days=399) == last_day(log)
    require_same(summarise(read_orders(path), cut), purchases_in(log, cut))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"amount": [1.0, float("nan")]}, "1 lines have no amount", id="NaN"),
        pytest.param({"date": pd.to_datetime(["2024-01-01", None])}, "1 lines have no date", id="no date"),
        pytest.param({"date": pd.to_datetime(["2024-01-01", "2090-01-01"])}, "in the future", id="future"),
        pytest.param({"currency": ["EUR", "USD"]}, "'EUR' and in 'USD'", id="mixed currencies"),
        pytest.param({"customer_id": ["", None]}, "empty", id="nobody"),
        pytest.param({"date": pd.to_datetime(["2024-01-01"] * 2, utc=True)}, "with a time zone", id="aware"),
        pytest.param({"date": [1, 2]}, "a date is a date", id="a date that is a number"),
    ],
)
def test_what_cannot_be_used_is_refused(connection, change, said):
    good = {"customer_id": ["1", "2"], "date": pd.to_datetime(["2024-01-01"] * 2), "amount": [1.0, 2.0]}
    log = table_of(connection, pd.DataFrame(good | change))
    with pytest.raises(InvalidInput, match=said):
        require_sound(log, until=date(2026, 1, 1))
