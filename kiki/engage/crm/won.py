"""Deals that a CRM calls won, as orders. Pure.

A deal is told as it is when it is first read as won: a sum that is changed later, or a deal that is opened again, changes
no order. Whose it is says the contact; a deal of nobody, or without a sum, is nobody's order.
"""

from __future__ import annotations

from typing import Any

from kiki.engage.crm.field_map import moment_of, money_of
from kiki.engage.event import Order
from kiki.errors import InvalidInput


def won_order(
    source: str, key: str, customer: str, *, amount: Any, at: Any, currency: Any, problems: list[str]
) -> tuple[Order, ...]:
    """The order, or nothing; what makes no sense is told in `problems`."""
    if amount is None or amount == "":
        return ()
    try:
        moment, sum_ = moment_of(at), money_of(amount)
        if moment is None:
            raise InvalidInput("it has no day")
    except (InvalidInput, ValueError, ArithmeticError):
        problems.append(f"deal {key[:60]!r}: it needs a day and an amount such as 12.34, not below zero")
        return ()
    return (Order(id=f"{source}:order:{key}", customer=customer, at=moment, amount=sum_, currency=str(currency or "")),)
