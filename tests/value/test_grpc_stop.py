"""A server that stops answers what has arrived, also when it is behind with its work."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import grpc

from kiki.settings import ListenSettings, parse_listen
from kiki.value import grpc_server
from kiki.value.call_metrics import CallMetrics
from kiki.value.grpc_server import GrpcServer, Method

CALLS = 8


@dataclass(frozen=True)
class Place:
    listen: ListenSettings
    port: int = 0
    variable: str = "PORT"
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_client_ca_file: Path | None = None


async def test_calls_that_wait_behind_a_slow_one_are_answered(monkeypatch):
    """Behind, it waits longer than HOLD_SECONDS. How much longer is another matter: here, as long as a busy machine needs."""
    monkeypatch.setattr(grpc_server, "HOLD_BUSY_SECONDS", 60.0)
    monkeypatch.setattr(grpc_server, "_TURN_SECONDS", 0.05)
    sent = threading.Event()

    def slow(data: bytes, _seconds: float | None) -> bytes:
        if metrics.began == 1:
            assert sent.wait(60)
            time.sleep(1.0)  # the others arrive meanwhile
        time.sleep(0.15)  # it works, and the loop does nothing else
        return data

    metrics = CallMetrics()
    server = GrpcServer([Method("s.S", "Slow", slow)], Place(parse_listen({"PORT": "0"})), None, metrics)
    await server.start()

    def ask() -> list[bytes]:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call = channel.unary_unary("/s.S/Slow")
            futures = [call.future(b"%d" % number, timeout=60) for number in range(CALLS)]
            sent.set()
            return [future.result() for future in futures]

    asking = asyncio.get_running_loop().run_in_executor(None, ask)
    while not metrics.began:  # noqa: ASYNC110  # the server counts it
        await asyncio.sleep(0.001)
    await server.stop(30)
    assert [b"%d" % number for number in range(CALLS)] == await asking
