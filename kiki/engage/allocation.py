"""Which offer each customer gets under budgets: a multiple-choice knapsack by Lagrangian relaxation. Pure.

Every budget gets a price per unit. At given prices each customer's best offer is found alone, and the prices are moved
(bisection, one budget after the other) to where the budgets are just kept; that also bounds what any choice whatever
could reach (Everett 1963; Sinha and Zoltners 1979). What is then left of the budgets is filled greedily. Amounts are
integer micros: floats only order the candidates, and whether a budget is kept is decided by whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from kiki.errors import InvalidInput

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NOTHING: Final = -1
"""The choice of a customer who gets no offer."""

_AMOUNT_MAX: Final = 2**53
"""Below this a float holds an integer exactly: nine billion units of a currency for one customer."""
_HALVINGS: Final = 48
_SWEEPS: Final = 12
_FILLINGS: Final = 8
_CANDIDATES: Final = 20_000


class Budget(NamedTuple):
    """A limit on what some offers may cost together."""

    limit: int
    """In micros."""
    offers: Collection[int] | None = None
    """The columns that draw on it; None: all."""


class Allocation(NamedTuple):
    """Who gets what, and how good that is."""

    choice: Ints
    """By customer the column of the offer, or `NOTHING`."""
    margin: int
    """The expected incremental margin of the choice, in micros."""
    spent: tuple[int, ...]
    """What the choice costs, by budget."""
    multipliers: tuple[float, ...]
    """By budget what one more unit of it would add: its marginal return."""
    bound: int
    """No choice that keeps the budgets reaches more than this."""

    @property
    def gap(self) -> float:
        """How far the bound is away, as a share of it: at most this much is lost."""
        return 0.0 if self.bound <= 0 else (self.bound - self.margin) / self.bound


def allocate(margins: npt.ArrayLike, costs: npt.ArrayLike, budgets: Sequence[Budget] | Budget | int) -> Allocation:
    """The offers that bring the most incremental margin within the budgets, at most one for each customer.

    `margins` and `costs` are whole numbers of micros, customers by offers: what an offer adds when all that it costs
    is taken off, and what it takes out of the budgets. An offer that adds nothing is given to nobody; one that is not
    open to a customer has a margin of 0 there. Ties go to the earlier row: sort the customers by id.
    Raises `InvalidInput`.
    """
    gain, cost = _matrix(margins, "margins"), _matrix(costs, "costs")
    if gain.shape != cost.shape:
        raise InvalidInput(f"margins have the shape {gain.shape} and costs {cost.shape}")
    if cost.size and int(cost.min()) < 0:
        raise InvalidInput("an offer cannot cost less than nothing")
    problem = _Problem(gain, cost, _budgets(budgets, gain.shape[1]))
    prices = problem.prices()
    choice = problem.best_at(prices)
    problem.repair(choice, prices)
    problem.fill(choice)
    spent = problem.spent(choice)
    over = [number for number, (budget, used) in enumerate(zip(problem.limits, spent, strict=True)) if used > budget]
    if over:  # never: repair ends when nothing is over
        raise AssertionError(f"budgets {over} would be exceeded")
    margin = problem.margin(choice)
    return Allocation(choice, margin, tuple(spent), tuple(map(float, prices)), max(problem.bound(prices), margin))


def _matrix(given: npt.ArrayLike, what: str) -> Ints:
    found = np.asarray(given)
    if found.ndim != 2:
        raise InvalidInput(f"{what} are a table, customers by offers")
    if found.size and found.dtype.kind not in "iu":
        raise InvalidInput(f"{what} are whole numbers of micros, not {found.dtype}")
    found = found.astype(np.int64)
    if found.size and (int(found.max()) > _AMOUNT_MAX or int(found.min()) < -_AMOUNT_MAX):
        raise InvalidInput(f"one customer's {what} are at most {_AMOUNT_MAX} micros")
    return found


def _budgets(given: Sequence[Budget] | Budget | int, offers: int) -> list[Budget]:
    if isinstance(given, int):
        given = Budget(given)
    many = [given] if isinstance(given, Budget) else list(given)
    if not many:
        raise InvalidInput("at least one budget is needed")
    for budget in many:
        if budget.limit < 0:
            raise InvalidInput("a budget cannot be less than nothing")
        if any(not 0 <= column < offers for column in budget.offers or ()):
            raise InvalidInput(f"a budget names an offer that is not there: offers are 0 to {offers - 1}")
    return many


class _Problem:
    """The tables, with what is asked of them again and again."""

    def __init__(self, gain: Ints, cost: Ints, budgets: Sequence[Budget]) -> None:
        self.gain = gain
        self.cost = cost
        self.limits = [budget.limit for budget in budgets]
        self.uses = np.zeros((len(budgets), gain.shape[1]), dtype=bool)
        for number, budget in enumerate(budgets):
            self.uses[number, slice(None) if budget.offers is None else list(budget.offers)] = True
        # Columns one after the other in memory: most of the time goes into looking for the best offer of each row.
        self._gain = np.ascontiguousarray(np.where(gain > 0, gain, -1).T.astype(np.float64))
        self._cost = np.ascontiguousarray(cost.T.astype(np.float64))

    def _best(self, prices: Floats) -> tuple[Ints, Floats]:
        """By customer the best offer at these prices, and what is left of its margin after paying them."""
        rows = self.gain.shape[0]
        choice, top = np.full(rows, NOTHING, dtype=np.int64), np.zeros(rows)
        per_offer = prices @ self.uses
        for column in range(self.gain.shape[1]):
            left = self._gain[column] - per_offer[column] * self._cost[column]
            better = left > top
            choice[better] = column
            np.maximum(top, left, out=top)
        return choice, top

    def best_at(self, prices: Floats) -> Ints:
        """By customer the best offer at these prices."""
        return self._best(prices)[0]

    def bound(self, prices: Floats) -> int:
        """What no choice within the budgets exceeds, by weak duality; with room for what floats may have lost."""
        value = math.fsum(self._best(prices)[1]) + math.fsum(
            price * limit for price, limit in zip(prices, self.limits, strict=True)
        )
        return math.floor(value + (1e-12 * value if prices.any() else 0.0))

    def _used(self, choice: Ints, number: int) -> Ints:
        """What each customer takes out of one budget."""
        taken = np.take_along_axis(self.cost, np.maximum(choice, 0)[:, None], axis=1)[:, 0]
        return np.where((choice >= 0) & self.uses[number][choice], taken, 0)

    def spent(self, choice: Ints) -> list[int]:
        """What a choice takes out of each budget, exactly."""
        return [exact_sum(self._used(choice, number)) for number in range(len(self.limits))]

    def margin(self, choice: Ints) -> int:
        """What a choice brings, exactly."""
        found = np.take_along_axis(self.gain, np.maximum(choice, 0)[:, None], axis=1)[:, 0]
        return exact_sum(np.where(choice >= 0, found, 0))

    def prices(self) -> Floats:
        """Prices at which every budget is kept, each as low as the others allow."""
        prices = np.zeros(len(self.limits))
        if not self.gain.size:
            return prices
        for _ in range(_SWEEPS if len(prices) > 1 else 1):
            before = prices.copy()
            for number in range(len(prices)):
                prices[number] = self._price(prices, number)
            if np.allclose(before, prices, rtol=1e-9, atol=0):
                break
        return prices

    def _price(self, prices: Floats, number: int) -> float:
        """The lowest price of one budget that keeps it, the others as they are."""

        def keeps(price: float) -> bool:
            trial = prices.copy()
            trial[number] = price
            return exact_sum(self._used(self.best_at(trial), number)) <= self.limits[number]

        if keeps(0.0):
            return 0.0
        uses = self.cost[:, self.uses[number]]
        worth = self.gain[:, self.uses[number]]
        with np.errstate(divide="ignore", invalid="ignore"):
            returns = np.where((uses > 0) & (worth > 0), worth / uses, 0.0)
        low, high = 0.0, float(returns.max()) * (1 + 1e-12)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if keeps(middle):
                high = middle
            else:
                low = middle
            if high - low <= 1e-12 * high:
                break
        return high

    def repair(self, choice: Ints, prices: Floats) -> None:
        """Take offers back where a budget is exceeded, those first that bring least for what they free."""
        for number, limit in enumerate(self.limits):
            used = self._used(choice, number)
            over = exact_sum(used) - limit
            if over <= 0:
                continue
            rows = np.flatnonzero(used > 0)
            worth = self.gain[rows, choice[rows]] / used[rows]
            rows = rows[np.lexsort((-rows, worth))]
            freed = np.cumsum(used[rows].astype(object))
            choice[rows[: int(np.searchsorted(freed, over)) + 1]] = NOTHING

    def fill(self, choice: Ints) -> None:
        """Give out what is left: other offers to those who gain most for what that costs more."""
        left = [limit - used for limit, used in zip(self.limits, self.spent(choice), strict=True)]
        for _ in range(_FILLINGS):
            if not self._fill_once(choice, left):
                return

    def _fill_once(self, choice: Ints, left: list[int]) -> bool:
        rows = np.arange(choice.size)
        has = choice >= 0
        at = np.maximum(choice, 0)
        now_gain = np.where(has, self.gain[rows, at], 0) if self.gain.size else np.zeros(0, np.int64)
        more = self.gain - now_gain[:, None]
        fits = more > 0
        dearer = np.zeros(self.cost.shape)
        for number, room in enumerate(left):
            extra = self.cost * self.uses[number] - self._used(choice, number)[:, None]
            fits &= extra <= room
            np.maximum(dearer, extra, out=dearer)
        row, column = np.nonzero(fits)
        if not row.size:
            return False
        ratio = more[row, column] / np.maximum(dearer[row, column], 0.5)
        if row.size > _CANDIDATES:
            best = np.argpartition(-ratio, _CANDIDATES)[:_CANDIDATES]
            row, column, ratio = row[best], column[best], ratio[best]
        changed = False
        for place in np.lexsort((column, row, -ratio)).tolist():
            who, offer = int(row[place]), int(column[place])
            old = int(choice[who])
            if self.gain[who, offer] <= (self.gain[who, old] if old >= 0 else 0):
                continue
            extras = [
                int(self.cost[who, offer]) * bool(uses[offer])
                - (int(self.cost[who, old]) * bool(uses[old]) if old >= 0 else 0)
                for uses in self.uses
            ]
            if all(extra <= room for extra, room in zip(extras, left, strict=True)):
                choice[who] = offer
                left[:] = [room - extra for room, extra in zip(left, extras, strict=True)]
                changed = True
        return changed


def exact_sum(amounts: Ints) -> int:
    """The sum as a Python integer: no width to overflow."""
    return (int((amounts >> 32).sum()) << 32) + int((amounts & 0xFFFFFFFF).sum())
