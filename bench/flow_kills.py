"""Plans on eight sandbox platforms whose runner is killed at random points, frozen and taken over: the platforms' own books judge.

`python -m bench flow_kills` does FLOW_KILLS kills (2,000) and a zombie for every hundred of them; the tests do a few of the same.
Kills are SIGKILL at a random moment, or by the runner's own hand immediately before or after an answer is journaled. Meanwhile
a fifth of all answers is lost, late, doubled, garbled or an error.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.measure import Row
from tests.flow.killed_flows import Verdict, killed, zombies
from tests.servers import running_postgres

KILLS = int(os.environ.get("FLOW_KILLS", "2000"))
KILLS_A_PLAN, STOPS_A_PLAN = 50, 4
PLANS_AT_ONCE = 4
"""Each mostly waits for its simulated days, and a machine that is busy finds more."""


def run() -> list[Row]:
    """All rows of this part."""
    killing, freezing, plans = Verdict(), Verdict(), 0
    with ThreadPoolExecutor(PLANS_AT_ONCE) as pool:
        while killing.kills < KILLS:
            for verdict in pool.map(_killed, range(plans, plans + PLANS_AT_ONCE)):
                killing += verdict
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


def _killed(seed: int) -> Verdict:
    with tempfile.TemporaryDirectory() as folder:
        return killed(Path(folder), seed, KILLS_A_PLAN)


def _rows(what: str, verdict: Verdict) -> list[Row]:
    found = [
        ("double effects", verdict.double_effects),
        ("days whose cost differs from the platform's", verdict.lost),
        ("holds or findings left after reconcile", verdict.leaked),
        ("over any limit", verdict.over),
    ]
    rows = [Row(what, "")]
    rows += [Row(f"… {name}", str(count), "0", count == 0) for name, count in found]
    rows.append(Row("… made twice by a double delivery, and archived before it was active", str(verdict.twins)))
    late = f"{verdict.unheld / 1_000_000:,.2f} USD"
    return [*rows, Row("… spent because a pause came late, recorded and told", late)]
