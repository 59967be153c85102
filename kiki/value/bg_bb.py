"""BG/BB: opportunities to buy that come at fixed moments (a season, a yearly appeal), taken or not. Pure.

Fader, Hardie and Shang 2010, "Customer-Base Analysis in a Discrete-Time Noncontractual Setting", Marketing Science 29(6); equation
numbers are theirs. While alive, a customer takes each opportunity with a chance that is Beta(alpha, beta); before each of them
he leaves with a chance that is Beta(gamma, delta). Times are numbers of opportunities, whole numbers.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, digamma, gammaln, hyp2f1

from kiki.errors import InvalidInput
from kiki.value.groups import Floats, Ints
from kiki.value.numeric import blocks, with_the_gone

NAMES: Final = ("alpha", "beta", "gamma", "delta")


class Opportunities(NamedTuple):
    """Distinct histories as columns of equal length."""

    x: Floats
    """How many opportunities were taken after the first purchase."""
    tx: Floats
    """Which one was the last of them, counted from 1; 0 without one."""
    n: Floats
    """How many opportunities there have been."""
    weight: Floats
    """How many customers share this history."""

    @classmethod
    def of(
        cls, x: npt.ArrayLike, tx: npt.ArrayLike, n: npt.ArrayLike, weight: npt.ArrayLike | None = None
    ) -> tuple[Self, Ints]:
        """The distinct rows, and for each row given its place among them; `weight` says how many customers a row stands for.

        Raises `InvalidInput` for histories that cannot be.
        """
        taken, last, seen = (np.asarray(column, dtype=np.float64) for column in (x, tx, n))
        counts = np.ones_like(taken) if weight is None else np.asarray(weight, dtype=np.float64)
        _require_possible(taken, last, seen, counts)
        rows, index = np.unique(np.stack([taken, last, seen]), axis=1, return_inverse=True)
        index = index.reshape(-1)
        each = np.bincount(index, weights=counts, minlength=rows.shape[1]).astype(np.float64)
        return cls(rows[0], rows[1], rows[2], each), index.astype(np.int64)

    @property
    def customers(self) -> float:
        """How many customers there are."""
        return float(self.weight.sum())

    def coarse(self) -> Self:
        """Itself: there are never many distinct histories."""
        return self


def _require_possible(x: Floats, tx: Floats, n: Floats, weight: Floats) -> None:
    if not (x.shape == tx.shape == n.shape == weight.shape) or x.ndim != 1:
        raise InvalidInput("frequency, last opportunity, opportunities and weight are columns of one length")
    if not x.size:
        raise InvalidInput("there are no customers: give at least one history")
    whole = np.isfinite(x) & np.isfinite(tx) & np.isfinite(n)
    whole[whole] = (x[whole] == np.floor(x[whole])) & (tx[whole] == np.floor(tx[whole]))
    whole[whole] = n[whole] == np.floor(n[whole])
    wrong = (
        (~whole | (x < 0) | (tx < 0) | (n < 0), "all three are whole numbers, 0 or more"),
        (tx > n, "the last opportunity taken is not after the last one there was"),
        (x > tx, "nobody takes more opportunities than there were until the last one taken"),
        ((x == 0) & (tx > 0), "who took none has 0 as the last one taken"),
        (~np.isfinite(weight) | (weight <= 0), "a weight is above 0"),
    )
    for bad, said in wrong:
        rows = np.flatnonzero(bad)
        if rows.size:
            at = int(rows[0])
            raise InvalidInput(
                f"row {at}: frequency {x[at]:g}, last {tx[at]:g}, opportunities {n[at]:g}: {said} ({rows.size} such rows)"
            )


def start(data: Opportunities) -> Floats:
    """Parameters to begin from: a usual dropout, and the share of opportunities that was taken until the last one."""
    taken = (float(data.weight @ data.x) + 0.5) / (float(data.weight @ data.tx) + 1)
    return np.array([1.0, 1 / taken - 1 + 0.1, 0.7, 2.0])


def log_likelihood(theta: Floats, data: Opportunities) -> tuple[Floats, Floats]:
    """The logarithm of L of each row, and its gradient, shape (4, rows).

    `theta` are the logarithms of alpha, beta, gamma, delta; the gradient is in them too. It is the likelihood of one sequence of
    opportunities with that x and tx, as in the paper; how many such sequences there are is left out.
    """
    p = np.exp(theta)
    parts = [_derivatives(p, block) for block in blocks(data)]
    return np.concatenate([value for value, _ in parts]), np.hstack([gradient for _, gradient in parts]) * p[:, None]


def _derivatives(p: Floats, data: Opportunities) -> tuple[Floats, Floats]:
    alpha, beta, gamma, delta = p
    logs, x, missed, seen, left = _endings(p, data)
    top = logs.max(axis=1, keepdims=True)
    share = np.exp(logs - top)
    total = share.sum(axis=1, keepdims=True)
    share /= total
    steps = np.arange(float(data.n.max(initial=0)) + 2)
    both = digamma(alpha + beta + steps)[x + missed]
    stayed = digamma(gamma + delta + steps)[left + seen]
    scores = (
        digamma(alpha + steps)[x] - both,
        digamma(beta + steps)[missed] - both,
        digamma(gamma + left) - stayed,
        digamma(delta + steps)[seen] - stayed,
    )
    at_none = np.array([digamma(alpha), digamma(beta)]) - digamma(alpha + beta)
    at_first = np.array([digamma(gamma), digamma(delta)]) - digamma(gamma + delta)
    gradient = np.stack([(share * score).sum(axis=1) for score in scores])
    gradient -= np.concatenate([at_none, at_first])[:, None]
    return (top + np.log(total))[:, 0], gradient


def _endings(p: Floats, data: Opportunities) -> tuple[Floats, Ints, Ints, Ints, Ints]:
    """What may have become of each customer, shape (rows, longest silence + 1), as the logarithms of the likelihoods.

    In place i he left after i opportunities more than the last one he took; in the place of his own silence he is
    still here; what lies behind is impossible. Also x, the opportunities missed and seen while alive, and 1 where he has left.
    """
    alpha, beta, gamma, delta = p
    x, tx, n = (column.astype(np.int64)[:, None] for column in data[:3])
    silence = n - tx
    more = np.arange(int(silence.max(initial=0)) + 1)
    possible = more <= silence
    seen = np.minimum(tx + more, n)
    missed = seen - x
    left = (more < silence).astype(np.int64)
    steps = np.arange(float(n.max(initial=0)) + 2)
    purchases = (gammaln(alpha + steps)[x] + gammaln(beta + steps)[missed]) - gammaln(alpha + beta + steps)[x + missed]
    # gamma itself once for those who have left: ln B(gamma + 1, .) - ln B(gamma, .) has it as a factor.
    leaving = gammaln(gamma + left) + gammaln(delta + steps)[seen] - gammaln(gamma + delta + steps)[left + seen]
    logs = purchases - betaln(alpha, beta) + leaving - betaln(gamma, delta)
    return np.where(possible, logs, -np.inf), x, missed, seen, left


def alive(p: Floats, data: Opportunities, ahead: int = 0) -> Floats:
    """P(alive at the opportunity that is `ahead` of the last one | history): equation 11; 1 is the next opportunity."""
    alpha, beta, gamma, delta = p
    here = (
        betaln(alpha + data.x, beta + data.n - data.x)
        - betaln(alpha, beta)
        + betaln(gamma, delta + data.n + ahead)
        - betaln(gamma, delta)
    )
    return np.minimum(np.exp(here - log_likelihood(np.log(p), data)[0]), 1.0)


def expected(p: Floats, h: int, data: Opportunities) -> Floats:
    """E[purchases at the next `h` opportunities | history]: equation 13, as the sum that it solves, which is never 0 / 0."""
    return alive(p, data) * _chance(p, data) * _stays(p, h, data).sum(axis=1)


def expected_new(p: Floats, n: npt.ArrayLike) -> Floats:
    """E[X(n)]: purchases of a new customer at the first `n` opportunities after the first purchase (equation 7), in the shape of `n`."""
    places = np.asarray(n, dtype=np.int64)
    if (places < 0).any():
        raise InvalidInput("numbers of opportunities are 0 or more")
    new = _new_customer()
    each = np.concatenate([[0.0], _chance(p, new) * np.cumsum(_stays(p, int(places.max(initial=0)), new)[0])])
    return each[places]


def pmf(p: Floats, h: int, data: Opportunities, n_max: int) -> Floats:
    """P(Y = y) for y = 0 ... `n_max` purchases at the next `h` opportunities | history: shape (rows, n_max + 1)."""
    shape, rest = (p[0] + data.x)[:, None], (p[1] + data.n - data.x)[:, None]
    stays = np.concatenate([np.ones((data.x.size, 1)), _stays(p, h, data)], axis=1)
    # He sees exactly i of the opportunities; all h when he stays to the end.
    sees = np.append(stays[:, :-1] - stays[:, 1:], stays[:, -1:], axis=1)
    found = np.zeros((data.x.size, n_max + 1))
    for i in range(h + 1):
        y = np.arange(min(i, n_max) + 1, dtype=np.float64)
        ways = gammaln(i + 1) - gammaln(y + 1) - gammaln(i - y + 1)
        logs = ways + betaln(shape + y, rest + i - y) - betaln(shape, rest)
        found[:, : y.size] += sees[:, i : i + 1] * np.exp(logs)
    return with_the_gone(found, alive(p, data))


def pmf_new(p: Floats, n: int) -> Floats:
    """P(X(n) = x) for x = 0 ... `n`: purchases of a new customer at the first `n` opportunities, shape (n + 1,)."""
    return pmf(p, n, _new_customer(), n)[0]


def no_purchase(p: Floats, h: int, data: Opportunities) -> Floats:
    """P(no purchase at the next `h` opportunities | history): churn as it can be observed."""
    return pmf(p, h, data, 0)[:, 0]


def discounted(p: Floats, data: Opportunities, rate: float) -> Floats:
    """DERT: expected purchases at all opportunities to come, the next one discounted by 1 / (1 + `rate`): equation 14.

    Raises `InvalidInput` when `rate`, from one opportunity to the next, is not above 0.
    """
    if not rate > 0:
        raise InvalidInput(f"a discount rate of {rate:g} an opportunity: it is above 0")
    _, _, gamma, delta = p
    scale = delta + data.n
    stays = scale / (gamma + scale)
    series = stays / (1 + rate) * hyp2f1(1.0, scale + 1, gamma + scale + 1, 1 / (1 + rate))
    return alive(p, data) * _chance(p, data) * series


def _chance(p: Floats, data: Opportunities) -> Floats:
    """The mean chance of taking an opportunity, of one who is alive."""
    return (p[0] + data.x) / (p[0] + p[1] + data.n)


def _stays(p: Floats, h: int, data: Opportunities) -> Floats:
    """P(alive at the opportunity 1 ... `h` from now), of one who is alive: shape (rows, h)."""
    if h < 0 or h != int(h):
        raise InvalidInput(f"a horizon of {h:g} opportunities: it is a whole number, 0 or more")
    _, _, gamma, delta = p
    scale = delta + data.n[:, None] + np.arange(h)
    return np.cumprod(scale / (gamma + scale), axis=1)


def _new_customer() -> Opportunities:
    none = np.zeros(1)
    return Opportunities(none, none, none, np.ones(1))
