"""Everybody at one moment, with what the gates ask; and the sides that chance has put people on. Pure.

A side is a keyed hash of the customer's id: the same in every process and after every restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from kiki.engage.decision import Contacts, Ints, Mask, Standing
from kiki.engage.holdout import PARTS, Holdout, Split, draw
from kiki.engage.journey_book import Traveller
from kiki.engage.people import People
from kiki.engage.playbook import Journey, Playbook
from kiki.engage.playbook import Split as SplitStep
from kiki.engage.roster import Roster


class Look(NamedTuple):
    """Everybody, with what the gates ask."""

    playbook: Playbook
    roster: Roster
    standing: Standing
    row_of: Mapping[str, int]

    @property
    def people(self) -> People:
        """Everybody."""
        return self.roster.people


class Due(NamedTuple):
    """Somebody at a step where a message is decided about."""

    traveller: Traveller
    row: int


class Sides:
    """Who is held out, who goes which way of a split, and who gets an offer by chance."""

    def __init__(self, key: bytes, holdout: int) -> None:
        """`holdout`: parts of a million of all customers, whom no playbook reaches."""
        self._key = key
        self.everywhere = Holdout(key, holdout)

    def is_held_out(self, playbook: Playbook, customer: str) -> bool:
        """Whether a playbook may not reach this customer: they are in its control group, or in that of all playbooks."""
        own = Holdout.of_playbook(self._key, playbook.holdout, playbook.name)
        return self.everywhere.holds(customer) or own.holds(customer)

    def held_out_share(self, playbook: Playbook) -> float:
        """The chance of being held out by either."""
        return 1 - (1 - self.everywhere.parts / PARTS) * (1 - playbook.holdout / PARTS)

    def pick(self, playbook: Playbook, journey: Journey, customer: str) -> Callable[[SplitStep], int]:
        """Which way of a split a customer goes."""

        def pick(step: SplitStep) -> int:
            shares = {str(place): share for place, share in enumerate(step.shares)}
            return int(Split(self._key, f"{playbook.name}/{journey.name}/{step.name}", shares).arm_of(customer))

        return pick

    def explorer(self, salt: str) -> Callable[[str], tuple[float, int]]:
        """Of a customer a number in [0, 1) and another, for one step of one journey."""

        def place(customer: str) -> tuple[float, int]:
            number = draw(self._key, f"explore:{salt}", customer)
            return (number >> 11) / (1 << 53), number & 0x7FF

        return place


def by_step(due: Iterable[Due]) -> dict[int, list[Due]]:
    """Who is due at each step, sorted by row and so by customer: ties in the allocation go to the earlier one."""
    found: dict[int, list[Due]] = {}
    for each in sorted(due, key=lambda one: (one.traveller.step, one.row)):
        found.setdefault(each.traveller.step, []).append(each)
    return found


def of_rows(standing: Standing, rows: Ints, place: Mapping[int, int]) -> Standing:
    """What the gates ask about some of the people."""
    contacts = standing.contacts
    kept = np.array([int(row) in place for row in contacts.row.tolist()], dtype=bool)
    mine = np.flatnonzero(kept)
    picked = Contacts(
        np.array([place[int(row)] for row in contacts.row[mine].tolist()], dtype=np.int64),
        [contacts.channel[at] for at in mine.tolist()],
        contacts.at[mine],
        contacts.own[mine],
    )
    masks: dict[str, Mask] = {channel: mask[rows] for channel, mask in standing.suppressed.items()}
    return Standing(standing.consent[rows], masks, standing.held_out[rows], picked, standing.zones_by_country)
