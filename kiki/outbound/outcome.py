"""What became of a call to a platform: done, refused, or unknown. There is no fourth, and no third may be left out. Pure.

A call whose fate is unknown may have spent money: its reservation stays until the platform was read back.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class Fate(StrEnum):
    """Whether a call had its effect."""

    DONE = "done"
    """The platform said so, or was read back and shows it."""
    REFUSED = "refused"
    """The platform said no, or the call was proved never to have been sent: nothing happened."""
    UNKNOWN = "unknown"
    """It may have happened: no answer, an answer after the deadline, or one that nobody understands."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The fate of one call, as it goes into the journal and the record."""

    fate: Fate
    value: dict[str, Any] = {}
    """Of a done call: what the platform answered, in our own words and units. JSON only."""
    code: str = ""
    """Of a refusal or an unknown fate: a word of ours (`throttled`, `invalid`, `unauthorized`, `timeout`, …)."""
    message: str = ""
    """What the platform said, without secrets and personal data."""
    retry_at: int | None = None
    """When the platform will listen again, in microseconds since the epoch."""

    @property
    def is_done(self) -> bool:
        """Whether it had its effect."""
        return self.fate is Fate.DONE

    @property
    def is_transient(self) -> bool:
        """Whether it may well be taken later: throttled, the platform is down or answers nonsense, no report is made yet."""
        return self.code in {"throttled", "unavailable", "unreadable", "not_ready"}


def done(**value: Any) -> Outcome:
    """It happened."""
    return Outcome(fate=Fate.DONE, value=value)


def refused(code: str, message: str = "", *, retry_at: int | None = None) -> Outcome:
    """It did not happen."""
    return Outcome(fate=Fate.REFUSED, code=code, message=message, retry_at=retry_at)


def unknown(code: str, message: str = "") -> Outcome:
    """Nobody knows whether it happened."""
    return Outcome(fate=Fate.UNKNOWN, code=code, message=message)
