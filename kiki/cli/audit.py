"""`kiki audit`: the decisions in the ledger, read from its file beside whoever writes it."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiki.cli import evidence, show
from kiki.cli.ledger_access import access, written_file
from kiki.cli.options import DataDir, Json, OneScope, OutcomeWord, Since, Until, require_order, when_micros
from kiki.errors import InvalidInput

if TYPE_CHECKING:
    from kiki.shield.evidence import Row

app = typer.Typer(
    help="Export, follow, prove and verify the decisions in the ledger.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
evidence.register(app)


class Format(StrEnum):
    """How decisions are written down."""

    CSV = "csv"
    JSONL = "jsonl"


@app.command()
def export(
    form: Annotated[Format, typer.Option("--format", help="CSV for people, JSON lines for programs.")] = Format.CSV,
    since: Since = None,
    until: Until = None,
    outcome: OutcomeWord = None,
    scope: OneScope = None,
    campaign: Annotated[
        str | None, typer.Option("--campaign", metavar="NAME", help="The story of one campaign: --scope campaign:NAME.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there, whole or not at all.")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Write out every decision that matches, oldest first."""
    from kiki.settings import shield_setting
    from kiki.shield import evidence as decisions

    if campaign is not None:
        if scope is not None:
            raise InvalidInput("give either --campaign or --scope")
        scope = f"campaign:{campaign}"

    begin, end = when_micros(since), when_micros(until)
    require_order(begin, end)
    with access(None, data_dir).readers() as readers, written(output) as write:
        count = decisions.export(
            readers,
            write,
            format="jsonl" if as_json or form is Format.JSONL else "csv",
            retention_days=shield_setting(os.environ, "RETENTION_DAYS"),
            since=begin,
            until=end,
            outcome=outcome,
            scope=scope,
            progress=_progress(output),
        )
    if output is not None:
        show.talk(f"{count} rows in {output}", dim=True)


@app.command()
def tail(
    count: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last decisions.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with every new one, until Ctrl-C.")] = False,
    outcome: OutcomeWord = None,
    scope: OneScope = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show the last decisions, oldest first."""
    from kiki.shield import evidence as decisions

    with access(None, data_dir).readers() as readers:
        for row in decisions.tail(
            readers, count, follow=follow, outcome=outcome, scope=scope, decisions=True, sleep=_sleep_while_read
        ):
            if as_json:
                show.as_json(row.as_dict())
            else:
                show.line(_told(row))
            if follow:
                sys.stdout.flush()


def _sleep_while_read(seconds: float) -> None:
    """Wait, unless whoever read the output is gone: a ledger where nothing happens would never find that out."""
    try:
        poll = select.poll()
        poll.register(sys.stdout, 0)
    except (ValueError, OSError):
        time.sleep(seconds)
        return
    if poll.poll(seconds * 1000):
        raise BrokenPipeError


def _told(row: Row) -> str:
    from kiki.clock import to_iso
    from kiki.money import format_micros

    amount = "" if row.amount is None else format_micros(row.amount)
    words = (
        to_iso(row.at)[:19] + "Z",
        f"{row.outcome or '-':<8}",
        f"{row.verb:<7}",
        f"{amount:>12}",
        " ".join(row.scopes) or "-",
        row.reason,
        row.event_id,
    )
    return "  ".join(words)


@contextlib.contextmanager
def written(output: Path | None) -> Iterator[Callable[[str], object]]:
    """Where the export goes. A file appears under its name only when it is complete."""
    if output is None:
        yield sys.stdout.write
        return
    with written_file(output, 0o600) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield text.write
        text.detach()


def _progress(output: Path | None) -> Callable[[int, int], None] | None:
    """A percentage on stderr, while a person looks on and the rows go elsewhere."""
    if not sys.stderr.isatty() or (output is None and sys.stdout.isatty()):
        return None

    def told(done: int, total: int) -> None:
        end = "\n" if done >= total else ""
        sys.stderr.write(f"\r{100 * done // max(1, total):3d} %{end}")
        sys.stderr.flush()

    return told
