"""All customers as columns, for one look at them: profiles, what happened lately, value and churn from SyncValue.

Nothing sealed is opened for this. Value that SyncValue did not tell is the original's formula, and is counted as such.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from kiki.engage.action_log import ActionLog
from kiki.engage.customer_store import CustomerStore, bare_profile
from kiki.engage.decision import Contacts
from kiki.engage.journey_book import JourneyBook
from kiki.engage.people import Floats, Ints, Mask, People, people_of
from kiki.engage.playbook import Playbook
from kiki.engage.profile import Profile
from kiki.engage.retention import fallback_value
from kiki.engage.segment import needs
from kiki.errors import KikiError
from kiki.money import MICROS
from kiki.telemetry import log_event
from kiki.value.ltv_answer import LtvAnswer

logger = logging.getLogger("kiki.engage")

VALUE_SECONDS = 2.0
"""Of one answer about thousands of customers."""


class Values(Protocol):
    """What is asked of SyncValue: an `LtvClient`."""

    def predict_many(
        self,
        customer_ids: Sequence[str],
        *,
        means_only: bool = False,
        timeout: float | None = None,
        fallback: Any = None,
    ) -> list[LtvAnswer]:
        """The values of these customers, in their order."""
        ...


class Roster(NamedTuple):
    """Everybody, at one moment."""

    people: People
    fallbacks: int
    """How many values are the original's formula and no forecast."""
    email_hash: list[bytes | None]
    phone_hash: list[bytes | None]


def call_the_roll(
    store: CustomerStore,
    log: ActionLog,
    book: JourneyBook,
    playbook: Playbook,
    value: Values | None,
    *,
    only: Collection[str] | None = None,
) -> Roster:
    """Everybody, or `only` these customers."""
    now = store.clock()
    profiles: list[Profile] = []
    persons: list[str] = []
    email: list[bytes | None] = []
    phone: list[bytes | None] = []
    for rows in store.rows():
        for row in rows:
            if only is not None and row[0] not in only:
                continue
            profiles.append(bare_profile(row))
            persons.append(row[1])
            email.append(None if row[5] is None else bytes(row[5]))
            phone.append(None if row[6] is None else bytes(row[6]))
    people = people_of(
        profiles,
        now,
        persons=persons,
        has_email=[each is not None for each in email],
        has_phone=[each is not None for each in phone],
        last_contact=log.last_contacts(),
    )
    events, fields = needs(playbook.segments)
    place = {person: row for row, person in enumerate(persons)}
    for person, (orders, amount) in book.bought().items():
        if person in place:
            people.purchases[place[person]], people.spend[place[person]] = orders, amount
    for kind, within in events:
        people.events[kind, within] = _counts(book.counts(kind, now - within, now), place)
    fallbacks = 0
    if value is not None or fields & {"value", "churn"}:
        fallbacks = tell_values(people, value)
    return Roster(people, fallbacks, email, phone)


def tell_values(people: People, value: Values | None) -> int:
    """Fill in value and churn; how many are the original's formula because SyncValue did not answer."""
    guess = {
        customer: fallback_value(spend / MICROS, score)
        for customer, spend, score in zip(
            people.customers, people.spend.tolist(), people.engagement_score.tolist(), strict=True
        )
    }
    answers: list[LtvAnswer] | None = None
    if value is not None:
        try:
            answers = value.predict_many(people.customers, means_only=True, timeout=VALUE_SECONDS, fallback=None)
        except KikiError as error:
            log_event(
                logger, logging.WARNING, "SyncValue does not answer: the fallback formula is used", problem=str(error)
            )
    if answers is None:
        people.value = np.array([guess[each] for each in people.customers], dtype=np.float64) * MICROS
        return len(people)
    known = [each.source not in {"not_found", "fallback"} for each in answers]
    people.value = MICROS * np.array(
        [
            each.expected if good else guess[people.customers[row]]
            for row, (each, good) in enumerate(zip(answers, known, strict=True))
        ],
        dtype=np.float64,
    )
    people.churn = np.array(
        [np.nan if each.probability_no_purchase is None else each.probability_no_purchase for each in answers],
        dtype=np.float64,
    )
    return len(answers) - sum(known)


def suppressed_on(roster: Roster, store: CustomerStore, channels: Collection[str]) -> dict[str, Mask]:
    """By channel who must not be written to: by id or by an address."""
    known = store.suppressions.all()
    found = {channel: np.zeros(len(roster.people), dtype=bool) for channel in channels}
    if not known:
        return found
    for row, customer in enumerate(roster.people.customers):
        for place in (store.keys.hash("customer", customer), roster.email_hash[row], roster.phone_hash[row]):
            stopped = known.get(place) if place is not None else None
            for channel in found if stopped else ():
                found[channel][row] |= "" in stopped or channel in stopped  # type: ignore[operator]  # not None here
    return found


def contacts_of(people: People, log: ActionLog, playbook: Playbook) -> Contacts:
    """What counts against the playbook's caps and its cooldown."""
    span = max([playbook.cooldown, *(cap.span for cap in playbook.caps)], default=0)
    if not span:
        return Contacts.none()
    place = {person: row for row, person in enumerate(people.persons)}
    rows = [
        (place[person], channel, at, book)
        for person, channel, at, book in log.recent(people.now - span)
        if person in place
    ]
    return Contacts(
        np.array([row[0] for row in rows], dtype=np.int64),
        [row[1] for row in rows],
        np.array([row[2] for row in rows], dtype=np.int64),
        np.array([row[3] == playbook.name for row in rows], dtype=bool),
    )


def features_of(people: People) -> dict[str, Floats]:
    """What is learned from: known before anything is decided."""
    return {
        "days_since_purchase": people.number("days_since_purchase"),
        "days_since_engagement": people.number("days_since_engagement"),
        "purchases": people.number("purchases"),
        "spend": people.number("spend"),
        "engagement_score": people.number("engagement_score"),
        "value": people.number("value"),
        "churn": people.number("churn"),
    }


def _counts(counted: Mapping[str, int], place: Mapping[str, int]) -> Ints:
    found = np.zeros(len(place), dtype=np.int64)
    for person, count in counted.items():
        if person in place:
            found[place[person]] = count
    return found
