"""Timing that can be trusted on a noisy machine: rounds of all subjects in turn, the best round of each counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured, the figure, and the goal it is held against."""

    what: str
    figure: str
    goal: str = ""
    met: bool | None = None

    def cells(self) -> list[str]:
        """The row as text."""
        verdict = "" if self.met is None else ("yes" if self.met else "NO")
        return [self.what, self.figure, self.goal, verdict]


def rates(
    subjects: dict[str, Callable[[int], object]], calls: dict[str, int] | int, rounds: int = 7
) -> dict[str, float]:
    """Calls a second of each subject, which is a function that makes `n` calls; the best of several rounds."""
    best = dict.fromkeys(subjects, 0.0)
    for _ in range(rounds):
        for name, run in subjects.items():
            count = calls if isinstance(calls, int) else calls[name]
            start = time.perf_counter()
            run(count)
            best[name] = max(best[name], count / (time.perf_counter() - start))
    return best


def shown(rate: float) -> str:
    """A rate as a person reads it: 1.23 M/s."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if rate >= size:
            return f"{rate / size:.2f} {unit}/s"
    return f"{rate:.0f} /s"
