"""How far a stream of changes has been read: the moment of the last change, and who was told of at that moment. Pure.

Systems sort changes by a clock that ticks in seconds, so reading goes on *at* the last moment and leaves out what was
told of it. Nothing younger than the horizon is read: what was written at one moment may be found a little later.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from kiki.clock import SECOND
from kiki.errors import InvalidInput

HORIZON: Final = 30 * SECOND
"""So young a change waits for the next reading."""
TOLD_MAX: Final = 100
"""So many ids of one moment are remembered; the few that are then told again are recognised by their ids."""

Kind = TypeVar("Kind")


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """The place in one stream. `at` is in microseconds; -1: nothing was read."""

    at: int = -1
    told: tuple[str, ...] = ()

    @property
    def is_start(self) -> bool:
        """Whether nothing was read."""
        return self.at < 0

    def is_new(self, at: int, key: str) -> bool:
        """Whether this change was not told of."""
        return at > self.at or (at == self.at and key not in self.told)

    def moved(self, at: int, key: str, *, most: int = TOLD_MAX) -> Mark:
        """The mark behind that change, which is not older than any before it."""
        if at > self.at:
            return Mark(at, (key,))
        return self if at < self.at or key in self.told else Mark(self.at, (*self.told, key)[-most:])


def parse_cursor(text: str, kind: type[Kind], source: str) -> Kind:
    """The cursor that a source wrote; an empty text is the beginning."""
    if not text:
        return kind()
    try:
        return msgspec.json.decode(text.encode(), type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise InvalidInput(
            f"this cursor is not one of {source}", hint="read from the beginning: records are recognised by their ids"
        ) from None


def dump_cursor(cursor: msgspec.Struct) -> str:
    """The cursor as text."""
    return msgspec.json.encode(cursor).decode()
