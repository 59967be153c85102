"""What customers will do: one joint distribution of purchases and revenue, and the numbers that are read off it. Pure.

The mean answers "how much in all": only means add up over customers. The median answers "how much will this one": half the
customers like him buy less. Intervals are of the outcome, not of a mean. Counts have the exact pmf of the mixture; revenue is a
sum of so many orders, whose amounts are Gamma-Gamma given what the customer spent before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from kiki.errors import InvalidInput
from kiki.value.groups import DAYS_PER_UNIT, Floats, Ints
from kiki.value.mixture import Mixture
from kiki.value.predictive import Kind, Level, Predictive
from kiki.value.purchases import COLUMNS, Purchases
from kiki.value.spend import SpendModel

__all__ = [
    "LEVELS",
    "Estimate",
    "Kind",
    "Level",
    "Prediction",
    "Predictions",
    "Predictive",
    "Quantity",
    "Recalibration",
    "new_customer",
    "predict",
]

LEVELS: Final = (80, 90, 95)
"""Intervals, in per cent."""

DAYS_PER_YEAR: Final = 365.25


class Recalibration(Protocol):
    """Which probability to read off so that the answer is true as often as it says (`kiki.value.conformal`)."""

    def levels(self, kind: str, p: float, x: Ints, /) -> Floats:
        """For each customer with `x` repeat purchases, the probability to read off in place of `p`."""
        ...


class Quantity(NamedTuple):
    """Purchases or revenue within the horizon: columns of one row a customer."""

    mean: Floats
    median: Floats
    lower: dict[int, Floats]
    """The lower end of the interval of 80, 90 and 95 per cent."""
    upper: dict[int, Floats]


class Estimate(NamedTuple):
    """The same for one customer."""

    mean: float
    median: float
    lower: dict[int, float]
    upper: dict[int, float]


@dataclass(frozen=True)
class Prediction:
    """What one customer will do within `horizon` units."""

    id: str
    horizon: float
    unit: str
    purchases: Estimate
    revenue: Estimate
    alive: float
    no_purchase: float
    order_amount: float
    discounted_value: float | None


@dataclass(frozen=True, eq=False)
class Predictions:
    """What customers will do within `horizon` units, one row each, in the order of their `Purchases`."""

    ids: npt.NDArray[np.object_]
    horizon: float
    unit: str
    purchases: Quantity
    revenue: Quantity
    """In the log's currency, float64."""
    alive: Floats
    """P(alive at the end of the calibration)."""
    no_purchase: Floats
    """P(no purchase within the horizon): churn as it can be observed."""
    order_amount: Floats
    """The expected amount of the next order, free orders included."""
    discounted_value: Floats | None = None
    """What all purchases to come are expected to be worth now; None without a discount rate."""
    discounting: str | None = None
    """How the discounted value was found, in words."""

    def __len__(self) -> int:
        return int(self.ids.size)

    def row(self, place: int) -> Prediction:
        """One customer's."""
        discounted = self.discounted_value
        return Prediction(
            id=str(self.ids[place]),
            horizon=self.horizon,
            unit=self.unit,
            purchases=_estimate(self.purchases, place),
            revenue=_estimate(self.revenue, place),
            alive=float(self.alive[place]),
            no_purchase=float(self.no_purchase[place]),
            order_amount=float(self.order_amount[place]),
            discounted_value=None if discounted is None else float(discounted[place]),
        )

    def as_columns(self) -> dict[str, npt.NDArray[Any]]:
        """Flat columns, named for what they hold and for how long: `purchases_39_weeks_mean`, `revenue_39_weeks_upper_90`."""
        span = f"{self.horizon:g}_{self.unit}{'' if self.horizon == 1 else 's'}".replace(".", "_")
        columns: dict[str, npt.NDArray[Any]] = {"customer_id": self.ids}
        for name, quantity in (("purchases", self.purchases), ("revenue", self.revenue)):
            columns[f"{name}_{span}_mean"] = quantity.mean
            columns[f"{name}_{span}_median"] = quantity.median
            for level in quantity.lower:
                columns[f"{name}_{span}_lower_{level}"] = quantity.lower[level]
                columns[f"{name}_{span}_upper_{level}"] = quantity.upper[level]
        columns["probability_alive"] = self.alive
        columns[f"probability_no_purchase_{span}"] = self.no_purchase
        columns["order_amount_mean"] = self.order_amount
        if self.discounted_value is not None:
            columns["discounted_value_no_end"] = self.discounted_value
        return columns


def _estimate(quantity: Quantity, place: int) -> Estimate:
    lower, upper = (
        {level: float(values[place]) for level, values in ends.items()} for ends in (quantity.lower, quantity.upper)
    )
    return Estimate(float(quantity.mean[place]), float(quantity.median[place]), lower, upper)


def predict(
    predictive: Predictive,
    *,
    recalibration: Recalibration | None = None,
    discount_rate: float | None = None,
    levels: Sequence[int] = LEVELS,
) -> Predictions:
    """Everything about everybody: means, medians, intervals, chances, and with a `discount_rate` a year (0.1 is 10 %) values.

    With a `recalibration`, medians and intervals are read off where it says. The discounted value is that of all purchases to come,
    without an end. Raises `InvalidInput` for a rate that is not above 0.
    """
    x = predictive.purchases.x
    chances = [0.5, *(end for level in levels for end in ((1 - level / 100) / 2, (1 + level / 100) / 2))]
    kinds: tuple[Kind, ...] = ("purchases", "revenue")
    asked = [
        (kind, p if recalibration is None else recalibration.levels(kind, p, x)) for kind in kinds for p in chances
    ]
    read, no_purchase = predictive.scan(asked)
    discounted, said = None, None
    if discount_rate is not None:
        discounted, said = _discounted(predictive, discount_rate)
    return Predictions(
        ids=predictive.purchases.ids,
        horizon=predictive.horizon,
        unit=predictive.purchases.unit,
        purchases=_quantity(predictive.mean("purchases"), levels, read[: len(chances)]),
        revenue=_quantity(predictive.mean("revenue"), levels, read[len(chances) :]),
        alive=predictive.alive,
        no_purchase=no_purchase,
        order_amount=predictive.order_amount,
        discounted_value=discounted,
        discounting=said,
    )


def new_customer(
    mixture: Mixture,
    spend: SpendModel,
    horizon: float,
    cohort: Level | None = None,
    *,
    unit: str = "week",
    discount_rate: float | None = None,
) -> Predictions:
    """One row: what somebody will do within `horizon` units of the first purchase, of whom nothing else is known.

    `cohort` multiplies the purchases of those who come at the same time (`Cohorts.level`); None is the average of all.
    """
    columns: dict[str, Any] = {name: np.zeros(1, dtype=np.int64) for name in COLUMNS}
    columns["ids"] = np.array(["new"], dtype=object)
    first_day = Purchases(**columns, calibration_end=date(1970, 1, 1), unit=unit)
    return predict(Predictive(mixture, spend, first_day, horizon, level=cohort), discount_rate=discount_rate)


def _discounted(predictive: Predictive, rate: float) -> tuple[Floats, str]:
    if not (np.isfinite(rate) and rate > 0):
        raise InvalidInput(f"a discount rate is above 0 a year, 0.1 for 10 per cent, not {rate}")
    days = DAYS_PER_UNIT[predictive.purchases.unit]
    found = predictive.discounted(float(np.log1p(rate)) * days / DAYS_PER_YEAR, month=DAYS_PER_UNIT["month"] / days)
    closed = predictive.mixture.closed_form
    how = "in closed form" if closed else "by a monthly sum for the models without a closed form"
    return found, f"all purchases to come, discounted by {100 * rate:g} % a year {how}"


def _quantity(mean: Floats, levels: Sequence[int], read: list[Floats]) -> Quantity:
    # Recalibration reads different probabilities; an interval that does not hold the median would confuse.
    median = read[0]
    lower = {level: np.minimum(read[1 + 2 * place], median) for place, level in enumerate(levels)}
    upper = {level: np.maximum(read[2 + 2 * place], median) for place, level in enumerate(levels)}
    return Quantity(mean, median, lower, upper)
