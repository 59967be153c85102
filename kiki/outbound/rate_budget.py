"""How often an account may be asked, by what its platform documents and by what it says in its answers. Pure.

Our own pace: at most `per_minute` calls in any minute, three quarters of them evenly and a quarter at once. A platform
that says it has had enough closes the account until the moment it names. Time is an argument, in microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from kiki.clock import SECOND

MINUTE: Final = 60 * SECOND
ASKED_MAX: Final = 24 * 3600 * SECOND
"""No platform's word closes an account for longer."""


class RateBudget:
    """The calls of one account; without `per_minute` only the platform's own word counts."""

    def __init__(self, per_minute: int | None = None) -> None:
        self._closed_until = 0
        burst = 1 if per_minute is None else max(1, per_minute // 4)
        evenly = None if per_minute is None else max(1, per_minute - burst)
        self._interval = 0 if evenly is None else math.ceil(MINUTE / evenly)
        self._tolerance = (burst - 1) * self._interval
        # The moment at which every call so far is paid for (GCRA).
        self._paid_at = 0

    def take(self, now: int, patience: int = 0) -> int | None:
        """Book a call: in how many microseconds it may be sent; None, nothing booked: not within `patience`."""
        begins = self.free_at(now)
        if begins - now > patience:
            return None
        self._paid_at = max(self._paid_at, begins) + self._interval
        return begins - now

    def free_at(self, now: int) -> int:
        """When the next call may be sent."""
        return max(now, self._closed_until, self._paid_at - self._tolerance)

    def close(self, until: int, now: int) -> None:
        """The platform wants to hear nothing before `until`."""
        self._closed_until = max(self._closed_until, min(until, now + ASKED_MAX))


def retry_after(headers: Mapping[str, str], now: int) -> int | None:
    """When `Retry-After` allows the next call, written in seconds or as an HTTP date; None: it is missing or no time."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        return _date(text)
    return now + round(seconds * SECOND) if 0 <= seconds <= ASKED_MAX / SECOND else None


def _date(text: str) -> int | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * SECOND


def reset_at(headers: Mapping[str, str], remaining: str, reset: str) -> int | None:
    """When a limit that is used up begins anew, by two headers: how many calls are left, and the epoch second of the reset."""
    left, moment = headers.get(remaining, "").strip(), headers.get(reset, "").strip()
    if left.isascii() and left.isdigit() and int(left[:9]) == 0 and moment.isascii() and moment.isdigit():
        return int(moment[:12]) * SECOND
    return None
