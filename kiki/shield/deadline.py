"""When an answer to a data subject is due: the statutory clocks, with their calendars. Pure.

| | GDPR | CCPA/CPRA |
|---|---|---|
| confirm receipt | - | 10 business days (11 CCR 7021(a)) |
| answer | one calendar month from receipt (article 12(3)) | 45 calendar days (11 CCR 7021(b)) |
| opt out | the same | 15 business days (11 CCR 7026(f)) |
| more time | two months more, told within the first (12(3)) | 45 days more, told within the first 45 |
| while identity is asked for | stands still, if asked without delay (12(6)) | runs on |
| last day is no working day | the next working day (Regulation 1182/71, article 3(4)) | stays |

Days are those of a named time zone, and a period ends with the last microsecond of its last day: an answer at
that moment is in time. The day of receipt is not counted. A month ends on the day with the same number, or on the
last day of a shorter month. Where several laws apply, each has its clock, and the earliest is what counts.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from typing import Final, NamedTuple

from kiki.clock import SECOND, to_datetime
from kiki.errors import InvalidInput

DAY: Final = 24 * 3600 * SECOND
ASKED_WITHIN_WORKING_DAYS: Final = 3
"""Identity that is asked for later than that was not asked for without delay: the clock runs on (our reading of 12(6))."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Regime(StrEnum):
    """A law that gives persons rights and sets clocks."""

    GDPR = "gdpr"
    CCPA = "ccpa"


class Due(StrEnum):
    """What is due."""

    CONFIRM = "confirm"
    """Tell the person that the request was received."""
    EXTEND = "extend"
    """The last moment to tell the person that it takes longer, and why."""
    ANSWER = "answer"


class WorkCalendar(NamedTuple):
    """The calendar that the days of one law are counted by."""

    zone: tzinfo = UTC
    zone_name: str = "UTC"
    country: str = ""
    """Whose holidays; empty: only Saturdays and Sundays are free."""
    is_holiday: Callable[[date], bool] = lambda _: False

    def is_working(self, day: date) -> bool:
        """Whether people work that day."""
        return day.weekday() < 5 and not self.is_holiday(day)


class Pause(NamedTuple):
    """A time in which the controller waited for proof of identity."""

    since: int
    until: int | None = None
    """None: it still waits."""


class Deadline(NamedTuple):
    """One moment by which something is due, and by which rule. Moments are microseconds since the epoch."""

    regime: Regime
    due: Due
    at: int
    day: str
    """The last day, as its calendar has it: 2026-12-31."""
    zone: str
    country: str
    rule: str
    """The provision, and what moved the day, in words."""
    is_paused: bool = False
    """The clock stands still now, so the moment moves on."""
    is_extended: bool = False


_PLAIN: Final = WorkCalendar()


def deadlines(
    regimes: Iterable[Regime],
    received_at: int,
    now: int,
    *,
    opts_out: bool = False,
    pauses: Sequence[Pause] = (),
    extended: Iterable[Regime] = (),
    calendars: Mapping[Regime, WorkCalendar] | None = None,
) -> list[Deadline]:
    """Everything that is due for a request, in the order of time. `opts_out`: it only wants sale and sharing to end."""
    chosen, longer = calendars or {}, set(extended)
    found: list[Deadline] = []
    for regime in regimes:
        days = chosen.get(regime, _PLAIN)
        if regime is Regime.GDPR:
            found += _gdpr(received_at, now, days, pauses, extended=regime in longer)
        else:
            found += _ccpa(received_at, days, opts_out=opts_out, extended=regime in longer)
    return sorted(found, key=lambda one: (one.at, one.regime, one.due))


def answer_due(found: Iterable[Deadline]) -> int | None:
    """The earliest moment by which an answer is due; None where no law sets one."""
    return min((one.at for one in found if one.due is Due.ANSWER), default=None)


def extension_until(found: Iterable[Deadline], regime: Regime) -> int | None:
    """The last moment to extend under a law; None where it allows no extension."""
    return next((one.at for one in found if one.regime is regime and one.due is Due.EXTEND), None)


def stops_the_clock(received_at: int, pause: Pause, days: WorkCalendar = _PLAIN) -> bool:
    """Whether a pause counts under GDPR: identity was asked for without undue delay (article 12(6))."""
    asked_by = _working_days_on(_day_of(received_at, days.zone), ASKED_WITHIN_WORKING_DAYS, days)
    return pause.since <= _end_of(asked_by, days.zone)


def paused_for(received_at: int, pauses: Iterable[Pause], now: int, days: WorkCalendar = _PLAIN) -> int:
    """For how long, in microseconds, the clock of GDPR has stood still; overlapping pauses count once."""
    total, reached = 0, received_at
    for pause in sorted(one for one in pauses if stops_the_clock(received_at, one, days)):
        since = max(pause.since, reached)
        until = now if pause.until is None else min(pause.until, now)
        if until > since:
            total += until - since
            reached = until
    return total


def _gdpr(received_at: int, now: int, days: WorkCalendar, pauses: Sequence[Pause], *, extended: bool) -> list[Deadline]:
    received = _day_of(received_at, days.zone)
    # Whole days only: a pause of some hours gives the person's time to nobody.
    stood = timedelta(days=paused_for(received_at, pauses, now, days) // DAY)
    is_paused = any(one.until is None and stops_the_clock(received_at, one, days) for one in pauses)

    def ends(months: int, due: Due, rule: str) -> Deadline:
        last = months_on(received, months) + stood
        working = next_working_day(last, days)
        told = [rule]
        if stood:
            told.append(f"{stood.days} days stood still for proof of identity (12(6))")
        if working != last:
            told.append(f"{last} is no working day (Regulation 1182/71, 3(4))")
        return _deadline(Regime.GDPR, due, working, days, "; ".join(told), is_paused=is_paused, is_extended=extended)

    first = ends(1, Due.EXTEND, "GDPR 12(3): the notice of an extension within the first month")
    if extended:
        return [ends(3, Due.ANSWER, "GDPR 12(3): one month, extended by two")]
    return [first, ends(1, Due.ANSWER, "GDPR 12(3): one month from receipt")]


def _ccpa(received_at: int, days: WorkCalendar, *, opts_out: bool, extended: bool) -> list[Deadline]:
    received = _day_of(received_at, days.zone)
    if opts_out:
        last = _working_days_on(received, 15, days)
        return [_deadline(Regime.CCPA, Due.ANSWER, last, days, "11 CCR 7026(f): 15 business days from receipt")]
    confirm = _working_days_on(received, 10, days)
    first = received + timedelta(days=45)
    found = [_deadline(Regime.CCPA, Due.CONFIRM, confirm, days, "11 CCR 7021(a): 10 business days from receipt")]
    if extended:
        last, rule = received + timedelta(days=90), "11 CCR 7021(b): 45 calendar days, extended to 90"
        return [*found, _deadline(Regime.CCPA, Due.ANSWER, last, days, rule, is_extended=True)]
    rule = "11 CCR 7021(b): 45 calendar days from receipt, however long verification takes"
    return [
        *found,
        _deadline(Regime.CCPA, Due.EXTEND, first, days, "11 CCR 7021(b): the notice of an extension within 45 days"),
        _deadline(Regime.CCPA, Due.ANSWER, first, days, rule),
    ]


def _deadline(
    regime: Regime,
    due: Due,
    last: date,
    days: WorkCalendar,
    rule: str,
    *,
    is_paused: bool = False,
    is_extended: bool = False,
) -> Deadline:
    at = _end_of(last, days.zone)
    return Deadline(
        regime,
        due,
        at,
        last.isoformat(),
        days.zone_name,
        days.country,
        rule,
        is_paused=is_paused,
        is_extended=is_extended,
    )


# -- days --------------------------------------------------------------------------------------------


def months_on(day: date, months: int) -> date:
    """The day with the same number so many months later, or the last one of a shorter month."""
    index = day.year * 12 + day.month - 1 + months
    year, month = divmod(index, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def next_working_day(day: date, days: WorkCalendar) -> date:
    """The day itself, or the first working day after it."""
    while not days.is_working(day):
        day += timedelta(days=1)
    return day


def _working_days_on(day: date, count: int, days: WorkCalendar) -> date:
    for _ in range(count):
        day = next_working_day(day + timedelta(days=1), days)
    return day


def _day_of(moment: int, zone: tzinfo) -> date:
    return to_datetime(moment).astimezone(zone).date()


def _end_of(day: date, zone: tzinfo) -> int:
    """The last microsecond of a day."""
    midnight = datetime.combine(day + timedelta(days=1), time(), zone)
    return (midnight - _EPOCH) // _MICROSECOND - 1


def parse_regimes(given: Iterable[object]) -> tuple[Regime, ...]:
    """The laws that somebody names, in their order; raises `InvalidInput` that lists what there is."""
    found: dict[Regime, None] = {}
    for word in given:
        folded = word.lower() if isinstance(word, str) else ""
        folded = {"cpra": "ccpa"}.get(folded, folded)
        if folded not in list(Regime):
            shown = repr(word[:40]) if isinstance(word, str) else f"a value of the type {type(word).__name__}"
            raise InvalidInput(f"{shown} is not a law that sets a clock: write one of {', '.join(Regime)}")
        found[Regime(folded)] = None
    if not found:
        raise InvalidInput(f"a request comes under at least one law: write one of {', '.join(Regime)}")
    return tuple(found)
