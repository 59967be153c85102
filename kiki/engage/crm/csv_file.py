"""Customers and orders in CSV files: read whole and checked before the first record is told.

A file that has not changed tells nothing; one that has is read again, for records are recognised by their ids. What is
written back goes into a file beside it, `<name>.kiki.csv`: the file itself belongs to somebody else.
"""

from __future__ import annotations

import csv
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from kiki.clock import SECOND, Clock, wall_micros
from kiki.engage.crm.mark import dump_cursor, parse_cursor
from kiki.engage.crm.rows import (
    CUSTOMER_COLUMNS,
    CUSTOMER_NEEDS,
    ORDER_COLUMNS,
    ORDER_NEEDS,
    column_problems,
    customer_row,
    order_row,
)
from kiki.engage.event import Refund
from kiki.engage.profile import Profile
from kiki.engage.quiet_hours import zone_named
from kiki.engage.source import Page, Record
from kiki.errors import ConfigurationError, InvalidInput, SourceUnavailable
from kiki.outbound.exchange import UNAVAILABLE
from kiki.outbound.outcome import Outcome, done, refused

PAGE: Final = 1_000
PROBLEMS_MAX: Final = 20
TAGS: Final = "kiki_tags"
AHEAD: Final = 24 * 3600 * SECOND
"""So far ahead of us a moment may be: somebody else's day, written without its zone, or their clock."""


class _Cursor(msgspec.Struct, kw_only=True, omit_defaults=True):
    customers: str = ""
    """The digest of the file that is being read, or was."""
    orders: str = ""
    customers_row: int = -1
    """So many rows of it were told; -1: all of them."""
    orders_row: int = -1


class _File:
    """One of the two: its columns, and what a row becomes."""

    def __init__(
        self,
        name: str,
        path: Path,
        known: tuple[str, ...],
        needed: tuple[str, ...],
        read: Callable[[Mapping[str, Any]], tuple[Record, ...]],
        key: str,
    ) -> None:
        self.name, self.path, self.known, self.needed, self.read, self.key = name, path, known, needed, read, key

    def digest(self) -> str:
        try:
            with self.path.open("rb") as file:
                digest = sha256()
                while piece := file.read(1 << 20):
                    digest.update(piece)
                return digest.hexdigest()
        except OSError as error:
            raise SourceUnavailable(f"csv: {self.path}: {error.strerror}") from None

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each row with the number of its last line."""
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=_delimiter(file), strict=True, restkey="")
            for row in reader:
                yield reader.line_num, row

    def problems(self, latest: int) -> Iterator[str]:
        """What is wrong with it, each with its line; nothing happened after the moment `latest`."""
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                header = next(csv.reader(file, delimiter=_delimiter(file)), [])
            if wrong := column_problems(header, self.known, self.needed):
                yield from (f"{self.path}: {one}" for one in wrong)
                return
            seen: dict[str, int] = {}
            for line, row in self.rows():
                where = f"{self.path}, line {line}"
                if "" in row or None in row.values():
                    yield f"{where}: it has another number of columns than the first line"
                    continue
                try:
                    yield from (f"{where}: {one}" for one in _overlooked(row, self.read(row), latest))
                except InvalidInput as error:
                    yield f"{where}: {error}"
                key = row[self.key].strip()
                if seen.setdefault(key, line) != line:
                    yield f"{where}: {self.key} {key[:40]!r} stands in line {seen[key]} too"
        except UnicodeDecodeError:
            yield f"{self.path}: it is not UTF-8"
        except csv.Error as error:
            yield f"{self.path}: {error}"


class CsvSource:
    """See `Source`."""

    name: Final = "csv"

    def __init__(self, customers: Path, orders: Path | None = None, clock: Clock = wall_micros) -> None:
        files = [
            _File(
                "customers", customers, CUSTOMER_COLUMNS, CUSTOMER_NEEDS, lambda row: (customer_row(row),), "customer"
            )
        ]
        if orders is not None:
            read = lambda row: tuple(order_row(row, self.name))  # noqa: E731  # beside its twin
            files.append(_File("orders", orders, ORDER_COLUMNS, ORDER_NEEDS, read, "id"))
        self._files = files
        self._beside = customers.with_name(f"{customers.stem}.kiki.csv")
        self._writing = threading.Lock()
        self._clock = clock

    def changes(self, since: str) -> Iterator[Page]:
        """See `Source`. Raises `ConfigurationError` with all that is wrong in the files."""
        cursor = parse_cursor(since, _Cursor, self.name)
        new = []
        for file in self._files:
            digest = file.digest()
            if getattr(cursor, file.name) != digest:
                setattr(cursor, file.name, digest)
                setattr(cursor, f"{file.name}_row", 0)
            if getattr(cursor, f"{file.name}_row") >= 0:
                new.append(file)
        self._require(new)
        for file in new:
            yield from self._pages(file, cursor)

    def upsert(self, updates: Mapping[str, Mapping[str, str]]) -> Mapping[str, Outcome]:
        """See `Source`."""

        def change(kept: dict[str, dict[str, str]]) -> None:
            for customer, fields in updates.items():
                kept.setdefault(customer, {}).update(fields)

        return dict.fromkeys(updates, self._write(change))

    def tag(self, customer: str, tags: Collection[str]) -> Outcome:
        """See `Source`."""

        def change(kept: dict[str, dict[str, str]]) -> None:
            row = kept.setdefault(customer, {})
            row[TAGS] = ";".join(sorted({*filter(None, row.get(TAGS, "").split(";")), *tags}))

        return self._write(change)

    def check(self) -> tuple[str, ...]:
        """See `Source`."""
        try:
            for file in self._files:
                file.digest()
            self._require(self._files)
        except ConfigurationError as error:
            return error.problems
        except SourceUnavailable as error:
            return (str(error),)
        return ()

    def close(self) -> None:
        """Nothing is open between readings."""

    def _pages(self, file: _File, cursor: _Cursor) -> Iterator[Page]:
        row_name = f"{file.name}_row"
        told, records = getattr(cursor, row_name), list[Record]()
        for count, (_, row) in enumerate(file.rows(), 1):
            if count <= told:
                continue
            records += file.read(row)
            setattr(cursor, row_name, count)
            if len(records) >= PAGE:
                yield Page(tuple(records), dump_cursor(cursor))
                records = []
        setattr(cursor, row_name, -1)
        yield Page(tuple(records), dump_cursor(cursor))

    def _require(self, files: Collection[_File]) -> None:
        problems: list[str] = []
        latest = self._clock() + AHEAD
        for file in files:
            for problem in file.problems(latest):
                problems.append(problem)
                if len(problems) == PROBLEMS_MAX:
                    raise ConfigurationError([*problems, "and perhaps more"])
        if problems:
            raise ConfigurationError(problems)

    def _write(self, change: Callable[[dict[str, dict[str, str]]], None]) -> Outcome:
        with self._writing:
            try:
                kept: dict[str, dict[str, str]] = {}
                if self._beside.exists():
                    with self._beside.open(encoding="utf-8", newline="") as file:
                        kept = {row.pop("customer"): row for row in csv.DictReader(file)}
                change(kept)
                names = sorted({name for row in kept.values() for name in row})
                draft = self._beside.with_name(f".{self._beside.name}.{os.getpid()}")
                with draft.open("w", encoding="utf-8", newline="") as file:
                    writer = csv.DictWriter(file, ["customer", *names], restval="")
                    writer.writeheader()
                    writer.writerows({"customer": customer} | row for customer, row in sorted(kept.items()))
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(self._beside)
            except (OSError, csv.Error, KeyError) as error:
                return refused(UNAVAILABLE, f"csv: {self._beside} cannot be written: {type(error).__name__}")
            return done()


def _overlooked(row: Mapping[str, str], records: Collection[Record], latest: int) -> Iterator[str]:
    """What a row says and nobody would hear: who reads a record takes these for not known. The values are a person's."""
    for record in records:
        if isinstance(record, Profile):
            if record.zone and zone_named(record.zone) is None:
                yield "column zone: no time zone of the IANA list: write it as Europe/Vienna"
            if row.get("country", "").strip() and not record.country:
                yield "column country: no code of two letters: write it as AT"
        for name in ("changed_at", "last_purchase", "last_engagement", "at"):
            if (getattr(record, name, None) or 0) > latest:
                yield f"column {'refunded_at' if isinstance(record, Refund) else name}: it lies in the future"


def _delimiter(file: TextIO) -> str:
    """A semicolon where the first line has one and no comma: spreadsheets of half the world write so."""
    first = file.readline()
    file.seek(0)
    return ";" if ";" in first and "," not in first else ","
