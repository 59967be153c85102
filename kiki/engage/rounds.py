"""What SyncEngage does by itself, again and again: run its playbooks, look at its source, pass demands of persons on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from kiki.engage.metrics import EngageMetrics
from kiki.engage.playbook_shelf import PlaybookShelf
from kiki.engage.post_room import PostRoom
from kiki.engage.retention_engine import RetentionEngine
from kiki.engage.source import Source
from kiki.engage.sync import sync
from kiki.errors import InvalidInput, KikiError
from kiki.telemetry import log_event

logger = logging.getLogger("kiki.engage")

_PASS_ON_SECONDS: Final = 60.0


class Rounds:
    """Tasks of one event loop. A round that fails is logged, kept in `failure`, and tried again."""

    def __init__(
        self,
        engine: RetentionEngine,
        shelf: PlaybookShelf,
        post_room: PostRoom,
        source: Source | None,
        metrics: EngageMetrics,
        *,
        run_seconds: float,
        poll_seconds: float,
    ) -> None:
        """`run_seconds` 0: playbooks are run when somebody asks for it, and not here."""
        self._engine = engine
        self._shelf = shelf
        self._post_room = post_room
        self._source = source
        self._metrics = metrics
        self._run_seconds = run_seconds
        self._poll_seconds = poll_seconds
        self._tasks: list[asyncio.Task[None]] = []
        self.failure = ""
        """Why the last round did nothing; empty: it did what it should."""
        self.demanded = asyncio.Event()
        """Set when requests of persons are to be made soon."""

    def start(self) -> None:
        """Begin."""
        if self._run_seconds and self._shelf.playbooks():
            self._tasks.append(asyncio.create_task(self._again(self._run_seconds, self._run_all)))
        if self._source is not None:
            self._tasks.append(asyncio.create_task(self._again(self._poll_seconds, self.sync_once)))
        self._tasks.append(asyncio.create_task(self._again(_PASS_ON_SECONDS, self._pass_on, self.demanded)))

    async def stop(self) -> None:
        """End between two steps."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def sync_once(self) -> dict[str, Any]:
        """Take in what is new at the source; raises `InvalidInput` when there is none."""
        if self._source is None:
            raise InvalidInput(
                "no source of customers is set up",
                hint="start the service with SYNCENGAGE_CRM_PROVIDER and what that needs",
            )
        began = time.monotonic()
        done = await asyncio.to_thread(sync, self._source, self._engine.store)
        self._metrics.synced(time.monotonic() - began)
        return done._asdict()

    async def _run_all(self) -> None:
        wrong: InvalidInput | None = None
        for maker in self._shelf.makers():
            try:
                run = await asyncio.to_thread(self._engine.run, maker.playbook, maker)
                await asyncio.to_thread(self._engine.reconcile, maker)
            except InvalidInput as error:  # the playbook's own mistake, which keeps no other from running
                self._metrics.failed()
                wrong = wrong or error
                continue
            except BaseException:
                self._metrics.failed()
                raise
            self._metrics.ran(run.verdicts, run.messages)
        if wrong is not None:
            raise wrong

    async def _pass_on(self) -> None:
        self.demanded.clear()
        await asyncio.to_thread(self._post_room.pass_on)

    async def _again(
        self, seconds: float, work: Callable[[], Awaitable[Any]], sooner: asyncio.Event | None = None
    ) -> None:
        while True:
            try:
                await work()
                self.failure = ""
            except KikiError as error:
                self.failure = str(error)
                log_event(logger, logging.WARNING, "nothing was done; it is tried again", problem=str(error))
            except Exception as error:
                self.failure = type(error).__name__
                log_event(logger, logging.ERROR, "a task failed; it is tried again", exc_info=error)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await (sooner or asyncio.Event()).wait()
