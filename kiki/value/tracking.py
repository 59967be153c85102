"""Repeat purchases week by week, as they happened and as a model expects them: what a tracking plot shows. Pure.

Fader, Hardie and Lee 2005, "'Counting Your Customers' the Easy Way", figures 2 and 3: everybody who first bought by the end of
the calibration is followed from the first purchase on, and a customer of age t counts E[X(t)] expected repeat purchases.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import NamedTuple

import numpy as np

from kiki.errors import InvalidInput
from kiki.value.groups import DAYS_PER_UNIT, Floats, Ints
from kiki.value.orders import Orders, day_number
from kiki.value.purchases import Purchases

DAYS_PER_WEEK = 7


class Tracking(NamedTuple):
    """Weeks as columns of equal length; one of them ends with the calibration."""

    ends: Ints
    """The last day of each week, in days since 1970-01-01."""
    actual: Ints
    """Repeat purchases of that week: days with a purchase after a customer's first."""
    expected: Floats
    """Of a model that knows only how old its customers are."""
    calibration_end: int
    """The last day that the model has seen."""

    @property
    def holdout_error(self) -> float | None:
        """Expected over actual repeat purchases after the calibration, less one; None where there is nothing to compare with."""
        later = self.ends > self.calibration_end
        actual = int(self.actual[later].sum())
        return float(self.expected[later].sum()) / actual - 1 if actual else None


def track(
    orders: Orders, purchases: Purchases, expected_new: Callable[[Floats], Floats], end: date | None = None
) -> Tracking:
    """Actual and expected repeat purchases of the customers in `purchases`, by weeks up to and on `end` (the log's last day).

    `expected_new` is E[X(t)]: expected repeat purchases of a new customer until age t, in the unit of `purchases`. A week that
    the log does not cover whole is left out at the end. Raises `InvalidInput` when not one whole week remains.
    """
    last = orders.last_day if end is None else day_number(end)
    calibrated = day_number(purchases.calibration_end)
    first_day = purchases.first_day
    begin = int(first_day.min())
    weeks_before = -(-(calibrated - begin + 1) // DAYS_PER_WEEK)
    weeks_after = max(last - calibrated, 0) // DAYS_PER_WEEK
    weeks = np.arange(1 - weeks_before, weeks_after + 1)
    if last < calibrated:
        weeks = weeks[calibrated + DAYS_PER_WEEK * weeks <= last]
    if not weeks.size:
        raise InvalidInput(f"the log has not one whole week between {purchases.calibration_end} and its first purchase")
    ends = (calibrated + DAYS_PER_WEEK * weeks).astype(np.int64)
    return Tracking(
        ends=ends,
        actual=_actual(orders, purchases, ends),
        expected=_expected(first_day, ends, expected_new, DAYS_PER_UNIT[purchases.unit]),
        calibration_end=calibrated,
    )


def _actual(orders: Orders, purchases: Purchases, ends: Ints) -> Ints:
    customer, day, _ = orders.as_of(int(ends[-1]))
    first = np.full(orders.ids.size, np.iinfo(np.int64).max)
    first[np.searchsorted(orders.ids, purchases.ids)] = purchases.first_day
    repeats = day[day > first[customer]]
    return np.bincount(np.searchsorted(ends, repeats), minlength=ends.size).astype(np.int64)


def _expected(first_day: Ints, ends: Ints, expected_new: Callable[[Floats], Floats], days_per_unit: float) -> Floats:
    """Ages are whole days, so E[X(t)] is needed once for each different age."""
    begin = int(first_day.min())
    grown = expected_new(np.arange(int(ends[-1]) - begin + 1) / days_per_unit)
    joined = np.bincount(first_day - begin)
    days = np.arange(joined.size)
    cumulative = [float(joined @ grown[np.maximum(end - begin - days, 0)]) for end in ends]
    before = float(joined @ grown[np.maximum(int(ends[0]) - DAYS_PER_WEEK - begin - days, 0)])
    return np.diff(np.array(cumulative), prepend=before)
