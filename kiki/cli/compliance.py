"""`kiki compliance`: the report that a privacy officer hands on, and the register of breaches."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiki.cli import show
from kiki.cli.options import DataDir, Json, TokenFile, Url, open_client, parse_when
from kiki.cli.place import is_offline
from kiki.errors import InvalidInput, KikiError

if TYPE_CHECKING:
    from datetime import datetime

    from kiki.shield.compliance_report import ComplianceReport

app = typer.Typer(
    help="Report what the ledger shows about compliance; declare breaches.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def report(
    period: Annotated[
        str | None,
        typer.Option("--period", metavar="WORD", help="daily, weekly, monthly (without any), quarterly or yearly."),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="WHEN", help="From then on: 7d, 2026-11-22 or RFC 3339.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="WHEN", help="Until before that; without: until now.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page for people there, too.")
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show the compliance report of a period.

    Asks the service. With --data-dir, or where nothing listens, it reads the ledger, which may be written meanwhile.
    """
    first, last = parse_when(since), parse_when(until)
    if period is not None and (first or last):
        raise InvalidInput("give either --period, or --from (and --to)")
    if last is not None and first is None:
        raise InvalidInput("--to needs --from: when does the period begin?")
    if is_offline(data_dir, url):
        found = _read(data_dir, period, first, last)
    else:
        with open_client(url, token_file) as client:
            found = client.compliance.report(period, since=first, until=last)
    if html is not None:
        _write_page(html, found)
    if as_json:
        show.as_json(found)
        return
    for line in _lines(found):
        show.line(line)


@app.command()
def breach(
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="Your name of the incident; no personal data.")],
    found: Annotated[
        str | None,
        typer.Option("--found", metavar="WHEN", help="When it became known; without: as declared before, else now."),
    ] = None,
    notified: Annotated[
        str | None, typer.Option("--notified", metavar="WHEN", help="When the authority was told.")
    ] = None,
    affected: Annotated[
        int | None, typer.Option("--affected", metavar="N", help="How many persons it concerns.")
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Declare a breach of personal data, or tell more about one.

    It is written down for good, and counts in the report.
    """
    with open_client(url, token_file) as client:
        reply = client.compliance.declare_breach(
            reference, found_at=parse_when(found), notified_at=parse_when(notified), affected=affected
        )
    if as_json:
        show.as_json(reply)
        return
    told = (
        f"the authority was told at {reply.notified_at}"
        if reply.notified_at
        else (f"the authority has to be told by {reply.authority_due_at}")
    )
    show.line(f"declared: {reply.reference}, found {reply.found_at}; {told} (event {reply.event_id})")


def _read(
    data_dir: Path | None, period: str | None, since: datetime | None, until: datetime | None
) -> ComplianceReport:
    """The report over a ledger that nobody is asked about: in a directory, or in a database with all its chains."""
    from kiki.cli.ledger_access import access
    from kiki.clock import wall_micros
    from kiki.ledger.source import Database
    from kiki.settings import shield_setting
    from kiki.shield.compliance_report import period_between, period_of
    from kiki.shield.compliance_survey import everything_is_held, request_lines, survey
    from kiki.shield.probe import Surroundings
    from kiki.shield.wire_compliance import PERIOD_DEFAULT

    now = wall_micros()
    chosen = (
        period_of(period or PERIOD_DEFAULT, now)
        if since is None
        else period_between(_micros(since), now if until is None else _micros(until))
    )
    ledger = access(None, data_dir)
    place = None if isinstance(ledger.source, Database) else ledger.source.parent
    with ledger.readers() as (reader, *others):
        around = Surroundings(
            reader=reader,
            others=others,
            now=now,
            wall=now,
            retention_days=shield_setting(os.environ, "RETENTION_DAYS"),
            requests=request_lines(reader),
            on_hold=everything_is_held(reader),
            verifier_key=ledger.verifier_key(reader),
            data_dir=place,
            master_key_file=_key_file(data_dir),
            has_archive=bool(os.environ.get("KIKI_ARCHIVE")),
        )
        return survey(around, chosen)


def _micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def _key_file(data_dir: Path | None) -> Path | None:
    """The file of the master key, if it comes from one."""
    from dataclasses import replace

    from kiki.cli.wiring import key_file
    from kiki.settings import LedgerSettings

    settings = LedgerSettings.parse(os.environ)
    return key_file(settings if data_dir is None else replace(settings, data_dir=data_dir))


def _write_page(path: Path, found: ComplianceReport) -> None:
    from kiki.shield.compliance_page import compliance_page

    try:
        path.write_text(compliance_page(found), encoding="utf-8")
    except OSError as error:
        raise KikiError(f"{path} cannot be written: {error.strerror}") from error
    if sys.stderr.isatty():
        show.talk(f"the page is in {path}", dim=True)


def _chains(names: list[str]) -> str:
    return f"chain{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _lines(found: ComplianceReport) -> list[str]:
    numbers = [
        ("score", f"{found.compliance_score:g} %"),
        ("events in the audit", f"{found.total_events:,}"),
        ("security events", f"{found.security_events:,}"),
        ("changes of consent", f"{found.consent_changes:,}"),
        ("access requests received", f"{found.data_access_requests:,}"),
        ("deletions completed", f"{found.data_deletions:,}"),
        ("requests open / overdue", f"{found.requests.open} / {found.requests.overdue}"),
        ("breaches declared", f"{found.data_breaches:,}"),
    ]
    lines = [f"{found.period}: {found.since[:16]}Z to {found.until[:16]}Z, {_chains(found.chains)}", ""]
    lines += [f"  {name:<26}{value:>12}" for name, value in numbers]
    lines.append("")
    lines += [f"  {each.verdict.value:<8} {each.said}" for each in found.probes]
    if found.recommendations:
        lines += ["", *(f"  to do: {each}" for each in found.recommendations)]
    return lines
