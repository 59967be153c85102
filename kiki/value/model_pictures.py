"""All plots of a fitted model over the log that it was fitted on, under the names that files of them get.

What happened after the calibration is compared with what the model had forecast for exactly that time. In a log that ends with the
calibration nothing has happened yet: there the comparison is that of a day inside of the calibration, from which the rest of it is
forecast by the same model fitted again to what was known then, or, where the model's card has measured itself, by the card.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from kiki.value import plots
from kiki.value.deciles import deciles
from kiki.value.evaluation import KINDS, Levels, Pit, actual
from kiki.value.fitted_model import FittedModel
from kiki.value.groups import Floats, Ints
from kiki.value.history_grid import history_grid, usual_size
from kiki.value.holdout import Holdout
from kiki.value.orders import Orders, day_number, day_of
from kiki.value.origins import rolling_origins, sampled
from kiki.value.prediction import Kind
from kiki.value.purchases import Purchases, summarise
from kiki.value.tracking import DAYS_PER_WEEK, track
from kiki.value.training import fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HISTORIES: Final = ("tracking-cumulative", "tracking-weekly", "frequency-recency", "probability-alive")
"""The plots that every log allows."""

HOLDOUT: Final = tuple(f"{plot}-{kind}" for plot in ("calibration", "lift") for kind in KINDS)
"""The plots that need something to compare with: a week after the calibration, or a calibration that is long enough."""

# A grid of probabilities to turn the recalibration around on; finer than any plot shows.
_PROBABILITIES: Final = np.linspace(0.0, 1.0, 201)


class ModelPicture(NamedTuple):
    """A plot and what it shows, in a sentence."""

    figure: Figure
    caption: str


def model_pictures(model: FittedModel, orders: Orders, end: date | None = None) -> dict[str, ModelPicture]:
    """The plots of `model` over `orders`, up to and on `end` (the last day of the log), by their names in `HISTORIES` and `HOLDOUT`.

    The plots of `HOLDOUT` compare with the days after the calibration, when there are seven or more, else with days inside of it; a
    log that is too short for both has none of them. Raises `InvalidInput` for a log without a purchase before the end of
    the calibration.
    """
    purchases = summarise(orders, model.calibration_end, model.unit)
    last = orders.last_day if end is None else min(day_number(end), orders.last_day)
    found = _tracked(model, orders, purchases, last) | _grids(model, purchases)
    if last - day_number(model.calibration_end) >= DAYS_PER_WEEK:
        return found | _compared(model, Holdout.of(orders, model.calibration_end, day_of(last), model.unit))
    return found | _tried(model, orders)


def _tracked(model: FittedModel, orders: Orders, purchases: Purchases, last: int) -> dict[str, ModelPicture]:
    tracking = track(orders, purchases, model.mixture.expected_new, day_of(last))
    error = tracking.holdout_error
    said = (
        ""
        if error is None
        else f" After the calibration it expected {abs(error):.1%} {'more' if error > 0 else 'fewer'} than there were."
    )
    who = f"Repeat purchases of the {len(purchases):,} customers who first bought by {model.calibration_end}."
    return {
        "tracking-cumulative": ModelPicture(plots.cumulative_tracking(tracking), f"{who}{said}"),
        "tracking-weekly": ModelPicture(
            plots.weekly_tracking(tracking),
            f"{who} The model knows ages only: it cannot know of a season or a campaign.",
        ),
    }


def _grids(model: FittedModel, purchases: Purchases) -> dict[str, ModelPicture]:
    age, most = usual_size(purchases)
    grid = partial(history_grid, age=age, x_max=most, unit=model.unit)
    mixture, horizon = model.mixture, model.horizon
    return {
        "frequency-recency": ModelPicture(
            plots.expected_purchases(
                grid(partial(mixture.expected, horizon)),
                age=age,
                horizon=horizon,
                unit=model.unit,
            ),
            "Who bought often and recently will buy most; who bought often and then stopped will hardly come back.",
        ),
        "probability-alive": ModelPicture(
            plots.probability_alive(grid(mixture.alive), age=age, unit=model.unit),
            "P(alive) at the end of the calibration: the same pause says more about a frequent buyer than about a rare one.",
        ),
    }


def _tried(model: FittedModel, orders: Orders) -> dict[str, ModelPicture]:
    """The comparison inside of the calibration, on a sample of many customers; nothing where the log is too short."""
    known = sampled(orders, model.calibration_end)
    origins = rolling_origins(known, model.calibration_end, model.unit, model.horizon)
    if not origins:
        return {}
    origin = origins[len(origins) // 2]
    main = max(model.parts, key=lambda part: part.weight)
    again = fit(origin.purchases, model=main.model, estimator=model.estimator, horizon=model.horizon)
    found = _compared(replace(again, currency=model.currency), Holdout(origin.purchases, origin.outcomes, origin.until))
    return found | _measured(model)


def _measured(model: FittedModel) -> dict[str, ModelPicture]:
    """What the card says of the last origin that the whole model was tried on."""
    if model.card is None or not model.card.origins:
        return {}
    score = model.card.origins[-1]
    return {
        f"calibration-{kind}": ModelPicture(
            plots.measured_calibration(
                score.pit[kind],
                score.raw_coverage[kind],
                score.metrics[kind].coverage or {},
                customers=score.customers,
                what=kind,
            ),
            f"Forecasts of {kind} from {score.end}, a day inside of the calibration, against what came until {score.until}.",
        )
        for kind in KINDS
    }


def _compared(model: FittedModel, holdout: Holdout) -> dict[str, ModelPicture]:
    forecast = model.predictive(holdout.purchases, holdout.horizon)
    span = f"{day_of(day_number(holdout.purchases.calibration_end) + 1)} to {holdout.end}"
    who = f"{model.model} fitted to what was known on {holdout.purchases.calibration_end}"
    found = {}
    for kind in KINDS:
        came = actual(kind, holdout.outcomes)
        pit, told = Pit(*forecast.cdf(kind, came)).values(), "as the models say it"
        if model.recalibration is not None:
            pit, told = recalibrated(pit, kind, holdout.purchases.x, model.recalibration), "recalibrated"
        found[f"calibration-{kind}"] = ModelPicture(
            plots.calibration(pit, what=kind),
            f"The forecast distribution of {kind}, {told}, by {who}, against what came from {span}.",
        )
        found[f"lift-{kind}"] = ModelPicture(
            plots.decile_lift(
                deciles(forecast.mean(kind), came), what=kind, unit=(model.currency or "") if kind == "revenue" else ""
            ),
            f"Customers ranked by their mean forecast of {kind}, by {who}, against what they brought from {span}.",
        )
    return found


def recalibrated(pit: Floats, kind: Kind, x: Ints, recalibration: Levels) -> Floats:
    """PIT values after recalibration: for each, the true probability whose quantile is read off there."""
    found = np.empty_like(pit)
    for each in np.unique(x):
        rows = x == each
        read = np.array([recalibration.levels(kind, p, np.array([each]))[0] for p in _PROBABILITIES])
        found[rows] = np.interp(pit[rows], read, _PROBABILITIES)
    return found
