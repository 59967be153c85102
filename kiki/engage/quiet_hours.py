"""Whether it is quiet where a person is, and when it no longer is. Pure.

Every moment has exactly one local time, also around a change of the clocks: only moments are turned into local times
here, never the other way round, so neither the hour that is missing in spring nor the one that comes twice can go
wrong. Who has no zone that is known is disturbed only when no zone that may be theirs is quiet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kiki.clock import to_datetime
from kiki.engage.playbook import QuietHours

STEP: Final = 15 * 60 * 1_000_000
_LOOK_AHEAD: Final = 8 * 24 * 4
"""Steps: a week and a day."""
_NAME: Final = re.compile(r"[A-Za-z0-9_+-]{1,40}(/[A-Za-z0-9_+-]{1,40}){0,2}")

_SEASONS: Final = (datetime(2026, 1, 15, tzinfo=UTC), datetime(2026, 7, 15, tzinfo=UTC))

EVERYWHERE: Final = tuple(f"Etc/GMT{offset:+d}" for offset in range(-14, 13))
"""One zone for each whole offset: where somebody may be of whom nothing is known."""


@lru_cache(maxsize=2048)
def zone_named(name: str) -> ZoneInfo | None:
    """A zone of the IANA list; None for what is none."""
    if not _NAME.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def plausible_zones(zone: str, country: str, default: str, by_country: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Where a person may be: their zone, else the playbook's where their country allows it, else those of their country.

    Of whom no country is known either is where the playbook says, or anywhere.
    """
    if zone_named(zone) is not None:
        return (zone,)
    theirs = tuple(by_country.get(country, ()))
    if default and (not theirs or any(_one_clock(default, each) for each in theirs)):
        return (default,)
    return theirs or EVERYWHERE


@lru_cache(maxsize=4096)
def _one_clock(one: str, other: str) -> bool:
    """Whether two names (US/Eastern, America/New_York) are of one time, in winter and in summer."""
    zones = zone_named(one), zone_named(other)
    return one == other or (
        None not in zones and all(len({each.astimezone(zone).utcoffset() for zone in zones}) == 1 for each in _SEASONS)
    )


def minute_of_day(moment: int, zone: str) -> int:
    """Minutes after local midnight by the clock on the wall."""
    local = to_datetime(moment).astimezone(zone_named(zone) or UTC)
    return local.hour * 60 + local.minute


def is_quiet(quiet: QuietHours, moment: int, zones: Iterable[str]) -> bool:
    """Whether it is quiet in any of these zones."""
    return any(quiet.holds(minute_of_day(moment, zone)) for zone in zones)


def next_loud(quiet: QuietHours, moment: int, zones: Sequence[str]) -> int | None:
    """The first quarter of an hour from a moment on in which nobody is disturbed; None within a week: never."""
    if not is_quiet(quiet, moment, zones):
        return moment
    at = moment - moment % STEP
    for _ in range(_LOOK_AHEAD):
        at += STEP
        if not is_quiet(quiet, at, zones):
            return at
    return None


def calendar_start(moment: int, calendar: str, zone: str) -> int:
    """When the day, week (from Monday) or month of a moment began where the zone is, in microseconds."""
    where = zone_named(zone) or UTC
    local = to_datetime(moment).astimezone(where)
    day = local.date()
    if calendar == "week":
        day -= timedelta(days=day.weekday())
    elif calendar == "month":
        day = day.replace(day=1)
    # Where midnight is skipped (clocks that change at 0:00), the offset before the change gives the first moment.
    begin = datetime(day.year, day.month, day.day, tzinfo=where)
    return round(begin.timestamp()) * 1_000_000
