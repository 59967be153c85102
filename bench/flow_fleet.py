"""Two runners on one PostgreSQL share a thousand runs; one is killed with SIGKILL, and the other finishes all of them.

Lanes are the tests' toy: steps that write a line down, so that every one that was lost or done twice beyond the kill shows.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench.measure import Row
from kiki.flow.plan_text import parse_plan
from kiki.flow.run_store import RunStore
from tests.flow.toy_runner import GRACE_SECONDS, LEASE_SECONDS
from tests.servers import running_postgres

RUNS = int(os.environ.get("FLOW_RUNS", "1000"))
STEPS = 8
PLAN = parse_plan(
    "plan: fleet\ncurrency: USD\nstarts: 2026-12-01\nends: 2026-12-02\nplatforms: sandbox\n"
    "campaigns:\n  - {name: one, platform: meta, budget: $1/day}\n"
)


def run() -> list[Row]:
    """All rows of this part."""
    with tempfile.TemporaryDirectory() as folder, running_postgres() as server:
        where, effects = server.new_database(), Path(folder) / "effects"
        store = RunStore.open(where)
        for number in range(RUNS):
            store.create(f"run-{number}", PLAN)
        began = time.perf_counter()
        runners = [_runner(where, name, effects) for name in ("a", "b")]
        while len(_done(effects)) < RUNS * STEPS // 3:
            time.sleep(0.05)
        shared = Counter(row.owner for row in store.runs("running"))
        runners[0].send_signal(signal.SIGKILL)
        killed = time.perf_counter()
        while store.runs("running"):
            time.sleep(0.1)
        ended = time.perf_counter()
        for each in runners:
            each.kill()
            each.wait()
        counted = _done(effects)
        journaled = sum(len(store.steps(f"run-{number}", most=10_000)) for number in range(RUNS))
        store.close()
    lost = RUNS * STEPS - len(counted)
    twice = sum(count - 1 for count in counted.values())
    share = " and ".join(f"{shared[name]:,}" for name in ("a", "b"))
    return [
        Row(f"{RUNS:,} runs of {STEPS} steps on two runners: open at the kill, of each", share),
        Row("steps lost after kill -9 of one", str(lost), "0", lost == 0),
        Row(
            "answers journaled of those that must be",
            f"{journaled:,} of {RUNS * STEPS * 3:,}",
            "all",
            journaled == RUNS * STEPS * 3,
        ),
        Row("effects that were under way at the kill and were done again", str(twice)),
        Row(
            f"until all had ended after the kill (lease {LEASE_SECONDS:g} s, grace {GRACE_SECONDS:g} s)",
            f"{ended - killed:.1f} s",
        ),
        Row("the whole of it", f"{ended - began:.1f} s"),
    ]


def _runner(where: str, executor: str, effects: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.flow.toy_runner", where, executor, str(effects), str(STEPS), "0.05"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True, cwd=Path(__file__).parents[1])


def _done(effects: Path) -> Counter[str]:
    return Counter(effects.read_text().splitlines()) if effects.exists() else Counter()
