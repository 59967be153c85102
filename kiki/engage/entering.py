"""Who enters a journey at a look, and on which side; and who would, but is stopped by what is true of them at any time."""

from __future__ import annotations

from typing import Final

import numpy as np

from kiki.engage.decision import ORDER, Ints, gates
from kiki.engage.estimate import pack
from kiki.engage.journey_book import HELD_OUT, TREATED, Entrant, JourneyBook
from kiki.engage.journey_steps import arrive, sends
from kiki.engage.learning_split import LearningSplits
from kiki.engage.look import Look, Sides, of_rows
from kiki.engage.people import People
from kiki.engage.plan import Line
from kiki.engage.playbook import Journey, Playbook
from kiki.engage.roster import features_of
from kiki.engage.segment import members

LATE_EVENTS: Final = 24 * 3600 * 1_000_000


class Entering:
    """Asks the book who was in a journey before."""

    def __init__(self, book: JourneyBook, sides: Sides, splits: LearningSplits) -> None:
        self._book = book
        self._splits = splits
        self._sides = sides

    def entrants(self, look: Look, journey: Journey, *, keeps: bool = False) -> tuple[list[Entrant], list[Line]]:
        """Who enters now, on which side; and who would, but is stopped by what is true of them at any time.

        `keeps`: the ways that they go through splits that learn are kept, because they will enter.
        """
        playbook, people = look.playbook, look.people
        candidates = self._candidates(look, journey)
        if not candidates:
            return [], []
        rows = np.array([row for row, _ in candidates], dtype=np.int64)
        some = people.take(rows)
        codes = self._standing_gates(look, journey, some, rows)
        entrants, lines = [], []
        before = self._earned_before(look, journey)
        features = features_of(some)
        share = self._sides.held_out_share(playbook)
        treated = [
            (people.customers[row], people.persons[row])
            for row, _ in candidates
            if not self._sides.is_held_out(playbook, people.customers[row])
        ]
        picker, keep = self._splits.pickers(playbook, journey, treated)
        for at, (row, entry) in enumerate(candidates):
            customer, person = people.customers[row], people.persons[row]
            if codes[at]:
                lines.append(Line(customer, person, journey.name, "", ORDER[int(codes[at])]))
                continue
            held = self._sides.is_held_out(playbook, customer)
            start = arrive(journey, 0, people.now, picker(customer))
            if start is None:
                continue
            arm, chance = (HELD_OUT, share) if held else (TREATED, 1 - share)
            known = pack(features, at)
            entrants.append(Entrant(person, entry, arm, chance, before.get(person, 0), start.step, start.due, known))
        if keeps:
            keep()
        return entrants, lines

    def _candidates(self, look: Look, journey: Journey) -> list[tuple[int, int]]:
        """Row and entry of everybody whom the journey is open to."""
        playbook, people = look.playbook, look.people
        known = self._book.last_entries(playbook.name, journey.name)
        inside = (
            members(playbook.segments[journey.segment], people, playbook.segments)
            if journey.segment
            else np.ones(len(people), dtype=bool)
        )
        if not journey.event:
            found = []
            for row in np.flatnonzero(inside).tolist():
                last = known.get(people.persons[row])
                if last is None:
                    found.append((row, 0))
                elif not last.is_active and self._may_again(journey, last.at, people.now):
                    found.append((row, last.times))
            return found
        since = self._book.recall(seen(playbook, journey))
        # An event may be told late; who entered for it already is not let in again.
        begins = int(since) - LATE_EVENTS if since is not None else people.now - journey.goal_span
        events: dict[str, int] = dict(self._book.occurrences(journey.event, begins, people.now))
        return [
            (look.row_of[person], at)
            for person, at in events.items()
            if person in look.row_of
            and inside[look.row_of[person]]
            and (
                (last := known.get(person)) is None
                or (not last.is_active and self._may_again(journey, last.at, at, at))
            )
        ]

    @staticmethod
    def _may_again(journey: Journey, last: int, now: int, event: int | None = None) -> bool:
        if journey.again_after is not None:
            return now >= last + journey.again_after
        return event is not None and event > last

    def _standing_gates(self, look: Look, journey: Journey, some: People, rows: Ints) -> Ints:
        """The gates that are about the person: 0 where they are open on some channel of the journey."""
        playbook = look.playbook
        channels = dict.fromkeys(playbook.channel_of(offer) for step in sends(journey) for offer in step.offers)
        standing = of_rows(look.standing, rows, {})
        found = [gates(playbook, channel, some, standing, moment=False) for channel in channels]
        if not found:
            return np.zeros(len(some), dtype=np.int64)
        table = np.stack(found, axis=1)
        return np.where((table == 0).any(axis=1), 0, table.max(axis=1)).astype(np.int64)

    def _earned_before(self, look: Look, journey: Journey) -> dict[str, int]:
        now = look.people.now
        earned = self._book.earnings(look.playbook.margin_rate, now - journey.goal_span, now)
        return {person: sum(margin for _, margin in some) for person, some in earned.items()}


def seen(playbook: Playbook, journey: Journey) -> str:
    """Under which name it is remembered until when events were looked at."""
    return f"seen:{playbook.name}/{journey.name}"
