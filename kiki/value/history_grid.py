"""A value of every history that a customer of one age may have, by frequency and recency: what a heat map shows. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from kiki.errors import InvalidInput
from kiki.value.groups import DAYS_PER_UNIT, Floats, Groups, Ints
from kiki.value.purchases import Purchases

_FREQUENCIES: Final = (10, 40)
_RECENCIES: Final = 52


class HistoryGrid(NamedTuple):
    """Values of shape (recencies, frequencies)."""

    x: Floats
    """Repeat purchases: 0, 1, 2, ..."""
    recency: Floats
    """Ages at the last purchase in the unit, 0 first, the customer's age last."""
    values: Floats
    """NaN where no customer can be: more days with a purchase than days, a recency without a repeat."""


def usual_size(purchases: Purchases) -> tuple[float, int]:
    """The age in the unit, and the most repeat purchases, that show nearly everybody: the oldest one's, and the 99.5th per cent."""
    low, high = _FREQUENCIES
    most = int(np.clip(np.ceil(np.quantile(purchases.x, 0.995)), low, high))
    return max(float(purchases.T.max()) / DAYS_PER_UNIT[purchases.unit], 1.0), most


def history_grid(value: Callable[[Groups], Floats], *, age: float, x_max: int, unit: str = "week") -> HistoryGrid:
    """`value` of the histories of a customer who is `age` units old: frequencies 0 to `x_max`, recencies 0 to `age`.

    Raises `InvalidInput` for an age that is not above 0 or a frequency below 0.
    """
    if not (np.isfinite(age) and age > 0 and x_max >= 0):
        raise InvalidInput(
            f"a grid of histories needs an age above 0 and a frequency of 0 or more, not {age} and {x_max}"
        )
    x = np.arange(x_max + 1, dtype=np.float64)
    recency = np.linspace(0.0, age, min(int(np.ceil(age)), _RECENCIES) + 1)
    rows, columns = _possible(x, recency, DAYS_PER_UNIT[unit])
    values = np.full((recency.size, x.size), np.nan)
    groups = Groups.of(x[columns], recency[rows], np.full(rows.size, float(age)))
    values[rows, columns] = value(groups)
    return HistoryGrid(x, recency, values)


def _possible(x: Floats, recency: Floats, days_per_unit: float) -> tuple[Ints, Ints]:
    """The cells of customers that can be: x different days fit into the recency, and without a repeat it is 0."""
    days = recency[:, None] * days_per_unit + 1e-9
    can_be = np.where(x == 0, recency[:, None] == 0, x <= days)
    rows, columns = np.nonzero(can_be)
    return rows, columns
