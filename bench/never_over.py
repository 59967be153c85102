"""Adversaries at scale: threads, processes on one Redis, kill -9. What was admitted is added up to the micro."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

from bench.measure import Row
from bench.redis import _server
from kiki import BudgetGuard
from kiki.clock import SECOND
from kiki.ledger.ledger import read_entries
from kiki.ledger.sqlite import SqliteReader
from kiki.shield.budget import Reason
from kiki.shield.fact import Decided, decode_fact
from kiki.shield.window import Verb

LIMIT = 1000 * 1_000_000
SPAN = SECOND


def _spends(paths: list[Path]) -> list[tuple[int, int]]:
    """(moment, micros) of everything that the ledgers say was admitted, each decision once."""
    found: dict[tuple[str, int, int], tuple[int, int]] = {}
    for number, path in enumerate(paths):
        reader = SqliteReader(path)
        for entry in read_entries(reader):
            fact = decode_fact(entry)
            if not isinstance(fact, Decided) or fact.verb != Verb.SPEND:
                continue
            refused = {each.index for each in fact.refused if each.reason != Reason.OUTCOME_UNKNOWN}
            for index, amount in enumerate(fact.amounts):
                if index not in refused:
                    key = (fact.epoch, fact.sequence, index) if fact.epoch else (f"{number}", entry.seq, index)
                    found[key] = (fact.at, amount)
        reader.close()
    return sorted(found.values())


def _worst(spends: list[tuple[int, int]], span: int = SPAN) -> int:
    """The largest sum in any window (t - span, t]."""
    worst = total = head = 0
    for at, amount in spends:
        total += amount
        while spends[head][0] <= at - span:
            total -= spends[head][1]
            head += 1
        worst = max(worst, total)
    return worst


def _threads() -> Row:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shield.db"
        with BudgetGuard.open(path, limit="1000", window="1s") as guard:
            deadline = time.monotonic() + 6

            def work(seed: int) -> None:
                chance = random.Random(seed)
                while time.monotonic() < deadline:
                    guard.spend_many([f"{chance.randint(1, 9_000_000) / 1e6:.6f}" for _ in range(chance.randint(1, 9))])

            threads = [threading.Thread(target=work, args=(seed,)) for seed in range(200)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        spends = _spends([path])
    worst = _worst(spends)
    return Row(
        f"200 threads on one guard: {len(spends):,} admitted, largest sum in any window of a limit of 1000",
        f"{worst / 1e6:.6f}",
        "<= 1000",
        worst <= LIMIT,
    )


def _redis_worker(path: str, port: int, seconds: float, seed: int) -> None:
    chance = random.Random(seed)
    with BudgetGuard.open(path, limit="1000", window="1s", redis=f"redis://127.0.0.1:{port}") as guard:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            guard.spend_many([f"{chance.randint(1, 9_000_000) / 1e6:.6f}" for _ in range(chance.randint(1, 9))])


def _processes() -> Row:
    with _server() as port, tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.db" for number in range(8)]
        workers = [
            multiprocessing.Process(target=_redis_worker, args=(str(path), port, 6.0, seed))
            for seed, path in enumerate(paths)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        failed = sum(worker.exitcode != 0 for worker in workers)
        spends = _spends(paths)
    worst = _worst(spends)
    return Row(
        f"8 processes on one Redis: {len(spends):,} admitted, {failed} failed, largest sum in any window",
        f"{worst / 1e6:.6f}",
        "<= 1000",
        worst <= LIMIT and not failed,
    )


_SPENDER = """
import sys
from kiki import BudgetGuard
with BudgetGuard.open(sys.argv[1], limit="1000", window="1s") as guard:
    while True:
        for outcome in guard.spend_many(["7.000001", "3.5", "11"]):
            if outcome.allowed:
                print(outcome.event_id, flush=False)
        sys.stdout.flush()
"""


def _kills(rounds: int = 40) -> Row:
    lost = 0
    acknowledged: dict[str, None] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shield.db"
        chance = random.Random(7)
        for _ in range(rounds):
            process = subprocess.Popen([sys.executable, "-c", _SPENDER, str(path)], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            acknowledged[process.stdout.readline().strip()] = None
            time.sleep(chance.uniform(0.0, 0.4))
            os.kill(process.pid, signal.SIGKILL)
            whole, _, _ = process.stdout.read().rpartition("\n")
            acknowledged.update(dict.fromkeys(whole.split()))
            process.wait()
        spends = _spends([path])
        admitted: dict[str, int] = defaultdict(int)
        reader = SqliteReader(path)
        for entry in read_entries(reader):
            fact = decode_fact(entry)
            if isinstance(fact, Decided):
                refused = {each.index for each in fact.refused}
                for index in range(len(fact.amounts)):
                    if index not in refused:
                        admitted[f"{entry.seq:012x}{index:04x}"] += 1
        reader.close()
        acknowledged.pop("", None)
        lost = sum(event not in admitted for event in acknowledged)
    worst = _worst(spends)
    return Row(
        f"{rounds} rounds of kill -9: {len(acknowledged):,} acknowledged, {lost} lost, largest sum in any window",
        f"{worst / 1e6:.6f}",
        "<= 1000, 0 lost",
        worst <= LIMIT and not lost,
    )


def run() -> list[Row]:
    """All rows of this part."""
    socket.setdefaulttimeout(10)
    return [_threads(), _processes(), _kills()]
