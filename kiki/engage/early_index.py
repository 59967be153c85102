"""What an early outcome is worth in margin: a surrogate index, so that effects can be seen where few people buy. Pure.

A person's index is their early outcome times what one of it is worth under their arm and for somebody like them (Athey,
Chetty, Imbens and Kang 2019). The worth of an arm is shrunk towards that of all arms. It is learned from the same
randomised persons, and what a policy gains by it is checked on the margin itself.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Self

import numpy as np

from kiki.engage.outcomes import Floats, Ints, Outcomes
from kiki.engage.shrunk_line import ShrunkLine

_SEEN_LEAST: Final = 50
_CLEAR: Final = 4.0
"""So many standard errors from zero must the worth of an early outcome be to be used."""
_USUAL_SPREAD: Final = 0.1
_SPREADS: Final = np.linspace(0.0, 0.8, 33)
"""How much the arms' worths may differ, as a share of the common one."""


class EarlyIndex(NamedTuple):
    """The worth of one early outcome."""

    worth: Floats
    """By arm."""
    own_variance: Floats
    """By arm, what is unknown about its difference from the common worth."""
    common_variance: float
    shape: ShrunkLine
    """What it is worth for whom, around 1."""

    @classmethod
    def fit(cls, data: Outcomes, columns: Floats, rows: Ints) -> Self | None:
        """The index that these rows teach; None where the early outcome says too little about the margin."""
        if data.early is None:
            return None
        early, margin, arm = data.early[rows], data.margin[rows], data.arm[rows]
        count = len(data.arms)
        worth, variance = np.zeros(count), np.full(count, np.inf)
        for each in range(count):
            mine = arm == each
            total = float(early[mine].sum())
            if np.count_nonzero(early[mine] > 0) < _SEEN_LEAST or total <= 0:
                return None
            worth[each] = margin[mine].sum() / total
            left = margin[mine] - worth[each] * early[mine]
            variance[each] = float((left**2).sum()) / total**2
        if variance.min() <= 0:
            return None
        found = _shared(worth, variance)
        if found is None:
            return None
        shrunk, own, common, common_variance = found
        bought = early > 0
        each_worth = margin[bought] / (early[bought] * np.maximum(shrunk[arm[bought]], 0.05 * common))
        shape = ShrunkLine.fit(columns[rows[bought]], each_worth)
        return cls(shrunk, own, common_variance, shape)

    def of(self, data: Outcomes, columns: Floats) -> Floats:
        """By person the index."""
        early = data.early
        assert early is not None
        return early * self.worth[data.arm] * np.clip(self.shape.at(columns) / max(self.shape.intercept, 0.05), 0.2, 5)


def _shared(worth: Floats, variance: Floats) -> tuple[Floats, Floats, float, float] | None:
    """The arms' worths shrunk towards a common one: they, their own variance, the common one and its variance.

    With a few arms the data say little about how much arms differ, so every spread is weighed by how likely it makes
    them, and by a half-normal prior: arms seldom differ by more than a tenth or two.
    """
    common = float(np.average(worth, weights=1 / variance))
    if common <= _CLEAR * float(1 / (1 / variance).sum()) ** 0.5:
        return None
    shares, means, owns, commons, errors = [], [], [], [], []
    for spread in _SPREADS * common:
        total = spread**2 + variance
        weight = 1 / total
        middle = float(np.average(worth, weights=weight))
        # The middle is integrated out: what is left is the likelihood of the spread.
        likelihood = -0.5 * float(np.log(total).sum() + np.log(weight.sum()) + ((worth - middle) ** 2 / total).sum())
        keep = spread**2 / total
        shares.append(likelihood - 0.5 * (spread / common / _USUAL_SPREAD) ** 2)
        means.append(middle + keep * (worth - middle))
        owns.append(spread**2 * (1 - keep))
        commons.append(middle)
        errors.append(1 / float(weight.sum()))
    share = np.exp(np.array(shares) - max(shares))
    share /= share.sum()
    shrunk = share @ np.array(means)
    between = share @ (np.array(means) - shrunk) ** 2
    return shrunk, share @ np.array(owns) + between, float(share @ np.array(commons)), float(share @ np.array(errors))
