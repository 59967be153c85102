"""sBG, shifted-beta-geometric: how long customers with a contract stay, when each renews with a chance of his own. Pure.

Fader and Hardie 2007, "How to Project Customer Retention", J. of Interactive Marketing 21(1) (equation numbers are theirs), and 2010, "Customer-Base
Valuation in a Contractual Setting: The Perils of Ignoring Heterogeneity", Marketing Science 29(1). At the end of
each period a customer leaves with a chance that is Beta(alpha, beta). Times are whole numbers of contract periods.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, digamma, hyp2f1

from kiki.errors import InvalidInput
from kiki.value.groups import Floats

NAMES: Final = ("alpha", "beta")


class Contracts(NamedTuple):
    """Distinct contracts as columns of equal length."""

    periods: Floats
    """Periods that were paid for, counting the last one of those who left; renewals survived of those who have not."""
    left: Floats
    """1 when the customer did not renew after that many periods, 0 when he has survived so many ends of a period."""
    weight: Floats
    """How many customers share this row."""

    @classmethod
    def of(cls, periods: npt.ArrayLike, left: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> Self:
        """Customers as rows, equal ones collapsed; raises `InvalidInput` for rows that cannot be."""
        count, gone = np.asarray(periods, dtype=np.float64), np.asarray(left, dtype=np.float64)
        counts = np.ones_like(count) if weight is None else np.asarray(weight, dtype=np.float64)
        if not (count.shape == gone.shape == counts.shape) or count.ndim != 1:
            raise InvalidInput("periods, left and weight are columns of one length")
        if not count.size:
            raise InvalidInput("there are no contracts: give at least one")
        wrong = ~np.isfinite(count) | (count != np.floor(count)) | (count < gone) | ((gone != 0) & (gone != 1))
        wrong |= ~np.isfinite(counts) | (counts < 0)
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise InvalidInput(
                f"row {at}: {count[at]:g} periods, left {gone[at]:g}, weight {counts[at]:g}: periods are whole numbers (1 or more "
                f"of one who left), left is 0 or 1, a weight is not negative ({int(wrong.sum())} such rows)"
            )
        rows, index = np.unique(np.stack([count, gone]), axis=1, return_inverse=True)
        each = np.bincount(index.reshape(-1), weights=counts, minlength=rows.shape[1]).astype(np.float64)
        return cls(rows[0], rows[1], each)

    @classmethod
    def of_survivors(cls, survivors: npt.ArrayLike) -> Self:
        """One cohort: how many customers there were at first, after one period, after two, and so on.

        Raises `InvalidInput` when there are fewer than two numbers, or when one is larger than the one before.
        """
        counts = np.asarray(survivors, dtype=np.float64)
        if counts.ndim != 1 or counts.size < 2:
            raise InvalidInput("survivors are at least two numbers: at first, after one period, and so on")
        if not np.isfinite(counts).all() or (counts < 0).any() or (np.diff(counts) > 0).any() or not counts[0] > 0:
            raise InvalidInput("survivors are finite numbers, above 0 at first, and never more than before")
        last = counts.size - 1
        periods = np.append(np.arange(1, last + 1), last)
        left = np.append(np.ones(last), 0.0)
        return cls.of(periods, left, np.append(-np.diff(counts), counts[-1]))

    @property
    def customers(self) -> float:
        """How many customers there are."""
        return float(self.weight.sum())

    def coarse(self) -> Self:
        """Itself: there are never many distinct rows."""
        return self


def start(contracts: Contracts) -> Floats:
    """Parameters to begin from: a usual shape, and the share of ends of a period at which customers left."""
    ends = float(contracts.weight @ contracts.periods)
    leaves = (float(contracts.weight @ contracts.left) + 0.5) / (ends + 1)
    return np.array([1.0, 1 / leaves - 1 + 0.01])


def log_likelihood(theta: Floats, contracts: Contracts) -> tuple[Floats, Floats]:
    """The logarithm of P(T = t) (equation 5) or of S(t) (equation 6) of each row, and its gradient, shape (2, rows).

    `theta` are the logarithms of alpha and beta; the gradient is in them too.
    """
    alpha, beta = np.exp(theta)
    left, stayed = contracts.left, contracts.periods - contracts.left
    value = betaln(alpha + left, beta + stayed) - betaln(alpha, beta)
    both = digamma(alpha + beta) - digamma(alpha + beta + contracts.periods)
    gradient = [digamma(alpha + left) - digamma(alpha) + both, digamma(beta + stayed) - digamma(beta) + both]
    return value, np.stack(gradient) * np.exp(theta)[:, None]


def survival(p: Floats, t: npt.ArrayLike, periods: npt.ArrayLike = 0) -> Floats:
    """P(still a customer `t` periods later), of one who has survived `periods` ends of a period: equation 6 for a new one."""
    alpha, beta = p
    lived, later = np.asarray(periods, dtype=np.float64), np.asarray(t, dtype=np.float64)
    return np.exp(betaln(alpha, beta + lived + later) - betaln(alpha, beta + lived))


def leaving(p: Floats, t: npt.ArrayLike) -> Floats:
    """P(T = t): a new customer leaves at the end of his period `t`, 1 or later (equation 5)."""
    alpha, beta = p
    return np.exp(betaln(alpha + 1, beta + np.asarray(t, dtype=np.float64) - 1) - betaln(alpha, beta))


def retention(p: Floats, t: npt.ArrayLike) -> Floats:
    """The share of those in their period `t`, 1 or later, who renew at its end (equation 8). It grows with `t`."""
    alpha, beta = p
    before = np.asarray(t, dtype=np.float64) - 1
    return (beta + before) / (alpha + beta + before)


def expected(p: Floats, h: int, periods: npt.ArrayLike) -> Floats:
    """E[renewals at the next `h` ends of a period], of those who have survived `periods` of them: in the shape of `periods`."""
    lived = np.asarray(periods, dtype=np.float64)
    return survival(p, np.arange(1, h + 1), lived[..., None]).sum(axis=-1)


def discounted(p: Floats, periods: npt.ArrayLike, rate: float) -> Floats:
    """DERL: expected renewals, all to come, of those who have survived `periods` ends of a period (Fader and Hardie 2010).

    Valued right before the next renewal, which counts in full; each later one is discounted by 1 / (1 + `rate`) once
    more. Raises `InvalidInput` when `rate`, a period, is not above 0.
    """
    if not rate > 0:
        raise InvalidInput(f"a discount rate of {rate:g} a period: it is above 0")
    alpha, beta = p
    lived = beta + np.asarray(periods, dtype=np.float64)
    return lived / (alpha + lived) * hyp2f1(1.0, lived + 1, alpha + lived + 1, 1 / (1 + rate))
