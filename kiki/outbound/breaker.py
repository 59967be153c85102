"""When to leave a platform alone: one breaker per account and operation class. Pure: time is an argument.

Closed, calls go out. After `failures` in a row, or one call that took longer than `slow_seconds`, it opens and nothing is
sent for `open_seconds`. Then one call at a time tries; `successes` of them in a row close it, one failure opens it again.

A failure is a call that was not answered or was answered 5xx. A refusal (4xx) is an answer: it shows that the platform is
there, whatever it thinks of the request.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from kiki.clock import SECOND


class BreakerRule(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker opens and closes."""

    failures: int = 3
    """In a row open it."""
    slow_seconds: float | None = None
    """One answer that took longer opens it; None: slowness alone opens nothing. Ad platforms take seconds to write, and an
    open breaker holds back pauses too, so that 0.5 s, the limit of kiki's first version, is right for fast gateways only."""
    open_seconds: float = 30.0
    """So long nothing is sent."""
    successes: int = 2
    """In a row close it again."""


class BreakerState(StrEnum):
    """What a breaker does with the next call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    """One call at a time may try."""


PROBE_WAIT: Final = SECOND
"""Whoever comes while another call is trying may ask again so much later, in microseconds."""


class Breaker:
    """Moments are microseconds of one clock that does not run backwards."""

    def __init__(self, rule: BreakerRule) -> None:
        self._rule = rule
        self._failed = 0
        self._succeeded = 0
        self._open_until: int | None = None
        self._probing = False
        # A call that began before the breaker last changed says nothing about the time after.
        self._turn = 0

    def state(self, now: int) -> BreakerState:
        """What happens to a call made now."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._open_until else BreakerState.HALF_OPEN

    def admit(self, now: int) -> int | None:
        """A ticket for one call, to be handed back with what became of it; None: send nothing before `retry_at`."""
        state = self.state(now)
        if state is BreakerState.OPEN or (state is BreakerState.HALF_OPEN and self._probing):
            return None
        self._probing = state is BreakerState.HALF_OPEN
        return self._turn

    def retry_at(self, now: int) -> int:
        """When a call that is not admitted now may be."""
        return max(self._open_until or now, now + PROBE_WAIT if self._probing else now)

    def answered(self, ticket: int, now: int, took: int) -> None:
        """The platform answered, whatever it said, after `took` microseconds."""
        slow = self._rule.slow_seconds
        if slow is not None and took > slow * SECOND:
            self._fail(ticket, now, at_once=True)
            return
        if ticket != self._turn:
            return
        self._failed = 0
        self._probing = False
        if self._open_until is not None:
            self._succeeded += 1
            if self._succeeded >= self._rule.successes:
                self._become(None)

    def failed(self, ticket: int, now: int) -> None:
        """There was no answer, or a 5xx."""
        self._fail(ticket, now, at_once=False)

    def given_up(self, ticket: int) -> None:
        """The call ended without a word about the platform: cancelled, or never sent."""
        if ticket == self._turn:
            self._probing = False

    def _fail(self, ticket: int, now: int, *, at_once: bool) -> None:
        if ticket != self._turn:
            return
        self._failed += 1
        if at_once or self._open_until is not None or self._failed >= self._rule.failures:
            self._become(now + round(self._rule.open_seconds * SECOND))

    def _become(self, open_until: int | None) -> None:
        self._open_until = open_until
        self._failed = self._succeeded = 0
        self._probing = False
        self._turn += 1
