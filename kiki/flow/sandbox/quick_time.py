"""The sandbox's time: days that pass quickly, in every account's own time zone. Pure: the moment is an argument.

Moments are microseconds of the real clock, plus what was skipped by hand. Where a day takes as long as a real one, the
time zone's own summer time rules; in quicker time a zone keeps the offset of the first day.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final

import msgspec

from kiki.clock import SECOND
from kiki.errors import InvalidInput
from kiki.flow.plan_calendar import HOUR, Calendar, QuickCalendar, ZoneCalendar

REAL_DAY: Final = 24 * HOUR
DAY_SECONDS_MIN: Final = 0.05


class QuickTime(msgspec.Struct, frozen=True, kw_only=True):
    """When the sandbox's first day began, and how long its days are."""

    first_day: date
    began_at: int
    """When `first_day` began in UTC."""
    day_micros: int
    skipped: int = 0
    """So far the sandbox is ahead of the real clock, because it was told to skip time."""

    def calendar(self, zone: str) -> Calendar:
        """An account's days, as moments of the sandbox."""
        return self._calendar(zone, self.began_at)

    def wall_calendar(self, zone: str) -> QuickCalendar:
        """The same as moments of the real clock, for who plans by it."""
        return self._quick(zone, self.began_at - self.skipped)

    def day_at(self, zone: str, moment: int) -> date:
        """The day of an account in which a moment lies."""
        calendar = self.calendar(zone)
        day = self.first_day + timedelta(days=(moment - self.began_at) // self.day_micros)
        while calendar.start_of(day) > moment:
            day -= timedelta(days=1)
        while calendar.start_of(day + timedelta(days=1)) <= moment:
            day += timedelta(days=1)
        return day

    def span(self, hours: float) -> int:
        """So many of the sandbox's hours, in microseconds."""
        return round(hours * self.day_micros / 24)

    def _calendar(self, zone: str, began_at: int) -> Calendar:
        if self.day_micros == REAL_DAY and began_at == ZoneCalendar("UTC").start_of(self.first_day):
            return ZoneCalendar(zone)
        return self._quick(zone, began_at)

    def _quick(self, zone: str, began_at: int) -> QuickCalendar:
        later = ZoneCalendar(zone).start_of(self.first_day) - ZoneCalendar("UTC").start_of(self.first_day)
        return QuickCalendar(self.first_day, began_at + later * self.day_micros // REAL_DAY, self.day_micros)


def quick_time(first_day: date, day_seconds: float, now: int) -> QuickTime:
    """Time that begins now, with `first_day`; raises `InvalidInput`."""
    if not DAY_SECONDS_MIN <= day_seconds <= REAL_DAY / SECOND:
        raise InvalidInput(f"a day takes from {DAY_SECONDS_MIN:g} to 86400 seconds, not {day_seconds:g}")
    return QuickTime(first_day=first_day, began_at=now, day_micros=round(day_seconds * SECOND))
