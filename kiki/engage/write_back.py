"""Tells the shop or CRM what a playbook sees: segments, value and churn as fields of ours, where they changed since the last time.

A value that is no forecast is not written: somebody would take it for one. Tags are added and never taken away: other
people's tools act on them, and a tag that goes again is one that nobody asked to lose.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

import numpy as np

from kiki.engage.look import Look
from kiki.engage.people import Mask
from kiki.engage.playbook import Playbook
from kiki.engage.retention_engine import RetentionEngine
from kiki.engage.segment import members
from kiki.engage.source import Source
from kiki.outbound.outcome import Fate

AT_ONCE: Final = 500
SEGMENTS: Final = "kiki_segments"
VALUE: Final = "kiki_value"
CHURN: Final = "kiki_churn"
TAG: Final = "kiki-"
"""What the tag of a segment begins with."""


class Written(NamedTuple):
    """How many customers' fields were written, refused, or may have been written."""

    done: int
    refused: int
    unknown: int


def write_back(engine: RetentionEngine, source: Source, playbook: Playbook) -> Written:
    """Write what changed; what was refused or is unknown is written again the next time."""
    look = engine.look(playbook)
    people, theirs = look.people, set(engine.store.customers_of(source.name))
    inside = _segments(look, playbook)
    is_forecast = not look.roster.fallbacks
    fields: dict[str, dict[str, str]] = {}
    for row, customer in enumerate(people.customers):
        if customer not in theirs:
            continue
        told = {SEGMENTS: ",".join(name for name, mask in inside.items() if mask[row])}
        if is_forecast and not np.isnan(people.value[row]):
            told[VALUE] = f"{people.value[row] / 1e6:.2f}"
        if not np.isnan(people.churn[row]):
            told[CHURN] = f"{people.churn[row]:.3f}"
        fields[customer] = told
    person_of = dict(zip(people.customers, people.persons, strict=True))
    place = f"write-back:{source.name}:{playbook.name}"
    texts = {person_of[customer]: repr(sorted(told.items())) for customer, told in fields.items()}
    news = engine.book.news(place, texts)
    changed = [customer for customer in fields if person_of[customer] in news]
    fates: Counter[Fate] = Counter()
    for first in range(0, len(changed), AT_ONCE):
        some = {customer: fields[customer] for customer in changed[first : first + AT_ONCE]}
        outcomes = source.upsert(some)
        fates.update(outcome.fate for outcome in outcomes.values())
        kept = {person_of[c]: texts[person_of[c]] for c, outcome in outcomes.items() if outcome.is_done}
        engine.book.keep_verdicts(place, kept)
    return Written(fates[Fate.DONE], fates[Fate.REFUSED], fates[Fate.UNKNOWN])


def add_tags(engine: RetentionEngine, source: Source, playbook: Playbook) -> Written:
    """Add a tag for each segment to who is in it, once; what was refused or is unknown is told again the next time."""
    look = engine.look(playbook)
    people, theirs = look.people, set(engine.store.customers_of(source.name))
    inside = _segments(look, playbook)
    tags = {
        person: (customer, sorted(f"{TAG}{name}" for name, mask in inside.items() if mask[row]))
        for row, (customer, person) in enumerate(zip(people.customers, people.persons, strict=True))
        if customer in theirs
    }
    place = f"tags:{source.name}:{playbook.name}"
    texts = {person: " ".join(told) for person, (_, told) in tags.items() if told}
    fates: Counter[Fate] = Counter()
    for person in sorted(engine.book.news(place, texts)):
        customer, told = tags[person]
        outcome = source.tag(customer, told)
        fates[outcome.fate] += 1
        if outcome.is_done:
            engine.book.keep_verdicts(place, {person: texts[person]})
    return Written(fates[Fate.DONE], fates[Fate.REFUSED], fates[Fate.UNKNOWN])


def _segments(look: Look, playbook: Playbook) -> dict[str, Mask]:
    return {
        name: members(condition, look.people, playbook.segments)
        for name, condition in sorted(playbook.segments.items())
    }
