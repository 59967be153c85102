"""One worker for all who wait: whatever gathered while the last batch was written goes into the next one.

There is no writer thread and no timer. A caller that needs its result leads if nobody does: it works off all
that waits, its own item included, in one call of `work`; callers that come meanwhile form the next batch, and
the first of them is woken to lead it. Each waits on a lock of its own: on a common one they would wake one
after the other only to find that they are done. From an event loop, `AsyncLead` runs one batch at a time: on
the loop itself while batches are quick, because a thread would fight it for the interpreter's lock, else on a
thread, so that the loop goes on while a slow disk syncs or a network answers.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Generic, TypeVar

from kiki import tracing
from kiki.errors import Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")
Value = TypeVar("Value")

BATCH_MAX = 1024
QUICK_SECONDS = 0.01
"""A batch that takes longer than this is not worked off on an event loop."""
_QUICK_AGAIN_AFTER = 20
_TURNS_MAX = 8


class Ticket(Generic[Item, Result]):
    """An item on its way, and later its result: a future that makes its waiter do the work."""

    __slots__ = ("_group", "done", "error", "future", "item", "lead", "value", "wake")

    def __init__(self, group: GroupCommit[Item, Result], item: Item) -> None:
        self._group = group
        self.item = item
        self.done = False
        self.value: Result | None = None
        self.error: BaseException | None = None
        self.future: asyncio.Future[Result] | None = None
        self.lead: AsyncLead[Item, Result] | None = None
        """Who awaits it on an event loop, together with `future`."""
        self.wake: threading.Lock | None = None
        """Held while a thread waits for this ticket; letting it go wakes that thread to look again."""

    def resolve(self, value: Result) -> None:
        """Called by the worker once the item's result is certain."""
        self.value = value
        self._finish()

    def fail(self, error: BaseException) -> None:
        """Called by the worker when the item has no result."""
        self.error = error
        self._finish()

    def _finish(self) -> None:
        # In this order: a thread that is about to wait shows its lock first and looks at `done` after that.
        self.done = True
        self.nudge()

    def nudge(self) -> None:
        """Make the thread that waits for this ticket, if any, look again whether it is done or should lead."""
        wake = self.wake
        if wake is not None:
            with suppress(RuntimeError):  # it was nudged already and has not looked yet
                wake.release()

    def result(self) -> Result:
        """The result, after waiting for it or working it off; raises what the worker failed it with."""
        if not self.done:
            self._group.lead_until(self)
        if self.error is not None:
            # One error answers many callers: each raises it from here, or its trace would grow for ever.
            raise self.error.with_traceback(None)
        return self.value  # type: ignore[return-value]  # resolved with a Result


class GroupCommit(Generic[Item, Result]):
    """Hands batches of waiting items to `work`, one batch at a time, in the order they came.

    `work` MUST resolve or fail every ticket it is given; when it raises, the tickets that it left open
    fail with that error. Thread-safe.
    """

    def __init__(self, work: Callable[[list[Ticket[Item, Result]]], None], batch_max: int = BATCH_MAX) -> None:
        self._work = work
        self._batch_max = batch_max
        self._leading = threading.Lock()
        self.waiting: deque[Ticket[Item, Result]] = deque()

    def submit(self, item: Item) -> Ticket[Item, Result]:
        """Queue an item; it is worked off when somebody asks for a result."""
        ticket = Ticket(self, item)
        self.waiting.append(ticket)
        return ticket

    def lead(self) -> list[Ticket[Item, Result]]:
        """Work off one batch of what waits and give it back, done; an empty list when nothing waited."""
        try:
            with self._leading:
                return self._run()
        finally:
            self._hand_over()

    def lead_if_free(self) -> bool:
        """Work off one batch unless somebody else is at it; False when somebody is."""
        if not self._leading.acquire(blocking=False):
            return False
        try:
            self._run()
        finally:
            self._leading.release()
            self._hand_over()
        return True

    def lead_until(self, ticket: Ticket[Item, Result]) -> None:
        """Work off batches until `ticket` is done, or wait while another leader does."""
        leading = self._leading
        try:
            while not ticket.done:
                if leading.acquire(blocking=False):
                    try:
                        if not ticket.done:
                            self._run()
                    finally:
                        leading.release()
                        self._hand_over()
                elif ticket.wake is None:
                    ticket.wake = threading.Lock()
                    ticket.wake.acquire()
                    # Once more around: whoever led may have stopped before this lock could be seen.
                else:
                    ticket.wake.acquire()
        except BaseException:
            # Interrupted: nobody waits here any more, so the turn may have to go to somebody else.
            ticket.wake = None
            self._hand_over()
            raise

    def _hand_over(self) -> None:
        """Wake the first thread that waits, so that somebody leads the batch that gathered meanwhile.

        A ticket without a lock has nobody waiting for it yet, or a coroutine, or nobody at all.
        """
        for ticket in tuple(self.waiting):
            if ticket.wake is not None:
                ticket.nudge()
                return

    def drain(self) -> None:
        """Return when everything that was submitted before is done, whoever is working it off."""
        while self.waiting:
            self.lead()
        with self._leading:
            pass
        self._hand_over()

    def exclusively(self, act: Callable[[], Value]) -> Value:
        """Do something while no batch is being worked off."""
        try:
            with self._leading:
                return act()
        finally:
            # Also when it raised: whoever began to wait meanwhile has nobody else to wake it.
            self._hand_over()

    def _run(self) -> list[Ticket[Item, Result]]:
        batch: list[Ticket[Item, Result]] = []
        take = self.waiting.popleft
        try:
            while len(batch) < self._batch_max:
                batch.append(take())
        except IndexError:
            pass
        if not batch:
            return batch
        try:
            self._work(batch)
        except BaseException as error:
            # An interrupt belongs to the thread that leads; the others get an error that they can catch.
            failure = error if isinstance(error, Exception) else Unavailable("the work was interrupted; ask again")
            for ticket in batch:
                if not ticket.done:
                    ticket.fail(failure)
            if failure is not error:
                raise
        finally:
            _tell(batch)
        return batch


def _tell(batch: list[Ticket[Item, Result]]) -> None:
    """Let every event loop that awaits tickets of a batch know, once."""
    awaited: dict[AsyncLead[Item, Result], list[Ticket[Item, Result]]] = {}
    for ticket in batch:
        if ticket.lead is not None:
            awaited.setdefault(ticket.lead, []).append(ticket)
    for lead, tickets in awaited.items():
        lead.told(tickets)


class AsyncLead(Generic[Item, Result]):
    """Lets coroutines of one event loop await what a `GroupCommit` works off.

    `quick` says that a batch waits for nothing but a local disk; then it is led on the loop as long as that is
    fast. Make it on the running loop.
    """

    def __init__(self, group: GroupCommit[Item, Result], executor: Executor, *, quick: bool = False) -> None:
        self._group = group
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._busy = False
        self._quick = quick
        self._slow_for = 0
        """How many batches the executor leads before the loop tries again."""
        self._traced: tracing.Span | None = None
        """Of those who wait, one whose trace is kept: what the batch does is shown there."""

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Queue an item; the future resolves on this loop. Call it from the loop only."""
        future: asyncio.Future[Result] = self._loop.create_future()
        ticket = Ticket(self._group, item)
        ticket.future, ticket.lead = future, self
        self._group.waiting.append(ticket)
        if self._traced is None and (span := tracing.current()) is not None and span.sampled:
            self._traced = span
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._gather, 0, _TURNS_MAX)
        return future

    def _gather(self, seen: int, turns: int) -> None:
        """Start when a turn of the loop brought nobody new: a sync is dear, and those who come together share it."""
        waiting = len(self._group.waiting)
        if waiting > seen and turns:
            self._loop.call_soon(self._gather, waiting, turns - 1)
        else:
            self._start()

    def _start(self) -> None:
        traced, self._traced = self._traced, None
        if self._quick and not self._slow_for:
            started = time.perf_counter()
            with tracing.within(traced):
                led = self._group.lead_if_free()
            if led:
                if time.perf_counter() - started > QUICK_SECONDS:
                    self._slow_for = _QUICK_AGAIN_AFTER
                self._go_on()
                return
        self._slow_for = max(0, self._slow_for - 1)
        try:
            self._executor.submit(self._lead, traced)
        except RuntimeError:  # shut down: the group is closed, and says so to whoever still asks
            try:
                self._group.lead()
            finally:
                self._go_on()

    def _lead(self, traced: tracing.Span | None) -> None:
        try:
            with tracing.within(traced):
                self._group.lead()
        finally:
            self._loop.call_soon_threadsafe(self._go_on)

    def _go_on(self) -> None:
        if self._group.waiting:
            self._loop.call_soon(self._gather, 0, _TURNS_MAX)
        else:
            self._busy = False

    def told(self, tickets: list[Ticket[Item, Result]]) -> None:
        """Called by whichever thread led: these tickets are done."""
        if threading.get_ident() == self._thread:
            self._settle(tickets)
            return
        with suppress(RuntimeError):  # the loop is closed: nobody awaits them any more
            self._loop.call_soon_threadsafe(self._settle, tickets)

    def _settle(self, tickets: list[Ticket[Item, Result]]) -> None:
        for ticket in tickets:
            future = ticket.future
            if future is None or future.done():
                continue
            if ticket.error is not None:
                future.set_exception(ticket.error.with_traceback(None))
            else:
                future.set_result(ticket.value)  # type: ignore[arg-type]  # resolved with a Result
