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
from kiki.edge.telemetry import RequestMetrics, log
from kiki.edge.caller import HostRule, Tokens
from kiki.settings import ListenSettings, is_loopback
from kiki.edge.listener import Listener, ListenerRules
from kiki.edge.route import Service

logger = logging.getLogger("kiki.edge")

# While a service drains, an open connection may answer its next request, and is then told to close.
_GOODBYE_SECONDS = 0.5


def _rules(listen: ListenSettings, tokens: Tokens | None, *, public: bool) -> ListenerRules:
    host = listen.public_host if public else listen.host
    return ListenerRules(
        public=public,
        hosts=HostRule(listen.allowed_hosts, loopback_only=is_loopback(host)),
        tokens=tokens,
        rate=listen.public_rate if public else listen.rate,
        body_bytes_max=listen.body_bytes_max,
        body_seconds_max=listen.request_seconds_max,
        access_log=listen.access_log,
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
    listen: ListenSettings
    tokens: Tokens | None
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
        await asyncio.gather(*(port.protocol.shutdown(self.listen.drain_seconds) for port in self.ports))
        await self.service.on_close()


async def start(service: Service, listen: ListenSettings, tokens: Tokens | None = None) -> Running:
    """Start a service on the running loop; raises `SettingsError` when a port cannot be had."""
    running = Running(service, listen, tokens)
    await service.on_start()
    metrics = RequestMetrics(service.name)
    service.registry.register(metrics)
    try:
        running.ports.append(await _open(running, metrics, public=False))
        if listen.public_port is not None:
            running.ports.append(await _open(running, metrics, public=True))
    except BaseException:
        await running.stop()
        raise
    _say_where(running)
    return running


async def _open(running: Running, metrics: RequestMetrics, *, public: bool) -> _Port:
    listen = running.listen
    listener = Listener(running.service, _rules(listen, running.tokens, public=public), metrics)
    loop = asyncio.get_running_loop()

    def request_factory(message, payload, protocol, writer, task):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return web.BaseRequest(
            message, payload, protocol, writer, task, loop, client_max_size=listen.body_bytes_max
        )

    protocol = web.Server(
        listener.handle,  # type: ignore[arg-type]  # Answer is sent like a StreamResponse
        request_factory=request_factory,
        access_log=None,
        keepalive_timeout=75.0,
        tcp_keepalive=True,
    )
    host, port = (listen.public_host, listen.public_port) if public else (listen.host, listen.port)
    try:
        server = await loop.create_server(protocol, host, port, backlog=1024)
    except (OSError, OverflowError) as error:
        name = "KIKI_PUBLIC_PORT" if public else "PORT"
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise SettingsError([f"{name}={port}: cannot listen on {host}:{port}: {reason}"]) from error
    return _Port(listener, protocol, server)


def _say_where(running: Running) -> None:
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
    if not is_loopback(running.listen.host) and running.tokens is None:
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


def run(service: Service, listen: ListenSettings, tokens: Tokens | None = None) -> None:
    """Run a service until SIGTERM or SIGINT. SIGHUP reloads. Raises what `on_start` raises."""

    async def main() -> None:
        running = await start(service, listen, tokens)
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
