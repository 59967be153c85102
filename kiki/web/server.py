"""Runs a service: its ports, its signals, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from kiki.errors import SettingsError
from kiki.telemetry import RequestMetrics, log
from kiki.web.caller import HostRule, Tokens, is_loopback
from kiki.web.listener import Listener, ListenerRules
from kiki.web.route import Service

logger = logging.getLogger("kiki.web")

# While a service drains, an open connection may answer its next request, and is then told to close.
_GOODBYE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a service listens and what it demands."""

    host: str = "127.0.0.1"
    port: int = 0
    public_host: str = "127.0.0.1"
    public_port: int | None = None
    tokens: Tokens | None = None
    allowed_hosts: tuple[str, ...] = ()
    rate: float = 0.0
    public_rate: float = 0.0
    body_bytes_max: int = 1 << 20
    body_seconds_max: float = 10.0
    drain_seconds: float = 10.0
    access_log: bool = False

    def rules(self, *, public: bool) -> ListenerRules:
        """The rules of one of the two ports."""
        host = self.public_host if public else self.host
        return ListenerRules(
            public=public,
            hosts=HostRule(self.allowed_hosts, loopback_only=is_loopback(host)),
            tokens=self.tokens,
            rate=self.public_rate if public else self.rate,
            body_bytes_max=self.body_bytes_max,
            body_seconds_max=self.body_seconds_max,
            access_log=self.access_log,
        )


@dataclass(slots=True)
class _Port:
    listener: Listener
    protocol: web.Server
    server: asyncio.Server


@dataclass(slots=True)
class Running:
    """A service that listens. Made by `start`; `stop` ends it without losing an accepted request."""

    service: Service
    listening: Listening
    ports: list[_Port] = field(default_factory=list)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, the internal port first."""
        return [port.server.sockets[0].getsockname()[:2] for port in self.ports]

    async def stop(self) -> None:
        """Accept nothing new, answer what was accepted, then close the service."""
        for port in self.ports:
            port.listener.draining = True
            port.server.close()
        if any(port.protocol.connections for port in self.ports):
            await asyncio.sleep(_GOODBYE_SECONDS)
        for port in self.ports:
            port.protocol.pre_shutdown()
        await asyncio.gather(*(port.protocol.shutdown(self.listening.drain_seconds) for port in self.ports))
        await self.service.on_close()


async def start(service: Service, listening: Listening) -> Running:
    """Start a service on the running loop; raises `SettingsError` when a port cannot be had."""
    await service.on_start()
    running = Running(service, listening)
    metrics = RequestMetrics(service.name)
    service.registry.register(metrics)
    try:
        running.ports.append(await _open(service, listening, metrics, public=False))
        if listening.public_port is not None:
            running.ports.append(await _open(service, listening, metrics, public=True))
    except BaseException:
        await running.stop()
        raise
    _say_where(running)
    return running


async def _open(service: Service, listening: Listening, metrics: RequestMetrics, *, public: bool) -> _Port:
    listener = Listener(service, listening.rules(public=public), metrics)
    loop = asyncio.get_running_loop()

    def request_factory(message, payload, protocol, writer, task):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return web.BaseRequest(
            message, payload, protocol, writer, task, loop, client_max_size=listening.body_bytes_max
        )

    protocol = web.Server(
        listener.handle,  # type: ignore[arg-type]  # Answer is sent like a StreamResponse
        request_factory=request_factory,
        access_log=None,
        keepalive_timeout=75.0,
        tcp_keepalive=True,
    )
    host, port = (
        (listening.public_host, listening.public_port) if public else (listening.host, listening.port)
    )
    try:
        server = await loop.create_server(protocol, host, port, backlog=1024)
    except (OSError, OverflowError) as error:
        name = "KIKI_PUBLIC_PORT" if public else "PORT"
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise SettingsError([f"{name}={port}: cannot listen on {host}:{port}: {reason}"]) from error
    return _Port(listener, protocol, server)


def _say_where(running: Running) -> None:
    listening = running.listening
    (host, port), *public = running.addresses
    log(
        logger,
        logging.INFO,
        f"{running.service.name} listens on http://{host}:{port}",
        host=host,
        port=port,
        public_port=public[0][1] if public else None,
        pid=os.getpid(),
    )
    if not is_loopback(listening.host) and listening.tokens is None:
        logger.warning(
            "ANYONE WHO REACHES %s:%s CAN SPEND: it is not a loopback address and no tokens are set. "
            "Set KIKI_TOKENS_FILE, with KIKI_PUBLIC_PORT for callers from outside, or keep a network policy before it.",
            host,
            port,
        )


async def _until_told_to_stop(running: Running) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()

    def stop_once(number: int) -> None:
        if stop.is_set():
            # A second signal: whoever sends it does not want to wait.
            os._exit(128 + number)
        log(logger, logging.INFO, f"{running.service.name} is stopping", signal=signal.Signals(number).name)
        stop.set()

    def reload() -> None:
        task = loop.create_task(_reload(running.service.on_reload))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_once, number)
    loop.add_signal_handler(signal.SIGHUP, reload)
    await stop.wait()
    await running.stop()
    log(logger, logging.INFO, f"{running.service.name} stopped")


async def _reload(hook: Callable[[], object]) -> None:
    try:
        await hook()  # type: ignore[misc]  # the hook is a coroutine function
    except Exception:
        logger.exception("the reload failed; what was in force stays in force")


def run(make_service: Callable[[], Service], listening: Listening) -> None:
    """Run a service until SIGTERM or SIGINT; `make_service` is called on its loop. SIGHUP reloads."""

    async def main() -> None:
        running = await start(make_service(), listening)
        await _until_told_to_stop(running)

    if sys.platform != "win32":
        try:
            import uvloop
        except ImportError:
            pass
        else:
            uvloop.run(main())
            return
    asyncio.run(main())
