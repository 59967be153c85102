"""Durable and audited, in one process: `spend_many` of 500 over a real file, fsync included."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

from bench.measure import Row, rates, shown
from kiki import BudgetGuard

BATCH = 500


def _batches() -> list[Row]:
    with (
        tempfile.TemporaryDirectory() as folder,
        BudgetGuard.open(Path(folder) / "shield.db", limit="1000000000", window="60s") as guard,
    ):
        amounts = ["0.01"] * BATCH

        def run(count: int) -> None:
            for _ in range(count // BATCH):
                guard.spend_many(amounts)

        rate = rates({"kiki": run}, 200 * BATCH)["kiki"]
    return [Row("durable spend_many of 500, one thread", shown(rate), ">= 200 k/s", rate >= 200_000)]


def _threads() -> list[Row]:
    with (
        tempfile.TemporaryDirectory() as folder,
        BudgetGuard.open(Path(folder) / "shield.db", limit="1000000000", window="60s") as guard,
    ):
        each = 200

        def work() -> None:
            for _ in range(each):
                guard.spend("0.01")

        threads = [threading.Thread(target=work) for _ in range(64)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = 64 * each / (time.perf_counter() - start)
        start = time.perf_counter()
        for _ in range(1000):
            guard.spend("0.01")
        single = 1000 / (time.perf_counter() - start)
    return [
        Row("durable spend, 64 threads", shown(rate)),
        Row("durable spend, one thread, one fsync each", shown(single)),
    ]


def run() -> list[Row]:
    """All rows of this part."""
    return [*_batches(), *_threads()]
