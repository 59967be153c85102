"""A reading that is killed at random moments until it has come to its end."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from tests.engage.fakes.hubspot import FakeHubSpot
from tests.engage.fakes.salesforce import FakeSalesforce
from tests.engage.fakes.service import FakeService
from tests.engage.fakes.shopify import FakeShopify

KINDS = ("shopify", "shopify-bulk", "hubspot", "salesforce", "salesforce-bulk")


def filled(kind: str, customers: int, *, speed: float = 1_000) -> FakeService:
    """A fake with that many customers, who changed over some months."""
    if kind.startswith("shopify"):
        shop = FakeShopify(speed=speed)
        shop.polls_until_done = 0
        for number in range(1, customers + 1):
            minute = number * 100_000 // customers
            shop.customer(
                number, f"2026-{1 + minute // 44_640:02d}-{1 + minute // 1_440 % 28:02d}T10:{minute % 60:02d}:00Z"
            )
        return shop
    if kind == "hubspot":
        portal = FakeHubSpot()
        for number in range(1, customers + 1):
            portal.contact(number, 1_790_000_000_000 + number // 3)
        return portal
    org = FakeSalesforce()
    org.polls_until_done = 0
    for number in range(1, customers + 1):
        org.contact(number, f"2026-01-{1 + number * 27 // customers:02d}T00:00:{number % 60:02d}.000+0000")
    return org


def read_under_fire(kind: str, url: str, path: Path, kills: int, seed: int, *, longest: float) -> int:
    """How often the reader was killed before it came to its end."""
    rng, killed = Random(seed), 0
    while True:
        before = len(told(path))
        reader = subprocess.Popen([sys.executable, "-m", "tests.engage.crm.reading_process", kind, url, str(path)])
        while killed < kills and reader.poll() is None and len(told(path)) == before:
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = reader.wait(rng.random() * longest if killed < kills else 600)
            assert code == 0, f"the reader ended with {code}"
            return killed
        reader.kill()
        reader.wait()
        killed += 1


def told(path: Path) -> list[str]:
    """Every record that was kept, in order."""
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path)) as kept, contextlib.suppress(sqlite3.OperationalError):
        return [row[0] for row in kept.execute("SELECT customer FROM records")]
    return []  # its tables are not made yet
