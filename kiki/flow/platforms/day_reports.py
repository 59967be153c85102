"""Reports of one day of a whole account, for platforms that make them in their own time.

Each is ordered once, asked after until it is made, and then answers for every campaign of the account for a while. Until
then its outcome is `not_ready`, which is never the same as no spend.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import Final, Generic, TypeVar

from kiki.clock import SECOND, Clock
from kiki.outbound.exchange import NOT_READY
from kiki.outbound.outcome import Outcome, refused

Row = TypeVar("Row")

PAUSE: Final = 300 * SECOND
"""A report that is not made is asked after again so much later: platforms throttle who asks too often."""
REUSED: Final = 900 * SECOND
"""So long a report answers for the other campaigns of the account."""
DAYS_KEPT: Final = 100


class DayReports(Generic[Row]):
    """By day: what is being made, and what was seen."""

    def __init__(
        self,
        order: Callable[[date], Awaitable[str | Outcome]],
        look: Callable[[str, date], Awaitable[Mapping[str, Row] | Outcome]],
        clock: Clock,
    ) -> None:
        """`order` asks for a report and gives its id; `look` gives its rows by campaign, or `pending`."""
        self._order = order
        self._look = look
        self._clock = clock
        self._ordered: dict[date, str] = {}
        self._seen: dict[date, tuple[int, Mapping[str, Row]]] = {}

    async def rows(self, day: date) -> Mapping[str, Row] | Outcome:
        """A day of every campaign of the account, by their ids."""
        at, rows = self._seen.get(day, (0, {}))
        if self._clock() < at + REUSED:
            return rows
        number = self._ordered.get(day) or await self._order(day)
        if isinstance(number, Outcome):
            return number
        self._ordered[day] = number
        found = await self._look(number, day)
        if isinstance(found, Outcome):
            # What only was not answered is still being made.
            if not found.is_transient:
                self._ordered.pop(day, None)
            return found
        self._ordered.pop(day, None)
        for old in list(self._seen)[: max(0, len(self._seen) - DAYS_KEPT)]:
            del self._seen[old]
        self._seen[day] = (self._clock(), found)
        return found

    def pending(self) -> Outcome:
        """The outcome of a report that is not made."""
        return refused(NOT_READY, "the report is not made yet", retry_at=self._clock() + PAUSE)
