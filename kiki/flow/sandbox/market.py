"""What the sandbox bills: buyers come by the hour, more by day than by night, and some days are busy. Pure.

A bill is a function of what was active when, with which budget, and of a seed; nothing is drawn while time passes. So it
is the same whenever it is looked at, and a sandbox that was killed bills what one that was not would have billed. A day
is never billed beyond `overdelivery` times the highest budget that was active on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from hashlib import sha256
from typing import Final, NamedTuple

from kiki.money import MICROS

BUSY_SHARE: Final = 1 / 7
"""So many days find more buyers than the platform may bill for."""
SWING: Final = 0.6
"""How much stronger than the average the middle of the day is, and how much weaker the night."""


class Span(NamedTuple):
    """A time in which a campaign was active with one budget; moments in microseconds, the budget in micros a day."""

    since: int
    until: int
    budget: int


class Market(NamedTuple):
    """The buyers of one campaign."""

    seed: int
    campaign: str
    demand: float
    overdelivery: float
    unit: int
    """Bills are whole multiples of so many micros."""

    def billed(self, spans: Sequence[Span], day: date, begins: int, ends: int, now: int) -> int:
        """What a day has cost up to `now`, in micros; it never falls while time passes."""
        appetite = self._appetite(day)
        cost, highest = 0.0, 0
        for span in spans:
            since, until = max(span.since, begins), min(span.until, ends, now)
            if since < until:
                highest = max(highest, span.budget)
                share = _elapsed((until - begins) / (ends - begins)) - _elapsed((since - begins) / (ends - begins))
                cost += span.budget * appetite * share
        return min(self._whole(cost), self.most(highest))

    def corrected(self, billed: int, highest: int, revision: float, day: date) -> int:
        """A final bill after the platform looked at it again, in micros."""
        share = revision * (2 * self._chance("revision", day) - 1)
        return min(max(self._whole(billed * (1 + share)), 0), self.most(highest))

    def most(self, budget: int) -> int:
        """The most that a day with this budget may cost, in micros."""
        return self._whole(budget * self.overdelivery)

    def response(self, spent: int) -> tuple[int, int, int, int]:
        """What the money bought: impressions, clicks, conversions and their value in micros. Each further one costs more."""
        units = spent / MICROS
        click = 0.4 + 1.1 * self._chance("click")
        clicks = int(units / click)
        conversions = int((0.3 + 0.5 * self._chance("conversion")) * units**0.8 / 4)
        return clicks * 40, clicks, conversions, conversions * self._whole(MICROS * (20 + 60 * self._chance("value")))

    def _appetite(self, day: date) -> float:
        """How much of the budget the buyers of that day would take."""
        if self._chance("busy", day) < BUSY_SHARE:
            return 1.1 * self.overdelivery * self.demand
        return (0.7 + 0.4 * self._chance("appetite", day)) * self.demand

    def _chance(self, what: str, day: date | None = None) -> float:
        """From 0 to 1, always the same for the same question."""
        text = f"{self.seed}\0{self.campaign}\0{what}\0{day or ''}"
        return int.from_bytes(sha256(text.encode()).digest()[:6], "big") / 2**48

    def _whole(self, micros: float) -> int:
        return int(micros) // self.unit * self.unit


def highest_budget(spans: Sequence[Span], begins: int, ends: int) -> int:
    """The highest budget that was active between two moments."""
    return max((span.budget for span in spans if span.since < ends and span.until > begins), default=0)


def _elapsed(share: float) -> float:
    """How much of a day's buyers have come when so much of it is over."""
    return share - SWING * math.sin(2 * math.pi * share) / (2 * math.pi)
