"""How many people an experiment needs before it starts, and what it could show with those that there are. Pure.

For a fixed day it is the textbook's answer (statsmodels); for daily looks the interval of `confidence_sequence` has to
leave zero out by the last day. That counts only the last look, so real power is a little higher: the benchmarks say how much.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from scipy.special import ndtri

from kiki.engage.confidence_sequence import reach, tuned
from kiki.errors import InvalidInput

MONEY_MAX: Final = 1e15
SIZE_MIN: Final = 1e-9
"""Of an effect, in deviations: below it all people of all times show nothing."""
_SIDES: Final = 2
"""An experiment has at least one person on each."""


class Power(NamedTuple):
    """What an experiment needs."""

    difference: float
    """The effect per person that shall be shown."""
    fixed: int
    """Persons of both sides together for one look on a fixed day."""
    always: int
    """Persons of both sides together when it is looked at every day."""
    held_out: int
    """Of the latter those who get nothing."""
    days: int | None
    """How long that takes; None where it was not said how many come a day."""


def money_deviation(rate: float, mean: float, deviation: float) -> float:
    """The standard deviation of what persons spend when `rate` of them buy for `mean` on average."""
    if not (0 <= rate <= 1 and 0 <= mean <= MONEY_MAX and 0 <= deviation <= MONEY_MAX):
        raise InvalidInput(f"a rate is from 0 to 1, and what buyers spend is not negative and at most {MONEY_MAX:g}")
    return math.sqrt(max(0.0, rate * (mean**2 + deviation**2) - (rate * mean) ** 2))


def rate_deviation(rate: float) -> float:
    """The standard deviation of whether somebody does it at all."""
    return money_deviation(rate, 1.0, 0.0)


def power(
    difference: float,
    deviation: float,
    *,
    held_out_share: float,
    alpha: float = 0.05,
    power: float = 0.8,
    kept: float = 1.0,
    a_day: float | None = None,
) -> Power:
    """How many persons show a `difference` with the given power; `deviation` is that of one person's outcome.

    `kept` is the share of the variance that the adjustment for the past leaves (`Effect.variance_kept`); `a_day` is how
    many persons enter a day. Raises `InvalidInput`.
    """
    _require(held_out_share, alpha, power)
    if difference == 0 or not math.isfinite(difference):
        raise InvalidInput("no number of people shows an effect of nothing: say how large it shall be")
    if deviation <= 0 or not 0 < kept <= 1:
        raise InvalidInput("the deviation is above 0, and what is kept of the variance above 0 and at most 1")
    spread = deviation * math.sqrt(kept)
    if abs(difference) < spread * SIZE_MIN:
        raise InvalidInput("there are not that many people: say a larger effect, or a smaller deviation")
    always = _persons(abs(difference), spread, held_out_share, _bound(alpha), power)
    return Power(
        difference=difference,
        fixed=_fixed(abs(difference) / spread, held_out_share, alpha, power),
        always=always,
        held_out=math.ceil(always * held_out_share),
        days=None if a_day is None else math.ceil(always / _positive(a_day)),
    )


def detectable(
    persons: int, deviation: float, *, held_out_share: float, alpha: float = 0.05, power: float = 0.8
) -> float:
    """The smallest effect per person that so many persons show, looked at every day."""
    _require(held_out_share, alpha, power)
    if persons < 1:
        raise InvalidInput("nobody shows nothing: at least one person is needed")
    score = deviation / math.sqrt(held_out_share * (1 - held_out_share))
    return (_bound(alpha) + float(ndtri(power))) * score / math.sqrt(persons)


def _bound(alpha: float) -> float:
    """How many standard errors from zero the interval ends, where it is narrowest."""
    persons = 1_000_000
    return reach(1.0, persons, tuned(persons, alpha), alpha) * math.sqrt(persons)


def _persons(difference: float, deviation: float, share: float, bound: float, power: float) -> int:
    score = deviation / math.sqrt(share * (1 - share))
    return max(_SIDES, math.ceil(((bound + float(ndtri(power))) * score / difference) ** 2))


def _fixed(size: float, share: float, alpha: float, power: float) -> int:
    from statsmodels.stats.power import NormalIndPower

    ratio = (1 - share) / share
    # Half the size wants four times the people. Solved at one size, because the search finds nothing where few are enough.
    held_out = NormalIndPower().solve_power(effect_size=0.1, alpha=alpha, power=power, ratio=ratio)
    return max(_SIDES, math.ceil(float(held_out) * (0.1 / size) ** 2 * (1 + ratio)))


def _positive(a_day: float) -> float:
    if not a_day > 0 or not math.isfinite(a_day):
        raise InvalidInput("how many persons enter a day is above 0")
    return a_day


def _require(share: float, alpha: float, power: float) -> None:
    if not all(0 < each < 1 for each in (share, alpha, power)):
        raise InvalidInput("a held-out share, an alpha and a power are above 0 and below 1")
