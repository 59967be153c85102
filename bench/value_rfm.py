"""Five million order lines to a summary, against DuckDB on the same source: the plain part by hand, and all of it. Same run, in turn."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
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
ROUNDS = 5

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
    """Of the fourth call in a row: the first ones pay for memory that was never used, to which this machine's host adds pages slowly."""
    for _ in range(3):
        call()
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    call()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    return _Times(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _write_sources(folder: Path) -> None:
    """The same log as tables of a DuckDB file, as Parquet and as CSV, and once with refunds."""
    log = _log()
    log.to_parquet(folder / "log.parquet", index=False)
    log.assign(date=log["date"].dt.strftime("%Y-%m-%d")).to_csv(folder / "log.csv", index=False)
    refunded = log.assign(amount=np.where(np.arange(LINES) % 50 == 0, -log["amount"], log["amount"]))
    refunded.to_parquet(folder / "refunded.parquet", index=False)
    with duckdb.connect(str(folder / "log.duckdb")) as connection:
        for name in ("log", "refunded"):
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM '{folder / name}.parquet'")


def _subject(name: str, folder: Path) -> Callable[[], object]:
    """What is measured, with everything made ready."""
    source, what = name.split()
    parquet, csv = folder / "log.parquet", folder / "log.csv"
    if source in {"table", "refunds"}:
        backend = ibis.duckdb.connect(folder / "log.duckdb", read_only=True)
        table = backend.table("log" if source == "table" else "refunded")
        queries = {"bare": BARE, "distinct": DISTINCT, "same": SAME}
        if what in queries:
            return _duck(backend.con, queries[what], "log")
        if what == "here":
            return lambda: purchases_in(table, END)
        if what == "written":
            return lambda: backend.compile(purchases_expression(table, END))
        summary = purchases_expression(table, END)
        return _duck(backend.con, str(backend.compile(_four(summary) if what == "four" else summary)), "log")
    if what == "bare":
        connection = duckdb.connect()
        if source == "frame":
            connection.register("frame", pd.read_parquet(parquet))
        return _duck(connection, BARE, {"frame": "frame", "parquet": f"'{parquet}'", "csv": f"'{csv}'"}[source])
    if source == "frame":
        frame = pd.read_parquet(parquet if what == "kiki" else folder / "refunded.parquet")
        return lambda: summarise(read_orders(frame, until=END), END)
    return lambda: summarise(read_orders({"parquet": parquet, "csv": csv}[source], until=END), END)


def _duck(connection: Any, query: str, source: str) -> Callable[[], object]:
    text = query.replace("{source}", source)
    return lambda: connection.sql(text).to_arrow_table()


_SUBJECTS = (
    *("table bare", "table distinct", "table same", "table four", "table kiki", "table written", "table here"),
    *("refunds kiki", "frame bare", "frame kiki", "frame refunds", "parquet bare", "parquet kiki", "csv bare"),
    "csv kiki",
)


def run() -> list[Row]:
    """Medians of a few rounds, everybody in turn and each time in a process of its own: none finds another's memory."""
    found: dict[str, list[_Times]] = {name: [] for name in _SUBJECTS}
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        _write_sources(Path(folder))
        for _ in range(ROUNDS):
            for name in _SUBJECTS:
                child = [sys.executable, "-m", "bench.value_rfm", name, folder]
                wall, cpu, peak = json.loads(subprocess.run(child, check=True, capture_output=True).stdout)
                found[name].append(_Times(wall, cpu))
                peaks[name] = max(peaks.get(name, 0.0), peak)
    middle = {
        name: _Times(*(statistics.median(column) for column in zip(*times, strict=True)))
        for name, times in found.items()
    }

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
        Row("Ibis writes the SQL of it, whatever the log's length", f"{middle['table written'].wall:.2f} s"),
        ours("kiki: the same checked, sorted and brought to Python; of the four", "table here", "table bare", None),
        ours("kiki: with every fiftieth line a refund; of the four", "refunds kiki", "table bare", None),
        bare("a DataFrame", "frame bare"),
        ours("kiki, a DataFrame: every line checked, all columns", "frame kiki", "frame bare"),
        ours("the same with every fiftieth line a refund", "frame refunds", "frame bare", None),
        bare("Parquet", "parquet bare"),
        ours("kiki, Parquet", "parquet kiki", "parquet bare"),
        bare("CSV", "csv bare"),
        ours("kiki, CSV", "csv kiki", "csv bare"),
        Row(
            "peak of a process that reads the CSV, the Parquet file",
            f"{peaks['csv kiki']:.0f}, {peaks['parquet kiki']:.0f} MB",
        ),
    ]


if __name__ == "__main__":
    measured = _times(_subject(sys.argv[1], Path(sys.argv[2])))
    print(json.dumps([*measured, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
