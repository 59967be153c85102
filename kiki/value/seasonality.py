"""Season of the level: how much more or less all customers buy at a time of the year than a model without seasons says.

The models of purchases know no calendar. Where the log spans two years, purchases of 28 days each are compared with what the model expects of
customers of that age, and the logarithm of the ratio becomes a series: an intercept, two harmonics of the year, and what is left as an
autoregression that fades (statsmodels, UnobservedComponents: Harvey 1989, "Forecasting, Structural Time Series Models and the Kalman Filter").
Only the season is carried on. A trend of the level is not: seen over short horizons it swings too far to be worth a promise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np

from kiki.errors import InvalidInput
from kiki.value.groups import DAYS_PER_UNIT, Floats
from kiki.value.orders import Orders, day_number
from kiki.value.predictive import Level
from kiki.value.purchases import Purchases

STEP_DAYS: Final = 28
"""The length of a period: weekdays cancel out in it."""

DAYS_PER_YEAR: Final = 365.25

YEARS_MIN: Final = 2.0
"""A season that was seen once may be anything."""

EXPECTED_MIN: Final = 20.0
"""A period in which fewer purchases are expected tells nothing; it is left out, and so is what lies before it."""

HARMONICS: Final = 2

GAIN_MIN: Final = 4.0
"""How much Akaike's criterion, corrected for short series, has to fall before a season is believed (Burnham and Anderson: considerably less support)."""

_PATH_STEPS: Final = 40
"""The path goes round the year three times; further ahead it stays at a year's mean, 1."""


class LevelSeries(NamedTuple):
    """Periods of 28 days, the last one ending with the calibration."""

    actual: Floats
    """Repeat purchases."""
    expected: Floats
    """By the model, of customers of that age."""

    @property
    def log_ratio(self) -> Floats:
        """ln(actual / expected); half a purchase keeps it finite."""
        return np.log((self.actual + 0.5) / (self.expected + 0.5))

    @property
    def told(self) -> LevelSeries:
        """The periods in which enough was expected to tell anything."""
        rows = self.expected >= EXPECTED_MIN
        return LevelSeries(self.actual[rows], self.expected[rows])

    @property
    def swing(self) -> float:
        """The standard deviation of `log_ratio` over the periods that tell anything, beyond what chance does to counts."""
        told = self.told
        if told.expected.size < 2:
            return 0.0
        return float(np.sqrt(max(told.log_ratio.var() - (1 / told.expected).mean(), 0.0)))


@dataclass(frozen=True)
class LevelPath:
    """The multiplier of everybody's purchases in each of the 28-day periods after the calibration."""

    multipliers: tuple[float, ...]
    log_sds: tuple[float, ...]
    """The standard deviations of their logarithms, of the season alone."""

    def level(self, horizon: float, unit: str) -> Level:
        """The multiplier of all that is bought within `horizon` units."""
        days = horizon * DAYS_PER_UNIT[unit]
        share = np.clip(days / STEP_DAYS - np.arange(len(self.multipliers)), 0.0, 1.0)
        beyond = max(days / STEP_DAYS - len(self.multipliers), 0.0)
        whole = share.sum() + beyond
        mean = (share @ np.array(self.multipliers) + beyond) / whole
        # Errors of neighbouring periods go together, so that averaging hardly makes them smaller.
        return Level(float(mean), float(share @ np.array(self.log_sds) / whole))

    def as_dict(self) -> dict[str, Any]:
        """What `from_dict` takes, for a model file."""
        return {"step_days": STEP_DAYS, "multipliers": list(self.multipliers), "log_sds": list(self.log_sds)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The path that `as_dict` wrote; raises `InvalidInput` for anything else."""
        try:
            path = cls(*(tuple(float(value) for value in data[name]) for name in ("multipliers", "log_sds")))
            step = int(data["step_days"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"this is no path of the level: {error!r}") from error
        values = (
            np.array([path.multipliers, path.log_sds]) if len(path.multipliers) == len(path.log_sds) else np.zeros(0)
        )
        if (
            step != STEP_DAYS
            or not values.size
            or not np.isfinite(values).all()
            or (values[0] <= 0).any()
            or (values[1] < 0).any()
        ):
            raise InvalidInput(f"a path of the level is of multipliers above 0, one for each {STEP_DAYS} days")
        return path


def doubted(level: Level | None, doubt: float) -> Level | None:
    """The level with a doubt more about it, as a standard deviation of logarithms; None is a level of 1 without any."""
    if not doubt:
        return level
    known = level or Level(1.0)
    return known._replace(log_sd=float(np.hypot(known.log_sd, doubt)))


def level_series(orders: Orders, purchases: Purchases, expected_new: Callable[[Floats], Floats]) -> LevelSeries:
    """Repeat purchases of everybody in `purchases` until the end of the calibration, and what was to be expected.

    `expected_new` is E[X(t)] of the model, in the unit of `purchases`.
    """
    end = day_number(purchases.calibration_end)
    first_day = purchases.first_day
    begin = int(first_day.min())
    steps = max((end - begin + 1) // STEP_DAYS, 1)
    ends = end - STEP_DAYS * np.arange(steps)[::-1]
    customer, day, _ = orders.as_of(end)
    starts = np.full(orders.ids.size, np.iinfo(np.int64).max)
    starts[np.searchsorted(orders.ids, purchases.ids)] = first_day
    repeats = day[(day > starts[customer]) & (day > ends[0] - STEP_DAYS)]
    actual = np.bincount(np.searchsorted(ends, repeats), minlength=steps).astype(np.float64)
    # Ages are whole days, so E[X(t)] is needed once for each different age.
    grown = expected_new(np.arange(end - begin + 1) / DAYS_PER_UNIT[purchases.unit])
    joined = np.bincount(first_day - begin).astype(np.float64)
    days = np.arange(joined.size)
    until = np.concatenate([[ends[0] - STEP_DAYS], ends]) - begin
    total = np.array([float(joined @ grown[np.maximum(upto - days, 0)]) for upto in until])
    return LevelSeries(actual, np.diff(total))


def season(series: LevelSeries) -> LevelPath | None:
    """The season to come, or None: where the series is too short, or its season is no more than chance."""
    thin = np.flatnonzero(series.expected < EXPECTED_MIN)
    y = series.log_ratio[thin[-1] + 1 :] if thin.size else series.log_ratio
    if y.size * STEP_DAYS < YEARS_MIN * DAYS_PER_YEAR:
        return None
    plain, seasonal = _fitted(y, 0), _fitted(y, HARMONICS)
    if not seasonal.aicc < plain.aicc - GAIN_MIN:
        return None
    logs, sds = _season_ahead(seasonal, y.size)
    # A year's mean is 1: how much is bought in all is the model's to say.
    year = np.exp(logs[: round(DAYS_PER_YEAR / STEP_DAYS)]).mean()
    return LevelPath(tuple((np.exp(logs) / year).tolist()), tuple(sds.tolist()))


def _fitted(y: Floats, harmonics: int) -> Any:
    # Importing it takes a second, which only long logs are worth.
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    options: dict[str, Any] = {"level": "fixed intercept", "autoregressive": 1}
    if harmonics:
        options |= {
            "freq_seasonal": [{"period": DAYS_PER_YEAR / STEP_DAYS, "harmonics": harmonics}],
            "stochastic_freq_seasonal": [False],
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its optimiser: AICc, which is what is used, judges the outcome
        return UnobservedComponents(y, **options).fit(disp=False, maxiter=200)


def _season_ahead(fit: Any, size: int) -> tuple[Floats, Floats]:
    """The logarithm of the season in the steps to come, and its standard deviation: the states' regression is fixed."""
    states = [place for place, name in enumerate(fit.model.state_names) if "freq_seasonal" in name]
    mean, covariance = (
        fit.predicted_state[states, size],
        fit.predicted_state_cov[np.ix_(states, states, [size])][:, :, 0],
    )
    frequency = 2 * np.pi * STEP_DAYS / DAYS_PER_YEAR
    logs, sds = [], []
    for ahead in range(_PATH_STEPS):
        row = np.zeros(len(states))
        for harmonic in range(HARMONICS):
            angle = frequency * (harmonic + 1) * ahead
            row[2 * harmonic], row[2 * harmonic + 1] = np.cos(angle), np.sin(angle)
        logs.append(float(row @ mean))
        sds.append(float(np.sqrt(max(row @ covariance @ row, 0.0))))
    return np.array(logs), np.array(sds)
