"""Pareto/NBD: purchases by a Poisson process, dropout after an exponential time. Pure.

Schmittlein, Morrison and Colombo 1987, "Counting Your Customers", Management Science 33(1); Fader and Hardie 2005, "A Note on
Deriving the Pareto/NBD Model and Related Expressions" (the note). Instead of the Gaussian hypergeometric functions
of the note, the integral over the moment of dropout is evaluated by quadrature: it is smooth, and never overflows.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import digamma, gammaln, hyperu

from kiki.value.groups import Floats, Groups
from kiki.value.numeric import log_add, nbd_pmf, per_value, with_the_gone

NAMES: Final = ("r", "alpha", "s", "beta")

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_NODES = (_NODES + 1) / 2
_WEIGHTS = _WEIGHTS / 2

# A count of a frequent buyer is a narrow bump in the moment of dropout: more nodes than the likelihood needs.
_PMF_NODES, _PMF_WEIGHTS = np.polynomial.legendre.leggauss(48)
_PMF_NODES = (_PMF_NODES + 1) / 2
_PMF_WEIGHTS = _PMF_WEIGHTS / 2


def start(groups: Groups) -> Floats:
    """Parameters to begin from: shapes of a usual log, and the mean rate of this one."""
    rate = (float(groups.weight @ groups.x) + 0.5) / max(float(groups.weight @ groups.t), 1e-9)
    return np.array([0.5, 0.5 / rate, 0.5, max(float(groups.weight @ groups.t) / groups.customers, 1e-6) / 4])


def log_likelihood(theta: Floats, groups: Groups) -> tuple[Floats, Floats]:
    """The logarithm of L of each group (the note, equation 17, before its integral is solved), and its gradient.

    `theta` are the logarithms of r, alpha, s, beta; the gradient, shape (4, groups), is in them too.
    """
    r, alpha, s, beta = np.exp(theta)
    x, t = groups.x, groups.t
    gammas = per_value(x, lambda n: np.stack([gammaln(r + n) - gammaln(r), digamma(r + n) - digamma(r)]))
    log_alpha_t, log_beta_t = np.log(alpha + t), np.log(beta + t)
    log_alive = -(r + x) * log_alpha_t - s * log_beta_t
    log_gone, gone_gradient = _log_gone(r, alpha, s, beta, groups)
    total = log_add(log_alive, log_gone)
    p_alive = np.exp(log_alive - total)
    p_gone = np.exp(log_gone - total)
    value = gammas[0] + r * np.log(alpha) + s * np.log(beta) + total
    gradient = np.stack(
        [
            gammas[1] + np.log(alpha) - p_alive * log_alpha_t + p_gone * gone_gradient[0],
            r / alpha - p_alive * (r + x) / (alpha + t) + p_gone * gone_gradient[1],
            np.log(beta) - p_alive * log_beta_t + p_gone * gone_gradient[2],
            s / beta - p_alive * s / (beta + t) + p_gone * gone_gradient[3],
        ]
    )
    return value, gradient * np.exp(theta)[:, None]


def _log_gone(r: float, alpha: float, s: float, beta: float, groups: Groups) -> tuple[Floats, Floats]:
    """The logarithm of s * integral over (tx, T] of (alpha + u)^-(r + x) (beta + u)^-(s + 1) du, and its gradient.

    With w = 1 - ((alpha + tx) / (alpha + u))^k and k = max(r + x - 1, 1) what is left to integrate is flat.
    """
    x, tx, t = groups.x, groups.tx, groups.t
    k = np.maximum(r + x - 1, 1.0)
    start = np.log(alpha + tx)
    reach = -np.expm1(k * (start - np.log(alpha + t)))
    # Nodes as rows: shape (16, groups).
    left = np.log1p(-_NODES[:, None] * reach)  # ln(1 - w)
    log_u = start - left / k  # ln(alpha + u)
    beta_u = beta - alpha + np.exp(log_u)
    log_beta_u = np.log(beta_u)
    log_f = ((r + x - 1) / k - 1) * left - (s + 1) * log_beta_u + np.log(_WEIGHTS)[:, None]
    top = log_f.max(axis=0)
    f = np.exp(log_f - top)
    area = f.sum(axis=0)
    with np.errstate(divide="ignore"):
        value = np.log(s) + (1 - r - x) * start - np.log(k) + np.log(reach) + top + np.log(area)
    share = f / area
    gradient = np.stack(
        [
            -(share * log_u).sum(axis=0),
            -(r + x) * (share * np.exp(-log_u)).sum(axis=0),
            1 / s - (share * log_beta_u).sum(axis=0),
            -(s + 1) * (share / beta_u).sum(axis=0),
        ]
    )
    return value, gradient


def alive(p: Floats, groups: Groups) -> Floats:
    """P(alive at the end of calibration | history): the note, equation 11."""
    r, alpha, s, beta = p
    x, t = groups.x, groups.t
    log_alive = -(r + x) * np.log(alpha + t) - s * np.log(beta + t)
    log_gone, _ = _log_gone(r, alpha, s, beta, groups)
    return np.exp(log_alive - log_add(log_alive, log_gone))


def expected(p: Floats, h: float, groups: Groups) -> Floats:
    """E[purchases in the next `h` units | history]: the note, equation 41."""
    r, alpha, s, beta = p
    rate = (r + groups.x) / (alpha + groups.t)
    return alive(p, groups) * rate * _lifetime(s, beta + groups.t, h)


def expected_new(p: Floats, t: Floats) -> Floats:
    """E[X(t)]: repeat purchases of a new customer until age `t` (the note, equation 27)."""
    r, alpha, s, beta = p
    return r / alpha * _lifetime(s, beta, np.asarray(t, dtype=np.float64))


def _lifetime(s: float, beta: Floats | float, h: Floats | float) -> Floats:
    """The expected time within `h` before dropout, beta/(s-1) (1 - (beta/(beta+h))^(s-1)), also around s = 1."""
    grown = np.log1p(h / beta)
    exponent = (s - 1) * grown
    # expm1(x)/x is 1 at 0: no case for s = 1.
    small = np.abs(exponent) < 1e-12
    return beta * grown * np.where(small, 1.0, -np.expm1(-exponent) / np.where(small, 1.0, exponent))


def pmf(p: Floats, h: float, groups: Groups, n_max: int) -> Floats:
    """P(Y = n) for n = 0 ... `n_max` purchases in the next `h` units | history: shape (groups, n_max + 1).

    Fader and Hardie 2014, "Deriving the Conditional PMF of the Pareto/NBD Model", before its integral over the moment
    of dropout is solved: by quadrature over the chance of having dropped out by then, which every weight sums to.
    """
    r, alpha, s, beta = p
    shape, rate, scale = r + groups.x, alpha + groups.t, beta + groups.t
    stays = np.exp(-s * np.log1p(h / scale))
    living = stays[:, None] * nbd_pmf(shape, rate, h, n_max)
    for node, weight in zip(_PMF_NODES, _PMF_WEIGHTS, strict=True):
        until = np.minimum(scale * np.expm1(-np.log1p(-node * (1 - stays)) / s), h)
        living += (weight * (1 - stays))[:, None] * nbd_pmf(shape, rate, until, n_max)
    return with_the_gone(living, alive(p, groups))


def no_purchase(p: Floats, h: float, groups: Groups) -> Floats:
    """P(no purchase in the next `h` units | history): churn as it can be observed."""
    return pmf(p, h, groups, 0)[:, 0]


def discounted(p: Floats, groups: Groups, rate: float) -> Floats:
    """DERT: expected purchases after calibration, each discounted by the continuous `rate` a unit (above 0).

    Fader, Hardie and Lee 2005, "RFM and CLV", equation 2, with Kummer's transformation U(s, s, z) = z^(1-s) U(1, 2-s, z).
    """
    r, alpha, s, beta = p
    scale = beta + groups.t
    lifetime = scale * hyperu(1.0, 2.0 - s, rate * scale)
    return alive(p, groups) * (r + groups.x) / (alpha + groups.t) * lifetime
