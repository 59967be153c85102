"""Splits that learn: each day the way that earns more gets more people, and a floor keeps every way measured.

The shares of a day are made once, from outcomes whose windows were over when it began, and kept; so every process that
works on that day draws by the same ones, and the ledger tells them with the sums they were made from. A person is drawn
by a keyed hash the first time they come by, which is kept before they move on, and then goes that way for good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from kiki.clock import Clock
from kiki.engage.action_log import ActionLog, State
from kiki.engage.journey_book import JourneyBook, experiment_of
from kiki.engage.look import Sides
from kiki.engage.moments import Moments
from kiki.engage.playbook import DAY, GOAL, Journey, Playbook, Split
from kiki.engage.shield_line import Shield
from kiki.shield.note import parse_note

_SENT: Final = frozenset({State.SENDING, State.DONE, State.UNKNOWN})


class DayShares(NamedTuple):
    """By way its share on one day, in parts of a million, and the sums that they were made from."""

    shares: tuple[int, ...]
    known: tuple[Moments, ...]


_shares = msgspec.json.Decoder(DayShares)


class Way(NamedTuple):
    """Somebody's way through a split."""

    person: str
    way: int
    share: int
    """With what chance they got it, in parts of a million."""
    at: int


class LearningSplits:
    """Ways through splits. A split that does not learn is drawn by its own shares, and nothing is kept."""

    def __init__(self, book: JourneyBook, log: ActionLog, sides: Sides, shield: Shield, clock: Clock) -> None:
        self._book = book
        self._log = log
        self._sides = sides
        self._shield = shield
        self._clock = clock
        self._told: set[str] = set()

    # -- the shares of a day -------------------------------------------------------------------------

    def begin(self, playbook: Playbook) -> None:
        """Make and keep the shares of this day, once, and tell them to the ledger."""
        for journey in playbook.journeys:
            for step in learning(journey):
                split, day = f"{experiment_of(playbook.name, journey.name)}/{step.name}", self._clock() // DAY
                name = f"shares:{split}:{day}"
                if name in self._told:
                    continue
                if self._book.recall(name) is None:
                    self._book.remember_first(name, msgspec.json.encode(self._made(playbook, journey, step, day)))
                made = self.today(playbook, journey, step)
                detail: dict[str, str | int] = {"split": split, "day": day, "reward": step.reward}
                for way, (share, known) in enumerate(zip(made.shares, made.known, strict=True)):
                    # The share, then persons, active ones, total and squares of what it was made from.
                    detail[f"way_{way}"] = msgspec.json.encode([share, *known[:4]]).decode()
                # Said again with its key, a note is not written again.
                self._shield.note([parse_note("engage.shares", {"campaign": playbook.name}, detail, name)])
                self._told.add(name)

    def today(self, playbook: Playbook, journey: Journey, step: Split) -> DayShares:
        """The shares that were kept, or (for a plan on a day without a run) those that a run would keep."""
        day = self._clock() // DAY
        kept = self._book.recall(f"shares:{experiment_of(playbook.name, journey.name)}/{step.name}:{day}")
        if kept is None:
            return self._made(playbook, journey, step, day)
        found = _shares.decode(kept)
        # Another number of ways than this morning: the playbook was changed.
        return (
            found if len(found.shares) == len(step.shares) else DayShares(step.shares, (Moments(),) * len(step.shares))
        )

    def _made(self, playbook: Playbook, journey: Journey, step: Split, day: int) -> DayShares:
        known = self.known(playbook, journey, step, day * DAY)
        if not any(side.persons for side in known):
            return DayShares(step.shares, known)
        # scipy is loaded only where something is learned.
        from kiki.engage.bandit import thompson_shares

        made = thompson_shares({str(way): side for way, side in enumerate(known)}, floor=step.floor)
        return DayShares(tuple(made.values()), known)

    def known(self, playbook: Playbook, journey: Journey, step: Split, until: int) -> tuple[Moments, ...]:
        """By way the sums of what people brought whose windows were over at a moment."""
        ways = [each for each in self._ways(playbook, journey, step) if each.at + journey.goal_span <= until]
        rewards = self._rewards(playbook, journey, step, ways, until)
        return tuple(
            Moments.of([reward for each, reward in zip(ways, rewards, strict=True) if each.way == way])
            for way in range(len(step.shares))
        )

    def _rewards(self, playbook: Playbook, journey: Journey, step: Split, ways: list[Way], until: int) -> list[float]:
        """By person what counts for their way."""
        if not ways:
            return []
        span, since = journey.goal_span, min(each.at for each in ways)
        if step.reward == GOAL:
            reached = self._book.moments_of(journey.goal_event, since, until)
            return [float(any(each.at < at <= each.at + span for at in reached.get(each.person, ()))) for each in ways]
        earned = self._book.earnings(playbook.margin_rate, since, until)
        costs: Mapping[str, int] = {name: rule.cost for name, rule in playbook.channels.items()}
        began = {each.person: each.at for each in ways}
        spent: Counter[str] = Counter()
        for action in self._log.of_playbook(playbook.name):
            start = began.get(action.person) if action.step.startswith(f"{journey.name}/") else None
            if start is not None and action.state in _SENT and start <= action.decided_at <= start + span:
                spent[action.person] += costs.get(action.channel, 0)
        return [
            float(
                sum(m for at, m in earned.get(each.person, ()) if each.at < at <= each.at + span) - spent[each.person]
            )
            for each in ways
        ]

    # -- ways of people ------------------------------------------------------------------------------

    def pickers(
        self, playbook: Playbook, journey: Journey, people: Iterable[tuple[str, str]]
    ) -> tuple[Callable[[str], Callable[[Split], int]], Callable[[], None]]:
        """How each of these (customer and reference) goes on, and what keeps it: call that before they are moved."""
        pairs = list(people)
        learners = {step.name: step for step in learning(journey)}
        shares = {name: self.today(playbook, journey, step).shares for name, step in learners.items()}
        gone = {name: self._gone(playbook, journey, step, [p for _, p in pairs]) for name, step in learners.items()}
        person_of = dict(pairs)
        new: dict[str, list[Way]] = {}

        def picker(customer: str) -> Callable[[Split], int]:
            drawn = self._sides.pick(playbook, journey, customer)
            person = person_of.get(customer, "")

            def pick(step: Split) -> int:
                if not step.learns:
                    return drawn(step)
                if (known := gone[step.name].get(person)) is not None:
                    return known
                way = drawn(msgspec.structs.replace(step, shares=shares[step.name]))
                if person:
                    gone[step.name][person] = way
                    new.setdefault(step.name, []).append(Way(person, way, shares[step.name][way], self._clock()))
                return way

            return pick

        def keep() -> None:
            for name, ways in new.items():
                self._book.keep_ways(_split_of(playbook, journey, learners[name]), ways)
            new.clear()

        return picker, keep

    def _gone(self, playbook: Playbook, journey: Journey, step: Split, persons: list[str]) -> dict[str, int]:
        """By person the way they went before, as far as the split still has it."""
        found = self._book.ways_of(_split_of(playbook, journey, step), set(persons) - {""})
        return {person: way for person, way in found.items() if way < len(step.shares)}

    def _ways(self, playbook: Playbook, journey: Journey, step: Split) -> list[Way]:
        return [Way(*row) for row in self._book.ways(_split_of(playbook, journey, step))]


def learning(journey: Journey) -> list[Split]:
    """The splits of a journey that learn."""
    return [step for step in journey.steps if isinstance(step, Split) and step.learns]


def _split_of(playbook: Playbook, journey: Journey, step: Split) -> str:
    return f"{experiment_of(playbook.name, journey.name)}/{step.name}"
