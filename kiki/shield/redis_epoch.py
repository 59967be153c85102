"""The epoch in force, as one process knows it: what it remembers in order to distrust a Redis that lost something.

Each call of the script says what is remembered, and the script decides nothing when its state contradicts that. When
it says so, the question is asked anew here, until both agree. docs/design/redis-window.md has the rules.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kiki.clock import SECOND, Clock
from kiki.errors import WindowUnavailable
from kiki.shield.budget import SLOTS
from kiki.shield.redis_connection import RedisConnection
from kiki.shield.redis_lanes import RedisLanes
from kiki.shield.redis_script import Batch, Call, Reply, StateKeys, evaluate

_WHY = {
    "new": "the shared budget windows were set up just now, and what was spent before cannot be known",
    "emptied": "Redis lost the shared budget windows",
    "older": "Redis came back with an older copy of the shared budget windows",
    "damaged": "a part of the shared budget windows is gone from Redis",
    "clock": "the clock of Redis jumped",
    "replaced": "another process set up new shared budget windows while this one still had spends in the old ones",
    "rebuilding": "the shared budget windows are being counted anew from the ledgers",
}

# How far the server's clock may run ahead of ours, at once and for each microsecond that passed.
_AHEAD_MAX = SECOND // 2
_DRIFT = 1000

_ROUNDS_MAX = 6


class KnownEpoch(NamedTuple):
    """What a process remembers of the shared window from its own ledger."""

    epoch: str
    sequence: int
    """The highest that it was answered in that epoch."""
    at: int = 0
    """The window's time of that answer; 0: not known. An epoch that was over before all windows is no loss."""


class Bounds(NamedTuple):
    """How much the shared state may hold."""

    scopes_max: int
    keys_max: int
    key_retention: int


class AskAgain(WindowUnavailable):
    """The epoch changed while a batch was under way; nothing of it was decided."""


class RedisEpoch:
    """What is known of the epoch in force. `on_moved` counts in a new one what this process has open in the old one."""

    def __init__(
        self,
        chain: str,
        known: KnownEpoch | None,
        keys: StateKeys,
        lanes: RedisLanes,
        bounds: Bounds,
        *,
        is_loopback: bool,
        local_clock: Clock,
        clock: Clock | None,
        on_moved: Callable[[], None],
    ) -> None:
        """`clock` replaces the server's in tests."""
        self.id, self._sequence, self._known_at = known or KnownEpoch("", 0)
        self.number = 0
        """The authority's number of it, once it was counted from the ledgers."""
        self.adopt_due = True
        """What this process has open must be counted in it before anything is decided."""
        self.is_met = False
        self._chain = chain
        self._keys = keys
        self._lanes = lanes
        self._bounds = bounds
        self._is_loopback = is_loopback
        self._local = local_clock
        self._clock = clock
        self._on_moved = on_moved
        self._ready_at = 0
        self._why = ""
        self._anchor: tuple[int, int] | None = None
        """A local moment, and the latest that the server's clock can have shown then."""

    # -- trust ---------------------------------------------------------------------------------------

    def quarantine_left(self) -> float:
        """For how many seconds nothing may be admitted yet."""
        if not self._ready_at or self._anchor is None:
            return 0.0
        return max(0.0, (self._ready_at - self.server_now()) / SECOND)

    def why(self) -> str:
        """Why the windows cannot be trusted yet, as the beginning of a sentence."""
        return _WHY.get(self._why, "the shared budget windows cannot be trusted yet")

    def quarantined(self, left: float) -> str:
        """The sentence."""
        return f"{self.why()}; nothing is admitted for {left:.1f} s, until the longest window has passed"

    def server_now(self) -> int:
        """What the server's clock shows, as far as it is known."""
        if self._clock is not None:
            return self._clock()
        if self._anchor is None:
            return self._local()
        return self._anchor[1] + self._local() - self._anchor[0]

    def _ceiling(self, local: int) -> int | None:
        """The latest that the server's clock may show at the local moment; None before the first contact."""
        if self._anchor is None:
            return None
        since, server = self._anchor
        elapsed = max(0, local - since)
        return server + elapsed + elapsed // _DRIFT + _AHEAD_MAX

    # -- the script ----------------------------------------------------------------------------------

    def settled(
        self, connection: RedisConnection, batch: Batch, asks: Sequence[Any] = (), salt: str = "", **parts: Any
    ) -> Reply:
        """One script call that decides, and a further one for each time that it says it could not yet.

        `salt` is what the asks were encoded with: when another one came into force, they must be asked anew.
        """
        distrust = False
        for _ in range(_ROUNDS_MAX):
            asked_at = self._local()
            reply = self._call(connection, batch, asks, distrust=distrust, **parts)
            if reply.status == "ahead":
                # A call that was held up on its way looks the same to the script; here the two differ.
                ceiling = self._ceiling(self._local())
                distrust = ceiling is not None and reply.now > ceiling
                continue
            distrust = False
            if reply.status == "moved":
                self._anchor = None
                self._note(reply, asked_at)
                if asks:
                    # What we hold open is counted in the new epoch before anything of ours is admitted there.
                    self._on_moved()
                    if reply.salt != salt:
                        raise AskAgain(f"{self.why()}; ask again", retry_after=0.0)
                continue
            self._note(reply, asked_at)
            self._sequence = reply.sequence
            return reply
        raise WindowUnavailable(
            f"the shared budget windows at {connection.name} keep changing",
            hint="look for two Redis servers behind it",
        )

    def _call(
        self,
        connection: RedisConnection,
        batch: Batch,
        asks: Sequence[Any],
        *,
        distrust: bool,
        adopt: Sequence[Any] = (),
        look: Sequence[str] = (),
        halt: Sequence[Any] = (),
        renew: str = "",
        restore: Sequence[Any] = (),
        lift: int = 0,
    ) -> Reply:
        local = self._local()
        ceiling = self._ceiling(local)
        span_max = self._lanes.policy.span_max
        call = Call(
            known=self.id,
            mine=self._sequence,
            known_at=self._known_at,
            outdated=not self.is_met and 0 < self._known_at < local - span_max,
            loopback=self._is_loopback,
            distrust=distrust,
            ceiling=-1 if ceiling is None or distrust else ceiling,
            # Never the same twice: a lost reply may hide that it was used.
            fresh=secrets.token_hex(8),
            salt=self._lanes.secret,
            chain=self._chain,
            now=-1 if self._clock is None else self._clock(),
            slots=SLOTS,
            span_max=span_max,
            scopes_max=self._bounds.scopes_max,
            keys_max=self._bounds.keys_max,
            retention=max(self._bounds.key_retention, span_max),
            windows=batch.windows,
            lanes=batch.lanes,
            asks=asks,
            adopt=adopt,
            look=look,
            halt=halt,
            renew=renew,
            restore=restore,
            lift=lift,
        )
        return evaluate(connection, call, self._keys)

    def _note(self, reply: Reply, asked_at: int) -> None:
        """Remember what a reply says about the epoch and the clock."""
        if reply.epoch != self.id:
            self.id, self._sequence, self.adopt_due = reply.epoch, 0, True
        self.is_met = True
        if reply.salt != self._lanes.secret:
            self._lanes.share(reply.salt)
        self._ready_at, self._why, self.number = reply.ready_at, reply.why, reply.authority
        # The anchor only ever gets tighter, so that a clock cannot creep ahead unseen.
        ceiling = self._ceiling(asked_at)
        if ceiling is None or reply.now < ceiling - _AHEAD_MAX:
            self._anchor = (asked_at, reply.now)
