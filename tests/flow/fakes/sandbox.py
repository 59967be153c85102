"""The sandbox as a case of the contract suite: a platform of its own, with books and faults of its own."""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime
from typing import Self

import httpx
import msgspec

from kiki.flow.plan import Account
from kiki.flow.platform import CampaignState, Platform
from kiki.flow.platforms.sandbox import SandboxPlatform
from kiki.flow.sandbox.books import Books
from kiki.flow.sandbox.server import sandbox_listening
from tests.flow.fakes.fake import Bill, Fake

OURS = {"invalid": "error_inside"}
OPERATIONS = {False: ("create", "set_budget", "set_bid", "set_status", "values"), True: ("lookup", "report", "account")}


class SandboxFake(Fake):
    NAME = "linkedin"
    ACCOUNT = Account(account="sandbox-linkedin")
    BILLS = False
    RENEWS = True

    async def __aenter__(self) -> Self:
        self._stack = contextlib.AsyncExitStack()
        self._books = Books(":memory:", first_day=datetime.now(UTC).date(), day_seconds=86400.0)
        self._stack.callback(self._books.close)
        self.url = await self._stack.enter_async_context(sandbox_listening(self._books))
        self._hand = await self._stack.enter_async_context(httpx.AsyncClient(base_url=self.url, timeout=60))
        self._platform = await SandboxPlatform.open(
            self.url, self.NAME, self.ACCOUNT.account, currency=self.currency, time_zone=self.time_zone
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def open(self) -> Platform:
        return self._platform

    async def fail(self, kind: str, *, times: int = 1, read: bool = False) -> None:
        if kind == "unauthorized":
            self._books.revoke(self.NAME, self.ACCOUNT.account, refreshable=True)
            return
        script = [
            {"kind": OURS.get(kind, kind), "operation": operation, "times": times} for operation in OPERATIONS[read]
        ]
        (await self._hand.put("/sandbox/faults", json={"script": script})).raise_for_status()

    async def forgive(self) -> None:
        (await self._hand.put("/sandbox/faults", json={})).raise_for_status()

    async def truth(self) -> list[CampaignState]:
        told = (await self._hand.get("/sandbox/books")).json()
        return [msgspec.convert(each, CampaignState) for each in told["campaigns"]]

    async def bill(self, campaign: str, day: date, bill: Bill) -> None:
        raise NotImplementedError

    async def end(self, campaign: str) -> None:
        found = self._books.campaign(self.NAME, self.ACCOUNT.account, campaign)
        self._books.change(found, "status", "ended", "by hand")

    async def uploaded(self) -> dict[str, int]:
        told = (await self._hand.get("/sandbox/books")).json()
        return {each["order"]: each["value"] for each in told["conversions"]}
