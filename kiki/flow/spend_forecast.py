"""What a campaign or a plan will have spent by the end of its month, with an interval. Pure; chance is a seed.

A local level model, and with two weeks of days the weekdays (Durbin and Koopman, Time Series Analysis by State Space Methods,
2012, chapters 2 and 3), by statsmodels. The interval is of the sum, from simulated paths that begin where the filter ends, doubt
included, so days that go wrong together count together. Fewer than eight days have their mean and a t interval.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, Final

import msgspec
import numpy as np

from kiki.errors import InvalidInput

COVERED: Final = 0.8
"""The interval holds the truth about so often."""
_SMOOTHED_FROM: Final = 8
_WEEKDAYS_FROM: Final = 15
"""Two of every weekday and one day more."""
_DAYS_MIN: Final = 3
_PATHS: Final = 2_000
_MOVES_AT_LEAST: Final = 0.1
"""How far a level moves in a day, at least, as a share of what single days vary by."""

Numbers = np.ndarray[Any, np.dtype[np.float64]]


class SpendForecast(msgspec.Struct, frozen=True, kw_only=True):
    """Money in micros, all of it since the first reported day."""

    until: date
    spent: int
    """Reported so far."""
    mean: int
    """Expected by the end of `until`."""
    low: int
    high: int
    covered: float = COVERED
    """How often the truth should lie from `low` to `high`."""
    days_seen: int
    days_to_come: int
    method: str
    """`weekdays`, `level`, `mean`, or `none` when there is nothing left to forecast."""


def forecast_spend(days: Mapping[date, int], until: date, *, limit: int | None = None, seed: int = 0) -> SpendForecast:
    """What the days up to `until` will have cost. `days` are the reported ones; a gap between them counts as nothing spent.

    `limit` is where spending stops, in micros: the forecast goes no further.

    Raises `InvalidInput` for fewer than three days: nobody can tell anything from those.
    """
    if len(days) < _DAYS_MIN:
        raise InvalidInput(
            f"{len(days)} days are reported; a forecast needs {_DAYS_MIN}", hint="ask again when more days are reported"
        )
    first, last = min(days), max(days)
    seen = np.array([float(days.get(first + timedelta(days=each), 0)) for each in range((last - first).days + 1)])
    spent, coming = sum(days.values()), max(0, (until - last).days)
    if coming == 0:
        return SpendForecast(
            until=until,
            spent=spent,
            mean=spent,
            low=spent,
            high=spent,
            days_seen=len(seen),
            days_to_come=0,
            method="none",
        )
    method, sums = _sums(seen, coming, np.random.default_rng(seed))
    tail = (1 - COVERED) / 2
    if limit is not None:
        sums = np.minimum(sums, max(0, limit - spent))
    low, high = (float(each) for each in np.quantile(sums, [tail, 1 - tail]))
    return SpendForecast(
        until=until,
        spent=spent,
        mean=spent + max(0, round(float(sums.mean()))),
        low=spent + max(0, round(low)),
        high=spent + max(0, round(high)),
        days_seen=len(seen),
        days_to_come=coming,
        method=method,
    )


def _sums(seen: Numbers, coming: int, chance: np.random.Generator) -> tuple[str, Numbers]:
    """Sums of the days to come, one for each simulated path."""
    scale = float(seen.mean()) or 1.0
    if len(seen) < _SMOOTHED_FROM or float(seen.std()) < 1e-9 * scale:
        return "mean", _from_mean(seen, coming, chance)
    weekly = len(seen) >= _WEEKDAYS_FROM
    paths = _smoothed(seen / scale, coming, chance, weekly=weekly)
    return ("weekdays" if weekly else "level"), paths.sum(axis=0) * scale


def _from_mean(seen: Numbers, coming: int, chance: np.random.Generator) -> Numbers:
    """A mean that is known as well as so many days tell it, and days that vary around it as they did."""
    count = len(seen)
    deviation = float(seen.std(ddof=1))
    error = deviation * np.sqrt(coming**2 / count + coming)
    sums: Numbers = seen.mean() * coming + error * chance.standard_t(count - 1, _PATHS)
    return sums


def _smoothed(seen: Numbers, coming: int, chance: np.random.Generator, *, weekly: bool) -> Numbers:
    """Simulated days to come, a column for each path; the level and the weekdays are drawn as unsurely as they are known."""
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    with warnings.catch_warnings():
        # An optimiser that stops at a flat top says so; the interval is judged by how often it holds, in the tests.
        warnings.simplefilter("ignore")
        model = UnobservedComponents(
            seen, level="local level", seasonal=7 if weekly else None, stochastic_seasonal=False
        )
        params = model.fit(disp=False).params
        named = dict(zip(model.param_names, params, strict=True))
        # Maximum likelihood often says that the level never moves: nobody's spend is like that.
        named["sigma2.level"] = max(named["sigma2.level"], _MOVES_AT_LEAST**2 * named["sigma2.irregular"])
        fitted = model.smooth([named[name] for name in model.param_names])
        paths: Any = fitted.simulate(coming, anchor="end", repetitions=_PATHS, rng=chance)
    return np.asarray(paths, dtype=float).reshape(coming, -1)
