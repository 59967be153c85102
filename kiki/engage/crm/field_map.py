"""Which of a CRM's fields are ours: `total_spend=Lifetime_Value__c,last_purchase=Last_Order__c`. Pure.

A CRM knows what a customer is worth only where somebody keeps it there, under a name that nobody else can guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from kiki.clock import SECOND
from kiki.engage.moment import optional_moment
from kiki.engage.profile import Profile
from kiki.errors import InvalidInput
from kiki.money import parse_micros

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}(\.[A-Za-z][A-Za-z0-9_]{0,99})?", re.ASCII)
COUNT_MAX: Final = 10**9
MILLIS_END: Final = 253_402_300_800_000
"""The year 10000."""

_EPOCH_MILLIS = re.compile(r"[0-9]{12,14}", re.ASCII)
_YES: Final = frozenset({"true", "yes", "y", "t", "on", "1", "1.0"})
"""As databases, spreadsheets and data frames write it."""
_NO: Final = frozenset({"false", "no", "n", "f", "off", "0", "0.0", ""})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_field_map(text: str) -> dict[str, str]:
    """Our field's name to theirs; raises ValueError with all that is wrong."""
    found: dict[str, str] = {}
    problems = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        ours, _, theirs = (one.strip() for one in part.partition("="))
        if ours not in READERS:
            problems.append(f"{ours[:40]!r} is no field of a profile; there are {', '.join(READERS)}")
        elif not _NAME.fullmatch(theirs):
            problems.append(f"{theirs[:40]!r} is no name of a field")
        elif ours in found:
            problems.append(f"{ours} is written twice")
        found[ours] = theirs
    if problems:
        raise ValueError("; ".join(problems))
    return found


def profile_of(
    customer: str,
    changed_at: int,
    row: Mapping[str, Any],
    fields: Mapping[str, str],
    problems: list[str] | None = None,
) -> Profile:
    """The profile in a row of a CRM. What the row does not tell stays as a profile has it: absent.

    A field that makes no sense is absent, too, and told in `problems`; without a list for them it raises `InvalidInput`.
    One that tells whether somebody may be written to forbids then: nobody is written to over a word that was not understood.
    """
    told: dict[str, Any] = {}
    for ours, theirs in fields.items():
        value = row.get(theirs)
        if value is None or value == "":
            continue
        target = _TARGETS.get(ours, ours)
        if told.get(target) is False:
            continue  # two fields tell of one permission: what one of them forbids the other does not allow
        try:
            told[target] = READERS[ours](value)
        except (InvalidInput, ValueError, ArithmeticError):
            # The value is not shown: it is a person's.
            problem = f"field {theirs}: {ours} is {ACCEPTED.get(ours, 'something else')}"
            if problems is None:
                raise InvalidInput(problem) from None
            problems.append(f"customer {customer[:60]!r}: {problem}")
            if target in _PERMISSIONS:
                told[target] = False
    return Profile(customer=customer, changed_at=changed_at, **told)


def _text(value: Any) -> str:
    return str(value).strip()


def _country(value: Any) -> str:
    text = str(value).strip().upper()
    return text if len(text) == 2 and text.isalpha() and text.isascii() else ""


def _moment(value: Any) -> int | None:
    # HubSpot writes some dates as milliseconds, some as text.
    if isinstance(value, str) and _EPOCH_MILLIS.fullmatch(value):
        return int(value) * (SECOND // 1_000)
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= MILLIS_END:
            raise ValueError("no moment that there is")
        return value * (SECOND // 1_000)
    return moment_of(value)


def moment_of(value: Any) -> int | None:
    """Micros from text, or from what a database gives; a moment without a zone is one in UTC there."""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time(0), UTC)
    if isinstance(value, datetime):
        passed = (value if value.tzinfo is not None else value.replace(tzinfo=UTC)) - _EPOCH
        micros = (passed.days * 86_400 + passed.seconds) * SECOND + passed.microseconds
        return None if value.year == 1 else micros
    return optional_moment(value)


def money_of(value: Any) -> int:
    """Micros from a decimal text or from a JSON number, which is money as its shortest decimal says."""
    if isinstance(value, float):
        value = Decimal(repr(value))
    if isinstance(value, str):
        value = Decimal(value)
    if isinstance(value, Decimal):
        # Reports divide: more than six decimals are rounded, nothing else is.
        value = value.quantize(Decimal("0.000001")) if value.is_finite() else value
    return parse_micros(value, zero=True)


def count_of(value: Any) -> int:
    """A whole number that a store can hold; raises `ValueError`. Looked at before it is made: 1e9000000 is nine megabytes."""
    try:
        number = Decimal(str(value))
        if 0 <= number <= COUNT_MAX and number == number.to_integral_value():
            return int(number)
    except InvalidOperation:
        pass
    raise ValueError(f"a count is a whole number from 0 to {COUNT_MAX}")


def _score(value: Any) -> float:
    return min(max(float(value), 0.0), 10.0) if float(value) == float(value) else 0.0  # not NaN


def _yes(value: Any) -> bool:
    word = str(value).strip().lower()
    if word in _YES or word in _NO:
        return word in _YES
    raise ValueError("yes or no")


def _forbids(value: Any) -> bool | None:
    """A field that says "opted out": yes forbids, no leaves it to the shield."""
    return False if _yes(value) else None


def _tags(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list | tuple) else re.split(r"[;,]", str(value))
    return tuple(sorted({str(one).strip() for one in parts} - {""}))


READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(("email", "phone", "first_name", "last_name", "locale", "zone", "segment"), _text),
    "country": _country,
    "tags": _tags,
    "is_test": _yes,
    "email_marketing": _yes,
    "sms_marketing": _yes,
    "email_opt_out": _forbids,
    "sms_opt_out": _forbids,
    "total_spend": money_of,
    "purchase_count": count_of,
    "last_purchase": _moment,
    "last_engagement": _moment,
    "engagement_score": _score,
}
"""How each field of a profile is read."""
_FLAGS: Final = ("is_test", "email_marketing", "sms_marketing", "email_opt_out", "sms_opt_out")
ACCEPTED: Final = {
    **dict.fromkeys(_FLAGS, "true or false, or yes or no"),
    "total_spend": "an amount such as 12.34, not below zero",
    "purchase_count": "a whole number, not below zero",
    "last_purchase": "a moment such as 2026-11-22T10:00:00Z, or a day",
    "last_engagement": "a moment such as 2026-11-22T10:00:00Z, or a day",
    "engagement_score": "a number from 0 to 10",
}
"""What a field takes that does not take every text."""
_PERMISSIONS: Final = frozenset({"email_marketing", "sms_marketing"})
_TARGETS: Final = {"email_opt_out": "email_marketing", "sms_opt_out": "sms_marketing"}
