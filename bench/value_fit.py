"""How long a fit takes: transaction model and Gamma-Gamma together, from customers' summaries to standard errors.

lifetimes and PyMC-Marketing are not run here: their seconds are those that were measured for the same work on a machine of the
same kind (two cores, lifetimes 0.11.3, PyMC-Marketing 0.19 by MAP with its functions compiled before). Full CDNOW
is public and not shipped: the variable CDNOW names the folder that has `cdnow_master.csv.gz`.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.measure import Row
from kiki.value import gamma_gamma
from kiki.value.fitting import Fit, fit_count, maximise
from kiki.value.gamma_gamma import Spending
from kiki.value.groups import Groups, Ints
from kiki.value.order_log import read_orders
from kiki.value.purchases import summarise

SAMPLE = Path(__file__).parents[1] / "tests" / "value" / "cdnow_sample_summary_39w_spend.csv"
MILLION = 1_000_000
DAYS = 730
ROUNDS = 5

PEER_SECONDS = {
    ("sample", "bg-nbd"): (0.41, 3.0),
    ("sample", "mbg-nbd"): (0.14, 8.37),
    ("sample", "pareto-nbd"): (0.51, 4.9),
    ("full", "bg-nbd"): (0.32, 3.0),
    ("full", "mbg-nbd"): (0.32, 3.73),
    ("full", "pareto-nbd"): (3.36, 6.2),
}
"""lifetimes and PyMC-Marketing, with Gamma-Gamma. `value_peers` runs them beside kiki and holds the goals."""


class Log(NamedTuple):
    """What a fit begins with, a row a customer; times in days."""

    x: Ints
    tx: Ints
    age: Ints
    orders: Ints
    mean: np.ndarray


def _sample() -> Log:
    _, x, tx, age, mean = np.loadtxt(SAMPLE, delimiter=",", skiprows=1, unpack=True)
    count = x.astype(np.int64)
    return Log(count, np.rint(tx * 7).astype(np.int64), np.rint(age * 7).astype(np.int64), count * (mean > 0), mean)


def _full(folder: Path) -> Log:
    orders = read_orders(folder / "cdnow_master.csv.gz", until=date(1998, 6, 30))
    found = summarise(orders, date(1997, 9, 30))
    return Log(found.x, found.tx, found.T, found.positive_repeats, found.mean_amount_repeat)


def _million() -> Log:
    """Two years of customers who came at any time; shapes of a usual log, amounts to the cent."""
    chance = np.random.default_rng(1)
    age = chance.integers(1, DAYS, MILLION)
    leaving = chance.gamma(0.6, 1 / 14, MILLION) / 7
    life = np.minimum(chance.exponential(1, MILLION) / leaving, age)
    x = chance.poisson(chance.gamma(0.6, 1 / 12, MILLION) / 7 * life)
    last = np.ceil(life * chance.random(MILLION) ** (1 / np.maximum(x, 1))).astype(np.int64)
    shape = 6.25 * np.maximum(x, 1)
    mean = np.round(chance.gamma(shape, 1 / (np.maximum(x, 1) * chance.gamma(3.7, 1 / 15.4, MILLION))), 2)
    return Log(x, np.where(x > 0, np.minimum(last, age), 0), age, x * (mean > 0), mean)


def _fit(log: Log, model: str) -> tuple[Fit, Fit]:
    groups, _ = Groups.collapse(log.x, log.tx, log.age)
    count = fit_count(model, groups).fit
    used = log.orders > 0
    return count, maximise(gamma_gamma, Spending.of(log.orders[used], log.mean[used]))


def _best(call: Callable[[], tuple[Fit, Fit]], rounds: int) -> tuple[tuple[Fit, Fit], float]:
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        found = call()
        best = min(best, time.perf_counter() - start)
    return found, best


def _small(name: str, log: Log) -> list[Row]:
    rows = []
    for model in ("bg-nbd", "mbg-nbd", "pareto-nbd"):
        (count, spend), seconds = _best(lambda model=model: _fit(log, model), ROUNDS)
        peers = PEER_SECONDS.get((name, model))
        slope = max(count.gradient_max, spend.gradient_max)
        figure = f"{seconds * 1000:.1f} ms, largest gradient {slope:.0e} a customer"
        if peers:
            ratios = [peer / seconds for peer in peers]
            figure += f"; lifetimes {peers[0]:g} s = {ratios[0]:.0f}x, PyMC-Marketing {peers[1]:g} s = {ratios[1]:.0f}x (published)"
        rows.append(Row(f"{model} + Gamma-Gamma, CDNOW {name}, {log.x.size:,} customers", figure))
    return rows


def _large(log: Log) -> list[Row]:
    rows = []
    for model in ("bg-nbd", "pareto-nbd"):
        _, seconds = _best(lambda model=model: _fit(log, model), 2)
        rows.append(
            Row(f"{model} + Gamma-Gamma, a million synthetic customers", f"{seconds:.2f} s", "≤ 4 s", seconds <= 4)
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(Row("peak of the process, the million's columns included", f"{peak:.0f} MB", "< 1 GB", peak < 1024))
    return rows


def run() -> list[Row]:
    """Best of a few rounds each."""
    rows = _small("sample", _sample())
    folder = os.environ.get("CDNOW")
    if folder:
        rows += _small("full", _full(Path(folder)))
    else:
        rows.append(Row("CDNOW full: name a folder with cdnow_master.csv.gz in CDNOW", "not measured"))
    return rows + _large(_million())
