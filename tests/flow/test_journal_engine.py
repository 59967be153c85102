"""The engine with real processes: killed, stopped, taken over, drained."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kiki.clock import wall_micros
from kiki.errors import LedgerUnavailable
from kiki.flow.journal_engine import JournalPort, Runner
from kiki.flow.plan_text import parse_plan
from kiki.flow.run_rows import Entry
from kiki.flow.run_store import RunStore
from tests.flow.plans import SPRING
from tests.flow.toy_runner import GRACE_SECONDS, LEASE_SECONDS

PLAN = parse_plan(SPRING)
STEPS = 12


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "flow.db") if request.param == "sqlite" else str(request.getfixturevalue("postgres"))


@contextmanager
def runner(
    where: str, executor: str, effects: Path, pause: float = 0.0, *, most: int = 0
) -> Iterator[subprocess.Popen[str]]:
    """A process that takes the runs there are; after `most` effects it waits, so that it has not ended when it is stopped."""
    given = [where, executor, str(effects), str(STEPS), str(pause), str(most)]
    command = [sys.executable, "-m", "tests.flow.toy_runner", *given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "ready\n" == process.stdout.readline()
            yield process
        finally:
            process.kill()


def done(effects: Path) -> Counter[str]:
    return Counter(effects.read_text().splitlines()) if effects.exists() else Counter()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def lived(where: str, effects: Path, chance: random.Random, most: int) -> None:
    """A life that is ended when it has had some of its effects, at any moment: the journals are read, a step is done, or kept, or none."""
    before = sum(done(effects).values())
    with runner(where, "a", effects, 0.01, most=most) as process:
        wanted = before + chance.randint(0, most)
        wait_for(lambda: sum(done(effects).values()) >= wanted)
        time.sleep(chance.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)


def test_killed_at_any_moment_every_step_is_kept_once(where: str, tmp_path: Path) -> None:
    store, effects = RunStore.open(where), tmp_path / "effects"
    for number in range(10):
        store.create(f"run-{number}", PLAN)
    chance, kills = random.Random(7), 6
    for _ in range(kills):
        lived(where, effects, chance, 35)
    with runner(where, "a", effects):
        wait_for(lambda: all(row.state == "completed" for row in store.runs()), 200)

    counted = done(effects)
    assert 10 * 2 * STEPS == len(counted)
    # A step whose answer was not kept is done again: at most once a kill and lane.
    assert max(counted.values()) <= 1 + kills
    events = [(lane, key) for n in range(10) for _, _, lane, key, _ in store.steps(f"run-{n}", most=10_000)]
    assert len(events) == len(set(events)) == 10 * 2 * STEPS * 3
    store.close()


def test_signals_are_taken_once_and_in_order_across_kills(where: str, tmp_path: Path) -> None:
    store, effects = RunStore.open(where), tmp_path / "effects"
    store.create("run-1", PLAN)
    for word in range(6):
        store.send("run-1", {"word": word}, "social")
    chance = random.Random(8)
    for _ in range(3):
        lived(where, effects, chance, 6)
    with runner(where, "a", effects):
        wait_for(lambda: store.run("run-1").state == "completed")

    taken = {lane.campaign: lane.result["taken"] for lane in store.lanes("run-1")}
    assert {"search-brand": [], "social": [0, 1, 2, 3, 4, 5]} == taken
    store.close()


async def test_a_signal_that_was_read_before_it_was_taken_and_delivered_after_is_not_taken_again(where: str) -> None:
    """The inbox is read beside the lanes: what was waiting when it was read may be taken when it is delivered."""
    store = RunStore.open(where)
    store.create("run-1", PLAN)
    store.send("run-1", {"word": 1}, "social")
    store.send("run-1", {"word": 2}, "social")
    port = JournalPort(store, "run-1", 0, "run-1/social", [], wall_micros)
    read = store.waiting()
    for each in read:
        port.deliver(each)
    assert {"word": 1} == await port.signal("signal/0", 0)
    for each in read:
        port.deliver(each)
    assert {"word": 2} == await port.signal("signal/1", 0)
    for each in read:
        port.deliver(each)
    assert await port.signal("signal/2", 0) is None
    store.close()


def test_a_dead_runner_s_runs_are_taken_over_and_none_is_lost(postgres: str, tmp_path: Path) -> None:
    store, effects = RunStore.open(postgres), tmp_path / "effects"
    for number in range(40):
        store.create(f"run-{number}", PLAN)
    with runner(postgres, "a", effects, 0.05, most=400) as first, runner(postgres, "b", effects, 0.05):
        wait_for(lambda: sum(done(effects).values()) > 100)
        first.send_signal(signal.SIGKILL)
        wait_for(lambda: all(row.state == "completed" for row in store.runs()), 200)

    assert 40 * 2 * STEPS == len(done(effects))
    store.close()


def test_a_zombie_that_wakes_up_after_a_takeover_changes_nothing(postgres: str, tmp_path: Path) -> None:
    store, effects = RunStore.open(postgres), tmp_path / "effects"
    store.create("run-1", PLAN)
    with runner(postgres, "a", effects, 0.2, most=16) as first:
        wait_for(lambda: sum(done(effects).values()) > 3)
        first.send_signal(signal.SIGSTOP)
        stopped = done(effects)
        time.sleep(LEASE_SECONDS + GRACE_SECONDS)
        with runner(postgres, "b", effects, 0.01):
            wait_for(lambda: sum(done(effects).values()) > sum(stopped.values()) + 4)
            effects.with_name("effects.go").touch()
            first.send_signal(signal.SIGCONT)
            wait_for(lambda: store.run("run-1").state == "completed")
            time.sleep(0.5)

    counted = done(effects)
    assert 2 * STEPS == len(counted)
    # Only what was under way in its two lanes at a takeover may have been done by both.
    takeovers = store.run("run-1").epoch - 1
    assert takeovers >= 1
    assert sum(counted.values()) <= 2 * STEPS + 2 * takeovers
    events = [(lane, key) for _, _, lane, key, _ in store.steps("run-1", most=10_000)]
    assert len(events) == len(set(events))
    store.close()


def test_a_drained_runner_gives_its_runs_back_at_once(where: str, tmp_path: Path) -> None:
    store, effects = RunStore.open(where), tmp_path / "effects"
    store.create("run-1", PLAN)
    with runner(where, "a", effects, 0.1, most=2 * STEPS - 2) as process:
        wait_for(lambda: sum(done(effects).values()) > 3)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(60)

    assert "" == store.run("run-1").owner
    assert ["run-1"] == [*store.take("b", 60, grace=1000)]
    store.close()


def test_two_processes_are_never_one_executor(where: str, tmp_path: Path) -> None:
    store, effects = RunStore.open(where), tmp_path / "effects"
    store.create("run-1", PLAN)
    with runner(where, "a", effects, 0.1, most=1):
        wait_for(lambda: "a" == store.run("run-1").owner)
        with runner(where, "a", effects) as second:
            assert second.wait(60)
    store.close()


async def test_a_lane_whose_store_was_away_begins_again(tmp_path: Path) -> None:
    """A fence that cannot be asked breaks nothing: the lane goes on from its journal."""
    store = RunStore.open(tmp_path / "flow.db")
    store.create("run-1", PLAN)
    troubles, effects = iter([True, False, True, True]), []
    fence = store.fence

    def shaky(run: str, epoch: int) -> float:
        if next(troubles, False):
            raise LedgerUnavailable("the database went away")
        return fence(run, epoch)

    store.fence = shaky  # type: ignore[method-assign]

    async def lane(_run, _plan, _settings, campaign, port, look):
        for step in range(3):

            async def act(step: int = step):
                await look()
                effects.append((campaign, step))
                return {}

            await port.step(f"step/{step}", act)
        return {"how": "completed"}

    runner = Runner(store, "a", lane, poll_seconds=0.01)
    working = asyncio.create_task(runner.run())
    async with asyncio.timeout(60):
        while store.run("run-1").state == "running":  # noqa: ASYNC110  # another thread ends it
            await asyncio.sleep(0.01)
    await runner.drain()
    await working
    assert {(campaign, step) for campaign in ("search-brand", "social") for step in range(3)} == {*effects}
    store.close()


async def test_a_run_that_was_taken_while_the_runner_was_drained_is_given_back_and_not_begun(tmp_path: Path) -> None:
    store, began = RunStore.open(tmp_path / "flow.db"), []
    store.create("run-1", PLAN)
    taken, go_on, take = threading.Event(), threading.Event(), store.take

    def slow(*given, **named):
        found = take(*given, **named)
        taken.set()
        assert go_on.wait(60)
        return found

    async def lane(run, *_):
        began.append(run)
        return {"how": "completed"}

    store.take = slow  # type: ignore[method-assign]
    runner = Runner(store, "a", lane, poll_seconds=0.01)
    working = asyncio.create_task(runner.run())
    assert await asyncio.to_thread(taken.wait, 60)
    await runner.drain()
    go_on.set()
    await working
    assert ([], "", {}) == (began, store.run("run-1").owner, runner.held)
    store.close()


def test_a_database_that_is_away_is_said_in_our_own_words(own_postgres) -> None:
    store = RunStore.open(own_postgres.new_database())
    store.create("run-1", PLAN)
    own_postgres.crash()
    for ask in (store.runs, store.waiting, lambda: store.fence("run-1", 1), lambda: store.take("a", 1, grace=1)):
        with pytest.raises(LedgerUnavailable):
            ask()


async def test_the_first_step_behind_the_journal_may_have_been_begun_before_and_no_other(tmp_path: Path) -> None:
    """A request of a killed life may still be on its way: whoever makes something waits for it, once."""
    store = RunStore.open(tmp_path / "flow.db")
    store.create("run-1", PLAN)
    fresh = JournalPort(store, "run-1", 0, "run-1/social", [], wall_micros)
    resumed = JournalPort(store, "run-1", 0, "run-1/social", [Entry("one", b"{}")], wall_micros)
    assert not fresh.is_resuming
    assert not resumed.is_resuming
    assert {} == await resumed.step("one", lambda: pytest.fail("it is journaled"))
    assert resumed.is_resuming
    store.close()
