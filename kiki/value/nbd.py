"""NBD: purchases by a Poisson process whose rate differs between customers; nobody drops out. Pure.

Ehrenberg 1959, "The Pattern of Consumer Purchases", Applied Statistics 8. What is left when a log does not show dropout.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from kiki.value.groups import Floats, Groups
from kiki.value.numeric import Derivatives, Total, in_logs, nbd_pmf, rising, total_in_logs

NAMES: Final = ("r", "alpha")


def start(groups: Groups) -> Floats:
    """Parameters to begin from: shapes of a usual log, and the mean rate of this one."""
    rate = (float(groups.weight @ groups.x) + 0.5) / max(float(groups.weight @ groups.t), 1e-9)
    return np.array([0.5, 0.5 / rate])


def log_likelihood(theta: Floats, groups: Groups) -> tuple[Floats, Floats]:
    """The logarithm of L of each group (of its purchase moments, as in the models with dropout), and its gradient, shape (2, groups)."""
    return in_logs(_derivatives, theta, groups)


def total(theta: Floats, groups: Groups) -> Total:
    """The same over all customers, with the Hessian."""
    return total_in_logs(_derivatives, theta, groups)


def _derivatives(p: Floats, groups: Groups) -> Derivatives:
    r, alpha = p
    n, w = groups.x, groups.weight
    gammas = rising(r, n)
    log_age, age = np.log1p(groups.t / alpha), groups.t / (alpha * (alpha + groups.t))
    value = gammas[0] - n * np.log(alpha) - (r + n) * log_age
    gradient = np.stack([gammas[1] - log_age, (r + n) * age - n / alpha])
    across = w @ age
    bent = w @ ((r + n) * age * (age - 2 / alpha) + n / alpha**2)
    hessian = np.array([[w @ gammas[2], across], [across, bent]])
    return value, gradient, hessian


def alive(p: Floats, groups: Groups) -> Floats:
    """1 for everybody: this model knows no dropout."""
    return np.ones_like(groups.x)


def expected(p: Floats, h: float, groups: Groups) -> Floats:
    """E[purchases in the next `h` units | history]: the posterior mean rate times `h`."""
    r, alpha = p
    return (r + groups.x) / (alpha + groups.t) * h


def expected_new(p: Floats, t: Floats) -> Floats:
    """E[X(t)]: repeat purchases of a new customer until age `t`."""
    r, alpha = p
    return r / alpha * np.asarray(t, dtype=np.float64)


def pmf(p: Floats, h: float, groups: Groups, n_max: int) -> Floats:
    """P(Y = n) for n = 0 ... `n_max` purchases in the next `h` units | history: shape (groups, n_max + 1)."""
    r, alpha = p
    return nbd_pmf(r + groups.x, alpha + groups.t, h, n_max)


def no_purchase(p: Floats, h: float, groups: Groups) -> Floats:
    """P(no purchase in the next `h` units | history)."""
    return pmf(p, h, groups, 0)[:, 0]


def discounted(p: Floats, groups: Groups, rate: float) -> Floats:
    """Expected purchases after calibration, each discounted by the continuous `rate` a unit (above 0)."""
    r, alpha = p
    return (r + groups.x) / (alpha + groups.t) / rate
