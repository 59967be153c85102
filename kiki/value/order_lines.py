"""Lines of an order log checked and turned into numbers: days, micros, text ids. Every mistake is named with its row.

Rows count from 1, the first after the header.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from kiki.errors import InvalidInput
from kiki.money import MICROS
from kiki.value import arrow_columns
from kiki.value.arrow_columns import ARROW
from kiki.value.groups import Floats, Ints
from kiki.value.order_columns import OrderColumns
from kiki.value.orders import day_number

# Text that is a date for certain: with the year first, and perhaps a time and an offset. Others are guesses.
_DATE: Final = r"^\d{4}(?:-\d{2}-\d{2}|/\d{2}/\d{2}|\d{4})(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?)?\s?(?:Z|[+-]\d{2}(?::?\d{2})?)?$"
_OFFSET: Final = r":\d{2}.*(?:Z|[+-]\d{2}(?::?\d{2})?)$"
_NUMBER: Final = r"^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?\s*$"
FIRST_DAY: Final = day_number(date(1900, 1, 1))
# Up to here a float64 keeps every micro.
AMOUNT_MAX: Final = 4_000_000_000
_AMOUNT_SAID: Final = (
    "an amount is a decimal number such as 1234.50, up to 4,000,000,000, without signs of a currency or of thousands"
)
_NAMED_MAX: Final = 10


class Lines(NamedTuple):
    """Good lines as columns of equal length."""

    row: Ints
    """Where each stood, from 1."""
    customer: pd.Series
    """Ids: text, or whole numbers that stand for their text."""
    day: Ints
    amount: Ints
    """Micros."""
    order: pd.Series | None
    """Order ids, text; empty where there was none."""
    currency: str | None
    anonymous: Ints
    """Rows without a customer; they are in none of the columns."""


class Problems:
    """What is wrong with a log: every kind with its first rows and its count."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[list[str], int]] = {}

    def add(self, kind: str, rows: Ints, values: Iterable[object]) -> None:
        """More rows of a kind, with the values as they stand in the log."""
        if not rows.size:
            return
        named, count = self._kinds.setdefault(kind, ([], 0))
        for row, value in zip(rows[: _NAMED_MAX - len(named)].tolist(), values, strict=False):
            shown = repr(value)
            named.append(f"row {row} ({shown if len(shown) <= 40 else shown[:37] + '...'})")
        self._kinds[kind] = (named, count + rows.size)

    def refuse(self) -> None:
        """Raise `InvalidInput` with everything that was found, if anything was."""
        if self._kinds:
            said = [
                f"{kind}: {', '.join(named)}{f' and {count - len(named):,} more' if count > len(named) else ''}"
                for kind, (named, count) in self._kinds.items()
            ]
            raise InvalidInput("the order log cannot be used:\n  - " + "\n  - ".join(said))


def check_lines(
    frame: pd.DataFrame, columns: OrderColumns, *, first_row: int, zone: ZoneInfo, until: int, problems: Problems
) -> Lines:
    """The lines of one stretch of a log that begins at `first_row`; mistakes go to `problems`, and their lines stay in.

    `until` is the last day that is not in the future.
    """
    row = np.arange(first_row, first_row + len(frame), dtype=np.int64)
    customer = frame[columns.customer]
    if isinstance(customer.dtype, np.dtype) and customer.dtype.kind == "i":
        known = np.ones(len(customer), dtype=bool)
    else:
        customer = _text(customer)
        known = (customer != "").to_numpy(dtype=bool)
    anonymous = row[~known]
    if anonymous.size:
        frame, customer, row = frame[known], customer[known], row[known]
    dates, amounts = frame[columns.date], frame[columns.amount]
    day, readable = _days(dates, zone)
    for kind, bad in (
        ("a date is written as 2026-01-31, with or without a time", ~readable),
        ("a date lies in the future", readable & (day > until)),
        ("a date lies before 1900", readable & (day < FIRST_DAY)),
    ):
        problems.add(kind, row[bad], dates[bad])
    value = _values(amounts)
    if columns.quantity is not None:
        value = value * _values(frame[columns.quantity])
    numbers = np.isfinite(value) & (np.abs(value) <= AMOUNT_MAX)
    problems.add(_AMOUNT_SAID, row[~numbers], amounts[~numbers])
    amount = micros_of(np.where(numbers, value, 0.0))
    currency = None
    if columns.currency is not None and len(frame):
        currencies = _text(frame[columns.currency]).str.strip().str.upper()
        currency = str(currencies.iloc[0])
        other = (currencies != currency).to_numpy(dtype=bool)
        problems.add(f"a log is in one currency, and this one began in {currency!r}", row[other], currencies[other])
    order = None if columns.order is None else _text(frame[columns.order])
    return Lines(row, customer, day, amount, order, currency, anonymous)


def _text(column: pd.Series) -> pd.Series:
    """Ids as text, empty where there is none; 17850.0, which pandas makes of 17850 beside a gap, is 17850."""
    if pd.api.types.is_float_dtype(column.dtype):
        whole = column.dropna()
        if (np.isfinite(whole) & (whole == np.floor(whole)) & (whole.abs() < 2**53)).all():
            column = column.astype("Int64")
    missing = column.isna()
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    text = column.astype("str") if not missing.any() else column.astype("object").where(~missing, "").astype("str")
    return text.where(~missing, "") if missing.any() else text


def _days(column: pd.Series, zone: ZoneInfo) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Days since 1970-01-01 on the calendar of `zone`, and which of them could be read."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return _numbered(column.dt.tz_convert(zone).dt.tz_localize(None))
    if pd.api.types.is_datetime64_dtype(column.dtype):
        return _numbered(column)
    if ARROW and (days := arrow_columns.days_of(column)) is not None:
        return days, np.ones(days.size, dtype=bool)
    codes, distinct = pd.factorize(column.astype("str"))
    texts = pd.Series(np.asarray(distinct, dtype=object), dtype="str").str.strip()
    shaped = texts.str.match(_DATE).to_numpy(dtype=bool)
    aware = shaped & texts.str.contains(_OFFSET).to_numpy(dtype=bool)
    day = np.zeros(len(texts), dtype=np.int64)
    readable = np.zeros(len(texts), dtype=bool)
    for chosen, offset in ((shaped & ~aware, False), (aware, True)):
        if chosen.any():
            moments = pd.to_datetime(texts[chosen].str.replace("/", "-"), format="ISO8601", errors="coerce", utc=offset)
            if offset:
                moments = moments.dt.tz_convert(zone).dt.tz_localize(None)
            day[chosen], readable[chosen] = _numbered(moments)
    # A missing date is no text at all, and factorize gives it the place -1.
    gaps = codes < 0
    if not len(texts):
        return np.zeros(len(column), dtype=np.int64), np.zeros(len(column), dtype=bool)
    return np.where(gaps, 0, day[codes]), np.where(gaps, False, readable[codes])


def _numbered(moments: pd.Series) -> tuple[Ints, npt.NDArray[np.bool_]]:
    values = moments.to_numpy().astype("datetime64[D]")
    readable = ~np.isnat(values)
    return np.where(readable, values, np.datetime64(0, "D")).astype(np.int64), readable


def _values(column: pd.Series) -> Floats:
    """Numbers, NaN where there is none. A float64 holds every micro up to the largest amount accepted."""
    if pd.api.types.is_bool_dtype(column.dtype):
        return np.full(len(column), np.nan)
    if pd.api.types.is_numeric_dtype(column.dtype):
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    if ARROW and (read := arrow_columns.numbers_of(column)) is not None:
        return read
    text = column.astype("str")
    numbers = text.str.match(_NUMBER).fillna(value=False).to_numpy(dtype=bool)
    values = np.full(len(column), np.nan)
    values[numbers] = text[numbers].to_numpy(dtype=object).astype(np.float64)  # the nearest, as Arrow reads it too
    return values


def micros_of(values: npt.NDArray[np.float64]) -> Ints:
    """The nearest micro, halves up: the same formula in every engine."""
    return np.floor(values * MICROS + 0.5).astype(np.int64)


def today(zone: ZoneInfo, now_micros: int) -> int:
    """The day in that zone, in days since 1970-01-01, at a moment in microseconds since the epoch."""
    return day_number(datetime.fromtimestamp(now_micros // 1_000_000, zone).date())


def joined(parts: list[Lines]) -> Lines:
    """One table of stretches that follow each other."""
    first = parts[0]
    if len(parts) == 1:
        return first

    def column(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    def texts(name: str) -> pd.Series:
        return pd.concat([getattr(part, name) for part in parts], ignore_index=True)

    # Parquet may hold whole numbers with gaps in one batch and without any in the next.
    if len({str(part.customer.dtype) for part in parts}) > 1:
        parts = [part._replace(customer=part.customer.astype("str")) for part in parts]

    currency = next((part.currency for part in parts if part.currency is not None), None)
    order = None if first.order is None else texts("order")
    return Lines(
        column("row"), texts("customer"), column("day"), column("amount"), order, currency, column("anonymous")
    )
