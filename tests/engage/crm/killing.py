"""A reading that is killed at random moments until it has come to its end."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

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


def read_under_fire(kind: str, fake: FakeService, path: Path, customers: int, kills: int, seed: int) -> int:
    """Kill the reader so often, wherever it is by then, and let one come to its end; how many customers were kept before that one.

    Who is to be killed keeps a part of the customers at most and then waits: so there is something left, however late the kill comes.
    """
    rng, most = Random(seed), customers // (2 * kills + 2)
    for _ in range(kills):
        wanted = _count(path) + rng.randint(1, most)
        with _reader(kind, fake.url, path, most) as reader:
            while _count(path) < wanted:
                assert reader.poll() is None, f"the reader ended with {reader.returncode}"
                time.sleep(0.005)
            time.sleep(rng.random() * 0.05)
            reader.kill()
    before = _count(path)
    with _reader(kind, fake.url, path, 0) as reader:
        assert reader.wait() == 0
    return before


@contextlib.contextmanager
def _reader(kind: str, url: str, path: Path, most: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.engage.crm.reading_process", kind, url, str(path), str(most)]
    with subprocess.Popen(command) as reader:
        try:
            yield reader
        finally:
            reader.kill()


def told(path: Path) -> list[str]:
    """Every record that was kept, in order."""
    return [row[0] for row in _asked(path, "SELECT customer FROM records")]


def _count(path: Path) -> int:
    return next((row[0] for row in _asked(path, "SELECT count(*) FROM records")), 0)


def _asked(path: Path, question: str) -> list[tuple[Any, ...]]:
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as kept, contextlib.suppress(sqlite3.OperationalError):
        return kept.execute(question).fetchall()
    return []  # its tables are not made yet
