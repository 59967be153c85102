"""What messages earned beyond the holdout: intention to treat, with an interval that may be looked at every day. Pure.

Everybody who was assigned counts on the side they were assigned to, whether a message reached them or not, with what they
earned in a window that starts at the assignment. A person enters when their window is over, so that the outcomes are a
sequence of one draw each; a person whose window is open is on neither side yet. Margin is after all costs of contact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from kiki.engage.confidence_sequence import always_p, reach, tuned
from kiki.engage.moments import Moments
from kiki.errors import InvalidInput

PERSONS_LEAST: Final = 100
ACTIVE_LEAST: Final = 100
"""So many persons, and so many who bought, must each side have before an interval is told: with fewer the mean of money is far from normal."""
PLANNED: Final = 10_000
IMBALANCE: Final = 0.001
"""Below this p-value the sides are not as large as they were drawn: something loses persons, and no result counts."""


class Effect(NamedTuple):
    """What the treatment added for each person, in micros; the interval holds at every look at once."""

    treated: int
    held_out: int
    value: float | None
    """None while too little is known."""
    low: float
    high: float
    p: float
    """Always valid: the smallest that was seen counts."""
    fixed: tuple[float, float, float] | None
    """The interval and p-value of Welch's test: for somebody who looks once, on a day that was fixed before."""
    total: float | None
    """The value times the persons who were treated: what all of it earned."""
    variance_kept: float
    """What the adjustment for the past left of the variance: 0.7 saves three persons in ten, 1 none."""
    balance_p: float
    """Always valid: how plausible it is that the sides were drawn with the shares that were said."""

    @property
    def is_known(self) -> bool:
        """Whether there is an interval."""
        return self.value is not None

    @property
    def is_shown(self) -> bool:
        """Whether zero is outside of the interval, and the sides are as they were drawn."""
        return self.is_known and self.is_balanced and not self.low <= 0 <= self.high

    @property
    def is_balanced(self) -> bool:
        """Whether the sides are as large as they were drawn."""
        return self.balance_p >= IMBALANCE


def effect(
    treated: Moments,
    held_out: Moments,
    *,
    held_out_share: float,
    alpha: float = 0.05,
    planned: int = PLANNED,
    assigned: tuple[int, int] | None = None,
    fixed: bool = True,
) -> Effect:
    """The effect of being assigned to treatment.

    `held_out_share` is the share that was drawn; `planned` says at how many persons the interval shall be narrowest,
    and is fixed before the first look; `assigned` are the persons drawn for each side, open windows included (by
    default those who are known); `fixed` asks for Welch's test beside it. What was earned before is taken out where the moments have it and it helps (CUPED:
    Deng, Xu, Kohavi and Walker 2013). Raises `InvalidInput`.
    """
    if not 0 < held_out_share < 1:
        raise InvalidInput("a held-out share is above 0 and below 1: without a control group nothing can be shown")
    share = 1 - held_out_share
    drawn = assigned or (treated.persons, held_out.persons)
    balance = balance_p(drawn, (share, held_out_share))
    known = min(treated.persons, held_out.persons)
    if known < PERSONS_LEAST or min(treated.active, held_out.active) < ACTIVE_LEAST:
        return Effect(treated.persons, held_out.persons, None, -math.inf, math.inf, 1.0, None, None, 1.0, balance)
    plain = _weighted(treated, held_out, share)
    one, other = _without_past(treated, held_out)
    value, deviation = _weighted(one, other, share)
    kept = (deviation / plain[1]) ** 2 if plain[1] else 1.0
    persons = treated.persons + held_out.persons
    squared = tuned(planned, alpha)
    half = reach(deviation, persons, squared, alpha)
    return Effect(
        treated=treated.persons,
        held_out=held_out.persons,
        value=value,
        low=value - half,
        high=value + half,
        p=always_p(value, deviation, persons, squared),
        fixed=welch(one, other, alpha) if fixed else None,
        total=value * treated.persons,
        variance_kept=kept,
        balance_p=balance,
    )


def _without_past(treated: Moments, held_out: Moments) -> tuple[Moments, Moments]:
    """Both sides with what the past explains taken out; as they are where the past is not known."""
    both = treated.plus(held_out)
    middle = both.before / both.persons
    # Within the sides, so that the effect itself does not tilt the line.
    around = sum(side.before_squares - side.before**2 / side.persons for side in (treated, held_out))
    together = sum(side.products - side.before * side.total / side.persons for side in (treated, held_out))
    if around <= 0:
        return treated, held_out
    slope = together / around
    return treated.adjusted(slope, middle), held_out.adjusted(slope, middle)


def _weighted(treated: Moments, held_out: Moments, share: float) -> tuple[float, float]:
    """Mean and deviation of the persons' scores: the outcome, weighted by the inverse of the chance of its side.

    The outcome is taken from the constant that makes the scores' variance least; their mean is the effect whatever
    the constant, because the chances are known (Waudby-Smith et al., section 3).
    """
    persons = treated.persons + held_out.persons
    middle = (1 - share) * treated.mean + share * held_out.mean
    one = treated.total - treated.persons * middle
    other = held_out.total - held_out.persons * middle
    mean = (one / share - other / (1 - share)) / persons
    squares = sum(
        (side.squares - 2 * middle * side.total + side.persons * middle**2) / chance**2
        for side, chance in ((treated, share), (held_out, 1 - share))
    )
    return mean, math.sqrt(max(0.0, squares / persons - mean**2))


def welch(treated: Moments, held_out: Moments, alpha: float = 0.05) -> tuple[float, float, float] | None:
    """Low, high and p-value of the difference of the means by Welch's test: for one look on a day that was fixed before."""
    from statsmodels.stats.weightstats import CompareMeans

    if treated.variance + held_out.variance <= 0 or min(treated.persons, held_out.persons) < 2:
        return None
    test = CompareMeans(_described(treated), _described(held_out))
    low, high = test.tconfint_diff(alpha, usevar="unequal")
    return float(low), float(high), float(test.ttest_ind(usevar="unequal")[1])


def _described(side: Moments) -> Any:
    """Two points, half of the persons at each, that have the side's mean and variance: all that the test looks at."""
    from statsmodels.stats.weightstats import DescrStatsW

    apart = math.sqrt(side.variance * (side.persons - 1) / side.persons)
    return DescrStatsW([side.mean - apart, side.mean + apart], weights=[side.persons / 2, side.persons / 2])


def balance_p(counts: Sequence[int], shares: Sequence[float]) -> float:
    """How plausible counts are under the shares that were drawn, at every look at once.

    A mixture over all other shares against those that were said (Lindon and Malek 2022): the smallest value that was
    seen counts, and it is below p with a chance of at most p.
    """
    total, strength = sum(counts), 100.0
    prior = [strength * share for share in shares]
    evidence = math.lgamma(strength) - math.lgamma(strength + total)
    evidence += sum(
        math.lgamma(own + count) - math.lgamma(own) - count * math.log(share)
        for own, count, share in zip(prior, counts, shares, strict=True)
    )
    return min(1.0, math.exp(min(0.0, -evidence)))
