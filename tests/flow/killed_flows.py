"""Whole plans on eight sandbox platforms, whose runner is killed, stopped and taken over; judged by the platforms' own books.

Runners are forked from a process that has everything loaded and nothing open, so that a death costs milliseconds: SIGKILL at a random moment, or
by their own hand immediately before or after an answer is journaled, between the platform's 200 and the disk.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from kiki.flow.campaign_runner import CampaignRunner
from kiki.flow.journal_writer import JournalWriter
from kiki.flow.plan_text import parse_plan
from kiki.flow.reconcile import Kind
from kiki.flow.run_rows import RUNNING, RunRow, Told
from kiki.flow.run_status import RunStatus
from kiki.flow.run_store import RunStore
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.shield_client import AsyncShieldClient, ShieldClient

PLATFORMS = ("google_ads", "meta", "tiktok", "linkedin", "microsoft", "amazon", "x", "tradedesk")
FAULTS = {
    "throttled": 0.03,
    "error_before": 0.02,
    "error_after": 0.03,
    "lost_before": 0.02,
    "lost_after": 0.04,
    "late_effect": 0.02,
    "late_reply": 0.02,
    "twice": 0.04,
    "garbled": 0.02,
}
LEASE_SECONDS, GRACE_SECONDS = 1.0, 1.2
FUSE_MAX = 30
BROKEN = "broken"
"""Where a runner leaves word that it did not die by a signal: then nothing was measured."""
LIFE_SECONDS = 1.8
"""So long that a creation can be done, which after a death waits for what may still come of the one before."""


def plan_text(days: int) -> str:
    return (
        f"plan: killed\ncurrency: USD\nstarts: 2026-12-01\nends: 2026-12-{days:02}\nplatforms: sandbox\n"
        f"budget: $4,000.00 total\ncampaigns:\n"
    ) + "".join(
        f"  - {{name: on-{name.replace('_', '-')}, platform: {name}, budget: ${100 + 10 * number}/day, bid: $1.20}}\n"
        for number, name in enumerate(PLATFORMS)
    )


@dataclass
class Verdict:
    """What one plan came to."""

    kills: int = 0
    stops: int = 0
    faults: int = 0
    steps: int = 0
    double_effects: int = 0
    lost: int = 0
    leaked: int = 0
    over: int = 0
    twins: int = 0
    """Campaigns beside one of the same name that were archived before they were ever active."""
    unheld: int = 0
    """Micros that were spent on days that nothing was held for: a pause that came late, recorded and told."""
    problems: list[str] = field(default_factory=list)

    def __iadd__(self, other: Verdict) -> Self:
        for name in (
            "kills",
            "stops",
            "faults",
            "steps",
            "double_effects",
            "lost",
            "leaked",
            "over",
            "twins",
            "unheld",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems += other.problems
        return self


class Arena:
    """One plan with its sandbox, its guard and its store."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        days: int,
        day_seconds: float,
        limit: str,
        service: bool,
        store: str | None = None,
    ) -> None:
        self.folder, self.chance, self.limit = folder, random.Random(seed), limit
        self.day_seconds, self.service, self.stack = day_seconds, service, ExitStack()
        self.plan = parse_plan(plan_text(days))
        self.store = store or str(folder / "flow.db")
        where = ["--books", str(folder / "books.db"), "--first-day", "2026-11-30", "--day-seconds", str(day_seconds)]
        command = [sys.executable, "-m", "kiki.flow.sandbox", *where, "--seed", str(seed)]
        self.sandbox = self._start(command, lambda line: str(json.loads(line)["url"]))
        self._ask("PUT", "faults", {"rates": FAULTS, "seconds": day_seconds / 60, "seed": seed})
        self.shield = self._shield() if service else ""
        self.nursery = self._nursery()

    def _start(self, command: list[str], read: Callable[[str], str], **given: Any) -> str:
        process = self.stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **given))
        self.stack.callback(process.kill)
        assert process.stdout is not None
        return read(process.stdout.readline())

    def _shield(self) -> str:
        code = (
            "import asyncio, sys\nfrom kiki.shield.budget_guard import BudgetGuard\nfrom kiki.shield.service import ShieldService\n"
            "from kiki.settings import parse_listen\nfrom kiki.web import listening\n"
            "async def main():\n"
            "    guard = BudgetGuard.open(sys.argv[1], limit=sys.argv[2], window='60d')\n"
            "    async with listening(ShieldService(guard).service(), parse_listen({'PORT': '0'})) as running:\n"
            "        print(running.url, flush=True)\n"
            "        await asyncio.Event().wait()\n"
            "asyncio.run(main())\n"
        )
        command = [sys.executable, "-c", code, str(self.folder / "shield.db"), self.limit]
        return self._start(command, str.strip, stderr=subprocess.DEVNULL)

    def close(self) -> None:
        self.stack.close()

    # -- runners -------------------------------------------------------------------------------------

    def _nursery(self) -> subprocess.Popen[str]:
        given = [self.store, self.sandbox, self.shield, str(self.folder / "shield.db"), self.limit]
        command = [sys.executable, "-m", "tests.flow.killed_flows", *given]
        root = str(Path(__file__).parents[2])
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**os.environ, "KIKI_REDIS": "off"},
        )
        self.stack.enter_context(process)
        self.stack.callback(process.kill)
        return process

    def fork(self, executor: str, fuse: int = 0) -> int:
        """A runner in a process of its own; with a fuse it kills itself around that many journaled answers."""
        assert self.nursery.stdin is not None
        assert self.nursery.stdout is not None
        self.nursery.stdin.write(f"{executor} {fuse}\n")
        self.nursery.stdin.flush()
        return int(self.nursery.stdout.readline())

    def _embedded(self) -> BudgetGuard:
        return BudgetGuard.open(self.folder / "shield.db", limit=self.limit, window="60d")

    def kill_on_the_way(self, kills: int) -> int:
        """One runner after the other, each killed; then one that may finish. How many were killed."""
        watched = RunStore.open(self.store)
        run, done = _begun(watched, self.plan), 0
        try:
            while done < kills and watched.run(run).state == RUNNING:
                own_hand, epoch = self.chance.random() < 0.5, watched.run(run).epoch
                child = self.fork("a", self.chance.randint(1, FUSE_MAX) if own_hand else 0)
                if self.chance.random() < 0.8:
                    # Most lives are counted from when they have the run: on a slow machine, too, something is done in them.
                    _until(
                        lambda child=child, epoch=epoch: not _lives(child) or _has_moved(watched.run(run), epoch), 120
                    )
                _end(child, LIFE_SECONDS if own_hand else self.chance.uniform(0.05, LIFE_SECONDS))
                done += 1
            child = self.fork("a")
            _until(lambda: watched.run(run).state != RUNNING, 60 * self.day_seconds + 120)
            _end(child, 0)
        finally:
            watched.close()
        return done

    def stop_and_wake(self, stops: int) -> int:
        """Two runners; the one that has the run is frozen until the other has taken it over, and then wakes up."""
        watched = RunStore.open(self.store)
        run, done = _begun(watched, self.plan), 0
        children = {name: self.fork(name) for name in ("a", "b")}
        try:
            while done < stops and watched.run(run).state == RUNNING:
                _until(lambda: watched.run(run).owner in children or watched.run(run).state != RUNNING, 120)
                owner = watched.run(run).owner
                time.sleep(self.chance.uniform(0.0, 0.6))
                if owner not in children or watched.run(run).state != RUNNING:
                    continue
                os.kill(children[owner], signal.SIGSTOP)
                # The other one takes over; that it does is a part of the measurement.
                _until(lambda owner=owner: watched.run(run).owner != owner, 120)
                time.sleep(self.chance.uniform(0.0, 0.4))
                os.kill(children[owner], signal.SIGCONT)
                done += 1
            _until(lambda: watched.run(run).state != RUNNING, 60 * self.day_seconds + 120)
        finally:
            for child in children.values():
                _end(child, 0)
            watched.close()
        return done

    # -- judging -------------------------------------------------------------------------------------

    def judge(self, verdict: Verdict) -> Verdict:
        """Compare all books, after a reconciliation."""
        broken = self.folder / BROKEN
        assert not broken.exists(), broken.read_text()
        self._ask("PUT", "faults", {})
        books = self._ask("GET", "books")
        guard = ShieldClient(self.shield) if self.service else self._embedded()
        line = AsyncShieldClient(self.shield) if self.service else guard
        with CampaignRunner.open(self.store, guard=line, sandbox=self.sandbox) as runner:  # type: ignore[arg-type]
            run = runner.runs()[0].run
            status, story = runner.status(run), runner.events(run, most=10_000_000)
            found = runner.reconcile(run)
            for _ in range(20):
                # A sandbox that answers late on a busy machine leaves nothing undecided: it is asked again.
                if not any(each.kind is Kind.UNREADABLE for each in found.findings):
                    break
                time.sleep(0.5)
                found = runner.reconcile(run)
            failed = {
                one.campaign: {**one.result, "spent": {}} for one in runner.store.lanes(run) if one.state != "completed"
            }
            verdict.steps = len(runner.store.steps(run, most=10_000_000))
        spent = guard.budgets().meters()[0].spent if isinstance(guard, ShieldClient) else guard.status()[0].spent
        open_holds = guard.reservations() if isinstance(guard, ShieldClient) else guard.holds()
        guard.close()
        _judge_effects(books, verdict)
        _judge_costs(books, status, story, verdict)
        verdict.leaked += len(open_holds) + len(found.findings)
        verdict.problems += [f"left: {each}" for each in (*open_holds, *found.findings)]
        limit = int(float(self.limit) * 1_000_000)
        outside = sum(
            int(t.detail["change"]) for t in story if t.event in {"flow.drift", "flow.revised"} and "change" in t.detail
        )
        if spent - outside > limit:
            verdict.over += 1
            verdict.problems.append(f"the guard counted {spent} of {limit}")
        if status.state != "completed":
            verdict.problems.append(f"the run is {status.state}: {failed}")
        return verdict

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.sandbox}/sandbox/{path}", data, method=method)
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    def faults_met(self) -> int:
        return sum(self._ask("GET", "faults")["met"].values())


def _has_moved(row: RunRow, epoch: int) -> bool:
    """Whether somebody took the run since, or it has ended."""
    return row.epoch > epoch or row.state != RUNNING


def _begun(store: RunStore, plan: Any) -> str:
    store.create("killed-1", plan)
    return "killed-1"


def _light(fuse: int) -> None:
    """Die immediately before or after the answer with that number is handed to the disk."""
    if not fuse:
        return
    append, left = JournalWriter.append, [fuse]

    def dying(self: JournalWriter, *given: Any, **named: Any) -> Any:
        left[0] -= 1
        if not left[0] and fuse % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        kept = append(self, *given, **named)
        if not left[0]:
            kept.result()
            os.kill(os.getpid(), signal.SIGKILL)
        return kept

    JournalWriter.append = dying  # type: ignore[method-assign]


def _end(child: int, seconds: float) -> None:
    """Kill a runner after so long, unless it has done it itself; return when it is gone."""
    deadline = time.monotonic() + seconds
    while _lives(child):
        if time.monotonic() >= deadline:
            # By its own hand it may have gone a moment ago.
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def _lives(child: int) -> bool:
    try:
        os.kill(child, 0)
    except ProcessLookupError:
        return False
    return True


def nursery(store: str, sandbox: str, shield: str, ledger: str, limit: str) -> None:
    """Fork a runner for every line of stdin, and say its number. Nothing is open here that a child could inherit."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        executor, fuse = line.split()
        child = os.fork()
        if child:
            print(child, flush=True)
            continue
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _light(int(fuse))
            guard = AsyncShieldClient(shield) if shield else BudgetGuard.open(ledger, limit=limit, window="60d")
            seconds = {"lease_seconds": LEASE_SECONDS, "grace_seconds": GRACE_SECONDS, "poll_seconds": 0.05}
            CampaignRunner.open(store, guard=guard, executor=executor, sandbox=sandbox, **seconds).work()
            while True:
                time.sleep(60)
        except BaseException:
            with Path(ledger).with_name(BROKEN).open("a") as broken:
                broken.write(f"runner {executor}: {traceback.format_exc()}\n")
        finally:
            os._exit(1)


def _until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _judge_effects(books: dict[str, Any], verdict: Verdict) -> None:
    for each in books["duplicates"]:
        verdict.double_effects += 1
        verdict.problems.append(f"made twice: {each}")
    archived = {each["id"] for each in books["campaigns"] if each["status"] == "ended" and not each["bills"]}
    verdict.twins += len(archived)
    for each in books["effects"]:
        campaigns = {*each["campaign"].split(",")} - archived
        one_meaning = len(each["values"]) == 1 and "," not in each["operation"] and len(campaigns) <= 1
        # A creation that was delivered twice has made a twin, which must be gone; any other change is made once.
        made = each["changes"] - len({*each["campaign"].split(",")} & archived)
        if not one_meaning or (each["operation"] == "create" and made > 1):
            verdict.double_effects += 1
            verdict.problems.append(f"one key, two meanings: {each}")


def _judge_costs(books: dict[str, Any], status: RunStatus, story: list[Told], verdict: Verdict) -> None:
    living = sorted(books["campaigns"], key=lambda each: each["status"] != "ended")
    theirs = {each["name"].rpartition("/")[2]: each for each in living}
    unheld: Counter[tuple[str, str]] = Counter()
    for told in story:
        if told.event == "flow.drift" and told.detail.get("unheld"):
            unheld[told.lane.rpartition("/")[2], str(told.detail["day"])] += int(told.detail["change"])
    verdict.unheld += sum(unheld.values())
    for lane in status.lanes:
        campaign = theirs.get(lane.campaign, {"bills": {}, "status": "paused"})
        bills = {day: bill for day, bill in campaign["bills"].items() if bill["billed"]}
        for day in sorted({*bills, *(day for day, spent in lane.spent.items() if spent)}):
            billed = bills.get(day, {}).get("billed", 0)
            if billed != lane.spent.get(day, 0):
                verdict.lost += 1
                verdict.problems.append(f"{lane.campaign} {day}: {lane.spent.get(day, 0)} here, {billed} there")
            if billed > bills.get(day, {}).get("most", 0):
                verdict.over += 1
                verdict.problems.append(f"{lane.campaign} {day}: billed beyond the most")
        if campaign["status"] == "active":
            verdict.lost += 1
            verdict.problems.append(f"{lane.campaign} still spends")


def killed(
    folder: Path, seed: int, kills: int, *, days: int = 5, day_seconds: float = 5.0, limit: str = "3000"
) -> Verdict:
    """A plan whose runner is killed so often; the guard in the same process dies with it."""
    arena = Arena(folder, seed, days=days, day_seconds=day_seconds, limit=limit, service=False)
    try:
        verdict = Verdict(kills=arena.kill_on_the_way(kills))
        verdict.faults = arena.faults_met()
        return arena.judge(verdict)
    finally:
        arena.close()


def zombies(
    folder: Path, seed: int, stops: int, *, store: str | None = None, days: int = 2, day_seconds: float = 6.0
) -> Verdict:
    """A plan that two runners take from each other, each frozen meanwhile; the guard is a service."""
    arena = Arena(folder, seed, days=days, day_seconds=day_seconds, limit="3000", service=True, store=store)
    try:
        verdict = Verdict(stops=arena.stop_and_wake(stops))
        verdict.faults = arena.faults_met()
        return arena.judge(verdict)
    finally:
        arena.close()


if __name__ == "__main__":
    nursery(*sys.argv[1:])
