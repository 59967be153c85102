"""MBG/CNBD-k: as MBG/NBD, but a purchase is every k-th event of a Poisson process, so that somebody's purchases come regularly. Pure.

Reutterer, Platzer and Schröder 2021, "Leveraging Purchase Regularity for Predicting Customer Behavior the Easy Way", Int. J. of
Research in Marketing 38(1). Gaps between purchases are Erlang-k; k = 1 is MBG/NBD exactly. Where the paper approximates (what is
expected after the calibration), the moment of the last purchase is used in full: events that have happened since then count.

Likelihoods are those of (x, tx, T), on the same footing as those of the other models, so that they can be compared with them.
`gap_evidence` adds what the single gaps say, which no parameter but k depends on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, binom, gammaln, xlogy

from kiki.errors import InvalidInput
from kiki.value import mbg_nbd
from kiki.value.discounting import residual_purchases
from kiki.value.groups import Floats, Groups
from kiki.value.numeric import (
    Derivatives,
    Total,
    blocks,
    either,
    in_logs,
    log_add,
    nbd_pmf,
    rising,
    total_in_logs,
    with_the_gone,
)

K_MAX: Final = 12
"""The most regular timing there is a model of: gaps that differ by 29 % of their mean."""

_NEGLIGIBLE: Final = 1e-11
"""Purchases that are less likely than this add nothing to an expectation."""


@cache
def of(k: int) -> MbgCnbdK:
    """The model with that `k`, 1 to `K_MAX`; raises `InvalidInput` for another one."""
    return MbgCnbdK(k)


def gap_evidence(k: int, x: npt.ArrayLike, tx: npt.ArrayLike, sum_log_gaps: npt.ArrayLike) -> float:
    """What single gaps add to the logarithm of the likelihood of (x, tx, T), over all customers; 0 for k = 1.

    Given x and tx, the gaps' shares of tx are Dirichlet(k, ..., k). `sum_log_gaps` is a customer's sum of ln(gap), in the
    unit of `tx`.
    """
    n, last, gaps = (np.asarray(column, dtype=np.float64) for column in (x, tx, sum_log_gaps))
    used = (n > 0) & (last > 0)
    n, last, gaps = n[used], last[used], gaps[used]
    ways = gammaln(k * n) - gammaln(n) - n * gammaln(k)
    return float((ways + (k - 1) * (gaps - n * np.log(last))).sum())


@dataclass(frozen=True)
class MbgCnbdK:
    """The model for one k; its functions are those of the modules of the other models."""

    k: int
    """How many events make a purchase."""

    NAMES = mbg_nbd.NAMES

    def __post_init__(self) -> None:
        if self.k not in range(1, K_MAX + 1):
            raise InvalidInput(f"k is {self.k!r}: it is a whole number from 1 to {K_MAX}")

    def start(self, groups: Groups) -> Floats:
        """Parameters to begin from: those of MBG/NBD, with k times the rate of events."""
        r, alpha, a, b = mbg_nbd.start(groups)
        return np.array([r, alpha / self.k, a, b])

    def log_likelihood(self, theta: Floats, groups: Groups) -> tuple[Floats, Floats]:
        """The logarithm of L of each group and its gradient, shape (4, groups), in the logarithms `theta` of r, alpha, a, b."""
        return in_logs(self._derivatives, theta, groups)

    def total(self, theta: Floats, groups: Groups) -> Total:
        """The same over all customers, with the Hessian."""
        return total_in_logs(self._derivatives, theta, groups)

    def _derivatives(self, p: Floats, groups: Groups) -> Derivatives:
        r, alpha, a, b = p
        x, w = groups.x, groups.weight
        shape = r + self.k * x
        gammas, alone, together = rising(r, self.k * x), rising(b, x + 1), rising(a + b, x + 1)
        # With times as multiples of alpha: where r and alpha are large every term then stays small.
        log_age, log_last = np.log1p(groups.t / alpha), np.log1p(groups.tx / alpha)
        age, last = groups.t / (alpha * (alpha + groups.t)), groups.tx / (alpha * (alpha + groups.tx))
        none = np.zeros_like(x)
        waiting = _Waiting.of(self.k, p, groups)
        slope, curvature = waiting.scores()
        alive = waiting.log_ways - shape * log_age, np.stack([slope[0] - log_age, slope[1] + shape * age, none, none])
        gone = (
            np.log(a / (b + x)) - shape * log_last,
            np.stack([-log_last, shape * last, none + 1 / a, -1 / (b + x)]),
        )
        value, gradient, p_alive, p_gone, hessian = either(w, alive, gone)
        value += gammas[0] + alone[0] - together[0] - self.k * x * np.log(alpha) + self._moment_of_last(groups)
        gradient += np.stack([gammas[1], -self.k * x / alpha, -together[1], alone[1] - together[1]])
        hessian[:2, :2] += np.einsum("g,pqg->pq", w * p_alive, curvature)
        hessian[0, 0] += w @ gammas[2]
        across = w @ (p_alive * age + p_gone * last)
        hessian[0, 1] += across
        hessian[1, 0] += across
        bent = p_alive * age * (age - 2 / alpha) + p_gone * last * (last - 2 / alpha)
        hessian[1, 1] += w @ (shape * bent + self.k * x / alpha**2)
        hessian[2:, 2:] -= w @ together[2]
        hessian[2, 2] -= w @ p_gone / a**2
        hessian[3, 3] += w @ (alone[2] + p_gone / (b + x) ** 2)
        return value, gradient, hessian

    def _moment_of_last(self, groups: Groups) -> Floats:
        """The density of tx given the rate, over the one for k = 1: what makes likelihoods of different k comparable."""
        x, tx = groups.x, groups.tx
        repeated = (x > 0) & (tx > 0)
        n, last = np.where(repeated, x, 1.0), np.where(repeated, tx, 1.0)
        return np.where(repeated, (self.k - 1) * n * np.log(last) + gammaln(n) - gammaln(self.k * n), 0.0)

    def alive(self, p: Floats, groups: Groups) -> Floats:
        """P(alive at the end of calibration | history)."""
        r, alpha, a, b = p
        found = []
        for block in blocks(groups):
            shape = r + self.k * block.x
            log_alive = _Waiting.of(self.k, p, block).log_ways - shape * np.log1p(block.t / alpha)
            log_gone = np.log(a / (b + block.x)) - shape * np.log1p(block.tx / alpha)
            found.append(np.exp(log_alive - log_add(log_alive, log_gone)))
        return np.concatenate(found)

    def expected(self, p: Floats, h: float, groups: Groups) -> Floats:
        """E[purchases in the next `h` units | history]."""
        return self.alive(p, groups) * self._expected_alive(p, np.full_like(groups.x, h), groups)

    def expected_new(self, p: Floats, t: Floats) -> Floats:
        """E[X(t)]: repeat purchases of a new customer until age `t`, in the shape of `t`."""
        ages = np.asarray(t, dtype=np.float64)
        none = np.zeros(ages.size)
        new = Groups(none, none, none, none + 1)
        return (self.alive(p, new) * self._expected_alive(p, ages.reshape(-1), new)).reshape(ages.shape)

    def _expected_alive(self, p: Floats, h: Floats, groups: Groups) -> Floats:
        """The same for those who are alive, each with a horizon of his own."""
        parts = blocks(_Ahead(h, *groups))
        return np.concatenate([_Purchases(self.k, p, part.h, Groups(*part[1:])).expected() for part in parts])

    def pmf(self, p: Floats, h: float, groups: Groups, n_max: int) -> Floats:
        """P(Y = n) for n = 0 ... `n_max` purchases in the next `h` units | history: shape (groups, n_max + 1)."""
        parts = blocks(groups)
        living = [_Purchases(self.k, p, np.full_like(part.x, h), part).pmf(n_max) for part in parts]
        return with_the_gone(np.concatenate(living), self.alive(p, groups))

    def no_purchase(self, p: Floats, h: float, groups: Groups) -> Floats:
        """P(no purchase in the next `h` units | history): churn as it can be observed."""
        return self.pmf(p, h, groups, 0)[:, 0]

    def discounted(self, p: Floats, groups: Groups, rate: float) -> Floats:
        """Expected purchases after calibration, each discounted by the continuous `rate` a unit (above 0)."""
        r, alpha, a, b = p
        each = residual_purchases(r + self.k * groups.x, alpha + groups.t, a, b + groups.x + 1, rate, self.k)
        return self.alive(p, groups) * (_Waiting.of(self.k, p, groups).share * each).sum(axis=0)


class _Waiting(NamedTuple):
    """The j = 0 ... k - 1 events that customers who are alive have seen since their last purchase; columns (k, groups)."""

    log_ways: Floats
    """ln of the sum of Gamma(r + k x + j) / Gamma(r + k x) / j! ((T - tx) / (alpha + T))^j over j, shape (groups,)."""
    share: Floats
    """The chance of j events, given that the customer is alive."""
    shape: Floats
    """r + k x, shape (groups,)."""
    age: Floats
    """alpha + T, shape (groups,)."""

    @classmethod
    def of(cls, k: int, p: Floats, groups: Groups) -> Self:
        shape, age = p[0] + k * groups.x, p[1] + groups.t
        j = np.arange(k, dtype=np.float64)[:, None]
        # ln Gamma(shape + j) - ln Gamma(shape), without its loss of digits for frequent buyers.
        grown = np.vstack([np.zeros_like(shape), np.cumsum(np.log(shape + j[:-1]), axis=0)])
        logs = grown - gammaln(j + 1) + xlogy(j, (groups.t - groups.tx) / age)
        top = logs.max(axis=0)
        share = np.exp(logs - top)
        total = share.sum(axis=0)
        return cls(top + np.log(total), share / total, shape, age)

    def scores(self) -> tuple[Floats, Floats]:
        """The gradient of `log_ways` in r and alpha, (2, groups), and its Hessian, (2, 2, groups)."""
        j = np.arange(len(self.share), dtype=np.float64)[:, None]
        inverse = 1 / (self.shape + j[:-1])
        none = np.zeros_like(self.shape)
        by_r = np.vstack([none, np.cumsum(inverse, axis=0)])
        by_alpha = -j / self.age
        curved = -np.vstack([none, np.cumsum(inverse**2, axis=0)])
        mean_r, mean_alpha = (self.share * by_r).sum(axis=0), (self.share * by_alpha).sum(axis=0)
        apart_r, apart_alpha = by_r - mean_r, by_alpha - mean_alpha
        across = (self.share * apart_r * apart_alpha).sum(axis=0)
        hessian = [
            [(self.share * (apart_r**2 + curved)).sum(axis=0), across],
            [across, (self.share * (apart_alpha**2 - by_alpha / self.age)).sum(axis=0)],
        ]
        return np.stack([mean_r, mean_alpha]), np.array(hessian)


class _Ahead(NamedTuple):
    """Groups with a horizon each."""

    h: Floats
    x: Floats
    tx: Floats
    t: Floats
    weight: Floats


class _Purchases:
    """What customers who are alive buy within `h`: events are counted from the last purchase, every k-th is one.

    The number of events S by the end of the horizon is that of an NBD, but of those histories only in which fewer
    than k happened by its beginning: P(S = i) = NBD(i) * sum over j < k of C(i, j) ((T - tx) / h)^j, up to a factor.
    """

    def __init__(self, k: int, p: Floats, h: Floats, groups: Groups) -> None:
        waiting = _Waiting.of(k, p, groups)
        self.k, self.shape, self.age = k, waiting.shape, waiting.age
        # A horizon of a billionth of a billionth of the age is none: it only keeps the division below defined.
        self.h = np.maximum(h, 1e-18 * self.age)
        self.idle = (groups.t - groups.tx) / self.h
        self.log_factor = -waiting.log_ways
        self.a, self.b = float(p[2]), p[3] + groups.x + 1

    def _ways(self, events: Floats, idle: Floats) -> Floats:
        """The sum over j < k, shape (groups, events)."""
        ways = np.ones((idle.size, events.size))
        for j in range(1, self.k):
            ways += binom(events, j) * (idle**j)[:, None]
        return ways

    def pmf(self, n_max: int) -> Floats:
        """Shape (groups, n_max + 1)."""
        events = np.arange(self.k * (n_max + 1), dtype=np.float64)
        chances = nbd_pmf(self.shape, self.age, self.h, events.size - 1) * self._ways(events, self.idle)
        # How many purchases there would be if nobody left.
        would = (chances * np.exp(self.log_factor)[:, None]).reshape(-1, n_max + 1, self.k).sum(axis=2)
        beyond = np.maximum(1 - would.sum(axis=1, keepdims=True), 0.0)
        at_least = np.cumsum(would[:, ::-1], axis=1)[:, ::-1] + beyond
        n, b = np.arange(1, n_max + 1, dtype=np.float64), self.b[:, None]
        start = betaln(self.a, b)
        found = would.copy()
        found[:, 1:] *= np.exp(betaln(self.a, b + n) - start)
        found[:, 1:] += np.exp(betaln(self.a + 1, b + n - 1) - start) * at_least[:, 1:]
        return found

    def expected(self) -> Floats:
        """The sum over n = 1, 2, ... of P(at least n purchases), shape (groups,)."""
        found = np.zeros_like(self.shape)
        going = np.flatnonzero(self.shape)
        log_nbd = self.log_factor - self.shape * np.log1p(self.h / self.age)
        log_share = -np.log1p(self.age / self.h)
        below, stayed = np.zeros_like(found), np.ones_like(found)
        done, more = 0, 16
        while going.size:
            events = np.arange(self.k * done, self.k * (done + more), dtype=np.float64)
            steps = np.log((self.shape[going, None] + events) / (events + 1)) + log_share[going, None]
            logs = log_nbd[going, None] + np.cumsum(steps, axis=1)
            chances = np.exp(logs - steps) * self._ways(events, self.idle[going])
            would = chances.reshape(going.size, more, self.k).sum(axis=2)
            fewer = below[going, None] + np.cumsum(would, axis=1)
            n = np.arange(done + 1, done + more + 1, dtype=np.float64)
            b = self.b[going, None]
            stays = stayed[going, None] * np.cumprod((b + n - 1) / (self.a + b + n - 1), axis=1)
            # stays[n] is for more than n purchases: the first of them needs nobody to have stayed.
            before = np.concatenate([stayed[going, None], stays[:, :-1]], axis=1)
            found[going] += (before * np.maximum(1 - fewer, 0.0)).sum(axis=1)
            log_nbd[going], below[going], stayed[going] = logs[:, -1], fewer[:, -1], stays[:, -1]
            # For frequent buyers the sum of chances stops, by rounding, just short of 1: past the middle, a chance of 0 ends it too.
            left = (1 - below[going] > _NEGLIGIBLE) & ((below[going] < 0.5) | (would[:, -1] > 0))
            going = going[left]
            done += more
            more = min(2 * more, 2**19 // (self.k * max(going.size, 1)) + 16)
        return found
