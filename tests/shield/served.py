"""A shield on real sockets in this process, for the tests of its routes: asked by a plain HTTP client."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession

from kiki.settings import parse_listen
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.service import ShieldService
from kiki.web import listening, parse_tokens

JSON = {"Content-Type": "application/json"}
ROLES = ("read", "spend", "privacy", "admin")
TOKENS = "tokens:\n" + "".join(
    f"  - {{name: {role}-er, token: {role}-0123456789abcdef, roles: [{role}]}}\n" for role in ROLES
)


def bearer(role: str) -> dict[str, str]:
    """The headers of a caller with that role alone."""
    return {"Authorization": f"Bearer {role}-0123456789abcdef"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0]


@dataclass
class Served:
    guard: BudgetGuard
    url: str
    public_url: str | None
    session: ClientSession

    async def ask(self, method: str, path: str, body: Any = None, *, public: bool = False, **given: Any) -> Answer:
        """One request; a body that is no bytes goes as JSON."""
        if body is not None:
            given["data"] = body if isinstance(body, bytes) else json.dumps(body).encode()
            given["headers"] = JSON | given.get("headers", {})
        async with self.session.request(method, (self.public_url if public else self.url) + path, **given) as response:
            return Answer(response.status, dict(response.headers), await response.read())

    async def get(self, path: str, **given: Any) -> Answer:
        return await self.ask("GET", path, **given)

    async def post(self, path: str, body: Any = None, **given: Any) -> Answer:
        return await self.ask("POST", path, body, **given)


@asynccontextmanager
async def served(
    guard: BudgetGuard, *, tokens: str | None = None, service: dict[str, Any] | None = None, **environ: str
) -> AsyncIterator[Served]:
    """The service over a guard until the end of the block, which closes the guard."""
    settings = parse_listen({"PORT": "0", "KIKI_DRAIN_SECONDS": "1"} | environ)
    found = parse_tokens(tokens, "tokens.yaml") if tokens else None
    shield = ShieldService(guard, **(service or {})).service()
    async with listening(shield, settings, found) as running, ClientSession(auto_decompress=False) as session:
        yield Served(guard, running.url, running.public_url, session)


class Running:
    """A shield on a loop of its own, in a thread."""

    def __init__(self, tokens: str | None = None) -> None:
        self._tokens = tokens
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self.shield: Served
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with served(BudgetGuard.open(limit="1000"), tokens=self._tokens) as self.shield:
            self._ready.set()
            await self._stop.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive()
