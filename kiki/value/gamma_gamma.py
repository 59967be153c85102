"""Gamma-Gamma: what an order is worth, when amounts differ within and between customers. Pure.

Fader, Hardie and Lee 2005, "RFM and CLV: Using Iso-Value Curves for Customer Base Analysis", J. of Marketing Research
42(4); Fader and Hardie 2013, "The Gamma-Gamma Model of Monetary Value" (the note). Amounts are in the log's currency. The model
takes amounts to be independent of how often somebody buys.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy.special import digamma, gammaln, polygamma

from kiki.errors import InvalidInput
from kiki.value.groups import Floats
from kiki.value.numeric import Derivatives, Total, in_logs, per_value, total_in_logs

NAMES: Final = ("p", "q", "v")

_TAIL: Final = 1.25
"""With a q below this the population's mean amount, p v / (q - 1), moves by a quarter when q moves by a twentieth."""


class Spending(NamedTuple):
    """Distinct numbers of orders with their mean amounts, as columns of equal length."""

    orders: Floats
    """How many orders of a positive amount, 1 or more."""
    mean: Floats
    """The mean amount of those orders, above 0."""
    weight: Floats
    """How many customers share this row."""

    @classmethod
    def of(cls, orders: npt.ArrayLike, mean: npt.ArrayLike) -> Self:
        """Customers as rows, equal ones collapsed; those without an order are left out. Raises `InvalidInput`."""
        count, amount = (np.asarray(column, dtype=np.float64) for column in (orders, mean))
        if count.shape != amount.shape or count.ndim != 1:
            raise InvalidInput("numbers of orders and mean amounts are two columns of one length")
        used = count != 0
        count, amount = count[used], amount[used]
        if not count.size:
            raise InvalidInput("nobody has an order of a positive amount: there is no spend to fit")
        wrong = ~np.isfinite(count) | (count < 1) | (count != np.floor(count)) | ~np.isfinite(amount) | (amount <= 0)
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise InvalidInput(
                f"row {int(np.flatnonzero(used)[at])}: {count[at]:g} orders of {amount[at]:g} on average: "
                f"orders are whole numbers and the mean is above 0 ({int(wrong.sum())} such rows)"
            )
        order = np.lexsort((amount, count))
        count, amount = count[order], amount[order]
        new = np.concatenate([[True], (np.diff(count) != 0) | (np.diff(amount) != 0)])
        first = np.flatnonzero(new)
        weight = np.diff(np.append(first, count.size)).astype(np.float64)
        return cls(count[first], amount[first], weight)

    @property
    def customers(self) -> float:
        """How many customers there are."""
        return float(self.weight.sum())

    def coarse(self) -> Self:
        """Itself: a fit on these rows is quick enough."""
        return self


def start(spending: Spending) -> Floats:
    """Parameters p, q, v to begin from: shapes of a usual log, and the scale that gives its mean amount."""
    mean = float(spending.weight @ spending.mean) / spending.customers
    return np.array([4.0, 4.0, mean * 3.0 / 4.0])


def log_likelihood(theta: Floats, spending: Spending) -> tuple[Floats, Floats]:
    """The logarithm of the density of each row's mean (the note, equation 1a), and its gradient, shape (3, rows).

    `theta` are the logarithms of p, q, v; the gradient is in them too.
    """
    return in_logs(_derivatives, theta, spending)


def total(theta: Floats, spending: Spending) -> Total:
    """The same over all customers, with the Hessian."""
    return total_in_logs(_derivatives, theta, spending)


def _derivatives(parameters: Floats, spending: Spending) -> Derivatives:
    p, q, v = parameters
    x, w = spending.orders, spending.weight
    gammas = per_value(
        x,
        lambda n: np.stack(
            [
                gammaln(p * n + q) - gammaln(p * n) - gammaln(q),
                n * (digamma(p * n + q) - digamma(p * n)),
                digamma(p * n + q) - digamma(q),
                n * n * (polygamma(1, p * n + q) - polygamma(1, p * n)),
                n * polygamma(1, p * n + q),
                polygamma(1, p * n + q) - polygamma(1, q),
            ]
        ),
    )
    amount, shape = x * spending.mean, p * x + q
    whole = v + amount
    # As logarithms of ratios, which keep their digits where p and q are large.
    spent, rest = -np.log1p(v / amount), -np.log1p(amount / v)
    value = gammas[0] + p * x * spent + q * rest - np.log(spending.mean)
    gradient = np.stack([gammas[1] + x * spent, gammas[2] + rest, q / v - shape / whole])
    pv, qv = -(w @ (x / whole)), w @ (amount / whole) / v
    hessian = np.array(
        [
            [w @ gammas[3], w @ gammas[4], pv],
            [w @ gammas[4], w @ gammas[5], qv],
            [pv, qv, w @ (shape / whole**2 - q / v**2)],
        ]
    )
    return value, gradient, hessian


def remarks(parameters: Floats) -> list[str]:
    """What a reader of the parameters has to know, in words."""
    q = float(parameters[1])
    if q > _TAIL:
        return []
    finite = "the mean amount hangs on the few largest orders" if q > 1 else "amounts have no finite mean"
    return [f"q is {q:.3g}, and near 1 or below {finite}"]


def mean_spend(parameters: Floats, orders: npt.ArrayLike, mean: npt.ArrayLike) -> Floats:
    """E[mean amount of an order | history] (the note, equation 5); without an order, that of the population.

    Raises `InvalidInput` when q is 1 or less: the population then has no finite mean.
    """
    p, q, v = parameters
    if q <= 1:
        raise InvalidInput(
            f"q is {q:g}: amounts have no finite mean when it is 1 or less; fit with a prior that keeps q above 1"
        )
    x = np.asarray(orders, dtype=np.float64)
    z = np.where(x > 0, np.asarray(mean, dtype=np.float64), 0.0)
    return p * (v + x * z) / (p * x + q - 1)
