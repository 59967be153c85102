"""A SyncFlow on real sockets in this process, for the tests of its routes and of its gRPC port."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

from aiohttp import ClientSession

from kiki.flow.bid_server import BidPort, BidServer
from kiki.flow.campaign_runner import CampaignRunner
from kiki.flow.customer_value import CustomerValue
from kiki.flow.sandbox.local import LocalSandbox
from kiki.flow.service import FlowService
from kiki.settings import parse_listen
from kiki.shield.budget_guard import BudgetGuard
from kiki.value.call_metrics import CallMetrics
from kiki.web import listening, parse_tokens
from tests.flow.own_time import OwnTime
from tests.shield.served import Answer

PLAN = """\
plan: spring
currency: USD
starts: 2026-12-01
ends: 2026-12-02
platforms: sandbox
campaigns:
  - {name: search, platform: google_ads, budget: $100/day, bid: $1.20}
  - {name: social, platform: meta, budget: $200/day, bid: {ltv: 2%, ceiling: $4}}
"""


@dataclass
class ServedFlow:
    runner: CampaignRunner
    guard: BudgetGuard
    sandbox: LocalSandbox
    days: OwnTime
    bids: BidServer
    url: str
    session: ClientSession

    async def ask(self, method: str, path: str, body: Any = None, **given: Any) -> Answer:
        if body is not None:
            given["data"] = body if isinstance(body, bytes) else json.dumps(body).encode()
            given["headers"] = {"Content-Type": "application/json", **given.get("headers", {})}
        async with self.session.request(method, self.url + path, **given) as response:
            return Answer(response.status, dict(response.headers), await response.read())

    async def get(self, path: str, **given: Any) -> Answer:
        return await self.ask("GET", path, **given)

    async def post(self, path: str, body: Any = None, **given: Any) -> Answer:
        return await self.ask("POST", path, body, **given)

    async def until(self, condition: Any, seconds: float = 100) -> None:
        async with asyncio.timeout(seconds):
            while not await asyncio.to_thread(condition):  # noqa: ASYNC110  # another thread makes it true
                await asyncio.sleep(0.02)

    async def settled(self, run: str) -> None:
        await asyncio.to_thread(self.days.end, self.runner, run)

    async def active(self, run: str) -> None:
        """Return when all campaigns of a run are."""
        await self.until(lambda: all(lane.active for lane in self.runner.status(run).lanes))


@asynccontextmanager
async def served_flow(*, tokens: str | None = None, limit: str = "10000", **environ: str) -> AsyncIterator[ServedFlow]:
    """The service over a guard and a sandbox until the end of the block; days begin and end when the test says so."""
    listen = parse_listen({"PORT": "0", "KIKI_DRAIN_SECONDS": "1"} | environ)
    found = parse_tokens(tokens, "tokens.yaml") if tokens else None
    days = OwnTime(date(2026, 12, 1))
    sandbox = await asyncio.to_thread(days.sandbox)
    guard = BudgetGuard.open(limit=limit, window="30d")
    runner = CampaignRunner.open(guard=guard, sandbox=sandbox.url, **days.runner)
    calls = CallMetrics()
    bids = BidServer(runner, CustomerValue(None), BidPort(listen, 0), found, calls)
    try:
        service = FlowService(runner, bids, calls).service()
        async with listening(service, listen, found) as running, ClientSession(auto_decompress=False) as session:
            with days:
                yield ServedFlow(runner, guard, sandbox, days, bids, running.url, session)
    finally:
        await asyncio.to_thread(sandbox.close)
        guard.close()


class RunningFlow:
    """The same on a loop of its own, in a thread."""

    def __init__(self, **given: Any) -> None:
        self._given = given
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self.flow: ServedFlow
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with served_flow(**self._given) as self.flow:
            self._ready.set()
            await self._stop.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive()
