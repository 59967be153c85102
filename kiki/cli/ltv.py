"""`kiki ltv`: customer lifetime value from an order log. `fit` and `info`; the other commands stand beside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiki.cli import ltv_judge, ltv_plot, ltv_predict, ltv_score, ltv_tables, show
from kiki.cli.ltv_options import (
    AmountColumn,
    CalibrationEnd,
    Currency,
    CurrencyColumn,
    CustomerColumn,
    DateColumn,
    DiscountRate,
    Estimator,
    Horizon,
    Log,
    ModelName,
    OrderColumn,
    TimeZone,
    Unit,
    day,
    read_log,
    reading,
    require_writable,
)
from kiki.cli.options import Json
from kiki.cli.stages import stages
from kiki.errors import KikiError

if TYPE_CHECKING:
    from kiki.value.fitted_model import FittedModel
    from kiki.value.orders import Orders

app = typer.Typer(
    help="Predict customer lifetime value from an order log.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def fit(
    file: Log,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The model file; by default NAME.model.json, right here."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="The HTML report; by default beside the model file."),
    ] = None,
    model: ModelName = "auto",
    estimator: Estimator = None,
    calibration_end: CalibrationEnd = None,
    horizon: Horizon = None,
    unit: Unit = "week",
    discount_rate: DiscountRate = None,
    customer_col: CustomerColumn = None,
    date_col: DateColumn = None,
    amount_col: AmountColumn = None,
    order_col: OrderColumn = None,
    currency_col: CurrencyColumn = None,
    currency: Currency = None,
    tz: TimeZone = "UTC",
    as_json: Json = False,
) -> None:
    """Fit a model to an order log; write a model file and a report.

    With --json, only what -o and --report name is written.
    """
    from kiki.value import training

    end = day(calibration_end, "--calibration-end")
    require_writable(output, report, read=[file])
    target, page = _targets(file, output, report, nothing_else=as_json)
    require_writable(target, page, read=[file])
    how = reading(customer_col, date_col, amount_col, order_col, currency_col, currency, tz)
    with stages() as told:
        orders = read_log(file, how, told, quiet=True)
        fitted = training.fit(
            orders,
            model=model,
            estimator=estimator,
            calibration_end=end,
            unit=unit,
            horizon=horizon,
            discount_rate=discount_rate,
            progress=told,
        )
        if page is not None:
            told("drawing", 0, 1)
            _write_report(page, fitted, orders)
            told("drawing", 1, 1)
    # The model file comes last: where it is, the report is too.
    if target is not None:
        fitted.save(target)
    if as_json:
        show.as_json(fitted.summary())
        return
    ltv_tables.model_tables(fitted)
    ltv_tables.card(fitted)
    for path, what in ((target, "model"), (page, "report")):
        if path is not None:
            show.line(f"{what}: {path}")


def _targets(
    file: Path, output: Path | None, report: Path | None, *, nothing_else: bool
) -> tuple[Path | None, Path | None]:
    """Where the model file and the report go."""
    name = file.name
    for ending in (".gz", ".csv", ".parquet", ".pq"):
        name = name[: -len(ending)] if name.lower().endswith(ending) else name
    target = output or (None if nothing_else else Path(f"{name}.model.json"))
    if report is not None or target is None:
        return target, report
    return target, target.with_name(f"{target.name.removesuffix('.json').removesuffix('.model')}.report.html")


def _write_report(page: Path, fitted: FittedModel, orders: Orders) -> None:
    from kiki.value.model_report import model_report
    from kiki.value.report import write_report

    try:
        write_report(page, model_report(fitted, orders))
    except OSError as error:
        raise KikiError(f"{page} cannot be written: {error.strerror}") from error


@app.command()
def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A model file that kiki ltv fit wrote.")],
    as_json: Json = False,
) -> None:
    """Show what a model file holds: its parameters, what it was fitted on, and how good it was measured to be."""
    from kiki.value.fitted_model import FittedModel

    fitted = FittedModel.load(file)
    if as_json:
        show.as_json(fitted.info())
        return
    ltv_tables.model_tables(fitted)
    ltv_tables.card(fitted)
    for what, said in (
        ("model version", fitted.model_version),
        ("horizon", f"{fitted.horizon:g} {fitted.unit}s"),
        ("revenue until then", f"{fitted.fitted_on.revenue} {fitted.currency or ''}".rstrip()),
        ("fingerprint of the data", fitted.fitted_on.fingerprint),
    ):
        show.line(f"{what}: {said}")


ltv_predict.register(app)
ltv_score.register(app)
ltv_judge.register(app)
ltv_plot.register(app)
