"""Intervals by profile likelihood: what to say of a parameter where no parabola describes the likelihood. Pure.

Venzon and Moolgavkar 1988, "A Method for Computing Profile-Likelihood-Based Confidence Intervals", Applied Statistics
37(1): the values of one parameter at which the likelihood, maximised over the others, is not significantly lower.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import chdtri

from kiki.value.fitting import EDGE, Data, Fit, Model, Objective, Point, minimised, objective
from kiki.value.groups import Floats
from kiki.value.priors import Prior

# How well an end is found, as a logarithm.
_CLOSE: Final = 2e-3

# So many groups are taken as they are.
_MANY: Final = 20_000


def profile_intervals(
    model: Model, data: Data, fit: Fit, *, prior: Prior | None = None, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """For each parameter the interval that holds it at this `level` of confidence, under the literature's names.

    0 and infinity stand for an end that the data do not set, as on a ridge. Of very many groups a coarse copy is used, and the
    ends are moved by as much as its estimate differs.
    """
    small = data if data.weight.size <= _MANY else data.coarse()
    customers = small.customers
    whole = objective(model, small, prior)
    first = np.log(model.start(small))
    best, point = minimised(whole, first, customers, begin=np.log(fit.values))
    drop = float(chdtri(1, 1 - level)) / 2 / customers
    ends = {}
    for place, name in enumerate(model.NAMES):
        low, high = (
            _end(whole, first, best, place, sign=sign, allowed=point.value + drop, customers=customers)
            for sign in (-1, 1)
        )
        moved = fit.parameters[name] / float(np.exp(best[place])) if name not in fit.at_boundary else 1.0
        ends[name] = (low * moved, high * moved)
    return ends


def _end(
    whole: Objective, first: Floats, best: Floats, place: int, *, sign: int, allowed: float, customers: float
) -> float:
    """Where the profile of the parameter at `place` crosses the `allowed` value, in the direction of `sign`."""
    others = np.delete(best, place)

    def above(distance: float) -> float:
        nonlocal others
        at = best[place] + sign * distance

        def rest(theta: Floats) -> Point:
            value, gradient, hessian = whole(np.insert(theta, place, at))
            return Point(value, np.delete(gradient, place), np.delete(np.delete(hessian, place, 0), place, 1))

        others, point = minimised(rest, np.delete(first, place), customers, begin=others)
        return point.value - allowed

    near, far, room = 0.0, 0.1, EDGE + sign * (first[place] - best[place])
    while above(far) < 0:
        near, far = far, far * 2
        if far > room:
            return 0.0 if sign < 0 else float("inf")
    while far - near > _CLOSE:
        middle = (near + far) / 2
        near, far = (middle, far) if above(middle) < 0 else (near, middle)
    return float(np.exp(best[place] + sign * (near + far) / 2))
