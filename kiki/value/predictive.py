"""The joint distribution of what customers will buy and spend: counts by the exact pmf, revenue by Gamma-Gamma. Pure.

Revenue is a sum of as many orders as there are purchases, whose amounts depend on what the customer spent before; given
that, amounts and the number of purchases are independent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from kiki.errors import InvalidInput
from kiki.value.count_pmf import MOST, Piece, pieces, tilted
from kiki.value.drift import ROOM, log_sd, spread
from kiki.value.groups import Floats, Ints
from kiki.value.mixture import Mixture
from kiki.value.purchases import Purchases
from kiki.value.quantiles import Counts, Distribution, Revenue, known_orders, revenue_table, thinned
from kiki.value.spend import SpendModel

Kind = Literal["purchases", "revenue"]

_FACTOR_STEP: Final = 1 / 64
"""Customers whose factors differ by less share a distribution; their means stay their own."""

_FACTOR_MOST: Final = 7.0

_KEPT: Final = 20_000
"""Up to so many different rows a distribution is kept, in some 30 MB, to be asked again."""


class Level(NamedTuple):
    """A multiplier that all customers share during the horizon: season and trend."""

    mean: float
    log_sd: float = 0.0
    """The standard deviation of its logarithm: how far the multiplier itself is not known."""


class Predictive:
    """The joint predictive distribution of everybody's purchases and revenue within `horizon` units.

    `factor` multiplies each customer's mean count (a correction of shape) by tilting the pmf, `level` everybody's; `drift` is the
    variance by which the logarithm of a rate wanders in a unit of time. Customers who look the same share one distribution, so cost
    and memory follow the number of different histories. Columns are answered in the order of `purchases`. Raises `InvalidInput` for
    a horizon, factor, level or drift that cannot be.
    """

    def __init__(
        self,
        mixture: Mixture,
        spend: SpendModel,
        purchases: Purchases,
        horizon: float,
        *,
        factor: Floats | None = None,
        level: Level | None = None,
        drift: float = 0.0,
    ) -> None:
        if not (np.isfinite(drift) and drift >= 0):
            raise InvalidInput(f"a drift is a variance, 0 or more, not {drift}")
        if not (np.isfinite(horizon) and horizon > 0):
            raise InvalidInput(f"a horizon is a time above 0, not {horizon} {purchases.unit}s")
        self.mixture, self.spend, self.purchases, self.horizon = mixture, spend, purchases, float(horizon)
        self.factor = None if factor is None else _checked_factor(factor, len(purchases))
        self.level, self.drift = _checked_level(level), float(drift)
        self.groups, self._group = purchases.grouped()
        self._kept: list[_Part] | None = None

    def mean(self, kind: str) -> Floats:
        """E[purchases] or E[revenue], by the models' closed forms."""
        return self._mean_purchases if _checked(kind) == "purchases" else self._mean_purchases * self.order_amount

    def quantile(self, kind: str, p: npt.ArrayLike) -> Floats:
        """The smallest outcome whose probability, with all smaller ones, is `p` or more; `p` is one number or one a customer."""
        return self.quantiles([(kind, p)])[0]

    def quantiles(self, asked: Sequence[tuple[str, npt.ArrayLike]]) -> list[Floats]:
        """Several quantiles, at the cost of little more than one."""
        return self.scan(asked)[0]

    def scan(self, asked: Sequence[tuple[str, npt.ArrayLike]]) -> tuple[list[Floats], Floats]:
        """Quantiles, and P(no purchase within the horizon), in one go over all distributions."""
        size = len(self.purchases)
        chances = [(_checked(kind), _checked_chances(p, size)) for kind, p in asked]
        found, no_purchase = [np.empty(size) for _ in chances], np.empty(size)
        for part in self._parts():
            no_purchase[part.customers] = part.pmf[part.row, 0]
            for (kind, p), answer in zip(chances, found, strict=True):
                distribution, unit = self._distribution(part, kind)
                mine = p[part.customers]
                shared = np.empty(part.pmf.shape[0])
                shared[part.row] = mine
                if (shared[part.row] == mine).all():
                    values = distribution.quantile(np.arange(shared.size), shared)[part.row]
                else:
                    values = distribution.quantile(part.row, mine)
                answer[part.customers] = values * unit
        return found, no_purchase

    def cdf(self, kind: str, y: npt.ArrayLike) -> tuple[Floats, Floats]:
        """(P(outcome < y), P(outcome <= y)) for one `y` a customer: what a randomised PIT is drawn between."""
        values = _checked_outcomes(y, len(self.purchases))
        below, upto = np.empty(values.size), np.empty(values.size)
        for part in self._parts():
            distribution, unit = self._distribution(part, _checked(kind))
            found = distribution.cdf(part.row, values[part.customers] / unit)
            below[part.customers], upto[part.customers] = found
        return below, upto

    def log_score(self, counts: npt.ArrayLike) -> Floats:
        """The logarithm of P(purchases = count) for one count a customer: larger is better. What cannot be at all scores ln(1e-300)."""
        values = _checked_outcomes(counts, len(self.purchases))
        if (values < 0).any() or (values != np.floor(values)).any():
            raise InvalidInput("a count of purchases is a whole number, 0 or more")
        found, last = np.empty(values.size), np.empty(values.size)
        for part in self._parts():
            _score(part, values, found, last)
        beyond = (values > last) & (values <= MOST)
        if beyond.any():
            # Some bought more often than tables usually go.
            for part in self._computed_parts(np.where(beyond, values, 0)):
                _score(part, values, found, last)
        return found

    def drift_scores(self, counts: Floats, drifts: Sequence[float]) -> Floats:
        """The sums over customers of `log_score`, one for each of these drifts, at little more than the cost of one."""
        states, found = self._states, np.zeros(len(drifts))
        doubts = [self._doubt(drift) for drift in drifts]
        most = np.zeros(states.group.size, dtype=np.int64)
        np.maximum.at(most, states.state, np.minimum(counts, MOST).astype(np.int64))
        stretch = states.factor * self.level.mean * np.exp(ROOM * np.max(doubts, axis=0))
        for piece in pieces(self.mixture, self.horizon, self.groups, states.group, stretch, most):
            moved = self._moved(piece)
            customers, row = states.members(piece.rows)
            n = np.minimum(counts[customers], moved.shape[1] - 1).astype(np.int64)
            for place, doubt in enumerate(doubts):
                chance = spread(moved, doubt[piece.rows])[row, n]
                found[place] += np.log(np.maximum(chance, 1e-300)).sum()
        return found

    @property
    def no_purchase(self) -> Floats:
        """P(no purchase within the horizon)."""
        return self.scan([])[1]

    @cached_property
    def alive(self) -> Floats:
        """P(alive at the end of the calibration)."""
        return self.mixture.alive(self.groups)[self._group]

    def discounted(self, rate: float, *, month: float) -> Floats:
        """The expected value now of all purchases to come, at a continuous `rate` a unit; `month` is a month in units."""
        purchases = self.mixture.discounted(self.groups, rate, month=month)[self._group]
        return purchases * self.order_amount * (1.0 if self.factor is None else self.factor)

    @cached_property
    def order_amount(self) -> Floats:
        """E[amount of the next order], free orders included."""
        return self.spend.expected_amount(self.purchases)

    @cached_property
    def _mean_purchases(self) -> Floats:
        mean = self.mixture.expected(self.horizon, self.groups)[self._group] * self.level.mean
        return mean if self.factor is None else mean * self.factor

    @cached_property
    def _states(self) -> _States:
        """Customers who share history, known orders and factor share a row."""
        known = np.zeros(len(self.purchases), dtype=np.int64)
        if self.spend.constant is None:
            known = known_orders(self.spend.posterior(self.purchases).orders).astype(np.int64)
        step = np.zeros_like(known)
        if self.factor is not None:
            step = np.rint(np.clip(np.log(self.factor), -_FACTOR_MOST, _FACTOR_MOST) / _FACTOR_STEP).astype(np.int64)
        lowest = int(step.min(initial=0))
        steps, orders = int(step.max(initial=0)) - lowest + 1, int(known.max(initial=0)) + 1
        keys, state = np.unique((self._group * orders + known) * steps + (step - lowest), return_inverse=True)
        customers = np.argsort(state, kind="stable")
        begin = np.searchsorted(state[customers], np.arange(keys.size + 1))
        return _States(
            group=keys // (orders * steps),
            orders=(keys // steps) % orders,
            factor=np.exp((keys % steps + lowest) * _FACTOR_STEP),
            state=state.reshape(-1),
            customers=customers,
            begin=begin,
        )

    @cached_property
    def _unit(self) -> Floats:
        """What a customer's distribution of revenue is a multiple of."""
        if self.spend.constant is not None:
            return np.full(len(self.purchases), self.spend.constant or 1.0)
        assert self.spend.p is not None
        assert self.spend.q is not None
        known = self.spend.posterior(self.purchases)
        # Tables are made for numbers of orders nearby; means stay right.
        shared = self.spend.q + self.spend.p * known_orders(known.orders) - 1
        return known.scale * shared / (self.spend.q + self.spend.p * known.orders - 1)

    def _parts(self) -> Iterator[_Part]:
        """Everybody's pmf, some customers at a time; kept for the next question where that is not much."""
        if self._states.group.size > _KEPT:
            return self._computed_parts()
        if self._kept is None:
            self._kept = list(self._computed_parts())
        return iter(self._kept)

    def _computed_parts(self, least: Floats | None = None) -> Iterator[_Part]:
        """The same, with room for `least` purchases of each customer; those of a part have one number of known orders."""
        states = self._states
        most = np.zeros(states.group.size, dtype=np.int64)
        if least is not None:
            np.maximum.at(most, states.state, least.astype(np.int64))
        doubt = self._doubt(self.drift)
        stretch = states.factor * self.level.mean * np.exp(ROOM * doubt)
        for piece in pieces(self.mixture, self.horizon, self.groups, states.group, stretch, most):
            pmf = spread(self._moved(piece), doubt[piece.rows])
            orders = states.orders[piece.rows]
            for known in np.unique(orders):
                rows = np.flatnonzero(orders == known)
                customers, row = states.members(piece.rows[rows])
                yield _Part(customers, row, pmf[rows], float(known))

    def _moved(self, piece: Piece) -> Floats:
        """The piece's pmf with the means that factors and level give."""
        return tilted(piece.pmf, self._states.factor[piece.rows] * self.level.mean)

    def _doubt(self, drift: float) -> Floats:
        """Of each state, how far the logarithm of the mean is not known, as a standard deviation."""
        age = self.groups.t[self._states.group]
        return np.hypot(self.level.log_sd, log_sd(drift, age, self.horizon))

    def _distribution(self, part: _Part, kind: str) -> tuple[Distribution, Floats | float]:
        """The part's distribution, and for each of its customers the unit it is in."""
        if kind == "purchases":
            return part.counts, 1.0
        spend = self.spend
        if part.revenue is None:
            if spend.constant is None:
                assert spend.p is not None
                assert spend.q is not None
                table = revenue_table(spend.p, spend.q, spend.zero_share, part.orders, part.pmf.shape[1] - 1)
                part.revenue = Revenue(table, part.pmf)
            else:
                part.revenue = Counts(thinned(part.pmf, 1 - spend.zero_share))
        return part.revenue, self._unit[part.customers]


class _States(NamedTuple):
    group: Ints
    orders: Ints
    factor: Floats
    state: Ints
    """Of each customer."""
    customers: Ints
    """Places of customers, those of the first state first."""
    begin: Ints
    """Where each state's begin in `customers`."""

    def members(self, rows: Ints) -> tuple[Ints, Ints]:
        """The customers of these states, and for each the place of his state in `rows`."""
        sizes = self.begin[rows + 1] - self.begin[rows]
        row = np.repeat(np.arange(rows.size), sizes)
        before = np.cumsum(sizes) - sizes
        return self.customers[np.arange(row.size) - before[row] + self.begin[rows][row]], row


@dataclass
class _Part:
    customers: Ints
    row: Ints
    """Of each of these customers, in `pmf`."""
    pmf: Floats
    orders: float
    revenue: Distribution | None = None

    @cached_property
    def counts(self) -> Counts:
        """The distribution of purchases."""
        return Counts(self.pmf)


def _score(part: _Part, counts: Floats, found: Floats, last: Floats) -> None:
    n, end = counts[part.customers], part.pmf.shape[1] - 1
    chance = np.where(n > end, 0.0, part.pmf[part.row, np.minimum(n, end).astype(np.int64)])
    found[part.customers] = np.log(np.maximum(chance, 1e-300))
    last[part.customers] = end


def _checked(kind: str) -> str:
    if kind not in {"purchases", "revenue"}:
        raise InvalidInput(f"there is no forecast of {kind!r}: take purchases or revenue")
    return kind


def _checked_chances(p: npt.ArrayLike, size: int) -> Floats:
    values = np.asarray(p, dtype=np.float64)
    if values.shape not in {(), (size,)} or not ((values >= 0) & (values <= 1)).all():
        raise InvalidInput(f"probabilities lie between 0 and 1, one for all or one for each of {size} customers")
    return np.broadcast_to(values, (size,))


def _checked_outcomes(y: npt.ArrayLike, size: int) -> Floats:
    values = np.asarray(y, dtype=np.float64)
    if values.shape != (size,) or np.isnan(values).any():
        raise InvalidInput(f"outcomes are one number for each of {size} customers, without NaN")
    return values


def _checked_factor(factor: npt.ArrayLike, size: int) -> Floats:
    values = np.asarray(factor, dtype=np.float64)
    if values.shape != (size,) or not (np.isfinite(values) & (values > 0)).all():
        raise InvalidInput(f"factors are above 0 and finite, one for each of {size} customers")
    return values


def _checked_level(level: Level | None) -> Level:
    if level is None:
        return Level(1.0)
    if not (np.isfinite(level.mean) and level.mean > 0 and np.isfinite(level.log_sd) and level.log_sd >= 0):
        raise InvalidInput(f"a level has a mean above 0 and a log_sd of 0 or more, not {level.mean} and {level.log_sd}")
    return level
