"""Orders as a log tells them: lines merged by customer and day, refunds netted on the order they belong to. Pure.

The rules, the same in memory and in the warehouse:

- Lines of one customer on one day are one order (with order ids: lines of one id on one day, merged by day afterwards).
- A line below zero is a refund. It belongs to the customer's most recent order, of that day or earlier, that was worth at
  least as much; with order ids the order must carry the refund's id. Refunds of one order count in the order of their
  days, smaller ones first, as long as their running total stays within the order.
- Every other refund is unmatched: it is reported and not counted, because guessing would change somebody's value.
- A fully refunded order is no purchase. An order of zero is one: it was free, but somebody came for it.
- What is known on a day depends on nothing later: a refund takes effect, at its order's date, from its own day on.

Days are whole days since 1970-01-01, money is integer micros.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from kiki.errors import InvalidInput
from kiki.value.groups import Ints

EPOCH: Final = date(1970, 1, 1)

# A sum of micros has to stay inside an int64, whatever is added up.
_TOTAL_MAX: Final = 9.0e18


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - EPOCH).days


def day_of(number: int) -> date:
    """The date that is so many days after 1970-01-01."""
    return EPOCH + timedelta(days=int(number))


class Refunds(NamedTuple):
    """Refunds that found their order: columns of equal length."""

    order: Ints
    """The row of the order in `Orders`."""
    day: Ints
    """The day of the refund, never before its order's."""
    amount: Ints
    """Micros, above zero."""


class PurchaseDays(NamedTuple):
    """Purchases as columns of equal length, one row a customer and day, sorted by both."""

    customer: Ints
    """The row in `Orders.ids`."""
    day: Ints
    amount: Ints
    """Micros after refunds, never below zero."""


@dataclass(frozen=True, slots=True, eq=False)
class Orders:
    """Orders before refunds, sorted by customer and day, and the refunds beside them; `as_of` puts them together."""

    ids: npt.NDArray[np.object_]
    """The customers' ids as text, sorted by code point, each once."""
    customer: Ints
    """For each order the row in `ids`."""
    day: Ints
    gross: Ints
    """Micros before refunds, 0 or more."""
    refunds: Refunds
    first_day: int
    """The first day of the log."""
    last_day: int
    """The last day of the log, refunds included."""
    unmatched: Ints
    """Places of the lines that are refunds without an order; they are not counted."""
    currency: str | None = None
    notes: tuple[str, ...] = ()
    """What a reader of the result should know: columns that were guessed, refunds without an order."""

    @classmethod
    def of_lines(
        cls,
        ids: npt.NDArray[np.object_],
        customer: Ints,
        day: Ints,
        amount: Ints,
        *,
        order: Ints | None = None,
        currency: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> Self:
        """Orders of raw lines in any order; `customer` counts into the sorted `ids`, `order` numbers the order ids.

        Raises `InvalidInput` for a log without a line, and for amounts whose sum does not fit.
        """
        if not customer.size:
            raise InvalidInput("the order log is empty: it has no line with a customer, a date and an amount")
        largest = max(abs(int(amount.min())), abs(int(amount.max())))
        if largest * amount.size > _TOTAL_MAX and float(np.abs(amount.astype(np.float64)).sum()) > _TOTAL_MAX:
            raise InvalidInput("the amounts add up to more than 9,000,000,000,000: write them in a larger unit")
        account = customer if order is None else _numbered(customer, order)
        all_bought = int(amount.min()) >= 0
        buying = slice(None) if all_bought else amount >= 0
        accounts, days, gross = _merged(account[buying], day[buying], amount[buying])
        if order is None:
            customers = accounts
        else:
            owner = np.zeros(int(account.max()) + 1, dtype=np.int64)
            owner[account] = customer
            customers = owner[accounts]
        refunds, unmatched = (
            (_none(), np.empty(0, dtype=np.int64))
            if all_bought
            else _matched(accounts, days, gross, account, day, amount)
        )
        if order is not None:
            sequence = np.lexsort((days, customers))
            place = np.empty_like(sequence)
            place[sequence] = np.arange(sequence.size)
            customers, days, gross = customers[sequence], days[sequence], gross[sequence]
            refunds = Refunds(place[refunds.order], refunds.day, refunds.amount)
        return cls(
            ids,
            customers,
            days,
            gross,
            refunds,
            int(day.min()),
            int(day.max()),
            unmatched,
            currency,
            notes,
        )

    def noted(self, note: str, *, unmatched: Ints) -> Self:
        """The same orders with one more note, and the unmatched refunds by the rows of the file."""
        return replace(self, notes=(*self.notes, note), unmatched=unmatched)

    def as_of(self, end: int) -> PurchaseDays:
        """The purchases up to and on day `end`, as they were known then: later refunds have not happened yet."""
        seen = self.day <= end
        amount = self.gross
        known = self.refunds.day <= end
        if known.any():
            amount = self.gross.copy()
            np.subtract.at(amount, self.refunds.order[known], self.refunds.amount[known])
            seen &= (amount > 0) | (self.gross == 0)
        if not seen.all():
            customer, day, amount = self.customer[seen], self.day[seen], amount[seen]
        else:
            customer, day = self.customer, self.day
        starts = _starts(customer, day)
        if starts.size == customer.size:
            return PurchaseDays(customer, day, amount)
        return PurchaseDays(customer[starts], day[starts], np.add.reduceat(amount, starts))


def _none() -> Refunds:
    nothing = np.empty(0, dtype=np.int64)
    return Refunds(nothing, nothing, nothing)


def _numbered(first: Ints, second: Ints) -> Ints:
    """A number for each different pair, in the order of the first and then the second."""
    span = int(second.max()) + 1
    return np.unique(first * span + second, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _starts(first: Ints, second: Ints) -> Ints:
    """Where a new pair begins in columns that are sorted by both."""
    new = np.ones(first.size, dtype=bool)
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return np.flatnonzero(new)


def _merged(account: Ints, day: Ints, amount: Ints) -> tuple[Ints, Ints, Ints]:
    """One row for each account and day, sorted by both, amounts added up."""
    if not account.size:
        return account, day, amount
    low = int(day.min())
    key = account * (int(day.max()) - low + 1)
    key += day
    if (key[1:] < key[:-1]).any():
        sequence = np.argsort(key, kind="stable")
        key, account, day, amount = key[sequence], account[sequence], day[sequence], amount[sequence]
    starts = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    if starts.size == key.size:
        return account, day, amount
    return account[starts], day[starts], np.add.reduceat(amount, starts)


def _matched(
    accounts: Ints, days: Ints, gross: Ints, line_account: Ints, line_day: Ints, line_amount: Ints
) -> tuple[Refunds, Ints]:
    """The refunds with their orders, and the places of the lines that found none."""
    lines = np.flatnonzero(line_amount < 0)
    account, day, amount = line_account[lines], line_day[lines], -line_amount[lines]
    if not accounts.size:
        return _none(), lines
    low = int(min(days.min(), day.min()))
    span = int(max(days.max(), day.max())) - low + 1
    # The last order of that account on that day or before; then back in time to one that was worth enough.
    at = np.searchsorted(accounts * span + (days - low), account * span + (day - low), side="right") - 1
    open_ = np.arange(lines.size)
    found = np.full(lines.size, -1, dtype=np.int64)
    while open_.size:
        here = at[open_]
        own = (here >= 0) & (accounts[here] == account[open_])
        open_, here = open_[own], here[own]
        enough = gross[here] >= amount[open_]
        found[open_[enough]] = here[enough]
        open_ = open_[~enough]
        at[open_] -= 1
    matched = np.flatnonzero(found >= 0)
    sequence = matched[np.lexsort((lines[matched], amount[matched], day[matched], found[matched]))]
    order, taken = found[sequence], amount[sequence]
    total = np.cumsum(taken)
    first = np.flatnonzero(np.concatenate(([True], order[1:] != order[:-1]))) if order.size else order
    before = np.repeat((total - taken)[first], np.diff(np.append(first, order.size)))
    within = total - before <= gross[order]
    counted = sequence[within]
    unmatched = np.ones(lines.size, dtype=bool)
    unmatched[counted] = False
    return Refunds(found[counted], day[counted], amount[counted]), lines[unmatched]
