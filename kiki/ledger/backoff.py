"""How long to wait before something that failed is tried again. Time and chance are arguments."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

FIRST_SECONDS: Final = 1.0
MOST_SECONDS: Final = 300.0


def backoff_seconds(failures: int, chance: float) -> float:
    """The wait after so many failures in a row (1 or more): twice as long each time, up to five minutes.

    `chance`, in [0, 1), takes up to half of it away, so that many who failed together do not come back together.
    """
    doubled = min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** min(failures - 1, 32))
    return doubled * (1 - chance / 2)


class Backoff:
    """Remembers when the next attempt at one thing may begin. One thread uses it; any may read its numbers."""

    def __init__(
        self, steady: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._steady = steady
        self._chance = chance
        self._not_before = steady()
        self.failures = 0
        """How many attempts failed since the process began."""
        self.in_a_row = 0
        """How many of them came after the last success."""

    @property
    def is_ready(self) -> bool:
        """Whether an attempt may begin now."""
        return self._steady() >= self._not_before

    def failed(self) -> float:
        """Count a failure; the seconds until the next attempt."""
        self.failures += 1
        self.in_a_row += 1
        wait = backoff_seconds(self.in_a_row, self._chance())
        self._not_before = self._steady() + wait
        return wait

    def succeeded(self) -> None:
        """The next attempt may begin at once."""
        self.in_a_row = 0
        self._not_before = self._steady()
