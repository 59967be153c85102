"""Scores in batches are the scores of everybody at once, and never half of them."""

from __future__ import annotations

from datetime import date

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kiki.errors import InvalidInput
from kiki.value.orders import Orders
from kiki.value.purchases import COLUMNS, summarise
from kiki.value.score_stream import score_stream, summary_batches, summary_table
from kiki.value.warehouse import purchases_expression

END = date(2021, 6, 30)


def score(purchases):
    return {"expected": purchases.x / np.maximum(purchases.T, 1), "spent": purchases.sum_amount}


@pytest.fixture
def purchases():
    chance = np.random.default_rng(1)
    ids = np.array(sorted({f"{number:03}" for number in range(200)} | {"a,b", "😀"}), dtype=object)
    lines = 2000
    day = 18_600 + chance.integers(0, 200, lines)
    return summarise(
        Orders.of_lines(ids, chance.integers(0, ids.size, lines), day, chance.integers(0, 10**8, lines)), END
    )


@pytest.fixture
def summary(purchases, tmp_path):
    path = tmp_path / "summary.parquet"
    pq.write_table(summary_table(purchases), path)
    return path


def test_batches_give_what_everybody_at_once_gives(purchases, summary, tmp_path):
    told = []
    target = tmp_path / "scores.parquet"
    count = score_stream(
        summary_batches(summary, batch_rows=30), target, score, calibration_end=END, progress=told.append
    )
    table = pq.read_table(target)
    assert len(purchases) == count == told[-1]
    assert 7 == len(told)
    assert purchases.ids.tolist() == table["customer_id"].to_pylist()
    for name, values in score(purchases).items():
        assert values.tolist() == table[name].to_pylist()


@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
def test_a_summary_that_the_warehouse_wrote_is_scored(tmp_path):
    log = pa.table(
        {"customer": ["1", "1", "2"], "date": ["2021-01-01", "2021-02-01", "2021-03-01"], "amount": [1.0, 2.0, 3.0]}
    )
    pq.write_table(log, tmp_path / "log.parquet")
    backend = ibis.duckdb.connect()
    try:
        expression = purchases_expression(backend.read_parquet(tmp_path / "log.parquet"), END)
        summary, target = tmp_path / "summary.parquet", tmp_path / "scores.parquet"
        expression.to_parquet(summary)
        assert 2 == score_stream(summary_batches(summary), target, score, calibration_end=END)
        assert {("1", 3.0), ("2", 3.0)} == {
            (row["customer_id"], row["spent"]) for row in pq.read_table(target).to_pylist()
        }
    finally:
        backend.disconnect()


def test_a_failure_leaves_what_was_there(summary, tmp_path):
    target = tmp_path / "scores.parquet"
    target.write_bytes(b"before")
    calls = []

    def fail_later(purchases):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return score(purchases)

    with pytest.raises(OSError, match="No space"):
        score_stream(summary_batches(summary, batch_rows=30), target, fail_later, calibration_end=END)
    assert b"before" == target.read_bytes()
    assert {"scores.parquet", "summary.parquet"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("tx", 10_000, "0 ≤ x ≤ tx ≤ T"),
        ("x", -1, "0 ≤ x ≤ tx ≤ T"),
        ("x", None, "no gaps"),
        ("x", 0.5, "whole numbers"),
    ],
)
def test_an_impossible_history_is_refused(purchases, tmp_path, column, value, said):
    table = summary_table(purchases)
    values = [value, *table[column].to_pylist()[1:]]
    path = tmp_path / "bad.parquet"
    pq.write_table(table.set_column(COLUMNS.index(column), column, pa.array(values)), path)
    with pytest.raises(InvalidInput, match=said):
        score_stream(summary_batches(path), tmp_path / "scores.parquet", score, calibration_end=END)
    assert not (tmp_path / "scores.parquet").exists()


def test_what_is_no_summary_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    with pytest.raises(InvalidInput, match="no file"):
        list(summary_batches(path))
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(InvalidInput, match="no whole Parquet"):
        list(summary_batches(path))
    pq.write_table(pa.table({"ids": ["1"]}), path)
    with pytest.raises(InvalidInput, match="lacks x"):
        list(summary_batches(path))
    with pytest.raises(InvalidInput, match="no customers"):
        score_stream([], tmp_path / "scores.parquet", score, calibration_end=END)
