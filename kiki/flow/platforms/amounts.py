"""Micros to what platforms count in, and back. Pure; no float ever stands between.

What is sent is exact or refused, because a platform that rounds would spend what nobody held. What was billed is never
made smaller: below a millionth it counts as a whole one.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal
from typing import Annotated, Any, Final

import msgspec

from kiki.flow.words import DECIMALS
from kiki.money import MICROS, MICROS_MAX
from kiki.outbound.exchange import INVALID, UNREADABLE, Request
from kiki.outbound.outcome import Outcome, refused

Digits = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{1,20}\Z")]
"""A whole number as text, such as an id; anything else is nonsense."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | Digits
"""A whole number that platforms write as one, or as text."""
CurrencyCode = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{3}\Z")]

SIGNIFICANT: Final = 15
"""So many digits survive in a platform's double."""

_JSON_HEADERS: Final = {"Content-Type": "application/json"}
_CONTEXT: Final = Context(prec=60)
_JSON: Final = msgspec.json.Encoder(decimal_format="number")


def smallest_unit(currency: str) -> int:
    """The smallest coin of a currency, in micros: 10,000 of USD, a million of JPY, 1,000 of BHD."""
    return int(MICROS // 10 ** DECIMALS.get(currency, 2))


def wrong_amounts(currency: str, *amounts: int | None) -> Outcome | None:
    """The refusal of amounts that the currency cannot say; None when all are right. Nothing is rounded."""
    return wrong_multiples(smallest_unit(currency), f"the least of {currency}", *amounts)


def wrong_multiples(unit: int, what: str, *amounts: int | None) -> Outcome | None:
    """The same for a platform that counts in units of its own; `what` says what a unit is."""
    for micros in amounts:
        if micros is None:
            continue
        if micros <= 0 or micros % unit:
            return refused(INVALID, f"not sent: {micros} micros are no positive multiple of {unit}, {what}")
        if micros // unit >= 10**SIGNIFICANT:
            return refused(INVALID, f"not sent: {micros} micros are more than platforms can count: {unit} is {what}")
    return None


def whole_currency(micros: int) -> Decimal:
    """Micros in whole currency, exactly: 12.34 of 12,340,000."""
    text = f"{micros // MICROS}.{micros % MICROS:06d}".rstrip("0").rstrip(".")
    return Decimal(text)


def exact_micros(amount: Decimal) -> int | None:
    """Whole currency in micros; None when it is no whole number of them, or none at all."""
    if not _countable(amount):
        return None
    scaled = _CONTEXT.multiply(amount, Decimal(MICROS))
    return int(scaled) if scaled == scaled.to_integral_value() else None


def billed_micros(amount: Decimal) -> int | None:
    """What was billed, in micros, rounded up; None when it is no amount.

    What a double adds at the far end (12.340000000000002) is no money and goes first.
    """
    if not _countable(amount):
        return None
    plain = amount.quantize(Decimal("1e-9"), ROUND_HALF_EVEN, context=_CONTEXT)
    return int(_CONTEXT.multiply(plain, Decimal(MICROS)).to_integral_value(ROUND_CEILING))


def total_billed(amounts: Iterable[Decimal]) -> int | Outcome:
    """What was billed in all, each rounded up; the refusal of a report in which one is no amount."""
    billed = [billed_micros(each) for each in amounts]
    total = sum(each for each in billed if each is not None)
    return refused(UNREADABLE, "the platform says a spend that is no amount of money") if None in billed else total


def whole_count(amount: Decimal) -> int:
    """How many things a number says there are; 0 when it says none."""
    return int(amount) if _countable(amount) else 0


def dump(body: Any) -> bytes:
    """JSON in which a `Decimal` is a number, digit for digit."""
    return _JSON.encode(body)


def json_text(value: Any) -> str:
    """The same as text: a part of a query or a form that is JSON."""
    return dump(value).decode()


def json_request(method: str, path: str, body: Any, *, write: bool) -> Request:
    """A request with such a body."""
    return Request(method=method, path=path, write=write, content=dump(body), headers=_JSON_HEADERS)


def _countable(amount: Decimal) -> bool:
    # Looked at before any arithmetic: 1E+999999 must not be written out.
    return amount.is_finite() and amount >= 0 and (not amount or amount.adjusted() <= 12) and amount <= MICROS_MAX
