"""A closed-loop HTTP load from one process: so many connections, one request in flight on each."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, tally: Tally) -> None:
        self._request, self._tally = request, tally
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        head = data.find(b"\r\n\r\n")
        if head < 0:
            self._buffer = data
            return
        at = data.find(b"Content-Length: ")
        length = int(data[at + 16 : data.index(b"\r", at)])
        if len(data) < head + 4 + length:
            self._buffer = data
            return
        self._buffer = b""
        self._tally.latencies.append(time.perf_counter() - self._sent)
        status = data[9:12]
        if status != b"200":
            self._tally.others[status.decode()] = self._tally.others.get(status.decode(), 0) + 1
        if self._tally.running:
            self._send()
        else:
            self._transport.close()


class Tally:
    """What a load saw."""

    def __init__(self) -> None:
        self.running = True
        self.latencies: list[float] = []
        self.others: dict[str, int] = {}


async def load(port: int, path: str, connections: int, seconds: float) -> dict[str, object]:
    """Requests a second, the 50th and 99th percentile in milliseconds, and the statuses that were not 200."""
    loop = asyncio.get_running_loop()
    tally = Tally()
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(request, tally), "127.0.0.1", port)
    await asyncio.sleep(0.3)
    tally.latencies.clear()
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    took, count = time.perf_counter() - started, len(tally.latencies)
    tally.running = False
    found = sorted(tally.latencies[:count])
    return {
        "rate": count / took,
        "p50_ms": found[count // 2] * 1000,
        "p99_ms": found[int(count * 0.99)] * 1000,
        "others": tally.others,
    }


if __name__ == "__main__":
    port, path, connections, seconds = sys.argv[1:]
    print(json.dumps(uvloop.run(load(int(port), path, int(connections), float(seconds)))))
