"""Which columns of a table hold the customer, the date and the amount: named by the user, or guessed and said. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from kiki.errors import InvalidInput

# Names as people write them, without case and signs, the surest first.
_CUSTOMER: Final = (
    *("customerid", "customer", "customernumber", "customerno", "custid", "cust", "clientid", "client"),
    *("userid", "user", "accountid", "account", "memberid", "buyerid", "shopperid", "householdid", "personid", "id"),
)
_DATE: Final = (
    *("date", "orderdate", "purchasedate", "transactiondate", "invoicedate", "orderedat", "purchasedat", "createdat"),
    *("datetime", "timestamp", "ordertime", "eventtime", "day", "time"),
)
_AMOUNT: Final = (
    *("amount", "netamount", "totalamount", "orderamount", "amountpaid", "total", "ordertotal", "totalprice"),
    *("ordervalue", "price", "revenue", "sales", "spend", "value", "monetaryvalue", "grandtotal"),
)
_UNIT_PRICE: Final = ("price", "unitprice", "itemprice")
_QUANTITY: Final = ("quantity", "qty")
_CURRENCY: Final = ("currency", "currencycode")


class OrderColumns(NamedTuple):
    """The names of the columns; None asks for a guess, which is never made for `order`."""

    customer: str | None = None
    date: str | None = None
    amount: str | None = None
    order: str | None = None
    """Order ids, by which refunds find their order; without it they find it by date and amount."""
    currency: str | None = None
    quantity: str | None = None
    """How many of the amount, which is a price of one then; guessed with the amount only, beside a price."""

    @property
    def used(self) -> list[str]:
        """The columns that are read, each once."""
        return list(dict.fromkeys(name for name in self if name is not None))

    def within(self, present: Sequence[str]) -> tuple[OrderColumns, tuple[str, ...]]:
        """The columns of a table with these, guessed where they were not named, and the guesses in words.

        Raises `InvalidInput` when a column is missing or none can be guessed.
        """
        for name in self.used:
            if name not in present:
                raise InvalidInput(f"there is no column {name!r}: the table has {_listed(present)}")
        customer = self.customer or _guess("customer", _CUSTOMER, present)
        day = self.date or _guess("date", _DATE, present)
        amount, quantity = self.amount, self.quantity
        if amount is None:
            amount = _found(_AMOUNT, present) or _found(_UNIT_PRICE, present)
            counted = _found(_QUANTITY, present)
            if counted is not None and amount is not None and _plain(amount) in _UNIT_PRICE:
                quantity = quantity or counted
            elif amount is None or _plain(amount) not in _AMOUNT:
                amount = _guess("amount", _AMOUNT, present)
        currency = self.currency or _found(_CURRENCY, present)
        if len({customer, day, amount}) < 3:
            raise InvalidInput(f"customer, date and amount are three columns, not {_listed([customer, day, amount])}")
        chosen = OrderColumns(customer, day, amount, self.order, currency, quantity)
        for name in chosen.used:
            if present.count(name) > 1:
                raise InvalidInput(f"there are {present.count(name)} columns {name!r}; give each a name of its own")
        guesses = (("customers", self.customer, customer), ("dates", self.date, day), ("amounts", self.amount, amount))
        notes = tuple(f"{what} are read from column {found!r}" for what, given, found in guesses if given is None)
        if quantity is not None and self.quantity is None:
            notes += (f"an amount is {amount!r} times {quantity!r}: to take {amount!r} alone, name it",)
        return chosen, notes


def _guess(what: str, names: Sequence[str], present: Sequence[str]) -> str:
    found = _found(names, present)
    if found is None:
        raise InvalidInput(
            f"no column looks like the {what}: the table has {_listed(present)}", hint=f"name it with --{what}-col"
        )
    return found


def _found(names: Sequence[str], present: Sequence[str]) -> str | None:
    plain: dict[str, str] = {}
    for column in present:
        plain.setdefault(_plain(column), column)
    return next((plain[name] for name in names if name in plain), None)


def _plain(column: str) -> str:
    return re.sub(r"[\W_]", "", column.lower())


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown or "no columns"
