"""Whether intervals may be claimed to be true about as often as they say, and if not, why. Pure.

A recalibration makes intervals right around a level that is right. So two things are asked: whether intervals held on the origins that
they were not taught by, and whether the log lets anybody know the level of the time to come. A log of less than two years cannot tell a
season from a trend; where its level swings, or ends away from where it usually is, nobody knows which of it the future will be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from kiki.value.card import OriginScore
from kiki.value.evaluation import KINDS
from kiki.value.seasonality import LevelSeries

CUSTOMERS_MIN: Final = 400
"""With fewer customers an origin does not tell a share of 80 % to two points."""

POINTS: Final = 0.03
"""How far measured coverage may be off."""

SPREAD_MOST: Final = float(np.log(1.5))
"""How far the level may swing between origins, as a root mean square of logarithms."""

REACH_MOST: Final = 5.0
"""How many times as far as the furthest origin was tested a forecast may reach."""

SWING_MOST: Final = 0.2
"""How far the level may swing from one four weeks to another where no season is known: a level that is off by a fifth moves the
coverage of an 80 % interval by two to three points."""

_NOISE: Final = 2.0
"""Standard errors of a count that are no swing."""

_LAST: Final = 2
"""So many origins, and so many periods of the level, are the most recent ones."""


def refusal(
    scores: Sequence[OriginScore], *, level_spread: float, series: LevelSeries | None, reach: float
) -> str | None:
    """Why calibration is not claimed; None when it is.

    `series` is the level where no season is known, `reach` the horizon in those that were tested.
    """
    last = scores[-_LAST:]
    fewest = min(score.customers for score in last)
    if fewest < CUSTOMERS_MIN:
        return f"{fewest} customers are too few to tell a coverage of 80 % from one of 75 %: it takes {CUSTOMERS_MIN}"
    if reach > REACH_MOST:
        return f"the horizon is {reach:.0f} times the longest that the log allowed to test: measure again when it is longer"
    if level_spread > SPREAD_MOST:
        times = np.exp(level_spread)
        return (
            f"purchases in all came to between 1/{times:.1f} and {times:.1f} times the forecast from one origin to "
            "another (season, trend or campaigns): nobody knows which of it the future will be"
        )
    return _of_the_level(series) or _of_the_origins(last)


def _of_the_level(series: LevelSeries | None) -> str | None:
    if series is None:
        return None
    told = series.told
    unknown = "and no season could be learnt from the log: nobody knows which of it the future will be"
    if series.swing > SWING_MOST:
        return (
            f"purchases in all swing by {100 * np.expm1(series.swing):.0f} % from one four weeks to another, {unknown}"
        )
    for off, due in zip(told.log_ratio[-_LAST:].tolist(), told.expected[-_LAST:].tolist(), strict=True):
        if abs(off) > SWING_MOST + _NOISE / due**0.5:
            way = "above" if off > 0 else "below"
            return (
                f"the log ends with weeks in which purchases in all lie {abs(100 * np.expm1(off)):.0f} % {way} what its customers buy "
                f"otherwise, {unknown}"
            )
    return None


def _of_the_origins(scores: Sequence[OriginScore]) -> str | None:
    for score in scores:
        for kind in KINDS:
            for level, share in (score.metrics[kind].coverage or {}).items():
                noise = float(np.sqrt(level / 100 * (1 - level / 100) / score.customers))
                if abs(share - level / 100) > POINTS + noise:
                    return (
                        f"the origins disagree: the {level} % interval of {kind}, recalibrated on the others, held {100 * share:.1f} % "
                        f"of the outcomes from {score.end} to {score.until}"
                    )
    return None
