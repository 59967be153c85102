"""The engine of campaigns against DBOS on the same kind of file: steps, and how soon a thousand lanes go on after a kill.

Both on SQLite with a write-ahead log synced at every commit, in a process of their own that is killed with SIGKILL. Lanes
have 20 steps behind them; what counts is when each of them has begun its first new one, from the start of the process's
work (imports apart).
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import Row, shown

LANES, STEPS = 1000, 20
DBOS_LANES = LANES
RESUME_GOAL, STEP_GOAL = 2.0, 0.010

OURS = """
import asyncio, os, sys, time
from kiki.flow.journal_engine import Runner
from kiki.flow.plan_text import parse_plan
from kiki.flow.run_store import RunStore
mode, where, lanes, steps, wake = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
PLAN = parse_plan('''plan: bench
currency: USD
starts: 2026-12-01
ends: 2026-12-02
platforms: sandbox
campaigns:
  - {name: one, platform: meta, budget: $1/day}
''')
first, ready, waits = [], [], []
began = time.perf_counter()
async def lane(run, plan, settings, campaign, port, fence):
    for step in range(steps):
        async def act(): return {}
        asked = time.perf_counter()
        await port.step(f"s{step}", act)
        waits.append(time.perf_counter() - asked)
    ready.append(run)
    await port.sleep("nap", int(wake * 1e6))
    async def new():
        first.append(time.perf_counter() - began)
        return {}
    await port.step("new", new)
    await port.sleep("long", int((time.time() + 1000) * 1e6))
    return {"how": "completed"}
async def main():
    store = RunStore.open(where)
    if mode == "alone":
        store.create("run-0", PLAN)
    if mode == "start":
        for number in range(lanes):
            store.create(f"run-{number}", PLAN)
    task = asyncio.create_task(Runner(store, "a", lane).run())
    if mode == "resume":
        while len(first) < lanes:
            await asyncio.sleep(0.01)
        print(first[0], max(first), flush=True)
        os._exit(0)
    began_steps = time.perf_counter()
    while len(ready) < lanes:
        await asyncio.sleep(0.01)
    print(lanes * steps / (time.perf_counter() - began_steps), sorted(waits)[len(waits) // 2], flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""

DBOS = """
import asyncio, os, sys, time
import sqlalchemy as sa
from dbos import DBOS
mode, where, lanes, steps, wake = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
engine = sa.create_engine(f"sqlite:///{where}")
@sa.event.listens_for(engine, "connect")
def durable(connection, _):
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{where}", "system_database_engine": engine,
    "executor_id": "a", "application_version": "1", "run_admin_server": False, "log_level": "ERROR"})
first, ready, waits = [], [], []
@DBOS.workflow(name="lane")
async def lane(number):
    for step in range(steps):
        async def act(): return {}
        asked = time.perf_counter()
        await DBOS.run_step_async({"name": f"s{step}"}, act)
        waits.append(time.perf_counter() - asked)
    ready.append(number)
    await DBOS.sleep_async(max(0.001, wake - time.time()))  # a sleep of nothing would be no step
    async def new():
        first.append(time.perf_counter() - began)
        return {}
    await DBOS.run_step_async({"name": "new"}, new)
    await DBOS.sleep_async(1000)
async def main():
    global began
    began = time.perf_counter()
    DBOS.launch()
    if mode == "resume":
        while len(first) < lanes:
            await asyncio.sleep(0.01)
        print(first[0], max(first), flush=True)
        os._exit(0)
    began_steps = time.perf_counter()
    for number in range(lanes):
        await DBOS.start_workflow_async(lane, number)
    while len(ready) < lanes:
        await asyncio.sleep(0.01)
    print(lanes * steps / (time.perf_counter() - began_steps), sorted(waits)[len(waits) // 2], flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


def _measured(code: str, lanes: int, patience: float) -> tuple[float, float, float, float]:
    """Steps a second of many lanes, the median wait of one step, and when the first and the last lane went on."""
    with tempfile.TemporaryDirectory() as folder:
        where, wake = str(Path(folder) / "flow.db"), time.time() + patience
        arguments = [where, str(lanes), str(STEPS), str(wake)]
        with subprocess.Popen(
            [sys.executable, "-c", code, "start", *arguments], stdout=subprocess.PIPE, text=True
        ) as one:
            assert one.stdout is not None
            rate, wait = map(float, one.stdout.readline().split())
            one.send_signal(signal.SIGKILL)
        time.sleep(max(0.0, wake - time.time()) + 0.5)
        command = [sys.executable, "-c", code, "resume", *arguments]
        again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        soonest, last = map(float, again.stdout.split())
    return rate, wait, soonest, last


def _alone(code: str) -> float:
    """The median wait for a step of one lane that has the store to itself, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(Path(folder) / "flow.db"), "1", "500", str(time.time() + 1000)]
        mode = "alone" if code is OURS else "start"
        with subprocess.Popen([sys.executable, "-c", code, mode, *arguments], stdout=subprocess.PIPE, text=True) as one:
            assert one.stdout is not None
            _, wait = map(float, one.stdout.readline().split())
            one.send_signal(signal.SIGKILL)
    return wait


def run() -> list[Row]:
    """All rows of this part."""
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1]))
    rate, _, soonest, last = _measured(OURS, LANES, 25)
    step = _alone(OURS)
    rows = [
        Row("a step of one lane, durable", f"{step * 1e3:.2f} ms", f"< {STEP_GOAL * 1e3:.0f} ms", step < STEP_GOAL),
        Row(f"steps of {LANES:,} lanes at once", shown(rate)),
        Row(
            f"{LANES:,} lanes go on after kill -9: first, last",
            f"{soonest:.2f} s, {last:.2f} s",
            f"< {RESUME_GOAL:.0f} s",
            last < RESUME_GOAL,
        ),
    ]
    if importlib.util.find_spec("dbos") is None:
        return [*rows, Row("DBOS", "not installed (make bench installs it)")]
    rate, _, soonest, last = _measured(DBOS, DBOS_LANES, 220)
    return [
        *rows,
        Row("DBOS: a step of one workflow, durable", f"{_alone(DBOS) * 1e3:.2f} ms"),
        Row(f"DBOS: steps of {DBOS_LANES:,} workflows at once", shown(rate)),
        Row(f"DBOS: {DBOS_LANES:,} workflows go on after kill -9: first, last", f"{soonest:.2f} s, {last:.2f} s"),
    ]
