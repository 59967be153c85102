"""The picture of the budgets: once as a table, or live with bars, the rate of spending and the time until room."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kiki.cli.fitting import FittingTable
from kiki.clock import SECOND
from kiki.errors import KikiError, Unavailable
from kiki.money import format_micros
from kiki.shield.policy import format_span, format_wait
from kiki.shield.window import MeterStatus
from kiki.shield.wire import BudgetsReply
from kiki.shield.wire_moment import moment_micros

POLL_SECONDS = 0.5
RATE_SECONDS = 10.0
BAR_WIDTH = 28
BAR_WIDTH_MIN = 8


class Rates:
    """Money spent per second and meter over the last seconds, from what polls saw.

    A window's sum falls when old spends leave it, so only rises count: the rate is never too high.
    """

    def __init__(self, span: float = RATE_SECONDS) -> None:
        self._span = span
        self._last: dict[tuple[str, str, int], int] = {}
        self._rises: deque[tuple[float, dict[tuple[str, str, int], int]]] = deque()

    def see(self, now: float, meters: list[MeterStatus]) -> None:
        """Take in one poll."""
        seen = {_id(meter): meter.spent for meter in meters}
        rises = {each: max(0, spent - self._last[each]) for each, spent in seen.items() if each in self._last}
        self._rises.append((now, rises))
        self._last = seen
        while len(self._rises) > 1 and self._rises[1][0] <= now - self._span:
            self._rises.popleft()

    def of(self, meter: MeterStatus) -> int | None:
        """Micros per second, None before there were two polls."""
        if len(self._rises) < 2:
            return None
        elapsed = self._rises[-1][0] - self._rises[0][0]
        # What rose up to the first poll that is kept happened before it.
        risen = sum(rises.get(_id(meter), 0) for _, rises in list(self._rises)[1:])
        return round(risen / elapsed) if elapsed > 0 else None


def _id(meter: MeterStatus) -> tuple[str, str, int]:
    return meter.budget, meter.scope, meter.span


def bar(meter: MeterStatus, width: int = BAR_WIDTH) -> Text:
    """Spent, held and free as one bar; anything that is not nothing shows."""
    limit = max(1, meter.limit)
    spent = min(width, -(-max(0, meter.spent) * width // limit))
    held = min(width - spent, -(-meter.held * width // limit))
    part = (meter.spent + meter.held) / limit
    colour = "red" if part >= 1 else "yellow" if part >= 0.8 else "green"
    return Text.assemble(("█" * spent, colour), ("▒" * held, "cyan"), ("░" * (width - spent - held), "dim"))


class Bar:
    """A bar that takes what the terminal leaves it."""

    def __init__(self, meter: MeterStatus) -> None:
        self._meter = meter

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield bar(self._meter, min(BAR_WIDTH, options.max_width))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(BAR_WIDTH_MIN, options.max_width), min(BAR_WIDTH, options.max_width))


def room(meter: MeterStatus, at: int) -> str:
    """How long until money comes back."""
    if meter.room_at is None:
        return "-"
    return format_wait(max(0, meter.room_at - at))


def table(reply: BudgetsReply, at: int, rates: Rates | None = None) -> Table:
    """One row for each window, as of the moment `at`."""
    found = Table(box=None, pad_edge=False)
    for name in ("budget", "scope"):
        found.add_column(name, overflow="fold")
    for name in ("window", "spent", "held", "left", "limit"):
        found.add_column(name, justify="right", no_wrap=True)
    found.add_column("", min_width=BAR_WIDTH_MIN)
    if rates is not None:
        found.add_column("rate/s", justify="right", no_wrap=True)
    found.add_column("room in", justify="right", no_wrap=True)
    for meter in reply.meters():
        rate = None if rates is None else rates.of(meter)
        found.add_row(
            Text(meter.budget),
            Text(meter.scope),
            format_span(meter.span),
            format_micros(meter.spent),
            format_micros(meter.held),
            format_micros(meter.remaining),
            format_micros(meter.limit),
            Bar(meter),
            *([] if rates is None else ["-" if rate is None else _cents(rate)]),
            room(meter, at),
        )
    return found


def _cents(micros: int) -> str:
    return format_micros(micros - micros % 10_000) if micros >= 10_000 else format_micros(micros)


def _halted(reply: BudgetsReply) -> Text | None:
    return Text(f"halted: {', '.join(reply.halts)}", style="bold red") if reply.halts else None


def print_once(reply: BudgetsReply) -> None:
    """The table, on stdout."""
    console = Console(highlight=False)
    if not console.is_terminal:
        # Nobody's window ends at 80 columns in a file.
        console = Console(highlight=False, width=200)
    console.print(FittingTable(table(reply, moment_micros(reply.at))))
    halted = _halted(reply)
    if halted is not None:
        console.print(halted)


class Watch:
    """What is on the screen: the last answer, and since when there was none."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.rates = Rates()
        self.reply: BudgetsReply | None = None
        self.seen_at = 0.0
        self.trouble = ""

    def poll(self, look: Callable[[], BudgetsReply], now: float) -> None:
        """Ask once; a service that is away is shown and asked again."""
        try:
            self.reply = look()
        except Unavailable as error:
            self.trouble = str(error)
            return
        self.trouble, self.seen_at = "", now
        self.rates.see(now, self.reply.meters())

    def frame(self, now: float) -> RenderableType:
        """The picture of this moment."""
        parts: list[RenderableType] = []
        if self.reply is not None:
            at = moment_micros(self.reply.at) + round((now - self.seen_at) * SECOND)
            head = f"{self.url}  {self.reply.window} window  {self.reply.currency}  {self.reply.at[:19]}Z"
            parts += [Text(head, style="dim"), FittingTable(table(self.reply, at, self.rates))]
            halted = _halted(self.reply)
            if halted is not None:
                parts.append(halted)
        if self.trouble:
            since = "" if self.reply is None else f" (last answer {now - self.seen_at:.0f} s ago)"
            parts.append(Text(f"{self.trouble}{since}", style="red"))
        return Group(*parts)


def watch(look: Callable[[], BudgetsReply], url: str, console: Console | None = None) -> None:
    """Show the budgets live until Ctrl-C. Errors other than an absent service end it."""
    state = Watch(url)
    with Live(console=console or Console(highlight=False), auto_refresh=False) as live:
        while True:
            began = time.monotonic()
            try:
                state.poll(look, began)
            except KikiError:
                live.update("", refresh=True)
                raise
            live.update(state.frame(time.monotonic()), refresh=True)
            time.sleep(max(0.0, POLL_SECONDS - (time.monotonic() - began)))
