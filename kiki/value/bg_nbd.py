"""BG/NBD: purchases by a Poisson process, dropout by chance after a repeat purchase. Pure.

Fader, Hardie and Lee 2005, "'Counting Your Customers' the Easy Way: An Alternative to the Pareto/NBD Model", Marketing
Science 24(2); equation numbers are theirs. Everybody without a repeat purchase is alive by construction.
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
    return np.array([0.5, 0.5 / rate, 1.0, 2.5])


def log_likelihood(theta: Floats, groups: Groups) -> tuple[Floats, Floats]:
    """The logarithm of L of each group (equation 6, as the note of 2019 on numerical stability writes it), and its gradient.

    `theta` are the logarithms of r, alpha, a, b; the gradient, shape (4, groups), is in them too.
    """
    r, alpha, a, b = np.exp(theta)
    x, tx, t = groups.x, groups.tx, groups.t
    repeated = x > 0
    gammas = per_value(
        x,
        lambda n: np.stack(
            [
                gammaln(r + n) - gammaln(r) + gammaln(a + b) + gammaln(b + n) - gammaln(b) - gammaln(a + b + n),
                digamma(r + n) - digamma(r),
                digamma(a + b) - digamma(a + b + n),
                digamma(b + n) - digamma(b),
            ]
        ),
    )
    log_t, log_tx = np.log(alpha + t), np.log(alpha + tx)
    alive = -(r + x) * log_t
    with np.errstate(divide="ignore"):
        gone = np.where(repeated, np.log(a / np.maximum(b + x - 1, 1e-300)) - (r + x) * log_tx, -np.inf)
    total = log_add(alive, gone)
    p_gone = np.exp(gone - total)
    p_alive = 1 - p_gone
    value = gammas[0] + r * np.log(alpha) + total
    gradient = np.stack(
        [
            gammas[1] + np.log(alpha) - p_alive * log_t - p_gone * log_tx,
            r / alpha - (r + x) * (p_alive / (alpha + t) + p_gone / (alpha + tx)),
            gammas[2] + p_gone / a,
            gammas[2] + gammas[3] - np.where(repeated, p_gone / np.maximum(b + x - 1, 1e-300), 0.0),
        ]
    )
    return value, gradient * np.exp(theta)[:, None]


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
    x, t = groups.x, groups.t
    a = a + 1e-9 if abs(a - 1) < 1e-9 else a
    # Euler's transformation of the paper's 2F1, which overflows for frequent buyers.
    left = (alpha + t) / (alpha + t + h)
    head = (a + b + x - 1) / (a - 1) * (1 - left ** (a - 1) * hyp2f1(a + b - 1 - r, a - 1, a + b + x - 1, 1 - left))
    return np.maximum(head, 0.0) * alive(np.array([r, alpha, a, b]), groups)


def expected_new(p: Floats, t: Floats) -> Floats:
    """E[X(t)]: repeat purchases of a new customer until age `t` (equation 9)."""
    r, alpha, a, b = p
    t = np.asarray(t, dtype=np.float64)
    a = a + 1e-9 if abs(a - 1) < 1e-9 else a
    z = t / (alpha + t)
    return (a + b - 1) / (a - 1) * (1 - (alpha / (alpha + t)) ** r * hyp2f1(r, b, a + b - 1, z))


def pmf(p: Floats, h: float, groups: Groups, n_max: int) -> Floats:
    """P(Y = n) for n = 0 ... `n_max` purchases in the next `h` units | history: shape (groups, n_max + 1)."""
    r, alpha, a, b = p
    living = bg_pmf(r + groups.x, alpha + groups.t, a, b + groups.x, h, n_max)
    return with_the_gone(living, alive(p, groups))


def no_purchase(p: Floats, h: float, groups: Groups) -> Floats:
    """P(no purchase in the next `h` units | history): churn as it can be observed."""
    return pmf(p, h, groups, 0)[:, 0]
