"""The edge: everything that happens to a request before and after its handler, in one place and one pass.

In this order: request id, Host, path and method, cross-site check, token, rate, role, the handler, and then the
table of errors, the headers and the numbers. One `Edge` stands behind one port, so it knows which one it is.

It sits on aiohttp's `web.Server` and not on its `Application`: that one's router and middleware chain cost about
6 µs of the 20 that a small request takes, for features that are not used here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import logging
import re
import secrets
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from kiki import tracing
from kiki.errors import Forbidden, KikiError, Unauthenticated
from kiki.settings import ListenSettings, is_loopback
from kiki.telemetry import METHODS, log_event, request_id
from kiki.web.gate import Gate
from kiki.web.rate import RateLimit
from kiki.web.refusals import (
    BodyLate,
    BodyTooLarge,
    CrossSite,
    HostWrong,
    MethodNotAllowed,
    RateExceeded,
    RouteUnknown,
    status_of,
)
from kiki.web.reply import SECURITY_HEADERS, Reply, plain, problem, refusal
from kiki.web.request import Request, wants_json
from kiki.web.routes import Entry, Route
from kiki.web.tokens import Principal, Tokens

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("kiki.access")

KEEP_ALIVE_SECONDS: Final = 75.0
HEAD_BYTES_MAX: Final = 128 * 1024
# How long the rest of a refused body is read and thrown away, so that its sender comes to read the refusal.
LINGERING_SECONDS: Final = 5.0
_HOSTS_REMEMBERED_MAX: Final = 256

_SERVER: Final = dict(SECURITY_HEADERS)["Server"]
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _request_ids() -> Callable[[], str]:
    """Makes ids that no other process makes: a random part of the process and a count."""
    prefix, count = secrets.token_hex(8), itertools.count(1)
    return lambda: f"{prefix}-{next(count):x}"


class _Quiet(logging.Filter):
    """Turns aiohttp's reports of unreadable requests into debug lines: anybody could fill the log with them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a record about a request that was no HTTP."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            log_event(logger, logging.DEBUG, "a request could not be read", error=type(error).__name__)
            return False
        return True


_server_logger = logging.getLogger("kiki.web.server")
_server_logger.addFilter(_Quiet())


class _Received(Request):
    """A request whose every answer has our headers, also aiohttp's own to what it could not read."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        set_headers(self, response)
        response.headers["Server"] = _SERVER


class Edge:
    """One port: `public` always asks for a token, the internal one only where there is a token file."""

    def __init__(self, gate: Gate, settings: ListenSettings, tokens: Tokens | None, *, public: bool) -> None:
        if public and tokens is None:
            raise ValueError("the public port needs tokens")
        self.gate = gate
        self.tokens = tokens
        self.public = public
        self.in_flight = 0
        self._settings = settings
        self._fixed = gate.table.fixed
        rate = settings.public_rate if public else settings.rate
        self._rate = RateLimit(rate) if rate else None
        self._new_id = _request_ids()
        # Stands for what is not there: on the public port, who has no token does not even learn what exists.
        self._nowhere = Route("/", gate.nothing)
        self._bind_is_loopback = is_loopback(settings.public_host if public else settings.host)
        self._allowed = frozenset(settings.allowed_hosts)
        self._checks_host = bool(self._allowed) or self._bind_is_loopback
        # Host headers that were found good, so that the common case is one look-up; bounded, as callers choose them.
        self._good_hosts: set[str] = set()
        self._outages: dict[str, tuple[int, int]] = {}

    # What aiohttp calls

    def server(self) -> web.Server:
        """The aiohttp server that listens for this edge."""
        return web.Server(
            self.handle,  # type: ignore[arg-type]  # it is only ever given what `_make_request` makes
            request_factory=self._make_request,
            handler_cancellation=False,  # a caller that hangs up must not undo a decision half-way
            access_log=None,
            logger=_server_logger,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            # Beyond these aiohttp answers by itself, without saying what is accepted; what is merely too long for
            # us must come this far to be refused in our words.
            max_line_size=HEAD_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
            lingering_time=LINGERING_SECONDS,
            auto_decompress=False,  # compressed bodies are refused, so none can be a bomb
        )

    def _make_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> Request:
        request = _Received(
            message,
            payload,
            protocol,
            writer,
            task,
            asyncio.get_running_loop(),
            client_max_size=self._settings.body_bytes_max,
        )
        request.body_seconds_max = self._settings.request_seconds_max
        return request

    async def handle(self, request: Request) -> web.StreamResponse:
        """The answer to one request, whatever happens; called by aiohttp in a task of its own."""
        started = perf_counter()
        gate, headers, method = self.gate, request.headers, request.method
        self.in_flight += 1
        metrics, entry = gate.table.unknown, None
        identity = headers.get("X-Request-Id")
        if identity is None or not _REQUEST_ID.fullmatch(identity):
            identity = self._new_id()
        request.request_id = identity
        request_id.set(identity)  # the task and its context end with the request
        span = None
        if (tracer := tracing.tracer()) is not None:
            span = tracer.begin("request", tracing.Kind.SERVER, headers.get(tracing.HEADER))
            tracing.enter(span)
        try:
            target, _, request.raw_query = request.raw_path.partition("?")
            methods = self._fixed.get(target)
            if methods is None:
                methods = self._search(request, target)
            entry = methods.get(method)
            if entry is None:
                request.always_json = next(iter(methods.values())).always_json
                self._admit(request, self._nowhere)
                raise MethodNotAllowed(", ".join(sorted(methods)))
            metrics = entry.metrics
            request.always_json = entry.always_json
            host = headers.get("Host")
            if self._checks_host and host not in self._good_hosts:
                self._check_host(request, host, entry.route)
            if "Sec-Fetch-Site" in headers or "Origin" in headers:
                self._check_site(request, host, entry.route)
            if self.tokens is not None or self._rate is not None:
                self._admit(request, entry.route)
            response = await entry.handler(request)
        except Exception as error:
            response = self._answer_to(request, error)
        finally:
            self.in_flight -= 1
        if type(response) is not Reply:
            response = self._foreign(request, response)
        if gate.draining:
            response.force_close()
        seconds = perf_counter() - started
        # A method without a route is the caller's own word; they must not add up in the table of numbers.
        metrics.record(method if entry is not None else "OTHER", response.status, seconds)
        if span is not None and span.sampled:
            _end(span, request, entry, response.status)
        if self._settings.access_log:
            self._log_access(request, entry, response.status, seconds)
        return response

    # Before the handler

    def _search(self, request: Request, target: str) -> dict[str, Entry]:
        request.always_json = target.startswith("/v1/")
        methods, params = self.gate.table.search(target)
        if methods is None:
            self._admit(request, self._nowhere)
            raise RouteUnknown
        request.params = params
        return methods

    def _check_host(self, request: Request, host: str | None, route: Route) -> None:
        """Refuse names that are not ours: a web page may have made its own name point at this machine."""
        if route.probe and not self._bind_is_loopback:
            return
        if host is None:
            # HTTP/1.0 without Host: no browser sends that.
            if request.version < (1, 1) and not self._allowed:
                return
            raise HostWrong("the request has no Host header")
        name = _name_of_host(host)
        if name is None or not (name in self._allowed if self._allowed else is_loopback(name)):
            hint = (
                "list it in KIKI_ALLOWED_HOSTS"
                if self._allowed
                else "call it as localhost, or list the name in KIKI_ALLOWED_HOSTS"
            )
            raise HostWrong(f"this service does not answer for the host {host[:80]!r}", hint=hint)
        if len(self._good_hosts) < _HOSTS_REMEMBERED_MAX:
            self._good_hosts.add(host)

    @staticmethod
    def _check_site(request: Request, host: str | None, route: Route) -> None:
        """Refuse what another site's page makes a browser send; a route that proves itself is asked from anywhere."""
        if route.self_proving:
            return
        if request.headers.get("Sec-Fetch-Site", "none").lower() not in {"none", "same-origin"}:
            raise CrossSite
        origin = request.headers.get("Origin")
        if origin is not None and (host is None or origin.lower().partition("://")[2] != host.lower()):
            raise CrossSite

    def _admit(self, request: Request, route: Route) -> None:
        """Token, rate, role, in this order: a caller that guesses tokens is slowed down by its address."""
        if route.self_proving:
            self._take_rate(request, route, None)
            return
        tokens, principal, offered = self.tokens, None, None
        if tokens is not None:
            offered = request.headers.get("Authorization")
            if offered is not None:
                scheme, _, bearer = offered.partition(" ")
                principal = tokens.find(bearer.strip()) if scheme.lower() == "bearer" else None
        request.principal = principal
        self._take_rate(request, route, principal)
        if tokens is None or (offered is None and not self.public and (route.role is None or route.anonymous_inside)):
            return
        if principal is None:
            raise Unauthenticated(
                "this needs a bearer token" if offered is None else "the bearer token is not known",
                hint="send the header Authorization: Bearer <token>",
            )
        if route.role is None or route.role in principal.roles or (route.anonymous_inside and not self.public):
            return
        raise Forbidden(f"this needs the role {route.role!r}, which {principal.name!r} does not have")

    def _take_rate(self, request: Request, route: Route, principal: Principal | None) -> None:
        if self._rate is None or route.probe:
            return
        # A token's name cannot begin with the slash, so no name can stand for an address.
        caller = principal.name if principal is not None else f"/{_network_of(request.remote)}"
        if wait := self._rate.take(caller, perf_counter()):
            raise RateExceeded(wait)

    # After the handler

    def _answer_to(self, request: Request, error: Exception) -> web.StreamResponse:
        if isinstance(error, web.HTTPException):
            return self._http_exception(request, error)
        if isinstance(error, KikiError) and (status := status_of(error)) != 500:
            if status == 503:
                self._log_outage(error)
            reply = refusal(request, error)
            if isinstance(error, BodyTooLarge | BodyLate):
                reply.force_close()  # what is left of the body is no next request
            return reply
        if isinstance(error, ConnectionError) and request.transport is None:
            log_event(logger, logging.DEBUG, "the caller hung up before the answer")
        else:
            log_event(logger, logging.ERROR, "the request failed", exc_info=error, method=request.method)
        detail = "something went wrong here; the log has more under this request id"
        if request.always_json or wants_json(request):
            return problem(request, 500, "internal", detail)
        return plain(f"{detail}: {request.request_id}", 500)

    def _log_outage(self, error: KikiError) -> None:
        """One line a second for each kind of refusal: an outage must not fill the log with what everybody knows."""
        second = int(perf_counter())
        since, count = self._outages.get(error.code, (-1, 0))
        if since == second:
            self._outages[error.code] = (second, count + 1)
            return
        self._outages[error.code] = (second, 0)
        log_event(logger, logging.WARNING, "refused for now", code=error.code, detail=str(error), not_logged=count)

    @staticmethod
    def _http_exception(request: Request, error: web.HTTPException) -> Reply:
        """An exception of aiohttp's own, should a handler raise one, in our form."""
        headers = tuple(
            (name, value) for name, value in error.headers.items() if name not in {"Content-Type", "Content-Length"}
        )
        code = f"http_{error.status}"
        detail = error.text or error.reason
        if request.always_json or wants_json(request):
            return problem(request, error.status, code, detail, headers=headers)
        return plain(detail, error.status, headers)

    @staticmethod
    def _foreign(request: Request, response: object) -> web.StreamResponse:
        """The same headers on aiohttp's own responses; one that was already begun has them from `stream`."""
        if not isinstance(response, web.StreamResponse):
            log_event(logger, logging.ERROR, "a handler returned no response", kind=type(response).__name__)
            return problem(request, 500, "internal", "something went wrong here")
        if not isinstance(response, Reply) and not response.prepared:
            set_headers(request, response)
        return response

    def _log_access(self, request: Request, entry: Entry | None, status: int, seconds: float) -> None:
        log_event(
            access_logger,
            logging.INFO,
            "request",
            method=request.method,
            # The pattern, not the path: a path may hold a customer's id.
            route=entry.route.path if entry is not None else "unknown",
            status=status,
            seconds=round(seconds, 6),
            caller=request.principal.name if request.principal is not None else None,
            port="public" if self.public else "internal",
        )


def _end(span: tracing.Span, request: Request, entry: Entry | None, status: int) -> None:
    """Finish a request's span. The route's pattern and never the path or the query: those may hold a customer's id."""
    method = request.method if request.method in METHODS else "_OTHER"
    attributes: dict[str, tracing.Attribute] = {
        "http.request.method": method,
        "http.response.status_code": status,
        "url.scheme": "http",
    }
    if entry is not None:
        attributes["http.route"] = entry.route.path
        span.name = f"{method} {entry.route.path}"
    else:
        span.name = method
    tracing.end(span, attributes, failed=status >= 500)


def set_headers(request: Request, response: web.StreamResponse) -> None:
    """Give one of aiohttp's own responses the headers that every answer of ours has."""
    for name, value in SECURITY_HEADERS:
        response.headers.setdefault(name, value)
    response.headers["X-Request-Id"] = request.request_id


async def stream(request: Request, content_type: str, headers: Iterable[tuple[str, str]] = ()) -> web.StreamResponse:
    """A begun answer of unknown length: `await response.write(chunk)`, then return it from the handler."""
    response = web.StreamResponse()
    response.headers["Content-Type"] = content_type
    for name, value in headers:
        response.headers[name] = value
    set_headers(request, response)
    await response.prepare(request)
    return response


def _name_of_host(host: str) -> str | None:
    """The name of a Host header in lower case, without its port and without IPv6 brackets; None for nonsense."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{0,5})?", host)
    if not found:
        return None
    if found[1]:
        try:
            return str(ipaddress.IPv6Address(found[1]))
        except ValueError:
            return None
    return found[2].lower().removesuffix(".")


def _network_of(remote: str | None) -> str:
    """Whose bucket an address draws from: itself, or an IPv6 caller's /64, of which it has every address."""
    if remote is None or ":" not in remote:
        return remote or "unknown"
    try:
        address = ipaddress.IPv6Address(remote.partition("%")[0])
    except ValueError:
        return remote
    return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
