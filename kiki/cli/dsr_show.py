"""Requests of data subjects on the screen: as a list with days left, one in full, and live while it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from kiki.cli import show
from kiki.clock import SECOND, to_iso
from kiki.shield.deadline import DAY, Due
from kiki.shield.dsr import State, Step
from kiki.shield.request_record import RequestRecord, word_of
from kiki.shield.subject_data import Progress

SOON_DAYS = 7
_COLOURS = {"failed": "red", "exception": "yellow", "done": "green"}


def days_left(record: RequestRecord, now: int) -> int | None:
    """Whole days until the answer is due, negative once it is late; None for one that is closed."""
    if record.due_at is None or not record.state.is_open:
        return None
    return (record.due_at - now) // DAY


def table(records: Sequence[RequestRecord], now: int) -> None:
    """The requests, one a line; what is late in red, what is due within a week in yellow."""
    show.line(f"{'request':<24}{'type':<15}{'state':<26}{'due':<12}{'left':<9}{'assigned':<14}customer")
    for record in records:
        left = days_left(record, now)
        due = "-" if record.due_at is None or left is None else to_iso(record.due_at)[:10]
        told = "-" if left is None else f"{left} d" if left >= 0 else f"{-left} d late"
        assigned = record.request.assignee or "-"
        text = (
            f"{record.id:<24}{record.kind:<15}{record.state:<26}{due:<12}{told:<9}{assigned:<14}"
            f"{record.customer or '(erased)'}"
        )
        print_coloured(text, None if left is None or left >= SOON_DAYS else "red" if left < 0 else "yellow")


def whole(record: RequestRecord, now: int) -> None:
    """Everything about one request."""
    request, left = record.request, days_left(record, now)
    show.line(f"{record.id}  {record.kind}  {record.state}")
    for label, text in (
        ("customer", record.customer or "(erased)"),
        ("received", to_iso(request.received_at)[:19] + "Z"),
        (
            "verified",
            "" if request.verified_at is None else f"{to_iso(request.verified_at)[:19]}Z by {request.verified_by}",
        ),
        ("assigned", request.assignee),
        ("purposes", ", ".join(request.purposes)),
        ("closed", "" if request.closed_at is None else to_iso(request.closed_at)[:19] + "Z"),
        ("provision", request.article),
        ("legal hold", ", ".join(request.held)),
        ("next attempt", "" if request.next_attempt_at is None else to_iso(request.next_attempt_at)[:19] + "Z"),
        ("asked", record.details.details if record.details else ""),
    ):
        if text:
            show.line(f"  {label:<14}{text}")
    for deadline in record.deadlines:
        if deadline.due is Due.EXTEND and left is None:
            continue
        stands = ", standing still" if deadline.is_paused else ""
        show.line(f"  {deadline.due + ' by':<14}{deadline.day} {deadline.zone}{stands}  ({deadline.rule})")
    if left is not None:
        told = f"{left} days left" if left >= 0 else f"{-left} days late"
        print_coloured(f"  {'':<14}{told}", "red" if left < 0 else "yellow" if left < SOON_DAYS else None)
    for name, outcome in request.systems.items():
        word = word_of(outcome)
        counts = [
            f"{number} {label}"
            for label, number in (
                ("located", outcome.located),
                ("exported", outcome.exported),
                ("rectified", outcome.rectified),
                ("erased", outcome.erased),
            )
            if number is not None
        ]
        counts += [f"{outcome.left} still found"] if outcome.left else []
        counts += [f"failed: {outcome.failure}"] if outcome.failure else []
        print_coloured(f"  {name:<14}{word:<11}{', '.join(counts)}", _COLOURS.get(word))
        for kept in outcome.kept:
            until = "" if kept.until is None else f" until {to_iso(kept.until)[:10]}"
            form = "" if kept.readable else ", names nobody"
            show.line(f"  {'':<14}stays: {kept.reason} ({kept.article}){until}{form}")


def ended(record: RequestRecord) -> None:
    """How a run ended, in a line or two."""
    if record.state is State.WAITING:
        for name, outcome in record.request.systems.items():
            if outcome.failure:
                show.line(f"{name}: {outcome.failure}")
        at = to_iso(record.request.next_attempt_at or 0)[:19]
        show.line(f"{record.id} waits: not everything is done; next attempt from {at}Z")
        return
    show.line(f"{record.id}: {record.state}")
    for name, outcome in record.request.systems.items():
        for kept in outcome.kept:
            if kept.readable:
                show.line(f"  {name} keeps {kept.records} records: {kept.reason} ({kept.article})")
    if record.request.held:
        show.line(f"  under legal hold: {', '.join(record.request.held)}")


@contextmanager
def live() -> Iterator[Progress]:
    """Shows on stderr what a run does: a table that changes on a terminal, else a line for each step."""
    if not sys.stderr.isatty():
        yield _lines
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    seen: dict[str, tuple[str, str]] = {}

    def drawn() -> Table:
        found = Table("system", "step", "", box=None, pad_edge=False)
        for system, (step, outcome) in seen.items():
            found.add_row(system, step, outcome or "…", style="red" if step == Step.FAILED else None)
        return found

    with Live(drawn(), console=Console(stderr=True), refresh_per_second=8) as shown:

        def progress(system: str, step: str, outcome: str) -> None:
            seen[system] = (str(step), outcome)
            shown.update(drawn())

        yield progress


def _lines(system: str, step: str, outcome: str) -> None:
    if outcome:
        show.talk(f"  {system:<14}{step!s:<12}{outcome}", dim=True)


def print_coloured(text: str, colour: str | None) -> None:
    """A line of a result, in colour where somebody looks at it."""
    wanted = colour is not None and sys.stdout.isatty() and "NO_COLOR" not in os.environ
    if wanted:
        typer.echo(typer.style("".join(letter for letter in text if letter.isprintable()), fg=colour))
    else:
        show.line(text)


def within_micros(days: int, now: int) -> int:
    """The moment so many days from now."""
    return now + days * DAY + SECOND
