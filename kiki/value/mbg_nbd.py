"""MBG/NBD: as BG/NBD, but a customer may drop out right after the first purchase. Pure.

Batislam, Denizel and Filiztekin 2007, "Empirical validation and comparison of models for customer base analysis", Int. J. of Research in
Marketing 24; Hoppe and Wagner 2007, "Customer base analysis: The case for a central variant of the Betageometric/NBD Model",
Marketing ZFP 29. Somebody without a repeat purchase may be gone, which BG/NBD rules out.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import digamma, gammaln, hyp2f1

from kiki.value.groups import Floats, Groups
from kiki.value.numeric import bg_pmf, log_add, per_value, with_the_gone

NAMES: Final = ("r", "alpha", "a", "b")


def start(groups: Groups) -> Floats:
    """Parameters to begin from: shapes of a usual log, and the mean rate of this one."""
    rate = (float(groups.weight @ groups.x) + 0.5) / max(float(groups.weight @ groups.t), 1e-9)
    return np.array([0.5, 0.5 / rate, 1.0, 2.0])


def log_likelihood(theta: Floats, groups: Groups) -> tuple[Floats, Floats]:
    """The logarithm of L of each group and its gradient, shape (4, groups), in the logarithms `theta` of r, alpha, a, b."""
    r, alpha, a, b = np.exp(theta)
    x, tx, t = groups.x, groups.tx, groups.t
    gammas = per_value(
        x,
        lambda n: np.stack(
            [
                gammaln(r + n) - gammaln(r) + gammaln(a + b) + gammaln(b + n + 1) - gammaln(b) - gammaln(a + b + n + 1),
                digamma(r + n) - digamma(r),
                digamma(a + b) - digamma(a + b + n + 1),
                digamma(b + n + 1) - digamma(b),
            ]
        ),
    )
    log_t, log_tx = np.log(alpha + t), np.log(alpha + tx)
    log_alive = -(r + x) * log_t
    log_gone = np.log(a / (b + x)) - (r + x) * log_tx
    total = log_add(log_alive, log_gone)
    p_gone = np.exp(log_gone - total)
    p_alive = 1 - p_gone
    value = gammas[0] + r * np.log(alpha) + total
    gradient = np.stack(
        [
            gammas[1] + np.log(alpha) - p_alive * log_t - p_gone * log_tx,
            r / alpha - (r + x) * (p_alive / (alpha + t) + p_gone / (alpha + tx)),
            gammas[2] + p_gone / a,
            gammas[2] + gammas[3] - p_gone / (b + x),
        ]
    )
    return value, gradient * np.exp(theta)[:, None]


def alive(p: Floats, groups: Groups) -> Floats:
    """P(alive at the end of calibration | history)."""
    r, alpha, a, b = p
    x, tx, t = groups.x, groups.tx, groups.t
    return 1 / (1 + np.exp(np.log(a / (b + x)) + (r + x) * (np.log(alpha + t) - np.log(alpha + tx))))


def expected(p: Floats, h: float, groups: Groups) -> Floats:
    """E[purchases in the next `h` units | history]."""
    r, alpha, a, b = p
    x, t = groups.x, groups.t
    a = a + 1e-9 if abs(a - 1) < 1e-9 else a
    # Euler's transformation of the paper's 2F1, which overflows for frequent buyers.
    left = (alpha + t) / (alpha + t + h)
    head = (a + b + x) / (a - 1) * (1 - left ** (a - 1) * hyp2f1(a + b - r, a - 1, a + b + x, 1 - left))
    return np.maximum(head, 0.0) * alive(np.array([r, alpha, a, b]), groups)


def expected_new(p: Floats, t: Floats) -> Floats:
    """E[X(t)]: repeat purchases of a new customer until age `t`."""
    r, alpha, a, b = p
    t = np.asarray(t, dtype=np.float64)
    a = a + 1e-9 if abs(a - 1) < 1e-9 else a
    series = hyp2f1(r, b + 1, a + b, t / (alpha + t))
    return b / (a - 1) * (1 - (alpha / (alpha + t)) ** r * series)


def pmf(p: Floats, h: float, groups: Groups, n_max: int) -> Floats:
    """P(Y = n) for n = 0 ... `n_max` purchases in the next `h` units | history: shape (groups, n_max + 1)."""
    r, alpha, a, b = p
    living = bg_pmf(r + groups.x, alpha + groups.t, a, b + groups.x + 1, h, n_max)
    return with_the_gone(living, alive(p, groups))


def no_purchase(p: Floats, h: float, groups: Groups) -> Floats:
    """P(no purchase in the next `h` units | history): churn as it can be observed."""
    return pmf(p, h, groups, 0)[:, 0]
