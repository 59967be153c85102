"""A market to judge pacing and allocation in before money is spent: simulated, with fixed seeds. Pure; chance is a seed.

Pacing: a day of second-price auctions, more by day than by night, prices that follow the hour, and a budget that a bidder
without pacing has spent by 38 % of the day; prices may double or halve at noon. What counts is the value that was won, as a share
of the best that anybody could have done who knew all prices (the fractional knapsack by value over price).
Allocation: seven campaigns with saturating returns that nobody knows, 15 % noise, sixty days; what counts is the true return,
as a share of that of whoever knows the curves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np

from kiki.flow.allocation import NOISE, Bounds, Day, allocate
from kiki.flow.pacing import SWING, DualPacer, elapsed
from kiki.money import MICROS

AUCTIONS: Final = 20_000
BROKE_AT: Final = 0.38
CAMPAIGNS: Final = 7
DAYS: Final = 60
DAY_MONEY: Final = 5_000 * MICROS

Numbers = np.ndarray[Any, np.dtype[np.float64]]


class Shock(StrEnum):
    """What competitors' prices do at noon."""

    NONE = "none"
    DOUBLE = "double"
    HALF = "half"


_AT_NOON: Final = {Shock.NONE: 1.0, Shock.DOUBLE: 2.0, Shock.HALF: 0.5}


class Auctions(NamedTuple):
    """One day of auctions, in their order. Money in micros."""

    at: list[float]
    """Shares of the day."""
    value: list[int]
    price: list[int]
    budget: int

    def best(self) -> float:
        """The value that whoever knows all prices wins with the budget."""
        value, price = np.array(self.value, dtype=float), np.array(self.price, dtype=float)
        order = np.argsort(-value / price)
        paid = price[order].cumsum()
        whole = int(np.searchsorted(paid, self.budget, side="right"))
        total = float(value[order][:whole].sum())
        if whole < len(order):
            left = self.budget - (paid[whole - 1] if whole else 0.0)
            total += float(value[order][whole] * left / price[order][whole])
        return total


class Won(msgspec.Struct, frozen=True):
    """How one bidder's day went. Money in micros."""

    share: float
    """Of the best possible value."""
    spent: int
    budget: int
    line: tuple[float, ...]
    """The share of the budget that was spent, by every twentieth of the day."""


def auctions(seed: int, shock: Shock = Shock.NONE) -> Auctions:
    """A simulated day."""
    chance = np.random.default_rng(seed)
    share = np.linspace(0.0, 1.0, 20_001)
    come = share - SWING * np.sin(2 * np.pi * share) / (2 * np.pi)
    at = np.interp(np.sort(chance.uniform(size=AUCTIONS)), come, share)
    value = np.exp(0.7 * chance.standard_normal(AUCTIONS))
    price = np.exp(-0.3 + 0.7 * chance.standard_normal(AUCTIONS)) * (1 + 0.3 * np.sin(2 * np.pi * (at - 0.25)))
    paid = np.where(value >= price, price, 0.0).cumsum()
    budget = float(paid[np.searchsorted(at, BROKE_AT)])
    price = np.where(at >= 0.5, price * _AT_NOON[shock], price)

    def micros(amounts: Numbers) -> list[int]:
        return [max(1, int(each)) for each in amounts * MICROS]

    return Auctions(at.tolist(), micros(value), micros(price), int(budget * MICROS))


class Bidder(Protocol):
    """Offers in one auction after the other."""

    def offer(self, value: int, left: int, at: float) -> int:
        """What to bid for `value` when so much of the budget is left at that share of the day, in micros."""
        ...

    def told(self, cost: int, at: float) -> None:
        """Learn what the auction cost; 0 when it was lost."""
        ...


class Greedy:
    """Bids the whole value until the money is gone."""

    def __init__(self, day: Auctions) -> None:
        self._budget = day.budget

    def offer(self, value: int, left: int, at: float) -> int:
        """See `Bidder`."""
        return value

    def told(self, cost: int, at: float) -> None:
        """See `Bidder`."""


class EvenLine(Greedy):
    """Bids the whole value while the spend is below the straight line from nothing to the budget."""

    def offer(self, value: int, left: int, at: float) -> int:
        """See `Bidder`."""
        return value if self._budget - left < self._budget * at else 0


class Dual:
    """Bids as `DualPacer` does."""

    def __init__(self, day: Auctions) -> None:
        self._pacer = DualPacer(day.budget, len(day.at))

    def offer(self, value: int, left: int, at: float) -> int:
        """See `Bidder`."""
        return self._pacer.bid(value)

    def told(self, cost: int, at: float) -> None:
        """See `Bidder`."""
        self._pacer.told(cost, elapsed(at))


BIDDERS: Final[dict[str, Callable[[Auctions], Bidder]]] = {
    "greedy": Greedy,
    "even line": EvenLine,
    "dual pacing": Dual,
}


def bid(day: Auctions, bidder: Bidder) -> Won:
    """Let somebody bid for a day; an offer beyond what is left is cut to it."""
    left, won = day.budget, 0
    line: list[float] = []
    for at, value, price in zip(day.at, day.value, day.price, strict=True):
        while at >= (len(line) + 1) / 20:
            line.append(1 - left / day.budget)
        cost = price if min(bidder.offer(value, left, at), left) >= price else 0
        left -= cost
        won += value if cost else 0
        bidder.told(cost, at)
    line += [1 - left / day.budget] * (20 - len(line))
    return Won(won / day.best(), day.budget - left, day.budget, tuple(line))


class Curves(NamedTuple):
    """What campaigns truly return: value(spend) = a·b·(1 - exp(-spend/b)), spend in shares of a day's money."""

    a: Numbers
    b: Numbers

    def value(self, shares: Numbers) -> Numbers:
        """Of each campaign."""
        return self.a * self.b * -np.expm1(-shares / self.b)

    def best(self) -> float:
        """The most that a day's money can return, by bisection on the marginal return."""
        low, high = float(np.log(self.a).min() - 1 / self.b.min()), float(np.log(self.a).max())
        for _ in range(80):
            level = (low + high) / 2
            if np.maximum(self.b * (np.log(self.a) - level), 0).sum() > 1:
                low = level
            else:
                high = level
        return float(self.value(np.maximum(self.b * (np.log(self.a) - high), 0)).sum())


def curves(seed: int) -> Curves:
    """Campaigns of which an equal division returns about nine tenths of the best one."""
    chance = np.random.default_rng(seed)
    return Curves(
        3 * np.exp(0.4 * chance.standard_normal(CAMPAIGNS)), 0.2 * np.exp(0.5 * chance.standard_normal(CAMPAIGNS))
    )


class Divided(msgspec.Struct, frozen=True):
    """How sixty days of dividing went, in shares of the best possible return."""

    share: float
    """Of all days."""
    late_share: float
    """Of the last thirty."""
    by_day: tuple[float, ...]


def divide(seed: int, *, adaptive: bool) -> Divided:
    """Divide a day's money for sixty days, equally or as `allocate` does."""
    true, chance = curves(seed), np.random.default_rng([seed, 1])
    best = true.best()
    names = [f"campaign {number}" for number in range(CAMPAIGNS)]
    history: dict[str, list[Day]] = {name: [] for name in names}
    bounds = {name: Bounds(most=DAY_MONEY) for name in names}
    by_day: list[float] = []
    for day in range(DAYS):
        known = history if adaptive else {}
        micros = allocate(DAY_MONEY, known, bounds, day=day, seed=seed)
        shares = np.array([micros[name] / DAY_MONEY for name in names])
        value = true.value(shares)
        by_day.append(float(value.sum()) / best)
        told = value * np.exp(NOISE * chance.standard_normal(CAMPAIGNS) - NOISE**2 / 2)
        for name, returned in zip(names, told, strict=True):
            history[name].append(Day(micros[name], int(returned * DAY_MONEY)))
    return Divided(sum(by_day) / DAYS, sum(by_day[-30:]) / 30, tuple(by_day))


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `simulate` found."""

    seeds: int
    pacing: dict[str, dict[str, Pace]]
    """By shock and bidder."""
    allocation: dict[str, Division]
    """`equal` and `adaptive`."""


class Pace(msgspec.Struct, frozen=True):
    """One bidder over all seeds."""

    share: float
    """The mean share of the best possible value."""
    worst: float
    spent: float
    """The mean share of the budget that was spent."""
    overspent: int
    """Micros beyond a budget, over all seeds."""
    line: tuple[float, ...]


class Division(msgspec.Struct, frozen=True):
    """One way of dividing over all seeds."""

    share: float
    worst: float
    late_share: float
    by_day: tuple[float, ...]


def simulate(seeds: int, *, first: int = 0, told: Callable[[str, float, float], None] = lambda *_: None) -> Simulated:
    """Pacing and allocation beside doing nothing clever, for so many markets; `told` hears how far each of the two is."""
    pacing: dict[str, dict[str, Pace]] = {}
    for number, shock in enumerate(Shock):
        days = [auctions(seed, shock) for seed in range(first, first + seeds)]
        pacing[shock] = {}
        for place, (name, bidder) in enumerate(BIDDERS.items()):
            pacing[shock][name] = _pace([bid(day, bidder(day)) for day in days])
            told("pacing", number * len(BIDDERS) + place + 1, len(Shock) * len(BIDDERS))
    allocation = {}
    for number, (name, adaptive) in enumerate((("equal", False), ("adaptive", True))):
        divided = []
        for seed in range(first, first + seeds):
            divided.append(divide(seed, adaptive=adaptive))
            told("allocation", number * seeds + len(divided), 2 * seeds)
        allocation[name] = Division(
            share=_mean([each.share for each in divided]),
            worst=min(each.share for each in divided),
            late_share=_mean([each.late_share for each in divided]),
            by_day=tuple(np.mean([each.by_day for each in divided], axis=0).tolist()),
        )
    return Simulated(seeds=seeds, pacing=pacing, allocation=allocation)


def _pace(days: Sequence[Won]) -> Pace:
    return Pace(
        share=_mean([day.share for day in days]),
        worst=min(day.share for day in days),
        spent=_mean([day.spent / day.budget for day in days]),
        overspent=sum(max(0, day.spent - day.budget) for day in days),
        line=tuple(np.mean([day.line for day in days], axis=0).tolist()),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
