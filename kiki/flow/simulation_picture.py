"""What `kiki campaign simulate` found, as one picture: how money went over the day, and what dividing it earned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kiki.errors import InvalidInput, MissingExtra
from kiki.flow.market_simulation import Simulated

_COLOURS = {
    "greedy": "#b0563b",
    "even line": "#8a8a8a",
    "dual pacing": "#1f6f8b",
    "equal": "#8a8a8a",
    "adaptive": "#1f6f8b",
}
_TITLES = {"none": "usual prices", "double": "prices double at noon", "half": "prices halve at noon"}


def draw(found: Simulated, file: Path) -> None:
    """Write it as PNG or SVG, by the file's ending. Raises `MissingExtra` without matplotlib, `InvalidInput` for a bad path."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtra("plot", "drawing the simulation") from error

    figure = Figure(figsize=(12, 6.4), layout="constrained")
    upper, lower = list(figure.subfigures(2, 1, squeeze=False)[:, 0])
    for axes, (shock, bidders) in zip(upper.subplots(1, 3, sharey=True), found.pacing.items(), strict=True):
        hours = [1.2 * (each + 1) for each in range(20)]
        for name, pace in bidders.items():
            axes.plot([0, *hours], [0, *pace.line], color=_COLOURS[name], label=f"{name}: {pace.share:.2f}")
        axes.set(title=_TITLES[shock], xlabel="hour of the day", xlim=(0, 24), ylim=(0, 1.03))
        _tidy(axes, "lower right", "value won, share of the best")
    upper.axes[0].set_ylabel("budget spent")
    axes = lower.subplots()
    for name, division in found.allocation.items():
        days = range(1, len(division.by_day) + 1)
        axes.plot(days, division.by_day, color=_COLOURS[name], label=f"{name}: {division.share:.3f}")
    axes.set(xlabel="day", ylabel="return, share of the best", title="dividing a day's money among seven campaigns")
    axes.set_ylim(top=1.005)
    _tidy(axes, "center right", "mean over all days")
    try:
        figure.savefig(file, dpi=120)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {error.strerror}") from error


def _tidy(axes: Any, where: str, title: str) -> None:
    axes.legend(loc=where, frameon=False, fontsize=8, title=title, title_fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
