"""`kiki ltv evaluate|compare`: fit up to a day, forecast what came after it, and compare."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kiki.cli import ltv_tables, show
from kiki.cli.ltv_models import model_of_file
from kiki.cli.ltv_options import (
    AmountColumn,
    CalibrationEnd,
    Currency,
    CurrencyColumn,
    CustomerColumn,
    DateColumn,
    Estimator,
    HoldoutEnd,
    Log,
    ModelOrFile,
    OrderColumn,
    TimeZone,
    Unit,
    UnitOrFile,
    day,
    is_model_file,
    note_silence,
    read_log,
    reading,
)
from kiki.cli.options import Json
from kiki.cli.stages import Told, stages
from kiki.errors import InvalidInput

if TYPE_CHECKING:
    from kiki.value.fitted_model import FittedModel
    from kiki.value.holdout import Holdout
    from kiki.value.orders import Orders


HoldoutLength = Annotated[
    float | None,
    typer.Option("--horizon", metavar="UNITS", help="Instead of --holdout-end: so many units after the calibration."),
]


def evaluate(
    file: Log,
    model: ModelOrFile = "auto",
    estimator: Estimator = None,
    calibration_end: CalibrationEnd = None,
    holdout_end: HoldoutEnd = None,
    horizon: HoldoutLength = None,
    unit: UnitOrFile = None,
    customer_col: CustomerColumn = None,
    date_col: DateColumn = None,
    amount_col: AmountColumn = None,
    order_col: OrderColumn = None,
    currency_col: CurrencyColumn = None,
    currency: Currency = None,
    tz: TimeZone = "UTC",
    as_json: Json = False,
) -> None:
    """Fit up to a day, forecast what came after it, and tell how good that was.

    Without --calibration-end the log is split halfway. A model file is judged as it is, from the end of its own calibration.
    """
    from kiki.value.holdout import evaluated

    end, last = _days(calibration_end, holdout_end)
    ready = model_of_file(model, unit=unit, estimator=estimator) if is_model_file(model) else None
    if ready is not None:
        end = _own_end(ready, end, last)
    how = reading(customer_col, date_col, amount_col, order_col, currency_col, currency, tz)
    with stages() as told:
        orders = read_log(file, how, told)
        holdout = _holdout(orders, end, last, horizon, ready.unit if ready else unit or "week")
        fitted = ready or _fitted(orders, holdout, model, estimator, told)
        told("judging", 0, 1)
        found = evaluated(fitted, holdout)
        told("judging", 1, 1)
    if as_json:
        show.as_json(found)
        return
    show.line(_what(holdout))
    for kind in ("purchases", "revenue"):
        points = {name: each[kind] | {"coverage": None} for name, each in found["baselines"].items()}
        rows = {fitted.model: found[kind]} | points
        ltv_tables.metric_table(rows, f"{kind} in {holdout.horizon:.4g} {holdout.purchases.unit}s")
    if fitted.refusal is not None:
        show.line(f"no calibration is claimed: {fitted.refusal}")
    if fitted.fit_seconds is not None:
        show.line(f"fitted in {fitted.fit_seconds:.2f} s")


def compare(
    file: Log,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="A model to compare, as for fit. Repeatable; by default all."),
    ] = None,
    estimator: Estimator = None,
    calibration_end: CalibrationEnd = None,
    holdout_end: HoldoutEnd = None,
    horizon: HoldoutLength = None,
    unit: Unit = "week",
    customer_col: CustomerColumn = None,
    date_col: DateColumn = None,
    amount_col: AmountColumn = None,
    order_col: OrderColumn = None,
    currency_col: CurrencyColumn = None,
    currency: Currency = None,
    tz: TimeZone = "UTC",
    as_json: Json = False,
) -> None:
    """Fit several models up to a day and compare them: likelihood, and how good they were on what came after.

    Without --calibration-end the log is split halfway.
    """
    from kiki.value.training import AUTO, model_names, require_model

    end, last = _days(calibration_end, holdout_end)
    names = list(dict.fromkeys(model or model_names()))
    for name in names:
        require_model(name)
    how = reading(customer_col, date_col, amount_col, order_col, currency_col, currency, tz)
    found = []
    with stages() as told:
        orders = read_log(file, how, told)
        holdout = _holdout(orders, end, last, horizon, unit)
        for place, name in enumerate(names):
            told("comparing", place, len(names))
            fitted = _fitted(orders, holdout, name, None if name == AUTO else estimator, _quiet)
            found.append(_compared(name, fitted, holdout))
        told("comparing", len(names), len(names))
    if as_json:
        show.as_json({**holdout.as_dict(), "models": found})
        return
    show.line(_what(holdout))
    _comparison(found)


def _compared(name: str, fitted: FittedModel, holdout: Holdout) -> dict[str, Any]:
    metrics = holdout.judge(fitted)
    alone = fitted.parts[0] if len(fitted.parts) == 1 else None
    return {
        "model": name,
        "fitted": fitted.model,
        "log_likelihood": None if alone is None else alone.log_likelihood,
        "aic": None if alone is None else alone.aic,
        "at_boundary": [parameter for part in fitted.parts for parameter in part.at_boundary],
        "fit_seconds": fitted.fit_seconds,
        **{kind: each.as_dict() for kind, each in metrics.items()},
    }


def _comparison(found: list[dict[str, Any]]) -> None:
    heads = [
        "model",
        "log likelihood",
        "AIC",
        "deviance",
        "MAE (median)",
        "RMSE (mean)",
        "bias",
        "revenue MAE",
        "fit s",
    ]
    rows = []
    for each in found:
        bought, spent = each["purchases"], each["revenue"]
        fell_back = each["fitted"] not in {each["model"], "auto"}
        rows.append(
            [
                f"{each['model']} → {each['fitted']}" if fell_back else each["model"],
                ltv_tables.figure(each["log_likelihood"]),
                ltv_tables.figure(each["aic"]),
                ltv_tables.figure(bought["poisson_deviance_mean"]),
                ltv_tables.figure(bought["mae_median"]),
                ltv_tables.figure(bought["rmse_mean"]),
                ltv_tables.share(bought["bias_percent"], signed=True),
                ltv_tables.figure(spent["mae_median"]),
                ltv_tables.figure(each["fit_seconds"]),
            ]
        )
    ltv_tables.table(heads, rows)


def _fitted(orders: Orders, holdout: Holdout, model: str, estimator: str | None, told: Told) -> FittedModel:
    from kiki.value import training

    return training.fit(
        orders,
        model=model,
        estimator=estimator,
        calibration_end=holdout.purchases.calibration_end,
        unit=holdout.purchases.unit,
        horizon=holdout.horizon,
        progress=told,
    )


def _days(calibration_end: str | None, holdout_end: str | None) -> tuple[date | None, date | None]:
    end, last = day(calibration_end, "--calibration-end"), day(holdout_end, "--holdout-end")
    if end is not None and last is not None and last <= end:
        raise InvalidInput(f"the holdout ends on {last}, not after the calibration ({end})")
    return end, last


def _own_end(ready: FittedModel, end: date | None, last: date | None) -> date:
    own = ready.calibration_end
    if end not in {None, own}:
        raise InvalidInput(
            f"the model has seen everything up to {own}, so it cannot be judged from {end}",
            hint="leave --calibration-end out, or name a model to fit instead of its file",
        )
    if last is not None and last <= own:
        raise InvalidInput(f"the holdout ends on {last}, not after the model's calibration ({own})")
    return own


def _holdout(orders: Orders, end: date | None, last: date | None, horizon: float | None, unit: str) -> Holdout:
    from kiki.value.fitted_model import require_horizon
    from kiki.value.groups import DAYS_PER_UNIT
    from kiki.value.holdout import Holdout
    from kiki.value.orders import day_number, day_of

    require_horizon(horizon, unit)
    days = None if horizon is None else max(round(horizon * DAYS_PER_UNIT[unit]), 1)
    if last is None and end is not None and days is not None:
        last = end + timedelta(days=days)
    until = orders.last_day if last is None else day_number(last)
    if end is None:
        end = day_of((orders.first_day + until) // 2 if days is None else until - days)
    if days is not None and abs((day_of(until) - end).days - days) > DAYS_PER_UNIT[unit]:
        show.talk(f"note: --holdout-end {last} decides how far is forecast, not --horizon {horizon:g}", dim=True)
    note_silence("the holdout", day_of(until), day_of(orders.last_day))
    return Holdout.of(orders, end, day_of(until), unit)


def _what(holdout: Holdout) -> str:
    known = holdout.purchases
    return (
        f"{ltv_tables.many(len(known), 'customer')} known on {known.calibration_end}, forecast to {holdout.end}: "
        f"{int(holdout.outcomes.purchases.sum()):,} purchases came"
    )


def _quiet(_what: str, _done: float, _total: float) -> None:
    """Inside of a comparison the bar counts models, not what each of them does."""


def register(app: typer.Typer) -> None:
    """Add the commands to `kiki ltv`."""
    for command in (evaluate, compare):
        app.command()(command)
