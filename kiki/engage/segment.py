"""Who belongs to a segment: conditions about a customer, joined by all, any and not. Pure.

A condition about something that is not known of a customer is false, also its opposite: who never bought has neither
bought long ago nor just now. `absent` is how one asks for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import reduce
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from kiki.engage.people import People

Mask = npt.NDArray[np.bool_]

NUMBERS: Final = (
    *("days_since_purchase", "days_since_engagement", "days_since_contact", "purchases", "spend", "engagement_score"),
    *("value", "churn"),
)
"""What can be compared with a number: days, counts, money, 0 to 10, money, a share."""
TEXTS: Final = ("tag", "segment", "country", "locale")
EVENTS: Final = ("order", "refund", "clicked", "visited", "opened", "cart_abandoned")
MONEY: Final = frozenset({"spend", "value"})


class Comparison(StrEnum):
    """How a number is compared."""

    OVER = "over"
    AT_LEAST = "at_least"
    UNDER = "under"
    AT_MOST = "at_most"


class NumberIs(msgspec.Struct, frozen=True, tag="number"):
    """A number of the customer's lies within these bounds."""

    field: str
    bounds: tuple[tuple[Comparison, float], ...]


class IsAbsent(msgspec.Struct, frozen=True, tag="absent"):
    """A number is not known, or (`absent=False`) is."""

    field: str
    absent: bool = True


class TextIs(msgspec.Struct, frozen=True, tag="text"):
    """A text is one of these; of tags, at least one is."""

    field: str
    values: tuple[str, ...]


class Happened(msgspec.Struct, frozen=True, tag="happened"):
    """So many events of a kind within a span up to now."""

    event: str
    within: int
    at_least: int = 1


class InSegment(msgspec.Struct, frozen=True, tag="in"):
    """The customer belongs to another segment of the playbook."""

    name: str


class All(msgspec.Struct, frozen=True, tag="all"):
    """Every one of these holds."""

    parts: tuple[Condition, ...]


class AnyOf(msgspec.Struct, frozen=True, tag="any"):
    """At least one of these holds."""

    parts: tuple[Condition, ...]


class Not(msgspec.Struct, frozen=True, tag="not"):
    """This does not hold; true, too, where nothing is known."""

    part: Condition


Condition = NumberIs | IsAbsent | TextIs | Happened | InSegment | All | AnyOf | Not


def members(condition: Condition, people: People, segments: Mapping[str, Condition]) -> Mask:
    """By customer whether the condition holds."""
    return _members(condition, people, segments, {})


def _members(condition: Condition, people: People, segments: Mapping[str, Condition], known: dict[str, Mask]) -> Mask:
    """The same with the segments that were looked at before: forty, each named twice by the next, are a million million looks."""
    if isinstance(condition, All):
        return reduce(np.bitwise_and, [_members(part, people, segments, known) for part in condition.parts])
    if isinstance(condition, AnyOf):
        return reduce(np.bitwise_or, [_members(part, people, segments, known) for part in condition.parts])
    if isinstance(condition, Not):
        return ~_members(condition.part, people, segments, known)
    if isinstance(condition, InSegment):
        if condition.name not in known:
            known[condition.name] = _members(segments[condition.name], people, segments, known)
        return known[condition.name]
    if isinstance(condition, Happened):
        return people.counts(condition.event, condition.within) >= condition.at_least
    if isinstance(condition, TextIs):
        return people.has_text(condition.field, condition.values)
    numbers = people.number(condition.field)
    if isinstance(condition, IsAbsent):
        return np.isnan(numbers) if condition.absent else ~np.isnan(numbers)
    with np.errstate(invalid="ignore"):
        found = np.ones(len(people), dtype=bool)
        for comparison, bound in condition.bounds:
            found &= _compared(numbers, comparison, bound)
    return found


def _compared(numbers: npt.NDArray[np.float64], comparison: Comparison, bound: float) -> Mask:
    if comparison is Comparison.OVER:
        return numbers > bound
    if comparison is Comparison.AT_LEAST:
        return numbers >= bound
    if comparison is Comparison.UNDER:
        return numbers < bound
    return numbers <= bound


def parts_of(condition: Condition) -> Iterator[Condition]:
    """The condition and everything in it."""
    yield condition
    if isinstance(condition, All | AnyOf):
        for part in condition.parts:
            yield from parts_of(part)
    elif isinstance(condition, Not):
        yield from parts_of(condition.part)


def needs(conditions: Mapping[str, Condition]) -> tuple[set[tuple[str, int]], set[str]]:
    """Which counts of events and which fields these conditions ask for."""
    events: set[tuple[str, int]] = set()
    fields: set[str] = set()
    for condition in conditions.values():
        for part in parts_of(condition):
            if isinstance(part, Happened):
                events.add((part.event, part.within))
            elif isinstance(part, NumberIs | IsAbsent | TextIs):
                fields.add(part.field)
    return events, fields
