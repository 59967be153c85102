"""What one window of one budget holds, spend by spend. Pure; for the auditor's replay alone."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

from kiki.clock import SECOND
from kiki.money import MICROS_MAX

CLOCKS_APART: Final = 10 * SECOND
"""How far apart the clocks of two hosts, or a decision and its entry, may lie where they have to be compared."""

_SHOWN: Final = 20
_MERGED_FROM: Final = 100_000
_CUT_FROM: Final = 4096


class SlidingSum:
    """Amounts by moment, and the sum of those of the last `span` microseconds. Moments never go back."""

    __slots__ = ("_at", "_entries", "_head", "_micros", "_recorded", "span", "total")

    def __init__(self, span: int, *, keeps_recorded: bool = False) -> None:
        self.span = span
        self.total = 0
        self._at = array("q")
        self._micros = array("q")
        self._entries = array("q")
        self._recorded = array("q") if keeps_recorded else None
        self._head = 0

    def add(self, at: int, micros: int, entry: int, recorded_at: int = 0) -> None:
        """Count an amount from `at` on."""
        self.total += micros
        moments = self._at
        if moments:
            last = moments[-1]
            if at < last:  # noqa: PLR1730 - max() is a call, and this is done for every entry
                at = last
            if at == last and len(moments) > _MERGED_FROM and self._micros[-1] + micros <= MICROS_MAX:
                # The names of single entries matter less than memory when there are so many.
                self._micros[-1] += micros
                return
        moments.append(at)
        self._micros.append(micros)
        self._entries.append(entry)
        if self._recorded is not None:
            self._recorded.append(recorded_at)

    def slide(self, now: int) -> None:
        """Let go of what is out of the window that ends at `now`."""
        head, moments, gone = self._head, self._at, now - self.span
        end = len(moments)
        if head == end or moments[head] > gone:
            return
        while head < end and moments[head] <= gone:
            self.total -= self._micros[head]
            head += 1
        self._head = head
        if head == end:
            if head:
                self.clear()
        elif head > _CUT_FROM and head > end // 2:
            self._cut()

    def slide_by_recorded(self, gone: int) -> None:
        """Let go of what was recorded at `gone` or before, if that is known."""
        if self._recorded is None:
            return
        while self._head < len(self._at) and self._recorded[self._head] <= gone:
            self.total -= self._micros[self._head]
            self._head += 1

    def take_over(self, other: SlidingSum) -> None:
        """Go on with what another one still counts, each amount no longer than any amount after it."""
        assert self._recorded is not None
        assert other._recorded is not None
        self._cut()
        self._at += other._at[other._head :]
        self._micros += other._micros[other._head :]
        self._entries += other._entries[other._head :]
        self._recorded += other._recorded[other._head :]
        self.total += other.total
        # Clocks of another life may have been ahead: never count anything longer for being behind that.
        for moments in (self._at, self._recorded):
            for place in range(len(moments) - 2, -1, -1):
                moments[place] = min(moments[place], moments[place + 1])
        other.clear()

    def clear(self) -> None:
        """Forget everything."""
        for column in (self._at, self._micros, self._entries, self._recorded):
            if column is not None:
                del column[:]
        self._head = self.total = 0

    def _cut(self) -> None:
        for column in (self._at, self._micros, self._entries, self._recorded):
            if column is not None:
                del column[: self._head]
        self._head = 0

    def entries(self) -> Sequence[int]:
        """The entries that count now: all, or of many the oldest and the newest."""
        counted = self._entries[self._head :]
        return counted if len(counted) <= _SHOWN else counted[: _SHOWN // 2] + counted[-_SHOWN // 2 :]


class Meter:
    """What one window of one scope holds."""

    __slots__ = ("before", "held", "held_unsure", "recorded", "scope", "spent", "unsure")

    def __init__(self, scope: str, span: int, *, shared: bool) -> None:
        self.scope = scope
        self.spent = SlidingSum(span, keeps_recorded=shared)
        self.held = 0
        # Seldom needed, so made when they are.
        self.before: SlidingSum | None = None
        """Spends that another window admitted and this one took over: an earlier life of a shared one."""
        self.unsure: SlidingSum | None = None
        self.held_unsure = 0
        self.recorded: SlidingSum | None = None

    def slide(self, now: int, recorded_at: int) -> None:
        """Move every window to `now`."""
        self.spent.slide(now)
        if self.before is not None:
            self.before.slide(now)
            self.before.slide_by_recorded(recorded_at - self.before.span + CLOCKS_APART)
        if self.unsure is not None:
            self.unsure.slide(now)
        if self.recorded is not None:
            self.recorded.slide(now)

    def add_unsure(self, at: int, micros: int, entry: int) -> None:
        """Count money of which nobody knows whether it was spent."""
        if self.unsure is None:
            self.unsure = SlidingSum(self.spent.span)
        self.unsure.add(at, micros, entry)

    def add_recorded(self, at: int, micros: int, entry: int) -> None:
        """Count money that was spent elsewhere."""
        if self.recorded is None:
            self.recorded = SlidingSum(self.spent.span)
        self.recorded.add(at, micros, entry)

    def is_idle(self) -> bool:
        """True when forgetting it changes nothing."""
        sums = (self.spent, self.before, self.unsure, self.recorded)
        return not self.held and not self.held_unsure and not any(each is not None and each.total for each in sums)


class Rule(NamedTuple):
    """A limit of a budget on one meter."""

    meter: Meter
    limit: int
    budget: str


class Lane(NamedTuple):
    """Everything that a spend with certain scopes is counted on, and every limit that it must keep."""

    meters: tuple[Meter, ...]
    rules: tuple[Rule, ...]
