"""The distribution of the number of purchases in a horizon, for very many customers, piece by piece. Pure.

Two things make it quick. Given that a customer is alive, most models look at (x, T) only, so that one living pmf serves every recency;
and tables are no longer than they have to be: n_max is the first of 15, 31, 63, ... beyond which the chance is below
`TAIL`, at most `MOST`. What is left beyond is shared out in proportion, so that every row sums to 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from kiki.value.count_models import count_model
from kiki.value.groups import Floats, Groups, Ints
from kiki.value.mixture import Mixture, living_pmf, memoryless

TAIL: Final = 1e-6
"""The chance of more purchases than a table holds."""

MOST: Final = 2**17 - 1
"""No table goes further: somebody who buys every day for 350 years."""

_FIRST: Final = 15
_NUMBERS: Final = 500_000
"""So many chances are held at a time, for each part of the mixture."""

_MEAN_WITHIN: Final = 1e-7
"""A tilted mean is right to this relative error."""


class Piece(NamedTuple):
    """Some of the rows; each row is in exactly one piece."""

    rows: Ints
    """Their places."""
    pmf: Floats
    """P(n purchases), n = 0, 1, ...: shape (rows, n_max + 1); every row sums to 1."""


def pieces(mixture: Mixture, h: float, groups: Groups, group: Ints, stretch: Floats, least: Ints) -> Iterator[Piece]:
    """The pmf of rows with the histories `groups[group]` for a horizon of `h` units.

    The tables have room for a mean that is `stretch` times as large, and for `least` purchases.
    """
    cells, cell = _cells(groups)
    alive = {name: count_model(name).alive(p, groups) for name, p, _ in mixture.parts if memoryless(name)}
    rows = np.lexsort((group, cell[group]))
    n_max = _FIRST
    while rows.size:
        served = np.zeros(rows.size, dtype=bool)
        step = max(_NUMBERS // (n_max + 1), 1)
        for first in range(0, rows.size, step):
            # Rows are sorted by cell, so that one living pmf serves neighbours.
            block = rows[first : first + step]
            pmf = _mixed(mixture, h, groups, group[block], n_max, cells, cell, alive)
            upto = np.cumsum(pmf, axis=1)
            # A larger mean stretches the tail: it has to be negligible that much earlier.
            early = (n_max / np.maximum(stretch[block], 1.0)).astype(np.int64)
            enough = (1 - upto[np.arange(block.size), early] < TAIL) & (least[block] <= n_max)
            done = enough | (n_max >= MOST)
            served[first : first + step] = done
            if done.any():
                yield Piece(block[done], pmf[done] / upto[done, -1:])
        rows = rows[~served]
        n_max = 2 * n_max + 1


def _cells(groups: Groups) -> tuple[Groups, Ints]:
    """Distinct (x, T), growing, and for each group the place of its cell."""
    order = np.lexsort((groups.t, groups.x))
    x, t = groups.x[order], groups.t[order]
    new = np.concatenate([[True], (np.diff(x) != 0) | (np.diff(t) != 0)])
    cell = np.empty(order.size, dtype=np.int64)
    cell[order] = np.cumsum(new) - 1
    none = np.zeros(int(new.sum()))
    return Groups(x[new], none, t[new], none), cell


def _mixed(
    mixture: Mixture,
    h: float,
    groups: Groups,
    group: Ints,
    n_max: int,
    cells: Groups,
    cell: Ints,
    alive: dict[str, Floats],
) -> Floats:
    """The mixture's pmf up to `n_max` of the histories `groups[group]`, sorted by cell."""
    pmf = np.zeros((group.size, n_max + 1))
    used, place = np.unique(cell[group], return_inverse=True)
    for name, p, weight in mixture.parts:
        if memoryless(name):
            living = living_pmf(name, p, h, _take(cells, used), n_max)
            chance = weight * alive[name][group]
            pmf += living[place] * chance[:, None]
            pmf[:, 0] += weight - chance
        else:
            distinct, where = np.unique(group, return_inverse=True)
            pmf += weight * count_model(name).pmf(p, h, _take(groups, distinct), n_max)[where]
    return np.clip(pmf, 0.0, 1.0, out=pmf)


def _take(groups: Groups, places: Ints) -> Groups:
    return Groups(*(column[places] for column in groups))


def tilted(pmf: Floats, ratio: Floats) -> Floats:
    """Rows whose means are `ratio` times those of `pmf`: the distributions nearest to it, in Kullback and Leibler's sense.

    Each is pmf * theta^n, theta by Newton's method in logarithms; for NBD that is the same as another rate of purchases.
    A row without any chance of a purchase stays as it is.
    """
    found = pmf.copy()
    rows = np.flatnonzero((np.abs(ratio - 1) > 1e-12) & (pmf[:, 0] < 1))
    if not rows.size:
        return found
    n = np.arange(pmf.shape[1], dtype=np.float64)
    squares = n**2
    base = pmf[rows]
    # No row can have a mean beyond its table.
    target = np.log(np.minimum(ratio[rows] * (base @ n), 0.999 * n[-1]))
    with np.errstate(divide="ignore"):
        logs = np.log(base)
    theta, low, high = (np.full(rows.size, start) for start in (0.0, -60.0, 60.0))
    for _ in range(60):
        grown = _tilt(logs, theta, n)
        mean = grown @ n
        off = target - np.log(mean)
        if np.abs(off).max() < _MEAN_WITHIN:
            break
        low, high = np.where(off > 0, theta, low), np.where(off < 0, theta, high)
        variance = np.maximum(grown @ squares - mean**2, 1e-300)
        step = theta + np.clip(off * mean / variance, -2.0, 2.0)
        theta = np.where((step > low) & (step < high), step, (low + high) / 2)
    found[rows] = grown
    return found


def _tilt(logs: Floats, theta: Floats, n: Floats) -> Floats:
    grown = theta[:, None] * n
    grown += logs
    # Powers overflow in long tables; beside the largest one the others only vanish.
    grown -= grown.max(axis=1, keepdims=True)
    np.exp(grown, out=grown)
    grown /= grown.sum(axis=1, keepdims=True)
    return grown
