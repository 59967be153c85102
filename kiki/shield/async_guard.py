"""The guard for an event loop: the same decider and writer, awaited instead of waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from kiki.ledger.group_commit import AsyncLead
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.decider import Work

Value = TypeVar("Value")


class AsyncGuard:
    """Awaits the decisions of a `BudgetGuard`; make it on the running loop, and call it from there only."""

    def __init__(self, guard: BudgetGuard) -> None:
        self.guard = guard
        # One thread decides and syncs where the loop must not; looking at the guard waits on another.
        self._writer = ThreadPoolExecutor(1, "kiki-writer")
        self._looker = ThreadPoolExecutor(2, "kiki-looker")
        self._ticker = ThreadPoolExecutor(1, "kiki-ticker")
        # A window over the network may take as long as its timeout; only a local one is decided on the loop.
        self._lead = AsyncLead(guard.decider.group, self._writer, quick=guard.decider.books.window.restorable)

    def decide(self, work: Work) -> asyncio.Future[Any]:
        """The durable decision about a call, or the result of a change. Whoever stops waiting does not undo it."""
        return self._lead.submit(work)

    async def look(self, at: Callable[[BudgetGuard], Value]) -> Value:
        """The result of a blocking look at the guard, without holding up the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._looker, at, self.guard)

    async def tick(self) -> None:
        """Let the guard do what must not wait for the next call."""
        await asyncio.get_running_loop().run_in_executor(self._ticker, self.guard.decider.tick)

    async def close(self) -> None:
        """Finish what waits and give the ledger free."""
        await asyncio.get_running_loop().run_in_executor(self._ticker, self.guard.close)
        self._ticker.shutdown()
        self._writer.shutdown()
        self._looker.shutdown(wait=False)
