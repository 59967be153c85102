"""A sandbox in this process, on a thread of its own: for scripts, tests and `kiki campaign`."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Self

from kiki.clock import Clock, wall_micros
from kiki.flow.sandbox.books import Books
from kiki.flow.sandbox.server import sandbox_listening


class LocalSandbox:
    """Eight platforms that cost nothing, at `url`, until it is closed.

    With `path` its books outlast the process, and time goes on in them meanwhile; without, nothing is kept.
    """

    def __init__(
        self,
        path: str | Path = ":memory:",
        *,
        first_day: date | None = None,
        day_seconds: float = 2.0,
        seed: int = 0,
        clock: Clock = wall_micros,
    ) -> None:
        """`first_day` begins now, unless the books have begun already; each day takes `day_seconds`."""
        self._make = (path, first_day or datetime.now(UTC).date(), day_seconds, seed, clock)
        self._listening: Future[str] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="kiki-sandbox", daemon=True)
        self._thread.start()
        self.url = self._listening.result()
        """Where its platforms are reached."""

    def books(self) -> dict[str, Any]:
        """What the platforms themselves have billed, and every write that reached them."""

        async def look() -> dict[str, Any]:
            return self._books.truth()

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(look(), self._loop).result()

    @property
    def today(self) -> date:
        """The day that it is there, in UTC."""

        async def look() -> date:
            return self._books.time.day_at("UTC", self._books.now())

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(look(), self._loop).result()

    def close(self) -> None:
        """Stop answering."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._answer())
        except BaseException as error:
            if self._listening.done():
                raise
            self._listening.set_exception(error)

    async def _answer(self) -> None:
        path, first_day, day_seconds, seed, clock = self._make
        self._loop = asyncio.get_running_loop()
        self._books = Books(path, first_day=first_day, day_seconds=day_seconds, seed=seed, clock=clock)
        try:
            async with sandbox_listening(self._books) as url:
                self._listening.set_result(url)
                await self._over.wait()
        finally:
            self._books.close()
