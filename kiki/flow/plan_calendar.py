"""When a plan's days begin and end: in an account's time zone, or in the sandbox's quick time. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from kiki.clock import SECOND

HOUR = 3600 * SECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Calendar(Protocol):
    """Days as moments, in microseconds since the epoch."""

    def start_of(self, day: date) -> int:
        """When that day begins."""
        ...

    def span(self, hours: float) -> int:
        """So many of the plan's hours, in microseconds of real time."""
        ...


class ZoneCalendar(NamedTuple):
    """Days of a time zone, with its summer time."""

    zone: str

    def start_of(self, day: date) -> int:
        """Midnight; where the clocks jump over midnight, the first moment of the day."""
        begins = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(self.zone))
        return (begins.astimezone(UTC) - _EPOCH) // _MICROSECOND

    def span(self, hours: float) -> int:
        """Hours are hours."""
        return round(hours * HOUR)


class QuickCalendar(NamedTuple):
    """Days of a sandbox that each take `day_micros` of real time; `first` began at `began_at`."""

    first: date
    began_at: int
    day_micros: int

    def start_of(self, day: date) -> int:
        """When that day begins."""
        return self.began_at + (day - self.first).days * self.day_micros

    def span(self, hours: float) -> int:
        """An hour is a twenty-fourth of a day, however short that is."""
        return round(hours * self.day_micros / 24)
