"""What traces and metrics cost a request: the same service with a collector and without, in turn.

Counted in processor time of the service, all of its threads: that is what a request costs, and others on the machine
disturb it least.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.http import SECONDS, _free_port, _load, _process
from bench.measure import Row

ROUNDS = 5


def _cost(port: int, pid: int) -> float:
    """Microseconds of processor time that one request takes."""
    before = _spent(pid)
    rate = _load(port)["rate"]
    return (_spent(pid) - before) * 1e6 / (rate * SECONDS)


def _spent(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pid(port: int) -> int:
    """Of the process that listens there."""
    shown = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    return int(shown.partition("pid=")[2].partition(",")[0])


def run() -> list[Row]:
    """All rows of this part."""
    collector, plain, traced = _free_port(), _free_port(), _free_port()
    otel = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"127.0.0.1:{collector}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
    }
    process = subprocess.Popen([sys.executable, "-m", "bench.collector", str(collector)], env=dict(os.environ))
    try:
        with tempfile.TemporaryDirectory() as folder:

            def environ(name: str, port: int) -> dict[str, str]:
                return {
                    "PORT": str(port),
                    "KIKI_REDIS": "off",
                    "KIKI_DATA_DIR": str(Path(folder) / name),
                    "MAX_BURST_BUDGET": "9000000000",
                    "WINDOW_SECONDS": "3600",
                }

            serve = ["-m", "kiki", "serve", "shield"]
            with (
                _process(serve, plain, "/readyz", environ("plain", plain)),
                _process(serve, traced, "/readyz", environ("traced", traced) | otel),
            ):
                pids = _pid(plain), _pid(traced)
                pairs = [(_cost(plain, pids[0]), _cost(traced, pids[1])) for _ in range(ROUNDS)]
    finally:
        process.terminate()
        process.wait(10)
    without, with_it = (statistics.median(each[side] for each in pairs) for side in (0, 1))
    dearer = statistics.median(ours / bare - 1 for bare, ours in pairs)
    return [
        Row("a request of /spend without a collector", f"{without:.1f} µs"),
        Row("with traces at 10 % and metrics", f"{with_it:.1f} µs"),
        Row("cost of telemetry (median of 5 pairs)", f"{dearer:.1%}", "<= 10 %", dearer <= 0.1),
    ]
