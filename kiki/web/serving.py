"""Runs a service: reserves its ports, answers until it is told to stop, and then loses nothing.

How it stops (SIGTERM or SIGINT):

1. /readyz says 503 from the same moment, so that whoever balances load looks elsewhere.
2. The connections that the kernel holds for us are accepted, and in the same breath the ports are closed.
3. Open connections may send one more request; its answer closes them. Those that stay quiet are closed after a moment.
4. Requests in flight are answered, for at most KIKI_DRAIN_SECONDS.
5. `on_close` runs, and the process ends with 0. A second signal ends it at once, with 128 + its number.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from kiki import otlp
from kiki.errors import ConfigurationError
from kiki.settings import ListenSettings, is_loopback
from kiki.telemetry import log_event
from kiki.web.edge import Edge
from kiki.web.gate import Gate
from kiki.web.routes import Service
from kiki.web.tokens import Tokens, load_tokens

logger = logging.getLogger(__name__)

BACKLOG: Final = 1024
# How long a quiet connection is kept while draining. Its client may be about to send: closing it at once would
# lose that request, and a client that is not told (HTTP/1.1 has no way) cannot know whether it was taken.
QUIET_SECONDS: Final = 0.5
_POLL_SECONDS: Final = 0.01
_QUIET_TURNS: Final = 2


@dataclass(slots=True)
class Port:
    """One reserved port and, once it listens, what stands behind it.

    `host` is the address that is bound, `number` the real port, also when any free one was asked for.
    """

    edge: Edge
    sockets: list[socket.socket]
    http: web.Server
    host: str
    number: int
    servers: list[asyncio.AbstractServer] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the port is reached, for logs and tests."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  # compared, not bound
        return f"http://[{host}]:{self.number}" if ":" in host else f"http://{host}:{self.number}"

    async def listen(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        for one in self.sockets:
            self.servers.append(await loop.create_server(self.http, sock=one, backlog=BACKLOG))

    async def stop_accepting(self) -> None:
        """Take what the kernel has accepted for us, and close the port."""
        loop = asyncio.get_running_loop()
        accepted: list[socket.socket] = []
        for one in self.sockets:
            # Closing a listening socket resets the connections in its queue, and with them the requests that
            # their clients may have sent already. Nothing else runs between this loop and the close.
            with contextlib.suppress(OSError):
                while self.servers:
                    connection, _ = one.accept()
                    connection.setblocking(False)
                    accepted.append(connection)
        for server in self.servers:
            server.close()
        for connection in accepted:
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(self.http, connection)

    def close(self) -> None:
        """Give up a port that is reserved and does not listen yet."""
        for one in self.sockets:
            one.close()

    def unfinished(self) -> int:
        """How many connections still have a request in work or an answer under way."""
        sending = sum(
            1
            for connection in self.http.connections
            if connection.transport is not None and connection.transport.get_write_buffer_size()
        )
        return self.edge.in_flight + sending


class Listening:
    """A service that answers. Made by `listening`; `drain` is what leaving that context does first."""

    def __init__(self, gate: Gate, ports: list[Port], settings: ListenSettings) -> None:
        self.gate = gate
        self._ports = ports
        self._settings = settings

    @property
    def port(self) -> int:
        """The internal port's number."""
        return self._ports[0].number

    @property
    def public_port(self) -> int | None:
        """The public port's number, None without one."""
        return self._ports[1].number if len(self._ports) > 1 else None

    @property
    def url(self) -> str:
        """Where the internal port is reached."""
        return self._ports[0].url

    @property
    def public_url(self) -> str | None:
        """Where the public port is reached."""
        return self._ports[1].url if len(self._ports) > 1 else None

    def use_tokens(self, tokens: Tokens) -> None:
        """Ask for these tokens from the next request on."""
        for port in self._ports:
            port.edge.tokens = tokens

    def _unfinished(self) -> int:
        return sum(port.unfinished() for port in self._ports)

    async def drain(self) -> None:
        """Answer what was taken, take nothing more, and close every connection."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        quiet_until = started + min(QUIET_SECONDS, self._settings.drain_seconds)
        deadline = started + self._settings.drain_seconds
        self.gate.draining = True
        if self.gate.service.on_drain is not None:
            await self.gate.service.on_drain()
        for port in self._ports:
            await port.stop_accepting()
        # Turns of the loop in which what has arrived is read, and new connections are begun.
        await asyncio.sleep(_POLL_SECONDS)
        quiet_turns = 0
        while (now := loop.time()) < deadline and any(port.http.connections for port in self._ports):
            # Twice in a row: where this process had to wait for a processor, the first look may come before what has
            # arrived meanwhile was read.
            quiet_turns = quiet_turns + 1 if now >= quiet_until and not self._unfinished() else 0
            if quiet_turns == _QUIET_TURNS:
                break
            await asyncio.sleep(_POLL_SECONDS)
        if lost := self._unfinished():
            log_event(logger, logging.ERROR, "requests were cut off at the end of KIKI_DRAIN_SECONDS", requests=lost)
        for port in self._ports:
            # From here on aiohttp drops what arrives, so it comes only after the last answer.
            port.http.pre_shutdown()
            await port.http.shutdown(_POLL_SECONDS)


@contextlib.asynccontextmanager
async def listening(
    service: Service, settings: ListenSettings, tokens: Tokens | None = None
) -> AsyncIterator[Listening]:
    """A service that listens while the context is open, without signals; leaving it drains and closes the service.

    Raises `ConfigurationError` when a port cannot be had, before the service is started.
    """
    gate = Gate(service)
    ports = [_reserve(gate, settings, tokens, public=False)]
    try:
        if settings.public_port is not None:
            ports.append(_reserve(gate, settings, tokens, public=True))
        if service.on_start is not None:
            await service.on_start()
    except BaseException:
        for port in ports:
            port.close()
        raise
    running = Listening(gate, ports, settings)
    try:
        for port in ports:
            await port.listen()
        _say(service, running, settings, tokens)
        yield running
    finally:
        try:
            await running.drain()
        finally:
            if service.on_close is not None:
                await service.on_close()


def build_server(
    service: Service, settings: ListenSettings, tokens: Tokens | None = None, *, public: bool = False
) -> web.Server:
    """One port's aiohttp server without sockets, signals or the service's hooks."""
    return Edge(Gate(service), settings, tokens, public=public).server()


def _reserve(gate: Gate, settings: ListenSettings, tokens: Tokens | None, *, public: bool) -> Port:
    if public and tokens is None:
        raise ConfigurationError(["KIKI_PUBLIC_PORT: the public port demands bearer tokens, and there are none"])
    name = "KIKI_PUBLIC_PORT" if public else "PORT"
    host = settings.public_host if public else settings.host
    number = (settings.public_port or 0) if public else settings.port
    edge = Edge(gate, settings, tokens, public=public)
    sockets = _bind(host, number, name)
    address = sockets[0].getsockname()
    return Port(edge, sockets, edge.server(), str(address[0]), int(address[1]))


def _bind(host: str, number: int, name: str) -> list[socket.socket]:
    """Sockets on every address of `host`, all with the same port; nothing is accepted yet."""
    try:
        found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigurationError([f"the host {host!r} that {name} is to listen on is unknown: {error}"]) from error
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            where = (address[0], sockets[0].getsockname()[1] if sockets else number, *address[2:])
            try:
                one = socket.socket(family, kind, protocol)
            except OSError:
                continue  # a machine without IPv6
            try:
                one.setblocking(False)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind(where)
            except OSError as error:
                one.close()
                # `localhost` may have an IPv6 address that the machine does not.
                if error.errno == errno.EADDRNOTAVAIL and len(found) > 1:
                    continue
                raise
            sockets.append(one)
    except OSError as error:
        for one in sockets:
            one.close()
        raise ConfigurationError([_why_not(error, host, number, name)]) from error
    if not sockets:
        raise ConfigurationError([f"the host {host!r} that {name} is to listen on is no address of this machine"])
    return sockets


def _why_not(error: OSError, host: str, number: int, name: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {number} on {host} is taken by another process: stop it, or set {name} to another port (0 takes a free one)"
    if error.errno == errno.EACCES:
        return f"port {number} on {host} needs privileges: set {name} to a port above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine, so {name}={number} cannot listen on it"
    return f"cannot listen on port {number} of {host} ({name}): {error.strerror or error}"


def _say(service: Service, running: Listening, settings: ListenSettings, tokens: Tokens | None) -> None:
    log_event(
        logger,
        logging.INFO,
        "listening",
        service=service.name,
        host=settings.host,
        port=running.port,
        public_host=settings.public_host if running.public_port is not None else None,
        public_port=running.public_port,
        bearer=tokens is not None,  # a key with "token" in it would be redacted
    )
    if tokens is None and not is_loopback(settings.host):
        log_event(
            logger,
            logging.WARNING,
            f"ANYBODY WHO REACHES THIS PORT CAN {service.exposes}: it is not on the loopback and asks for no bearer token. Set "
            "KIKI_TOKENS_FILE, with KIKI_PUBLIC_PORT for callers from outside, or see to it that the network lets "
            "only your own services in",
            host=settings.host,
            port=running.port,
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A service that is ready to listen, and what it is given. `release` runs when it has ended, however it did."""

    service: Service
    settings: ListenSettings
    tokens: Tokens | None = None
    release: Callable[[], None] = lambda: None


def run(service: Service, settings: ListenSettings, tokens: Tokens | None = None) -> int:
    """Run a service until SIGTERM or SIGINT; the exit code, which is 0. SIGHUP reloads its tokens and the service.

    Blocks, on uvloop where there is one. Raises `ConfigurationError` when a port cannot be had, and what `on_start`
    raises. Logging is the caller's to configure.
    """
    return run_all([Prepared(service, settings, tokens)])


def run_all(prepared: Sequence[Prepared]) -> int:
    """The same for several services in one process: they start in this order, and stop in the opposite one."""
    try:
        return _run(_until_told(prepared))
    finally:
        for each in reversed(prepared):
            each.release()


def _settle_memory() -> None:
    """Keep the garbage collector from walking everything that was loaded, which costs a request 20 ms now and then.

    What a service has made by now stays until it ends. Requests leave few cycles, so it may look for them seldom.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _run(main: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


async def _until_told(prepared: Sequence[Prepared]) -> int:
    loop = asyncio.get_running_loop()
    exporting = [otlp.start(each.settings.otel, each.service.registry, each.service.name) for each in prepared]
    stop = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()
    turn = asyncio.Lock()
    running: list[tuple[Prepared, Listening]] = []
    names = " ".join(each.service.name for each in prepared)

    def told(number: int) -> None:
        if stop.is_set():
            # Whoever sends a second one does not want to wait. What was acknowledged is durable all the same.
            logging.shutdown()
            os._exit(128 + number)
        log_event(logger, logging.INFO, "stopping", service=names, signal=signal.Signals(number).name)
        stop.set()
        for _, found in running:
            found.gate.draining = True

    async def reload() -> None:
        async with turn:
            for each, found in running:
                await _reload(each, found)

    def told_to_reload() -> None:
        task = loop.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    loop.add_signal_handler(signal.SIGHUP, told_to_reload)
    try:
        async with contextlib.AsyncExitStack() as stack:
            for each in prepared:
                entered = await stack.enter_async_context(listening(each.service, each.settings, each.tokens))
                running.append((each, entered))
            _settle_memory()
            await stop.wait()
        log_event(logger, logging.INFO, "stopped", service=names)
    finally:
        for sending in exporting:
            if sending is not None:
                sending.close()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
    return 0


async def _reload(each: Prepared, running: Listening) -> None:
    """Take over new tokens, and let the service take over what is its own; what is wrong changes nothing."""
    service, file = each.service, each.settings.tokens_file
    try:
        if file is not None:
            running.use_tokens(load_tokens(file))
    except ConfigurationError as error:
        log_event(logger, logging.ERROR, "the token file was refused; the old one stays", problems=error.problems)
    if service.on_reload is None:
        return
    try:
        await service.on_reload()
    except ConfigurationError as error:
        log_event(logger, logging.ERROR, "the reload was refused; nothing changed", problems=error.problems)
    except Exception as error:
        log_event(logger, logging.ERROR, "the reload failed; nothing changed", exc_info=error)
