"""Customers made up column by column, for what takes `Purchases`."""

from __future__ import annotations

from datetime import date

import numpy as np

from kiki.money import MICROS
from kiki.value.purchases import COLUMNS, Purchases


def customers(x, tx, age, first=10.0, repeats=0.0, positive=None, free=0, unit="week") -> Purchases:
    """Histories in days, with the first order and the sum of the repeat ones in the currency."""
    n = np.atleast_1d(np.asarray(x, dtype=np.int64))

    def column(values):
        return np.broadcast_to(np.asarray(values), n.shape)

    known = {
        "ids": np.array([f"c{place:06}" for place in range(n.size)], dtype=object),
        "x": n,
        "tx": column(tx).astype(np.int64),
        "T": column(age).astype(np.int64),
        "first_micros": np.rint(column(first) * MICROS).astype(np.int64),
        "repeat_micros": np.rint(column(repeats) * MICROS).astype(np.int64),
        "positive_repeats": n if positive is None else column(positive).astype(np.int64),
        "zero_orders": column(free).astype(np.int64),
    }
    none = {name: np.zeros(n.size, dtype=np.int64) for name in COLUMNS if name not in known}
    return Purchases(**known, **none, calibration_end=date(2025, 6, 30), unit=unit)


def drawn(n: int, seed: int = 1, **truth: float) -> Purchases:
    """Customers whose repeat orders are drawn from Gamma-Gamma with p, q, v; a year old, frequency negative binomial.

    `first` multiplies first orders, `power` is how v grows with 1 + x, `free` is the chance that an order is free.
    """
    p, q, v = truth["p"], truth["q"], truth["v"]
    chance = np.random.default_rng(seed)
    x = np.minimum(chance.negative_binomial(0.6, 0.2, n), 300)
    nu = chance.gamma(q, 1 / (v * (1.0 + x) ** truth.get("power", 0.0)))
    paid = chance.binomial(x, 1 - truth.get("free", 0.0))
    first_paid = chance.random(n) >= truth.get("free", 0.0)
    first = np.where(first_paid, chance.gamma(p, 1 / nu) * truth.get("first", 1.0), 0.0)
    repeats = np.where(paid > 0, chance.gamma(p * np.maximum(paid, 1), 1 / nu), 0.0)
    return customers(x, np.where(x > 0, 350, 0), 364, first, repeats, paid, x - paid + ~first_paid)
