"""What a forecast has to beat: everybody's past rate, and the formula that this system began with. Pure.

Both are points without a distribution: the same figure stands for mean and median, and for both ends of every interval.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from kiki.value.evaluation import LEVELS, Metrics, actual, measure
from kiki.value.groups import DAYS_PER_UNIT, Floats
from kiki.value.purchases import Outcomes, Purchases

NAMES: Final = ("naive", "heuristic")


class PointForecast(NamedTuple):
    """One figure for each customer."""

    purchases: Floats
    revenue: Floats
    """In the currency."""


def naive(purchases: Purchases, horizon: float) -> PointForecast:
    """Everybody goes on as before: repeat purchases and repeat spend by time since the first purchase, times `horizon` units."""
    days = horizon * DAYS_PER_UNIT[purchases.unit]
    share = days / np.maximum(purchases.T, 1)
    return PointForecast(purchases.x * share, purchases.sum_amount_repeat * share)


def heuristic(purchases: Purchases) -> PointForecast:
    """The original's formula: spend x 1.2 x (1 + 0.8 x engagement) x 0.95, whatever the horizon.

    It was fed by hand; here spend is all that somebody has spent, and engagement x / (x + 1). Purchases are that revenue in orders
    of the mean amount.
    """
    engagement = purchases.x / (purchases.x + 1)
    revenue = purchases.sum_amount * 1.2 * (1 + 0.8 * engagement) * 0.95
    orders = int((purchases.x + 1).sum())
    mean = float(purchases.sum_amount.sum()) / max(orders, 1)
    bought = (purchases.x + 1) * 1.2 * (1 + 0.8 * engagement) * 0.95
    return PointForecast(revenue / mean if mean > 0 else bought, revenue)


def judged(purchases: Purchases, horizon: float, done: Outcomes) -> dict[str, dict[str, Metrics]]:
    """The metrics of both, by name and then by kind of forecast."""
    found = {}
    for name, forecast in zip(NAMES, (naive(purchases, horizon), heuristic(purchases)), strict=True):
        found[name] = {kind: _judged(actual(kind, done), getattr(forecast, kind)) for kind in PointForecast._fields}
    return found


def _judged(came: Floats, forecast: Floats) -> Metrics:
    hit = float((came == forecast).mean())
    return measure(came, forecast, forecast, coverage=dict.fromkeys(LEVELS, hit))
