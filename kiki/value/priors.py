"""Weak priors on what parameters mean: the mean rate, the mean dropout, the mean amount, and the shapes. Pure.

Each density is flat over everything that is plausible for a log of purchases, and falls off like a normal density
beyond. A log that identifies its parameters keeps its maximum likelihood estimate to the last digit; one that does not
stops at the shoulder of what is plausible, instead of running along a ridge to infinity.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from kiki.errors import InvalidInput
from kiki.value.gamma_gamma import Spending
from kiki.value.groups import Floats, Groups

Prior = Callable[[Floats], tuple[float, Floats]]
"""The logarithm of a prior density at the logarithms of the parameters, and its gradient."""

# A gamma shape of 30 is a population whose coefficient of variation is 18 %: hardly different from no difference at all.
_SHAPE: Final = float(np.log(30.0))

# Means of the population may be this many times smaller or larger than the crude ones of the log.
_MEAN: Final = float(np.log(50.0))

# The mean chance of dropping out at a purchase, as log odds: once in 8,000 purchases, and nearly always.
_CHANCE: Final = (-9.0, 4.0)

# Amounts have a finite mean when q is above 1; nearer than this, the largest orders decide what the mean is.
_TAIL: Final = 0.2


def weak(model_name: str, data: Groups | Spending) -> Prior:
    """The prior of the estimator "map" for a model, around the crude means of `data`.

    Takes the names of `count_models` with `Groups` (any k for "mbg-cnbd-k"), and "gamma-gamma" with `Spending`; raises
    `InvalidInput` for any other.
    """
    if isinstance(data, Spending):
        if model_name == "gamma-gamma":
            return partial(_amounts, crude=float(np.log(data.weight @ data.mean / data.customers)))
    else:
        family = "mbg-cnbd-k" if model_name.startswith("mbg-cnbd-") else model_name
        if family in _PLAUSIBLE:
            return partial(_counts, *_PLAUSIBLE[family](data))
    raise InvalidInput(f"there is no prior for {model_name!r} and this kind of data; use the estimator mle")


def _counts(by: Floats, low: Floats, high: Floats, theta: Floats) -> tuple[float, Floats]:
    """Combinations `by` @ theta, each at home between its `low` and its `high`."""
    places = by @ theta
    beyond = places - np.clip(places, low, high)
    return -0.5 * float(beyond @ beyond), -(beyond @ by)


def _rate(groups: Groups) -> float:
    """The logarithm of purchases a unit of time, over everybody; half a purchase keeps it finite."""
    return float(np.log((groups.weight @ groups.x + 0.5) / max(float(groups.weight @ groups.t), 1e-9)))


def _nbd(groups: Groups) -> tuple[Floats, Floats, Floats]:
    rate = _rate(groups)
    # The shape r, and the mean rate r / alpha.
    by = np.array([[1.0, 0.0], [1.0, -1.0]])
    return by, np.array([-_SHAPE, rate - _MEAN]), np.array([_SHAPE, rate + _MEAN])


def _pareto_nbd(groups: Groups) -> tuple[Floats, Floats, Floats]:
    rate = _rate(groups)
    leave = -float(np.log(max(float(groups.weight @ groups.t) / groups.customers, 1e-9)))
    # The shapes r and s, the mean rate r / alpha, and the mean rate of dropout s / beta.
    by = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [1, -1, 0, 0], [0, 0, 1, -1]])
    low = np.array([-_SHAPE, -_SHAPE, rate - _MEAN, leave - _MEAN])
    return by, low, np.array([_SHAPE, _SHAPE, rate + _MEAN, leave + _MEAN])


def _bg_nbd(groups: Groups) -> tuple[Floats, Floats, Floats]:
    rate = _rate(groups)
    # The shapes r and a, the mean rate r / alpha, and the odds a / b of dropping out at a purchase.
    by = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [1, -1, 0, 0], [0, 0, 1, -1]])
    low = np.array([-_SHAPE, -_SHAPE, rate - _MEAN, _CHANCE[0]])
    return by, low, np.array([_SHAPE, _SHAPE, rate + _MEAN, _CHANCE[1]])


_PLAUSIBLE: Final = {
    "nbd": _nbd,
    "pareto-nbd": _pareto_nbd,
    "bg-nbd": _bg_nbd,
    "mbg-nbd": _bg_nbd,
    "mbg-cnbd-k": _bg_nbd,
}


def _amounts(theta: Floats, crude: float) -> tuple[float, Floats]:
    """The shapes p and q, the mean amount p v / (q - 1), and a barrier that q does not come near 1 through."""
    q = float(np.exp(theta[1]))
    if q <= 1:
        return -np.inf, np.zeros(3)
    mean = float(theta[0] + theta[2] - np.log(q - 1))
    slope = np.array([1.0, -q / (q - 1), 1.0])
    beyond = mean - float(np.clip(mean, crude - _MEAN, crude + _MEAN))
    shapes = np.array([theta[0], theta[1]])
    wide = shapes - np.clip(shapes, -_SHAPE, 3 * _SHAPE)
    near = max(_TAIL / (q - 1) - 1, 0.0)
    value = -0.5 * (beyond**2 + float(wide @ wide) + near**2)
    gradient = -beyond * slope - np.append(wide, 0.0)
    gradient[1] += near * _TAIL * q / (q - 1) ** 2
    return value, gradient
