"""Requests of data subjects on the screen: as a list with days left, one in full, and live while it runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import typer

from kiki.cli import show
from kiki.shield.deadline import DAY, Due
from kiki.shield.dsr import State, Step
from kiki.shield.subject_data import Progress
from kiki.shield.wire_moment import moment_micros
from kiki.shield.wire_request_answer import KeptReply, RequestReply, SystemReply

SOON_DAYS = 7
_COLOURS = {"failed": "red", "exception": "yellow", "done": "green"}


def is_open(reply: RequestReply) -> bool:
    """Whether something is left to do."""
    return State(reply.state).is_open


def plain(replies: Sequence[msgspec.Struct]) -> list[Any]:
    """Replies as JSON has them."""
    return [msgspec.to_builtins(reply) for reply in replies]


def days_left(reply: RequestReply, now: int) -> int | None:
    """Whole days until the answer is due, negative once it is late; None for one that is closed."""
    if not reply.due_at or not is_open(reply):
        return None
    return (moment_micros(reply.due_at) - now) // DAY


def table(replies: Sequence[RequestReply]) -> None:
    """The requests, one a line; what is late in red, what is due within a week in yellow."""
    now = time.time_ns() // 1000
    show.line(f"{'request':<24}{'type':<15}{'state':<26}{'due':<12}{'left':<9}{'assigned':<14}customer")
    for reply in replies:
        left = days_left(reply, now)
        due = "-" if left is None else reply.due_at[:10]
        text = (
            f"{reply.request_id:<24}{reply.type:<15}{reply.state:<26}{due:<12}{_left(left, 'd'):<9}"
            f"{reply.assignee or '-':<14}{reply.customer_id or '(erased)'}"
        )
        print_coloured(text, _urgency(left))


def whole(reply: RequestReply) -> None:
    """Everything about one request."""
    left = days_left(reply, time.time_ns() // 1000)
    show.line(f"{reply.request_id}  {reply.type}  {reply.state}")
    for label, text in (
        ("customer", reply.customer_id or "(erased)"),
        ("received", _second(reply.received_at)),
        ("from", reply.requested_by),
        ("agent", reply.agent),
        ("asked", reply.details),
        ("purposes", ", ".join(reply.purposes)),
        ("acknowledged", _second(reply.acknowledged_at)),
        ("verified", reply.verified_at and f"{_second(reply.verified_at)} by {reply.verified_by}"),
        ("assigned", reply.assignee),
        ("next attempt", _second(reply.next_attempt_at)),
        ("closed", _second(reply.closed_at)),
        ("provision", reply.article),
        ("legal hold", ", ".join(reply.legal_holds)),
    ):
        if text:
            show.line(f"  {label:<14}{text}")
    for deadline in reply.deadlines:
        if left is None and deadline.due != Due.ANSWER:
            continue
        stands = ", standing still" if deadline.paused else ""
        show.line(f"  {deadline.due + ' by':<14}{deadline.day} {deadline.time_zone}{stands}  ({deadline.rule})")
    if left is not None:
        print_coloured(f"  {'':<14}{_left(left, 'days')}", _urgency(left))
    for name, system in reply.systems.items():
        print_coloured(f"  {name:<14}{system.outcome:<11}{', '.join(_counts(system))}", _COLOURS.get(system.outcome))
        for kept in system.kept:
            show.line(f"  {'':<14}{_kept(kept)}")


def ended(reply: RequestReply) -> None:
    """How a run ended, in a few lines."""
    if is_open(reply):
        for name, system in reply.systems.items():
            if system.failure:
                show.line(f"{name}: {system.failure}")
        since = f"; next attempt from {_second(reply.next_attempt_at)}" if reply.next_attempt_at else ""
        show.line(f"{reply.request_id} is {reply.state}: not everything is done{since}")
        return
    show.line(f"{reply.request_id}: {reply.state}")
    for name, system in reply.systems.items():
        for kept in system.kept:
            if kept.readable:
                show.line(f"  {name}: {kept.records} records stay: {kept.reason} ({kept.article})")
    if reply.legal_holds:
        show.line(f"  under legal hold: {', '.join(reply.legal_holds)}")


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


def print_coloured(text: str, colour: str | None) -> None:
    """A line of a result, in colour where somebody looks at it."""
    if colour is not None and sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        typer.echo(typer.style("".join(filter(str.isprintable, text)), fg=colour))
    else:
        show.line(text)


def _lines(system: str, step: str, outcome: str) -> None:
    if outcome:
        show.talk(f"  {system:<14}{step!s:<12}{outcome}", dim=True)


def _left(left: int | None, unit: str) -> str:
    if left is None:
        return "-"
    return (
        f"{left} {unit} left"
        if unit == "days" and left >= 0
        else f"{left} {unit}"
        if left >= 0
        else f"{-left} {unit} late"
    )


def _urgency(left: int | None) -> str | None:
    if left is None or left >= SOON_DAYS:
        return None
    return "red" if left < 0 else "yellow"


def _counts(system: SystemReply) -> list[str]:
    counted = (
        ("located", system.located),
        ("exported", system.exported),
        ("rectified", system.rectified),
        ("erased", system.erased),
        ("still found", system.left),
    )
    found = [f"{number} {label}" for label, number in counted if number is not None]
    return [*found, f"failed: {system.failure}"] if system.failure else found


def _kept(kept: KeptReply) -> str:
    until = f" until {kept.until[:10]}" if kept.until else ""
    return f"stays: {kept.reason} ({kept.article}){until}{'' if kept.readable else ', names nobody'}"


def _second(moment: str) -> str:
    return f"{moment[:19]}Z" if moment else ""
