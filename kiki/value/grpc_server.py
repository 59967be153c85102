"""A gRPC server from plain functions: bytes in, bytes out, errors of kiki as gRPC's codes, callers by bearer token.

Functions take bytes, not messages, because what cannot be parsed is then refused as any other bad request is, and
because an answer that was written already need not be written again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from kiki import errors, tracing
from kiki.errors import ConfigurationError, Forbidden, KikiError, Unauthenticated
from kiki.settings import ListenSettings
from kiki.telemetry import log_event
from kiki.value.call_metrics import CallMetrics
from kiki.value.open_calls import OpenCalls
from kiki.web import Role, Tokens

logger = logging.getLogger(__name__)

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
CALLS_MAX: Final = 2_000
"""Calls in work at once; one more is refused with RESOURCE_EXHAUSTED, and a client may come back."""

HOLD_SECONDS: Final = 0.1
"""How long a stopping server holds answers back at most: half of a client's usual patience."""
HOLD_BUSY_SECONDS: Final = 2.0
"""The same for one that is behind with its work: what has arrived is only taken when there is a turn for it."""

_TURN_SECONDS: Final = 0.01
_QUIET_TURNS: Final = 3

_CODES: Final[dict[type[KikiError], grpc.StatusCode]] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.AccessDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
}

_OURS: Final = frozenset({"INTERNAL", "UNAVAILABLE", "UNKNOWN"})
"""What a call ends with when it is the service that failed."""

Metadata = Iterable[tuple[str, str | bytes]]


class Place(Protocol):
    """Where a server listens, and what it shows and asks for."""

    @property
    def listen(self) -> ListenSettings:
        """Host, tokens and patience, shared with the HTTP port."""
        ...

    @property
    def port(self) -> int:
        """0 takes any free one."""
        ...

    @property
    def variable(self) -> str:
        """The setting that names the port."""
        ...

    @property
    def tls_cert_file(self) -> Path | None:
        """Its certificate."""
        ...

    @property
    def tls_key_file(self) -> Path | None:
        """Its private key."""
        ...

    @property
    def tls_client_ca_file(self) -> Path | None:
        """Who signed its callers' certificates."""
        ...


@dataclass(frozen=True, slots=True)
class Method:
    """One method: what answers it. `seconds` is how long the caller still waits, None for ever.

    `answer` gets a request's bytes and `seconds`; it may be asynchronous. A `streaming` method is one answer for each
    request, in order.
    """

    service: str
    name: str
    answer: Callable[[bytes, float | None], bytes | Awaitable[bytes]]
    streaming: bool = False
    role: Role = "read"
    """What a caller's token must allow, where tokens are asked for."""

    @property
    def path(self) -> str:
        """As it is called on the wire."""
        return f"/{self.service}/{self.name}"


def code_of(error: BaseException) -> grpc.StatusCode:
    """The code that this error means; INTERNAL for everything that nobody planned for."""
    for kind in type(error).__mro__:
        if code := _CODES.get(kind):
            return code
    return grpc.StatusCode.INTERNAL


class GrpcServer:
    """The methods on one port, beside them the standard health and reflection services."""

    def __init__(self, methods: Iterable[Method], settings: Place, tokens: Tokens | None, metrics: CallMetrics) -> None:
        """Nothing listens yet."""
        self._methods = tuple(methods)
        self._settings = settings
        self._metrics = metrics
        handlers = {each.path: self._handler(each) for each in self._methods}
        self._gate = _Gate(handlers, {each.path: each.role for each in self._methods}, tokens)
        self._health = health.aio.HealthServicer()
        self._server: Any = None
        self._answers: asyncio.Event | None = None
        """Once the server is stopping: set when answers may go."""
        self.port = 0
        """The port that was taken, also when any free one was asked for."""

    async def start(self) -> None:
        """Listen; raises `ConfigurationError` when the port cannot be had or the certificates cannot be used."""
        settings = self._settings
        server = grpc.aio.server(
            maximum_concurrent_rpcs=CALLS_MAX,
            options=[
                # Else two processes could listen on one port, and each would get some of the calls.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ],
        )
        open_calls = OpenCalls()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, open_calls)
        own = (health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflected = reflection.aio.ReflectionServicer((*self._services, *own))
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, open_calls)
        server.add_generic_rpc_handlers((self._gate, open_calls))
        host = settings.listen.host
        address = f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}"
        credentials = _credentials(settings)
        try:
            self.port = (
                server.add_insecure_port(address)
                if credentials is None
                else server.add_secure_port(address, credentials)
            )
        except RuntimeError:
            raise ConfigurationError(
                [
                    f"cannot listen on {address} for gRPC: taken by another process? Set {settings.variable} to another port (0 takes a free one)"
                ]
            ) from None
        await server.start()
        self._server = server

    async def say_serving(self, *, serving: bool) -> None:
        """What the health service answers for the server and for each of its services."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._services):
            await self._health.set(name, status)

    def use_tokens(self, tokens: Tokens | None) -> None:
        """Ask for these tokens from the next call on."""
        self._gate.tokens = tokens

    async def stop(self, seconds: float) -> None:
        """Take no more calls, and answer those in work for at most `seconds`."""
        if self._server is None:
            return
        await self._health.enter_graceful_shutdown()
        # When gRPC stops it cancels the calls that have arrived and were not taken yet, and no client tries again what
        # was cancelled. So answers wait until every call that is on its way was taken: who waits for an answer sends nothing.
        self._answers = asyncio.Event()
        try:
            await self._taken_all(seconds)
            stopping = asyncio.create_task(self._server.stop(seconds))
            await asyncio.sleep(_TURN_SECONDS)
        finally:
            self._answers.set()
        await stopping
        self._server = None

    async def _taken_all(self, seconds: float) -> None:
        """Return when no call has begun for a moment, or when it has lasted too long, `seconds` at most."""
        loop = asyncio.get_running_loop()
        started = now = loop.time()
        quiet = 0
        while quiet < _QUIET_TURNS:
            began, turn = self._metrics.began, now
            await asyncio.sleep(_TURN_SECONDS)
            now = loop.time()
            quiet = quiet + 1 if began == self._metrics.began else 0
            is_behind = now - turn > 2 * _TURN_SECONDS
            if now - started >= min(seconds, HOLD_BUSY_SECONDS if is_behind else HOLD_SECONDS):
                return

    @property
    def _services(self) -> list[str]:
        return list(dict.fromkeys(each.service for each in self._methods))

    def _handler(self, method: Method) -> Any:
        if method.streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream(method))
        return grpc.unary_unary_rpc_method_handler(self._unary(method))

    def _unary(self, method: Method) -> Callable[[bytes, Any], Awaitable[bytes]]:
        answer, path, metrics = method.answer, method.path, self._metrics

        async def unary(data: bytes, context: Any) -> bytes:
            started = perf_counter()
            metrics.in_work += 1
            metrics.began += 1
            status = "OK"
            span = None
            if (tracer := tracing.tracer()) is not None:
                span = tracer.begin(path[1:], tracing.Kind.SERVER, _parent_of(context.invocation_metadata()))
                tracing.enter(span)
            try:
                found = answer(data, context.time_remaining())
                if not isinstance(found, bytes):
                    found = await found
                if self._answers is not None:
                    await self._answers.wait()
                return found
            except asyncio.CancelledError:
                status = "CANCELLED"
                raise
            except Exception as error:
                status = code_of(error).name
                await _refuse(context, error, path)
                raise
            finally:
                metrics.in_work -= 1
                metrics.record(path, status, perf_counter() - started)
                if span is not None:
                    tracing.end(
                        span,
                        {"rpc.system": "grpc", "rpc.method": path, "rpc.grpc.status_code": status},
                        failed=status in _OURS,
                    )

        return unary

    def _stream(self, method: Method) -> Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]:
        # Each request of a stream counts as a call: a stream may last for days.
        unary = self._unary(method)

        async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for data in requests:
                yield await unary(data, context)

        return stream


class _Gate(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Finds the method of a call, and lets in whom the tokens name."""

    def __init__(self, handlers: Mapping[str, Any], roles: Mapping[str, Role], tokens: Tokens | None) -> None:
        self._handlers = handlers
        self._roles = roles
        self.tokens = tokens

    def service(self, handler_call_details: Any) -> Any:
        """The handler of this call; None for a method that is not here."""
        handler = self._handlers.get(handler_call_details.method)
        if handler is None or self.tokens is None:
            return handler
        try:
            role = self._roles[handler_call_details.method]
            _let_in(self.tokens, role, handler_call_details.invocation_metadata)
        except errors.AccessDenied as error:
            return _refusing(error)
        return handler


def _parent_of(metadata: Metadata | None) -> str | None:
    """The trace that a call belongs to, by its metadata."""
    return next((str(value) for name, value in metadata or () if name == tracing.HEADER), None)


def _let_in(tokens: Tokens, role: Role, metadata: Metadata) -> None:
    """Return when the call's bearer token has the role; raise `Unauthenticated` or `Forbidden` else."""
    given = next((value for name, value in metadata if name == "authorization"), "")
    scheme, _, bearer = str(given).partition(" ")
    principal = tokens.find(bearer.strip()) if scheme.lower() == "bearer" else None
    if principal is None:
        raise Unauthenticated("send the metadata 'authorization: Bearer …' with a token that this service knows")
    if role not in principal.roles:
        raise Forbidden(f"{principal.name} lacks the role {role!r}")


def _refusing(error: KikiError) -> Any:
    # As a stream, whatever the method is: that one need not wait for a message that may never come.
    async def stream(_requests: AsyncIterator[bytes], context: Any) -> None:
        await context.abort(code_of(error), str(error))

    return grpc.stream_stream_rpc_method_handler(stream)


async def _refuse(context: Any, error: Exception, path: str) -> None:
    """End the call with what the error means; always raises."""
    code = code_of(error)
    if isinstance(error, KikiError) and code is not grpc.StatusCode.INTERNAL:
        message = str(error) if error.hint is None else f"{error}; {error.hint}"
    else:
        log_event(logger, logging.ERROR, "a call failed", method=path, exc_info=error)
        message = "the call failed; the service's log says why"
    await context.abort(code, message)


def _credentials(settings: Place) -> Any:
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    ca = settings.tls_client_ca_file
    return grpc.ssl_server_credentials(
        [
            (
                _pem(settings.tls_key_file, "KIKI_VALUE_TLS_KEY_FILE"),
                _pem(settings.tls_cert_file, "KIKI_VALUE_TLS_CERT_FILE"),
            )
        ],
        root_certificates=None if ca is None else _pem(ca, "KIKI_VALUE_TLS_CLIENT_CA_FILE"),
        require_client_auth=ca is not None,
    )


def _pem(path: Path, name: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError([f"{name}={path}: {error.strerror or error}"]) from error
    if b"-----BEGIN " not in content:
        raise ConfigurationError([f"{name}={path}: the file is not PEM"])
    return content
