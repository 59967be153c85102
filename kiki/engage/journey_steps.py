"""How somebody goes through the steps of a journey: where they arrive, and when they are looked at there. Pure.

A place is the step that is completed when it is due: a wait when its span is over, a wait for an event at the latest
then, a send at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kiki.engage.playbook import Journey, Jump, Send, Split, Wait, WaitFor

Pick = Callable[[Split], int]
"""Which way of a split somebody goes: the same each time."""


class Place(NamedTuple):
    """A step, and when it is due."""

    step: int
    due: int


def arrive(journey: Journey, step: int, now: int, pick: Pick) -> Place | None:
    """Where somebody comes to rest who goes on to a step at a moment; None: the journey is over."""
    while step < len(journey.steps):
        at = journey.steps[step]
        if isinstance(at, Jump):
            step = at.target
        elif isinstance(at, Split):
            step = at.targets[pick(at)]
        elif isinstance(at, Wait | WaitFor):
            return Place(step, now + at.span)
        else:
            return Place(step, now)
    return None


def complete(journey: Journey, step: int, now: int, pick: Pick, *, happened: bool) -> Place | None:
    """Where somebody goes whose wait is over; `happened`: the event came that was waited for. None: they leave."""
    at = journey.steps[step]
    if isinstance(at, WaitFor) and happened == at.ends:
        return None
    return arrive(journey, step + 1, now, pick)


def is_send(journey: Journey, step: int) -> bool:
    """Whether a message is decided about at this step."""
    return step < len(journey.steps) and isinstance(journey.steps[step], Send)


def sends(journey: Journey) -> list[Send]:
    """Every step at which a message is decided about."""
    return [step for step in journey.steps if isinstance(step, Send)]
