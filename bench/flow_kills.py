"""Plans on eight sandbox platforms whose runner is killed at random points, frozen and taken over: the platforms' own books judge.

`python -m bench flow_kills` does FLOW_KILLS kills (2,000) and a zombie for every hundred of them; the tests do a few of the same.
Kills are SIGKILL at a random moment, or by the runner's own hand immediately before or after an answer is journaled. Meanwhile
a fifth of all answers is lost, late, doubled, garbled or an error.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bench.measure import Row
from tests.flow.killed_flows import Verdict, killed, zombies
from tests.servers import running_postgres

KILLS = int(os.environ.get("FLOW_KILLS", "2000"))
KILLS_A_PLAN, STOPS_A_PLAN = 30, 4


def run() -> list[Row]:
    """All rows of this part."""
    killing, freezing, plans = Verdict(), Verdict(), 0
    while killing.kills < KILLS:
        with tempfile.TemporaryDirectory() as folder:
            killing += killed(Path(folder), plans, min(KILLS_A_PLAN, KILLS - killing.kills))
        plans += 1
        print(f"{killing.kills} kills {killing.problems}", flush=True)
    with running_postgres() as server:
        while freezing.stops < max(KILLS // 100, STOPS_A_PLAN):
            with tempfile.TemporaryDirectory() as folder:
                store = server.new_database()
                freezing += zombies(Path(folder), 1000 + freezing.stops, STOPS_A_PLAN, store=store)
            print(f"{freezing.stops} stops {freezing.problems}", flush=True)
    return [
        *_rows(
            f"{killing.kills:,} kills over {plans} plans, {killing.steps:,} steps, {killing.faults:,} faults", killing
        ),
        *_rows(f"{freezing.stops} runners frozen and woken after a takeover, {freezing.faults:,} faults", freezing),
    ]


def _rows(what: str, verdict: Verdict) -> list[Row]:
    found = [
        ("double effects", verdict.double_effects),
        ("days whose cost differs from the platform's", verdict.lost),
        ("holds or findings left after reconcile", verdict.leaked),
        ("over any limit", verdict.over),
    ]
    rows = [Row(what, "")]
    rows += [Row(f"… {name}", str(count), "0", count == 0) for name, count in found]
    late = f"{verdict.unheld / 1_000_000:,.2f} USD"
    return [*rows, Row("… spent because a pause came late, recorded and told", late)]
