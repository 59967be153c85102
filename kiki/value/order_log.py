"""Read an order log, from a file or a DataFrame, into `Orders`.

Files are `.csv`, `.csv.gz` or `.parquet`. The log is one line an order or an item: a customer, a date, an amount; refunds
are lines below zero. A CSV is read in stretches and only the columns that are used. Customers are numbered and lines
sorted by Arrow where the extra `warehouse` is installed, else by pandas; the orders are the same to the last micro.
"""

from __future__ import annotations

import gzip
import warnings
import zlib
from collections.abc import Callable, Iterator
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import pandas as pd

from kiki.clock import wall_micros
from kiki.errors import InvalidInput, MissingExtra
from kiki.value.groups import Ints
from kiki.value.order_columns import OrderColumns
from kiki.value.order_lines import Lines, Problems, check_lines, joined, today
from kiki.value.orders import Orders, day_number

_ARROW: Final = find_spec("pyarrow") is not None
"""Whether the extra `warehouse` is installed."""

Progress = Callable[[int, int], None]

_CHUNK_ROWS: Final = 500_000
_NAMED_MAX: Final = 10


class _Stretch(NamedTuple):
    frame: pd.DataFrame
    done: int
    total: int


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
    problems = Problems()
    parts: list[Lines] = []
    chosen: OrderColumns | None = None
    notes: tuple[str, ...] = ()
    read = 0
    for stretch in _stretches(source, wanted):
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
    lines = joined(parts)
    parts.clear()
    if lines.anonymous.size:
        notes += (f"{lines.anonymous.size:,} lines without a customer are left out: {_rows(lines.anonymous)}",)
    return _orders(lines, currency.upper() if currency else lines.currency, notes)


def _orders(lines: Lines, currency: str | None, notes: tuple[str, ...]) -> Orders:
    if not lines.row.size:
        raise InvalidInput("the order log is empty: it has no line with a customer, a date and an amount")
    order = None if lines.order is None else pd.factorize(lines.order)[0].astype(np.int64)
    number = _by_arrow if _ARROW else _by_pandas
    ids, customer, place = number(lines.customer, lines.day)
    day, amount = lines.day[place], lines.amount[place]
    orders = Orders.of_lines(
        ids, customer, day, amount, order=None if order is None else order[place], currency=currency, notes=notes
    )
    if not orders.unmatched.size:
        return orders
    rows = np.sort(lines.row[place[orders.unmatched]])
    said = f"{rows.size:,} refunds have no order they could belong to and are not counted: {_rows(rows)}"
    return orders.noted(said, unmatched=rows)


def _by_pandas(customer: pd.Series, day: Ints) -> tuple[npt.NDArray[np.object_], Ints, Ints]:
    """The ids sorted, the number of each line's, and the places of the lines: as they stand."""
    codes, ids = pd.factorize(customer, sort=True)
    return np.asarray(ids, dtype=object), codes.astype(np.int64), np.arange(day.size)


def _by_arrow(customer: pd.Series, day: Ints) -> tuple[npt.NDArray[np.object_], Ints, Ints]:
    """The ids sorted, the number of each line's, and the places of the lines: sorted by customer and day."""
    import pyarrow as pa
    import pyarrow.compute as pc

    low = int(day.min())
    span = int(day.max()) - low + 1
    bits = day.size.bit_length()
    if day.size * span << bits >= 2**63:  # customer, day and place do not fit into one number
        return _by_pandas(customer, day)
    texts = pa.array(customer)
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    coded = texts.dictionary_encode()
    order = pc.sort_indices(coded.dictionary)
    number = np.empty(len(order), dtype=np.int64)
    number[order.to_numpy()] = np.arange(len(order))
    # One number a line sorts in a fraction of the time of two columns.
    keys = number[coded.indices.to_numpy()]
    keys *= span
    keys += day - low
    keys <<= bits
    keys |= np.arange(day.size)
    keys.sort()
    ids = coded.dictionary.take(order).to_numpy(zero_copy_only=False)
    return np.asarray(ids, dtype=object), (keys >> bits) // span, keys & ((1 << bits) - 1)


def _stretches(source: str | Path | pd.DataFrame, wanted: OrderColumns) -> Iterator[_Stretch]:
    """The log in stretches, with all columns or only those that are used."""
    if isinstance(source, pd.DataFrame):
        names = [str(name) for name in source.columns]
        chosen, _ = wanted.within(names)
        frame = source.set_axis(names, axis=1)[chosen.used].reset_index(drop=True)
        yield _Stretch(frame, len(frame), len(frame))
        return
    path = Path(source)
    if not path.is_file():
        raise InvalidInput(f"there is no file {path}")
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        yield from _csv(path, wanted)
    elif name.endswith((".parquet", ".pq")):
        yield from _parquet(path, wanted)
    else:
        raise InvalidInput(f"{path.name} is not an order log: it ends in .csv, .csv.gz or .parquet")


def _csv(path: Path, wanted: OrderColumns) -> Iterator[_Stretch]:
    total = path.stat().st_size
    try:
        with path.open("rb") as raw, warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a line with more fields than the header
            stream: Any = gzip.GzipFile(fileobj=raw) if path.name.lower().endswith(".gz") else raw
            header = stream.readline().decode("utf-8-sig").rstrip("\r\n")
            separator = max(",;\t", key=header.count)
            stream.seek(0)
            options: dict[str, Any] = {"sep": separator, "dtype": "str", "index_col": False, "encoding": "utf-8-sig"}
            options |= {"keep_default_na": False, "na_filter": False}
            names = [str(name) for name in pd.read_csv(stream, nrows=0, **options).columns]
            chosen, _ = wanted.within(names)
            stream.seek(0)
            for frame in pd.read_csv(stream, chunksize=_CHUNK_ROWS, **options):
                yield _Stretch(frame[chosen.used].reset_index(drop=True), min(raw.tell(), total), total)
    except pd.errors.EmptyDataError:
        raise InvalidInput(f"{path.name} is empty") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as problem:
        raise InvalidInput(f"{path.name} is not a table of equal lines: {str(problem).strip()}") from None
    except UnicodeDecodeError as problem:
        raise InvalidInput(f"{path.name} is not UTF-8: {problem}", hint="save it as UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
        raise InvalidInput(f"{path.name} is no whole gzip file: {problem}") from None


def _parquet(path: Path, wanted: OrderColumns) -> Iterator[_Stretch]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra("warehouse", "reading Parquet") from None
    try:
        with pq.ParquetFile(path) as file:
            chosen, _ = wanted.within(file.schema_arrow.names)
            total, done = file.metadata.num_rows, 0
            for batch in file.iter_batches(batch_size=_CHUNK_ROWS, columns=chosen.used):
                done += batch.num_rows
                yield _Stretch(batch.to_pandas(), done, total)
            if not total:
                yield _Stretch(file.schema_arrow.empty_table().select(chosen.used).to_pandas(), 0, 0)
    except pa.ArrowException as problem:
        raise InvalidInput(f"{path.name} is no whole Parquet file: {problem}") from None


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
