"""Days of a plan that last until a test has seen enough of them: on a slow machine nothing of them is missed.

The sandbox and its runner go by the same clock. It goes on as any other does, so slowly that no day ends while a test looks
at it, and leaps when it is told to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any, Self
from unittest.mock import patch

from kiki.clock import SECOND, wall_micros
from kiki.flow import journal_engine
from kiki.flow.campaign_runner import CampaignRunner
from kiki.flow.run_status import RunStatus
from kiki.flow.sandbox.local import LocalSandbox

DAY_SECONDS = 480.0
"""A quarter of an hour, after which a lane tries again what did not work, takes five seconds."""


class OwnTime:
    """`first` begins when this is made. Inside the context lanes notice leaps, however long they meant to sleep."""

    def __init__(self, first: date) -> None:
        self.first = first
        self._leapt = 0
        self._began = wall_micros()
        self._naps = patch.object(journal_engine, "_LONGEST_NAP", 0.02)

    def __enter__(self) -> Self:
        self._naps.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._naps.stop()

    def __call__(self) -> int:
        """The moment, as a clock tells it."""
        return wall_micros() + self._leapt

    def sandbox(self) -> LocalSandbox:
        """A sandbox that goes by this time."""
        return LocalSandbox(first_day=self.first, day_seconds=DAY_SECONDS, clock=self)

    @property
    def runner(self) -> dict[str, Any]:
        """How a runner is opened that goes by it: a leap ends no lease."""
        return {"clock": self, "poll_seconds": 0.02, "lease_seconds": 1e7}

    def leap(self, days: float) -> None:
        """Let time pass at once."""
        self._leapt += round(days * DAY_SECONDS * SECOND)

    def go_to(self, day: date, part: float) -> None:
        """Leap to a part of a day, unless it is later already."""
        wanted = self._began + round(((day - self.first).days + part) * DAY_SECONDS * SECOND)
        self._leapt += max(0, wanted - self())

    def pass_until(self, condition: Callable[[], object]) -> None:
        """Let the days go by until that holds."""
        deadline = time.monotonic() + 100
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            self.leap(0.05)
            time.sleep(0.02)

    def end(self, runner: CampaignRunner, run: str) -> RunStatus:
        """Let the days go by until the run has ended."""
        runner.work()
        self.pass_until(lambda: not runner.status(run).is_running)
        return runner.status(run)

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Let the days go by while somebody else waits for them."""
        over = threading.Event()

        def go_on() -> None:
            while not over.wait(0.02):
                self.leap(0.05)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def live_through(self, runner: CampaignRunner, run: str) -> RunStatus:
        """The whole plan day by day, each of which begins for everybody before it ends for anybody."""
        runner.work()
        plan = runner.plan(run)
        day = plan.starts
        while day <= plan.ends:
            self.go_to(day, 0.1)
            until(lambda day=day: all(lane.active and str(day) in lane.held for lane in runner.status(run).lanes))
            day += timedelta(days=1)
            if day <= plan.ends:
                # The next day's money is asked for ten hours before it begins.
                self.go_to(day - timedelta(days=1), 0.8)
                until(lambda day=day: all(str(day) in lane.held for lane in runner.status(run).lanes))
        return self.end(runner, run)


def until(condition: Callable[[], object], seconds: float = 100) -> None:
    """Wait until that holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
