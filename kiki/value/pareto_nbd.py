"""Pareto/NBD: purchases by a Poisson process, dropout after an exponential time. Pure.

Schmittlein, Morrison and Colombo 1987, "Counting Your Customers", Management Science 33(1); Fader and Hardie 2005, "A Note on
Deriving the Pareto/NBD Model and Related Expressions" (the note). Instead of the Gaussian hypergeometric functions
of the note, the integral over the moment of dropout is evaluated by quadrature: it is smooth, and never overflows.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Self

import numpy as np
from scipy.special import hyperu

from kiki.value.groups import Floats, Groups
from kiki.value.numeric import (
    Derivatives,
    Total,
    blocks,
    either,
    in_logs,
    log_add,
    nbd_pmf_mixed,
    rising,
    total_in_logs,
    with_the_gone,
)

NAMES: Final = ("r", "alpha", "s", "beta")


def _gauss(nodes: int) -> tuple[Floats, Floats]:
    """Places between 0 and 1, and the logarithms of their weights, both as a column."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    return ((places + 1) / 2)[:, None], np.log(weights / 2)[:, None]


# Where alpha and beta are of one size, or one of them is beyond all ages, the integrand has one scale: few nodes do.
_FEW, _MANY = _gauss(10), _gauss(24)
_ONE_SCALE: Final = 30.0

_POWER: Final = 6.0
_LEAST: Final = 0.1

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
    return in_logs(_derivatives, theta, groups)


def total(theta: Floats, groups: Groups) -> Total:
    """The same over all customers, with the Hessian."""
    return total_in_logs(_derivatives, theta, groups)


def _derivatives(p: Floats, groups: Groups) -> Derivatives:
    # With times as multiples of alpha and beta: along a ridge, where both are large, every term then stays small.
    r, alpha, s, beta = p
    n, w, t = groups.x, groups.weight, groups.t
    gammas = rising(r, n)
    moment = _Moment.of(p, groups)
    buying, staying = t / (alpha * (alpha + t)), t / (beta * (beta + t))
    alive = (
        _log_alive(p, groups),
        np.stack([-np.log1p(t / alpha), (r + n) * buying, -np.log1p(t / beta), s * staying]),
    )
    value, gradient, p_alive, p_gone, hessian = either(w, alive, (moment.log_gone, moment.mean_gradient()))
    value += gammas[0] - n * np.log(alpha)
    gradient[0] += gammas[1]
    gradient[1] -= n / alpha
    hessian += moment.mean_hessian(w * p_gone)
    living = w * p_alive
    hessian[0, 0] += w @ gammas[2]
    hessian[0, 1] += living @ buying
    hessian[1, 0] += living @ buying
    hessian[1, 1] += living @ ((r + n) * buying * (buying - 2 / alpha)) + (w @ n) / alpha**2
    hessian[2, 3] += living @ staying
    hessian[3, 2] += living @ staying
    hessian[3, 3] += living @ (s * staying * (staying - 2 / beta))
    return value, gradient, hessian


def _log_alive(p: Floats, groups: Groups) -> Floats:
    r, alpha, s, beta = p
    return -(r + groups.x) * np.log1p(groups.t / alpha) - s * np.log1p(groups.t / beta)


class _Moment(NamedTuple):
    """The moment u of dropout of those who are gone: at each node, in each group; columns are of shape (nodes, groups)."""

    log_gone: Floats
    """The logarithm of s / beta * integral over (tx, T] of (1 + u / alpha)^-(r + x) (1 + u / beta)^-(s + 1) du, shape (groups,)."""
    share: Floats
    """The chance of this node, given that the customer is gone: a column sums to 1."""
    scores: Floats
    """The gradient of the integrand's logarithm in r, alpha, s, beta, shape (4, nodes, groups)."""
    purchasing: Floats
    """r + x, shape (groups,)."""
    p: Floats

    @classmethod
    def of(cls, p: Floats, groups: Groups) -> Self:
        """By Gauss-Legendre in v = 1 - ((c + tx) / (c + u))^k, with c the smaller one of alpha and beta.

        The integrand falls off like (c + u)^-steep, so that (1 - v)^(steep / k) is what is left to integrate. A power of
        `_POWER` is no trouble for Gauss, whereas one of 1 would leave a singularity beside the end of the interval.
        """
        r, alpha, s, beta = p
        purchasing, last = r + groups.x, min(alpha, beta) + groups.tx
        scales = np.minimum(max(alpha, beta) + groups.tx, min(alpha, beta) + groups.t) / last
        nodes, log_weights = _FEW if scales.max(initial=1.0) < _ONE_SCALE else _MANY
        steep = last * (purchasing / (alpha + groups.tx) + (s + 1) / (beta + groups.tx)) - 1
        k = np.maximum(steep / _POWER, _LEAST)
        reach = -np.expm1(k * np.log1p((groups.tx - groups.t) / (min(alpha, beta) + groups.t)))
        left = np.log1p(-nodes * reach)  # ln(1 - v)
        grown = left / -k  # ln((c + u) / (c + tx))
        u = last * np.expm1(grown) + groups.tx
        log_rate, log_leaving = np.log1p(u / alpha), np.log1p(u / beta)
        log_f = grown - left - purchasing * log_rate - (s + 1) * log_leaving + log_weights
        top = log_f.max(axis=0)
        share = np.exp(log_f - top)
        area = share.sum(axis=0)
        share /= area
        with np.errstate(divide="ignore"):
            log_gone = np.log(reach) + (np.log(s / beta) + np.log(last / k) + top + np.log(area))
        by_alpha = purchasing / alpha * (u / (alpha + u))
        by_beta = (s + 1) / beta * (u / (beta + u))
        return cls(log_gone, share, np.stack([-log_rate, by_alpha, -log_leaving, by_beta]), purchasing, p)

    def mean_gradient(self) -> Floats:
        """The gradient of `log_gone`, shape (4, groups)."""
        _, _, s, beta = self.p
        return self._mean() + np.array([0.0, 0.0, 1 / s, -1 / beta])[:, None]

    def _mean(self) -> Floats:
        return np.einsum("png,ng->pg", self.scores, self.share)

    def mean_hessian(self, weight: Floats) -> Floats:
        """The Hessian of `log_gone`, summed over the groups: the variance of the scores and the mean of their slopes."""
        _, alpha, s, beta = self.p
        mean = self._mean()
        # Not `@`, which would wake several threads for so little.
        second = np.einsum("png,qng->pq", self.scores * (self.share * weight), self.scores)
        hessian = second - np.einsum("pg,qg,g->pq", mean, mean, weight)
        # The slopes follow from the scores: with q = u / (alpha (alpha + u)) they are (r + x) q, q and (r + x) (q - 2 / alpha) q.
        by_rate = np.einsum("ng,ng,ng,g->", self.scores[1], self.scores[1], self.share, weight / self.purchasing)
        buying, leaving = weight @ (mean[1] / self.purchasing), weight @ mean[3] / (s + 1)
        hessian[0, 1] += buying
        hessian[1, 0] += buying
        hessian[1, 1] += by_rate - 2 / alpha * (weight @ mean[1])
        hessian[2, 2] -= weight.sum() / s**2
        hessian[2, 3] += leaving
        hessian[3, 2] += leaving
        hessian[3, 3] += second[3, 3] / (s + 1) - 2 / beta * (weight @ mean[3]) + weight.sum() / beta**2
        return hessian


def alive(p: Floats, groups: Groups) -> Floats:
    """P(alive at the end of calibration | history): the note, equation 11."""
    found = []
    for block in blocks(groups):
        log_alive = _log_alive(p, block)
        found.append(np.exp(log_alive - log_add(log_alive, _Moment.of(p, block).log_gone)))
    return np.concatenate(found)


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
    gone_by = [scale * np.expm1(-np.log1p(-node * (1 - stays)) / s) for node in _PMF_NODES]
    weights = [weight * (1 - stays) for weight in _PMF_WEIGHTS]
    periods = [(np.full_like(stays, h), stays)]
    periods += [(np.minimum(until, h), weight) for until, weight in zip(gone_by, weights, strict=True)]
    living = nbd_pmf_mixed(shape, rate, periods, n_max)
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
