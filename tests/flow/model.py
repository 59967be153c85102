"""A platform and a guard so plain that they can be believed: what lanes are judged by.

Both keep their own books and misbehave as a script says. The platform bills by what was active with which budget; it
knows nothing of kiki.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import msgspec

from kiki.flow.memory_engine import VirtualTime
from kiki.flow.plan_calendar import QuickCalendar
from kiki.flow.platform import CampaignSpec, CampaignState, Limits, SpendReport, Status, ValueUpload
from kiki.outbound.outcome import Outcome, done, refused, unknown
from kiki.shield.note import Note

DAY = 86_400_000_000

# What may become of a call: fine; refused; lost before or after its effect; its effect comes an hour late; it is delivered
# twice, which makes two campaigns of one name and is nothing else to a call that sets a state.
FAULTS = ("ok", "throttled", "lost-before", "lost-after", "late", "twice", "twice-first")


@dataclass
class ModelPlatform:
    """One account with one campaign, and perhaps a second one of its name."""

    time: VirtualTime
    calendar: QuickCalendar
    faults: Iterator[str]
    intensity: Callable[[date], float]
    """The share of the most that it may bill on a day, 0 to 1."""
    report_hours: int = 6
    correction: Callable[[date], int] = lambda _day: 0
    """What is corrected of a day's bill two days later, in micros."""
    limits: Limits = field(default_factory=lambda: Limits(overdelivery=2.0))
    name: str = "meta"
    account: str = "act_1"
    money: str = "USD"
    state: CampaignState | None = None
    twin: CampaignState | None = None
    history: list[tuple[int, bool, int]] = field(default_factory=list)
    """From when on it was active, and with which budget."""
    effects: dict[str, set[Any]] = field(default_factory=dict)
    made: int = 0
    stubborn_until: int = 0
    """Until then it does not hear a pause."""
    last: tuple[tuple[Any, ...], str, str] | None = None
    """The last write: what, key, and what became of it."""

    async def currency(self) -> Outcome:
        return done(currency=self.money, time_zone="UTC")

    async def lookup(self, name: str) -> Outcome:
        fault = next(self.faults)
        if fault in {"lost-before", "lost-after", "late"}:
            return unknown("timeout")
        if fault == "throttled":
            return refused("throttled")
        self.last = None
        return self._shown()

    def _shown(self) -> Outcome:
        found = [each for each in (self.state, self.twin) if each is not None]
        if not found:
            return done()
        first, *others = sorted(found, key=lambda each: (each.status is not Status.ACTIVE, each.id))
        twins = [{"id": each.id, "status": each.status.value} for each in others]
        return done(campaign=msgspec.to_builtins(first), **({"twins": twins} if twins else {}))

    async def ensure_campaign(self, spec: CampaignSpec, key: str) -> Outcome:
        def effect() -> None:
            if self.state is None:
                self.made += 1
                self.state = CampaignState(
                    id="c-1", name=spec.name, status=Status.PAUSED, daily_budget=spec.daily_budget, bid=spec.bid
                )

        return self._write(key, ("ensure", spec.name), effect)

    async def archive(self, campaign: str, key: str) -> Outcome:
        def effect() -> None:
            assert self.state is not None
            if self.twin is None:
                return
            assert campaign in {self.state.id, self.twin.id}
            self._mean(self.twin.id if campaign == self.state.id else self.state.id)
            self.twin = None

        return self._write(key, ("archive", campaign), effect)

    def _mean(self, campaign: str) -> None:
        """The campaign that counts from now on; what was active goes on to count."""
        if self.twin is not None and campaign == self.twin.id:
            assert not any(active for _, active, _ in self.history), "what had been active was forgotten"
            self.state, self.twin = self.twin, self.state

    async def set_budget(self, campaign: str, micros: int, key: str) -> Outcome:
        return self._write(key, ("budget", micros), lambda: self._become(campaign, daily_budget=micros))

    async def set_bid(self, campaign: str, micros: int, key: str) -> Outcome:
        return self._write(key, ("bid", micros), lambda: self._become(campaign, bid=micros))

    async def pause(self, campaign: str, key: str) -> Outcome:
        if self.time.now() < self.stubborn_until:
            return unknown("timeout")
        return self._write(key, ("pause",), lambda: self._become(campaign, status=Status.PAUSED))

    async def resume(self, campaign: str, key: str) -> Outcome:
        return self._write(key, ("resume",), lambda: self._become(campaign, status=Status.ACTIVE))

    async def spend_report(self, campaign: str, day: date) -> Outcome:
        if next(self.faults) != "ok":
            return refused("unavailable")
        final = self.time.now() >= self.calendar.start_of(day) + self.calendar.span(24 + self.report_hours)
        corrected = self.time.now() >= self.calendar.start_of(day) + self.calendar.span(48 + self.report_hours)
        spent = self._corrected(day) if corrected else self.bill(day)
        return done(report=msgspec.to_builtins(SpendReport(day=day, spent=spent, final=final)))

    async def upload_values(self, campaign: str, values: Sequence[ValueUpload], key: str) -> Outcome:
        return done(accepted=len(values), rejected=0, orders={each.order: "done" for each in values})

    async def close(self) -> None: ...

    def bill(self, day: date) -> int:
        """What a day has cost so far, from what was active in it."""
        begins, ends = self.calendar.start_of(day), self.calendar.start_of(day + timedelta(days=1))
        most = 0
        points = [*self.history, (self.time.now(), False, 0)]
        for (since, active, budget), (until, _, _) in pairwise(points):
            if active and since < min(ends, self.time.now()) and until > begins:
                most = max(most, budget)
        return int(most * self.limits.overdelivery * self.intensity(day))

    def truth(self, days: Sequence[date]) -> dict[str, int]:
        """What each day cost in the end."""
        return {str(day): self._corrected(day) for day in days}

    def _corrected(self, day: date) -> int:
        billed = self.bill(day)
        return max(billed + self.correction(day), 0) if billed else 0

    def _become(self, campaign: str, **changes: Any) -> None:
        self._mean(campaign)
        assert self.state is not None
        assert campaign == self.state.id
        self.state = msgspec.structs.replace(self.state, **changes)
        active = self.state.status is Status.ACTIVE
        self.history.append((self.time.now(), active, self.state.daily_budget or 0))

    def _write(self, key: str, what: tuple[Any, ...], effect: Callable[[], None]) -> Outcome:
        fault = next(self.faults)
        self.effects.setdefault(key, set()).add(what)
        # A state may be set again by a later step; making something is one thing only.
        if what[0] == "ensure" and self.last is not None and self.last[2] in {"lost-before", "lost-after", "late"}:
            assert key == self.last[1], "what is not known was sent again as something new"
        self.last = what, key, fault
        if fault == "throttled":
            return refused("throttled")
        if fault == "lost-before":
            return unknown("timeout")
        if fault == "late":
            self.time.at(self.time.now() + self.calendar.span(0.1), effect)
            return unknown("timeout")
        before = self.state
        effect()
        if before is None and self.state is not None and fault.startswith("twice"):
            second = msgspec.structs.replace(self.state, id="c-2")
            answered = (second, self.state) if fault == "twice" else (self.state, second)
            self.state, self.twin = answered
        if fault == "lost-after":
            return unknown("timeout")
        return done(campaign=msgspec.to_builtins(self.state))


@dataclass
class ModelGuard:
    """One budget over everything that was ever held or spent."""

    limit: int
    faults: Iterator[str]
    holds: dict[str, int] = field(default_factory=dict)
    spent: int = 0
    recorded: int = 0
    answers: dict[str, Outcome] = field(default_factory=dict)
    notes: dict[str, Note] = field(default_factory=dict)
    most_held: int = 0
    scopes: dict[str, list[str]] = field(default_factory=dict)
    """Of holds, for who asks which are open."""
    may_settle: Callable[[str], bool] = lambda _hold: True
    """Whether a hold may end now."""
    money: str = "USD"

    async def reserve(self, micros: int, scopes: Mapping[str, str], key: str) -> Outcome:
        def effect() -> Outcome:
            if self.spent + sum(self.holds.values()) + micros > self.limit:
                return refused("budget_exhausted")
            self.holds[key] = micros
            return done(hold=key, event="e")

        return self._answer(f"reserve {key}", effect)

    async def commit(self, hold: str, micros: int) -> Outcome:
        def effect() -> Outcome:
            assert self.may_settle(hold), "a hold ended before its report was final"
            assert micros <= self.holds.pop(hold)
            self.spent += micros
            return done(event="e")

        return self._answer(f"commit {hold}", effect)

    async def release(self, hold: str) -> Outcome:
        def effect() -> Outcome:
            del self.holds[hold]
            return done(event="e")

        return self._answer(f"release {hold}", effect)

    async def record(self, micros: int, scopes: Mapping[str, str], key: str) -> Outcome:
        def effect() -> Outcome:
            self.spent += micros
            self.recorded += micros
            return done(event="e")

        return self._answer(f"record {key}", effect)

    async def note(self, notes: Sequence[Note]) -> Outcome:
        def effect() -> Outcome:
            self.notes.update({note.key: note for note in notes})
            return done(event="e")

        return self._faulty(effect)

    async def close(self) -> None: ...

    async def check(self, micros: int, scopes: Mapping[str, str]) -> Outcome:
        fits = self.spent + sum(self.holds.values()) + micros <= self.limit
        return done() if fits else refused("budget_exhausted")

    async def currency(self) -> Outcome:
        return done(currency=self.money)

    async def consents(self, customers: Sequence[str], purpose: str) -> Outcome:
        return self._faulty(lambda: done(allowed=[True for _ in customers]))

    async def holds_open(self) -> Outcome:
        held = [
            {"id": hold, "micros": micros, "scopes": self.scopes.get(hold, [])} for hold, micros in self.holds.items()
        ]
        return done(holds=held)

    def _answer(self, key: str, effect: Callable[[], Outcome]) -> Outcome:
        def once() -> Outcome:
            if key not in self.answers:
                self.answers[key] = effect()
            return self.answers[key]

        answer = self._faulty(once)
        self.most_held = max(self.most_held, self.spent - self.recorded + sum(self.holds.values()))
        return answer

    def _faulty(self, effect: Callable[[], Outcome]) -> Outcome:
        fault = next(self.faults)
        if fault in {"throttled", "lost-before"}:
            return unknown("guard_unavailable")
        answer = effect()
        return unknown("guard_unavailable") if fault in {"lost-after", "late"} else answer


class OwnAllowance:
    """The plan's total, in memory."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.taken: dict[str, int] = {}

    async def take(self, key: str, micros: int) -> Outcome:
        if key not in self.taken:
            if self.total is not None and sum(self.taken.values()) + micros > self.total:
                return refused("plan_budget_exhausted")
            self.taken[key] = micros
        return done()

    async def settle(self, key: str, micros: int) -> Outcome:
        self.taken[key] = micros
        return done()


class AsPlanned:
    """The plan's own numbers."""

    async def bid(self, campaign: Any, day: date) -> Outcome:
        return done(micros=campaign.bid) if isinstance(campaign.bid, int) else done()

    async def daily_budget(self, campaign: Any, day: date, spent: dict[str, int]) -> Outcome:
        return done(micros=campaign.daily_budget)
