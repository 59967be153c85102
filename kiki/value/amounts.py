"""Gamma-Gamma on first orders and later ones: means of all orders, and how a customer's first compares with his others. Pure.

Means alone (Fader, Hardie and Lee 2005) tell how much one customer's orders differ only through how means of many orders differ from
means of few. Where the first order is known apart from the sum of m later ones, its share of the total says so at once:
given the customer, both are gamma variables of one scale, so the share is Beta(p, p m), whatever q and v are, and independent of
the mean. The likelihood of both is the product.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Self

import numpy as np
from scipy.special import betaln, digamma, polygamma

from kiki.value import gamma_gamma
from kiki.value.gamma_gamma import Spending
from kiki.value.groups import Floats, Ints
from kiki.value.numeric import Total

NAMES: Final = gamma_gamma.NAMES


class Amounts(NamedTuple):
    """What is known of amounts: customers' means, and the first order's shares by the number of later ones."""

    spending: Spending
    later: Floats
    """Distinct numbers m of later orders above zero, 1 or more."""
    sharers: Floats
    """How many customers have a first order and m later ones."""
    log_share: Floats
    """The mean of ln(first / total) over them."""
    log_rest: Floats
    """The mean of ln(1 - first / total)."""

    @classmethod
    def of(cls, first: Floats, later_sum: Floats, later: Ints, scale: Floats) -> Self:
        """Customers by the first order and the sum of `later` others, 0 where there is none; means are taken over `scale`."""
        orders = later + (first > 0)
        mean = np.where(orders > 0, (first + later_sum) / np.maximum(orders, 1) / scale, 0.0)
        both = (first > 0) & (later > 0)
        m, place = np.unique(later[both], return_inverse=True)
        count = np.bincount(place, minlength=m.size).astype(np.float64)
        share, rest = (
            -np.bincount(place, weights=np.log1p(others[both] / own[both]), minlength=m.size) / np.maximum(count, 1)
            for own, others in ((first, later_sum), (later_sum, first))
        )
        return cls(Spending.of(orders, mean), m.astype(np.float64), count, share, rest)

    @property
    def weight(self) -> Floats:
        """How many customers a row of the likelihood stands for: those of `spending`, then the shares."""
        return np.concatenate([self.spending.weight, self.sharers])

    @property
    def customers(self) -> float:
        """How many customers there are."""
        return self.spending.customers

    def coarse(self) -> Self:
        """Itself: a fit on these rows is quick enough."""
        return self


def start(amounts: Amounts) -> Floats:
    """Parameters p, q, v to begin from."""
    return gamma_gamma.start(amounts.spending)


def log_likelihood(theta: Floats, amounts: Amounts) -> tuple[Floats, Floats]:
    """The logarithm of the density of each row and its gradient, shape (3, rows), in the logarithms `theta` of p, q, v."""
    value, gradient = gamma_gamma.log_likelihood(theta, amounts.spending)
    shares, slope, _ = _shares(float(np.exp(theta[0])), amounts)
    none = np.zeros_like(slope)
    return np.concatenate([value, shares]), np.hstack([gradient, np.stack([slope, none, none])])


def total(theta: Floats, amounts: Amounts) -> Total:
    """The same over all customers, with the Hessian."""
    value, gradient, hessian = gamma_gamma.total(theta, amounts.spending)
    shares, slope, curvature = (amounts.sharers @ column for column in _shares(float(np.exp(theta[0])), amounts))
    corner = np.zeros((3, 3))
    corner[0, 0] = curvature
    return Total(value + float(shares), gradient + np.array([slope, 0.0, 0.0]), hessian + corner)


def _shares(p: float, amounts: Amounts) -> tuple[Floats, Floats, Floats]:
    """The logarithm of the density of the shares in a row, a customer, with two derivatives in ln p."""
    m = amounts.later
    value = (p - 1) * amounts.log_share + (p * m - 1) * amounts.log_rest - betaln(p, p * m)
    slope = amounts.log_share + m * amounts.log_rest
    slope = slope - digamma(p) - m * digamma(p * m) + (1 + m) * digamma(p * (1 + m))
    bend = (1 + m) ** 2 * polygamma(1, p * (1 + m)) - polygamma(1, p) - m**2 * polygamma(1, p * m)
    return value, p * slope, p * slope + p**2 * bend
