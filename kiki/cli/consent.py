"""`kiki consent`: who consented to what; grant it, take it back, carry lists of it in and out."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from kiki.cli import show
from kiki.cli.options import LEDGER, Json, data_directory
from kiki.errors import InvalidInput, KikiError, NotFound

if TYPE_CHECKING:
    from kiki.shield.consent_change import Given
    from kiki.shield.consent_files import Format, ImportReport
    from kiki.shield.consent_record import ConsentRecord
    from kiki.shield.consent_store import ConsentStore

app = typer.Typer(help="Who consented to what.", no_args_is_help=True, rich_markup_mode=None)

PROBLEMS_SHOWN = 10

Customer = Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's id.")]
Purpose = Annotated[
    str,
    typer.Argument(
        metavar="PURPOSE", help="marketing, analytics, targeting, profiling, data_sharing, or one of KIKI_PURPOSES."
    ),
]
LedgerPath = Annotated[
    Path | None,
    typer.Option(
        "--ledger",
        metavar="PATH",
        help="The ledger that no service has open: its file, or its directory. By default that in KIKI_DATA_DIR.",
    ),
]
Version = Annotated[str, typer.Option("--version", metavar="TEXT", help="Of the notice that was shown.")]
Basis = Annotated[str | None, typer.Option("--basis", metavar="WORD", help="The legal basis, by default consent.")]
How = Annotated[str | None, typer.Option("--method", metavar="WORD", help="How it was said: form, email, phone, ...")]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; it is sealed for this person.")]
Jurisdiction = Annotated[str, typer.Option("--jurisdiction", metavar="TEXT", help="Whose law, for example EU, US-CA.")]
SaidAt = Annotated[
    str | None, typer.Option("--said-at", metavar="WHEN", help="When it was said, in the past: a day or RFC 3339.")
]


@app.command()
def grant(
    customer: Customer,
    purpose: Purpose,
    version: Version = "",
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="WHEN", help="365d (from now), 2027-11-22 or RFC 3339.")
    ] = None,
    basis: Basis = None,
    method: How = None,
    notice: Annotated[
        Path | None, typer.Option("--notice", metavar="FILE", help="The text that was shown; its SHA-256 is the proof.")
    ] = None,
    jurisdiction: Jurisdiction = "",
    guardian: Annotated[str, typer.Option("--guardian", metavar="NAME", help="Who speaks for the person.")] = "",
    overrides: Annotated[
        bool, typer.Option("--overrides", help="The person was told that an opt-out signal (GPC) says otherwise.")
    ] = False,
    said_at: SaidAt = None,
    note: Note = "",
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Write down that a customer consents.

    What holds already is answered and not written again.
    """
    given = _given(version=version, basis=basis, method=method, jurisdiction=jurisdiction, said_at=said_at, note=note)
    if expires is not None:
        given["expires_at"] = _expiry(expires)
    if notice is not None:
        given["notice"] = _read(notice)
    given["guardian"] = guardian
    given["overrides"] = overrides
    with _opened(ledger, may_make=True) as store:
        _tell(store.grant(customer, purpose, **given), as_json=as_json)


@app.command()
def revoke(
    customer: Customer,
    purpose: Purpose,
    method: How = None,
    said_at: SaidAt = None,
    note: Note = "",
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Write down that a customer takes consent back.

    Returns once nobody acts on it any more. What was never granted can be revoked, too.
    """
    with _opened(ledger, may_make=True) as store:
        _tell(store.revoke(customer, purpose, **_given(method=method, said_at=said_at, note=note)), as_json=as_json)


@app.command()
def deny(
    customer: Customer,
    purpose: Purpose,
    version: Version = "",
    method: How = None,
    said_at: SaidAt = None,
    note: Note = "",
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Write down that a customer was asked and said no."""
    given = _given(version=version, method=method, said_at=said_at, note=note)
    with _opened(ledger, may_make=True) as store:
        _tell(store.deny(customer, purpose, **given), as_json=as_json)


@app.command()
def status(customer: Customer, ledger: LedgerPath = None, as_json: Json = False) -> None:
    """Show what a customer consents to now."""
    with _opened(ledger) as store:
        records = store.status(customer)
    if as_json:
        show.as_json({purpose: record.as_dict() for purpose, record in records.items()})
    elif not records:
        show.line("nothing is known of this customer")
    else:
        _table(records.values())


@app.command()
def history(
    customer: Customer,
    purpose: Annotated[str | None, typer.Option("--purpose", metavar="WORD", help="Only this purpose.")] = None,
    ledger: LedgerPath = None,
    as_json: Json = False,
) -> None:
    """Show everything a customer ever said, oldest first."""
    with _opened(ledger) as store:
        records = store.history(customer, purpose)
    if as_json:
        show.as_json([record.as_dict() for record in records])
    elif not records:
        show.line("nothing is known of this customer")
    else:
        _table(records)


@app.command()
def check(customer: Customer, purpose: Purpose, ledger: LedgerPath = None, as_json: Json = False) -> None:
    """Ask whether a customer consents now.

    Exit code 0 when, 3 when not. Nothing is written down.
    """
    from kiki.errors import ConsentDenied

    with _opened(ledger) as store:
        try:
            found = store.require(customer, purpose)
        except ConsentDenied as error:
            if as_json:
                show.as_json({"allowed": False, "purpose": purpose, "state": error.state, "explanation": str(error)})
            else:
                show.line(f"no: {error}")
            raise typer.Exit(show.EXIT_REFUSED) from None
    if as_json:
        show.as_json({"allowed": True, "purpose": purpose, "state": found.state.value, "event_id": found.event_id})
    else:
        show.line(f"yes (event {found.event_id})")


@app.command("import")
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
    and run again: what is known already changes nothing.
    """
    from kiki.shield.consent_files import BATCH_ALONE, ImportReport, import_consents

    chosen = _format(form, file)
    report = ImportReport()
    with (
        _opened(ledger, may_make=True) as store,
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
        except BaseException:
            show.talk(f"stopped: everything up to line {report.durable_line} is durable; run it again, or go on with")
            show.talk(f"  kiki consent import {file} --after-line {report.durable_line}")
            raise
    _tell_import(report, as_json=as_json)
    if report.bad:
        raise typer.Exit(show.EXIT_REFUSED)


@app.command()
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
    as_json: Json = False,
) -> None:
    """Write out all consents, readable: keep the file as safe as the master key.

    CSV has the last word on each purpose; JSON has ISO/IEC TS 27560 records with everything that was said.
    """
    from kiki.cli.audit import written
    from kiki.shield.consent_files import Format, export_consents
    from kiki.shield.consent_json import Party

    chosen = Format.JSON if as_json else _format(form, output) if form or output else Format.CSV
    with _opened(ledger) as store, written(output) as write:
        count = export_consents(
            store,
            write,
            chosen,
            customer=customer,
            controller=Party(party_id="controller", party_role="pii_controller", party_name=controller) if controller else None,
            withdrawal=withdrawal,
        )
    if output is not None:
        show.talk(f"{count} records in {output}", dim=True)


# -- opening -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(given: Path | None, *, may_make: bool = False) -> Iterator[ConsentStore]:
    """The consents in a ledger that this process owns as long as it lasts."""
    from dataclasses import replace

    from kiki.cli.wiring import key_source
    from kiki.settings import LedgerSettings
    from kiki.shield.consent_store import ConsentStore

    path = data_directory(None) if given is None else given
    if path.suffix != ".db" and not path.is_file():
        path /= LEDGER
    if not path.exists():
        if not may_make:
            raise NotFound(f"there is no ledger at {path}", hint="name it with --ledger or KIKI_DATA_DIR")
        show.talk(f"a new ledger is made: {path}")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = key_source(replace(LedgerSettings.parse(os.environ), data_dir=path.parent))
    with ConsentStore.open(path, purposes=_purposes(), keys=keys) as store:
        yield store


def _purposes() -> tuple[str, ...]:
    from kiki.settings import purposes

    text = os.environ.get("KIKI_PURPOSES")
    try:
        return purposes(text) if text else ()
    except ValueError as error:
        raise InvalidInput(f"KIKI_PURPOSES={text!r}: {error}") from None


@contextlib.contextmanager
def _source(file: Path) -> Iterator[IO[str]]:
    """The file as text. Bytes that are no UTF-8 become characters that no field accepts, so they cost one line."""
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as source:
            yield source
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from None


# -- reading options ---------------------------------------------------------------------------------


def _given(
    *,
    version: str = "",
    basis: str | None = None,
    method: str | None = None,
    jurisdiction: str = "",
    said_at: str | None = None,
    note: str = "",
) -> Given:
    from kiki.shield.consent_csv import parse_when

    given: Given = {"version": version, "basis": basis, "jurisdiction": jurisdiction, "note": note, "actor": _actor()}
    # Whoever types this enters what somebody said elsewhere.
    given["method"] = method or "operator"
    if said_at is not None:
        given["said_at"] = parse_when(said_at)
    return given


def _actor() -> str:
    """Who types this, as the system knows it; empty where it does not."""
    import getpass

    try:
        return getpass.getuser()[:64]
    except (KeyError, OSError, ImportError):
        return ""


_SPAN = re.compile(r"([0-9]{1,6})(h|d|w)", re.ASCII)
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def _expiry(text: str) -> timedelta | int:
    from kiki.shield.consent_csv import parse_when

    span = _SPAN.fullmatch(text.strip())
    if span:
        return timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        return parse_when(text.strip())
    except InvalidInput:
        raise InvalidInput(
            f"{text[:40]!r} is not when consent expires: write 12h, 365d or 52w (from now), 2027-11-22, or RFC 3339"
        ) from None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read as text: {error}") from None


def _format(given: str | None, file: Path | None) -> Format:
    from kiki.shield.consent_files import Format

    word = given or ("" if file is None else file.suffix.lstrip(".").lower())
    word = {"jsonl": "json", "ndjson": "json"}.get(word, word)
    try:
        return Format(word)
    except ValueError:
        raise InvalidInput("which format? write --format csv, or --format json for ISO/IEC TS 27560 records") from None


# -- telling -----------------------------------------------------------------------------------------


def _tell(record: ConsentRecord, *, as_json: bool) -> None:
    if as_json:
        show.as_json({**record.as_dict(), "changed": record.changed})
        return
    until = "" if record.expires_at is None else f" until {_day(record.expires_at)}"
    already = "" if record.changed else ", as it was already"
    show.line(f"{record.state}: {record.purpose}{until}{already} (event {record.event_id})")


def _table(records: object) -> None:
    show.line(f"{'purpose':<16}{'state':<10}{'said':<22}{'until':<22}{'version':<10}{'how':<10}event")
    for record in records:  # type: ignore[attr-defined]  # an iterable of records
        show.line(
            f"{record.purpose:<16}{record.state:<10}{_day(record.said_at):<22}{_day(record.expires_at):<22}"
            f"{record.version or '-':<10}{record.method or '-':<10}{record.event_id}"
        )


def _day(moment: int | None) -> str:
    from kiki.clock import to_iso

    return "-" if moment is None else to_iso(moment)[:19] + "Z"


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
