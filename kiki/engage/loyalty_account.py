"""The points of one person: lots, what took from them, and the rules of every change. Pure.

An earning makes a lot. A spend takes from the lots that end first. A return reverses the entry that it is about: a lot's
points are taken back, from other lots or as a debt where they were spent; a spend's points go back into the lots they
came from. Nothing a person does makes a balance negative, only a return does. What time does by itself (lots open and
end, holds run out) is done first whenever an account is touched, in the order in which it happened, so that it does not
matter when somebody looks. Entries are whole numbers, and their sum is what is in the lots less the debt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from kiki.errors import Conflict, InvalidInput, NotFound, PointsShort

POINTS_MAX: Final = 10**15
"""The most that one change moves."""


class Kind(StrEnum):
    """What an entry is."""

    EARN = "earn"
    SPEND = "spend"
    HOLD = "hold"
    """Points set aside for an order that is not paid yet: they are gone until they are released."""
    COMMIT = "commit"
    RELEASE = "release"
    REFUND = "refund"
    EXPIRE = "expire"
    CLOSE = "close"
    """The person was erased: what was left is nobody's."""


class Entry(NamedTuple):
    """One line of the ledger; never changed."""

    place: int
    """1, 2, 3 … for each person."""
    kind: Kind
    points: int
    """What it adds to the balance; below zero it takes."""
    at: int
    about: int = 0
    """The place of the entry that it reverses, ends or resolves."""
    order: str = ""


@dataclass(slots=True)
class Lot:
    """The points of one earning, as far as they are still there."""

    place: int
    points: int
    opens_at: int
    ends_at: int | None = None
    left: int = 0
    expired: int = 0
    returned: int = 0
    """Of its points, how many the shop took back, whether they were there or not."""
    forgiven: int = 0
    """Of those, how many had ended already, and were not taken a second time."""


@dataclass(slots=True)
class Taking:
    """What one spend or hold took, lot by lot."""

    place: int
    points: int
    state: Kind
    """SPEND, or HOLD while it is open, then COMMIT or RELEASE."""
    until: int | None = None
    """When an open hold runs out."""
    parts: dict[int, int] = field(default_factory=dict)
    """By lot the points that are still taken from it."""
    returned: int = 0


class Balance(NamedTuple):
    """What a person has."""

    available: int
    """What can be spent now. Below zero: a debt, because a return came after the points were spent."""
    pending: int
    """Earned, and not open yet."""
    held: int
    """Set aside for orders that are not paid yet."""
    ends_next: tuple[int, int] | None
    """When points end next, and how many."""


class Account:
    """One person's points at a moment; `entries` are those that changes added."""

    def __init__(
        self,
        lots: dict[int, Lot] | None = None,
        takings: dict[int, Taking] | None = None,
        *,
        debt: int = 0,
        last_place: int = 0,
        last_at: int = 0,
    ) -> None:
        self.lots = lots or {}
        self.takings = takings or {}
        self.debt = debt
        self.last_place = last_place
        self.last_at = last_at
        self.entries: list[Entry] = []
        self.changed_lots: set[int] = set()
        self.changed_takings: set[int] = set()

    # -- what time does ------------------------------------------------------------------------------

    def advance(self, now: int) -> int:
        """Do what happened by itself since the last change; the moment that counts as now: time never goes back."""
        now = max(now, self.last_at)
        # One at a time: what a hold gives back may end, or pay a debt, before the next thing happens.
        while (first := min(self._due(now), default=None)) is not None:
            at, what, place = first
            if what == 0:
                self._settle(self.lots[place])
            elif what == 1:
                self._give_back(self.takings[place], self.takings[place].points, at, Kind.RELEASE, grace=0)
            else:
                self._end(self.lots[place], at)
        self.last_at = now
        return now

    def _due(self, now: int) -> Iterator[tuple[int, int, int]]:
        """What happened up to now and is not done: when, what (a lot pays the debt, a hold runs out, a lot ends), where."""
        for lot in self.lots.values():
            if lot.left:
                if self.debt and lot.opens_at <= now:
                    yield lot.opens_at, 0, lot.place
                if lot.ends_at is not None and lot.ends_at <= now:
                    yield lot.ends_at, 2, lot.place
        for taking in self.takings.values():
            if taking.state is Kind.HOLD and taking.until is not None and taking.until <= now:
                yield taking.until, 1, taking.place

    def _settle(self, lot: Lot) -> None:
        paid = min(self.debt, lot.left)
        if paid:
            self.debt -= paid
            lot.left -= paid
            self.changed_lots.add(lot.place)

    def _end(self, lot: Lot, at: int) -> None:
        if lot.left:
            lot.expired += lot.left
            self._add(Kind.EXPIRE, -lot.left, at, about=lot.place)
            lot.left = 0
            self.changed_lots.add(lot.place)

    def balance(self) -> Balance:
        """What there is, as of the last `advance`."""
        now = self.last_at
        open_ = self._open(now)
        ends = [lot.ends_at for lot in open_ if lot.ends_at is not None]
        held = sum(taking.points for taking in self.takings.values() if taking.state is Kind.HOLD)
        first = min(ends, default=None)
        return Balance(
            available=sum(lot.left for lot in open_) - self.debt,
            pending=sum(lot.left for lot in self.lots.values() if lot.opens_at > now),
            held=held,
            ends_next=None if first is None else (first, sum(lot.left for lot in open_ if lot.ends_at == first)),
        )

    def _open(self, now: int) -> list[Lot]:
        """The lots that can be spent, those that end first before the others, then the older ones."""
        found = [
            lot
            for lot in self.lots.values()
            if lot.left and lot.opens_at <= now and (lot.ends_at is None or lot.ends_at > now)
        ]
        return sorted(found, key=lambda lot: (lot.ends_at is None, lot.ends_at or 0, lot.place))

    # -- what people do ------------------------------------------------------------------------------

    def earn(
        self, points: int, now: int, *, opens_at: int | None = None, ends_at: int | None = None, order: str = ""
    ) -> Entry:
        """Add a lot; raises `InvalidInput`."""
        require_points(points)
        now = self.advance(now)
        opens = max(now, opens_at or now)
        if ends_at is not None and ends_at <= opens:
            raise InvalidInput("points end after they can be spent for the first time, not before")
        entry = self._add(Kind.EARN, points, now, order=order)
        self._add_lot(Lot(entry.place, points, opens, ends_at, left=points))
        return entry

    def spend(self, points: int, now: int, *, order: str = "", hold_until: int | None = None) -> Entry:
        """Take points, or set them aside until `hold_until`; raises `PointsShort`."""
        require_points(points)
        now = self.advance(now)
        available = self.balance().available
        if points > available:
            raise PointsShort(
                f"{points} points are asked for, and {max(available, 0)} can be spent", available=available
            )
        if hold_until is not None and hold_until <= now:
            raise InvalidInput("a hold ends later than now")
        kind = Kind.SPEND if hold_until is None else Kind.HOLD
        entry = self._add(kind, -points, now, order=order)
        taking = Taking(entry.place, points, kind, hold_until)
        missing = points
        for lot in self._open(now):
            part = min(lot.left, missing)
            if part:
                lot.left -= part
                taking.parts[lot.place] = part
                self.changed_lots.add(lot.place)
                missing -= part
        self.takings[entry.place] = taking
        self.changed_takings.add(entry.place)
        return entry

    def commit(self, place: int, now: int) -> Entry:
        """The order of a hold was paid: its points are spent; raises `Conflict` when the hold is not open any more."""
        now = self.advance(now)
        taking = self._hold(place)
        taking.state = Kind.COMMIT
        self.changed_takings.add(place)
        return self._add(Kind.COMMIT, 0, now, about=place)

    def release(self, place: int, now: int) -> Entry:
        """The order of a hold came to nothing: its points are there again; raises `Conflict` as `commit` does."""
        now = self.advance(now)
        taking = self._hold(place)
        return self._give_back(taking, taking.points, now, Kind.RELEASE, grace=0)

    def _hold(self, place: int) -> Taking:
        taking = self.takings.get(place)
        if taking is None or (taking.state is not Kind.HOLD and taking.until is None):
            raise NotFound(f"entry {place} is no hold of this person")
        if taking.state is not Kind.HOLD:
            how = {Kind.COMMIT: "committed", Kind.RELEASE: "released, or ran out"}[taking.state]
            raise Conflict(f"the hold {place} was {how} already")
        return taking

    def refund(self, place: int, now: int, *, points: int | None = None, grace: int = 0) -> Entry:
        """Reverse an earning or a spend, all of it that is not reversed yet or `points` of it.

        What returns to a lot that ended meanwhile lives for `grace` microseconds more. Raises `Conflict` when less is
        left to reverse, `NotFound` when the entry cannot be reversed.
        """
        now = self.advance(now)
        lot, taking = self.lots.get(place), self.takings.get(place)
        if lot is not None:
            count = self._to_reverse(place, points, lot.points - lot.returned)
            return self._take_back(lot, count, now)
        if taking is not None and taking.state in {Kind.SPEND, Kind.COMMIT}:
            count = self._to_reverse(place, points, taking.points - taking.returned)
            return self._give_back(taking, count, now, Kind.REFUND, grace=grace)
        if taking is not None:
            raise Conflict(f"entry {place} is a hold: release it")
        raise NotFound(f"entry {place} of this person is no earning and no spend: only those are reversed")

    @staticmethod
    def _to_reverse(place: int, points: int | None, left: int) -> int:
        count = left if points is None else points
        if points is not None:
            require_points(points)
        if count > left or not left:
            raise Conflict(
                f"of entry {place} {left} points are left to reverse" if left else f"entry {place} is reversed already"
            )
        return count

    def _take_back(self, lot: Lot, points: int, now: int) -> Entry:
        lot.returned += points
        own = min(points, lot.left)
        lot.left -= own
        missing = points - own
        forgiven = min(missing, lot.expired - lot.forgiven)
        lot.forgiven += forgiven
        missing -= forgiven
        self.changed_lots.add(lot.place)
        entry = self._add(Kind.REFUND, -(points - forgiven), now, about=lot.place)
        for other in self._open(now):
            part = min(other.left, missing)
            if part:
                other.left -= part
                missing -= part
                self.changed_lots.add(other.place)
        self.debt += missing
        return entry

    def _give_back(self, taking: Taking, points: int, at: int, kind: Kind, *, grace: int) -> Entry:
        if kind is Kind.RELEASE:
            taking.state = Kind.RELEASE
        taking.returned += points
        self.changed_takings.add(taking.place)
        entry = self._add(kind, points, at, about=taking.place)
        late = 0
        missing = points
        # Those that end last come back first: what was taken by mistake costs the person nothing.
        for place in sorted(taking.parts, key=lambda place: (self.lots[place].ends_at or 2**63, place), reverse=True):
            lot = self.lots[place]
            part = min(taking.parts[place], missing)
            missing -= part
            taking.parts[place] -= part
            has_ended = lot.ends_at is not None and lot.ends_at <= at
            if has_ended and grace and part:
                late += part
            elif part:
                lot.left += part
                self.changed_lots.add(place)
                self._settle(lot)
                if has_ended:
                    self._end(lot, at)
        if late:
            self._settle(self._add_lot(Lot(entry.place, late, at, at + grace, left=late, returned=late)))
        return entry

    def close(self, now: int) -> int:
        """End everything that is left, because its owner was erased; how many points that were."""
        now = self.advance(now)
        left = 0
        for taking in self.takings.values():
            if taking.state is Kind.HOLD:
                taking.state = Kind.COMMIT
                self.changed_takings.add(taking.place)
        for lot in self.lots.values():
            if lot.left:
                left += lot.left
                lot.left = 0
                self.changed_lots.add(lot.place)
        if left - self.debt:
            self._add(Kind.CLOSE, self.debt - left, now)
        self.debt = 0
        return left

    def _add(self, kind: Kind, points: int, at: int, *, about: int = 0, order: str = "") -> Entry:
        self.last_place += 1
        entry = Entry(self.last_place, kind, points, at, about, order)
        self.entries.append(entry)
        return entry

    def _add_lot(self, lot: Lot) -> Lot:
        self.lots[lot.place] = lot
        self.changed_lots.add(lot.place)
        return lot


def require_points(points: object) -> None:
    """Raise `InvalidInput` unless it is a number of points that can be moved."""
    if type(points) is not int or not 0 < points <= POINTS_MAX:
        raise InvalidInput(f"{str(points)[:40]!r} is no number of points: write a whole number from 1 to {POINTS_MAX}")
