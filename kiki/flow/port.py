"""What a plan's interpreter needs of an engine, and no more: four verbs. Pure but for the protocol's awaitables.

An engine runs a step at least once and records its first result; after a crash the interpreter runs again from the
beginning and gets recorded results instead of effects. So it must ask the same in the same order every time: it has no
clock, no chance and no state of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

Json = dict[str, Any]
"""What can be journaled: JSON objects of text, whole numbers, true, false, null, lists and objects. No floats."""

Act = Callable[[], Awaitable[Json]]


class Port(Protocol):
    """The engine as one lane of one run sees it. A lane asks one thing at a time."""

    @property
    def is_resuming(self) -> bool:
        """Whether the step that is being done now may have been begun by an earlier life, whose request may still be on its way."""
        ...

    async def step(self, key: str, act: Act) -> Json:
        """The result of `act`, which has run at least once; from the journal if it was there.

        `key` names the step in the journal. What `act` raises is not recorded: the engine tries again later.
        """
        ...

    async def sleep(self, key: str, until: int) -> None:
        """Return at that moment, in microseconds since the epoch, or at once if it has passed; across restarts."""
        ...

    async def signal(self, key: str, until: int | None) -> Mapping[str, Any] | None:
        """The next signal sent to this lane, each once and in order; None: it is `until` and none came."""
        ...

    async def now(self, key: str) -> int:
        """The time, in microseconds since the epoch, as it was when this was first asked."""
        ...
