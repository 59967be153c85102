"""How fast money may go: within a day auction by auction, over a plan's days day by day. Pure.

Both follow a forecast line: what share of the buyers has come by now. `DualPacer` is for whoever bids in each auction (the
original's PlaceBid, and the simulation); `day_budget` is for platforms that bid by themselves and take a budget a day.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

import msgspec

SWING: Final = 0.6
"""How much busier than the average the middle of a day is, and how much quieter the night."""

_STEP: Final = 0.003
"""How far one auction moves the multiplier, once a day has begun: small, so that a multiplier near the right one stays there."""
_FIRST_STEP: Final = 0.1
_SETTLED_AFTER: Final = 500
"""So many auctions until the first step has lost most of its size: the first ones must find the level, the rest keep it."""
_SURE_SHARE: Final = 0.02
"""What is left of the buyers is never taken for less than this share, so that the last few do not swing the multiplier."""


def elapsed(share: float) -> float:
    """Which share of a day's buyers has come when `share` of the day is over; both from 0 to 1."""
    return share - SWING * math.sin(2 * math.pi * share) / (2 * math.pi)


class DualPacer:
    """Bids value / exp(x), and moves x so that what is left of the money meets what is left of the buyers.

    The dual of "most value within the budget": in second-price auctions the best bid is the value shaded by one multiplier
    (Balseiro and Gur, Management Science 65, 2019, eq. 5; dual mirror descent: Balseiro, Lu, Mirrokni, arXiv 2011.10124,
    algorithm 1, here with the logarithm as mirror). Two differences, both measured in `kiki campaign simulate`: the rate it aims
    at is that of the money and the forecast that remain, so what went wrong is made good; and its step begins large.

    A bid is never more than what is left, so overspending is impossible whatever the prices do. Money in micros.
    """

    def __init__(self, budget: int, auctions: float) -> None:
        """`auctions` is how many are expected in the whole time."""
        self._left = budget
        self._auctions = max(auctions, 1.0)
        self._seen = 0
        self._log_multiplier = 0.0

    @property
    def left(self) -> int:
        """Micros that may still be spent."""
        return self._left

    @property
    def shading(self) -> float:
        """What a value is divided by; 1 or more."""
        return math.exp(self._log_multiplier)

    def bid(self, value: int) -> int:
        """What to offer for something worth `value`, in micros."""
        return max(0, min(int(value * math.exp(-self._log_multiplier)), self._left))

    def told(self, cost: int, elapsed_share: float) -> None:
        """Learn what the auction cost, 0 when it was lost, and which share of the buyers has come by now."""
        self._left -= cost
        coming = max(1.0 - elapsed_share, _SURE_SHARE) * self._auctions
        rate = self._left / coming
        step = _STEP + (_FIRST_STEP - _STEP) * math.exp(-self._seen / _SETTLED_AFTER)
        self._seen += 1
        if rate > 0:
            self._log_multiplier = max(0.0, self._log_multiplier + step * (cost / rate - 1.0))


class DayLine(msgspec.Struct, frozen=True, kw_only=True):
    """The days of one campaign, and how its money shall lie on them."""

    total: int
    """Micros that all days together may nominally cost."""
    days: Sequence[date]
    """The days on which it runs, in order."""
    weights: Sequence[float] = ()
    """How many buyers each weekday brings, from Monday on; none: every day the same."""

    def weight(self, day: date) -> float:
        """Of one day."""
        return self.weights[day.weekday()] if self.weights else 1.0

    def planned(self, day: date) -> int:
        """What the line gives a day when nothing went otherwise, in micros."""
        return math.floor(self.total * self.weight(day) / self._sum(self.days))

    def left_after(self, spent: Mapping[str, int], day: date) -> int:
        """What is left for `day` and those after it; below 0 when too much is gone.

        `spent` is what days cost or, where nobody reported yet, may have cost; a day that is not in it counts as planned.
        """
        before = [each for each in self.days if each < day]
        return self.total - sum(spent.get(str(each), self.planned(each)) for each in before)

    def share_of_rest(self, day: date) -> float:
        """Which share of the buyers that are still to come, `day` brings."""
        return self.weight(day) / self._sum([each for each in self.days if each >= day])

    def _sum(self, days: Sequence[date]) -> float:
        return sum(self.weight(each) for each in days) or 1.0


def day_budget(
    line: DayLine, day: date, spent: Mapping[str, int], *, before: int | None, change: float, step: int, least: int
) -> int:
    """What `day` may nominally cost so that the campaign stays on its line, in micros; 0: nothing is left for it.

    `before` is the budget in force: the new one differs from it by at most the share `change`, because platforms start their
    learning anew otherwise; but it is never more than what is left. It is a whole multiple of `step`, and at least `least`.
    """
    if day not in line.days:
        return 0
    left = line.left_after(spent, day)
    wanted = left * line.share_of_rest(day)
    if before:
        wanted = min(max(wanted, before * (1 - change)), before * (1 + change))
    micros = math.floor(min(wanted, left) / step) * step
    return micros if micros >= max(least, 1) else 0


def weekday_weights(spent: Mapping[str, int], weeks_min: int = 2) -> tuple[float, ...]:
    """How busy each weekday was, the average being 1; empty before every weekday was seen `weeks_min` times.

    Half of the difference from the average is believed, because a few weeks say little about a weekday.
    """
    sums, counts = [0.0] * 7, [0] * 7
    for text, micros in spent.items():
        weekday = date.fromisoformat(text).weekday()
        sums[weekday] += micros
        counts[weekday] += 1
    if min(counts) < weeks_min:
        return ()
    means = [total / count for total, count in zip(sums, counts, strict=True)]
    average = sum(means) / 7
    return tuple((1 + mean / average) / 2 for mean in means) if average > 0 else ()
