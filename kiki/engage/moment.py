"""Moments as other people's systems write them, in microseconds since the epoch. Pure.

A moment that is missing is None, never the beginning of time; a time without its zone is no moment and is refused.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

from kiki.clock import SECOND
from kiki.errors import InvalidInput

ACCEPTED: Final = "write it as RFC 3339 with its zone, such as 2026-11-22T10:00:00Z"

_WRITTEN = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?\s?([Zz]|[+-][0-9]{2}:?[0-9]{2}))?",
    re.ASCII,
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO_TIME: Final = "0001-01-01"
"""What Go programs write for a time that they do not have."""


def parse_moment(text: str) -> int:
    """The moment: RFC 3339, `+0000` without a colon too (Salesforce); a date alone is its midnight in UTC."""
    found = _WRITTEN.fullmatch(text.strip())
    if not found:
        raise InvalidInput(f"{text[:40]!r} is no moment: {ACCEPTED}")
    date, clock, fraction, zone = found.groups()
    zone = "+00:00" if zone in {None, "Z", "z"} else zone
    try:
        whole = datetime.fromisoformat(f"{date}T{clock or '00:00:00'}{zone}")
    except ValueError:
        raise InvalidInput(f"{text[:40]!r} is no moment: {ACCEPTED}") from None
    micros = int((fraction or ".0")[1:7].ljust(6, "0"))
    passed = whole - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * SECOND + micros


def optional_moment(value: Any) -> int | None:
    """The moment; None when nothing is told: null, an empty text, or the zero time of a Go program."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidInput(f"{type(value).__name__} is no moment: {ACCEPTED}")
    return None if value.startswith(_ZERO_TIME) else parse_moment(value)


def write_moment(micros: int, *, zone: str = "Z") -> str:
    """RFC 3339 in UTC, to the microsecond where there are some; `zone` as the reader of it wants UTC to be written."""
    moment = datetime.fromtimestamp(micros // SECOND, UTC).replace(microsecond=micros % SECOND)
    return moment.replace(tzinfo=None).isoformat() + zone
