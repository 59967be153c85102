"""Money is an integer count of micros (millionths of one currency unit). No float ever touches it. Pure.

Only parsing and printing live here; budgets add and compare the plain integers.
"""

from __future__ import annotations

from decimal import Decimal

from kiki.errors import InvalidMoney

MICROS = 1_000_000
MICROS_MAX = 2**63 - 1
DECIMALS_MAX = 6

ACCEPTED = (
    "write a positive decimal number such as 12.34 with at most six decimals, "
    "no sign, no exponent, at most 9223372036854.775807"
)


_PADDING = ("000000", "00000", "0000", "000", "00", "0", "")


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) > MICROS_MAX:
        return "a larger number" if value > 0 else "a negative number"  # past 4300 digits Python would not print it
    text = repr(value[:40] if isinstance(value, str) else value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def parse_micros(value: object, *, zero: bool = False) -> int:
    """The amount as a count of micros, from text, an int of whole units or a Decimal.

    Zero is refused unless `zero` is true (a commit of nothing is a legal outcome). Floats are refused:
    they cannot say 0.1. Raises `InvalidMoney`, with what is accepted in the message.
    """
    if type(value) is str:
        whole, dot, fraction = value.partition(".")
        if (
            whole.isdigit()
            and len(whole) <= 13
            and value.isascii()
            and (not dot or (fraction.isdigit() and len(fraction) <= DECIMALS_MAX))
        ):
            micros = int(whole + fraction + _PADDING[len(fraction)])
        else:
            raise InvalidMoney(_why_not(value))
    elif type(value) is int:
        micros = value * MICROS
    elif isinstance(value, Decimal):
        micros = _from_decimal(value)
    else:
        raise InvalidMoney(
            f"{_shown(value)} is a {type(value).__name__}, not an amount: {ACCEPTED} (floats are not exact)"
        )
    if micros > 0 or (zero and micros == 0):
        if micros <= MICROS_MAX:
            return micros
        raise InvalidMoney(f"{_shown(value)} is too large: {ACCEPTED}")
    raise InvalidMoney(f"{_shown(value)} is not a positive amount: {ACCEPTED}")


def _why_not(text: str) -> str:
    if not text:
        return f"the amount is empty: {ACCEPTED}"
    whole, _, fraction = text.partition(".")
    if text.isascii() and whole.isdigit() and fraction.isdigit():
        problem = "has too many decimals" if len(fraction) > DECIMALS_MAX else _too_long(whole)
    elif text.isascii() and whole.isdigit() and "." not in text:
        problem = _too_long(whole)
    elif text[:1] == "-":
        problem = "is not a positive amount"
    else:
        problem = "is not an amount"
    return f"{_shown(text)} {problem}: {ACCEPTED}"


def _too_long(whole: str) -> str:
    return "begins with too many zeros" if whole.startswith("0") else "is too large"


def _from_decimal(value: Decimal) -> int:
    if not value.is_finite():
        raise InvalidMoney(f"{_shown(str(value))} is not an amount: {ACCEPTED}")
    # Checked before any arithmetic: Decimal('1E+999999') must not be expanded.
    if not value:
        return 0
    if value.adjusted() > 13:
        raise InvalidMoney(f"{_shown(str(value))} is too large: {ACCEPTED}")
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or exponent < -DECIMALS_MAX:
        raise InvalidMoney(f"{_shown(str(value))} has too many decimals: {ACCEPTED}")
    whole: int = int("".join(map(str, digits))) * 10 ** (exponent + DECIMALS_MAX)
    return -whole if sign else whole


def format_micros(micros: int) -> str:
    """The amount as text with at least two decimals and no more than it needs: 10.00, 0.000001."""
    sign = "-" if micros < 0 else ""
    whole, fraction = divmod(abs(micros), MICROS)
    text = f"{fraction:06d}"
    cents, rest = text[:2], text[2:].rstrip("0")
    return f"{sign}{whole}.{cents}{rest}"
