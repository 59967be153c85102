"""An engine in memory: the journal is a list, time may be a fake's. For tests, dry runs and simulations; nothing survives.

It is also what says in a few lines what every engine must do: a step runs until it was journaled once, then never again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from kiki.flow.port import Act, Json


class Time(Protocol):
    """A clock that can be waited for."""

    def now(self) -> int:
        """Microseconds since the epoch."""
        ...

    async def wait_until(self, moment: int) -> None:
        """Return at that moment."""
        ...


class Journal:
    """What one lane did: results by the place of their question. What differs on the way back is a mistake of the lane."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, bytes]] = []
        self.inbox: list[Json] = []
        """Signals that were sent and not yet taken."""

    def signal(self, **signal: Any) -> None:
        """Send one to the lane."""
        self.inbox.append(signal)


class MemoryPort:
    """A `Port` over a journal; `at` is called with the step and the moment (`before`, `after`) and may raise: a crash."""

    def __init__(self, journal: Journal, time: Time, at: Callable[[str, str], None] | None = None) -> None:
        self._journal = journal
        self._time = time
        self._at = at or (lambda _step, _moment: None)
        self._place = 0

    @property
    def is_resuming(self) -> bool:
        """See `Port`: nothing of this engine outlives its process, so no earlier life can have sent anything."""
        return False

    async def step(self, key: str, act: Act) -> Json:
        """See `Port`."""
        found, value = self._replayed(key)
        if found:
            return value
        self._at(key, "before")
        result = await act()
        self._at(key, "after")
        return self._keep(key, result)

    async def sleep(self, key: str, until: int) -> None:
        """See `Port`."""
        found, _ = self._replayed(key)
        if not found:
            self._at(key, "before")
            while self._time.now() < until:
                await self._time.wait_until(until)
            self._keep(key, {})

    async def signal(self, key: str, until: int | None) -> Mapping[str, Any] | None:
        """See `Port`."""
        found, value = self._replayed(key)
        if not found:
            self._at(key, "before")
            while not self._journal.inbox:
                if until is not None and self._time.now() >= until:
                    break
                await self._time.wait_until(until if until is not None else self._time.now() + _LISTEN)
            value = self._keep(key, {"signal": self._journal.inbox.pop(0)} if self._journal.inbox else {})
        given: Mapping[str, Any] | None = value.get("signal")
        return given

    async def now(self, key: str) -> int:
        """See `Port`."""
        found, value = self._replayed(key)
        return int((value if found else self._keep(key, {"now": self._time.now()}))["now"])

    def _replayed(self, key: str) -> tuple[bool, Json]:
        if self._place == len(self._journal.entries):
            return False, {}
        was, value = self._journal.entries[self._place]
        if was != key:
            raise RuntimeError(f"the lane asked {key!r} where it had asked {was!r}: it is not deterministic")
        self._place += 1
        return True, msgspec.json.decode(value)

    def _keep(self, key: str, value: Json) -> Json:
        data = msgspec.json.encode(value)
        self._journal.entries.append((key, data))
        self._place += 1
        # What a lane gets the first time is what it gets every time: through JSON and back.
        kept: Json = msgspec.json.decode(data)
        return kept


_LISTEN = 1_000_000


class VirtualTime:
    """Time that passes only where somebody waits for it. One waiter at a time."""

    def __init__(self, start: int) -> None:
        self._now = start
        self._due: list[tuple[int, Callable[[], None]]] = []

    def now(self) -> int:
        """Microseconds since the epoch."""
        return self._now

    def at(self, moment: int, act: Callable[[], None]) -> None:
        """Do something when that moment comes."""
        self._due.append((moment, act))
        self._due.sort(key=lambda one: one[0])

    async def wait_until(self, moment: int) -> None:
        """Let time pass up to the next thing that is due, at most to `moment`."""
        await asyncio.sleep(0)
        if self._due and self._due[0][0] <= moment:
            due, act = self._due.pop(0)
            self._now = max(self._now, due)
            act()
            if self._now < moment:
                return
        self._now = max(self._now, moment)
