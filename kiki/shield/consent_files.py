"""Consent in files: a whole list in, a whole list out, a line at a time, whatever their size.

An import may be stopped anywhere and run again: what is known already changes nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import IO, Final, NamedTuple

import msgspec

from kiki.errors import InvalidInput, KikiError
from kiki.ledger.subjects import ERASED
from kiki.shield.consent_change import Said, import_change, person_of
from kiki.shield.consent_csv import COLUMNS, parse_header, row_of, said_of_row
from kiki.shield.consent_json import Party, read_record, record_json, said_of_record
from kiki.shield.consent_record import ConsentRecord
from kiki.shield.consent_store import ConsentStore

BATCH: Final = 500
"""Statements in one commit: the decisions of a service wait for one batch at most."""
BATCH_ALONE: Final = 5000
"""The same where nobody else waits."""
PROBLEMS_MAX: Final = 1000
LINE_LENGTH_MAX: Final = 16 * 1024 * 1024


class Format(StrEnum):
    """How consent is written down in a file."""

    CSV = "csv"
    JSON = "json"
    """Records of ISO/IEC TS 27560, one a line."""


class Problem(NamedTuple):
    """A line that was not imported, and why."""

    line: int
    message: str


class ImportReport(msgspec.Struct):
    """How far an import is, and what became of the lines so far."""

    rows: int = 0
    changed: int = 0
    """Statements that were new and are durable now."""
    unchanged: int = 0
    """Statements that were known, or older than what is known."""
    suppressed: int = 0
    """Lines about persons who were erased: they are not brought back."""
    bad: int = 0
    durable_line: int = 0
    """Everything up to this line is done: go on behind it."""
    problems: list[Problem] = []
    """The first of the bad lines."""

    def blame(self, line: int, error: KikiError) -> None:
        """Count a line that cannot be imported."""
        self.bad += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(line, str(error)))


class _Line(NamedTuple):
    number: int
    """The last one that it takes up in the file."""
    said: Sequence[Said]
    error: KikiError | None = None


def import_consents(
    store: ConsentStore,
    source: IO[str],
    form: Format,
    *,
    report: ImportReport,
    after_line: int = 0,
    batch_max: int = BATCH,
    actor: str = "",
    progress: Callable[[ImportReport], object] = lambda _: None,
) -> None:
    """Write down what a file says, many lines to a commit; `report` tells at any moment how far it is.

    Lines up to `after_line` are passed over. A bad line is told in the report and stops nothing; a file whose
    first line makes no sense raises `InvalidInput`, and a ledger that cannot write raises `LedgerUnavailable`.
    """
    lines = _csv_lines(store, source, actor) if form is Format.CSV else _json_lines(store, source, actor)
    batch: list[tuple[int, Said]] = []
    subjects = store.decider.subjects
    suppresses = subjects.store.last(ERASED) is not None
    takes_back = False
    number = 0
    for number, said, error in lines:
        if number <= after_line:
            continue
        report.rows += 1
        if error is not None:
            report.blame(number, error)
        elif said and suppresses and subjects.erased_at(person_of(said[0].customer)) is not None:
            report.suppressed += 1
        else:
            batch += [(number, one) for one in said]
        if len(batch) >= batch_max:
            takes_back |= _write(store, batch, report)
            batch = []
            report.durable_line = number
            progress(report)
            suppresses = subjects.store.last(ERASED) is not None
    takes_back |= _write(store, batch, report)
    report.durable_line = max(number, report.durable_line)
    progress(report)
    if takes_back:
        store.leases.wait_all()


def _write(store: ConsentStore, batch: list[tuple[int, Said]], report: ImportReport) -> bool:
    """Make a batch durable; whether somebody said no who may have said yes before."""
    if not batch:
        return False
    takes_back = False
    for (number, _), wrote in zip(batch, store.change(import_change([one for _, one in batch])), strict=True):
        if isinstance(wrote, KikiError):
            report.blame(number, wrote)
        elif wrote.changed:
            report.changed += 1
            takes_back |= wrote.takes_back
        else:
            report.unchanged += 1
    return takes_back


def _csv_lines(store: ConsentStore, source: IO[str], actor: str) -> Iterator[_Line]:
    rows = csv.reader(source, strict=True)
    try:
        names = parse_header(next(rows, []))
    except csv.Error as error:
        raise InvalidInput(f"line 1 is not CSV: {error}") from None
    width = len(names)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield _Line(rows.line_num, (), InvalidInput(f"this is not CSV: {error}"))
            continue
        number = rows.line_num
        if not row:
            continue
        try:
            if len(row) != width:
                raise InvalidInput(f"the line has {len(row)} fields, and the first line names {width}")
            said = said_of_row(dict(zip(names, row, strict=True)), store.decider.clock(), store.purposes, actor)
        except InvalidInput as error:
            yield _Line(number, (), error)
        else:
            yield _Line(number, (said,))


def _json_lines(store: ConsentStore, source: IO[str], actor: str) -> Iterator[_Line]:
    number = 0
    while line := source.readline(LINE_LENGTH_MAX):
        number += 1
        if number == 1 and line.lstrip()[:1] == "[":
            raise InvalidInput("this is one JSON array: write one record a line, as `jq -c '.[]'` makes them of it")
        if not line.strip():
            continue
        try:
            if len(line) == LINE_LENGTH_MAX:
                raise InvalidInput(f"the line is longer than {LINE_LENGTH_MAX} characters")
            said = said_of_record(read_record(line), store.decider.clock(), store.purposes, actor)
        except InvalidInput as error:
            yield _Line(number, (), error)
        else:
            yield _Line(number, said)


def export_consents(
    store: ConsentStore,
    write: Callable[[str], object],
    form: Format,
    *,
    customer: str | None = None,
    controller: Party | None = None,
    withdrawal: str = "",
    progress: Callable[[int], object] = lambda _: None,
) -> int:
    """Write down the consents of everybody, or of one customer; how many. Memory does not grow with them.

    CSV has the last word on each purpose, JSON everything that was said.
    """
    records: Iterable[ConsentRecord] = (
        store.records(sealed=form is Format.CSV) if customer is None else store.status(customer).values()
    )
    rows = csv.writer(_Writer(write), lineterminator="\n")
    if form is Format.CSV:
        rows.writerow(COLUMNS)
    count = 0
    for count, record in enumerate(records, 1):
        if form is Format.CSV:
            rows.writerow(row_of(record))
        else:
            plain = record_json(store.past(record), controller, withdrawal)
            write(msgspec.json.encode(plain).decode() + "\n")
        if count % BATCH == 0:
            progress(count)
    progress(count)
    return count


class _Writer:
    """What the csv module writes to."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self.write = write
