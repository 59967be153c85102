"""`kiki ltv predict|explain`: one customer, of the log or by a history that is typed in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from kiki.cli import ltv_tables, show
from kiki.cli.ltv_models import chosen_model, model_of_file
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
    LogOrNothing,
    ModelOrFile,
    OrderColumn,
    TimeZone,
    UnitOrFile,
    day,
    is_model_file,
    note_silence,
    read_log,
    reading,
)
from kiki.cli.options import Json
from kiki.cli.stages import stages
from kiki.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from kiki.cli.ltv_options import Reading
    from kiki.value.fitted_model import FittedModel
    from kiki.value.history import History
    from kiki.value.prediction import Estimate, Predictions
    from kiki.value.purchases import Purchases

Customer = Annotated[
    str | None, typer.Option("--customer", metavar="ID", help="A customer of the log, by the id that stands there.")
]
Frequency = Annotated[
    int | None,
    typer.Option("--frequency", metavar="N", help="Instead: repeat purchases, on days after the first purchase."),
]
Recency = Annotated[
    float | None,
    typer.Option(
        "--recency", metavar="UNITS", help="With it: age at the last purchase, in the unit; 0 without a repeat."
    ),
]
Age = Annotated[
    float | None, typer.Option("--age", metavar="UNITS", help="With it: time since the first purchase, in the unit.")
]
Amount = Annotated[
    float | None,
    typer.Option("--amount", metavar="MONEY", help="With it: the mean amount of an order; unknown without it."),
]


@dataclass(frozen=True)
class _Asked:
    """One customer and what is predicted of them."""

    model: FittedModel
    purchases: Purchases
    predictions: Predictions
    as_of: str | None
    """The day up to which the log was looked at; None for a history that was typed in."""


def predict(
    file: LogOrNothing = None,
    customer: Customer = None,
    frequency: Frequency = None,
    recency: Recency = None,
    age: Age = None,
    amount: Amount = None,
    model: ModelOrFile = "auto",
    estimator: Estimator = None,
    calibration_end: CalibrationEnd = None,
    horizon: Horizon = None,
    unit: UnitOrFile = None,
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
    """Predict one customer: purchases, revenue, and the chances of staying.

    Either FILE and --customer, or --frequency, --recency, --age and perhaps --amount with a model file. Everything known up to
    --calibration-end counts, by default up to the last day of the log.
    """
    how = reading(customer_col, date_col, amount_col, order_col, currency_col, currency, tz)
    history = _history(frequency, recency, age, amount)
    options = _Options(model, estimator, calibration_end, horizon, unit, discount_rate)
    asked = _asked(file, customer, history, options, how)
    if as_json:
        show.as_json(_plain(asked))
        return
    _show(asked)


def explain(
    file: LogOrNothing = None,
    customer: Customer = None,
    frequency: Frequency = None,
    recency: Recency = None,
    age: Age = None,
    amount: Amount = None,
    model: ModelOrFile = "auto",
    estimator: Estimator = None,
    calibration_end: CalibrationEnd = None,
    horizon: Horizon = None,
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
    """Say in words why a customer is expected to do what is predicted, the weightiest reason first.

    Whom it is about is said as for predict.
    """
    how = reading(customer_col, date_col, amount_col, order_col, currency_col, currency, tz)
    history = _history(frequency, recency, age, amount)
    asked = _asked(file, customer, history, _Options(model, estimator, calibration_end, horizon, unit, None), how)
    words = asked.model.explain(asked.purchases, asked.predictions, 0)
    if as_json:
        show.as_json({**_plain(asked), "reasons": words})
        return
    _show(asked)
    for place, said in enumerate(words, start=1):
        show.line(f"{place}. {said}")


class _Options(NamedTuple):
    """With which model, and how far."""

    model: str
    estimator: str | None
    calibration_end: str | None
    horizon: float | None
    unit: str | None
    discount_rate: float | None


def _history(frequency: int | None, recency: float | None, age: float | None, amount: float | None) -> History | None:
    """The history that the options describe; None when they describe none."""
    if frequency is None and recency is None and age is None and amount is None:
        return None
    if frequency is None or age is None or (recency is None and frequency != 0):
        raise InvalidInput("a history needs --frequency, --recency and --age; --amount may be left out")
    from kiki.value.history import History

    return History(frequency, recency or 0.0, age, amount)


def _asked(file: Path | None, customer: str | None, history: History | None, options: _Options, how: Reading) -> _Asked:
    if (history is None) == (customer is None):
        raise InvalidInput(
            "whom to predict: --customer ID with a log, or --frequency, --recency and --age with a model file",
            hint="kiki ltv score predicts everybody in a log",
        )
    if customer is not None:
        if file is None:
            raise InvalidInput("--customer is looked up in an order log: name its FILE")
        return _of_log(file, customer, options, how)
    assert history is not None
    return _of_history(file, history, options, how)


def _of_log(file: Path, customer: str, options: _Options, how: Reading) -> _Asked:
    import numpy as np

    from kiki.value.orders import day_of
    from kiki.value.purchases import summarise

    with stages() as told:
        end = day(options.calibration_end, "--calibration-end")
        orders = read_log(file, how, told)
        note_silence("the calibration", end, day_of(orders.last_day))
        model = chosen_model(
            options.model,
            orders,
            estimator=options.estimator,
            calibration_end=end,
            unit=options.unit,
            horizon=options.horizon,
            discount_rate=options.discount_rate,
            told=told,
        )
        everybody = summarise(orders, end, model.unit)
    rows = np.flatnonzero(everybody.ids == customer)
    if not rows.size:
        raise NotFound(f"the log has no purchase of a customer {customer!r} up to {everybody.calibration_end}")
    one = everybody.take(rows)
    predictions = model.predict(one, options.horizon, discount_rate=options.discount_rate)
    return _Asked(model, one, predictions, everybody.calibration_end.isoformat())


def _of_history(file: Path | None, history: History, options: _Options, how: Reading) -> _Asked:
    from kiki.value.history import purchases_of

    if is_model_file(options.model):
        model = model_of_file(options.model, unit=options.unit, estimator=options.estimator)
    elif file is None:
        raise InvalidInput(
            "a history needs a model: --model FILE.json, or the FILE of a log to fit one to",
            hint="kiki ltv fit LOG -o model.json, then --model model.json",
        )
    else:
        with stages() as told:
            model = chosen_model(
                options.model,
                read_log(file, how, told),
                estimator=options.estimator,
                calibration_end=day(options.calibration_end, "--calibration-end"),
                unit=options.unit,
                horizon=options.horizon,
                discount_rate=options.discount_rate,
                told=told,
            )
    one = purchases_of([history], model.calibration_end, model.unit, ids=["history"], currency=model.currency)
    predictions = model.predict(one, options.horizon, discount_rate=options.discount_rate, dated=False)
    return _Asked(model, one, predictions, None)


def _plain(asked: _Asked) -> dict[str, Any]:
    """The prediction as JSON has it; everything within the horizon unless its name says otherwise."""
    from kiki.value.groups import DAYS_PER_UNIT

    days = DAYS_PER_UNIT[asked.purchases.unit]
    known, row = asked.purchases, asked.predictions.row(0)
    return {
        "customer_id": None if asked.as_of is None else row.id,
        "as_of": asked.as_of,
        "frequency": int(known.x[0]),
        "recency": float(known.tx[0]) / days,
        "age": float(known.T[0]) / days,
        "horizon": row.horizon,
        "unit": row.unit,
        "currency": asked.model.currency,
        "purchases": _estimate(row.purchases),
        "revenue": _estimate(row.revenue),
        "probability_alive": row.alive,
        "probability_no_purchase": row.no_purchase,
        "order_amount_mean": row.order_amount,
        "discounted_value_no_end": row.discounted_value,
        "coverage_claimed": asked.model.refusal is None,
        "model_version": asked.model.model_version,
    }


def _estimate(found: Estimate) -> dict[str, Any]:
    intervals = {str(level): [found.lower[level], found.upper[level]] for level in found.lower}
    return {"mean": found.mean, "median": found.median, "intervals": intervals}


def _show(asked: _Asked) -> None:
    from kiki.value.groups import DAYS_PER_UNIT

    row, known = asked.predictions.row(0), asked.purchases
    days = DAYS_PER_UNIT[known.unit]
    who = "a customer" if asked.as_of is None else f"customer {row.id}, as of {asked.as_of}"
    show.line(
        f"{who}: {known.x[0]} repeat purchases, the last at an age of {known.tx[0] / days:.4g} {row.unit}s, "
        f"now {known.T[0] / days:.4g} {row.unit}s old"
    )
    money = asked.model.currency or ""
    ltv_tables.table(
        [
            f"in the next {row.horizon:.4g} {row.unit}s",
            "mean",
            "median",
            *(f"{level} %" for level in row.purchases.lower),
        ],
        [
            ["purchases", *_cells(row.purchases, "{:,.2f}", "{:,.0f}")],
            [f"revenue {money}".rstrip(), *_cells(row.revenue, "{:,.2f}", "{:,.2f}")],
        ],
    )
    show.line(f"P(alive) {row.alive:.1%}; P(no purchase in that time) {row.no_purchase:.1%}")
    show.line(f"the next order is worth {row.order_amount:,.2f} on average")
    if row.discounted_value is not None:
        show.line(f"all purchases to come are worth {row.discounted_value:,.2f} now ({asked.predictions.discounting})")
    if asked.model.refusal is not None:
        show.talk(f"no calibration is claimed: {asked.model.refusal}", dim=True)


def _cells(found: Estimate, mean: str, outcome: str) -> list[str]:
    intervals = (
        f"{outcome.format(found.lower[level])} to {outcome.format(found.upper[level])}" for level in found.lower
    )
    return [mean.format(found.mean), outcome.format(found.median), *intervals]


def register(app: typer.Typer) -> None:
    """Add the commands to `kiki ltv`."""
    for command in (predict, explain):
        app.command()(command)
