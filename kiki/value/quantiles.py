"""Reading quantiles and chances off tabulated distributions, for many rows at once. Pure.

Revenue given n purchases is a sum of amounts of one customer, of which some may be free. With amounts Gamma(p, nu) and nu
Gamma(q + p x, scale), m positive ones add up to `scale` times a beta prime variable (p m, q + p x) (Fader and Hardie 2013, the
note, section 3, before its means are taken). A table holds its CDF on a grid of multiples of `scale`, one row for each n: the CDF of
everybody with as many known orders is the product of his pmf and the table, and a quantile a search in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, Protocol

import numpy as np
from scipy.special import betainc, betaincinv, betaln

from kiki.value.groups import Floats, Ints

_EXACT: Final = 64
"""Up to so many purchases each has its row; beyond, rows are about 1.5 % apart and what is between them is interpolated."""

_SPACING: Final = 1 / 64

_STEP: Final = 0.06
"""Points of the grid are this far apart in logarithms."""

_STEEP: Final = 0.25
"""And nearer, this many standard deviations, for those whose outcome is known better than that."""

_FIRST: Final = 15

_LOW, _HIGH = 1e-4, 1e-5
"""The grid reaches from this quantile of one order to that upper one of the most."""

_NARROW: Final = 0.2
"""Amounts that vary less than this stand out as steps, which the grid then follows."""

_STEPS: Final = np.array([0.002, 0.02, 0.08, 0.2, 0.35, 0.5, 0.65, 0.8, 0.92, 0.98, 0.998])
_STEPPED: Final = 16

_THINNED: Final = 1023
"""Up to so many purchases the free ones among them are counted exactly, where amounts are constant."""

_GAUSS: Final = ((0.6, 4), (1.2, 6), (2.4, 10), (4.8, 16))
"""Up to so many standard deviations between two points of a grid, so many nodes add up what lies between to 1e-9."""

_ROUNDING: Final = 1e-12
_WHOLE: Final = 1e-9
"""How far a number that ought to be whole may be off."""


def known_orders(orders: Floats) -> Floats:
    """Numbers of orders that tables are made for: exact to 32, beyond that about 3 % apart."""
    above = np.maximum(orders, 32.0)
    return np.where(orders <= 32, orders, np.rint(32 * np.exp(np.rint(np.log(above / 32) * 32) / 32)))


@dataclass(frozen=True, eq=False)
class RevenueTable:
    """The CDF of revenue over `scale`, given the number of purchases, for customers with a number of known orders."""

    nodes: Ints
    """Numbers of purchases, 0 first, n_max last."""
    grid: Floats
    """Multiples of `scale`, growing, all above 0."""
    rows: Floats
    """P(revenue <= grid * scale | nodes): shape (nodes, grid)."""
    free: Floats
    """P(no revenue | n purchases), n = 0 ... n_max."""


@lru_cache(maxsize=256)
def revenue_table(p: float, q: float, zero_share: float, orders: float, n_max: int) -> RevenueTable:
    """The table for customers of whom `orders` orders above zero are known, up to `n_max` purchases."""
    nodes = _nodes(n_max)
    shape = q + p * orders
    grid = _grid(p, shape, n_max)
    n = nodes.astype(np.float64)
    exact = nodes <= _EXACT
    # Beyond the exact ones: a sum of many orders, some of them free, is a gamma variable of the same mean and variance.
    stretched = 1 + zero_share * p
    many = n[~exact] * (p * (1 - zero_share) / stretched)
    above = _beta_prime(many, shape, grid / stretched) if zero_share < 1 else np.ones((many.size, grid.size))
    few = np.ones((int(exact.sum()), grid.size))
    few[1:] = _beta_prime(p * n[exact][1:], shape, grid)
    if zero_share > 0:
        few = _kept(few.shape[0] - 1, 1 - zero_share) @ few
    every = np.arange(n_max + 1, dtype=np.float64)
    # More purchases are never less revenue, not even where the exact rows end and the gamma variable begins.
    rows = np.minimum.accumulate(np.concatenate([few, above]), axis=0)
    return RevenueTable(nodes, grid, rows, zero_share**every)


def _beta_prime(many: Floats, shape: float, grid: Floats) -> Floats:
    """The CDF of beta prime variables (each of `many`, `shape`) on a growing grid: shape (many, grid).

    The density between two points of the grid is added up by Gauss and Legendre, in the logarithm of the variable: ten times as quick
    as the incomplete beta function at every point, which is left where the grid is too coarse for that.
    """
    if not many.size or grid.size < 2:
        return np.asarray(betainc(many[:, None], shape, grid / (1 + grid)))
    logs = np.log(grid)
    gaps = np.diff(logs)
    # A logarithm's standard deviation is this at least, and the least for the largest of `many`.
    steepest = float(gaps.max()) / (1 / float(many.max()) + 1 / shape) ** 0.5
    order = next((order for most, order in _GAUSS if steepest <= most), None)
    if order is None:
        return np.asarray(betainc(many[:, None], shape, grid / (1 + grid)))
    nodes, weights = _gauss(order)
    at = (logs[:-1, None] + gaps[:, None] * (1 + nodes) / 2).reshape(-1)
    odds = np.log1p(np.exp(at))
    density = np.multiply.outer(many, at - odds)
    density -= shape * odds
    density -= betaln(many, shape)[:, None]
    np.exp(density, out=density)
    found = np.empty((many.size, grid.size))
    found[:, 0] = betainc(many, shape, grid[0] / (1 + grid[0]))
    found[:, 1:] = (density.reshape(many.size, gaps.size, order) @ weights) * (gaps / 2)
    return np.minimum(np.cumsum(found, axis=1, out=found), 1.0, out=found)


@lru_cache
def _gauss(order: int) -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return nodes, weights


def thinned(pmf: Floats, share: float) -> Floats:
    """The distribution of how many of n are kept, when each is by the chance `share`, for rows of a pmf of n.

    Where n goes beyond `_THINNED` each n keeps its mean, rounded.
    """
    n_max = pmf.shape[1] - 1
    if share == 1:
        return pmf
    if n_max <= _THINNED:
        return pmf @ _kept(n_max, share)
    kept = np.rint(np.arange(n_max + 1) * share).astype(np.int64)
    starts = np.flatnonzero(np.diff(kept, prepend=-1))
    found = np.zeros_like(pmf)
    found[:, kept[starts]] = np.add.reduceat(pmf, starts, axis=1)
    return found


def _kept(n_max: int, share: float) -> Floats:
    """P(m of n are kept): shape (n_max + 1, n_max + 1), rows n, columns m."""
    # It takes half a second to load, and a service starts before it has a model.
    from scipy.stats import binom

    n = np.arange(n_max + 1)
    return np.asarray(binom.pmf(n[None, :], n[:, None], share), dtype=np.float64)


def _nodes(n_max: int) -> Ints:
    nodes = list(range(min(n_max, _EXACT) + 1))
    while nodes[-1] < n_max:
        nodes.append(min(max(int(nodes[-1] * (1 + _SPACING)), nodes[-1] + 1), n_max))
    return np.array(nodes, dtype=np.int64)


def _grid(p: float, shape: float, n_max: int) -> Floats:
    one = p / max(shape - 1, 1e-6)
    low = max(float(betaincinv(p, shape, _LOW)), 1e-9 * one)
    rest = max(float(betaincinv(shape, p * n_max, _HIGH)), 1e-12)
    high = max((1 - rest) / rest, 4 * low)
    parts = [_logarithmic(low, high, _STEP)]
    # Of somebody who is known by many orders, purchases and amounts to come are known well: a steep CDF near the most of them.
    spread = (p / shape) ** 0.5
    if _STEEP * spread < _STEP and n_max > _FIRST:
        parts.append(_logarithmic(n_max * one / 16, n_max * one * 2, max(_STEEP * spread, _STEP / 10)))
    if 1 / p + 1 / shape < _NARROW**2:
        # From the other end, where the beta prime variable's quantile keeps its digits.
        orders = np.arange(1.0, min(n_max, _STEPPED) + 1)[:, None]
        left = np.maximum(betaincinv(shape, p * orders, 1 - _STEPS), 1e-300)
        parts.append(((1 - left) / left).reshape(-1))
    grid = np.unique(np.concatenate(parts))
    return grid[(grid >= low) & (grid <= high)]


def _logarithmic(low: float, high: float, step: float) -> Floats:
    return np.exp(np.linspace(np.log(low), np.log(high), int(np.log(high / low) / step) + 2))


def _pooled(pmf: Floats, nodes: Ints) -> Floats:
    """A pmf over every n as one over the nodes that keeps its mean: what lies between two is shared by them."""
    if nodes.size == pmf.shape[1]:
        return pmf
    n = np.arange(pmf.shape[1])
    left = np.minimum(np.searchsorted(nodes, n, side="right") - 1, nodes.size - 2)
    right_share = (n - nodes[left]) / (nodes[left + 1] - nodes[left])
    starts = nodes[:-1]
    found = np.zeros((pmf.shape[0], nodes.size))
    found[:, :-1] += np.add.reduceat(pmf * (1 - right_share), starts, axis=1)
    found[:, 1:] += np.add.reduceat(pmf * right_share, starts, axis=1)
    return found


def first_reaching(cdf: Floats, rows: Ints, p: Floats) -> Ints:
    """For each of `rows` of a CDF (rows, points) the first point where it is `p` or more; the number of points when none is.

    By bisection in all of them at once: rows may come several times.
    """
    points = cdf.shape[1]
    flat = np.ascontiguousarray(cdf).reshape(-1)
    begin = rows * points
    low = np.zeros(rows.size, dtype=np.int64)
    high = np.full(rows.size, points, dtype=np.int64)
    for _ in range(points.bit_length()):
        middle = (low + high) >> 1
        reached = flat[begin + np.minimum(middle, points - 1)] >= p
        active = low < high
        high = np.where(active & reached, middle, high)
        low = np.where(active & ~reached, middle + 1, low)
    return low


class Distribution(Protocol):
    """Distributions of many rows, in units of their own; rows may be asked for several times."""

    def quantile(self, rows: Ints, p: Floats) -> Floats:
        """The smallest value whose probability, with all smaller ones, is `p` or more."""
        ...

    def cdf(self, rows: Ints, y: Floats) -> tuple[Floats, Floats]:
        """(P(value < y), P(value <= y))."""
        ...


class Counts:
    """Whole numbers 0, 1, ... with the chances of `pmf`, shape (rows, n_max + 1)."""

    def __init__(self, pmf: Floats) -> None:
        self._cdf = np.cumsum(pmf, axis=1)

    def quantile(self, rows: Ints, p: Floats) -> Floats:
        """See `Distribution`."""
        # A sum of chances misses a round number by a few units in its last place.
        return np.minimum(first_reaching(self._cdf, rows, p - _ROUNDING), self._cdf.shape[1] - 1).astype(np.float64)

    def cdf(self, rows: Ints, y: Floats) -> tuple[Floats, Floats]:
        """See `Distribution`."""
        return self._upto(rows, np.ceil(y - _WHOLE) - 1), self._upto(rows, np.floor(y + _WHOLE))

    def _upto(self, rows: Ints, n: Floats) -> Floats:
        last = self._cdf.shape[1] - 1
        reached = np.minimum(self._cdf[rows, np.clip(n, 0, last).astype(np.int64)], 1.0)
        return np.where(n < 0, 0.0, np.where(n >= last, 1.0, reached))


class Revenue:
    """Revenue over `scale`, with the purchases' chances `pmf`, for customers of one table."""

    def __init__(self, table: RevenueTable, pmf: Floats) -> None:
        self._grid, self._logs = table.grid, np.log(table.grid)
        self._pooled, self._rows = _pooled(pmf, table.nodes), table.rows
        self._free = np.minimum(pmf @ table.free, 1.0)

    @cached_property
    def _cdf(self) -> Floats:
        return np.minimum(self._pooled @ self._rows, 1.0)

    def _at(self, rows: Ints, places: Ints) -> Floats:
        """Single values of the CDF: to look two up for each customer takes no product of whole tables."""
        return np.minimum(np.einsum("ij,ji->i", self._pooled[rows], self._rows[:, places]), 1.0)

    def quantile(self, rows: Ints, p: Floats) -> Floats:
        """See `Distribution`.

        Linear in the logarithm of the amount between two points of the grid, and in the amount below the first.
        """
        place = np.minimum(first_reaching(self._cdf, rows, p), self._grid.size - 1)
        before = np.maximum(place - 1, 0)
        free = self._free[rows]
        below = np.where(place == 0, free, self._cdf[rows, before])
        rise = self._cdf[rows, place] - below
        share = np.clip((p - below) / np.where(rise > 0, rise, np.inf), 0.0, 1.0)
        between = np.exp(self._logs[before] + share * (self._logs[place] - self._logs[before]))
        return np.where(p <= free + _ROUNDING, 0.0, np.where(place == 0, share * self._grid[0], between))

    def cdf(self, rows: Ints, y: Floats) -> tuple[Floats, Floats]:
        """See `Distribution`: the inverse of `quantile`."""
        place = np.minimum(np.searchsorted(self._grid, y), self._grid.size - 1)
        before = np.maximum(place - 1, 0)
        free = self._free[rows]
        size = np.log(np.maximum(y, self._grid[0]))
        gap = np.where(place > 0, self._logs[place] - self._logs[before], 1.0)
        share = np.clip(np.where(place > 0, (size - self._logs[before]) / gap, y / self._grid[0]), 0.0, 1.0)
        below = np.where(place == 0, free, self._at(rows, before))
        reached = np.where(y > self._grid[-1], 1.0, below + share * (self._at(rows, place) - below))
        return np.where(y <= 0, 0.0, reached), np.where(y < 0, 0.0, np.where(y == 0, free, reached))
