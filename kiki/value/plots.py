"""The plots that people expect of a model of customer lifetime value, as matplotlib figures.

Every function takes arrays and returns a `Figure` of 800 by 450 pixels; nothing is drawn on a screen and no global setting is
touched. Colours are those of Okabe and Ito (2008), which people with any colour vision tell apart, and series differ in line
or pattern too. The same arrays give the same bytes: no date, no chance.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kiki.errors import InvalidInput, MissingExtra
from kiki.value.deciles import Deciles
from kiki.value.evaluation import LEVELS
from kiki.value.groups import Floats
from kiki.value.history_grid import HistoryGrid
from kiki.value.orders import day_of
from kiki.value.tracking import Tracking
from kiki.value.whole_file import write_whole

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter
except ImportError as _missing:
    raise MissingExtra("plot", "drawing plots") from _missing

INK: Final = "#1b1f24"
GRID: Final = "#d0d7de"
ACTUAL: Final = "#1b1f25"
FORECAST: Final = "#0072b2"
SECOND: Final = "#d55e00"
IMPOSSIBLE: Final = "#eceff2"

PAPER: Final = "#ffffff"

THEME: Final = {
    INK: "--ink",
    ACTUAL: "--actual",
    FORECAST: "--forecast",
    SECOND: "--second",
    GRID: "--line",
    IMPOSSIBLE: "--empty",
    PAPER: "--paper",
}
"""The name in CSS of each colour: a page that defines it gives an inline picture its own light and dark colours."""

FORMATS: Final = ("png", "svg")

_DPI: Final = 100
_SIZE: Final = (8.0, 4.5)
_BINS: Final = 20

# matplotlib types its settings by a list of all their names, which changes with every release.
_STYLE: Final[Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.unicode_minus": True,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "date.converter": "concise",
    "legend.frameon": False,
    "lines.linewidth": 2,
    "svg.hashsalt": "kiki",
    "svg.fonttype": "path",
    "path.simplify": True,
}


def cumulative_tracking(tracking: Tracking) -> Figure:
    """Repeat purchases since the first day, as they happened and as the model expected them."""
    return _tracked(tracking, np.cumsum(tracking.actual), np.cumsum(tracking.expected), "Cumulative repeat purchases")


def weekly_tracking(tracking: Tracking) -> Figure:
    """Repeat purchases of each week, as they happened and as the model expected them."""
    return _tracked(tracking, tracking.actual, tracking.expected, "Repeat purchases of each week")


def expected_purchases(grid: HistoryGrid, *, age: float, horizon: float, unit: str = "week") -> Figure:
    """A heat map of expected purchases in the next `horizon` units, by frequency and recency of a customer of age `age`."""
    title = f"Expected purchases in the next {_span(horizon, unit)}"
    return _heat_map(grid, title, "expected purchases", age=age, unit=unit, top=None)


def probability_alive(grid: HistoryGrid, *, age: float, unit: str = "week") -> Figure:
    """A heat map of P(alive) at the end of the calibration, by frequency and recency of a customer of age `age`."""
    return _heat_map(grid, "Probability of being alive", "P(alive)", age=age, unit=unit, top=1.0)


def calibration(pit: npt.ArrayLike, *, what: str) -> Figure:
    """Is the predictive distribution of `what` ("purchases", "revenue") true? From randomised PIT values, one a customer.

    On the left their histogram, flat when the distribution is true; on the right how many outcomes lay inside of central
    intervals of every nominal level. Grey is what 95 of 100 true distributions would show. Raises `InvalidInput` for values
    that are not between 0 and 1, or for none.
    """
    values = np.asarray(pit, dtype=np.float64).ravel()
    if not values.size or not ((values >= 0) & (values <= 1)).all():
        raise InvalidInput("PIT values are probabilities: numbers from 0 to 1, one at least")
    with mpl.rc_context(_STYLE):
        figure = _figure()
        left, right = _calibration_axes(figure, what)
        bins = min(_BINS, max(values.size // 5, 1))
        counts, _ = np.histogram(values, bins=bins, range=(0, 1))
        _pit_histogram(left, counts / values.size, values.size)
        inside = np.sort(2 * np.abs(values - 0.5))
        nominal = np.linspace(0, 1, 101)
        actual = np.searchsorted(inside, nominal, side="right") / values.size
        _coverage(right, {level: float(np.interp(level / 100, nominal, actual)) for level in LEVELS}, values.size)
        right.plot(nominal, actual, color=FORECAST)
    return figure


def measured_calibration(
    shares: Sequence[float], before: Mapping[int, float], after: Mapping[int, float], *, customers: int, what: str
) -> Figure:
    """The same from what a model's card holds: `shares` of PIT values in bins of equal width, and coverage by level in per cent.

    The histogram and `before` are of the distribution as it was forecast, `after` is of recalibrated intervals.
    """
    with mpl.rc_context(_STYLE):
        figure = _figure()
        left, right = _calibration_axes(figure, what)
        _pit_histogram(left, np.asarray(shares, dtype=np.float64), customers)
        _coverage(right, after, customers)
        levels = [level / 100 for level in before]
        right.plot(levels, [*before.values()], "o", color=FORECAST, mfc="none", ms=8, label="before recalibration")
        right.plot([], [], "o", color=SECOND, ms=5, label="recalibrated")
        right.legend(loc="upper left")
    return figure


def decile_lift(found: Deciles, *, what: str, unit: str = "") -> Figure:
    """Mean forecast and mean outcome of each tenth of the customers, best forecasts first.

    `what` is the quantity and `unit` its unit ("USD"), for the axis.
    """
    with mpl.rc_context(_STYLE):
        figure = _figure()
        axes = figure.subplots()
        places = np.arange(1, found.forecast.size + 1)
        axes.bar(places - 0.2, found.forecast, 0.38, color=FORECAST, label="forecast")
        axes.bar(
            places + 0.2, found.actual, 0.38, facecolor="none", edgecolor=ACTUAL, hatch="////", lw=1.2, label="actual"
        )
        axes.set_xticks(places)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("tenth of the customers, by forecast (1 = highest)")
        axes.set_ylabel(f"mean {what} a customer{f' ({unit})' if unit else ''}")
        axes.set_ylim(0, max(float(found.forecast.max()), float(found.actual.max()), 1e-9) * 1.12)
        axes.set_title(f"Forecast and actual {what} by decile")
        if np.isfinite(found.share).all():
            top = np.maximum(found.forecast, found.actual)
            for place, height, share in zip(places, top, found.share, strict=True):
                axes.annotate(
                    f"{share:.0%}", (place, height), (0, 4), textcoords="offset points", ha="center", fontsize=10
                )
        axes.legend(loc="upper right", title=f"per cent: share of all {what} there were")
    return figure


def image(figure: Figure, kind: str) -> bytes:
    """The picture as a file of `kind`, "png" or "svg"; raises `InvalidInput` for another."""
    if kind not in FORMATS:
        raise InvalidInput(f"{kind!r} is not a format of pictures here: take {' or '.join(FORMATS)}")
    return _drawn(figure, kind, _STYLE)


def save(figure: Figure, path: str | Path) -> Path:
    """Write the picture in the format of its ending, .png or .svg, whole or not at all; the path.

    Raises `InvalidInput` for another ending.
    """
    return write_whole(path, image(figure, Path(path).suffix.lower().removeprefix(".")))


def inline_svg(figure: Figure, *, name: str) -> str:
    """The picture as an `<svg>` element to stand inside a page: text is text, ids begin with `name`, nothing names another place."""
    style = _STYLE | {"svg.fonttype": "none", "svg.hashsalt": name}
    drawn = _drawn(figure, "svg", style, paper="none").decode()
    element = drawn[drawn.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r' xmlns(:xlink)?="[^"]*"', "", element)
    element = re.sub(r'(\bid="|url\(#|xlink:href="#)', lambda found: f"{found[1]}{name}-", element)
    for colour, variable in THEME.items():
        element = element.replace(colour, f"var({variable}, {colour})")
    return element.replace("xlink:href=", "href=").strip()


def _figure() -> Figure:
    return Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")


def _drawn(figure: Figure, kind: str, style: Any, *, paper: str = PAPER) -> bytes:
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    target = io.BytesIO()
    with mpl.rc_context(style):
        figure.savefig(target, format=kind, dpi=_DPI, metadata=metadata, facecolor=paper)
    return target.getvalue()


def _tracked(tracking: Tracking, actual: npt.NDArray[Any], expected: Floats, title: str) -> Figure:
    with mpl.rc_context(_STYLE):
        figure = _figure()
        axes: Any = figure.subplots()
        days = tracking.ends.astype("datetime64[D]")
        axes.plot(days, actual, color=ACTUAL, label="actual")
        axes.plot(days, expected, color=FORECAST, ls="--", label="expected by the model")
        if tracking.ends[0] <= tracking.calibration_end <= tracking.ends[-1]:
            _calibration_line(axes, tracking)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("week, by its last day")
        axes.set_ylabel("repeat purchases of all customers")
        axes.set_title(title, pad=20)
        axes.legend()
    return figure


def _calibration_line(axes: Any, tracking: Tracking) -> None:
    first, last = int(tracking.ends[0]), int(tracking.ends[-1])
    place = (tracking.calibration_end - first) / max(last - first, 1)
    # The words stand inside of the picture, wherever the line is.
    side = "left" if place < 0.2 else "right" if place > 0.8 else "center"
    day = day_of(tracking.calibration_end)
    axes.axvline(day, color=INK, lw=1, ls=":")
    axes.annotate(
        f"calibration ends {day}",
        (day, 1),
        (0, 4),
        ("data", "axes fraction"),
        "offset points",
        ha=side,
        fontsize=10,
    )


def _heat_map(grid: HistoryGrid, title: str, label: str, *, age: float, unit: str, top: float | None) -> Figure:
    with mpl.rc_context(_STYLE):
        figure = _figure()
        axes = figure.subplots()
        axes.grid(visible=False)
        axes.set_facecolor(IMPOSSIBLE)
        half = (grid.recency[1] - grid.recency[0]) / 2
        picture = axes.imshow(
            np.ma.masked_invalid(grid.values),
            origin="lower",
            aspect="auto",
            interpolation="none",
            cmap="cividis",
            vmin=0,
            vmax=top,
            extent=(-0.5, grid.x[-1] + 0.5, grid.recency[0] - half, grid.recency[-1] + half),
        )
        colours = figure.colorbar(picture, ax=axes, label=label)
        colours.outline.set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        empty = " (grey: no such customer)" if np.isnan(grid.values).any() else ""
        axes.set_xlabel(f"frequency: repeat purchases, on different days{empty}")
        axes.set_ylabel(f"recency: age at the last one ({unit}s)")
        axes.set_title(title)
        axes.set_title(f"customers {_span(age, unit)} old", loc="right", fontsize=11, fontweight="normal")
    return figure


def _calibration_axes(figure: Figure, what: str) -> tuple[Any, Any]:
    figure.suptitle(f"Calibration of {what}", x=0.012, ha="left", fontsize=13, fontweight="bold")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    return left, right


def _pit_histogram(axes: Any, shares: Floats, customers: int) -> None:
    bins = shares.size
    density = shares * bins
    noise = 1.96 * np.sqrt((bins - 1) / customers)
    axes.axhspan(max(1 - noise, 0), 1 + noise, color=GRID, alpha=0.6, lw=0)
    axes.bar(np.arange(bins) / bins, density, 1 / bins, align="edge", color=FORECAST, edgecolor=PAPER, lw=0.6)
    axes.axhline(1, color=INK, lw=1, ls=":")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(float(density.max()), 1 + noise) * 1.1)
    axes.set_xlabel("place of the outcome in its forecast\n(randomised PIT)")
    axes.set_ylabel("density, 1 when true")
    axes.set_title(f"Histogram of {customers:,} customers", fontsize=11, fontweight="normal")


def _coverage(axes: Any, found: Mapping[int, float], customers: int) -> None:
    nominal = np.linspace(0, 1, 101)
    noise = 1.96 * np.sqrt(nominal * (1 - nominal) / customers)
    axes.fill_between(nominal, nominal - noise, nominal + noise, color=GRID, alpha=0.6, lw=0)
    axes.plot(nominal, nominal, color=INK, lw=1, ls=":")
    axes.plot([level / 100 for level in found], [*found.values()], "o", color=SECOND, ms=5, zorder=3)
    said = "\n".join(f"{level}% hold {share:.1%}" for level, share in found.items())
    axes.text(0.95, 0.06, said, transform=axes.transAxes, ha="right", fontsize=10, linespacing=1.4)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("nominal level of the interval")
    axes.set_ylabel("outcomes inside")
    axes.set_title("Coverage of central intervals", fontsize=11, fontweight="normal")


def _span(length: float, unit: str) -> str:
    """So many units, as a person says it: 1 week, 38.9 weeks."""
    return f"{length:.3g} {unit}{'' if length == 1 else 's'}"
