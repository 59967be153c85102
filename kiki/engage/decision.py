"""Who of many customers gets which offer, and why not: gates first, then what is gained, within the budget. Pure.

The order of the gates is fixed: a person is told the first one that stops them. A gate is about one channel; somebody who
is stopped on every channel of the offers gets the verdict of the gate that was reached last. Who passes them competes for
the budget with what an offer is expected to add for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from kiki.engage.address import EMAIL, SMS
from kiki.engage.allocation import NOTHING, allocate
from kiki.engage.people import People
from kiki.engage.playbook import Cap, Playbook
from kiki.engage.quiet_hours import calendar_start, is_quiet, next_loud, plausible_zones

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Verdict(StrEnum):
    """What was decided about a person, in the order of the gates."""

    CHOSEN = "chosen"
    """They get the offer."""
    TEST_CUSTOMER = "test_customer"
    NO_CONSENT = "no_consent"
    """The shield knows no consent to the playbook's purpose, or a withdrawal."""
    SUPPRESSED = "suppressed"
    """They opted out, complained, bounced, or are being erased."""
    SOURCE_FORBIDS = "source_forbids"
    """The shop or CRM says that they do not want marketing on this channel."""
    NO_ADDRESS = "no_address"
    HELD_OUT = "held_out"
    """They are in a control group, so that there is something to compare with."""
    CAPPED = "capped"
    """They got as many messages lately as they may."""
    COOLING = "cooling"
    """The last message of this playbook was too short a time ago."""
    ZONE_UNKNOWN = "zone_unknown"
    """Wherever they may be, it is always quiet in one of the places."""
    QUIET = "quiet"
    """It is quiet where they are; it is tried again when it is not."""
    NO_GAIN = "no_gain"
    """No offer is expected to add more than it costs."""
    NO_BUDGET = "no_budget"
    """Others gain more from what the budget has left."""


ORDER: Final = tuple(Verdict)
_CODE: Final = {verdict: code for code, verdict in enumerate(ORDER)}
STANDING_GATES: Final = 5
"""The first so many gates are about the person and not about the moment: who is stopped there does not take part."""


class Contacts(NamedTuple):
    """Messages that were reserved or sent lately, one row each."""

    row: Ints
    """Of the person."""
    channel: Sequence[str]
    at: Ints
    own: Mask
    """Whether it was this playbook's."""

    @classmethod
    def none(cls) -> Contacts:
        """Nobody was written to."""
        empty = np.zeros(0, dtype=np.int64)
        return cls(empty, (), empty, np.zeros(0, dtype=bool))


@dataclass(slots=True)
class Standing:
    """What the gates ask, beside the customers themselves."""

    consent: Mask
    suppressed: Mapping[str, Mask]
    """By channel."""
    held_out: Mask
    contacts: Contacts = field(default_factory=Contacts.none)
    zones_by_country: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Decisions(NamedTuple):
    """What was decided, one row for each person."""

    codes: Ints
    """Places in `ORDER`."""
    offer: Ints
    """The place of the offer, -1 for none."""
    propensity: Floats
    """With which chance the person got what they got."""
    quiet_until: Ints
    """When it is no longer quiet, for who is stopped by that; else 0."""
    multiplier: float
    """What one more unit of budget would add."""
    cost: int
    """Micros, of everything that was chosen."""

    def verdict(self, row: int) -> Verdict:
        """The verdict about one person."""
        return ORDER[int(self.codes[row])]


class Explorers(NamedTuple):
    """Who gets an offer by chance, so that the others can be learnt about."""

    share: float
    place: Callable[[str], tuple[float, int]]
    """Of a person: a number in [0, 1) and another that picks the offer."""


def gates(playbook: Playbook, channel: str, people: People, standing: Standing, *, moment: bool = True) -> Ints:
    """By person the gate that stops them on a channel, 0 for none; without `moment` only those about the person."""
    codes = np.zeros(len(people), dtype=np.int64)

    def stop(mask: Mask, verdict: Verdict) -> None:
        codes[(codes == 0) & mask] = _CODE[verdict]

    nobody = np.zeros(len(people), dtype=bool)
    stop(people.is_test, Verdict.TEST_CUSTOMER)
    stop(~standing.consent, Verdict.NO_CONSENT)
    stop(standing.suppressed.get(channel, nobody), Verdict.SUPPRESSED)
    says = {EMAIL: people.email_marketing, SMS: people.sms_marketing}.get(channel)
    reach = {EMAIL: people.has_email, SMS: people.has_phone}.get(channel)
    if says is not None and reach is not None:
        stop(says == 0, Verdict.SOURCE_FORBIDS)
        stop(~reach, Verdict.NO_ADDRESS)
    if not moment:
        return codes
    stop(standing.held_out, Verdict.HELD_OUT)
    numbers, groups = _zone_groups(playbook, people, standing)
    for cap in playbook.caps:
        if cap.channel in {"", channel}:
            stop(_counted(cap, people, standing.contacts, numbers, groups) >= cap.messages, Verdict.CAPPED)
    if playbook.cooldown:
        recent = standing.contacts.own & (standing.contacts.at > people.now - playbook.cooldown)
        stop(np.bincount(standing.contacts.row[recent], minlength=len(people)) > 0, Verdict.COOLING)
    quiet = playbook.quiet_on(channel)
    if quiet is not None:
        loud = [next_loud(quiet, people.now, zones) if is_quiet(quiet, people.now, zones) else 0 for zones in groups]
        stop(np.array([each is None for each in loud], dtype=bool)[numbers], Verdict.ZONE_UNKNOWN)
        stop(np.array([bool(each) for each in loud], dtype=bool)[numbers], Verdict.QUIET)
    return codes


def decide(
    playbook: Playbook,
    offers: Sequence[str],
    people: People,
    standing: Standing,
    margins: Ints,
    *,
    room: int | None = None,
    explorers: Explorers | None = None,
) -> Decisions:
    """A verdict about each of these people, and an offer for those who are chosen.

    `margins` are persons by offers, in micros: what an offer is expected to add when its cost is taken off. `room` is
    what the budget has left (None: there is no limit).
    """
    count = len(people)
    channels = [playbook.channel_of(offer) for offer in offers]
    by_channel = {channel: gates(playbook, channel, people, standing) for channel in dict.fromkeys(channels)}
    stopped = (
        np.stack([by_channel[channel] for channel in channels], axis=1) if count else np.zeros((0, len(offers)), int)
    )
    is_open = stopped == 0
    codes = np.where(is_open.any(axis=1), 0, stopped.max(axis=1, initial=0)).astype(np.int64)
    costs = np.broadcast_to(np.array([playbook.cost_of(offer) for offer in offers], dtype=np.int64), margins.shape)
    gain = np.where(is_open, margins, 0)
    choice = np.full(count, NOTHING, dtype=np.int64)
    propensity = np.ones(count)
    left = room
    explored = np.zeros(count, dtype=bool)
    if explorers is not None and explorers.share > 0 and len(offers) > 1:
        left = _explore(people, explorers, is_open, costs, choice, left)
        explored = choice != NOTHING
    rest = np.where(explored[:, None], 0, gain)
    enough = int(costs.sum()) if left is None else left
    found = allocate(rest, costs, max(enough, 0))
    choice = np.where(explored, choice, found.choice)
    if explorers is not None and len(offers) > 1:
        propensity = _chances(explorers.share, is_open, choice, explored, gain)
    pending = (codes == 0) & (choice == NOTHING)
    codes[pending] = np.where((gain[pending] > 0).any(axis=1), _CODE[Verdict.NO_BUDGET], _CODE[Verdict.NO_GAIN])
    chosen = choice != NOTHING
    cost = int(costs[np.flatnonzero(chosen), choice[chosen]].sum())
    until = _quiet_until(playbook, channels, people, standing, codes)
    return Decisions(codes, choice, propensity, until, found.multipliers[0] if found.multipliers else 0.0, cost)


def _explore(
    people: People, explorers: Explorers, is_open: Mask, costs: Ints, choice: Ints, room: int | None
) -> int | None:
    """Give explorers an offer by chance as long as the budget allows it; what is left of that."""
    for row in np.flatnonzero(is_open.any(axis=1)).tolist():
        place, pick = explorers.place(people.customers[row])
        if place >= explorers.share:
            continue
        possible = np.flatnonzero(is_open[row])
        offer = int(possible[pick % possible.size])
        cost = int(costs[row, offer])
        if room is None or cost <= room:
            choice[row] = offer
            room = None if room is None else room - cost
    return room


def _chances(share: float, is_open: Mask, choice: Ints, explored: Mask, gain: Ints) -> Floats:
    """With which chance everybody got what they got: by exploring, or because it is the best for them."""
    possible = np.maximum(is_open.sum(axis=1), 1)
    best = np.where((gain > 0).any(axis=1), gain.argmax(axis=1), NOTHING) if gain.size else choice
    chances: Floats = np.where(explored & (choice != best), share / possible, 1 - share + share / possible)
    return chances


def _zone_groups(playbook: Playbook, people: People, standing: Standing) -> tuple[Ints, list[tuple[str, ...]]]:
    """By person the number of the group of zones that they may be in: there are few, so the clock is asked seldom."""
    known: dict[tuple[str, str], int] = {}
    groups: list[tuple[str, ...]] = []
    numbers = np.zeros(len(people), dtype=np.int64)
    for row, pair in enumerate(zip(people.zones, people.countries, strict=True)):
        number = known.get(pair)
        if number is None:
            number = known[pair] = len(groups)
            groups.append(plausible_zones(*pair, playbook.zone, standing.zones_by_country))
        numbers[row] = number
    return numbers, groups


def _counted(cap: Cap, people: People, contacts: Contacts, numbers: Ints, groups: list[tuple[str, ...]]) -> Ints:
    """By person how many messages count against a cap."""
    if not len(contacts.row):
        return np.zeros(len(people), dtype=np.int64)
    if cap.calendar:
        # Of several zones the one where the day began first: no message is forgotten too early.
        starts = [min(calendar_start(people.now, cap.calendar, zone) for zone in zones) for zones in groups]
        begins = np.array(starts, dtype=np.int64)[numbers][contacts.row]
        counts = contacts.at >= begins
    else:
        counts = contacts.at > people.now - cap.span
    if cap.channel:
        counts = counts & np.fromiter((each == cap.channel for each in contacts.channel), bool, len(contacts.row))
    return np.bincount(contacts.row[counts], minlength=len(people)).astype(np.int64)


def _quiet_until(playbook: Playbook, channels: Sequence[str], people: People, standing: Standing, codes: Ints) -> Ints:
    until = np.zeros(len(people), dtype=np.int64)
    waiting = np.flatnonzero(codes == _CODE[Verdict.QUIET])
    quiets = [quiet for channel in dict.fromkeys(channels) if (quiet := playbook.quiet_on(channel)) is not None]
    if waiting.size and quiets:
        some = people.take(waiting)
        numbers, groups = _zone_groups(playbook, some, standing)
        ends = [
            min((end for quiet in quiets if (end := next_loud(quiet, people.now, zones)) is not None), default=0)
            for zones in groups
        ]
        until[waiting] = np.array(ends, dtype=np.int64)[numbers]
    return until
