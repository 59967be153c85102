"""Traffic that a newcomer can watch: made-up shops, customers and campaigns, through the interfaces that everybody uses."""

from __future__ import annotations

import csv
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx

from kiki.cli import supervised
from kiki.cli.fleet import Ports
from kiki.errors import ConsentDenied, KikiError, SpendDenied

CUSTOMERS: Final = 120
DAYS: Final = 400
POLICY: Final = """\
# What the demonstration may spend. Money of campaigns is held for whole days, so that window is a long one.
budgets:
  - {name: everything, scope: "*", limit: "60000", window: 30d}
  - {name: minute-of-bids, scope: "team:bids", limit: "300", window: 60s}
  - {name: each-platform, scope: "bids:*", limit: "90", window: 60s}
  - {name: messages, scope: "platform:email", limit: "120", window: 1h}
"""
PLAN: Final = """\
plan: demo
currency: USD
starts: {starts}
ends: {ends}
platforms: sandbox
pacing: adaptive
campaigns:
  - {{name: search-brand, platform: google_ads, budget: $300/day, bid: $1.20}}
  - {{name: social, platform: meta, budget: $250/day, bid: {{ltv: 2%, ceiling: $4}}}}
  - {{name: short-videos, platform: tiktok, budget: $150/day}}
  - {{name: decision-makers, platform: linkedin, budget: $120/day, bid: $4.50}}
"""
PLAYBOOK: Final = """\
playbook: win-back
currency: USD
zone: UTC
holdout: 10%
margin: 40%
cooldown: 20d
channels:
  email: {cost: 0.01}
segments:
  lapsed: {days_since_purchase: {over: 30}}
messages:
  hello:
    channel: email
    subject: "We have missed you"
    text: "Dear {{ first_name }}, here is a reason to come back.\\n\\n{{ unsubscribe_url }}"
offers:
  come-back: {message: hello, cost: 2.00, gain: 3.00}
journeys:
  win-back:
    enter: {segment: lapsed}
    again_after: 365d
    goal: {event: order, within: 10d}
    steps:
      - {send: come-back, name: first}
"""
_NAMES: Final = ("Ada", "Ben", "Chloé", "Dmitri", "Eve", "Farid", "Gül", "Hana", "Ines", "Jun")
_PLATFORMS: Final = ("google_ads", "meta", "tiktok", "linkedin")


def prepare(folder: Path) -> dict[str, str]:
    """Write what the demonstration needs below a folder; the settings that name it. The model is fitted by `fitting`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "budgets.yaml").write_text(POLICY)
    books = folder / "playbooks"
    books.mkdir(exist_ok=True)
    (books / "win-back.yaml").write_text(PLAYBOOK)
    _write_orders(folder / "orders.csv")
    return {
        "KIKI_POLICY_FILE": str(folder / "budgets.yaml"),
        "KIKI_ENGAGE_PLAYBOOKS": str(books),
        "KIKI_ENGAGE_RUN_SECONDS": "5",
        "KIKI_FLOW_SANDBOX_DAY_SECONDS": "4",
        "KIKI_VALUE_MODEL": str(folder / "shop.model.json"),
        "KIKI_VALUE_CUSTOMERS": str(folder / "orders.csv"),
    }


@contextmanager
def fitting(folder: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """Fit the model of the made-up shop while everything else starts: SyncValue serves it as soon as it is there."""
    command = ["ltv", "fit", str(folder / "orders.csv"), "--model", "bg-nbd", "--json"]
    process = supervised.begin([*command, "-o", str(folder / "shop.model.json")], environ, subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
        supervised.let_go(process)


def _write_orders(file: Path) -> None:
    """Who bought when, and for how much; the same every time."""
    chance, today = random.Random(11), datetime.now(UTC).date()
    with file.open("w", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(["customer_id", "date", "amount"])
        for number in range(CUSTOMERS):
            day, gap = chance.uniform(0, 200), 1 / chance.gammavariate(0.8, 0.04)
            gone = day + chance.expovariate(chance.gammavariate(0.6, 0.01) + 1e-6)
            while day < min(gone, DAYS):
                moment: date = today - timedelta(days=DAYS - int(day))
                rows.writerow([f"shopper-{number:03}", moment, f"{chance.gammavariate(6, 8):.2f}"])
                day += chance.expovariate(1 / gap)


class Traffic:
    """Spends, consents, predictions and people, until it is stopped. What a service refuses is part of the show."""

    def __init__(self, ports: Ports, say: Callable[[str], None], seed: int = 1) -> None:
        self._ports = ports
        self._say = say
        self._chance = random.Random(seed)
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(work,), daemon=True, name=f"demo {work.__name__}")
            for work in (self._bids, self._campaign, self._people, self._values)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; nothing is left to be sent."""
        self._over.set()
        for thread in self._threads:
            thread.join(3)

    def _run(self, work: Callable[[], None]) -> None:
        while not self._over.wait(0.3):
            try:
                work()
            except (KikiError, httpx.HTTPError, OSError):
                # The service is not there yet, or not there any more: the view shows that.
                self._over.wait(0.5)

    def _bids(self) -> None:
        """A bidder that asks before each bid."""
        from kiki.shield.shield_client import ShieldClient

        with ShieldClient(f"http://127.0.0.1:{self._ports.shield}", retries=0) as shield:
            while not self._over.wait(self._chance.expovariate(12)):
                platform = self._chance.choice(_PLATFORMS)
                amount = f"{self._chance.gammavariate(2, 1.2) + 0.01:.2f}"
                try:
                    shield.spend(amount, scopes={"team": "bids", "bids": platform})
                except (SpendDenied, ConsentDenied):
                    continue

    def _campaign(self) -> None:
        """Two weeks on four platforms of the sandbox, begun again when they are over."""
        starts = datetime.now(UTC).date() + timedelta(days=1)
        plan = PLAN.format(starts=starts, ends=starts + timedelta(days=13))
        url = f"http://127.0.0.1:{self._ports.flow}/v1/campaigns"
        reply = httpx.post(url, json={"plan": plan, "again": True}, timeout=10, trust_env=False)
        if reply.status_code >= 500:
            reply.raise_for_status()
        self._over.wait(60)

    def _people(self) -> None:
        """Customers of the shop, some of whom have consented to be written to."""
        from kiki.shield.shield_client import ShieldClient

        now = datetime.now(UTC)
        profiles: list[dict[str, Any]] = [
            {
                "customer_id": f"shopper-{number:03}",
                "email": f"shopper-{number:03}@example.com",
                "first_name": self._chance.choice(_NAMES),
                "zone": "UTC",
                "total_spend": f"{self._chance.uniform(20, 900):.2f}",
                "purchase_count": self._chance.randint(1, 12),
                "last_purchase": (now - timedelta(days=self._chance.uniform(3, 120))).isoformat(),
                "email_marketing": True,
            }
            for number in range(CUSTOMERS)
        ]
        url = f"http://127.0.0.1:{self._ports.engage}/v1/profiles"
        httpx.post(url, json={"profiles": profiles}, timeout=20, trust_env=False).raise_for_status()
        with ShieldClient(f"http://127.0.0.1:{self._ports.shield}", retries=0) as shield:
            for number in self._chance.sample(range(CUSTOMERS), CUSTOMERS):
                if self._over.wait(self._chance.uniform(0.1, 0.5)):
                    return
                who = f"shopper-{number:03}"
                if self._chance.random() < 0.85:
                    shield.consents.grant(who, "marketing", version="demo")
                else:
                    shield.consents.revoke(who, "marketing")
        self._over.wait(120)

    def _values(self) -> None:
        """Somebody who asks what customers are worth."""
        from kiki.value.ltv_client import LtvClient

        with LtvClient(f"127.0.0.1:{self._ports.value}") as client:
            while not self._over.wait(self._chance.expovariate(4)):
                client.predict(f"shopper-{self._chance.randrange(CUSTOMERS):03}")
                time.sleep(0)
