"""SyncValue over gRPC: one customer by id against an empty handler in the same run, and batches.

`python -m bench.value_serve bare` and `python -m bench.value_serve load …` are its two helper processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

from bench.measure import Row, shown

CUSTOMERS = 200_000
CALLERS = 32
ROUNDS = 9
SECONDS = 2.0
BATCH = 10_000
PREDICT = "/kiki.value.v1.ValueService/Predict"
PREDICT_BATCH = "/kiki.value.v1.ValueService/PredictBatch"


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        environ = _shop(Path(name))
        bare = [sys.executable, "-m", "bench.value_serve", "bare"]
        ours = [sys.executable, "-m", "kiki", "serve", "value"]
        with _served(bare, {}) as bare_port, _served(ours, environ) as port:
            # In turn, so that a busy moment of the machine meets both; the best round of each counts.
            one = [(_load(bare_port, "one"), _load(port, "one")) for _ in range(ROUNDS)]
            full = max(_load(port, "batch") for _ in range(ROUNDS))
            means = max(_load(port, "means") for _ in range(ROUNDS))
    empty, predict = (max(rates) for rates in zip(*one, strict=True))
    share = predict / empty
    return [
        Row("an empty grpc.aio handler, calls", shown(empty)),
        Row("Predict by id, calls", shown(predict)),
        Row("Predict by id, of the empty handler's", f"{share:.2f}", "≥ 0.70", share >= 0.7),
        Row("PredictBatch, means and all intervals, customers", shown(full), "≥ 500 k/s", full >= 500_000),
        Row("PredictBatch, means only, customers", shown(means)),
    ]


def _shop(directory: Path) -> dict[str, str]:
    """A model and a summary of many customers, and the environment that serves them."""
    import numpy as np
    import pyarrow.parquet as pq

    from kiki.value.history import History, purchases_of
    from kiki.value.score_stream import summary_table
    from kiki.value.training import fit

    chance = np.random.default_rng(1)
    ages = chance.integers(1, 104, CUSTOMERS)
    counts = np.minimum(chance.negative_binomial(0.6, 0.05, CUSTOMERS), ages)
    histories = [
        History(int(x), float(chance.integers(x, age + 1)) if x else 0.0, float(age), float(chance.gamma(4, 8)))
        for x, age in zip(counts, ages, strict=True)
    ]
    purchases = purchases_of(
        histories, date(2026, 1, 1) - timedelta(days=1), ids=[f"customer-{n}" for n in range(CUSTOMERS)]
    )
    fit(purchases, model="pareto-nbd").save(directory / "model.json")
    pq.write_table(summary_table(purchases), directory / "customers.parquet")
    return {
        "KIKI_VALUE_PORT": "0",
        "KIKI_VALUE_HTTP_PORT": "0",
        "KIKI_VALUE_MODEL": str(directory / "model.json"),
        "KIKI_VALUE_CUSTOMERS": str(directory / "customers.parquet"),
    }


@contextmanager
def _served(command: list[str], environ: dict[str, str]) -> Iterator[int]:
    process = subprocess.Popen(command, env=os.environ | environ, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout or ():
            said = json.loads(line)
            if said["event"] == "listening for gRPC":
                yield said["port"]
                break
    finally:
        process.terminate()
        process.wait(20)


def _load(port: int, what: str) -> float:
    command = [sys.executable, "-m", "bench.value_serve", "load", str(port), what]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


async def _bare() -> None:
    import grpc

    async def empty(_data: bytes, _context: object) -> bytes:
        return b""

    server = grpc.aio.server()
    service, method = PREDICT.strip("/").split("/")
    handlers = {method: grpc.unary_unary_rpc_method_handler(empty)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"event": "listening for gRPC", "port": port}), flush=True)
    await server.wait_for_termination()


async def _call(port: int, what: str) -> float:
    """Calls, or customers, a second."""
    import grpc

    from kiki.value.pb import value_pb2 as pb

    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    path, customers, callers = (PREDICT, 1, CALLERS) if what == "one" else (PREDICT_BATCH, BATCH, 2)
    ask = channel.unary_unary(path)
    if what == "one":
        requests = [pb.PredictRequest(customer_id=f"customer-{n}").SerializeToString() for n in range(1000)]
    else:
        ids = [[f"customer-{n * BATCH + m}" for m in range(BATCH)] for n in range(10)]
        requests = [
            pb.PredictBatchRequest(customer_ids=some, means_only=what == "means").SerializeToString() for some in ids
        ]
    calls = 0
    await ask(requests[0], wait_for_ready=True)
    began = time.perf_counter()
    until = began + SECONDS

    async def caller() -> None:
        nonlocal calls
        while time.perf_counter() < until:
            await ask(requests[calls % len(requests)])
            calls += 1

    await asyncio.gather(*(caller() for _ in range(callers)))
    await channel.close()
    return calls * customers / (time.perf_counter() - began)


if __name__ == "__main__":
    import uvloop

    if sys.argv[1] == "bare":
        uvloop.run(_bare())
    else:
        print(uvloop.run(_call(int(sys.argv[2]), sys.argv[3])))
