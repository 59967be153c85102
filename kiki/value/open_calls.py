"""Calls that need no proof: health and reflection. There are few at a time, so that nobody's stand in the way of the service's own.

gRPC counts a call as in work from its first header on. Whoever may open as many as there may be at once, and says nothing
more in any of them, would shut everybody else out; so these are counted from there, too.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

OPEN_MAX: Final = 100
"""Open at once. A probe's is over in a moment; only watchers stay."""


class OpenCalls(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Handlers that were added to it as to a server, of which few calls may be open. Other methods are not its own.

    An interceptor could look at all calls instead; each of the service's own would pay for it.
    """

    def __init__(self) -> None:
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._open = 0

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """What generated code calls on a server."""
        self._handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """The same handlers again, for servers that look them up by name."""

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a call, counted; None for a method of somebody else."""
        found = (each.service(handler_call_details) for each in self._handlers)
        handler = next((each for each in found if each is not None), None)
        if handler is None:
            return None
        # As a stream, whatever it is: that one is begun before its first message has come.
        return grpc.stream_stream_rpc_method_handler(
            self._counted(handler), handler.request_deserializer, handler.response_serializer
        )

    def _counted(self, handler: Any) -> Callable[[AsyncIterator[Any], Any], Awaitable[None]]:
        async def stream(requests: AsyncIterator[Any], context: Any) -> None:
            if self._open >= OPEN_MAX:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{OPEN_MAX} calls of this kind are open")
            self._open += 1
            try:
                await _answer(handler, requests, context)
            except DecodeError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this is no message of that method")
            finally:
                self._open -= 1

        return stream


async def _answer(handler: Any, requests: AsyncIterator[Any], context: Any) -> None:
    if handler.request_streaming:
        async for answer in handler.stream_stream(requests, context):
            await context.write(answer)
        return
    async for request in requests:
        found = (handler.unary_stream if handler.response_streaming else handler.unary_unary)(request, context)
        answer = await found if inspect.isawaitable(found) else None
        if answer is not None:
            await context.write(answer)
        return
