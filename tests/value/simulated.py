"""Logs whose truth is known: purchases by a Poisson process until a moment of dropout, counted in days."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kiki.value.groups import Groups

Draw = Callable[[np.random.Generator, int], np.ndarray]


def gamma(shape: float, rate: float) -> Draw:
    """Rates a week, or of dropout a week, that differ between customers."""
    return lambda chance, n: chance.gamma(shape, 1 / rate, n)


def same(value: float) -> Draw:
    """One value for everybody."""
    return lambda _, n: np.full(n, value)


def groups(customers: int, rate: Draw, dropout: Draw, *, days: int = 364, seed: int = 1) -> Groups:
    """Customers who came at any time in the first half of the calibration; a `dropout` of 0 is for ever."""
    chance = np.random.default_rng(seed)
    age = chance.integers(days // 2, days, customers)
    leaving = dropout(chance, customers) / 7
    life = np.minimum(chance.exponential(1, customers) / np.maximum(leaving, 1e-12), age)
    x = chance.poisson(rate(chance, customers) / 7 * life)
    last = np.ceil(life * chance.random(customers) ** (1 / np.maximum(x, 1)))
    return Groups.collapse(x, np.where(x > 0, np.minimum(last, age), 0), age)[0]
