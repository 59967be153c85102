"""The model that a command works with: from its file, or fitted to the log first."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from kiki.cli.ltv_options import is_model_file
from kiki.cli.stages import Told
from kiki.errors import InvalidInput

if TYPE_CHECKING:
    from kiki.value.fitted_model import FittedModel
    from kiki.value.orders import Orders


def chosen_model(
    name: str,
    orders: Orders,
    *,
    estimator: str | None,
    calibration_end: date | None,
    unit: str | None,
    horizon: float | None,
    discount_rate: float | None,
    told: Told,
) -> FittedModel:
    """The model in the file `name`, or the model of that name fitted to the log."""
    from kiki.value import training

    if is_model_file(name):
        return model_of_file(name, unit=unit, estimator=estimator)
    return training.fit(
        orders,
        model=name,
        estimator=estimator,
        calibration_end=calibration_end,
        unit=unit or "week",
        horizon=horizon,
        discount_rate=discount_rate,
        progress=told,
    )


def model_of_file(name: str | Path, *, unit: str | None = None, estimator: str | None = None) -> FittedModel:
    """The model in a file; raises `InvalidInput` where an option contradicts it."""
    from kiki.value.fitted_model import FittedModel

    if not is_model_file(str(name)):
        raise InvalidInput(
            f"--model {str(name)[:80]!r} is no model file: without a log to fit to, one is needed",
            hint="kiki ltv fit LOG -o model.json, then --model model.json",
        )
    model = FittedModel.load(name)
    if unit is not None and unit != model.unit:
        raise InvalidInput(f"the model counts in {model.unit}s, so --unit {unit} does not go with it")
    if estimator is not None:
        raise InvalidInput("--estimator is for a model that is fitted now, not for one from a file")
    return model
