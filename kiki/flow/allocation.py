"""How a plan's money is divided among its campaigns: response curves learned from what came back. Pure; chance is a seed.

Each campaign's return is taken for a saturating curve, value(spend) = a·b·(1 - exp(-spend/b)): the first unit brings `a`, and
the return fades on the scale `b`. What is known of a and b is a posterior on a grid, under noise that multiplies. A day's
money goes where its last unit earns the same everywhere (equal marginal return), by curves drawn from the posteriors
(Thompson sampling: Thompson, Biometrika 25, 1933; for budgets Russo et al., A Tutorial on Thompson Sampling, 2018). So what
is not known yet is tried in the measure of the doubt. The more days have passed the fewer curves are drawn at will, the
others are averaged over: a campaign that was misjudged early is still tried again, and what is known is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

NOISE: Final = 0.15
"""How much a day's return varies around its curve, as a share; the least that is assumed."""
FREE_DAYS: Final = 10
"""So long a day's budgets are the mean of two divisions, each by curves that are all drawn anew."""
PROBING_DAYS: Final = 30
"""Until then two campaigns a day, in turn, have one drawn curve, and the others are averaged over; then all are."""
TRICKLE: Final = 0.005
"""The share of a day's money that every campaign gets at least: what gets nothing tells nothing, and stays misjudged for ever."""
_PROBES: Final = 2
_DRAWS: Final = 8
_FREE_DRAWS: Final = 2
_SPREAD: Final = 1.5
"""The standard deviation of the prior of log a and log b, before the campaigns tell about each other."""
_POOLED_AS: Final = 6.0
"""The prior counts as much as so many campaigns."""
_A_POINTS, _B_POINTS = 40, 36
_TRIED: Final = 1e-3
"""A day on which a campaign got less than this share of the money tells nothing about its curve."""

Numbers = np.ndarray[Any, np.dtype[np.float64]]


class Day(msgspec.Struct, frozen=True):
    """What one day of one campaign cost and brought, in micros."""

    spent: int
    value: int


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Between which budgets a campaign may be set, in micros a day."""

    least: int = 0
    most: int
    step: int = 1


class _Grid(NamedTuple):
    a: Numbers
    b: Numbers
    log_a: Numbers
    log_b: Numbers


def allocate(
    total: int,
    history: Mapping[str, Sequence[Day]],
    bounds: Mapping[str, Bounds],
    *,
    day: int,
    seed: int,
) -> dict[str, int]:
    """The budget of every campaign for one day, in micros; together at most `total`.

    `history` holds the reported days of each campaign, `bounds` what its platform and its learning phase allow; `day` counts from
    0. The same arguments give the same answer. When the least budgets are more than `total`, they are cut alike.
    """
    names = sorted(bounds)
    if not names:
        return {}
    least = np.array([max(float(bounds[name].least), TRICKLE * total) for name in names])
    most = np.array([float(max(bounds[name].most, bounds[name].least)) for name in names])
    if least.sum() >= total:
        wanted = least * (total / least.sum())
    elif not any(history.get(name) for name in names):
        wanted = _equally(total, least, most)
    else:
        known = Posterior.of(total, [history.get(name, ()) for name in names])
        wanted = known.divided(np.random.default_rng([seed, day]), day, least, most)
    micros: dict[str, int] = {}
    for name, share in zip(names, wanted, strict=True):
        step = bounds[name].step
        micros[name] = int(share) // step * step
    return micros


class Posterior:
    """What is known of every campaign's curve. Money is counted in shares of the day's total."""

    def __init__(self, total: float, weights: Numbers, grid: _Grid) -> None:
        self._total = total
        self._weights = weights
        self._cumulated = weights.cumsum(axis=1)
        self._grid = grid

    @classmethod
    def of(cls, total: float, history: Sequence[Sequence[Day]]) -> Posterior:
        """From the reported days of each campaign; campaigns with few days borrow from the others."""
        days = [[each for each in days if each.spent > _TRIED * total] for days in history]
        rate = _rate(days)
        grid = _grid(1.0 / max(1, len(history)))
        logs = np.zeros((len(days), grid.a.size))
        for row, seen in enumerate(days):
            for each in seen:
                # A day without any return is one in which less than half a unit came: silence is weak evidence.
                returned = np.log(max(each.value, each.spent * rate * _TRIED) / (total * rate))
                expected = np.log(_value(grid.a, grid.b, each.spent / total))
                logs[row] -= 0.5 * ((returned + NOISE**2 / 2 - expected) / NOISE) ** 2
        return cls(total, _pooled(logs, grid), grid)

    def divided(self, chance: np.random.Generator, day: int, least: Numbers, most: Numbers) -> Numbers:
        """A day's money in equal marginal return, within bounds, in micros."""
        count = len(self._weights)
        probing = FREE_DAYS <= day < PROBING_DAYS
        probed = [(day * _PROBES + probe) % count for probe in range(_PROBES)] if probing else []
        fixed = {row: self._draw(chance, row) for row in probed}
        low, high = least / self._total, np.minimum(most / self._total, 1.0)
        shares = [
            _levelled(
                self._grid, [fixed[row] if row in fixed else self._draw(chance, row) for row in range(count)], low, high
            )
            for _ in range(_FREE_DRAWS if day < FREE_DAYS else _DRAWS)
        ]
        divided: Numbers = np.mean(shares, axis=0) * self._total
        return divided

    def _draw(self, chance: np.random.Generator, row: int) -> int:
        return min(int(np.searchsorted(self._cumulated[row], chance.random())), self._grid.a.size - 1)


def _value(a: Numbers, b: Numbers, share: float) -> Numbers:
    return a * b * -np.expm1(-share / b)


def _rate(days: Sequence[Sequence[Day]]) -> float:
    """Value for a micro over all, so that `a` is near 1 whatever the currency and the business."""
    spent = sum(each.spent for seen in days for each in seen)
    value = sum(each.value for seen in days for each in seen)
    return value / spent if spent and value else 1.0


def _grid(scale: float) -> _Grid:
    """Points of a from 1/15 to 15 times the usual return, of b from a tenth to fifteen times an equal share."""
    log_a = np.linspace(np.log(1 / 15), np.log(15), _A_POINTS)
    log_b = np.linspace(np.log(scale / 7), np.log(scale * 20), _B_POINTS)
    both_a, both_b = (each.ravel() for each in np.meshgrid(log_a, log_b, indexing="ij"))
    return _Grid(np.exp(both_a), np.exp(both_b), both_a, both_b)


def _pooled(logs: Numbers, grid: _Grid) -> Numbers:
    """Posterior weights of each campaign under a prior that all of them shape (empirical Bayes, a few steps of EM)."""
    centres = [float(np.log(1.5)), float(grid.log_b.mean())]
    spreads = [_SPREAD, _SPREAD]
    points = (grid.log_a, grid.log_b)
    start = tuple(centres)
    weights = np.zeros_like(logs)
    for _ in range(4):
        prior = sum(
            -0.5 * ((point - centre) / spread) ** 2
            for point, centre, spread in zip(points, centres, spreads, strict=True)
        )
        raised = logs + prior
        weights = np.exp(raised - raised.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        rows = len(weights)
        for place, point in enumerate(points):
            means = weights @ point
            variances = weights @ point**2 - means**2
            centre = (means.sum() + _POOLED_AS * start[place]) / (rows + _POOLED_AS)
            around = ((means - centre) ** 2 + variances).sum() + _POOLED_AS * _SPREAD**2
            centres[place], spreads[place] = float(centre), float(np.sqrt(around / (rows + _POOLED_AS)))
    return weights


def _levelled(grid: _Grid, drawn: Sequence[int], low: Numbers, high: Numbers) -> Numbers:
    """Shares of 1 whose last unit earns the same on every curve, within bounds: water-filling by bisection."""
    a, b = grid.log_a[list(drawn)], grid.b[list(drawn)]
    floor, ceiling = float(a.min() - 1.0 / b.min()), float(a.max())
    for _ in range(60):
        level = (floor + ceiling) / 2
        if np.clip(b * (a - level), low, high).sum() > 1.0:
            floor = level
        else:
            ceiling = level
    shares: Numbers = np.clip(b * (a - ceiling), low, high)
    return shares


def _equally(total: float, least: Numbers, most: Numbers) -> Numbers:
    """The same for everyone, within bounds."""
    floor, ceiling = 0.0, float(total)
    for _ in range(60):
        level = (floor + ceiling) / 2
        if np.clip(level, least, most).sum() > total:
            ceiling = level
        else:
            floor = level
    shares: Numbers = np.clip(np.full(len(least), floor), least, most)
    return shares
