"""Rows of a table or a file whose columns carry our own names, as profiles and orders. Pure.

Customers: `customer`, and any of the fields that `READERS` lists; `changed_at` says when a row was last changed.
Orders: `id`, `customer`, `at`, `amount`, and where known `currency`, `margin`, `code`, `refunded`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from kiki.engage.crm.field_map import READERS, moment_of, money_of, profile_of
from kiki.engage.event import Order, Refund
from kiki.engage.profile import ID_CHARS_MAX, Profile
from kiki.errors import InvalidInput, InvalidMoney

CUSTOMER_COLUMNS: Final = ("customer", "changed_at", *READERS)
ORDER_COLUMNS: Final = (
    "id",
    "customer",
    "at",
    "amount",
    "currency",
    "margin",
    "code",
    "refunded",
    "refunded_at",
    "changed_at",
)
CUSTOMER_NEEDS: Final = ("customer",)
ORDER_NEEDS: Final = ("id", "customer", "at", "amount")


def column_problems(columns: Collection[str], known: Collection[str], needed: Collection[str]) -> list[str]:
    """What is wrong with a header: columns that are missing, unknown or there twice."""
    names = list(columns)
    problems = [f"column {name} is missing" for name in needed if name not in names]
    problems += [f"column {name!r} is not known: there are {', '.join(known)}" for name in names if name not in known]
    problems += [f"column {name} is there twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    return problems


def customer_row(row: Mapping[str, Any], problems: list[str] | None = None) -> Profile:
    """The customer in a row; raises `InvalidInput` that names the column, or tells of it in `problems`."""
    changed = _moment(row, "changed_at")
    fields = {name: name for name in READERS if name in row}
    return profile_of(_key(row, "customer"), changed or 0, row, fields, problems)


def order_row(row: Mapping[str, Any], source: str) -> Iterator[Order | Refund]:
    """The order in a row, and what was given back of it; raises `InvalidInput` that names the column."""
    key, customer, at = _key(row, "id"), _key(row, "customer"), _moment(row, "at")
    if at is None:
        raise InvalidInput("column at: it is empty")
    order, currency = f"{source}:order:{key}", str(row.get("currency") or "")
    margin = row.get("margin")
    yield Order(
        id=order,
        customer=customer,
        at=at,
        amount=_money(row, "amount"),
        currency=currency,
        margin=None if margin in {None, ""} else _money(row, "margin"),
        code=str(row.get("code") or ""),
    )
    refunded = 0 if row.get("refunded") in {None, ""} else _money(row, "refunded")
    if refunded:
        given = _moment(row, "refunded_at")
        yield Refund(
            id=f"{source}:refund:{key}",
            order=order,
            customer=customer,
            at=at if given is None else given,
            amount=refunded,
            currency=currency,
        )


def _key(row: Mapping[str, Any], column: str) -> str:
    key = str("" if row.get(column) is None else row[column]).strip()
    if not key or len(key) > ID_CHARS_MAX:
        raise InvalidInput(f"column {column}: an id has 1 to {ID_CHARS_MAX} characters")
    return key


def _moment(row: Mapping[str, Any], column: str) -> int | None:
    try:
        return moment_of(row.get(column))
    except InvalidInput as error:
        raise InvalidInput(f"column {column}: {error}") from None


def _money(row: Mapping[str, Any], column: str) -> int:
    try:
        return money_of(row.get(column))
    except (InvalidMoney, ArithmeticError):
        raise InvalidInput(f"column {column}: no amount of money: write it as 12.34") from None
