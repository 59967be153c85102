"""What a new customer is worth: SyncValue's word, or, while it is away, the rule that kiki's first version fell back to.

The rule: the median of the last hundred values that were seen, or 127.50 before there was one, times a factor of the
platform. It is no forecast, and says so: its source is `HEURISTIC_FALLBACK`.
"""

from __future__ import annotations

import statistics
from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from kiki.errors import KikiError
from kiki.flow.plan import Bound
from kiki.money import MICROS

if TYPE_CHECKING:
    from kiki.value.ltv_answer import LtvAnswer
    from kiki.value.ltv_client import AsyncLtvClient

REMEMBERED: Final = 100
BASELINE: Final = 127_500_000
BASELINE_SHARE: Final = 0.3
"""The share of a customer's value that is bid where nobody said another."""
FACTORS: Final = {"linkedin": 1.2, "tiktok": 1.5, "x": 0.75}
"""Of the fallback, by platform; 1 for the others."""
DEADLINE_SECONDS: Final = 0.1
LEVEL: Final = 80


class Source(StrEnum):
    """Where a value comes from, in the words of the old contract."""

    AI_PREDICTION = "AI_PREDICTION"
    HEURISTIC_FALLBACK = "HEURISTIC_FALLBACK"
    MANUAL_OVERRIDE = "MANUAL_OVERRIDE"


class Worth(NamedTuple):
    """A value in micros."""

    micros: int
    source: Source


class CustomerValue:
    """Values by SyncValue; belongs to one event loop."""

    def __init__(self, client: AsyncLtvClient | None, *, seconds: float = DEADLINE_SECONDS) -> None:
        self._client = client
        self._seconds = seconds
        self._seen: deque[int] = deque(maxlen=REMEMBERED)

    async def of_new(self, platform: str, bound: Bound) -> Worth:
        """Of a customer whom a campaign on this platform might win."""
        return await self._asked(None, platform, bound)

    async def of(self, customer: str, platform: str, bound: Bound = Bound.MEAN) -> Worth:
        """Of somebody who is known by id."""
        return await self._asked(customer, platform, bound)

    async def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            await self._client.close()

    async def _asked(self, customer: str | None, platform: str, bound: Bound) -> Worth:
        if self._client is not None:
            try:
                if customer is None:
                    answer = await self._client.predict_new(timeout=self._seconds)
                else:
                    answer = await self._client.predict(customer, timeout=self._seconds)
                micros = _value(answer, bound)
            except (KikiError, OSError):
                micros = None
            if micros is not None:
                self._seen.append(micros)
                return Worth(micros, Source.AI_PREDICTION)
        return Worth(self.fallback(platform), Source.HEURISTIC_FALLBACK)

    def fallback(self, platform: str) -> int:
        """The rule above."""
        middle = statistics.median_low(sorted(self._seen)) if self._seen else BASELINE
        return round(middle * FACTORS.get(platform, 1.0))


def _value(answer: LtvAnswer, bound: Bound) -> int | None:
    """Micros; None where the answer is none: a fallback of the client's, nobody found, or nothing expected."""
    interval = answer.interval(LEVEL)
    value = interval[0] if bound is Bound.LOWER and interval is not None else answer.expected
    known = not answer.is_fallback and value == value and value > 0  # noqa: PLR0124  # not a NaN
    return int(value * MICROS) if known else None
