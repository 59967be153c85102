"""What purchases that come later are worth now, in models where each purchase may be the last. Pure.

In the BG/NBD family a customer buys by a (k-th order) Poisson process of rate lambda and stays after a purchase with the chance
1 - p. Given both, the discounted sum of all purchases to come is a geometric series, in closed form; its means over
p ~ Beta and lambda ~ Gamma are taken by quadrature. (The first of them is a 2F1, which fails for frequent buyers.)
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import betainc, betaincinv, betaln, gammainccinv, gammaincinv, gammaln

from kiki.errors import InvalidInput
from kiki.value.groups import Floats

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_CHANCE_NODES, _CHANCE_WEIGHTS = np.polynomial.legendre.leggauss(128)

_TAIL: Final = 1e-15

_PIECE: Final = 1024
"""So many histories at a time: with all nodes of the chance, they fit into a processor's cache."""


def residual_purchases(shape: Floats, rate: Floats, a: float, b: Floats, discount: float, k: int = 1) -> Floats:
    """Expected purchases, each multiplied by exp(-`discount` x its distance in time), of customers who are alive now.

    Each customer's rate of events is Gamma(`shape`, `rate`), every `k`-th event is a purchase, and the chance of
    leaving at a purchase is Beta(`a`, `b`). The answer has the shape (k, customers): row j for those who have seen j of the events
    before the next purchase, with `shape` the one that they begin from. Raises `InvalidInput` when `discount`, a unit
    of time, is not above 0.
    """
    if not discount > 0:
        raise InvalidInput(f"a discount rate of {discount:g} a unit of time: it is above 0")
    # The same numbers come back many times: what matters is frequency and age, not when the last purchase was.
    rows, index = np.unique(np.stack([shape, rate, np.broadcast_to(b, shape.shape)]), axis=1, return_inverse=True)
    pieces = np.array_split(rows, range(_PIECE, rows.shape[1], _PIECE), axis=1)
    found = [
        [_mean(shapes + phase, discount * rates, a, chances, k, k - phase) for shapes, rates, chances in pieces]
        for phase in range(k)
    ]
    return np.stack([np.concatenate(row) for row in found])[:, index.reshape(-1)]


def _mean(shape: Floats, impatience: Floats, a: float, b: Floats, k: int, missing: int) -> Floats:
    """For those who have to see `missing` more events; `impatience` is the discount rate over the scale of lambda."""
    # The integrand is a density in ln(lambda) times something that grows no faster than lambda, hence one more in the shape.
    low, high = np.log(gammaincinv(shape + 1, _TAIL)), np.log(gammainccinv(shape + 1, _TAIL))
    half = (high - low) / 2
    log_norm = gammaln(shape)
    later = np.log1p(impatience * np.exp(-high))
    values, index = np.unique(b, return_inverse=True)
    chance, share = _chances(a, values, least=_TAIL * float(-np.expm1(-k * later.min())))
    total = np.zeros_like(shape)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        log_rate = low + half * (1 + node)
        density = np.exp(shape * log_rate - np.exp(log_rate) - log_norm)
        # Minus the logarithm of E[exp(-discount x time to an event)].
        later = np.log1p(impatience * np.exp(-log_rate))
        # 1 / (1 - (1 - p) v) with v, what one purchase's distance costs, near 1: without the loss of digits of 1 - v.
        lost, kept = -np.expm1(-k * later)[:, None], np.exp(-k * later)[:, None]
        series = (share[index] / (lost + kept * chance[index])).sum(axis=1)
        total += weight * half * density * np.exp(-missing * later) * series
    return total


def _chances(a: float, b: Floats, least: float) -> tuple[Floats, Floats]:
    """Nodes and weights of a mean over Beta(`a`, `b`), both (len(b), nodes), by Gauss-Legendre in the log odds.

    Functions are taken to be constant where the chance is below `least` or 1 minus it below `_TAIL`: one node each.
    """
    low_chance = np.maximum(betaincinv(a, b, _TAIL), least)
    high_rest = np.maximum(betaincinv(b, a, _TAIL), _TAIL)
    low, high = np.log(low_chance) - np.log1p(-low_chance), np.log1p(-high_rest) - np.log(high_rest)
    half = ((high - low) / 2)[:, None]
    odds = low[:, None] + half * (1 + _CHANCE_NODES)
    log_chance, log_rest = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
    share = _CHANCE_WEIGHTS * half * np.exp(a * log_chance + b[:, None] * log_rest - betaln(a, b)[:, None])
    ends = np.stack([betainc(a, b, low_chance), betainc(b, a, high_rest)], axis=1)
    nodes = np.concatenate([np.exp(log_chance), np.zeros((b.size, 1)), np.ones((b.size, 1))], axis=1)
    return nodes, np.concatenate([share, ends], axis=1)
