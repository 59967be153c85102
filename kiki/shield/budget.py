"""The rules of a budget: a sliding window that rounds against the spender, never over its limit. Pure.

A window of `span` microseconds is kept as at most `SLOTS` sums. A slot leaves only when the whole of it is
out of the window, so the true sum of any window of length `span` is never above the limit, and money comes
back at most one slot (`span / SLOTS`) later than an exact log would give it. Memory and cost do not depend
on how many spends there were or how large they are.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from kiki.money import MICROS_MAX
from kiki.shield.policy import Limit

SLOTS = 600
# Released slots are cut off in batches: shifting an array once per slot would cost more than it frees.
_RELEASED_MAX = 64


class Reason(StrEnum):
    """Why a spend or check was refused, in order of precedence."""

    INVALID_INPUT = "invalid_input"
    """The request could not be read as a spend; nothing was looked up."""
    LTV_BELOW_MINIMUM = "ltv_below_minimum"
    """The predicted value is under MIN_LTV."""
    LTV_ABOVE_MAXIMUM = "ltv_above_maximum"
    """The predicted value is over MAX_LTV."""
    CONSENT_MISSING = "consent_missing"
    """The person named has not consented to the purpose of this spend."""
    HALTED = "halted"
    """The kill switch is on for a scope of this spend."""
    ABOVE_LIMIT = "above_limit"
    """The amount alone is more than the budget allows in a whole window: it never fits."""
    BUDGET_EXHAUSTED = "budget_exhausted"
    """What is spent and held leaves too little room now."""
    OUTCOME_UNKNOWN = "outcome_unknown"
    """The shared window did not answer in time; the spend may have been taken and counts as spent."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not, and what to know about it. Money in micros, moments in microseconds since the epoch."""

    reason: Reason
    budget: str | None = None
    scope: str | None = None
    span: int = 0
    limit: int = 0
    remaining: int = 0
    """What the binding window had left; below zero only after `record` went over the limit."""
    retry_at: int | None = None
    """When the same amount would fit if nothing else happens; None: unknown or never."""
    purpose: str = ""
    """What consent was missing for; `scope` names the person by reference."""


@dataclass(frozen=True, slots=True)
class MeterRule:
    """One limit of one budget, with its slot width in microseconds."""

    budget: str
    limit: int
    span: int
    width: int

    @classmethod
    def of(cls, budget: str, limit: Limit) -> MeterRule:
        """The rule with the narrowest slots that keep a window within `SLOTS` of them."""
        return cls(budget, limit.micros, limit.span, -(-limit.span // SLOTS))


class Meter:
    """What one scope has spent and holds in one sliding window. Not thread-safe; time only moves forward.

    `room` is what still fits. The slot being filled is `current`; filled slots wait in two arrays, as their
    end times and sums, until they are released at end + span.
    """

    __slots__ = ("_ends", "_head", "_slot_end", "_sums", "current", "due", "held", "room", "rule")

    def __init__(self, rule: MeterRule) -> None:
        self.rule = rule
        self.room = rule.limit
        self.held = 0
        self.current = 0
        self.due = 0
        """The next moment at which `advance` has something to do; callers compare before they call."""
        self._slot_end = 0
        self._head = 0
        self._ends: array[int] | None = None
        self._sums: array[int] | None = None

    def advance(self, now: int) -> None:
        """Close the slot that ended and release every slot that is wholly out of the window at `now`."""
        rule = self.rule
        if now >= self._slot_end:
            if self.current:
                if self._ends is None or self._sums is None:
                    self._ends, self._sums = array("q"), array("q")
                self._close_slot(self._ends, self._sums)
            self._slot_end = now - now % rule.width + rule.width
        self.due = self._slot_end
        ends, sums = self._ends, self._sums
        if ends is None or sums is None:
            return
        head, count, gone = self._head, len(ends), now - rule.span
        while head < count and ends[head] <= gone:
            self.room += sums[head]
            head += 1
        if head == count:
            self._ends = self._sums = None
            head = 0
        else:
            if head >= _RELEASED_MAX:
                del ends[:head], sums[:head]
                head = 0
            self.due = min(self._slot_end, ends[head] + rule.span)
        self._head = head

    def _close_slot(self, ends: array[int], sums: array[int]) -> None:
        # Records may add up past what one cell holds, in windows longer than those they were recorded under.
        while self.current > MICROS_MAX:
            ends.append(self._slot_end)
            sums.append(MICROS_MAX)
            self.current -= MICROS_MAX
        ends.append(self._slot_end)
        sums.append(self.current)
        self.current = 0

    def hold(self, amount: int) -> None:
        """Set money aside; it counts in full until it is freed or charged."""
        self.room -= amount
        self.held += amount

    def free(self, held: int, spent: int) -> None:
        """End a hold of `held`, of which `spent` becomes a spend of this moment."""
        self.held -= held
        self.room += held - spent
        self.current += spent

    def charge(self, amount: int) -> None:
        """Count a spend of this moment, whether or not it fits."""
        self.room -= amount
        self.current += amount

    def is_idle(self, now: int) -> bool:
        """True when nothing is spent in the window and nothing is held: forgetting it changes nothing."""
        if now >= self.due:
            self.advance(now)
        return self.room == self.rule.limit and not self.held

    def spent(self) -> int:
        """What was spent in the window, holds not included, as of the last `advance`."""
        return self.rule.limit - self.room - self.held

    def filled_slots(self) -> list[tuple[int, int]]:
        """The (end, sum) of every slot that counts, oldest first, the current one last."""
        slots: list[tuple[int, int]] = []
        if self._ends is not None and self._sums is not None:
            slots += zip(self._ends[self._head :], self._sums[self._head :], strict=True)
        if self.current:
            slots.append((self._slot_end, self.current))
        return slots

    def fits_at(self, amount: int, deadlines: Iterable[tuple[int, int]] = ()) -> int | None:
        """The first moment at which `amount` fits if nothing else happens; None: never, or not knowable.

        `deadlines` are the (deadline, amount) of this meter's open holds: each becomes a spend then.
        """
        need, span, width = amount - self.room, self.rule.span, self.rule.width
        if amount > self.rule.limit:
            return None
        for end, freed in self.filled_slots():
            need -= freed
            if need <= 0:
                return end + span
        for deadline, freed in sorted(deadlines):
            need -= freed
            if need <= 0:
                return deadline - deadline % width + width + span
        return None


def refuse(meter: Meter, scope: str, amount: int, deadlines: Iterable[tuple[int, int]] = ()) -> Refusal:
    """The refusal that a meter without room for `amount` gives."""
    rule = meter.rule
    above = amount > rule.limit
    return Refusal(
        reason=Reason.ABOVE_LIMIT if above else Reason.BUDGET_EXHAUSTED,
        budget=rule.budget,
        scope=scope,
        span=rule.span,
        limit=rule.limit,
        remaining=max(meter.room, -MICROS_MAX),
        retry_at=meter.fits_at(amount, deadlines),
    )


def binding(refusals: Iterable[Refusal]) -> Refusal:
    """The refusal that keeps a spend out longest: one that never ends before one that ends last."""
    return max(
        refusals,
        key=lambda refusal: (
            refusal.reason is Reason.ABOVE_LIMIT,
            refusal.retry_at is None,
            refusal.retry_at or 0,
        ),
    )


def judge_ltv(ltv: int, ltv_min: int, ltv_max: int) -> Refusal | None:
    """The value rule of `/check`: the bounds themselves pass. All in micros."""
    if ltv > ltv_max:
        return Refusal(Reason.LTV_ABOVE_MAXIMUM)
    if ltv < ltv_min:
        return Refusal(Reason.LTV_BELOW_MINIMUM)
    return None
