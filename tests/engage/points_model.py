"""Points counted one by one, with a clock that ticks: a plain picture of what an account must come to."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Point:
    lot: int
    opens: int
    ends: int | None
    where: str = "in"  # "in", "out", or the number of what took it


@dataclass
class Picture:
    now: int = 0
    debt: int = 0
    place: int = 0
    total: int = 0
    points: list[Point] = field(default_factory=list)
    holds: dict[int, int] = field(default_factory=dict)
    takes: dict[int, tuple[int, int]] = field(default_factory=dict)  # points, returned
    earned: dict[int, tuple[int, int]] = field(default_factory=dict)  # points, returned
    lost: dict[int, int] = field(default_factory=dict)  # by lot, points that ended and are not forgiven

    def tick(self) -> None:
        self.now += 1
        for lot in self.lots():
            self.settle(lot)
        for hold in sorted(hold for hold, until in self.holds.items() if until == self.now):
            self.back(hold, self.takes[hold][0], grace=0, release=True)
        for lot in self.lots():
            self.end(lot)

    def lots(self) -> list[int]:
        return sorted({point.lot for point in self.points}, key=lambda lot: (self.of(lot)[0].opens, lot))

    def of(self, lot: int) -> list[Point]:
        return [point for point in self.points if point.lot == lot]

    def usable(self) -> list[Point]:
        found = [
            point
            for point in self.points
            if point.where == "in" and point.opens <= self.now and (point.ends is None or point.ends > self.now)
        ]
        return sorted(found, key=lambda point: (point.ends is None, point.ends or 0, point.lot))

    @property
    def available(self) -> int:
        return len(self.usable()) - self.debt

    @property
    def pending(self) -> int:
        return sum(point.where == "in" and point.opens > self.now for point in self.points)

    @property
    def held(self) -> int:
        return sum(self.takes[hold][0] for hold in self.holds)

    def settle(self, lot: int) -> None:
        for point in self.of(lot):
            if self.debt and point.where == "in" and point.opens <= self.now:
                point.where = "out"
                self.debt -= 1

    def end(self, lot: int) -> None:
        gone = [p for p in self.of(lot) if p.where == "in" and p.ends is not None and p.ends <= self.now]
        for point in gone:
            point.where = "out"
        if gone:
            self.lost[lot] = self.lost.get(lot, 0) + len(gone)
            self.enter(-len(gone))

    def enter(self, points: int) -> int:
        self.place += 1
        self.total += points
        return self.place

    def earn(self, points: int, wait: int, life: int | None) -> None:
        place = self.enter(points)
        opens = self.now + wait
        self.earned[place] = (points, 0)
        self.points += [Point(place, opens, None if life is None else opens + life) for _ in range(points)]
        # What is earned pays a debt when it is next looked at: at the same moment or at a later one.
        self.settle(place)

    def spend(self, points: int, until: int | None = None) -> bool:
        if points > self.available:
            return False
        place = self.enter(-points)
        for point in self.usable()[:points]:
            point.where = str(place)
        self.takes[place] = (points, 0)
        if until is not None:
            self.holds[place] = until
        return True

    def back(self, place: int, count: int, *, grace: int, release: bool = False) -> None:
        points, returned = self.takes[place]
        self.takes[place] = (points, returned + count)
        own = self.enter(count)
        if release:
            del self.holds[place]
        taken = [point for point in self.points if point.where == str(place)]
        taken.sort(key=lambda point: (point.ends or 2**63, point.lot), reverse=True)
        for point in taken[:count]:
            ended = point.ends is not None and point.ends <= self.now
            if ended and grace:
                point.where = "out"
                self.points.append(Point(own, self.now, self.now + grace))
            else:
                point.where = "in"
        for lot in sorted(
            {point.lot for point in taken[:count]}, key=lambda lot: (self.of(lot)[0].ends or 2**63, lot), reverse=True
        ):
            self.settle(lot)
            self.end(lot)
        if self.of(own):
            self.earned.setdefault(own, (0, 0))
            self.settle(own)

    def take_back(self, place: int, count: int) -> None:
        points, returned = self.earned[place]
        self.earned[place] = (points, returned + count)
        missing = count
        for point in self.of(place):
            if missing and point.where == "in":
                point.where = "out"
                missing -= 1
        forgiven = min(missing, self.lost.get(place, 0))
        self.lost[place] = self.lost.get(place, 0) - forgiven
        missing -= forgiven
        self.enter(-(count - forgiven))
        for point in self.usable()[:missing]:
            point.where = "out"
            missing -= 1
        self.debt += missing
