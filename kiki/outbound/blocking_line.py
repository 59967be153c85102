"""A `Line` for threads: the same rules, asked by callers that wait.

All blocking lines of a process share one event loop on one thread of its own, so that a hundred workers keep one
connection pool and one rate budget for each account.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from kiki.outbound.exchange import Reply, Request
from kiki.outbound.line import Line
from kiki.outbound.outcome import Outcome

Answer = TypeVar("Answer")


class BlockingLine:
    """One account's line. Thread-safe; never to be called on an event loop, which it would stop."""

    def __init__(self, make: Callable[[], Line]) -> None:
        """`make` is called on the loop that the line will belong to."""
        self._loop = _shared_loop()
        self._line = self._wait(_made(make))

    def __repr__(self) -> str:
        return f"Blocking{self._line!r}"

    def send(self, request: Request) -> Reply | Outcome:
        """See `Line.send`."""
        return self._wait(self._line.send(request))

    def plain(self, text: str) -> str:
        """See `Line.plain`."""
        return self._line.plain(text)

    def close(self) -> None:
        """Give connections free."""
        self._wait(self._line.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _made(make: Callable[[], Line]) -> Line:
    return make()


_starting = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}


def _shared_loop() -> asyncio.AbstractEventLoop:
    """This process's; a child that was forked makes its own."""
    with _starting:
        process = os.getpid()
        if process not in _loops:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="kiki-outbound", daemon=True).start()
            _loops[process] = loop
        return _loops[process]
