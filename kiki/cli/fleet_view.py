"""The live picture of the four services. It draws what `fleet_look` saw, and decides nothing."""

from __future__ import annotations

from collections import deque
from io import StringIO
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kiki.cli.budget_watch import Rates
from kiki.cli.budget_watch import table as budgets_table
from kiki.cli.fleet import ENGAGE, FLOW, SHIELD, VALUE
from kiki.cli.fleet_look import RunLook, Snapshot
from kiki.money import MICROS
from kiki.shield.wire_moment import moment_micros

_NAMES: Final = {SHIELD: "SyncShield", VALUE: "SyncValue", FLOW: "SyncFlow", ENGAGE: "SyncEngage"}
_COLOURS: Final = {"ready": "green", "starting": "yellow", "not ready": "red", "stopped": "red"}
_OUTCOMES: Final = {"APPROVED": "green", "GRANTED": "green", "DENIED": "red", "REVOKED": "yellow", "NOTED": "dim"}
NOTES_KEPT: Final = 3


class FleetView:
    """Remembers what is needed for rates, and the latest words of the supervisor."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._rates = Rates()
        self._before: Snapshot | None = None
        self._per_second = 0.0
        self.notes: deque[str] = deque(maxlen=NOTES_KEPT)

    def frame(self, now: Snapshot) -> RenderableType:
        """The picture of this moment."""
        before, self._before = self._before, now
        if before is not None and now.at > before.at:
            done = now.admitted + now.refused - before.admitted - before.refused
            self._per_second = 0.6 * self._per_second + 0.4 * max(0.0, done) / (now.at - before.at)
        if now.budgets is not None:
            self._rates.see(now.at, now.budgets.meters())
        layout = Layout()
        layout.split_column(
            Layout(self._head(now), name="head", size=len(now.services) + 2),
            Layout(self._budgets(now), name="budgets", ratio=3),
            Layout(name="middle", ratio=4),
            Layout(self._foot(), name="foot", size=NOTES_KEPT),
        )
        layout["middle"].split_row(
            Layout(self._decisions(now), ratio=6),
            Layout(self._campaigns(now), ratio=6),
            Layout(self._people(now), ratio=3),
        )
        return layout

    def _head(self, now: Snapshot) -> RenderableType:
        table = Table(box=None, pad_edge=False, expand=True, show_header=False)
        for _ in range(5):
            table.add_column(no_wrap=True, overflow="ellipsis")
        for each in now.services:
            state = Text(f"● {each.state}", style=_COLOURS[each.state])
            restarts = f"restarted {each.restarts}x" if each.restarts else ""
            told = Text(each.detail or restarts, style="dim")
            table.add_row(
                _NAMES[each.service], state, f"http://localhost:{each.port}", f"{each.requests:,.0f} requests", told
            )
        return Panel(table, title=self._title, title_align="left")

    def _budgets(self, now: Snapshot) -> RenderableType:
        if now.budgets is None:
            return Panel(Text("SyncShield does not answer yet", style="dim"), title="budgets", title_align="left")
        at = moment_micros(now.budgets.at)
        return Panel(budgets_table(now.budgets, at, self._rates), title=f"budgets, {now.currency}", title_align="left")

    def _decisions(self, now: Snapshot) -> RenderableType:
        table = Table(box=None, pad_edge=False, expand=True, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(no_wrap=True, justify="right")
        for each in now.decisions:
            spent = each.detail.replace("amount=", "") if each.detail.startswith("amount=") else ""
            told = spent or f"{each.what.replace('_', ' ')} {each.resource}"
            table.add_row(
                Text(each.at[11:19], style="dim"),
                told,
                Text(each.outcome.lower(), style=_OUTCOMES.get(each.outcome, "")),
            )
        title = f"decisions, {self._per_second:,.0f}/s: {now.admitted:,.0f} admitted, {now.refused:,.0f} refused"
        return Panel(table, title=title, title_align="left")

    def _campaigns(self, now: Snapshot) -> RenderableType:
        if not now.runs:
            return Panel(
                Text("no campaign runs: kiki campaign run PLAN", style="dim"), title="campaigns", title_align="left"
            )
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("campaign", no_wrap=True, overflow="ellipsis", ratio=1)
        for name in ("spent", "held", ""):
            table.add_column(name, justify="right", no_wrap=True)
        for run in now.runs[:12]:
            table.add_row(f"{run.campaign}", _money(run.spent), _money(run.held), _phase(run))
        total = sum(run.spent for run in now.runs)
        return Panel(table, title=f"campaigns, {_money(total)} spent", title_align="left")

    def _people(self, now: Snapshot) -> RenderableType:
        table = Table(box=None, pad_edge=False, expand=True, show_header=False)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(justify="right", no_wrap=True)
        for word, count in sorted(now.messages.items()):
            table.add_row(f"messages {word}", f"{count:,.0f}")
        for word, count in sorted(now.verdicts.items(), key=lambda item: -item[1])[:5]:
            table.add_row(Text(word.replace("_", " "), style="dim"), f"{count:,.0f}")
        table.add_row("values predicted", f"{now.predictions:,.0f}")
        return Panel(table, title="people", title_align="left")

    def _foot(self) -> RenderableType:
        return Group(*(Text(note, style="dim", no_wrap=True, overflow="ellipsis") for note in self.notes))


def line(now: Snapshot) -> str:
    """The same in a line, for whoever is no terminal."""
    states = ", ".join(f"{each.service} {each.state}" for each in now.services)
    spent = sum(run.spent for run in now.runs)
    return (
        f"{states}; {now.admitted:,.0f} admitted, {now.refused:,.0f} refused; {len(now.runs)} campaigns, {_money(spent)} spent; "
        f"{sum(now.messages.values()):,.0f} messages; {now.predictions:,.0f} predictions"
    )


def picture(view: FleetView, now: Snapshot, width: int = 132, height: int = 34) -> str:
    """One frame as SVG, for documents."""
    console = Console(record=True, width=width, height=height, file=StringIO(), force_terminal=True)
    console.print(view.frame(now))
    return console.export_svg(title="kiki up --demo")


def _money(micros: int) -> str:
    return f"{micros / MICROS:,.2f}"


def _phase(run: RunLook) -> Text:
    colour = {"running": "green", "completed": "cyan", "failed": "red"}.get(run.phase, "yellow")
    return Text(run.phase, style=colour)
