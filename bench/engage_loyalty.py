"""Points: how many changes a second, and fifty processes that spend from one balance until it is empty."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import Row, shown
from kiki.engage.loyalty_ledger import LoyaltyLedger
from tests.servers import running_postgres

CHANGES = 300
SPENDERS = 50
POINTS = 1000

_SPEND = """
import random, sys
from kiki.engage.loyalty_ledger import LoyaltyLedger
from kiki.errors import PointsShort
chance = random.Random(sys.argv[2])
with LoyaltyLedger.open(sys.argv[1]) as ledger:
    turn = 0
    while True:
        turn += 1
        try:
            ledger.spend("one", chance.randint(1, 20), key=f"{sys.argv[2]}-{turn}")
        except PointsShort as short:
            if short.available <= 0:
                break
"""


def run() -> list[Row]:
    rows = []
    for name, places in (("SQLite", _files()), ("PostgreSQL", _databases())):
        with places as where:
            with LoyaltyLedger.open(where) as ledger:
                start = time.perf_counter()
                for number in range(CHANGES):
                    ledger.earn(f"customer-{number % 100}", 10, key=f"o-{number}")
                rate = CHANGES / (time.perf_counter() - start)
                ledger.earn("one", POINTS, key="o")
            rows.append(Row(f"{name}: changes, one after the other", shown(rate)))
            command = [sys.executable, "-c", _SPEND, str(where)]
            spenders = [subprocess.Popen([*command, str(number)]) for number in range(SPENDERS)]
            failed = sum(spender.wait() != 0 for spender in spenders)
            with LoyaltyLedger.open(where) as ledger:
                left, spent = ledger.balance("one").available, -sum(entry.points for entry in ledger.history("one")[1:])
                holds = not list(ledger.problems())
            rows.append(
                Row(
                    f"{name}: {SPENDERS} processes spend {POINTS} points of one balance",
                    f"{spent} spent, {left} left, {failed} failed, sums {'hold' if holds else 'DO NOT HOLD'}",
                    "never below zero",
                    left == 0 and spent == POINTS and not failed and holds,
                )
            )
    return rows


@contextmanager
def _files() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "loyalty.db"


@contextmanager
def _databases() -> Iterator[str]:
    with running_postgres() as server:
        yield server.new_database()
