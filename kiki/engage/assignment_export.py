"""Assignments and outcomes for analysis elsewhere, as CSV or Parquet: who is a number that only this export knows.

The number is a keyed hash; the key is thrown away unless the caller keeps it, so that two exports cannot be joined and
nobody can be found in them. Money is whole micros.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Final, NamedTuple

from kiki.clock import to_iso
from kiki.engage.moment import parse_moment
from kiki.errors import InvalidInput, MissingExtra

_ROWS_AT_ONCE: Final = 50_000
_KEY_LEAST: Final = 16


class Assignment(NamedTuple):
    """One person's place in one experiment, with what came of it."""

    person: str
    """The customer's id; it does not leave."""
    experiment: str
    arm: str
    propensity: float
    assigned_at: int
    """Microseconds since the epoch."""
    window_ended: bool
    """Whether the outcome is complete."""
    margin: int
    """Micros, after the cost of contact."""
    early: int = 0
    """How often the early outcome came: visits, clicks through."""


COLUMNS: Final = (
    *("person", "experiment", "arm", "propensity", "assigned_at", "window_ended", "margin_micros", "early"),
)


def pseudonym(key: bytes, person: str) -> str:
    """The number that stands for a person in one export."""
    if len(key) < _KEY_LEAST:
        raise InvalidInput(f"the key of an export has at least {_KEY_LEAST} bytes")
    return hashlib.blake2b(person.encode("utf-8", "surrogatepass"), digest_size=16, key=key[:64]).hexdigest()


def write_csv(file: IO[str], assignments: Iterable[Assignment], key: bytes) -> int:
    """Write them with a header; how many rows."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    count = 0
    for count, each in enumerate(assignments, start=1):  # noqa: B007 - the number of rows is the result
        writer.writerow(_row(each, key))
    return count


def csv_text(assignments: Iterable[Assignment], key: bytes) -> str:
    """The same as one text."""
    out = io.StringIO(newline="")
    write_csv(out, assignments, key)
    return out.getvalue()


def csv_rows(text: str) -> Iterator[Assignment]:
    """What `csv_text` wrote, each person under the number that stands for them there."""
    for person, experiment, arm, propensity, at, ended, margin, early in islice(csv.reader(io.StringIO(text)), 1, None):
        moment = parse_moment(at)
        yield Assignment(person, experiment, arm, float(propensity), moment, ended == "True", int(margin), int(early))


def write_parquet(path: Path, assignments: Iterable[Assignment], key: bytes) -> int:
    """Write a Parquet file; how many rows. Needs the extra `warehouse`."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra("warehouse", "Parquet") from None
    types = (pa.string(), pa.string(), pa.string(), pa.float64(), pa.string(), pa.bool_(), pa.int64(), pa.int64())
    schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
    rows: Iterator[tuple[object, ...]] = (_row(each, key) for each in assignments)
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        while some := list(islice(rows, _ROWS_AT_ONCE)):
            columns = [pa.array(column, kind) for column, kind in zip(zip(*some, strict=True), types, strict=True)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            count += len(some)
    return count


def _row(each: Assignment, key: bytes) -> tuple[object, ...]:
    return (
        pseudonym(key, each.person),
        each.experiment,
        each.arm,
        each.propensity,
        to_iso(each.assigned_at),
        each.window_ended,
        each.margin,
        each.early,
    )
