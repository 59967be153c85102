"""What the store of runs gives: runs, lanes, what they journaled and told, and the words for how they stand. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from kiki.flow.plan import Plan
from kiki.flow.port import Json

RUNNING: Final = "running"
COMPLETED: Final = "completed"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"


class RunRow(NamedTuple):
    """One run as the store has it."""

    run: str
    plan_name: str
    version: str
    state: str
    made_at: int
    ended_at: int | None
    owner: str
    epoch: int
    leased_until: int


class LaneRow(NamedTuple):
    """One lane of a run."""

    lane: str
    run: str
    campaign: str
    state: str
    result: Json


class Entry(NamedTuple):
    """One journaled answer."""

    key: str
    value: bytes
    told: bool = False
    """A word of the story."""


class Told(NamedTuple):
    """One word of a run's story."""

    number: int
    at: int
    lane: str
    event: str
    detail: dict[str, str | int | bool]


class OpenRun(NamedTuple):
    """What a runner needs to go on with a run."""

    plan: Plan
    settings: Json
    lanes: dict[str, str]
    """By campaign, those that have not ended."""
    journals: dict[str, list[Entry]]
    """By lane, in order."""


class Signal(NamedTuple):
    """A message for a lane that it has not taken yet."""

    number: int
    lane: str
    body: Json


def lane_of(run: str, campaign: str) -> str:
    """The id of a lane."""
    return f"{run}/{campaign}"
