"""Rolling origins: days inside of the calibration from which the rest of it is forecast, as a test of what will be done from its end. Pure.

Every choice that `auto` makes (weights of models, shape, recalibration) is made on them, so that none looks at the holdout.
Tashman 2000, "Out-of-sample tests of forecasting accuracy", Int. J. of Forecasting 16.
"""

from __future__ import annotations

from datetime import date
from typing import Final, NamedTuple

import numpy as np

from kiki.value.groups import DAYS_PER_UNIT, Ints
from kiki.value.orders import Orders, Refunds, day_number, day_of
from kiki.value.purchases import Outcomes, Purchases, outcomes, summarise

SHARES: Final = (0.5, 0.6, 0.7, 0.8)
"""Where the origins are, as shares of the calibration."""

SAMPLE_MAX: Final = 50_000
"""Of more customers than this a sample is used: the choices that origins are for are no better with more."""

CUSTOMERS_MIN: Final = 100
"""Fewer customers than this before an origin teach nothing about choices between models."""

PURCHASES_MIN: Final = 50
"""The same for purchases after it."""

DAYS_MIN: Final = 14
"""The same for the days that are forecast: weekdays, at least, cancel out."""

_GOLDEN: Final = (5**0.5 - 1) / 2


class Origin(NamedTuple):
    """What was known on a day, and what came until another."""

    purchases: Purchases
    """Everybody who had bought on that day or before."""
    outcomes: Outcomes
    """Of the same customers, until `until`."""
    until: date
    """The last day that is forecast."""

    @property
    def end(self) -> date:
        """The last day that was known."""
        return self.purchases.calibration_end

    @property
    def days(self) -> int:
        """How many days are forecast."""
        return (self.until - self.end).days

    @property
    def horizon(self) -> float:
        """The same in the unit of the purchases."""
        return self.days / DAYS_PER_UNIT[self.purchases.unit]


def rolling_origins(
    orders: Orders,
    calibration_end: date,
    unit: str = "week",
    horizon: float | None = None,
    *,
    until: date | None = None,
) -> list[Origin]:
    """Usable origins in growing order; none when the log is too short, or has too few customers or purchases.

    From each the rest of the calibration is forecast, `horizon` units at most. With `until`, an earlier day than the end of the
    calibration, outcomes after it are not looked at and later origins are left out: what somebody knew on that day.
    """
    first, end = orders.first_day, day_number(calibration_end)
    last = end if until is None else min(day_number(until), end)
    longest = np.inf if horizon is None else horizon * DAYS_PER_UNIT[unit]
    found = []
    for share in SHARES:
        day = first + round(share * (end - first))
        upto = int(min(last, day + np.floor(longest)))
        if upto - day < DAYS_MIN:
            continue
        purchases = summarise(orders, day_of(day), unit)
        done = outcomes(orders, purchases, day_of(upto))
        if len(purchases) >= CUSTOMERS_MIN and int(done.purchases.sum()) >= PURCHASES_MIN:
            found.append(Origin(purchases, done, day_of(upto)))
    return found


def sampled(orders: Orders, calibration_end: date, most: int = SAMPLE_MAX) -> Orders:
    """The orders of `most` customers who bought by the end of the calibration, spread evenly over their ids.

    The same on each call, and whatever the log holds after that day. All orders when the customers are no more than `most`.
    """
    customer = orders.customer[orders.day <= day_number(calibration_end)]
    known = np.zeros(orders.ids.size, dtype=bool)
    known[customer] = True
    size = int(known.sum())
    if size <= most:
        return orders
    # The golden ratio's multiples fall evenly between 0 and 1, and keep no rhythm that ids may have.
    place = np.mod(np.arange(size) * _GOLDEN, 1.0)
    chosen = np.zeros(orders.ids.size, dtype=bool)
    chosen[np.flatnonzero(known)[np.argpartition(place, most)[:most]]] = True
    return _only(orders, chosen)


def _only(orders: Orders, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Orders:
    kept = chosen[orders.customer]
    refunded = kept[orders.refunds.order]
    return Orders(
        ids=orders.ids[chosen],
        customer=_renumbered(chosen)[orders.customer[kept]],
        day=orders.day[kept],
        gross=orders.gross[kept],
        refunds=Refunds(
            _renumbered(kept)[orders.refunds.order[refunded]],
            orders.refunds.day[refunded],
            orders.refunds.amount[refunded],
        ),
        first_day=orders.first_day,
        last_day=orders.last_day,
        unmatched=orders.unmatched,
        currency=orders.currency,
        notes=orders.notes,
    )


def _renumbered(kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Ints:
    return np.cumsum(kept, dtype=np.int64) - 1
