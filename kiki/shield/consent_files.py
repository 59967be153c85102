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
BATCH_ALONE: Final = 50_000
"""The same where nobody else waits."""
PROBLEMS_MAX: Final = 1000
_TOLD_EVERY: Final = 1000
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
    blame: Callable[[int, KikiError], object] = lambda _line, _error: None,
    progress: Callable[[ImportReport], object] = lambda _: None,
) -> None:
    """Write down what a file says, many lines to a commit; `report` tells at any moment how far it is.

    Lines up to `after_line` are passed over. A bad line is counted, told to `blame`, and stops nothing; a file
    whose first line makes no sense raises `InvalidInput`, a ledger that cannot write raises `LedgerUnavailable`.
    Returns once nobody acts any more on consent that the file takes back.
    """
    lines = _csv_lines(store, source, actor) if form is Format.CSV else _json_lines(store, source, actor)
    batches = _Batches(store, report, blame)
    number, waiting = 0, 0
    for number, said, error in lines:
        if number <= after_line:
            continue
        report.rows += 1
        waiting += 1
        if error is not None:
            batches.refuse(number, error)
        else:
            batches.add(number, said)
        if waiting >= batch_max or batches.size >= batch_max:
            batches.write(number)
            waiting = 0
            progress(report)
        elif waiting % _TOLD_EVERY == 0:
            progress(report)
    batches.write(number)
    progress(report)
    if batches.took_back:
        store.leases.wait_all()


class _Batches:
    """Gathers what lines say and makes it durable, a batch at a time."""

    def __init__(self, store: ConsentStore, report: ImportReport, blame: Callable[[int, KikiError], object]) -> None:
        self._store = store
        self._report = report
        self._blame = blame
        self._waiting: list[tuple[int, Sequence[Said]]] = []
        self._refused: list[tuple[int, KikiError]] = []
        self.size = 0
        self.took_back = False
        """Somebody said no who may have said yes before."""

    def add(self, number: int, said: Sequence[Said]) -> None:
        """Take in what a line says."""
        self._waiting.append((number, said))
        self.size += len(said)

    def refuse(self, number: int, error: KikiError) -> None:
        """Take in that a line cannot be imported."""
        self._refused.append((number, error))

    def write(self, number: int) -> None:
        """Make durable what was taken in, up to line `number`."""
        report, waiting = self._report, self._allowed()
        self._waiting, self.size = [], 0
        if waiting:
            done = self._store.change(import_change([one for _, one in waiting]))
            for (line, _), wrote in zip(waiting, done, strict=True):
                if isinstance(wrote, KikiError):
                    self.refuse(line, wrote)
                elif wrote.changed:
                    report.changed += 1
                    self.took_back |= wrote.takes_back
                else:
                    report.unchanged += 1
        self._tell_refused()
        report.durable_line = max(number, report.durable_line)

    def _tell_refused(self) -> None:
        """In the order of their lines: some are found when they are read, others when they are written."""
        for number, error in sorted(self._refused, key=lambda one: one[0]):
            self._report.bad += 1
            if len(self._report.problems) < PROBLEMS_MAX:
                self._report.problems.append(Problem(number, str(error)))
            self._blame(number, error)
        self._refused = []

    def _allowed(self) -> list[tuple[int, Said]]:
        """What is said of persons who were not erased."""
        subjects = self._store.decider.subjects
        # Where nobody was ever erased, nobody needs to be looked up.
        suppresses = subjects.store.last(ERASED) is not None
        allowed: list[tuple[int, Said]] = []
        for number, said in self._waiting:
            if suppresses and said and subjects.erased_at(person_of(said[0].customer)) is not None:
                self._report.suppressed += 1
            else:
                allowed += [(number, one) for one in said]
        return allowed


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
    if form is Format.CSV:
        return write_csv(store.records() if customer is None else store.status(customer).values(), write, progress)
    count = 0
    for count, record in enumerate(
        store.records(sealed=False) if customer is None else store.status(customer).values(), 1
    ):
        plain = record_json(store.past(record), controller, withdrawal)
        write(msgspec.json.encode(plain).decode() + "\n")
        if count % BATCH == 0:
            progress(count)
    progress(count)
    return count


def write_csv(
    records: Iterable[ConsentRecord], write: Callable[[str], object], progress: Callable[[int], object] = lambda _: None
) -> int:
    """Write records down as CSV, wherever they come from; how many."""
    rows = csv.writer(_Lines(write))
    rows.writerow(COLUMNS)
    count = 0
    for count, record in enumerate(records, 1):
        rows.writerow(row_of(record))
        if count % BATCH == 0:
            progress(count)
    progress(count)
    return count


class _Lines:
    """What the csv module writes rows to. It quotes what its line ends hold, so it gets both; files get a line feed."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def write(self, row: str) -> None:
        """One row."""
        self._write(row.removesuffix("\r\n") + "\n")
