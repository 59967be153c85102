"""How often one caller may ask. Pure: time is an argument."""

from __future__ import annotations

from typing import Final

CALLERS_MAX: Final = 10_000


class RateLimit:
    """A token bucket per caller: `rate` requests a second, and a burst of one second's worth (at least one).

    The table is bounded: callers that were quiet long enough to have a full bucket are forgotten, and when nobody
    is, whoever is new shares one bucket. A caller in the table is never pushed out, so making up callers frees nobody.
    """

    __slots__ = ("_callers_max", "_full_at", "_interval", "_swept_at", "_tolerance")

    def __init__(self, rate: float, callers_max: int = CALLERS_MAX) -> None:
        """`rate` is in requests per second, above 0."""
        self._interval = 1.0 / rate
        self._tolerance = max(1.0, self._interval) - self._interval
        # When each caller's bucket is full again: one number instead of a level and a time (GCRA).
        self._full_at: dict[str, float] = {}
        self._callers_max = callers_max
        self._swept_at = float("-inf")

    def take(self, caller: str, now: float) -> float:
        """0 when the caller may go on, else the seconds until it may; `now` is in seconds of a steady clock."""
        full_at = self._full_at.get(caller)
        if full_at is None:
            if len(self._full_at) >= self._callers_max and not self._sweep(now):
                caller = ""  # the bucket of everybody who is new
                full_at = self._full_at.get(caller, now)
            else:
                full_at = now
        full_at = max(full_at, now)
        wait = full_at - now - self._tolerance
        if wait > 1e-9:
            return wait
        self._full_at[caller] = full_at + self._interval
        return 0.0

    def _sweep(self, now: float) -> bool:
        """Forget callers whose bucket is full; False when there is still no room. At most once a second."""
        if now - self._swept_at < 1.0:
            return False
        self._swept_at = now
        self._full_at = {caller: full_at for caller, full_at in self._full_at.items() if full_at > now}
        return len(self._full_at) < self._callers_max
