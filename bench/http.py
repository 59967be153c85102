"""`/spend` over HTTP, durable and with its audit view running, against a bare handler in the same run."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.measure import Row, shown

CONNECTIONS = 64
ROUNDS = 5
SECONDS = 3.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(arguments: list[str], port: int, path: str, environ: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, *arguments], env={**os.environ, **environ}, stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _load(port: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", str(port), "/spend?amount=0.01", str(CONNECTIONS), str(SECONDS)],
        capture_output=True,
        check=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    if found["others"]:
        raise AssertionError(f"answers that were not 200: {found['others']}")
    return found


def run() -> list[Row]:
    """All rows of this part."""
    bare_port, port = _free_port(), _free_port()
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            "PORT": str(port),
            "KIKI_REDIS": "off",
            "KIKI_DATA_DIR": str(Path(folder) / "data"),
            "MAX_BURST_BUDGET": "9000000000",
            "WINDOW_SECONDS": "3600",
        }
        with (
            _process(["-m", "bench.bare", str(bare_port)], bare_port, "/spend", {}),
            _process(["-m", "kiki", "serve", "shield"], port, "/readyz", environ),
        ):
            pairs = [(_load(bare_port), _load(port)) for _ in range(ROUNDS)]
    ratios = [ours["rate"] / bare["rate"] for bare, ours in pairs]
    ratio = statistics.median(ratios)
    p99 = statistics.median(ours["p99_ms"] for _, ours in pairs)
    first, last = ratios[0], ratios[-1]
    events = int(sum(ours["rate"] for _, ours in pairs) * SECONDS)
    return [
        Row("bare aiohttp+uvloop handler, 64 connections", shown(statistics.median(b["rate"] for b, _ in pairs))),
        Row("kiki /spend, durable, audit view on", shown(statistics.median(o["rate"] for _, o in pairs))),
        Row("ratio (median of 5 pairs)", f"{ratio:.2f}", ">= 0.50", ratio >= 0.5),
        Row("p99 of /spend (median of 5)", f"{p99:.1f} ms", "< 10 ms", p99 < 10),
        Row(
            f"ratio of the last pair, after about {events:,} spends in the window (first pair {first:.2f})",
            f"{last:.2f}",
            ">= 0.50",
            last >= 0.5,
        ),
    ]
