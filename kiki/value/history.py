"""The history of a customer who stands in no log: as a summary (frequency, recency, age) or as dated orders. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np

from kiki.errors import InvalidInput
from kiki.money import MICROS
from kiki.value.groups import DAYS_PER_UNIT, Ints
from kiki.value.orders import Orders, day_number
from kiki.value.purchases import LOG_SCALE, RECENT_WEEKS, Purchases, summarise

AGE_DAYS_MAX: Final = 40_000
"""Nobody is a customer for more than a hundred years."""

AMOUNT_MAX: Final = 4_000_000_000.0
"""As for a line of a log."""


@dataclass(frozen=True, slots=True)
class History:
    """A customer in summary, in the model's unit of time. Raises `InvalidInput` for one that cannot be."""

    frequency: int
    """Repeat purchases: days with a purchase after the first one."""
    recency: float
    """Age at the last purchase; 0 without a repeat."""
    age: float
    """Time since the first purchase."""
    amount: float | None = None
    """The mean amount of an order, the first one included; None when nothing is known of amounts."""

    def __post_init__(self) -> None:
        said = _impossible(self)
        if said:
            raise InvalidInput(
                f"frequency {self.frequency}, recency {self.recency:g}, age {self.age:g}: {said}; "
                "a history has a frequency of 0 or more, and 0 ≤ recency ≤ age"
            )
        if self.amount is not None and not 0 <= self.amount <= AMOUNT_MAX:
            raise InvalidInput(f"an amount is a number from 0 to {AMOUNT_MAX:,.0f}, not {self.amount}")


def _impossible(history: History) -> str | None:
    """What cannot be, in words."""
    frequency, recency, age = history.frequency, history.recency, history.age
    if not all(map(math.isfinite, (frequency, recency, age))):
        return "one of them is not a number"
    if frequency != math.floor(frequency) or frequency < 0:
        return "a frequency is a whole number, 0 or more"
    if recency < 0 or age < 0:
        return "a time is 0 or more"
    if recency > age:
        return "the last purchase is later than today: the recency is larger than the age"
    if frequency == 0 and recency > 0:
        return "without a repeat purchase the recency is 0"
    if frequency > 0 and recency == 0:
        return "repeat purchases are on later days than the first, so the recency is above 0"
    return None


def purchases_of(
    histories: Sequence[History],
    calibration_end: date,
    unit: str = "week",
    *,
    ids: Sequence[str] | None = None,
    currency: str | None = None,
) -> Purchases:
    """Histories as `Purchases`, in their order; times are rounded to whole days.

    A summary does not say when the purchases between the first and the last were. They are spread evenly, which no model of counts
    depends on; a correction that looks at recent weeks does, and is left out for such histories (`FittedModel.predict_history`).
    Raises `InvalidInput` when there are more purchases than days, or customers older than a hundred years.
    """
    if not histories:
        raise InvalidInput("there is no history to predict from")
    days = DAYS_PER_UNIT[unit]
    x = np.array([int(each.frequency) for each in histories], dtype=np.int64)
    tx, age = (
        np.rint(np.array([getattr(each, name) for each in histories], dtype=np.float64) * days)
        for name in ("recency", "age")
    )
    _require_days(x, tx, age)
    micros = np.array([round((each.amount or 0.0) * MICROS) for each in histories], dtype=np.int64)
    known = np.array([each.amount is not None for each in histories])
    recent = [_recent(x, tx, age, 7 * weeks) for weeks in RECENT_WEEKS]
    gaps = np.rint(x * np.log(np.maximum(tx, 1) / np.maximum(x, 1)) * LOG_SCALE)
    return Purchases(
        ids=np.array(list(ids) if ids is not None else [str(place) for place in range(x.size)], dtype=object),
        x=x,
        tx=tx.astype(np.int64),
        T=age.astype(np.int64),
        first_micros=micros,
        repeat_micros=micros * x,
        positive_repeats=np.where(micros > 0, x, 0),
        zero_orders=np.where(known & (micros == 0), x + 1, 0),
        last_4_weeks=recent[0],
        last_13_weeks=recent[1],
        last_26_weeks=recent[2],
        log_gaps=gaps.astype(np.int64),
        calibration_end=calibration_end,
        unit=unit,
        currency=currency,
    )


def purchases_of_orders(
    orders: Iterable[tuple[date, float]],
    as_of: date,
    unit: str = "week",
    *,
    customer: str = "0",
    currency: str | None = None,
) -> Purchases:
    """One customer by dated orders in any order, refunds below zero, as known on `as_of`: later ones have not happened yet.

    Everything is known then that a log would tell. Raises `InvalidInput` when no order is left.
    """
    return _summary([customer], [list(orders)], as_of, unit, currency)


def purchases_of_many(
    histories: Sequence[Sequence[tuple[date, float]]],
    as_of: date,
    unit: str = "week",
    *,
    currency: str | None = None,
) -> Purchases:
    """The same for many customers, whose ids are their places among `histories`, with leading zeros; in that order.

    Who has no order left on `as_of` is left out. Raises `InvalidInput` when nobody has one.
    """
    return _summary([f"{place:09d}" for place in range(len(histories))], histories, as_of, unit, currency)


def _summary(
    ids: Sequence[str],
    histories: Sequence[Sequence[tuple[date, float]]],
    as_of: date,
    unit: str,
    currency: str | None,
) -> Purchases:
    """`ids` in growing order, one for each history."""
    if not all(histories):
        raise InvalidInput("a history of orders has one order at least")
    lines = [line for orders in histories for line in orders]
    for day, amount in lines:
        if not abs(amount) <= AMOUNT_MAX:  # NaN too
            raise InvalidInput(f"the order of {day} is worth {amount}: an amount is a number up to {AMOUNT_MAX:,.0f}")
    found = Orders.of_lines(
        np.array(ids, dtype=object),
        np.repeat(np.arange(len(ids)), [len(orders) for orders in histories]),
        np.array([day_number(day) for day, _ in lines], dtype=np.int64),
        np.array([math.floor(amount * MICROS + 0.5) for _, amount in lines], dtype=np.int64),
        currency=currency,
    )
    return summarise(found, as_of, unit)


def _require_days(x: Ints, tx: np.ndarray, age: np.ndarray) -> None:
    crowded = np.flatnonzero(x > tx)
    if crowded.size:
        at = int(crowded[0])
        raise InvalidInput(
            f"{x[at]} repeat purchases in {tx[at]:.0f} days cannot be: purchases of one day count as one"
        )
    old = np.flatnonzero(age > AGE_DAYS_MAX)
    if old.size:
        raise InvalidInput(f"an age of {age[int(old[0])]:,.0f} days cannot be: at most {AGE_DAYS_MAX:,}")


def _recent(x: Ints, tx: np.ndarray, age: np.ndarray, window: int) -> Ints:
    """How many of x + 1 purchases, spread evenly over 0 ... tx, are on the last `window` days."""
    after = age - window  # a purchase at an age above this counts
    gap = np.where(x > 0, tx / np.maximum(x, 1), 1.0)
    before = np.where(after < 0, 0.0, np.minimum(np.floor(after / gap + 1e-9) + 1, x + 1))
    return (x + 1 - before).astype(np.int64)
