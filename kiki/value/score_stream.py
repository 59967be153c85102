"""Score any number of customers with bounded memory: summaries come in batches, scores go to Parquet, or nothing does.

A summary has the columns of `kiki.value.purchases.COLUMNS`. It comes from a Parquet file (`summary_batches`), which a warehouse
writes by itself: `purchases_expression(…).to_parquet(…)`. Only one batch is in memory at a time.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kiki.errors import InvalidInput, MissingExtra
from kiki.value.purchases import COLUMNS, Purchases

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as _missing:
    raise MissingExtra("warehouse", "scoring from Parquet to Parquet") from _missing

BATCH_ROWS: Final = 100_000
SMALL_BATCH_ROWS: Final = 10_000

Score = Callable[[Purchases], Mapping[str, npt.NDArray[Any]]]
"""Columns of scores for customers, in their order."""


def summary_batches(path: str | Path, *, batch_rows: int = BATCH_ROWS) -> Iterator[Any]:
    """The summaries in a Parquet file, as Arrow batches; raises `InvalidInput` when it is none, or no summary."""
    try:
        with pq.ParquetFile(path) as file:
            lacking = [name for name in COLUMNS if name not in file.schema_arrow.names]
            if lacking:
                raise InvalidInput(f"{Path(path).name} is no summary of purchases: it lacks {', '.join(lacking)}")
            yield from file.iter_batches(batch_size=batch_rows, columns=list(COLUMNS))
    except FileNotFoundError:
        raise InvalidInput(f"there is no file {path}") from None
    except pa.ArrowException as problem:
        raise InvalidInput(f"{Path(path).name} is no whole Parquet file: {problem}") from None


def is_summary(path: str | Path) -> bool:
    """Whether a Parquet file has the columns of a summary; raises `InvalidInput` when it is no Parquet file."""
    try:
        return set(COLUMNS) <= set(pq.read_schema(path).names)
    except FileNotFoundError:
        raise InvalidInput(f"there is no file {path}") from None
    except pa.ArrowException as problem:
        raise InvalidInput(f"{Path(path).name} is no whole Parquet file: {problem}") from None


def read_summary(
    path: str | Path, *, calibration_end: date, unit: str = "week", currency: str | None = None
) -> Purchases:
    """All the customers of a summary at once; raises `InvalidInput` as `score_stream` does."""
    # Small batches: turning ids into Python's texts holds up every other thread for as long as it takes.
    parts = [
        _purchases(batch, calibration_end, unit, currency)
        for batch in summary_batches(path, batch_rows=SMALL_BATCH_ROWS)
        if batch.num_rows
    ]
    if not parts:
        raise InvalidInput(f"{Path(path).name} holds no customer")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    return Purchases(**columns, calibration_end=calibration_end, unit=unit, currency=currency)


def summary_table(purchases: Purchases) -> Any:
    """The columns of `Purchases` as an Arrow table, for `pyarrow.parquet.write_table`."""
    columns = {name: getattr(purchases, name) for name in COLUMNS}
    return pa.table(columns | {"ids": pa.array(purchases.ids, pa.string())})


def score_stream(
    batches: Iterable[Any],
    target: str | Path,
    score: Score,
    *,
    calibration_end: date,
    unit: str = "week",
    currency: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write id and scores of every customer to the Parquet file `target`; the number of customers.

    The file appears when it is whole and on disk; a failure leaves what was there before. `progress` is told how many
    are done. Raises `InvalidInput` for histories that cannot be, with the customer, and for no customer at all.
    """
    path = Path(target)
    done = 0
    writer = None
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    unfinished = Path(name)
    try:
        for batch in batches:
            if not batch.num_rows:
                continue
            purchases = _purchases(batch, calibration_end, unit, currency)
            scores = score(purchases)
            table = pa.table({"customer_id": pa.array(purchases.ids, pa.string()), **scores})
            writer = writer or pq.ParquetWriter(unfinished, table.schema)
            writer.write_table(table)
            done += table.num_rows
            if progress is not None:
                progress(done)
        if writer is None:
            raise InvalidInput("there are no customers to score")
        writer.close()
        _publish(unfinished, path)
    finally:
        if writer is not None and writer.is_open:
            writer.close()
        unfinished.unlink(missing_ok=True)
    return done


def _publish(unfinished: Path, path: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    unfinished.chmod(0o666 & ~mask)  # a temporary file is for its owner only, the result is as any other file
    with unfinished.open("rb") as written:
        os.fsync(written.fileno())
    unfinished.replace(path)


def _purchases(batch: Any, calibration_end: date, unit: str, currency: str | None) -> Purchases:
    columns = {}
    for name in COLUMNS:
        column = batch.column(name)
        if column.null_count:
            raise InvalidInput(f"a summary has no gaps, but column {name!r} has {column.null_count}")
        columns[name] = column
    ids = np.asarray(columns.pop("ids").cast(pa.string()).to_pylist(), dtype=object)
    try:
        numbers = {name: column.cast(pa.int64()).to_numpy(zero_copy_only=False) for name, column in columns.items()}
    except pa.ArrowInvalid as problem:
        raise InvalidInput(f"a summary holds whole numbers: {problem}") from None
    x, tx, age = numbers["x"], numbers["tx"], numbers["T"]
    impossible = np.flatnonzero((x < 0) | (tx < 0) | (tx > age) | (x > tx))
    if impossible.size:
        at = int(impossible[0])
        raise InvalidInput(
            f"customer {ids[at]!r} has x {x[at]}, tx {tx[at]}, T {age[at]}: a history has 0 ≤ x ≤ tx ≤ T, in days"
        )
    return Purchases(ids=ids, **numbers, calibration_end=calibration_end, unit=unit, currency=currency)
