"""Moments and spans on the wire: RFC 3339 in UTC, and seconds. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from kiki.clock import SECOND
from kiki.errors import InvalidInput
from kiki.members import quoted

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_moment(text: str) -> datetime:
    """The moment in RFC 3339 text; raises `InvalidInput`."""
    if _MOMENT.fullmatch(text):
        try:
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    plus = "; in a URL write + as %2B" if re.search(r" \d\d:\d\d$", text) else ""
    raise InvalidInput(f"{quoted(text)} is not a moment: write RFC 3339 such as 2026-11-22T10:00:00Z{plus}")


def iso_of(moment: datetime | None) -> str | None:
    """A moment, where there is one, as the wire has it; raises `InvalidInput` without a time zone."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InvalidInput("a moment needs a time zone: datetime.now(UTC), not datetime.now()")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def moment_micros(text: str) -> int:
    """The moment in RFC 3339 text, in microseconds since the epoch; the inverse of `kiki.clock.to_iso`."""
    return (parse_moment(text) - _EPOCH) // _MICROSECOND


def micros_or_none(text: str | None) -> int | None:
    """A moment as microseconds, where there is one."""
    return None if text is None else moment_micros(text)


def seconds_of(span: int) -> int | float:
    """A span in microseconds as seconds, whole where they are."""
    return span // SECOND if span % SECOND == 0 else span / SECOND
