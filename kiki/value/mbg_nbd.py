"""MBG/NBD: as BG/NBD, but a customer may drop out right after the first purchase. Pure.

Batislam, Denizel and Filiztekin 2007, "Empirical validation and comparison of models for customer base analysis", Int. J. of Research in
Marketing 24; Hoppe and Wagner 2007, "Customer base analysis: The case for a central variant of the Betageometric/NBD Model",
Marketing ZFP 29. Somebody without a repeat purchase may be gone, which BG/NBD rules out.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from kiki.value.discounting import residual_purchases
from kiki.value.groups import Floats, Groups
from kiki.value.numeric import (
    Derivatives,
    Total,
    beta_dropout,
    bg_expected,
    bg_pmf,
    in_logs,
    total_in_logs,
    with_the_gone,
)

NAMES: Final = ("r", "alpha", "a", "b")


def start(groups: Groups) -> Floats:
    """Parameters to begin from: shapes of a usual log, and the means of this one."""
    rate = (float(groups.weight @ groups.x) + 0.5) / max(float(groups.weight @ groups.t), 1e-9)
    # Whoever buys often has had as many chances to drop out.
    often = float(groups.weight @ groups.x) / groups.customers
    return np.array([0.5, 0.5 / rate, 1.0, 2.0 * max(often, 1.0)])


def log_likelihood(theta: Floats, groups: Groups) -> tuple[Floats, Floats]:
    """The logarithm of L of each group and its gradient, shape (4, groups), in the logarithms `theta` of r, alpha, a, b."""
    return in_logs(_derivatives, theta, groups)


def total(theta: Floats, groups: Groups) -> Total:
    """The same over all customers, with the Hessian."""
    return total_in_logs(_derivatives, theta, groups)


def _derivatives(p: Floats, groups: Groups) -> Derivatives:
    return beta_dropout(p, groups, chances=groups.x + 1)


def alive(p: Floats, groups: Groups) -> Floats:
    """P(alive at the end of calibration | history)."""
    r, alpha, a, b = p
    x, tx, t = groups.x, groups.tx, groups.t
    return 1 / (1 + np.exp(np.log(a / (b + x)) + (r + x) * (np.log(alpha + t) - np.log(alpha + tx))))


def expected(p: Floats, h: float, groups: Groups) -> Floats:
    """E[purchases in the next `h` units | history]."""
    r, alpha, a, b = p
    return alive(p, groups) * bg_expected(r + groups.x, alpha + groups.t, a, b + groups.x + 1, h)


def expected_new(p: Floats, t: Floats) -> Floats:
    """E[X(t)]: repeat purchases of a new customer until age `t`."""
    r, alpha, a, b = p
    age = np.asarray(t, dtype=np.float64)
    one = np.ones(age.size)
    found = b / (a + b) * bg_expected(r * one, alpha * one, a, (b + 1) * one, age.reshape(-1))
    return found.reshape(age.shape)


def pmf(p: Floats, h: float, groups: Groups, n_max: int) -> Floats:
    """P(Y = n) for n = 0 ... `n_max` purchases in the next `h` units | history: shape (groups, n_max + 1)."""
    r, alpha, a, b = p
    living = bg_pmf(r + groups.x, alpha + groups.t, a, b + groups.x + 1, h, n_max)
    return with_the_gone(living, alive(p, groups))


def no_purchase(p: Floats, h: float, groups: Groups) -> Floats:
    """P(no purchase in the next `h` units | history): churn as it can be observed."""
    return pmf(p, h, groups, 0)[:, 0]


def discounted(p: Floats, groups: Groups, rate: float) -> Floats:
    """Expected purchases after calibration, each discounted by the continuous `rate` a unit (above 0)."""
    r, alpha, a, b = p
    return alive(p, groups) * residual_purchases(r + groups.x, alpha + groups.t, a, b + groups.x + 1, rate)[0]
