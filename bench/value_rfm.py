"""Five million order lines to a summary, against DuckDB on the same source: the plain part by hand, and all of it. Same run, in turn."""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import ibis
import numpy as np
import pandas as pd

from bench.measure import Row
from kiki.value.order_log import read_orders
from kiki.value.purchases import summarise
from kiki.value.warehouse import purchases_expression, purchases_in

LINES = 5_000_000
CUSTOMERS = 698_415
DAYS = 730
FIRST = date(2024, 1, 1)
END = FIRST + timedelta(days=DAYS - 1)
ROUNDS = 4

BARE = f"""
WITH days AS (SELECT customer_id, date::DATE AS day, sum(amount) AS amount FROM {{source}} GROUP BY 1, 2)
SELECT customer_id, count(*) - 1 AS x, max(day) - min(day) AS tx, DATE '{END}' - min(day) AS t, avg(amount) AS mean
FROM days GROUP BY 1
"""

DISTINCT = f"""
SELECT customer_id, count(DISTINCT date::DATE) - 1 AS x, max(date::DATE) - min(date::DATE) AS tx,
  DATE '{END}' - min(date::DATE) AS t, sum(amount) AS spend FROM {{source}} GROUP BY 1
"""
"""Another way to write the plain part."""


SAME = f"""
WITH days AS (
  SELECT customer_id, date::DATE AS day, sum(floor(amount * 1e6 + 0.5)::BIGINT) AS amount FROM {{source}} GROUP BY 1, 2
), gaps AS (SELECT *, day - lag(day) OVER (PARTITION BY customer_id ORDER BY day) AS gap FROM days)
SELECT customer_id, count(gap) AS x, max(day) - min(day) AS tx, DATE '{END}' - min(day) AS t,
  arg_min(amount, day) AS first, sum(amount) - arg_min(amount, day) AS repeat, count(*) FILTER (amount = 0) AS free,
  count(*) FILTER (amount > 0) AS paid, sum(ln(gap)) AS log_gaps,
  count(*) FILTER (day > DATE '{END}' - 28) AS last_4, count(*) FILTER (day > DATE '{END}' - 91) AS last_13,
  count(*) FILTER (day > DATE '{END}' - 182) AS last_26
FROM gaps GROUP BY 1
"""
"""The columns of Purchases, by hand and without the rules about refunds."""


def _log() -> pd.DataFrame:
    chance = np.random.default_rng(1)
    weight = chance.gamma(0.6, 1, CUSTOMERS)
    more = chance.choice(CUSTOMERS, LINES - CUSTOMERS, p=weight / weight.sum())
    customer = chance.permutation(np.concatenate([np.arange(CUSTOMERS), more]))
    names = np.array([f"{number:08}" for number in range(CUSTOMERS)], dtype=object)
    day = np.datetime64(FIRST, "D") + chance.integers(0, DAYS, LINES)
    amount = np.round(chance.gamma(2, 15, LINES), 2)
    return pd.DataFrame(
        {"customer_id": pd.array(names[customer], dtype="str"), "date": day.astype("datetime64[s]"), "amount": amount}
    )


def _four(summary: ibis.Table) -> ibis.Table:
    """The plain part of our expression: the warehouse leaves out what nobody asks for, as it does in `BARE`."""
    micros = summary.first_micros + summary.repeat_micros
    return summary.select("ids", "x", "tx", "T", mean=micros / 1e6 / (summary.x + 1))


class _Times(NamedTuple):
    wall: float
    cpu: float


def _times(call: Callable[[], object]) -> _Times:
    """Of the second call in a row: the first one pays for memory that DuckDB's pool keeps and the system takes back from others."""
    call()
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    call()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    return _Times(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _subjects(log: pd.DataFrame, folder: Path) -> dict[str, Callable[[], object]]:
    backend = ibis.duckdb.connect()
    connection = backend.con
    connection.register("frame", log)
    connection.execute("CREATE TABLE log AS SELECT * FROM frame")
    refunded = log.assign(amount=np.where(np.arange(LINES) % 50 == 0, -log["amount"], log["amount"]))
    connection.register("refunded_frame", refunded)
    connection.execute("CREATE TABLE refunded AS SELECT * FROM refunded_frame")
    parquet, csv = folder / "log.parquet", folder / "log.csv"
    log.to_parquet(parquet, index=False)
    log.assign(date=log["date"].dt.strftime("%Y-%m-%d")).to_csv(csv, index=False)

    def duck(query: str, source: str) -> Callable[[], object]:
        return lambda: connection.sql(query.format(source=source)).to_arrow_table()

    def kiki(source: pd.DataFrame | Path) -> Callable[[], object]:
        return lambda: summarise(read_orders(source, until=END), END)

    return {
        "table bare": duck(BARE, "log"),
        "table distinct": duck(DISTINCT, "log"),
        "table same": duck(SAME, "log"),
        "table kiki": purchases_expression(backend.table("log"), END).to_pyarrow,
        "table four": _four(purchases_expression(backend.table("log"), END)).to_pyarrow,
        "table here": lambda: purchases_in(backend.table("log"), END),
        "refunds kiki": purchases_expression(backend.table("refunded"), END).to_pyarrow,
        "frame bare": duck(BARE, "frame"),
        "frame kiki": kiki(log),
        "refunds frame": kiki(refunded),
        "parquet bare": duck(BARE, f"'{parquet}'"),
        "parquet kiki": kiki(parquet),
        "csv bare": duck(BARE, f"'{csv}'"),
        "csv kiki": kiki(csv),
    }


def run() -> list[Row]:
    """Medians of a few rounds, everybody in turn."""
    log = _log()
    with tempfile.TemporaryDirectory() as folder:
        subjects = _subjects(log, Path(folder))
        found: dict[str, list[_Times]] = {name: [] for name in subjects}
        for _ in range(ROUNDS):
            for name, call in subjects.items():
                found[name].append(_times(call))
    middle = {
        name: _Times(*(statistics.median(column) for column in zip(*times, strict=True)))
        for name, times in found.items()
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def bare(what: str, name: str) -> Row:
        return Row(f"bare DuckDB, {what}", f"{middle[name].wall:.2f} s, CPU {middle[name].cpu:.2f} s")

    def ours(what: str, name: str, against: str, goal: float | None = 1.5) -> Row:
        it, other = middle[name], middle[against]
        said = f"{it.wall:.2f} s, CPU {it.cpu:.2f} s: {it.wall / other.wall:.2f}x, CPU {it.cpu / other.cpu:.2f}x"
        if goal is None:
            return Row(what, said)
        return Row(what, said, f"≤ {goal}x", it.wall <= goal * other.wall)

    return [
        bare("a table: x, tx, T, mean of 5 M lines, 698,415 customers", "table bare"),
        bare("a table: the same by count(DISTINCT)", "table distinct"),
        bare("a table: all columns of Purchases by hand, without refunds", "table same"),
        ours("kiki, a table of DuckDB: the four columns of its expression, refunds", "table four", "table bare"),
        ours("the same, of the four by count(DISTINCT)", "table four", "table distinct"),
        ours("kiki: all columns of its expression, refunds; of all columns by hand", "table kiki", "table same"),
        ours("the same, of the four columns", "table kiki", "table bare", None),
        ours("kiki: the same checked, sorted and brought to Python; of the four", "table here", "table bare", None),
        ours("kiki: with every fiftieth line a refund; of the four", "refunds kiki", "table bare", None),
        bare("a DataFrame", "frame bare"),
        ours("kiki, a DataFrame: every line checked, all columns", "frame kiki", "frame bare"),
        ours("the same with every fiftieth line a refund", "refunds frame", "frame bare", None),
        bare("Parquet", "parquet bare"),
        ours("kiki, Parquet", "parquet kiki", "parquet bare"),
        bare("CSV", "csv bare"),
        ours("kiki, CSV", "csv kiki", "csv bare"),
        Row("peak of the process, all logs included", f"{peak:.0f} MB"),
    ]
