"""Customers who look the same to a model, counted once. Pure.

Every buy-till-you-die likelihood depends on a customer only through the number of repeat purchases, the age at the
last one and the age at the cut (Fader, Hardie and Lee 2005, "Counting Your Customers" the Easy Way, section 2).
Equal rows collapse into one with a weight, so the cost of a fit follows the number of groups, not of customers.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from kiki.errors import InvalidInput

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DAYS_PER_UNIT: Final = {"day": 1.0, "week": 7.0, "month": 365.25 / 12}


class Groups(NamedTuple):
    """Distinct histories as columns of equal length; times in the model's unit."""

    x: Floats
    """Repeat purchases: distinct days of purchase after the first."""
    tx: Floats
    """Age at the last repeat purchase; 0 without one."""
    t: Floats
    """Age at the end of the calibration period."""
    weight: Floats
    """How many customers share this history."""

    @classmethod
    def of(cls, x: npt.ArrayLike, tx: npt.ArrayLike, t: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> Self:
        """Groups of exactly these rows; raises `InvalidInput` for histories that cannot be."""
        frequency, recency, age = (np.asarray(column, dtype=np.float64) for column in (x, tx, t))
        _require_possible(frequency, recency, age)
        counts = np.ones_like(frequency) if weight is None else np.asarray(weight, dtype=np.float64)
        return cls(frequency, recency, age, counts)

    @classmethod
    def collapse(
        cls, x: npt.ArrayLike, tx_days: npt.ArrayLike, t_days: npt.ArrayLike, unit: str = "week"
    ) -> tuple[Self, Ints]:
        """Customers as groups, and for each customer the place of the group: `column[index]` spreads results again."""
        rows = np.stack([np.asarray(column, dtype=np.int64) for column in (x, tx_days, t_days)])
        _require_possible(*rows.astype(np.float64))
        # One sortable number for a row where the ranges allow it: far quicker than comparing rows.
        spans = rows.max(axis=1, initial=0) + 1
        if float(spans[0]) * float(spans[1]) * float(spans[2]) < 2**62:
            keys = (rows[0] * spans[1] + rows[1]) * spans[2] + rows[2]
            _, first, index, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        else:
            _, first, index, counts = np.unique(
                rows, axis=1, return_index=True, return_inverse=True, return_counts=True
            )
        days = DAYS_PER_UNIT[unit]
        distinct = rows[:, first].astype(np.float64)
        groups = cls(distinct[0], distinct[1] / days, distinct[2] / days, counts.astype(np.float64))
        return groups, index.reshape(-1).astype(np.int64)

    @property
    def customers(self) -> float:
        """How many customers there are."""
        return float(self.weight.sum())

    def coarse(self, bins: int = 16) -> Groups:
        """A copy with ages and idle times in `bins` bins each, at their means: close enough to begin a fit from."""
        if self.x.size <= 8 * bins * bins:
            return self
        repeated = self.x > 0
        age, idle = _bins(self.t, bins), np.where(repeated, _bins(self.t - self.tx, bins), 0)
        keys = (self.x.astype(np.int64) * bins + age) * bins + idle
        distinct, index = np.unique(keys, return_inverse=True)
        weight = np.bincount(index, weights=self.weight, minlength=distinct.size).astype(np.float64)
        t = np.bincount(index, weights=self.weight * self.t, minlength=distinct.size) / weight
        tx = np.bincount(index, weights=self.weight * self.tx, minlength=distinct.size) / weight
        return Groups((distinct // (bins * bins)).astype(np.float64), np.minimum(tx, t), t, weight)


def _bins(values: Floats, bins: int) -> Ints:
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.zeros(values.size, dtype=np.int64)
    return np.minimum(((values - low) * (bins / (high - low))).astype(np.int64), bins - 1)


def _require_possible(x: Floats, tx: Floats, t: Floats) -> None:
    if not (x.shape == tx.shape == t.shape) or x.ndim != 1:
        raise InvalidInput("frequency, recency and age are three columns of one length")
    if not x.size:
        raise InvalidInput("there are no customers: the log is empty, or nobody bought before the calibration ended")
    wrong = (
        (~np.isfinite(x) | (x < 0) | (x != np.floor(x)), "a frequency is a whole number, 0 or more"),
        (~np.isfinite(tx) | (tx < 0), "a recency is 0 or more"),
        (~np.isfinite(t) | (t < 0), "an age is 0 or more"),
        (tx > t * (1 + 1e-12), "a recency is not larger than the age"),
        ((x == 0) & (tx > 0), "a customer without a repeat purchase has recency 0"),
    )
    for bad, said in wrong:
        rows = np.flatnonzero(bad)
        if rows.size:
            at = int(rows[0])
            raise InvalidInput(
                f"row {at}: frequency {x[at]:g}, recency {tx[at]:g}, age {t[at]:g}: {said} ({rows.size} such rows)"
            )
