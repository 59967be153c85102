"""`kiki consent import` and `export`: lists of consents in and out, a line at a time."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from kiki.cli import show
from kiki.cli.consent_access import Remote, open_consents
from kiki.cli.consent_ledger import LedgerPath
from kiki.cli.options import Json, TokenFile, Url
from kiki.cli.place import open_unserved
from kiki.errors import InvalidInput, KikiError, LedgerLocked

if TYPE_CHECKING:
    from kiki.shield.consent_files import Format, ImportReport

PROBLEMS_SHOWN = 10


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, or ISO/IEC TS 27560 records, one a line.")],
    form: Annotated[str | None, typer.Option("--format", metavar="csv|json", help="By default by its name.")] = None,
    after_line: Annotated[
        int, typer.Option("--after-line", min=0, metavar="N", help="Go on behind the line that a broken-off run named.")
    ] = 0,
    problems: Annotated[
        Path | None,
        typer.Option("--problems", metavar="FILE", help="Write every refused line's number and reason here."),
    ] = None,
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Take over a list of consents.

    Bad lines are told and left out (exit code 3), persons who were erased are not brought back. It may be stopped
    and run again: what is known already changes nothing. It needs the ledger to itself: no service takes lists.
    """
    from kiki.shield.consent_files import BATCH_ALONE, ImportReport, import_consents

    chosen = _format(form, file)
    report = ImportReport()
    with (
        _uncollected(),
        open_unserved(ledger, what="an import", may_make=True) as store,
        _source(file) as source,
        _told_problems(problems) as blame,
        _bar(file, source, report) as progress,
    ):
        try:
            import_consents(
                store,
                source,
                chosen,
                report=report,
                after_line=after_line,
                batch_max=BATCH_ALONE,
                blame=blame,
                progress=progress,
            )
        except InvalidInput:
            raise  # the file makes no sense: nothing was begun
        except BaseException:
            show.talk(f"stopped: everything up to line {report.durable_line} is durable; run it again, or go on with")
            show.talk(f"  kiki consent import {file} --after-line {report.durable_line}")
            raise
    _tell_import(report, as_json=as_json)
    if report.bad:
        raise typer.Exit(show.EXIT_REFUSED)


def export(
    form: Annotated[str | None, typer.Option("--format", metavar="csv|json", help="By default by the name.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there, whole or not at all.")
    ] = None,
    customer: Annotated[str | None, typer.Option("--customer", metavar="ID", help="Only this customer.")] = None,
    controller: Annotated[
        str | None, typer.Option("--controller", metavar="NAME", help="Who asks for consent; stands in the records.")
    ] = None,
    withdrawal: Annotated[
        str, typer.Option("--withdrawal", metavar="TEXT", help="How to take consent back; stands in the records.")
    ] = "",
    ledger: LedgerPath = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Write out all consents, readable: keep the file as safe as the master key.

    CSV has the last word on each purpose; JSON has ISO/IEC TS 27560 records with everything that was said, and needs
    the ledger to itself.
    """
    from kiki.cli.audit import written
    from kiki.shield.consent_files import Format, export_consents, write_csv
    from kiki.shield.consent_json import Party

    chosen = Format.JSON if as_json else _format(form, output) if form or output else Format.CSV
    with open_consents(ledger, url, token_file) as consents, written(output) as write:
        if not isinstance(consents, Remote):
            count = export_consents(
                consents.store,
                write,
                chosen,
                customer=customer,
                controller=Party(party_id="controller", party_role="pii_controller", party_name=controller)
                if controller
                else None,
                withdrawal=withdrawal,
            )
        elif chosen is Format.CSV:
            count = write_csv(consents.everybody() if customer is None else consents.status(customer).values(), write)
        else:
            # A record is named by the person's reference, which no service tells.
            raise LedgerLocked(
                "ISO/IEC TS 27560 records are written from the ledger itself",
                hint="write --format csv, or stop the service and give --ledger",
            )
    if output is not None:
        show.talk(f"{count} records in {output}", dim=True)


@contextlib.contextmanager
def _source(file: Path) -> Iterator[IO[str]]:
    """The file as text. Bytes that are no UTF-8 become characters that no field accepts, so they cost one line."""
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as source:
            yield source
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from None


def _format(given: str | None, file: Path | None) -> Format:
    from kiki.shield.consent_files import Format

    word = given or ("" if file is None else file.suffix.lstrip(".").lower())
    word = {"jsonl": "json", "ndjson": "json"}.get(word, word)
    try:
        return Format(word)
    except ValueError:
        raise InvalidInput("which format? write --format csv, or --format json for ISO/IEC TS 27560 records") from None


def _tell_import(report: ImportReport, *, as_json: bool) -> None:
    if as_json:
        show.as_json(report)
        return
    show.line(
        f"{report.rows} lines: {report.changed} new, {report.unchanged} known already, "
        f"{report.suppressed} about erased persons, {report.bad} refused"
    )
    for problem in report.problems[:PROBLEMS_SHOWN]:
        show.talk(f"line {problem.line}: {problem.message}")
    if report.bad > PROBLEMS_SHOWN:
        show.talk(f"... and {report.bad - PROBLEMS_SHOWN} more; --problems FILE writes all of them down", dim=True)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """A million lines make no cycles, and looking for some would take a fifth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def _told_problems(file: Path | None) -> Iterator[Callable[[int, KikiError], object]]:
    if file is None:
        yield lambda _line, _error: None
        return
    try:
        with file.open("w", encoding="utf-8") as output:
            yield lambda line, error: output.write(f"{line}\t{error}\n")
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def _bar(file: Path, source: IO[str], report: ImportReport) -> Iterator[Callable[[ImportReport], object]]:
    """A progress bar on stderr while a person looks on."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("importing"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rows]} lines, {task.fields[bad]} refused"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=max(1, file.stat().st_size), rows=0, bad=0)

        def told(now: ImportReport) -> None:
            # How far the bytes are read, not the text: the text's own `tell` is forbidden while it is iterated.
            read = source.buffer.tell()  # type: ignore[attr-defined]  # an opened file has one
            bar.update(task, completed=read, rows=now.rows, bad=now.bad)

        yield told
