"""What a fault makes of a call to the sandbox: which of its effect and its answer come, late, twice, garbled or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from kiki.errors import KikiError
from kiki.flow.sandbox.faults import Fault, FaultKind

LATER: Final = web.AppKey("later", set[asyncio.TimerHandle])
"""Effects that come after their caller was cut off."""
_NO_ANSWER: Final = frozenset({FaultKind.LOST_BEFORE, FaultKind.LOST_AFTER, FaultKind.LATE_EFFECT})

Effect = Callable[[], dict[str, Any]]
"""What a call does to the books, and its answer; raises `KikiError` when it is refused."""


async def faulty_answer(
    request: web.Request, fault: Fault, effect: Effect, *, status: int, throttled_seconds: float
) -> web.StreamResponse:
    """The answer, as far as there is one; a throttled caller may come again after so many seconds."""
    before = await _before(request, fault, throttled_seconds)
    if before is not None:
        return before
    if fault.kind is FaultKind.LATE_EFFECT:
        _do_later(request.app, effect, fault.seconds)
        return _cut(request)
    answer = effect()
    if fault.kind is FaultKind.TWICE:
        # Only the second answer arrives; what the second delivery is refused, the first was granted.
        with contextlib.suppress(KikiError):
            answer = effect()
    if fault.kind is FaultKind.LATE_REPLY:
        await asyncio.sleep(fault.seconds)
    if fault.kind is FaultKind.ERROR_AFTER:
        return web.json_response({"error": {"code": "internal", "message": "internal error"}}, status=500)
    if fault.kind is FaultKind.GARBLED:
        return web.Response(text="<html>ok</html>", content_type="text/html", status=status)
    if fault.kind in _NO_ANSWER:
        return _cut(request)
    return web.json_response(answer, status=status)


async def _before(request: web.Request, fault: Fault, throttled_seconds: float) -> web.Response | None:
    """The end of a call that goes wrong before it has an effect."""
    if fault.kind is FaultKind.LATENCY:
        await asyncio.sleep(fault.seconds)
    if fault.kind is FaultKind.THROTTLED:
        seconds = fault.seconds or throttled_seconds
        body = {"error": {"code": "throttled", "message": "too many requests"}}
        return web.json_response(body, status=429, headers={"Retry-After": f"{seconds:.3f}"})
    if fault.kind is FaultKind.ERROR_BEFORE:
        return web.json_response({"error": {"code": "unavailable", "message": "try again later"}}, status=503)
    if fault.kind is FaultKind.ERROR_INSIDE:
        return web.json_response({"error": {"code": "invalid", "message": "refused, with a friendly status"}})
    if fault.kind is FaultKind.LOST_BEFORE:
        return _cut(request)
    return None


def _cut(request: web.Request) -> web.Response:
    """Cut the connection; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _do_later(app: web.Application, effect: Effect, seconds: float) -> None:
    def happen() -> None:
        app[LATER].discard(handle)
        # Nobody waits for its answer any more.
        with contextlib.suppress(KikiError):
            effect()

    handle = asyncio.get_running_loop().call_later(seconds, happen)
    app[LATER].add(handle)


async def forget_later(app: web.Application) -> None:
    """Let nothing happen any more once the server is stopped."""
    for handle in app[LATER]:
        handle.cancel()
