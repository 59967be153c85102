"""BG/NBD: purchases by a Poisson process, dropout by chance after a repeat purchase. Pure.

Fader, Hardie and Lee 2005, "'Counting Your Customers' the Easy Way: An Alternative to the Pareto/NBD Model", Marketing
Science 24(2); equation numbers are theirs. Everybody without a repeat purchase is alive by construction.
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
    return np.array([0.5, 0.5 / rate, 1.0, 2.5 * max(often, 1.0)])


def log_likelihood(theta: Floats, groups: Groups) -> tuple[Floats, Floats]:
    """The logarithm of L of each group (equation 6, as the note of 2019 on numerical stability writes it), and its gradient.

    `theta` are the logarithms of r, alpha, a, b; the gradient, shape (4, groups), is in them too.
    """
    return in_logs(_derivatives, theta, groups)


def total(theta: Floats, groups: Groups) -> Total:
    """The same over all customers, with the Hessian."""
    return total_in_logs(_derivatives, theta, groups)


def _derivatives(p: Floats, groups: Groups) -> Derivatives:
    return beta_dropout(p, groups, chances=groups.x)


def alive(p: Floats, groups: Groups) -> Floats:
    """P(alive at the end of calibration | history): equation 7 of the note on P(alive)."""
    r, alpha, a, b = p
    x, tx, t = groups.x, groups.tx, groups.t
    odds = np.where(
        x > 0,
        np.exp(np.log(a / np.maximum(b + x - 1, 1e-300)) + (r + x) * (np.log(alpha + t) - np.log(alpha + tx))),
        0.0,
    )
    return 1 / (1 + odds)


def expected(p: Floats, h: float, groups: Groups) -> Floats:
    """E[purchases in the next `h` units | history]: equation 10."""
    r, alpha, a, b = p
    return alive(p, groups) * bg_expected(r + groups.x, alpha + groups.t, a, b + groups.x, h)


def expected_new(p: Floats, t: Floats) -> Floats:
    """E[X(t)]: repeat purchases of a new customer until age `t` (equation 9)."""
    r, alpha, a, b = p
    age = np.asarray(t, dtype=np.float64)
    one = np.ones(age.size)
    found = bg_expected(r * one, alpha * one, a, b * one, age.reshape(-1))
    return found.reshape(age.shape)


def pmf(p: Floats, h: float, groups: Groups, n_max: int) -> Floats:
    """P(Y = n) for n = 0 ... `n_max` purchases in the next `h` units | history: shape (groups, n_max + 1)."""
    r, alpha, a, b = p
    living = bg_pmf(r + groups.x, alpha + groups.t, a, b + groups.x, h, n_max)
    return with_the_gone(living, alive(p, groups))


def no_purchase(p: Floats, h: float, groups: Groups) -> Floats:
    """P(no purchase in the next `h` units | history): churn as it can be observed."""
    return pmf(p, h, groups, 0)[:, 0]


def discounted(p: Floats, groups: Groups, rate: float) -> Floats:
    """Expected purchases after calibration, each discounted by the continuous `rate` a unit (above 0)."""
    r, alpha, a, b = p
    return alive(p, groups) * residual_purchases(r + groups.x, alpha + groups.t, a, b + groups.x, rate)[0]
