"""Read an order log, from a file or a DataFrame, into `Orders`.

The log is one line an order or an item: a customer, a date, an amount; refunds are lines below zero. Customers are numbered
and lines sorted by Arrow where the extra `warehouse` is installed, else by pandas; the orders are the same to the last micro.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from kiki.clock import wall_micros
from kiki.errors import InvalidInput
from kiki.value.arrow_columns import ARROW, Sorted, sorted_lines
from kiki.value.groups import Ints
from kiki.value.order_columns import OrderColumns
from kiki.value.order_files import Irregular, Stretch, stretches
from kiki.value.order_lines import Lines, Problems, check_lines, joined, today
from kiki.value.orders import Orders, day_number

Progress = Callable[[int, int], None]

_NAMED_MAX: Final = 10


def read_orders(
    source: str | Path | pd.DataFrame,
    *,
    columns: OrderColumns | None = None,
    tz: str = "UTC",
    currency: str | None = None,
    until: date | None = None,
    progress: Progress | None = None,
) -> Orders:
    """The orders of a log, whatever its length; `Orders.notes` says what was guessed and what was left out.

    Moments with an offset become days in the time zone `tz`; naive ones are taken as they stand. `currency` is the one
    that the log has to be in, if it names one. `until` is the last day that may occur, today in `tz` by default. `progress`
    is told how much was read and of how much: bytes of a CSV, rows of anything else. Raises `InvalidInput`, with
    the rows, for a log that cannot be used, and `MissingExtra` for Parquet without the extra `warehouse`.
    """
    zone = _zone(tz)
    last = today(zone, wall_micros()) if until is None else day_number(until)
    wanted = columns or OrderColumns()
    try:
        lines, notes = _read(stretches(source, wanted, quick=ARROW), wanted, zone, last, currency, progress)
    except Irregular:
        lines, notes = _read(stretches(source, wanted, quick=False), wanted, zone, last, currency, progress)
    if lines.anonymous.size:
        notes += (f"{lines.anonymous.size:,} lines without a customer are left out: {_rows(lines.anonymous)}",)
    return _orders(lines, currency.upper() if currency else lines.currency, notes)


def _read(
    found: Iterator[Stretch],
    wanted: OrderColumns,
    zone: ZoneInfo,
    last: int,
    currency: str | None,
    progress: Progress | None,
) -> tuple[Lines, tuple[str, ...]]:
    problems = Problems()
    parts: list[Lines] = []
    chosen: OrderColumns | None = None
    notes: tuple[str, ...] = ()
    read = 0
    for stretch in found:
        if chosen is None:
            chosen, notes = wanted.within([str(name) for name in stretch.frame.columns])
        parts.append(check_lines(stretch.frame, chosen, first_row=read + 1, zone=zone, until=last, problems=problems))
        read += len(stretch.frame)
        if progress is not None:
            progress(stretch.done, stretch.total)
    problems.refuse()
    if not parts:
        raise InvalidInput("the order log is empty: it has no header")
    _require_one_currency(parts, currency)
    return joined(parts), notes


def _orders(lines: Lines, currency: str | None, notes: tuple[str, ...]) -> Orders:
    if not lines.row.size:
        raise InvalidInput("the order log is empty: it has no line with a customer, a date and an amount")
    order = None if lines.order is None else pd.factorize(lines.order)[0].astype(np.int64)
    by_customer = sorted_lines if ARROW else _by_pandas
    ids, customer, day, place = by_customer(lines.customer, lines.day)
    amount = lines.amount[place]
    orders = Orders.of_lines(
        ids, customer, day, amount, order=None if order is None else order[place], currency=currency, notes=notes
    )
    if not orders.unmatched.size:
        return orders
    rows = np.sort(lines.row[place[orders.unmatched]])
    said = f"{rows.size:,} refunds have no order they could belong to and are not counted: {_rows(rows)}"
    return orders.noted(said, unmatched=rows)


def _by_pandas(customer: pd.Series, day: Ints) -> Sorted:
    """The ids sorted; the lines as they stand, which sorts them later."""
    if pd.api.types.is_integer_dtype(customer.dtype):
        customer = customer.astype("str")
    codes, ids = pd.factorize(customer, sort=True)
    return Sorted(np.asarray(ids, dtype=object), codes.astype(np.int64), day, np.arange(day.size))


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(f"{name!r} is not a time zone: write one such as UTC or Europe/Berlin") from None


def _require_one_currency(parts: list[Lines], wanted: str | None) -> None:
    first = None
    for part in parts:
        if part.currency is None:
            continue
        first = first or part.currency
        if part.currency != first:
            raise InvalidInput(f"row {part.row[0]} is in {part.currency!r}, but the log began in {first!r}")
    if wanted is not None and first is not None and wanted.upper() != first:
        raise InvalidInput(f"the log is in {first!r}, not in {wanted!r}")


def _rows(rows: Ints) -> str:
    shown = ", ".join(str(row) for row in rows[:_NAMED_MAX].tolist())
    more = f" and {rows.size - _NAMED_MAX:,} more" if rows.size > _NAMED_MAX else ""
    return f"{'row' if rows.size == 1 else 'rows'} {shown}{more}"
