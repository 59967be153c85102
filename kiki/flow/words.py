"""Money, rates and dates as people write them in a plan. Pure.

`$1,500.00/day`, `EUR 200/day`, `20000 total`, `30%`, `2026-12-01`. A currency sign must agree with the plan's currency.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Final

from kiki.errors import InvalidInput, InvalidMoney
from kiki.money import MICROS, parse_micros

_SIGNS: Final = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "₩": "KRW"}
_DOLLARS: Final = frozenset({"USD", "AUD", "CAD", "HKD", "MXN", "NZD", "SGD", "TWD", "BRL", "CLP", "COP", "ARS"})
DECIMALS: Final = {"JPY": 0, "KRW": 0, "VND": 0, "CLP": 0, "ISK": 0, "BHD": 3, "KWD": 3, "OMR": 3, "JOD": 3, "TND": 3}
"""Decimals of currencies that do not have two (ISO 4217)."""

_AMOUNT: Final = re.compile(
    r"(?P<sign>[$€£¥₹₩])?\s*(?:(?P<before>[A-Z]{3})\s+)?(?P<number>[0-9][0-9,]*(?:\.[0-9]+)?)(?:\s+(?P<after>[A-Z]{3}))?"
    r"(?:\s*/\s*(?P<per>[a-z]+)|\s+(?P<total>total|in total))?"
)
_GROUPED: Final = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?")
_SHARE: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,4})?)\s*%")

AMOUNT_ACCEPTED: Final = "write an amount such as $1,500.00 or 1500 EUR"
DAILY_ACCEPTED: Final = "write an amount a day, such as $1,500.00/day"
TOTAL_ACCEPTED: Final = "write an amount for the whole plan, such as $20,000.00 total"
SHARE_ACCEPTED: Final = "write a share such as 30% or 12.5%"
DATE_ACCEPTED: Final = "write a date such as 2026-12-01"


def parse_amount(text: str, currency: str) -> int:
    """Micros; raises `InvalidMoney`."""
    return _amount(text, currency, "", AMOUNT_ACCEPTED)


def parse_daily(text: str, currency: str) -> int:
    """Micros a day; raises `InvalidMoney`."""
    return _amount(text, currency, "day", DAILY_ACCEPTED)


def parse_total(text: str, currency: str) -> int:
    """Micros over a whole plan; raises `InvalidMoney`."""
    return _amount(text, currency, "total", TOTAL_ACCEPTED)


def _amount(text: str, currency: str, per: str, accepted: str) -> int:
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or not _GROUPED.fullmatch(match["number"]):
        raise InvalidMoney(f"{text[:60]!r} is not an amount of money; {accepted}")
    said = match["per"] or ("total" if match["total"] else "")
    if said != per:
        wrong = f"is per {said}" if match["per"] else "is a total" if said else "does not say for how long"
        raise InvalidMoney(f"{text[:60]!r} {wrong}; {accepted}")
    _require_currency(text, match, currency)
    micros = parse_micros(match["number"].replace(",", ""))
    decimals = DECIMALS.get(currency, 2)
    if micros % (MICROS // 10**decimals):
        raise InvalidMoney(f"{text[:60]!r} has more decimals than {currency}: {decimals}")
    return micros


def _require_currency(text: str, match: re.Match[str], currency: str) -> None:
    named = {each for each in (match["before"], match["after"]) if each}
    sign = match["sign"]
    # A dollar sign is any dollar's.
    fits = sign is None or _SIGNS[sign] == currency or (sign == "$" and currency in _DOLLARS)
    if (named and named != {currency}) or not fits:
        raise InvalidMoney(f"{text[:60]!r} is not in {currency}, the plan's currency; a plan has one currency")


def amount_in_words(micros: int, currency: str) -> str:
    """An amount as a plan would say it: `$1,500.00`, `1,500 JPY`; what the currency has no coins for is not hidden."""
    decimals = DECIMALS.get(currency, 2)
    while decimals < 6 and micros % (MICROS // 10**decimals):
        decimals += 1
    whole, rest = divmod(abs(micros), MICROS)
    number = f"{whole:,}" + (f".{rest:06}"[: decimals + 1] if decimals else "")
    sign = next((sign for sign, own in _SIGNS.items() if own == currency), None)
    minus = "-" if micros < 0 else ""
    return f"{minus}{sign}{number}" if sign else f"{minus}{number} {currency}"


def coins_in_words(micros: int, currency: str) -> str:
    """An amount for a table that people read, rounded to the currency's coins, half of one up: `$552.01`."""
    coin = MICROS // 10 ** DECIMALS.get(currency, 2)
    whole = (abs(micros) + coin // 2) // coin * coin
    return amount_in_words(-whole if micros < 0 else whole, currency)


def parse_share(text: str) -> float:
    """A share of one, from per cent: 0.3 of `30%`; above 0, at most 10 (1000%). Raises `InvalidInput`."""
    match = _SHARE.fullmatch(text.strip())
    share = float(match[1]) / 100 if match else 0.0
    if not 0 < share <= 10:
        raise InvalidInput(f"{text[:60]!r} is not a share; {SHARE_ACCEPTED}")
    return share


def parse_date(text: str) -> date:
    """A day; raises `InvalidInput`."""
    try:
        if len(text) != 10:
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{text[:60]!r} is not a date; {DATE_ACCEPTED}") from None
