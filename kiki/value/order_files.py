"""An order log in stretches of lines: from a `.csv`, `.csv.gz` or `.parquet` file, or a DataFrame; only the columns that are used.

A CSV is cut at ends of lines and parsed by Arrow, several pieces at a time, where the extra `warehouse` is installed. Arrow takes
tables of equal lines only: of any other it says that it is irregular, and pandas reads it again and says what is wrong.
"""

from __future__ import annotations

import gzip
import io
import os
import warnings
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import pandas as pd

from kiki.errors import InvalidInput, MissingExtra
from kiki.value.order_columns import OrderColumns

_CHUNK_ROWS: Final = 1 << 20
"""A column of so many numbers is 8 MB, which the system hands out in a few large pages instead of thousands of small ones."""

_PIECE_BYTES: Final = 16_000_000
_TRIES: Final = 100
"""A text in quotes of more lines than these is for pandas; and so is a file with a quote too many."""

LINE_BYTES_MAX: Final = 64_000_000
"""No line of an order log is longer; a few megabytes of gzip may be one of gigabytes."""

_READERS: Final = max(min(os.cpu_count() or 1, 4), 1)


class Stretch(NamedTuple):
    """Some lines, and how much of the log is read with them, in bytes of a CSV or rows of anything else."""

    frame: pd.DataFrame
    done: int
    total: int


class Irregular(Exception):
    """The quick reader does not take this file."""


def stretches(source: str | Path | pd.DataFrame, wanted: OrderColumns, *, quick: bool) -> Iterator[Stretch]:
    """The log in stretches, with the columns that are used; when `quick`, by Arrow, which raises `Irregular` when it cannot.

    Raises `InvalidInput` for a file that is none, and `MissingExtra` for Parquet without the extra `warehouse`.
    """
    if isinstance(source, pd.DataFrame):
        names = [str(name) for name in source.columns]
        chosen, _ = wanted.within(names)
        frame = source.set_axis(names, axis=1)[chosen.used]
        frame = frame.reset_index(drop=True)
        yield Stretch(frame, len(frame), len(frame))
        return
    path = Path(source)
    if not path.is_file():
        raise InvalidInput(f"there is no file {path}")
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        yield from _csv(path, wanted, quick=quick)
    elif name.endswith((".parquet", ".pq")):
        yield from _parquet(path, wanted)
    else:
        raise InvalidInput(f"{path.name} is not an order log: it ends in .csv, .csv.gz or .parquet")


def _csv(path: Path, wanted: OrderColumns, *, quick: bool) -> Iterator[Stretch]:
    total = path.stat().st_size
    try:
        with path.open("rb") as raw, warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a line with more fields than the header
            stream: Any = gzip.GzipFile(fileobj=raw) if path.name.lower().endswith(".gz") else raw
            header = stream.readline(LINE_BYTES_MAX)
            if len(header) == LINE_BYTES_MAX:
                raise InvalidInput(f"{path.name} has a line of more than {LINE_BYTES_MAX:,} bytes")
            text = header.decode("utf-8-sig").rstrip("\r\n").partition("\r")[0]
            separator = max(",;\t", key=text.count)
            stream.seek(0)
            options: dict[str, Any] = {"sep": separator, "dtype": "str", "index_col": False, "encoding": "utf-8-sig"}
            options |= {"keep_default_na": False, "na_filter": False}
            # A header of several lines, or of none before it, is for pandas, which reads on from there; so are lines that end in a
            # carriage return alone, as an old Mac writes them: all of them came in one.
            is_one_line = bool(text.strip()) and header.count(b'"') % 2 == 0 and b"\r" not in header.rstrip(b"\r\n")
            top = io.BytesIO(header) if is_one_line else stream
            names = [str(name) for name in pd.read_csv(top, nrows=0, **options).columns]
            top.seek(0)
            # As they are written: pandas calls the second `amount` of two amount.1.
            written = pd.read_csv(top, nrows=1, header=None, **options).iloc[0]
            chosen, _ = wanted.within([text or name for text, name in zip(written, names, strict=True)])
            if quick and is_one_line:
                stream.seek(len(header))
                yield from _pieces_read(stream, raw, total, separator, names, chosen)
                return
            stream.seek(0)
            for frame in pd.read_csv(stream, chunksize=_CHUNK_ROWS, **options):
                yield Stretch(frame[chosen.used].reset_index(drop=True), min(raw.tell(), total), total)
    except pd.errors.EmptyDataError:
        raise InvalidInput(f"{path.name} is empty") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as problem:
        raise InvalidInput(f"{path.name} is not a table of equal lines: {str(problem).strip()}") from None
    except UnicodeDecodeError as problem:
        raise InvalidInput(f"{path.name} is not UTF-8: {problem}", hint="save it as UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
        raise InvalidInput(f"{path.name} is no whole gzip file: {problem}") from None


def _pieces_read(
    stream: BinaryIO, raw: BinaryIO, total: int, separator: str, names: list[str], chosen: OrderColumns
) -> Iterator[Stretch]:
    """Every piece parsed, in order, while the next ones are being parsed."""
    waiting: deque[tuple[Future[pd.DataFrame], int]] = deque()
    empty = True
    with ThreadPoolExecutor(_READERS) as readers:
        try:
            for piece in _pieces(stream):
                waiting.append((readers.submit(_parsed, piece, separator, names, chosen.used), min(raw.tell(), total)))
                while len(waiting) > _READERS:
                    future, done = waiting.popleft()
                    yield Stretch(future.result(), done, total)
                    empty = False
            while waiting:
                future, done = waiting.popleft()
                yield Stretch(future.result(), done if waiting else total, total)
                empty = False
        finally:
            readers.shutdown(cancel_futures=True)
    if empty:
        yield Stretch(pd.DataFrame({name: pd.Series([], dtype="str") for name in chosen.used}), total, total)


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    """The bytes, cut where a line ends: behind a line feed that has an even number of quotes before it."""
    rest = b""
    while more := stream.read(_PIECE_BYTES):
        rest += more
        end, tries = rest.rfind(b"\n") + 1, 0
        while end and rest.count(b'"', 0, end) % 2:
            end, tries = rest.rfind(b"\n", 0, end - 1) + 1, tries + 1
            if tries > _TRIES:
                raise Irregular
        if end:
            yield rest[:end]
            rest = rest[end:]
        elif len(rest) > LINE_BYTES_MAX:
            raise InvalidInput(f"a line, or a text in quotes, has more than {LINE_BYTES_MAX:,} bytes")
    if rest.count(b'"') % 2:
        raise Irregular  # a quote that nobody closes
    if rest:
        yield rest


def _parsed(piece: bytes, separator: str, names: list[str], used: list[str]) -> pd.DataFrame:
    import pyarrow as pa
    from pyarrow import csv

    try:
        table = csv.read_csv(
            pa.BufferReader(piece),
            csv.ReadOptions(use_threads=False, block_size=len(piece) + 1, column_names=names),
            csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            csv.ConvertOptions(column_types=dict.fromkeys(used, pa.large_string()), include_columns=used),
        )
    except (pa.ArrowException, OverflowError) as problem:
        raise Irregular from problem
    return table.to_pandas()


def _parquet(path: Path, wanted: OrderColumns) -> Iterator[Stretch]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra("warehouse", "reading Parquet") from None
    try:
        with pq.ParquetFile(path) as file:
            chosen, _ = wanted.within(file.schema_arrow.names)
            total, done = file.metadata.num_rows, 0
            batches = map(_unboxed, file.iter_batches(batch_size=_CHUNK_ROWS, columns=chosen.used))
            with ThreadPoolExecutor(1) as ahead:  # the next one is decoded while this one is looked at
                coming = ahead.submit(next, batches, None)
                while (frame := coming.result()) is not None:
                    coming = ahead.submit(next, batches, None)
                    done += len(frame)
                    yield Stretch(frame, done, total)
            if not total:
                yield Stretch(file.schema_arrow.empty_table().select(chosen.used).to_pandas(), 0, 0)
    except pa.ArrowException as problem:
        raise InvalidInput(f"{path.name} is no whole Parquet file: {problem}") from None


def _unboxed(batch: Any) -> pd.DataFrame:
    """The batch without Python's dates and decimals, of which pandas would make one object a line."""
    import pyarrow as pa

    for place, field in enumerate(batch.schema):
        if pa.types.is_decimal(field.type):
            batch = batch.set_column(place, field.name, batch.column(place).cast(pa.float64()))
    return batch.to_pandas(date_as_object=False)
