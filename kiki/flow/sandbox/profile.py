"""How a sandbox account behaves: its money, its limits, and the manners of the platform that it plays. Pure.

Numbers are what the platforms publish or are known for, rounded to the careful side; a test may ask for others.
"""

from __future__ import annotations

import re
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from kiki.errors import InvalidInput
from kiki.flow.words import DECIMALS
from kiki.money import MICROS


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One account. Hours are the sandbox's hours, however quickly they pass."""

    currency: str = "USD"
    time_zone: str = "UTC"
    overdelivery: float = 1.0
    """How many times the daily budget is billed on one day at worst."""
    demand: float = 1.0
    """How much of its budget a campaign finds buyers for, on an ordinary day about this share."""
    unique_names: bool = False
    """Whether a second campaign of the same name is refused."""
    honours_keys: bool = False
    """Whether a creation that repeats a key is answered with what the first one made."""
    report_lag_hours: float = 3.0
    """Reports show what was billed so long ago."""
    report_hours: float = 6.0
    """So long after a day's end its report is final."""
    revision: float = 0.01
    """A final report is corrected by up to this share, up or down."""
    revision_hours: float = 36.0
    """So long after the day's end."""

    @property
    def unit(self) -> int:
        """The smallest amount of the currency, in micros: budgets, bids and bills are whole multiples of it."""
        return MICROS // int(10 ** DECIMALS.get(self.currency, 2))


PROFILES: Final[dict[str, Profile]] = {
    "google_ads": Profile(overdelivery=2.0, unique_names=True),
    "meta": Profile(overdelivery=1.75),
    "tiktok": Profile(overdelivery=1.2, honours_keys=True),
    "linkedin": Profile(overdelivery=1.5),
    "microsoft": Profile(overdelivery=2.0, unique_names=True),
    "amazon": Profile(overdelivery=1.25, unique_names=True, report_lag_hours=6.0, report_hours=12.0),
    "x": Profile(overdelivery=1.2),
    "tradedesk": Profile(overdelivery=1.0),
}
"""What every platform is played as."""

_POSITIVE: Final = ("overdelivery",)
_NOT_NEGATIVE: Final = ("demand", "report_lag_hours", "report_hours", "revision", "revision_hours")


def profile_of(platform: str, changes: dict[str, Any]) -> Profile:
    """A platform's profile with some fields of its own; raises `InvalidInput`."""
    if platform not in PROFILES:
        raise InvalidInput(f"the sandbox does not play {platform[:60]!r}; it plays {', '.join(PROFILES)}")
    try:
        made = msgspec.convert({**msgspec.to_builtins(PROFILES[platform]), **changes}, Profile)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the account cannot be set up so: {error}") from None
    check_zone(made.time_zone)
    if not re.fullmatch(r"[A-Z]{3}", made.currency):
        raise InvalidInput(f"{made.currency[:60]!r} is no currency code; write one such as USD")
    wrong = [name for name in _POSITIVE if not 1 <= getattr(made, name) <= 100]
    wrong += [name for name in _NOT_NEGATIVE if not 0 <= getattr(made, name) <= 10_000]
    if made.report_lag_hours > made.report_hours or made.report_hours > made.revision_hours:
        wrong.append("report_lag_hours ≤ report_hours ≤ revision_hours")
    if wrong:
        raise InvalidInput(f"the account cannot be set up so: {', '.join(wrong)} out of range")
    return made


def check_zone(name: str) -> None:
    """Raises `InvalidInput` unless there is a time zone of that name."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(f"no time zone is called {name[:60]!r}; write one such as Europe/Berlin") from None
