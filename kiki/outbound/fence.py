"""The last look before something is written elsewhere: whether whoever writes still may.

A lane's lease is read again immediately before every write, and the write must begin while it still holds: a process that was
frozen in between, however shortly before the first byte, sends nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Fence = Callable[[], Awaitable[float]]
"""The moment, on the event loop's clock, up to which a write may begin; raises when it may not begin at all."""

_fence: ContextVar[Fence | None] = ContextVar("kiki_fence", default=None)


@contextmanager
def fenced(fence: Fence) -> Iterator[None]:
    """Every write over a line within this block passes the fence first."""
    token = _fence.set(fence)
    try:
        yield
    finally:
        _fence.reset(token)


def current_fence() -> Fence | None:
    """The fence that writes pass here; None: there is none."""
    return _fence.get()
