"""Why a forecast is what it is, in words: the customer's history beside what the model makes of it. Pure.

An expected revenue is P(alive) x purchases while alive x amount of an order. Each of the three has one reason; the one that sets the
customer furthest apart from the average customer comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np

from kiki.errors import InvalidInput
from kiki.value.groups import DAYS_PER_UNIT
from kiki.value.prediction import Predictions
from kiki.value.purchases import Purchases


class Usual(NamedTuple):
    """The average customer, whom others are compared with."""

    alive: float
    """P(alive)."""
    purchases: float
    """Expected within the horizon of somebody who is alive."""
    amount: float
    """Expected revenue a purchase."""

    @classmethod
    def of(cls, predictions: Predictions) -> Self:
        """The average of everybody in `predictions`."""
        alive, bought = float(predictions.alive.mean()), float(predictions.purchases.mean.mean())
        revenue = float(predictions.revenue.mean.mean())
        return cls(alive, bought / alive if alive > 0 else 0.0, revenue / bought if bought > 0 else 0.0)


def reasons(purchases: Purchases, predictions: Predictions, row: int, *, usual: Usual | None = None) -> list[str]:
    """Three sentences about the customer in `row`, the weightiest first.

    `usual` is the average customer; by default that of `predictions`, where they are of several customers. Without one nothing is
    compared, and the order is fixed. Raises `InvalidInput` for a row that is not there.
    """
    if len(purchases) != len(predictions) or not 0 <= row < len(predictions):
        raise InvalidInput(f"row {row} is not one of {len(purchases)} customers with {len(predictions)} predictions")
    if usual is None and len(predictions) > 1:
        usual = Usual.of(predictions)
    alive, amount = float(predictions.alive[row]), float(predictions.order_amount[row])
    mean = float(predictions.purchases.mean[row])
    bought = mean / alive if alive > 0 else 0.0
    found = [
        _staying(purchases, row, alive),
        _buying(purchases, predictions, row, bought),
        _spending(purchases, row, amount),
    ]
    if usual is None:
        return found
    ratios = [_ratio(alive, usual.alive), _ratio(bought, usual.purchases), _ratio(amount, usual.amount)]
    order = sorted(range(3), key=lambda place: -abs(float(np.log(ratios[place]))))
    return [f"{found[place]}, {_compared(ratios[place])}" for place in order]


def _staying(purchases: Purchases, row: int, alive: float) -> str:
    time = _time(purchases)
    age, last, x = (int(column[row]) for column in (purchases.T, purchases.tx, purchases.x))
    likely = f"{100 * alive:.0f} % likely to be still a customer"
    if x == 0:
        return f"bought once, {time(age)} ago: {likely}"
    return f"last bought {time(age - last)} ago, and every {time(last / x)} until then: {likely}"


def _buying(purchases: Purchases, predictions: Predictions, row: int, bought: float) -> str:
    x, age = int(purchases.x[row]), int(purchases.T[row])
    times = "not again" if x == 0 else "once again" if x == 1 else f"{x} times more"
    ahead = _time(purchases)(predictions.horizon * DAYS_PER_UNIT[purchases.unit])
    since = f"bought {times} in {_time(purchases)(age)} after the first purchase"
    return f"{since}: {bought:.2g} purchases expected in {ahead} while a customer"


def _spending(purchases: Purchases, row: int, amount: float) -> str:
    orders, mean = int(purchases.positive_orders[row]), float(purchases.mean_amount[row])
    if orders == 0:
        return f"no order above zero yet: {amount:,.2f} expected of an order"
    many = "1 order" if orders == 1 else f"{orders} orders, on average"
    return f"spent {mean:,.2f} on {many}: {amount:,.2f} expected of an order"


def _time(purchases: Purchases) -> Callable[[float], str]:
    unit, days = purchases.unit, DAYS_PER_UNIT[purchases.unit]

    def words(span: float) -> str:
        text = f"{span / days:.1f}".removesuffix(".0")
        return f"{text} {unit}" if text == "1" else f"{text} {unit}s"

    return words


def _ratio(mine: float, usual: float) -> float:
    """How many times the average; bounded, so that nothing and everything can be ranked."""
    return float(np.clip(mine / usual, 1e-6, 1e6)) if usual > 0 else 1.0


def _compared(ratio: float) -> str:
    if 0.95 <= ratio <= 1.05:
        return "as usual"
    if ratio < 0.01:
        return "hardly anything beside the average customer"
    return f"{ratio:.2g} times the average customer's"
