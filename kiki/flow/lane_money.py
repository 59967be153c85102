"""The money of one lane: a worst case is held before each day begins, and every hold ends with what was billed.

A day's hold covers the highest budget that may be in force on it, times what the platform may deliver beyond. It stays
until the platform's report is final. What was billed beyond it is recorded and said; what a later report takes back is
said, for the guard counts nothing back.
"""

from __future__ import annotations

import math
from datetime import date
from typing import Final, NamedTuple

from kiki.flow.guard_line import UNAVAILABLE
from kiki.flow.keys import write_key
from kiki.flow.lane_question import ask
from kiki.flow.platform import SpendReport
from kiki.flow.port import Port
from kiki.flow.story import Story
from kiki.flow.world import World
from kiki.outbound.outcome import Fate, Outcome

REVISION_SHARE: Final = 0.02
"""So much of a day's cost a later report may add without being a drift."""


def worst_case(daily_budget: int, overdelivery: float) -> int:
    """The most that a platform may bill for a day with this budget, in micros, rounded up."""
    return math.ceil(daily_budget * overdelivery)


class DayHold(NamedTuple):
    """Money held for one day."""

    day: date
    hold: str
    nominal: int
    """The daily budget that it is for."""
    micros: int
    key: str
    """Of the plan's allowance."""


class DayBook(NamedTuple):
    """A day whose hold has ended."""

    day: date
    spent: int
    """As it stands in our books: committed and recorded, micros."""
    credited: int
    """What later reports took back."""
    held: int
    """What was set aside for it."""


class LaneMoney:
    """Holds and books of one lane."""

    def __init__(self, port: Port, world: World, story: Story, lane: str, version: str, scopes: dict[str, str]) -> None:
        self._port = port
        self._world = world
        self._story = story
        self._lane = lane
        self._version = version
        self._scopes = scopes
        self.holds: dict[date, DayHold] = {}
        self.books: dict[date, DayBook] = {}
        self.doubtful: dict[date, tuple[int, int]] = {}
        """Days whose reservation was not answered: money may be held for them; budget and worst case, in micros."""
        self._attempts: dict[date, int] = {}
        self._recorded: dict[date, int] = {}
        self._recording: dict[date, int] = {}
        self._settling: dict[date, SpendReport] = {}

    async def reserve(self, step: str, day: date, nominal: int, micros: int) -> Outcome:
        """Hold `micros`, the worst case of a budget, for a day; a refused attempt is settled: the next has its own key."""
        # What was asked and not answered is asked again as it was.
        asked_before = day in self.doubtful
        nominal, micros = self.doubtful.get(day, (nominal, micros))
        attempt = self._attempts.get(day, 1)
        key = self._key(f"reserve/{day}", attempt)
        taken = await ask(self._port, f"{step}/allowance", lambda: self._world.allowance.take(key, micros))
        if not taken.is_done:
            if taken.fate is Fate.REFUSED:
                self._attempts[day] = attempt + 1
                await self._story.tell(f"{step}/told", "flow.refused", day=str(day), micros=micros, code=taken.code)
            return taken
        held = await ask(self._port, f"{step}/hold", lambda: self._world.guard.reserve(micros, self._scopes, key))
        self.doubtful.pop(day, None)
        if held.is_done:
            hold = str(held.value["hold"])
            self.holds[day] = DayHold(day, hold, nominal, micros, key)
            await self._story.tell(f"{step}/told", "flow.reserved", day=str(day), micros=micros, key=key, hold=hold)
        elif held.fate is Fate.REFUSED:
            self._attempts[day] = attempt + 1
            await ask(self._port, f"{step}/given-back", lambda: self._world.allowance.settle(key, 0))
            await self._story.tell(f"{step}/told", "flow.refused", day=str(day), micros=micros, code=held.code)
        else:
            self.doubtful[day] = nominal, micros
            if not asked_before:
                await self._story.tell(f"{step}/told", "flow.guard_silent", day=str(day), micros=micros)
        return held

    def nominal(self, day: date) -> int:
        """The budget that a day's hold is for."""
        return self.holds[day].nominal

    async def settle(self, step: str, report: SpendReport) -> bool:
        """End a day's hold with what was billed; whether the guard took it (otherwise: ask again)."""
        # What was asked first is asked until it is answered: a report that changes meanwhile is followed afterwards.
        report = self._settling.setdefault(report.day, report)
        held = self.holds[report.day]
        within, beyond = min(report.spent, held.micros), max(report.spent - held.micros, 0)
        guard = self._world.guard
        if within:
            ended = await ask(self._port, f"{step}/commit", lambda: guard.commit(held.hold, within))
        else:
            ended = await ask(self._port, f"{step}/release", lambda: guard.release(held.hold))
        if ended.code == UNAVAILABLE:
            return False
        if beyond and await self._record(f"{step}/beyond", report.day, beyond) is None:
            return False
        await ask(self._port, f"{step}/allowance", lambda: self._world.allowance.settle(held.key, report.spent))
        del self.holds[report.day]
        self.books[report.day] = DayBook(report.day, report.spent, 0, held.micros)
        worth = {"value": report.value, "conversions": report.conversions}
        told: dict[str, str | int] = {
            "day": str(report.day),
            "spent": report.spent,
            "held": held.micros,
            "beyond": beyond,
            **worth,
        }
        await self._story.tell(f"{step}/told", "flow.settled", **told)
        if ended.fate is Fate.REFUSED:
            await self._story.tell(f"{step}/drift-told", "flow.drift", day=str(report.day), code=ended.code)
        return True

    async def revise(self, step: str, report: SpendReport) -> bool:
        """Follow a report that changed after its day was settled; whether the books are up to date."""
        book = self.books[report.day]
        change = report.spent - (book.spent - book.credited)
        if not change:
            return True
        if change < 0:
            self.books[report.day] = book._replace(credited=book.credited - change)
            await self._story.tell(f"{step}/told", "flow.credited", day=str(report.day), change=change)
            return True
        more = await self._record(f"{step}/more", report.day, change)
        if more is None:
            return False
        self.books[report.day] = book._replace(spent=book.spent + more)
        # Reports are corrected a little every day; what is more than that, somebody should look at.
        within = report.spent <= book.held and more <= REVISION_SHARE * report.spent
        event = "flow.revised" if within else "flow.drift"
        await self._story.tell(f"{step}/told", event, day=str(report.day), change=more)
        return more == change

    async def record_unheld(self, step: str, report: SpendReport) -> bool:
        """Count what was billed for a day that nothing was held for: a campaign that could not be paused in time."""
        spent = await self._record(f"{step}/unheld", report.day, report.spent) if report.spent else 0
        if spent is None:
            return False
        self.books[report.day] = DayBook(report.day, spent, 0, 0)
        if spent:
            await self._story.tell(f"{step}/told", "flow.drift", day=str(report.day), change=spent, unheld=True)
        return spent == report.spent

    @property
    def spent(self) -> dict[str, int]:
        """What settled days cost, by day, in micros."""
        return {str(book.day): book.spent - book.credited for book in self.books.values()}

    async def _record(self, step: str, day: date, micros: int) -> int | None:
        """What was recorded; None while the guard does not answer. What was asked first is asked until it does."""
        micros = self._recording.setdefault(day, micros)
        number = self._recorded.get(day, 0) + 1
        key = self._key(f"record/{day}", number)
        outcome = await ask(self._port, step, lambda: self._world.guard.record(micros, self._scopes, key))
        if outcome.code == UNAVAILABLE:
            return None
        self._recorded[day] = number
        return self._recording.pop(day)

    def _key(self, what: str, attempt: int) -> str:
        return write_key(self._story.run, self._version, f"{self._lane}/{what}", attempt)
