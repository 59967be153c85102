"""Who buys more, and who less, than the model of purchases says: a correction of the shape, never of the level. Pure.

A ridge Poisson regression with the logarithm of the model's forecast as offset, trained on rolling origins with a free level for
each origin. What it learns is how customers differ given the forecast (recent weeks, idle time, regularity); how much they buy in all is
left to the model, because levels of short horizons swing: the sum of the forecasts stays what it was. The same holds for a
mixture of models, whose weights are chosen on short horizons too: here its sum is brought back to that of the model it is anchored to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Self

import numpy as np

from kiki.errors import InvalidInput
from kiki.value.evaluation import deviances
from kiki.value.groups import DAYS_PER_UNIT, Floats
from kiki.value.mixture import Mixture
from kiki.value.purchases import Purchases

FEATURES: Final = (
    "log_forecast",
    "log_idle_weeks",
    "idle_share",
    "log_last_4_weeks",
    "log_last_13_weeks",
    "log_last_26_weeks",
    "log_frequency",
    "probability_alive",
    "log_age_weeks",
    "regularity",
)
"""The columns of `features`."""

FACTOR_MAX: Final = 8.0
"""No forecast is multiplied or divided by more than this."""

RIDGES: Final = (10.0, 100.0, 1000.0)
"""Penalties that are tried, in purchases."""

WEIGHTS: Final = (0.25, 0.5, 0.75, 1.0)
"""How much of a correction is tried."""

_SMALLEST: Final = 1e-9
_ROUNDS: Final = 50
_STILL: Final = 1e-6


class Lesson(NamedTuple):
    """One origin: rows are customers."""

    features: Floats
    """Shape (customers, features)."""
    forecast: Floats
    """Mean purchases by the model, above 0."""
    came: Floats
    """Purchases that came."""


@dataclass(frozen=True, eq=False)
class Shape:
    """The correction: factor = level * exp(weight * coefficients @ standardised features).

    The level keeps the sum that it was told to keep, over the customers of the calibration, for one horizon and another; it is
    the same whichever customers are forecast.
    """

    mean: Floats
    """Of each feature where it was trained."""
    scale: Floats
    """The standard deviations there."""
    low: Floats
    """The least standardised value of each feature there; the correction does not extrapolate beyond."""
    high: Floats
    coefficients: Floats
    """In standardised features."""
    ridge: float
    """The penalty: half of this times the sum of squares of the coefficients is taken off the log likelihood."""
    weight: float
    """Between 0, no correction, and 1, all of what was learnt."""
    levels: tuple[tuple[float, float], ...] = ()
    """Horizons, growing, each with its level; in between straight in the logarithms, outside as at the nearest. Empty: 1."""

    def factors(self, mixture: Mixture, purchases: Purchases, horizon: float, *, dated: bool = True) -> Floats:
        """By how much to multiply the forecasts that `mixture` makes for these customers within `horizon` units.

        `dated` False leaves out the correction, which looks at recent weeks, for histories that do not tell them.
        """
        level = np.full(len(purchases), self.level(horizon))
        if not dated or self.weight == 0:
            return level
        groups, index = purchases.grouped()
        forecast, alive = mixture.expected(horizon, groups)[index], mixture.alive(groups)[index]
        return level * self.tilts(features(purchases, forecast, alive))

    def tilts(self, rows: Floats) -> Floats:
        """The factors for these features, before the level."""
        tilt = self.weight * (self.standardised(rows) @ self.coefficients)
        return np.exp(np.clip(tilt, -np.log(FACTOR_MAX), np.log(FACTOR_MAX)))

    def level(self, horizon: float) -> float:
        """What keeps the sum for this horizon."""
        if not self.levels:
            return 1.0
        horizons, levels = np.log(np.array(self.levels)).T
        return float(np.exp(np.interp(np.log(horizon), horizons, levels)))

    def standardised(self, features: Floats) -> Floats:
        """Features in standard deviations from where they were trained, cut off at the ends of what was seen."""
        return np.clip((features - self.mean) / self.scale, self.low, self.high)

    def keeping(self, mixture: Mixture, anchor: Mixture, purchases: Purchases, horizons: Sequence[float]) -> Shape:
        """The same correction with the levels under which these customers' sum, for each horizon, is the `anchor`'s."""
        groups, index = purchases.grouped()
        alive = mixture.alive(groups)[index]
        levels = []
        for horizon in sorted(horizons):
            forecast = mixture.expected(horizon, groups)[index]
            tilted = float(forecast @ self.tilts(features(purchases, forecast, alive)))
            kept = float(anchor.expected(horizon, groups) @ groups.weight)
            levels.append((float(horizon), kept / tilted if tilted > 0 and kept > 0 else 1.0))
        return replace(self, levels=tuple(levels))

    def as_dict(self) -> dict[str, Any]:
        """What `from_dict` takes, for a model file."""
        columns = {name: getattr(self, name).tolist() for name in _COLUMNS}
        levels = [list(pair) for pair in self.levels]
        return {"features": list(FEATURES), **columns, "ridge": self.ridge, "weight": self.weight, "levels": levels}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The correction that `as_dict` wrote; raises `InvalidInput` for anything else."""
        try:
            columns = {name: np.asarray(data[name], dtype=np.float64) for name in _COLUMNS}
            ridge, weight = float(data["ridge"]), float(data["weight"])
            levels = tuple((float(horizon), float(level)) for horizon, level in data["levels"])
            named = tuple(data["features"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"this is no correction of shape: {error!r}") from error
        wrong = named != FEATURES or any(
            column.shape != (len(FEATURES),) or not np.isfinite(column).all() for column in columns.values()
        )
        wrong = wrong or not all(np.isfinite(pair).all() and min(pair) > 0 for pair in levels)
        if wrong or not 0 <= weight <= 1 or (columns["scale"] <= 0).any():
            raise InvalidInput(
                f"a correction of shape has a weight from 0 to 1 and these features: {', '.join(FEATURES)}"
            )
        return cls(**columns, ridge=ridge, weight=weight, levels=levels)


_COLUMNS: Final = ("mean", "scale", "low", "high", "coefficients")


def features(purchases: Purchases, forecast: Floats, alive: Floats) -> Floats:
    """What the correction looks at, shape (customers, features); `forecast` and `alive` are the model's."""
    weeks = DAYS_PER_UNIT["week"]
    idle = (purchases.T - purchases.tx) / weeks
    x = purchases.x
    # Equal gaps make the mean of their logarithms the logarithm of their mean; uneven ones make it smaller.
    gaps = np.maximum(x, 1)
    regularity = np.where(x > 1, purchases.sum_log_gaps / gaps - np.log(np.maximum(purchases.tx, 1) / gaps), 0.0)
    columns = (
        np.log(np.maximum(forecast, _SMALLEST)),
        np.log1p(idle),
        (purchases.T - purchases.tx) / np.maximum(purchases.T, 1),
        np.log1p(purchases.last_4_weeks),
        np.log1p(purchases.last_13_weeks),
        np.log1p(purchases.last_26_weeks),
        np.log1p(x),
        alive,
        np.log1p(purchases.T / weeks),
        regularity,
    )
    return np.stack(columns, axis=1).astype(np.float64)


def no_correction() -> Shape:
    """A correction of weight 0, which can still keep a sum."""
    size = len(FEATURES)
    return Shape(np.zeros(size), np.ones(size), np.zeros(size), np.zeros(size), np.zeros(size), ridge=0.0, weight=0.0)


def learnt(lessons: Sequence[Lesson], ridges: Sequence[float]) -> list[Shape]:
    """The corrections, with weight 1, that explain what came at these origins; one for each of the `ridges`, all above 0.

    Raises `InvalidInput` for columns that are not finite.
    """
    rows = np.concatenate([lesson.features for lesson in lessons])
    forecast = np.maximum(np.concatenate([lesson.forecast for lesson in lessons]), _SMALLEST)
    came = np.concatenate([lesson.came for lesson in lessons])
    if not all(ridge > 0 for ridge in ridges) or not all(
        np.isfinite(column).all() for column in (rows, forecast, came)
    ):
        raise InvalidInput("a correction is learnt from finite numbers, with ridges above 0")
    weights = forecast / forecast.sum()
    mean = weights @ rows
    scale = np.sqrt(np.maximum(weights @ (rows - mean) ** 2, 0.0))
    scale = np.where(scale > 1e-9, scale, 1.0)
    rows = (rows - mean) / scale
    levels = len(lessons)
    design = np.zeros((came.size, levels + rows.shape[1]))
    design[np.arange(came.size), np.repeat(np.arange(levels), [lesson.came.size for lesson in lessons])] = 1
    design[:, levels:] = rows
    low, high, offset = rows.min(axis=0), rows.max(axis=0), np.log(forecast)
    found, b = [], np.zeros(design.shape[1])
    for ridge in ridges:
        # Levels are free; the thousandth keeps one finite at whose origin nothing came.
        penalty = np.concatenate([np.full(levels, 1e-3), np.full(rows.shape[1], ridge)])
        b = _poisson(design, offset, came, penalty, b)
        found.append(Shape(mean, scale, low, high, b[levels:], float(ridge), 1.0))
    return found


def _poisson(design: Floats, offset: Floats, came: Floats, penalty: Floats, begin: Floats) -> Floats:
    """The coefficients of a penalised Poisson regression: Newton steps from `begin`, halved until they gain."""
    b = begin
    value = _objective(design, offset, came, penalty, b)
    for _ in range(_ROUNDS):
        mean = np.exp(np.clip(offset + design @ b, -50, 50))
        slope = (came - mean) @ design - penalty * b
        hessian = design.T @ (design * mean[:, None]) + np.diag(penalty)
        step = np.linalg.solve(hessian, slope)
        for _ in range(30):
            new = _objective(design, offset, came, penalty, b + step)
            if new >= value:
                break
            step /= 2
        else:
            return b
        b, value = b + step, new
        if np.abs(step).max() < _STILL:
            return b
    return b


def _objective(design: Floats, offset: Floats, came: Floats, penalty: Floats, b: Floats) -> float:
    log_mean = np.clip(offset + design @ b, -50, 50)
    return float(came @ log_mean - np.exp(log_mean).sum() - 0.5 * (penalty @ b**2))


def chosen(lessons: Sequence[Lesson], trial: Lesson) -> Shape:
    """The correction, learnt from `lessons`, that does best on `trial`, an origin after theirs; often it is none.

    Judged are differences between customers only: all forecasts are brought to the sum that came. A correction has to lower the
    deviance by twice the standard error of the gain, and may not raise the squared error, which a few heavy buyers decide. Among those
    that come within one standard error of the best, the most careful is taken. No lessons, no correction.
    """
    best = _Found(no_correction(), 0.0, 0.0)
    if not lessons or not trial.came.sum() > 0:
        return best.shape
    plain = _levelled(trial.forecast, trial.came)
    deviance, error = deviances(trial.came, plain), float(((plain - trial.came) ** 2).sum())
    found = []
    for whole in learnt(lessons, RIDGES):
        for weight in WEIGHTS:
            shape = replace(whole, weight=weight)
            mean = _levelled(trial.forecast * shape.tilts(trial.features), trial.came)
            gain = deviance - deviances(trial.came, mean)
            noise = float(gain.std()) / np.sqrt(gain.size)
            if gain.mean() > 2 * noise and float(((mean - trial.came) ** 2).sum()) <= error:
                found.append(_Found(shape, float(gain.mean()), noise))
    best = max(found, key=lambda each: each.gain, default=best)
    near = [each for each in found if each.gain >= best.gain - best.noise]
    return max(near, key=lambda each: (-each.shape.weight, each.shape.ridge), default=best).shape


class _Found(NamedTuple):
    shape: Shape
    gain: float
    noise: float


def _levelled(mean: Floats, came: Floats) -> Floats:
    return mean * (float(came.sum()) / max(float(mean.sum()), _SMALLEST))
