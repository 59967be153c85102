"""`make demo-flow`: two weeks on eight platforms in a minute, while the runner is killed again and again.

A sandbox plays the platforms, loses answers and delays effects; the runner is killed with SIGKILL at random moments and started
again. At the end three books lie side by side: kiki's own, the guard's, and the platforms', which know nothing of kiki. The exit
code is 0 only when they agree.

    demo_flow.py [--kills N] [--seed N] [--day-seconds S]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

from kiki import BudgetGuard, CampaignRunner
from kiki.flow.run_rows import Told
from kiki.flow.words import amount_in_words

DAYS_AFTER = 4
LIMIT = 60_000
PLATFORMS = {
    "google_ads": (300, "$1.20"),
    "meta": (250, "{ltv: 2%, ceiling: $4.00}"),
    "tiktok": (150, "{ltv: 2%}"),
    "linkedin": (120, "$4.50"),
    "microsoft": (110, "automatic"),
    "amazon": (200, "$0.90"),
    "x": (80, "$1.10"),
    "tradedesk": (180, "{ltv: 1%, floor: $1.00}"),
}
FAULTS = {
    "throttled": 0.02,
    "error_before": 0.01,
    "error_after": 0.02,
    "lost_before": 0.01,
    "lost_after": 0.02,
    "late_effect": 0.01,
    "late_reply": 0.01,
    "twice": 0.02,
    "garbled": 0.01,
}

PLAN = """\
plan: two-weeks
currency: USD
starts: 2026-12-01
ends: 2026-12-14
platforms: sandbox
campaigns:
""" + "".join(
    f"  - {{name: on-{name.replace('_', '-')}, platform: {name}, budget: ${budget}/day, bid: {bid}}}\n"
    for name, (budget, bid) in PLATFORMS.items()
)
POLICY = f"""\
budgets:
  - {{name: everything, scope: "*", limit: "{LIMIT}", window: 60d}}
  - {{name: each-campaign, scope: "campaign:*", limit: "12000", window: 60d}}
"""


def main() -> int:
    """Run it; 0 when all books agree."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--day-seconds", type=float, default=3.6)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kiki-demo-") as folder:
        place = Path(folder)
        (place / "plan.yaml").write_text(PLAN)
        (place / "budgets.yaml").write_text(POLICY)
        with Sandbox(place, given.day_seconds) as sandbox:
            sandbox.order_faults(given.seed, given.day_seconds)
            kills = run(place, sandbox.url, given)
            books = sandbox.books()
            agreed = compare(place, books)
    print(f"\n{kills} kills, {sum(sandbox.met.values())} faults, {time.monotonic() - began:.0f} s")
    print("The books agree." if agreed else "THE BOOKS DO NOT AGREE.")
    return 0 if agreed else 1


class Sandbox:
    """The platforms, in a process of their own."""

    def __init__(self, place: Path, day_seconds: float) -> None:
        books = ["--books", str(place / "platforms.db"), "--first-day", "2026-11-30", "--day-seconds", str(day_seconds)]
        self._command = [sys.executable, "-m", "kiki.flow.sandbox", *books]
        self.met: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = json.loads(self._process.stdout.readline())["url"]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def order_faults(self, seed: int, day_seconds: float) -> None:
        """Let things go wrong from now on."""
        self._ask("PUT", "faults", {"rates": FAULTS, "seconds": day_seconds / 100, "seed": seed})

    def books(self) -> dict[str, Any]:
        """The platforms' own."""
        self.met = self._ask("GET", "faults")["met"]
        found: dict[str, Any] = self._ask("GET", "books")
        return found

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/sandbox/{path}", data, method=method)) as reply:
            return json.load(reply)


def run(place: Path, sandbox: str, given: argparse.Namespace) -> int:
    """Start the runner until the plan has ended, and kill it on the way; how often."""
    own = {"KIKI_DATA_DIR": str(place), "KIKI_POLICY_FILE": str(place / "budgets.yaml"), "KIKI_REDIS": "off"}
    environ = {name: text for name, text in os.environ.items() if not name.startswith(("KIKI_", "DATABASE_"))} | own
    command = [
        sys.executable,
        "-m",
        "kiki",
        "campaign",
        "run",
        "plan.yaml",
        "--ledger",
        str(place),
        "--sandbox",
        sandbox,
    ]
    chance = random.Random(given.seed)
    # Not in the night after the last day: a pause that comes late there is counted and told, but it costs.
    busy = 13 * given.day_seconds
    moments = sorted(chance.uniform(2.0, busy) for _ in range(given.kills))
    began, kills = time.monotonic(), 0
    with (place / "story.log").open("wb") as log:
        while True:
            with subprocess.Popen(command, cwd=place, env=environ, stdout=log, stderr=log) as runner:
                wait = None if kills == len(moments) else max(0.5, began + moments[kills] - time.monotonic())
                try:
                    code = runner.wait(wait)
                except subprocess.TimeoutExpired:
                    runner.send_signal(signal.SIGKILL)
                    runner.wait()
                    kills += 1
                    print(f"{time.monotonic() - began:5.1f} s  kill -9, and started again", flush=True)
                    continue
            if code:
                print((place / "story.log").read_text()[-3000:])
            return kills


def compare(place: Path, books: dict[str, Any]) -> bool:
    """Print the books side by side; whether they agree to the micro."""
    with (
        BudgetGuard.open(place / "shield.db", policy=place / "budgets.yaml") as guard,
        CampaignRunner.open(place / "flow.db", guard=guard) as runner,
    ):
        status = runner.status(runner.runs()[0].run)
        story = runner.events(status.run, most=1_000_000)
        counted = {meter.scope.removeprefix("campaign:"): meter for meter in guard.status("each-campaign")}
        total = guard.status("everything")[0]
        holds = guard.holds()
    theirs = {each["name"].rpartition("/")[2]: each for each in books["campaigns"]}
    print(f"\n{'campaign':<14}{'kiki':>12}{'platform':>12}{'guard':>12}{'credited':>10}{'late pause':>12}  days")
    agreed = True
    for lane in status.lanes:
        campaign, guarded = theirs[lane.campaign], counted[lane.campaign]
        bills = {day: bill["billed"] for day, bill in campaign["bills"].items() if bill["billed"]}
        same = bills == {day: spent for day, spent in lane.spent.items() if spent}
        # The guard counts nothing back: what a later report takes back is told, and stays counted.
        credited = guarded.spent - lane.spent_total
        over = [day for day, bill in campaign["bills"].items() if bill["billed"] > bill["most"]]
        told = _told(story, lane.campaign)
        right = same and credited == told["credited"] and not over and campaign["status"] == "paused"
        agreed &= right and not guarded.held
        amounts = (lane.spent_total, campaign["billed"], guarded.spent)
        row = "".join(f"{amount_in_words(each, status.currency):>12}" for each in amounts)
        rest = f"{amount_in_words(credited, 'USD'):>10}{amount_in_words(told['unheld'], 'USD'):>12}"
        print(f"{lane.campaign:<14}{row}{rest}  {len(bills)}{'' if right else '  DIFFERS'}")
    twice = [each for each in books["effects"] if "create" in each["operation"] and each["changes"] > 1]
    print(f"\ncampaigns made twice: {len(books['duplicates'])}, creations that took effect twice: {len(twice)}")
    print(
        f"holds left open: {len(holds)}; counted {amount_in_words(total.spent, 'USD')} of {amount_in_words(total.limit, 'USD')}"
    )
    ended = status.state == "completed"
    if not ended:
        print(f"the run is {status.state}")
    return agreed and ended and not (books["duplicates"] or twice or holds) and total.spent <= total.limit


def _told(story: list[Told], campaign: str) -> dict[str, int]:
    """What the story says of a campaign's exceptions."""
    found = {"credited": 0, "unheld": 0}
    for told in story:
        if told.lane.endswith(f"/{campaign}"):
            if told.event == "flow.credited":
                found["credited"] -= int(told.detail["change"])
            if told.event == "flow.drift" and told.detail.get("unheld"):
                found["unheld"] += int(told.detail["change"])
    return found


if __name__ == "__main__":
    sys.exit(main())
