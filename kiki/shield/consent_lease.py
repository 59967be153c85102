"""Who may still act on a consent that was looked up elsewhere, and until when: what a revocation waits for.

An enforcer outside this process (a client, a worker) asks for consent and holds the answer for a lease. The one
who answers keeps the latest end of each holder's leases for each person and purpose. A revocation is durable
first, so that no new answer says yes; then it waits until each holder has confirmed or its lease has ended; then
it is acknowledged. For that to be true

- a lease is noted *before* the consent is read that the answer tells (`Leases.grant`, then read);
- an enforcer counts its lease from *before* it asked, and does not act on it later (`kiki.shield.enforcer`);
- a confirmation names the end of the last lease that the enforcer has an answer for. An answer that is still on
  its way belongs to a later lease, so it is waited for; one that comes late with an earlier end is thrown away.

Time is monotonic. Where other processes grant leases of their own over the same store, a revocation waits a full
lease after its commit: nobody's answer can be older.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from kiki.clock import SECOND
from kiki.errors import InvalidInput
from kiki.shield.consent import LEASE

LEASES_MAX: Final = 200_000
HOLDER_LENGTH_MAX: Final = 128

Pair = tuple[str, str]
"""A person's reference and a purpose."""


def monotonic_micros() -> int:
    """Microseconds of a clock that nobody sets."""
    return time.monotonic_ns() // 1000


class Recall(NamedTuple):
    """A revocation waits for a holder to confirm this."""

    subject: str
    purpose: str
    end: int


class _Waiter:
    """One who waits for the leases that there were when it began; later answers say what it wrote."""

    def __init__(self, holders: dict[str, int], floor: int) -> None:
        self.holders = holders
        self.floor = floor
        self.woken: Future[None] = Future()

    @property
    def until(self) -> int:
        return max(self.floor, max(self.holders.values(), default=0))


class Leases:
    """The leases that one grantor has handed out. Thread-safe; its memory is bounded.

    `is_shared`: other grantors work on the same store, and what they have handed out is not known here.
    `follows`: a grantor before this one may have handed out leases until just now.
    """

    def __init__(
        self,
        *,
        is_shared: bool = False,
        follows: bool = False,
        leases_max: int = LEASES_MAX,
        clock: Callable[[], int] = monotonic_micros,
    ) -> None:
        self.is_shared = is_shared
        self._leases_max = leases_max
        self._clock = clock
        self._lock = threading.Lock()
        self._ends: dict[Pair, dict[str, int]] = {}
        self._granted: deque[tuple[int, Pair, str]] = deque()
        """Every grant in the order of its end, so that what has ended is dropped."""
        self._forgotten_until = clock() + LEASE if follows else 0
        """The latest end of the leases that nobody remembers: there was no room, or they are a predecessor's."""
        self._waiters: dict[Pair, list[_Waiter]] = {}

    def grant(self, subject: str, purpose: str, holder: str, now: int | None = None) -> int:
        """Note that `holder` may act on an answer; the end of its lease in microseconds of this clock.

        Call it before reading the consent that the answer tells.
        """
        if not 1 <= len(holder) <= HOLDER_LENGTH_MAX or not holder.isprintable():
            raise InvalidInput(f"the name of a lease's holder is 1 to {HOLDER_LENGTH_MAX} printable characters")
        with self._lock:
            now = self._clock() if now is None else now
            self._drop(now)
            end = now + LEASE
            if len(self._granted) >= self._leases_max:
                # No room to tell who holds what: every revocation waits as if this were its own.
                self._forgotten_until = max(self._forgotten_until, end)
                return end
            pair = subject, purpose
            self._ends.setdefault(pair, {})[holder] = end
            self._granted.append((end, pair, holder))
            return end

    def confirm(self, subject: str, purpose: str, holder: str, end: int) -> None:
        """`holder` will act on no answer whose lease ends at `end` or before."""
        pair = subject, purpose
        with self._lock:
            holders = self._ends.get(pair, {})
            if holders.get(holder, end + 1) <= end:
                self._forget(pair, holder)
            for waiter in self._waiters.get(pair, ()):
                if waiter.holders.get(holder, end + 1) <= end:
                    del waiter.holders[holder]
                    with suppress(InvalidStateError):  # it was told already, or stopped waiting just now
                        waiter.woken.set_result(None)

    def recalls(self, holder: str) -> list[Recall]:
        """What revocations wait for `holder` to confirm now."""
        with self._lock:
            return [
                Recall(*pair, waiter.holders[holder])
                for pair, waiters in self._waiters.items()
                for waiter in waiters
                if holder in waiter.holders
            ]

    @property
    def count(self) -> int:
        """How many grants are remembered."""
        with self._lock:
            self._drop(self._clock())
            return len(self._granted)

    def now(self) -> int:
        """The moment to tell `wait` as `since`, read after the change is durable."""
        return self._clock()

    def wait(self, subject: str, purpose: str, timeout: float | None = None, *, since: int | None = None) -> bool:
        """Return once nobody can act on an earlier answer; False when `timeout` seconds ended before that.

        Call it after the change is durable (at `since`, where that is a while ago). Without a timeout it takes at
        most a lease.
        """
        with self._waiting((subject, purpose), since) as waiter:
            limit = self._limit(timeout)
            while (seconds := self._left(waiter, limit)) > 0:
                with suppress(FutureTimeout):
                    waiter.woken.result(seconds)
            return self._is_over(waiter)

    async def wait_async(
        self, subject: str, purpose: str, timeout: float | None = None, *, since: int | None = None
    ) -> bool:
        """The same on an event loop."""
        with self._waiting((subject, purpose), since) as waiter:
            limit = self._limit(timeout)
            while (seconds := self._left(waiter, limit)) > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.wrap_future(waiter.woken), seconds)
            return self._is_over(waiter)

    def wait_all(self) -> None:
        """Return once nobody can act on any answer from before this call, whoever it is about."""
        with self._lock:
            now = self._clock()
            self._drop(now)
            ends = [end for holders in self._ends.values() for end in holders.values()]
            until = now + LEASE if self.is_shared else max(self._forgotten_until, max(ends, default=0))
        time.sleep(max(0, until - now) / SECOND)

    # -- waiting -------------------------------------------------------------------------------------

    @contextmanager
    def _waiting(self, pair: Pair, since: int | None) -> Iterator[_Waiter]:
        with self._lock:
            now = self._clock()
            self._drop(now)
            # Whatever was read before the change is over a lease after it; the latest lease of a holder may be newer.
            over = (now if since is None else since) + LEASE
            floor = over if self.is_shared else min(over, self._forgotten_until)
            ends = {holder: min(over, end) for holder, end in self._ends.get(pair, {}).items()}
            waiter = _Waiter(ends, floor)
            self._waiters.setdefault(pair, []).append(waiter)
        try:
            yield waiter
        finally:
            with self._lock:
                self._waiters[pair].remove(waiter)
                if not self._waiters[pair]:
                    del self._waiters[pair]

    def _limit(self, timeout: float | None) -> int | None:
        return None if timeout is None else self._clock() + round(timeout * SECOND)

    def _left(self, waiter: _Waiter, limit: int | None) -> float:
        """For how many seconds to sleep before looking again; 0 when there is nothing more to wait for."""
        with self._lock:
            if waiter.woken.done():
                waiter.woken = Future()
            until = waiter.until if limit is None else min(waiter.until, limit)
            return max(0, until - self._clock()) / SECOND

    def _is_over(self, waiter: _Waiter) -> bool:
        with self._lock:
            return waiter.until <= self._clock()

    def _drop(self, now: int) -> None:
        while self._granted and self._granted[0][0] <= now:
            end, pair, holder = self._granted.popleft()
            if self._ends.get(pair, {}).get(holder) == end:
                self._forget(pair, holder)

    def _forget(self, pair: Pair, holder: str) -> None:
        holders = self._ends[pair]
        del holders[holder]
        if not holders:
            del self._ends[pair]
