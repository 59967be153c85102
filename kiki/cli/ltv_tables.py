"""Models, metrics and predictions as tables for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from kiki.cli import show

if TYPE_CHECKING:
    from rich.table import Table

    from kiki.value.fitted_model import FittedModel

_WIDTH: Final = 120
"""Of a table that goes into a file or a pipe, where nobody tells how wide it may be."""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", names: int = 1) -> None:
    """A table on stdout: the first `names` columns are text, the others figures."""
    from rich.console import Console

    if title:
        show.line(title)
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
    console.print(_table(heads, rows, names))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], names: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, head in enumerate(heads):
        made.add_column(Text(head), justify="left" if place < names else "right", overflow="fold")
    for row in rows:
        # As `Text`: a customer may be called [bold].
        made.add_row(*(Text(show.plain(cell)) for cell in row))
    return made


def model_tables(model: FittedModel) -> None:
    """The parameters of every part with their standard errors, then those of spend, and what one has to know."""
    on = model.fitted_on
    show.line(
        f"{model.model}: {many(on.customers, 'customer')}, {many(on.purchases, 'purchase')}, {on.first_day} to {on.calibration_end}"
        f", times in {model.unit}s"
    )
    for part in model.parts:
        weight = f", weight {part.weight:.3g}" if len(model.parts) > 1 else ""
        errors = part.standard_errors or {}
        table(
            ["parameter", "estimate", "standard error"],
            ([name, figure(value), figure(errors.get(name))] for name, value in part.parameters.items()),
            title=f"{part.model}{weight}: log likelihood {part.log_likelihood:,.3f}, AIC {part.aic:,.1f}",
        )
    _spend_table(model)
    for note in model.notes:
        show.line(f"note: {note}")


def _spend_table(model: FittedModel) -> None:
    spend = model.spend
    money = model.currency or "the log's currency"
    if spend.constant is not None:
        show.line(f"spend: every order is worth {spend.constant:,.2f} ({money})")
        return
    errors = spend.standard_errors or {}
    values = {"p": spend.p, "q": spend.q, "v": spend.v}
    likelihood = "" if spend.log_likelihood is None else f": log likelihood {spend.log_likelihood:,.3f}"
    table(
        ["parameter", "estimate", "standard error"],
        ([name, figure(value), figure(errors.get(name))] for name, value in values.items()),
        title=f"gamma-gamma{likelihood}",
    )
    said = [f"free orders {spend.zero_share:.2%}"]
    if spend.independence_p_value is not None:
        said.append(
            f"independence of amount and frequency: chi square {spend.independence_statistic:.2f}, "
            f"p {chance(spend.independence_p_value)}"
        )
    show.line("; ".join(said))


def card(model: FittedModel) -> None:
    """What was measured of the model, or that nothing was; without the notes that `model_tables` shows."""
    if model.card is None:
        show.line(f"calibration is not claimed: {model.refusal}")
        return
    if model.card.coverage_claimed:
        show.line("calibration is claimed: the intervals are true about as often as they say")
    shown = set(model.notes)
    for sentence in model.card.sentences():
        if sentence not in shown:
            show.line(sentence)


def metric_table(found: Mapping[str, Mapping[str, Any]], what: str) -> None:
    """Metrics of several forecasts of "purchases" or "revenue", one a row, by the forecast's name."""
    heads = [
        "forecast",
        "MAE (median)",
        "RMSE (mean)",
        "deviance",
        "bias",
        "Spearman",
        "top 10 %",
        "80 %",
        "90 %",
        "95 %",
    ]
    rows = []
    for name, metrics in found.items():
        coverage = metrics.get("coverage") or {}
        rows.append(
            [
                name,
                figure(metrics.get("mae_median")),
                figure(metrics.get("rmse_mean")),
                figure(metrics.get("poisson_deviance_mean")),
                share(metrics.get("bias_percent"), signed=True),
                figure(metrics.get("spearman")),
                share(_hundred(metrics.get("top_decile_capture"))),
                *(share(_hundred(coverage.get(level))) for level in ("80", "90", "95")),
            ]
        )
    table(heads, rows, title=what)


def _hundred(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def many(count: int, noun: str) -> str:
    """So many of something."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def chance(p: float) -> str:
    """A p-value."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def share(percent: float | None, *, signed: bool = False) -> str:
    """A percentage with one decimal; a dash for None."""
    if percent is None:
        return "-"
    return f"{percent:+.1f} %" if signed else f"{percent:.1f} %"


def figure(value: float | None) -> str:
    """Four digits that mean something; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,.4f}" if value == 0 or 0.01 <= abs(value) < 100_000 else f"{value:.4g}"
