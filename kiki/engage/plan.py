"""What a run of a playbook would do, or did: one line for each person that was looked at. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import msgspec

from kiki.clock import to_iso
from kiki.engage.decision import Verdict


class Line(NamedTuple):
    """What is decided about one person."""

    customer: str
    person: str
    journey: str
    step: str
    verdict: Verdict
    offer: str = ""
    channel: str = ""
    cost: int = 0
    gain: int = 0
    """Expected, after costs, in micros."""
    propensity: float = 1.0


class Plan(NamedTuple):
    """What would be done now."""

    playbook: str
    version: str
    at: int
    customers: int
    lines: list[Line]
    fallbacks: int
    """Values that are the original's formula, because SyncValue did not tell."""
    room: int | None
    multipliers: dict[str, float]
    """By step what one more unit of budget would add."""

    def counts(self) -> dict[str, int]:
        """How many people got each verdict."""
        return dict(Counter(str(line.verdict) for line in self.lines))


class Run(NamedTuple):
    """What was done."""

    playbook: str
    entered: int
    held_out: int
    verdicts: dict[str, int]
    messages: dict[str, int]
    """By state, of this run."""
    resumed: int
    settled: int


def as_json(plan: Plan) -> dict[str, Any]:
    """A plan as programs read it."""
    made: dict[str, Any] = msgspec.to_builtins(
        {name: value for name, value in plan._asdict().items() if name != "lines"}
    )
    made["at"] = to_iso(plan.at)
    made["lines"] = [{**line._asdict(), "verdict": str(line.verdict)} for line in plan.lines]
    made["verdicts"] = plan.counts()
    return made


def run_json(run: Run) -> dict[str, Any]:
    """A run as programs read it."""
    return {**run._asdict(), "verdicts": dict(run.verdicts), "messages": {str(k): n for k, n in run.messages.items()}}
