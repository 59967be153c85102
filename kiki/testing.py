"""Doubles for tests of code that uses kiki: a clock you move, a guard without a disk, a service without set-up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kiki.clock import SECOND
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.call import Amount
from kiki.shield.policy import Policy


class FakeClock:
    """A clock that stands still until it is moved. Starts at 2026-01-01T00:00:00Z."""

    def __init__(self, now: int = 1_767_225_600 * SECOND) -> None:
        self.now = now

    def __call__(self) -> int:
        """The moment, in microseconds since the epoch."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        if seconds < 0:
            raise ValueError("a guard's clock never runs backwards")
        self.now += round(seconds * SECOND)


def memory_guard(
    limit: Amount | None = None, *, window: str = "60s", policy: Policy | None = None, clock: FakeClock | None = None
) -> BudgetGuard:
    """A real guard over a ledger in memory, by default on a clock that stands still."""
    return BudgetGuard.open(None, limit=limit, window=window, policy=policy, clock=clock or FakeClock())


@dataclass(frozen=True, slots=True)
class RunningShield:
    """A SyncShield that answers at `url`; `guard` is what it decides with."""

    url: str
    guard: BudgetGuard


@contextmanager
def running_shield(
    limit: Amount | None = None, *, window: str = "60s", policy: Policy | None = None
) -> Iterator[RunningShield]:
    """A real SyncShield on a free loopback port, over a ledger in memory, until the block is left."""
    # Services are heavy to load, and most tests need only the guard.
    from kiki.settings import parse_listen
    from kiki.shield.service import ShieldService
    from kiki.web import listening

    guard = BudgetGuard.open(None, limit=limit, window=window, policy=policy)
    started: list[RunningShield] = []
    failed: list[BaseException] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with listening(ShieldService(guard).service(), parse_listen({"PORT": "0"})) as port:
            started.append(RunningShield(port.url, guard))
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as error:  # raised again where the test can see it
            failed.append(error)
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=run, name="running_shield", daemon=True)
    thread.start()
    ready.wait()
    if failed:
        raise failed[0]
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        if failed:
            raise failed[0]
