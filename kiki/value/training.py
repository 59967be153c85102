"""Fit a model of customer lifetime value: a raw order log or its summary goes in, a `FittedModel` comes out.

A named model is one model of counts by maximum likelihood and the papers' Gamma-Gamma on repeat orders, as people publish it; "auto" is
several models weighed, corrected and calibrated (`kiki.value.auto`), and what to use when nobody asks for a name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from kiki.errors import InvalidInput
from kiki.money import format_micros
from kiki.value.auto import fit_auto
from kiki.value.cohorts import Cohorts, fit_cohorts
from kiki.value.count_models import COUNT_MODELS, regular_name
from kiki.value.covariates import EFFECTS
from kiki.value.evaluation import KINDS
from kiki.value.fitted_model import FittedModel, FittedOn, FittedPart, require_discount_rate, require_horizon
from kiki.value.fitting import ESTIMATORS, CountFit, fit_count
from kiki.value.order_log import read_orders
from kiki.value.orders import Orders, day_of
from kiki.value.purchases import Purchases, summarise
from kiki.value.reasons import Usual
from kiki.value.regularity import fit_regularity
from kiki.value.spend import fit_spend

AUTO: Final = "auto"

REGULAR: Final = "mbg-cnbd-k"
"""MBG/CNBD-k, with k chosen by likelihood."""

YEAR: Final = {"day": 365.0, "week": 52.0, "month": 12.0}
"""How far a forecast reaches when nobody says, in each unit."""

COHORT_CUSTOMERS: Final = 20_000
"""The levels of months are learnt from so many customers: they are known to a few per cent then."""

Progress = Callable[[str, float, float], None]
"""Is told what is being done, how much of it is done, and of how much."""


_FROM_PYTHON: Final = {"bg-bb": "opportunities", "sbg": "contracts"}
"""Models of other data than a log of orders, and what of."""


def require_model(model: str) -> None:
    """Raise `InvalidInput` for a name that `fit` does not take."""
    if model not in model_names():
        of = _FROM_PYTHON.get(model)
        raise InvalidInput(
            f"there is no model {model!r}; the models are {', '.join(model_names())}",
            hint=None
            if of is None
            else f"{model} is a model of {of}: kiki.value.{model.replace('-', '_')}, from Python",
        )


def model_names() -> tuple[str, ...]:
    """What `fit` takes as a model, "auto" first."""
    return (AUTO, *COUNT_MODELS, REGULAR)


def fit(
    source: Orders | Purchases | pd.DataFrame | str | Path,
    *,
    model: str = AUTO,
    estimator: str | None = None,
    calibration_end: date | None = None,
    unit: str = "week",
    horizon: float | None = None,
    discount_rate: float | None = None,
    progress: Progress | None = None,
) -> FittedModel:
    """The model called `model`, fitted to everything up to and on `calibration_end`, by default the last day of the log.

    `source` is a log (a file, a DataFrame, or `Orders`), or the summary of one (`Purchases`, whose unit and end hold then). `estimator`
    is "mle" or "map", by default "mle" for a named model and "map" for "auto", which has no other. `horizon` is in the unit, a year by
    default; `discount_rate` is a year's, 0.1 for 10 %. The same input gives the same model. Raises `InvalidInput` for a log
    that cannot be used, an unknown name, and options that do not go together.
    """
    _require_known(model, estimator, unit, horizon, discount_rate)
    told = progress or _nobody
    began = time.perf_counter()
    orders: Orders | None = None
    if isinstance(source, Purchases):
        if calibration_end is not None and calibration_end != source.calibration_end:
            raise InvalidInput(
                f"these histories end on {source.calibration_end}, so a calibration to {calibration_end} needs the log"
            )
        purchases = source
    else:
        orders = source if isinstance(source, Orders) else read_orders(source)
        purchases = summarise(orders, calibration_end, unit)
    reach = YEAR[purchases.unit] if horizon is None else float(horizon)
    if model == AUTO:
        if orders is None:
            raise InvalidInput(
                "auto tests itself on earlier days of the log, which a summary does not tell",
                hint="give it the log, or name a model, for example pareto-nbd",
            )
        fitted = _automatic(orders, purchases, reach, told)
    else:
        told("fitting", 0, 1)
        fitted = _named(purchases, orders, model, estimator or "mle", reach)
        told("fitting", 1, 1)
    fitted = replace(fitted, discount_rate=discount_rate, usual=_usual(fitted, purchases))
    return replace(fitted, fit_seconds=time.perf_counter() - began)


def _named(purchases: Purchases, orders: Orders | None, model: str, estimator: str, horizon: float) -> FittedModel:
    if model == REGULAR:
        regular = fit_regularity(purchases, estimator)
        count = CountFit(regular_name(regular.k), regular.fit)
    else:
        count = fit_count(model, purchases.grouped()[0], estimator)
    return FittedModel(
        model=REGULAR if model == REGULAR else count.name,
        estimator=estimator,
        parts=(FittedPart.of(count),),
        spend=fit_spend(purchases, estimator, first_order=False),
        fitted_on=_fitted_on(purchases, orders),
        unit=purchases.unit,
        horizon=horizon,
        currency=purchases.currency,
    )


def _automatic(orders: Orders, purchases: Purchases, horizon: float, told: Progress) -> FittedModel:
    found = fit_auto(orders, purchases.calibration_end, purchases.unit, horizon, told)
    return FittedModel(
        model=AUTO,
        estimator="map",
        parts=tuple(FittedPart.of(count, weight) for count, weight in found.parts),
        spend=found.spend,
        fitted_on=_fitted_on(purchases, orders),
        unit=purchases.unit,
        horizon=horizon,
        currency=purchases.currency,
        shape=found.shape,
        recalibration=found.recalibration,
        level=found.level,
        drift=found.drift,
        level_doubt=found.level_doubt,
        cohorts=_cohorts(found.parts[0][0].name, purchases),
        card=found.card,
    )


def _cohorts(anchor: str, purchases: Purchases) -> Cohorts | None:
    """The months of first purchases, under a model that takes covariates; None where there is one month only."""
    places = np.linspace(0, len(purchases) - 1, min(len(purchases), COHORT_CUSTOMERS)).astype(np.int64)
    some = purchases.take(places)
    if np.unique(some.cohort).size < 2:
        return None
    return fit_cohorts(anchor if anchor in EFFECTS else "pareto-nbd", some)


def _usual(fitted: FittedModel, purchases: Purchases) -> Usual:
    predictive = fitted.predictive(purchases)
    alive = float(predictive.alive.mean())
    bought, revenue = (float(predictive.mean(kind).mean()) for kind in KINDS)
    return Usual(alive, bought / alive if alive > 0 else 0.0, revenue / bought if bought > 0 else 0.0)


def _require_known(
    model: str, estimator: str | None, unit: str, horizon: float | None, discount_rate: float | None
) -> None:
    require_model(model)
    if estimator is not None and estimator not in ESTIMATORS:
        raise InvalidInput(f"there is no estimator {estimator!r}; the estimators are {', '.join(ESTIMATORS)}")
    if model == AUTO and estimator == "mle":
        raise InvalidInput(
            "auto weighs models fitted with weak priors, and has no other estimator",
            hint="name a model for plain maximum likelihood, for example pareto-nbd",
        )
    require_horizon(horizon, unit)
    require_discount_rate(discount_rate)


def _fitted_on(purchases: Purchases, orders: Orders | None) -> FittedOn:
    notes = list(orders.notes) if orders is not None else []
    if orders is not None and (after := (purchases.calibration_end - day_of(orders.last_day)).days) > 0:
        notes.append(
            f"the calibration ends {after} days after the last line of the log, on {day_of(orders.last_day)}: "
            "that nobody bought in between is taken as a fact"
        )
    return FittedOn(
        fingerprint=purchases.fingerprint,
        customers=len(purchases),
        purchases=int((purchases.x + 1).sum()),
        revenue=format_micros(int(purchases.first_micros.sum() + purchases.repeat_micros.sum())),
        first_day=day_of(int(purchases.first_day.min())),
        calibration_end=purchases.calibration_end,
        notes=tuple(notes),
    )


def _nobody(_what: str, _done: float, _total: float) -> None:
    """Who is told when nobody wants to know."""
