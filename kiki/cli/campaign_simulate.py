"""`kiki campaign simulate`: pacing and allocation judged on a simulated market, before money is spent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kiki.cli import show
from kiki.cli.options import Json
from kiki.cli.stages import stages

if TYPE_CHECKING:
    from kiki.flow.market_simulation import Simulated

_ENDINGS: Final = (".png", ".svg")
_SHOCKS: Final = {"none": "usual prices", "double": "prices double at noon", "half": "prices halve at noon"}
_DIVISIONS: Final = {"equal": "equal split", "adaptive": "adaptive"}


def simulate(
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=1000, help="How many markets.")] = 10,
    seed: Annotated[int, typer.Option("--seed", min=0, max=1_000_000, help="The first market's number.")] = 0,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw it, too: a .png or .svg file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what pacing and allocation earn on a simulated market, beside greedy bidding and an equal split.

    Pacing: a day of 20,000 auctions with a budget that greedy bidding spends by 38 % of the day; the value won, as a share of
    what is best with all prices known. Allocation: seven campaigns with returns that nobody knows, 60 days; the return, as a
    share of what is best with all of them known. The same seeds give the same numbers.
    """
    _require_picture(plot)
    try:
        from kiki.flow.market_simulation import simulate as run
    except ModuleNotFoundError as error:
        from kiki.errors import MissingExtra

        raise MissingExtra("flow", "the simulation") from error

    with stages() as told:
        found = run(seeds, first=seed, told=told)
    if plot is not None:
        from kiki.flow.simulation_picture import draw

        draw(found, plot)
    if as_json:
        show.as_json(found)
    else:
        _table(found)
        if plot is not None:
            show.talk(f"drawn: {plot}")


def _require_picture(plot: Path | None) -> None:
    if plot is not None and plot.suffix.lower() not in _ENDINGS:
        raise typer.BadParameter(f"{plot.name!r} ends in neither .png nor .svg", param_hint="--plot")


def _table(found: Simulated) -> None:
    show.line(f"pacing, {found.seeds} markets: share of the best possible value (worst market; budget spent)")
    for shock, bidders in found.pacing.items():
        show.line(f"  {_SHOCKS[shock]}")
        for name, pace in bidders.items():
            over = f"  {pace.overspent} micros over" if pace.overspent else ""
            show.line(f"    {name:<14} {pace.share:.3f}  ({pace.worst:.3f}; {pace.spent:.0%}){over}")
    show.line("allocation, 7 campaigns, 60 days: share of the best possible return (worst market; last 30 days)")
    for name, division in found.allocation.items():
        line = f"{division.share:.3f}  ({division.worst:.3f}; {division.late_share:.3f})"
        show.line(f"    {_DIVISIONS[name]:<14} {line}")
