"""Runs, plans and their stories as people read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kiki.cli.fitting import FittingTable
from kiki.clock import to_datetime
from kiki.flow.campaign_report import CampaignReport
from kiki.flow.event_words import sentence
from kiki.flow.plan_diff import Step
from kiki.flow.preview import Preview
from kiki.flow.progress import Phase
from kiki.flow.reconcile import Reconciliation
from kiki.flow.report_page import share, times
from kiki.flow.run_rows import RunRow
from kiki.flow.run_status import RunStatus
from kiki.flow.words import amount_in_words, coins_in_words

if TYPE_CHECKING:
    from kiki.flow.spend_forecast import SpendForecast

_MARKS = {
    Step.CREATE: ("+", "green"),
    Step.CHANGE: ("~", "yellow"),
    Step.PAUSE: ("-", "red"),
    Step.NOTHING: ("=", "dim"),
    Step.UNKNOWN: ("?", "red"),
    Step.CREATE_AGAIN: ("!", "red"),
}


def console() -> Console:
    """Stdout: as wide as the terminal, and wide in a file, where nobody's window ends."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=200)


def moment(micros: int | None) -> str:
    """A moment in UTC, to the second."""
    return "-" if micros is None else to_datetime(micros).strftime("%Y-%m-%d %H:%M:%SZ")


def preview(found: Preview) -> None:
    """What a plan would do."""
    out, money = console(), found.currency
    head = f"plan {found.plan}, version {found.version}, {found.starts} to {found.ends}"
    out.print(Text(head, style="bold"))
    for change in found.changes:
        mark, style = _MARKS[change.step]
        out.print(Text.assemble((f"  {mark} {change.step:<8}", style), f"{change.campaign} on {change.platform}"))
        for detail in change.details:
            out.print(Text(f"              {detail}", style="dim"))
    steps = [each.step for each in found.changes]
    counted = ", ".join(f"{steps.count(step)} {step}" for step in Step if step in steps)
    limit = "" if found.budget is None else f", total {amount_in_words(found.budget, money)}"
    out.print(f"{counted}: {amount_in_words(found.planned, money)} as planned, "
              f"at worst {amount_in_words(found.worst, money)}{limit}")  # fmt: skip
    if found.run:
        said = f"run {found.run} of this plan is open, and asks the guard for its money day by day"
        out.print(Text(said, style="dim"))
    if found.approval:
        out.print(Text(f"waits for approval: {found.approval}", style="yellow"))
    for problem in found.problems:
        out.print(Text(f"! {problem.what}", style="red"))


def runs(rows: Iterable[RunRow]) -> None:
    """A list of runs."""
    table = Table(box=None, pad_edge=False)
    for name in ("run", "state", "version", "started", "ended", "runner"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        version = row.version[:8]
        table.add_row(row.run, row.state, version, moment(row.made_at), moment(row.ended_at), row.owner or "-")
    console().print(FittingTable(table))


def status_table(status: RunStatus) -> RenderableType:
    """One run, a line for each campaign."""
    money = status.currency
    table = Table(box=None, pad_edge=False)
    for name in ("campaign", "platform", "state", "spends"):
        table.add_column(name, no_wrap=True)
    for name in ("budget/day", "days", "spent", "planned", "held", "value", "unknown"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("last")
    for lane in status.lanes:
        ended = lane.phase is Phase.ENDED
        table.add_row(
            lane.campaign,
            lane.platform,
            lane.how or lane.phase,
            Text("yes", style="green") if lane.active and not ended else "no",
            "-" if lane.budget is None else coins_in_words(lane.budget, money),
            f"{len(lane.spent)}/{lane.days}",
            coins_in_words(lane.spent_total, money),
            coins_in_words(lane.planned_so_far, money),
            coins_in_words(lane.held_total, money),
            coins_in_words(lane.value_total, money),
            str(lane.unknown) if lane.unknown else "-",
            lane.last_event.removeprefix("flow."),
        )
    table.add_section()
    return FittingTable(table)


def status_group(status: RunStatus) -> RenderableType:
    """One run with its head and its newest alerts."""
    money = status.currency
    kind = "sandbox, " if status.sandbox else ""
    head = f"run {status.run}: {kind}{status.state}, started {moment(status.made_at)}"
    if status.owner:
        head += f", on {status.owner}"
    total = f"spent {coins_in_words(status.spent, money)}, held {coins_in_words(status.held, money)}"
    limit = "" if status.budget is None else f", total {coins_in_words(status.budget, money)}"
    parts: list[RenderableType] = [Text(head, style="bold"), status_table(status), Text(f"{total}{limit}")]
    for alert in status.alerts[-5:]:
        said = f"! {moment(alert.at)} {alert.campaign}: {sentence(alert.event, alert.detail, money)}"
        parts.append(Text(said, style="yellow"))
    return Group(*parts)


def status(found: RunStatus) -> None:
    """The same, printed."""
    console().print(status_group(found))


def reconciliation(found: Reconciliation) -> None:
    """What does not agree, and what became of it."""
    out, money = console(), found.currency
    for each in found.findings:
        where = " ".join(part for part in (each.campaign, each.day) if part)
        amounts = f"{amount_in_words(each.ours, money)} here, {amount_in_words(each.theirs, money)} there"
        said = f"{each.kind:<10} {where}: {amounts}" + (f"; {each.detail}" if each.detail else "")
        out.print(Text(said + (" (in order now)" if each.solved else ""), style="green" if each.solved else "yellow"))
    left = sum(not each.solved for each in found.findings)
    out.print(f"{found.run}: {found.days} days compared, {len(found.findings)} findings, {left} left")


def report(found: CampaignReport) -> None:
    """Spend, value and pacing of each platform."""
    out, money = console(), found.currency
    kind = "sandbox, " if found.sandbox else ""
    out.print(Text(f"{found.plan}, {found.starts} to {found.ends}: {kind}{found.state}", style="bold"))
    table = Table(box=None, pad_edge=False)
    table.add_column("platform", no_wrap=True)
    for name in ("campaigns", "planned", "planned so far", "spent", "pacing", "held", "value", "return"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in (*found.platforms, found.total):
        table.add_row(
            each.platform,
            str(each.campaigns),
            coins_in_words(each.planned, money),
            coins_in_words(each.planned_so_far, money),
            coins_in_words(each.spent, money),
            share(each.pacing),
            coins_in_words(each.held, money),
            coins_in_words(each.value, money),
            times(each.returned),
            style="bold" if each is found.total else "",
        )
    out.print(FittingTable(table))


def forecast_in_words(found: SpendForecast, currency: str) -> str:
    """What a run will have cost, and how sure that is."""
    mean, low, high = (coins_in_words(micros, currency) for micros in (found.mean, found.low, found.high))
    return f"by {found.until}: about {mean}, with a chance of {found.covered:.0%} from {low} to {high} ({found.method})"


def watch(look: Callable[[], RunStatus], seconds: float) -> None:
    """The same, live, until the run has ended or Ctrl-C."""
    import time

    from rich.live import Live

    out = console()
    with Live(console=out, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            found = look()
            live.update(status_group(found), refresh=True)
            if not found.is_running:
                return
            time.sleep(seconds)
