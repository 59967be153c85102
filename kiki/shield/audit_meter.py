"""What one window of one budget holds, spend by spend. Pure; for the auditor's replay alone."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec

from kiki.clock import SECOND
from kiki.money import MICROS_MAX

CLOCKS_APART: Final = 10 * SECOND
"""How far apart the clocks of two hosts, or a decision and its entry, may lie where they have to be compared."""

_SHOWN: Final = 20
_FIELDS: Final = 3
_MERGED_FROM: Final = 100_000 * _FIELDS
_TIDIED_FROM: Final = 8 * _FIELDS
_MANY: Final = 16 * _FIELDS
_MICROS, _ENTRY = 1, 2
"""Where an amount has its micros and its entry; its moment comes first."""

packed_amount: Final = struct.Struct(f"{_FIELDS}q").pack
"""An amount as every sum keeps it: its moment, its micros, its entry. Packed once, however many sums it goes into."""


class SlidingSum(msgspec.Struct, gc=False):
    """Amounts by moment, and the sum of those of the last `span` microseconds. Moments never go back.

    What is out of the window leaves the sum with `slide`; until then `total` is too large, never too small. So whoever
    compares it with a limit slides only when it is passed. There may be a sum for every person, and each decision is added
    to several: all of it lies in one array.
    """

    span: int
    total: int = 0
    _head: int = 0
    """Where the first amount that counts begins."""
    _tidy_at: int = _TIDIED_FROM
    _amounts: array[int] = msgspec.field(default_factory=partial(array, "q"))
    recorded_at: array[int] | None = None
    """When each amount was recorded, where that matters."""

    def add(self, at: int, micros: int, packed: bytes, recorded_at: int = 0) -> None:
        """Count an amount from `at` on; `packed` is the same from `packed_amount`."""
        amounts = self._amounts
        if len(amounts) >= self._tidy_at:
            self._tidy(at)
        if len(amounts) > _MERGED_FROM and amounts[-_FIELDS] >= at and self._is_merged(micros):
            return
        self.total += micros
        amounts.frombytes(packed)
        if self.recorded_at is not None:
            self.recorded_at.append(recorded_at)

    def add_late(self, at: int, micros: int, packed: bytes, recorded_at: int = 0) -> None:
        """The same where `at` may lie before what was counted last: then it counts from that on."""
        late = self._amounts[-_FIELDS] - at if self._amounts else 0
        self.add(at + max(0, late), micros, packed, recorded_at)
        if late > 0 and self._amounts[-_FIELDS] == at:
            self._amounts[-_FIELDS] = at + late

    def _is_merged(self, micros: int) -> bool:
        """Count an amount with the one before it: where there are so many, memory matters more than their names."""
        amounts = self._amounts
        if amounts[_MICROS - _FIELDS] + micros > MICROS_MAX:
            return False
        amounts[_MICROS - _FIELDS] += micros
        self.total += micros
        return True

    def _tidy(self, now: int) -> None:
        self.slide(now)
        self._cut()
        self._tidy_at = 2 * max(_TIDIED_FROM, len(self._amounts))

    def slide(self, now: int) -> None:
        """Let go of what is out of the window that ends at `now`."""
        head, amounts, gone = self._head, self._amounts, now - self.span
        end = len(amounts)
        if head == end or amounts[head] > gone:
            return
        if end - head > _MANY and amounts[head + _MANY] <= gone:
            # Moments are in order, so the first that counts is found by halving, and the rest is added up at once.
            left = bisect_right(range(head, end, _FIELDS), gone, key=amounts.__getitem__) * _FIELDS + head
            self.total, self._head = self.total - sum(amounts[head + _MICROS : left : _FIELDS]), left
            return
        total = self.total
        while head < end and amounts[head] <= gone:
            total -= amounts[head + _MICROS]
            head += _FIELDS
        self.total, self._head = total, head

    def slide_by_recorded(self, gone: int) -> None:
        """Let go of what was recorded at `gone` or before, if that is known."""
        if self.recorded_at is None:
            return
        while self._head < len(self._amounts) and self.recorded_at[self._head // _FIELDS] <= gone:
            self.total -= self._amounts[self._head + _MICROS]
            self._head += _FIELDS

    def take_over(self, other: SlidingSum) -> None:
        """Go on with what another one still counts, each amount no longer than any amount after it."""
        assert self.recorded_at is not None
        assert other.recorded_at is not None
        self._cut()
        self._amounts += other._amounts[other._head :]
        self.recorded_at += other.recorded_at[other._head // _FIELDS :]
        self.total += other.total
        # Clocks of another life may have been ahead: never count anything longer for being behind that.
        for moments, step in ((self._amounts, _FIELDS), (self.recorded_at, 1)):
            for place in range(len(moments) - 2 * step, -1, -step):
                moments[place] = min(moments[place], moments[place + step])
        other.clear()

    def clear(self) -> None:
        """Forget everything."""
        del self._amounts[:]
        if self.recorded_at is not None:
            del self.recorded_at[:]
        self._head = self.total = 0

    def _cut(self) -> None:
        if self.recorded_at is not None:
            del self.recorded_at[: self._head // _FIELDS]
        del self._amounts[: self._head]
        self._head = 0

    def entries(self) -> Sequence[int]:
        """The entries that count now: all, or of many the oldest and the newest."""
        counted = self._amounts[self._head + _ENTRY :: _FIELDS]
        return counted if len(counted) <= _SHOWN else counted[: _SHOWN // 2] + counted[-_SHOWN // 2 :]


class Meter(SlidingSum, gc=False, kw_only=True):
    """What one window of one scope holds: the spends, and what stands beside them."""

    scope: str
    held: int = 0
    is_plain: bool = True
    """Nothing of what follows was ever needed: it is made when it is."""
    before: SlidingSum | None = None
    """Spends that another window admitted and this one took over: an earlier life of a shared one."""
    unsure: SlidingSum | None = None
    held_unsure: int = 0
    recorded: SlidingSum | None = None

    def slide_all(self, now: int, recorded_at: int) -> None:
        """Move every window to `now`."""
        self.slide(now)
        if self.before is not None:
            self.before.slide(now)
            self.before.slide_by_recorded(recorded_at - self.before.span + CLOCKS_APART)
        if self.unsure is not None:
            self.unsure.slide(now)
        if self.recorded is not None:
            self.recorded.slide(now)

    def add_before(self, at: int, micros: int, packed: bytes) -> None:
        """Count money that another window admitted."""
        if self.before is None:
            self.before = SlidingSum(self.span)
            self.is_plain = False
        self.before.add_late(at, micros, packed)

    def begin_life(self, *, follows: bool) -> None:
        """Another life of a shared window begins; with `follows` what was spent in the earlier one goes on counting."""
        if follows:
            if self.before is None:
                self.before = SlidingSum(self.span, recorded_at=array("q"))
                self.is_plain = False
            self.before.take_over(self)
        else:
            self.before = None
            self.clear()
        self.unsure = self.recorded = None

    def hold_unsure(self, micros: int) -> None:
        """Count a reservation of which nobody knows whether it was made; negative when it ends."""
        self.held_unsure += micros
        self.is_plain = False

    def add_unsure(self, at: int, micros: int, packed: bytes) -> None:
        """Count money of which nobody knows whether it was spent."""
        if self.unsure is None:
            self.unsure = SlidingSum(self.span)
            self.is_plain = False
        self.unsure.add_late(at, micros, packed)

    def add_recorded(self, at: int, micros: int, packed: bytes) -> None:
        """Count money that was spent elsewhere."""
        if self.recorded is None:
            self.recorded = SlidingSum(self.span)
            self.is_plain = False
        self.recorded.add_late(at, micros, packed)

    def sure(self) -> int:
        """What was surely spent or held."""
        return self.total + self.held + (0 if self.before is None else self.before.total)

    def doubtful(self) -> int:
        """What may have been, on top of that."""
        return self.held_unsure + (0 if self.unsure is None else self.unsure.total)

    def is_idle(self) -> bool:
        """True when forgetting it changes nothing."""
        sums = (self, self.before, self.unsure, self.recorded)
        return not self.held and not self.held_unsure and not any(each is not None and each.total for each in sums)


class Rule(NamedTuple):
    """A limit of a budget on one meter."""

    meter: Meter
    limit: int
    budget: str


Lane = tuple[tuple[Meter, int], ...]
"""Everything that a spend with certain scopes is counted on, each with the lowest limit that it must keep."""


def add_to_all(lane: Lane, at: int, micros: int, packed: bytes, recorded_at: int) -> bool:
    """`Meter.add` on each; whether one of them has to be looked at more closely.

    What has left a window may still be in its sum: only where that is too much is it worth looking. One call for all meters
    of a spend, because an auditor reads millions of them.
    """
    is_close = False
    for meter, limit in lane:
        amounts = meter._amounts  # noqa: SLF001 - the same noun; a call for each meter would take as long as the rest
        count = len(amounts)
        if (
            count < meter._tidy_at  # noqa: SLF001
            and (count <= _MERGED_FROM or amounts[-_FIELDS] < at)
            and meter.recorded_at is None
        ):
            total = meter.total = meter.total + micros
            amounts.frombytes(packed)
        else:
            meter.add(at, micros, packed, recorded_at)
            total = meter.total
        if total + meter.held > limit or not meter.is_plain:
            is_close = True
    return is_close
