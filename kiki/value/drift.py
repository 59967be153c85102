"""Rates that wander: within a customer, the rate of the weeks to come is not quite the rate of the weeks that were seen. Pure.

Buy-till-you-die models give everybody one rate for life. Where people change (a job, a household, a diet) the log shows it as outcomes
that spread wider than the models say, most of all for frequent buyers, of whom much seems to be known, and the more the longer a history and
a horizon are. Here the logarithm of a rate is a Brownian motion whose variance grows by `drift` a unit of time. Its mean over
the T units before a day and its mean over the h units after it then differ by a normal variable with variance drift * (T + h) / 3: each
mean is the motion's value on that day plus an integral with variance drift * T / 3, or drift * h / 3. So the forecast mean stays,
and the distribution around it is mixed over lognormal factors with mean 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from kiki.value.groups import DAYS_PER_UNIT, Floats

DRIFTS: Final = tuple(0.00025 * 2**step for step in range(6))
"""Variances a week that are tried: with the largest, the year to come differs from the year before by a standard deviation of a half."""

REJECTED: Final = 1.0
"""A drift whose log score, over the customers of an origin, is this much below the best one's is rejected."""

ROOM: Final = 1.0
"""Tables have room for factors of so many standard deviations: of what lies beyond them, little lies beyond the table too."""

_FURTHEST: Final = 3.2
"""Factors of so many standard deviations to both sides are mixed."""

_FELT: Final = 0.01
"""A row whose variance would grow by a smaller share than this stays as it is."""

_SD_MOST: Final = 0.7
"""However long it takes, a rate is not expected to double or halve: customers change within bounds."""

_UP: Final = 8
_DOWN: Final = 12
"""So many points of the grid lie above 0, and below."""

_ROUNDS: Final = 8
_WITHIN: Final = 1e-4
"""Means stay to this relative error."""

_POWER_MOST: Final = 500.0
"""The largest exponent: exp of more than 700 is no number."""


def log_sd(drift: float, age: Floats, horizon: float) -> Floats:
    """The standard deviation of the logarithm of the factor between what was seen and what comes, one for each age."""
    return np.minimum(np.sqrt(drift * (age + horizon) / 3), _SD_MOST)


def per_unit(drift_a_week: float, unit: str) -> float:
    """A variance a week as one a unit."""
    return drift_a_week * DAYS_PER_UNIT[unit] / DAYS_PER_UNIT["week"]


def spread(pmf: Floats, sd: Floats) -> Floats:
    """Rows mixed over lognormal factors of mean 1 whose logarithms have these standard deviations; means stay.

    A factor tilts a row (`count_pmf.tilted`): pmf * theta^n. All rows of a kind share one grid of thetas, so that sums over n are
    products of matrices, and which factor a theta stands for is read off the means.
    """
    n = np.arange(pmf.shape[1], dtype=np.float64)
    mean = pmf @ n
    variance = np.maximum(pmf @ n**2 - mean**2, 1e-300)
    rows = np.flatnonzero(mean**2 * np.expm1(sd**2) > _FELT * variance)
    if not rows.size:
        return pmf
    found = pmf.copy()
    # ln(theta) that moves the logarithm of the mean by one standard deviation. Rows of nearly the same share a grid, whatever other
    # rows there are: who is forecast alone gets what he gets among others.
    kinds = np.stack([sd[rows] * mean[rows] / variance[rows], sd[rows]], axis=1)
    kinds = np.ceil(2 * np.log2(kinds)).astype(np.int64)
    for kind in np.unique(kinds, axis=0):
        alike = rows[(kinds == kind).all(axis=1)]
        logs = _thetas(float(2 ** (kind[0] / 2)), float(2 ** (kind[1] / 2)), n[-1])
        found[alike] = _mixed(pmf[alike], sd[alike], mean[alike], np.exp(np.multiply.outer(n, logs)))
    return found


def _thetas(step: float, sd: float, most: float) -> Floats:
    """Logarithms of theta, growing: as far as three standard deviations of rows that are moved by one within `step`."""
    up = np.linspace(0, min(_FURTHEST * step, _POWER_MOST / most), _UP + 1)
    # Below, a mean follows ln(theta) more and more slowly, at worst at the same rate: steps grow until they reach that far.
    first, reach = up[1], max(_FURTHEST * sd, _FURTHEST * step)
    growth = 1.0
    while first * (growth ** np.arange(_DOWN)).sum() < reach:
        growth *= 1.02
    down = np.cumsum(first * growth ** np.arange(_DOWN))
    return np.concatenate([-down[::-1], up])


def _mixed(base: Floats, sd: Floats, mean: Floats, powers: Floats) -> Floats:
    """The rows mixed; `powers` holds theta^n, a column for each theta."""
    n = np.arange(base.shape[1], dtype=np.float64)
    total = base @ powers
    moved = np.log(np.maximum(base @ (powers * n[:, None]) / total, 1e-300) / mean[:, None])
    width = np.gradient(moved, axis=1)
    middle = -(sd**2) / 2
    for _ in range(_ROUNDS):
        weight = np.exp(-(((moved - middle[:, None]) / sd[:, None]) ** 2) / 2) * width
        weight /= weight.sum(axis=1, keepdims=True)
        off = np.log((weight * np.exp(moved)).sum(axis=1))
        if np.abs(off).max() < _WITHIN:
            break
        middle -= off
    found = base * ((weight / total) @ powers.T)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def chosen(scores: Sequence[Floats], horizons: Sequence[float]) -> float:
    """The drift a week: the largest that the origins which looked furthest ahead do not reject.

    `scores` holds, for each origin, the log score of no drift and of each of `DRIFTS`, summed over the origin's customers; `horizons`
    are how far each looked. Over a short time buyers are more regular than chance, which hides a drift, and forecasts reach
    further than origins do: hence the furthest, and the largest.
    """
    furthest = max(horizons)
    gain = np.mean(
        [score for score, horizon in zip(scores, horizons, strict=True) if horizon >= 0.95 * furthest], axis=0
    )
    return (0.0, *DRIFTS)[int(np.flatnonzero(gain > gain.max() - REJECTED)[-1])]
