"""What one entry says about money, as the auditor's replay counts it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from kiki.money import MICROS_MAX
from kiki.shield.scope import Scopes

SPEND: Final = "spend"
RESERVE: Final = "reserve"
RECORD: Final = "record"
COMMIT: Final = "commit"
RELEASE: Final = "release"
EXPIRE: Final = "expire"


class Money(msgspec.Struct, array_like=True):
    """What one entry says about money. Amounts in micros, moments in microseconds since the epoch."""

    seq: int
    at: int
    recorded_at: int
    verb: str
    taken: list[tuple[int, Scopes]]
    """What was admitted, added up by scopes."""
    unsure: list[tuple[int, Scopes]] = []
    """What may have been."""
    hold: str = ""
    deadline: int | None = None
    charged: int = 0
    epoch: str = ""
    sequence: int = 0


def added_up(amounts: Sequence[tuple[int, Scopes]]) -> list[tuple[int, Scopes]]:
    """Amounts added up by scopes; a sum that no cell holds, which only a forger writes, stays above every limit."""
    sums: dict[Scopes, int] = {}
    for micros, scopes in amounts:
        sums[scopes] = sums.get(scopes, 0) + micros
    return [(min(micros, MICROS_MAX), scopes) for scopes, micros in sums.items()]


def is_hold(text: str) -> bool:
    """Whether this is the id of a reservation."""
    return len(text) == 32 and set(text) <= set("0123456789abcdef")
