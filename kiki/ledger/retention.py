"""When evidence may leave: by its age in days, and where the law counts in years, by the calendar too. Pure.

Seven years are the longest of the periods that the evidence serves (bookkeeping and tax law of several states). 2,555 days
are seven times 365: they end one or two days before the calendar has moved on by seven years, so whoever keeps evidence
for seven years keeps it for the later of the two. `docs/evidence.md` names the legal basis of each period.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from kiki.clock import SECOND, to_datetime
from kiki.ledger.merkle import TILE_WIDTH
from kiki.ledger.segment import Segment

SEVEN_YEARS_DAYS: Final = 2555
"""A retention of this many days or more rests on seven calendar years."""

_YEARS: Final = 7
_DAY: Final = 86_400 * SECOND


def kept_until(recorded_at: int, retention_days: int, *, seven_years: bool) -> int:
    """The first moment at which what was recorded then may leave. All moments in microseconds since the epoch.

    With `seven_years` never before the same date and time (UTC) seven years later; for 29 February, which no seventh
    year has, that is 1 March.
    """
    by_days = recorded_at + retention_days * _DAY
    return max(by_days, _seven_years_after(recorded_at)) if seven_years else by_days


def _seven_years_after(moment: int) -> int:
    then = to_datetime(moment)
    year = then.year + _YEARS
    if (then.month, then.day) == (2, 29):
        # A year that is seven after a leap year is none, and keeping a day longer is never against the law.
        anniversary = then.replace(year=year, month=3, day=1)
    else:
        anniversary = then.replace(year=year)
    return _micros(anniversary)


def _micros(moment: datetime) -> int:
    since = moment - to_datetime(0)
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds


def prunable(
    segments: Iterable[Segment], now: int, retention_days: int, *, first: int, hold: bool, archived: bool
) -> int | None:
    """The sequence below which every entry of a chain is past its retention; None when nothing may leave.

    `segments` are those of one chain in order, `first` is the lowest sequence that is still there. What is removed is whole
    segments without a gap between them, rounded down to whole tiles of the Merkle tree, so that proofs of what stays need
    nothing of what left. With an archive (`archived`), nothing leaves before it, and all before it, was confirmed there.
    Under a legal hold nothing leaves.
    """
    if hold:
        return None
    seven_years = retention_days >= SEVEN_YEARS_DAYS
    end = first
    for segment in segments:
        if segment.last < end:
            continue  # it left already
        if segment.first > end or (archived and not segment.is_shipped):
            break
        # The checkpoint is younger than every entry that it covers.
        if kept_until(segment.at, retention_days, seven_years=seven_years) > now:
            break
        end = segment.last + 1
    before = end - end % TILE_WIDTH
    return before if before > first else None
