"""A million customers of two years: means, and everything with intervals, for one model and for all that auto may add."""

from __future__ import annotations

import resource
import time
from datetime import date

import numpy as np

from bench.measure import Row
from kiki.money import MICROS
from kiki.value.conformal import PROBABILITIES, STRATA, Recalibration
from kiki.value.mixture import Mixture
from kiki.value.prediction import Level, Predictive, predict
from kiki.value.purchases import COLUMNS, Purchases
from kiki.value.spend import fit_spend

CUSTOMERS = 1_000_000
HORIZON = 39.0
PARETO = np.array([0.553, 10.578, 0.606, 11.669])
ONE = Mixture.of("pareto-nbd", PARETO)
SEVERAL = Mixture(
    (
        ("pareto-nbd", PARETO, 0.5),
        ("mbg-nbd", np.array([0.525, 6.183, 0.891, 1.614]), 0.3),
        ("bg-nbd", np.array([0.243, 4.414, 0.793, 2.426]), 0.2),
    )
)


def _purchases(chance: np.random.Generator) -> Purchases:
    """Pareto/NBD and Gamma-Gamma as fitted to CDNOW, in days."""
    age = chance.integers(1, 731, CUSTOMERS)
    life = np.minimum(chance.exponential(7 / chance.gamma(0.606, 1 / 11.669, CUSTOMERS)), age)
    x = chance.poisson(chance.gamma(0.553, 1 / 10.578, CUSTOMERS) / 7 * life)
    last = np.minimum(np.ceil(life * chance.random(CUSTOMERS) ** (1 / np.maximum(x, 1))), age).astype(np.int64)
    x = np.minimum(x, last)
    nu = chance.gamma(3.744, 1 / 15.443, CUSTOMERS)
    cents = [np.rint(100 * chance.gamma(6.25 * orders, 1 / nu)) for orders in (1, np.maximum(x, 1))]
    columns = {name: np.zeros(CUSTOMERS, dtype=np.int64) for name in COLUMNS} | {
        "ids": np.array([f"{place:07}" for place in range(CUSTOMERS)], dtype=object),
        "x": x,
        "tx": np.where(x > 0, last, 0),
        "T": age,
        "first_micros": (np.maximum(cents[0], 1) * (MICROS // 100)).astype(np.int64),
        "repeat_micros": np.where(x > 0, np.maximum(cents[1], 1) * (MICROS // 100), 0).astype(np.int64),
        "positive_repeats": x,
    }
    return Purchases(**columns, calibration_end=date(2025, 6, 30))


def run() -> list[Row]:
    chance = np.random.default_rng(3)
    purchases = _purchases(chance)
    start = time.perf_counter()
    spend = fit_spend(purchases, "map")
    fitted = time.perf_counter() - start
    factor = np.exp(chance.normal(0, 0.3, CUSTOMERS))
    same = np.tile(PROBABILITIES, (len(STRATA), 1))
    recalibration = Recalibration({"purchases": same, "revenue": same}, np.full(len(STRATA), 1000))
    rows = [Row("spend with first orders: fit", f"{fitted:.2f} s")]
    for name, mixture, more, read in (
        ("Pareto/NBD", ONE, {}, None),
        ("three models, own factors", SEVERAL, {"factor": factor}, None),
        (
            "three models, own factors, level, drift, recalibration",
            SEVERAL,
            {"factor": factor, "level": Level(1.1, 0.1), "drift": 0.004},
            recalibration,
        ),
    ):
        start = time.perf_counter()
        whole = Predictive(mixture, spend, purchases, HORIZON, **more)
        whole.mean("purchases"), whole.mean("revenue")
        means = time.perf_counter() - start
        start = time.perf_counter()
        predict(whole, recalibration=read)
        everything = time.perf_counter() - start
        rows += [
            Row(f"{name}: means", f"{means:.2f} s", "≤ 1 s", means <= 1),
            Row(f"{name}: medians and 80/90/95 intervals", f"{everything:.1f} s", "≤ 20 s", everything <= 20),
        ]
        del whole
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(Row("peak of the process, the customers included", f"{peak:.0f} MB", "< 1,000 MB", peak < 1000))
    return rows
