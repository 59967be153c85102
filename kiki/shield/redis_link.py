"""The link to Redis with its circuit breaker: while it is down nobody waits for it, and a thread in the background mends it.

It also looks whether this Redis may hold budgets at all: one that evicts keys when its memory is full may not.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

from kiki.errors import WindowUnavailable
from kiki.shield.redis_connection import Address, NotReached, OutcomeUnknown, RedisConnection

_DELAY_FIRST = 0.2
_DELAY_MAX = 2.0


class RedisLink:
    """A connection that is there, or that is known not to be. One caller at a time, beside the thread that mends it.

    `greet` is called with each new connection before anybody uses it.
    """

    def __init__(self, address: Address, timeout: float, key: str, greet: Callable[[RedisConnection], None]) -> None:
        """Made without I/O. `key` is one that lies where all are."""
        self._address = address
        self._timeout = timeout
        self._key = key
        self._greet = greet
        self._hosts = ",".join(f"{host}:{port}" for host, port in address.hosts)
        self.down: WindowUnavailable | None = NotReached(f"there is no connection to Redis at {self._hosts} yet")
        """Why nobody may use it; None while it is up."""
        self.evicting: WindowUnavailable | None = None
        """Why this Redis must not hold budgets."""
        self._connection: RedisConnection | None = None
        self._mending = False
        self._mending_lock = threading.Lock()
        self._closed = threading.Event()

    def require(self) -> None:
        """Raise at once while Redis is away; open anew what was hung up meanwhile."""
        if self.down is not None:
            raise self.down
        if self._connection is None or self._connection.is_stale():
            # Hung up while idle, a restart perhaps: nothing was sent, so meeting it anew loses nothing.
            try:
                self.meet()
            except WindowUnavailable as error:
                self.trip(error)
                raise

    @property
    def connection(self) -> RedisConnection:
        """The connection; raises `WindowUnavailable` when there is none."""
        if self._connection is None:
            raise self.down or NotReached(f"there is no connection to Redis at {self._hosts}")
        return self._connection

    def read(self, *arguments: Any) -> Any:
        """A command that only reads."""
        connection = self.connection
        try:
            return connection.call(*arguments)
        except WindowUnavailable as error:
            self.trip(error)
            raise

    def meet(self) -> None:
        """Connect, look at the eviction policy, and greet."""
        connection = RedisConnection(self._address, self._timeout)
        try:
            connection.open(self._key)
            evicting = _eviction(connection)
            self._greet(connection)
        except OutcomeUnknown as error:
            connection.close()
            raise NotReached(str(error), retry_after=error.retry_after) from error
        except BaseException:
            connection.close()
            raise
        if self._closed.is_set():
            connection.close()
            raise NotReached("the shared window was closed")
        if self._connection is not None:
            self._connection.close()
        self._connection = connection
        self.evicting = evicting
        self.down = None
        if evicting is not None:
            self._mend_later()

    def trip(self, error: WindowUnavailable) -> None:
        """Open the breaker: nobody waits for Redis until the thread in the background has met it again."""
        self.down = NotReached(str(error), retry_after=error.retry_after or _DELAY_MAX, hint=error.hint)
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._mend_later()

    def _mend_later(self) -> None:
        with self._mending_lock:
            if not self._mending and not self._closed.is_set():
                self._mending = True
                threading.Thread(target=self._mend, name="kiki-redis", daemon=True).start()

    def _mend(self) -> None:
        delay = _DELAY_FIRST
        while not self._closed.wait(delay * random.uniform(0.75, 1.25)):
            try:
                if self.down is not None:
                    self.meet()
                elif self.evicting is not None:
                    self.evicting = self._eviction_now()
            except WindowUnavailable as error:
                if self.down is not None:
                    self.down = NotReached(str(error), retry_after=error.retry_after or delay, hint=error.hint)
            with self._mending_lock:
                if self.down is None and self.evicting is None:
                    self._mending = False
                    return
            delay = min(_DELAY_MAX, delay * 2)

    def _eviction_now(self) -> WindowUnavailable | None:
        connection = RedisConnection(self._address, self._timeout)
        try:
            connection.open(self._key)
            return _eviction(connection)
        finally:
            connection.close()

    def close(self) -> None:
        """Let go of the connection and stop trying."""
        self._closed.set()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self.down = NotReached("the shared window was closed")


def _eviction(connection: RedisConnection) -> WindowUnavailable | None:
    """Why this Redis must not hold budgets: it would drop them when its memory is full. Read from INFO, never CONFIG."""
    info: bytes = connection.call("INFO", "memory")
    for line in info.decode(errors="replace").splitlines():
        name, _, policy = line.partition(":")
        if name == "maxmemory_policy" and policy.strip().startswith("allkeys-"):
            return WindowUnavailable(
                f"Redis at {connection.name} has the eviction policy {policy.strip()} and may drop budgets, "
                "so nothing is admitted",
                hint="set maxmemory-policy noeviction (volatile-* will do as well)",
                retry_after=_DELAY_MAX,
            )
    return None
