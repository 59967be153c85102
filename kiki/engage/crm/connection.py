"""One account of a CRM: it is asked until it answers, waited for when it says so, and what is wrong has a name.

Reading has all the time it needs: a limit that is reached is waited for, and so is a server that is down for a while.
Writing is waited for only where it certainly did not happen; everything else is an outcome.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from kiki.clock import SECOND, Clock, wall_micros
from kiki.errors import SourceUnavailable
from kiki.outbound.blocking_line import BlockingLine
from kiki.outbound.exchange import NOT_FOUND, THROTTLED, UNAUTHORIZED, UNAVAILABLE, Reply, Request
from kiki.outbound.line import Line
from kiki.outbound.outcome import Fate, Outcome

PATIENCE: Final = 900 * SECOND
"""How long one call waits in all for its turn."""
WAITS: Final = (1, 2, 4, 8, 15, 30)
"""Seconds between tries of a read that got no answer; then reading ends, to go on another time."""
THROTTLED_SECONDS: Final = 1.0


class Connection:
    """`credential` names the variable that holds the token, for whoever has to renew it."""

    def __init__(
        self,
        source: str,
        make: Callable[[], Line],
        *,
        credential: str,
        clock: Clock = wall_micros,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._source = source
        self._credential = credential
        self._line = BlockingLine(make)
        self._clock = clock
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"Connection({self._source!r})"

    def ask(self, request: Request) -> Reply:
        """The reply to a read; raises `SourceUnavailable` when none can be had."""
        answer = self._answer(request, WAITS)
        if isinstance(answer, Outcome):
            raise self.failure(answer)
        return answer

    def tell(self, request: Request) -> Reply | Outcome:
        """The reply to a write, or its outcome."""
        return self._answer(request, ())

    def failure(self, outcome: Outcome) -> SourceUnavailable:
        """What ended the reading, as an error with advice."""
        hint = None
        if outcome.code == UNAUTHORIZED:
            hint = f"the token is expired or may not do this: renew {self._credential}; reading goes on where it ended"
        elif outcome.code == NOT_FOUND:
            hint = "check the address and the version of the API"
        wait = None if outcome.retry_at is None else max(0.0, (outcome.retry_at - self._clock()) / SECOND)
        return SourceUnavailable(f"{self._source}: {outcome.message or outcome.code}", retry_after=wait, hint=hint)

    def sleep(self, seconds: float) -> None:
        """Wait, as the caller of this connection waits."""
        self._sleep(seconds)

    def close(self) -> None:
        """Give connections free."""
        self._line.close()

    def _answer(self, request: Request, waits: tuple[int, ...]) -> Reply | Outcome:
        began, failures = self._clock(), 0
        while True:
            answer = self._line.send(request)
            if not isinstance(answer, Outcome) or answer.fate is not Fate.REFUSED:
                return answer
            now = self._clock()
            if answer.code == THROTTLED:
                wait = THROTTLED_SECONDS if answer.retry_at is None else (answer.retry_at - now) / SECOND
            elif answer.code == UNAVAILABLE and failures < len(waits):
                wait, failures = waits[failures], failures + 1
            else:
                return answer
            if now - began + wait * SECOND > PATIENCE:
                return answer
            self._sleep(max(wait, 0.001))
