"""Time as an argument: a clock is a callable that returns microseconds since the Unix epoch.

A guard's clock never runs backwards and never follows the wall clock while it runs, so an operator or
NTP stepping the time cannot free a window early. Rules never read a clock; they are handed a number.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]

SECOND = 1_000_000

# Time that passes while a machine sleeps counts too; where the system has no such clock, the
# monotonic one runs late, which only makes a window free its money later.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def wall_micros() -> int:
    """The wall clock now, in microseconds since the epoch; it may step in both directions."""
    return time.time_ns() // 1000


def steady_clock(not_before: int = 0) -> Clock:
    """A clock that starts at the wall time, or at `not_before` when the wall is behind it, and only moves forward."""
    read, source = time.clock_gettime_ns, _STEADY
    start = max(wall_micros(), not_before) * 1000 - read(source)

    def now() -> int:
        return (start + read(source)) // 1000

    return now


def to_datetime(micros: int) -> datetime:
    """The moment as an aware UTC datetime."""
    return datetime.fromtimestamp(micros // SECOND, UTC).replace(microsecond=micros % SECOND)


def to_iso(micros: int) -> str:
    """The moment as RFC 3339 in UTC with microseconds: 2026-11-22T10:00:00.000001Z."""
    return to_datetime(micros).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
