"""100,000 customers out of each CRM's double, by a reader that is killed at random, under the CRM's own limits."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.measure import Row
from tests.engage.crm.killing import KINDS, filled, read_under_fire, told

CUSTOMERS = 100_000
KILLS = 10


def run() -> list[Row]:
    rows: list[Row] = []
    for kind in KINDS:
        # A basic plan of Shopify's gives 100 points a second back; fifty times that keeps the measurement short.
        with tempfile.TemporaryDirectory() as name, filled(kind, CUSTOMERS, speed=50) as fake:
            path, began = Path(name) / "kept.db", time.monotonic()
            read_under_fire(kind, fake, path, CUSTOMERS, KILLS, seed=11)
            seconds, kept = time.monotonic() - began, told(path)
            right = len(kept) == len(set(kept)) == CUSTOMERS
            throttled, calls = getattr(fake, "throttled", 0), len(fake.calls)
        what = f"{kind}: {CUSTOMERS:,} customers, reader killed {KILLS} times, {calls:,} calls in {seconds:.0f} s"
        rows.append(
            Row(
                f"{what}: missing or told twice",
                str(abs(len(kept) - len(set(kept))) + CUSTOMERS - len(set(kept))),
                "0",
                right,
            )
        )
        if kind == "shopify":
            share = throttled / calls
            rows.append(Row(f"{kind}: calls that were throttled", f"{share:.2%}", "< 1 %", share < 0.01))
    return rows
