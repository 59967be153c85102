"""The plots of a campaign report, as SVG: money over the days, pacing and return of each platform. Needs matplotlib."""

from __future__ import annotations

import io
from typing import Any

from kiki.errors import MissingExtra
from kiki.flow.campaign_report import CampaignReport
from kiki.money import MICROS

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter
except ModuleNotFoundError as _missing:
    raise MissingExtra("plot", "drawing plots") from _missing

_PLANNED, _SPENT, _VALUE = "#8a8a8a", "#0072b2", "#d55e00"
_TICKS = 8
_STYLE: Any = {  # matplotlib types its settings by a list of all their names
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d0d7de",
    "legend.frameon": False,
    "svg.hashsalt": "kiki",
    "svg.fonttype": "path",
    "text.parse_math": False,
}


def over_days(report: CampaignReport) -> str:
    """Planned and spent money, added up over the days, as SVG."""
    days = [each.day for each in report.days]
    planned = _added([each.planned for each in report.days])
    known = [each for each in report.days if each.settled]
    with mpl.rc_context(_STYLE):
        figure, axes = _figure("Money so far", f"{report.currency}")
        axes.plot(days, planned, color=_PLANNED, linestyle="--", label="planned")
        axes.plot([each.day for each in known], _added([each.spent for each in known]), color=_SPENT, label="spent")
        if report.budget is not None:
            axes.axhline(report.budget / MICROS, color=_VALUE, linewidth=1, label="the plan's total")
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left")
        # Whole days, however few: by itself matplotlib would show hours that nothing is known of.
        shown = days[:: max(1, len(days) // _TICKS)]
        axes.set_xticks(shown, labels=[str(day) for day in shown])
        figure.autofmt_xdate()
        return _svg(figure)


def pacing(report: CampaignReport) -> str:
    """What each platform spent of what was planned for the same days, as SVG."""
    names = [each.platform for each in report.platforms]
    with mpl.rc_context(_STYLE):
        figure, axes = _figure("Pacing", "spent as a share of planned")
        axes.barh(names, [each.pacing or 0.0 for each in report.platforms], color=_SPENT, height=0.6)
        axes.axvline(1.0, color=_PLANNED, linestyle="--")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.invert_yaxis()
        return _svg(figure)


def returns(report: CampaignReport) -> str:
    """What each platform returned for the money, as SVG."""
    names = [each.platform for each in report.platforms]
    with mpl.rc_context(_STYLE):
        figure, axes = _figure("Return", "value for each unit spent, as the platform says")
        axes.barh(names, [each.returned or 0.0 for each in report.platforms], color=_VALUE, height=0.6)
        axes.invert_yaxis()
        return _svg(figure)


def _figure(title: str, label: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel(label) if title != "Money so far" else axes.set_ylabel(label)
    return figure, axes


def _added(micros: list[int]) -> list[float]:
    total, found = 0, []
    for each in micros:
        total += each
        found.append(total / MICROS)
    return found


def _svg(figure: Figure) -> str:
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    text = target.getvalue()
    return text[text.index("<svg") :]
