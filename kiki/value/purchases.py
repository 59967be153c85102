"""What a customer did until the calibration ended, one row a customer: what every model of purchases and spend takes. Pure.

Frequency x, recency tx and age T as Fader, Hardie and Lee (2005) count them: x is the number of days with a purchase
after the first day, tx the age at the last of them, T the age at the end of the calibration. All three in whole days
here; `grouped` turns them into the model's unit. Money is held in micros, exactly; the properties named amount give it
as float64 in units of the currency, for the arithmetic of models.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from datetime import date
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from kiki.errors import InvalidInput
from kiki.money import MICROS
from kiki.value.groups import DAYS_PER_UNIT, Floats, Groups, Ints
from kiki.value.orders import Orders, day_number, day_of

RECENT_WEEKS: Final = (4, 13, 26)

# Logarithms of gaps are added up as whole numbers of this size, so that every engine gets the same sum in any order.
LOG_SCALE: Final = 1_000_000_000


@dataclass(frozen=True, eq=False)
class Purchases:
    """Histories up to and on `calibration_end`, as columns of equal length, sorted by id."""

    ids: npt.NDArray[np.object_]
    """The customers' ids, text."""
    x: Ints
    """Repeat purchases: days with a purchase after the first one."""
    tx: Ints
    """Days from the first purchase to the last; 0 without a repeat."""
    T: Ints
    """Days from the first purchase to the end of the calibration."""
    first_micros: Ints
    """The first order; 0 when it was free."""
    repeat_micros: Ints
    """All repeat orders together."""
    positive_repeats: Ints
    """Repeat orders above zero: what a mean is taken over."""
    zero_orders: Ints
    """Free orders, a free first one included."""
    last_4_weeks: Ints
    """Purchases, a first one included, on the last 28 days of the calibration."""
    last_13_weeks: Ints
    last_26_weeks: Ints
    log_gaps: Ints
    """The sum of ln(days between one purchase and the next), in units of 1 / `LOG_SCALE`."""
    calibration_end: date
    unit: str = "week"
    """The unit of time of the models: day, week or month."""
    currency: str | None = None

    def __post_init__(self) -> None:
        if self.unit not in DAYS_PER_UNIT:
            raise InvalidInput(f"{self.unit!r} is not a unit of time: take {', '.join(DAYS_PER_UNIT)}")

    def __len__(self) -> int:
        return int(self.ids.size)

    @property
    def first_amount(self) -> Floats:
        """The first order."""
        return self.first_micros / MICROS

    @property
    def sum_amount_repeat(self) -> Floats:
        """All repeat orders together."""
        return self.repeat_micros / MICROS

    @property
    def mean_amount_repeat(self) -> Floats:
        """The mean of the repeat orders above zero, 0 where there is none: z of Gamma-Gamma as the papers fit it."""
        return _mean(self.repeat_micros, self.positive_repeats)

    @property
    def positive_orders(self) -> Ints:
        """Orders above zero, the first one included."""
        return self.positive_repeats + (self.first_micros > 0)

    @property
    def sum_amount(self) -> Floats:
        """All orders together."""
        return (self.first_micros + self.repeat_micros) / MICROS

    @property
    def mean_amount(self) -> Floats:
        """The mean of all orders above zero, 0 where there is none."""
        return _mean(self.first_micros + self.repeat_micros, self.positive_orders)

    @property
    def sum_log_gaps(self) -> Floats:
        """The sum of ln(days between one purchase and the next): how regular somebody buys, given x and tx."""
        return self.log_gaps / LOG_SCALE

    @property
    def first_day(self) -> Ints:
        """The day of the first purchase, in days since 1970-01-01."""
        return day_number(self.calibration_end) - self.T

    @property
    def cohort(self) -> npt.NDArray[np.datetime64]:
        """The month of the first purchase."""
        return self.first_day.astype("datetime64[D]").astype("datetime64[M]")

    def grouped(self) -> tuple[Groups, Ints]:
        """Customers with equal (x, tx, T) as one group, in the model's unit; and for each customer the group's place."""
        return Groups.collapse(self.x, self.tx, self.T, self.unit)

    def take(self, rows: npt.NDArray[np.bool_] | Ints) -> Purchases:
        """These customers only: a mask, or places in growing order."""
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        return Purchases(**columns, calibration_end=self.calibration_end, unit=self.unit, currency=self.currency)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over every row, the end of the calibration and the currency: the same log gives the same."""
        digest = hashlib.sha256(f"kiki purchases 1\n{self.calibration_end}\n{self.currency or ''}\n".encode())
        # The lengths tell where one id ends, whatever characters ids are made of.
        digest.update(np.fromiter(map(len, self.ids), dtype="<i8", count=self.ids.size).tobytes())
        digest.update("".join(self.ids).encode("utf-8", "surrogatepass"))
        for name in COLUMNS[1:]:
            digest.update(np.ascontiguousarray(getattr(self, name), dtype="<i8").tobytes())
        return digest.hexdigest()


COLUMNS: Final = tuple(
    field.name for field in fields(Purchases) if field.name not in {"calibration_end", "unit", "currency"}
)
"""The columns of `Purchases`, ids first."""


def summarise(orders: Orders, calibration_end: date | None = None, unit: str = "week") -> Purchases:
    """Everybody who bought on `calibration_end` or before, as known on that day; by default the log's last day.

    Raises `InvalidInput` when nobody had.
    """
    end = orders.last_day if calibration_end is None else day_number(calibration_end)
    customer, day, amount = orders.as_of(end)
    if not customer.size:
        raise InvalidInput(
            f"nobody bought on {day_of(end)} or before: the log begins on {day_of(orders.first_day)}",
            hint="choose a later end of the calibration",
        )
    starts = np.flatnonzero(np.concatenate(([True], customer[1:] != customer[:-1])))
    lasts = np.append(starts[1:], customer.size) - 1
    first = day[starts]
    total = np.add.reduceat(amount, starts)
    positive = np.add.reduceat(amount > 0, starts, dtype=np.int64)
    first_amount = amount[starts]
    gap = np.empty(day.size, dtype=np.int64)
    np.subtract(day[1:], day[:-1], out=gap[1:])
    gap[starts] = 1  # ln 1 = 0: what lies between two customers is no gap
    recent = [np.add.reduceat(day > end - 7 * weeks, starts, dtype=np.int64) for weeks in RECENT_WEEKS]
    return Purchases(
        ids=orders.ids[customer[starts]],
        x=lasts - starts,
        tx=day[lasts] - first,
        T=end - first,
        first_micros=first_amount,
        repeat_micros=total - first_amount,
        positive_repeats=positive - (first_amount > 0),
        zero_orders=lasts - starts + 1 - positive,
        last_4_weeks=recent[0],
        last_13_weeks=recent[1],
        last_26_weeks=recent[2],
        log_gaps=np.add.reduceat(_log_table(int(gap.max()))[gap], starts),
        calibration_end=day_of(end),
        unit=unit,
        currency=orders.currency,
    )


class Outcomes(NamedTuple):
    """What customers did after the calibration, in the order of their `Purchases`."""

    purchases: Ints
    """Days with a purchase."""
    micros: Ints
    """What they spent on them, after refunds of these orders."""


def outcomes(orders: Orders, purchases: Purchases, end: date) -> Outcomes:
    """Purchases and spend after the calibration, up to and on `end`.

    Raises `InvalidInput` when `end` is not after the calibration.
    """
    last, after = day_number(end), day_number(purchases.calibration_end)
    if last <= after:
        raise InvalidInput(f"the holdout ends on {end}, not after the calibration ({purchases.calibration_end})")
    customer, day, amount = orders.as_of(last)
    later = day > after
    size = orders.ids.size
    count = np.bincount(customer[later], minlength=size)
    spent = np.zeros(size, dtype=np.int64)
    np.add.at(spent, customer[later], amount[later])
    places = np.searchsorted(orders.ids, purchases.ids)
    return Outcomes(count[places].astype(np.int64), spent[places])


def _mean(micros: Ints, count: Ints) -> Floats:
    return np.where(count > 0, micros / MICROS / np.maximum(count, 1), 0.0)


def _log_table(most: int) -> Ints:
    gaps = np.arange(most + 1, dtype=np.float64)
    gaps[0] = 1
    return np.rint(np.log(gaps) * LOG_SCALE).astype(np.int64)
