"""Keeps the model that is served, and takes over a new one when its files change: whole, or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from kiki.clock import to_iso, wall_micros
from kiki.errors import KikiError, Unavailable
from kiki.telemetry import log_event
from kiki.value.served_model import ServedModel

logger = logging.getLogger(__name__)

_SETTLED_SECONDS: Final = 0.2
"""A file that changed is read when it has not changed for so long, since not everybody replaces files in one step."""


class _Stamp(NamedTuple):
    """Tells one content of a file from another without reading it."""

    inode: int
    size: int
    modified: int


class ModelKeeper:
    """The served model of two files. `load` makes it from them, in a thread; used on one event loop."""

    def __init__(self, model_file: Path, customers_file: Path | None, load: Callable[[], ServedModel]) -> None:
        self._files = [model_file] if customers_file is None else [model_file, customers_file]
        self._load = load
        self._seen: list[_Stamp | None] = []
        self._turn = asyncio.Lock()
        self._served: ServedModel | None = None
        self.there = asyncio.Event()
        """Set from the first model on."""
        self.loaded_at = ""
        """When the model in force was taken over."""
        self.refused: str | None = None
        """Why the latest files were not taken over, None when they were."""
        self.taken = 0
        self.refusals = 0

    @property
    def served(self) -> ServedModel:
        """The model in force; raises `Unavailable` when there is none yet."""
        if self._served is None:
            raise Unavailable(f"there is no model yet: {self.refused or 'it is being loaded'}", retry_after=5.0)
        return self._served

    @property
    def current(self) -> ServedModel | None:
        """The model in force, None when there is none yet."""
        return self._served

    async def start(self) -> None:
        """Load the model. When there is no file yet, it is waited for; raises `KikiError` for one that cannot be used."""
        if not self._files[0].exists():
            self._seen = self._stamps()
            self._miss()
            return
        await self._take(self._stamps())

    async def reload(self) -> None:
        """Take the files over as they are now; raises `KikiError`, and the old model goes on, when they cannot be used."""
        await self._take(self._stamps())

    async def watch(self, seconds: float) -> None:
        """Take over what changes, until cancelled; what cannot be used is logged once, and the old model goes on."""
        while True:
            await asyncio.sleep(seconds)
            stamps = self._stamps()
            if stamps == self._seen:
                continue
            await asyncio.sleep(_SETTLED_SECONDS)
            if stamps != self._stamps():
                continue
            if stamps[0] is None:
                self._seen = stamps
                self._miss()
                continue
            try:
                await self._take(stamps)
            except Exception as error:
                # The watch must outlive whatever is wrong with a file.
                expected = isinstance(error, KikiError)
                log_event(
                    logger,
                    logging.ERROR,
                    "the new model was refused; the old one goes on",
                    problem=str(error),
                    exc_info=None if expected else error,
                )

    def _miss(self) -> None:
        """Say that there is no model file, in place of what was wrong with one that is gone."""
        self.refused = f"{self._files[0]} does not exist; `kiki ltv fit LOG -o {self._files[0]}` makes it"
        said = "waiting for a model file" if self._served is None else "the model file is gone; the old model goes on"
        log_event(logger, logging.WARNING, said, path=str(self._files[0]))

    async def _take(self, stamps: list[_Stamp | None]) -> None:
        async with self._turn:
            self._seen = stamps
            try:
                served = await asyncio.to_thread(self._load)
            except Exception as error:
                self.refusals += 1
                self.refused = str(error)
                raise
            # One assignment: a call has the old model or the new one, never parts of both.
            self._served, self.refused = served, None
            self.there.set()
            self.taken += 1
            self.loaded_at = to_iso(wall_micros())
            log_event(
                logger,
                logging.INFO,
                "model taken over",
                model_version=served.model.model_version,
                known=len(served.table),
            )

    def _stamps(self) -> list[_Stamp | None]:
        return [_stamp(path) for path in self._files]


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return _Stamp(found.st_ino, found.st_size, found.st_mtime_ns)
