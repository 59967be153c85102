"""SyncEngage and a shield that answer on loops of their own, for tests and fuzzers."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from aiohttp import web

from kiki.engage.channels.outbox import OutboxChannel
from kiki.engage.customer_store import CustomerStore
from kiki.engage.database import open_database
from kiki.engage.keyring import Keyring
from kiki.engage.playbook_text import parse_playbook
from kiki.engage.post_room import PostRoom
from kiki.engage.retention_engine import RetentionEngine
from kiki.engage.service import EngageService
from kiki.engage.shield_line import GuardLine
from kiki.engage.trigger_audit import TriggerAudit
from kiki.engage.trigger_desk import TriggerDesk
from kiki.engage.unsubscribe import UnsubscribeLinks
from kiki.settings import Secret, parse_listen
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.service import ShieldService
from kiki.web import listening

PLAYBOOK = """
playbook: book
currency: USD
zone: Europe/Vienna
holdout: 0%
segments:
  lapsed: {days_since_purchase: {over: 60}}
messages:
  mail: {channel: email, subject: Hello, text: Hello}
offers:
  ten: {message: mail, cost: 4.00, gain: 6.00}
journeys:
  win-back: {enter: {segment: lapsed}, steps: [{send: ten, name: first}]}
"""


class OnItsOwnLoop:
    """Something asynchronous that runs in a thread until it is closed."""

    def __init__(self) -> None:
        self.url = ""
        self._ready = threading.Event()
        self._loop = None
        self._stop = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self.running() as url:
            self.url = url
            self._ready.set()
            await self._stop.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive()


class RunningShield(OnItsOwnLoop):
    def __init__(self, guard: BudgetGuard) -> None:
        self.guard = guard
        super().__init__()

    def running(self):
        return _urls(
            listening(ShieldService(self.guard).service(), parse_listen({"PORT": "0", "KIKI_DRAIN_SECONDS": "0"}))
        )


class FakeShield(OnItsOwnLoop):
    """Answers /check and consent as it is told: `answer(path)` gives status and body, and may wait."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.asked: list[str] = []
        super().__init__()

    def running(self):
        async def handle(request: web.Request) -> web.Response:
            self.asked.append(request.path)
            found = self.answer(request.path)
            status, body, *wait = found
            if wait:
                await asyncio.sleep(wait[0])
            return web.Response(status=status, body=body, content_type="application/json")

        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", handle)
        return _app(app)


class RunningEngage(OnItsOwnLoop):
    def __init__(
        self, folder: Path, shield_url: str, guard: BudgetGuard, *, readers=(), requests=None, secret: str | None = None
    ) -> None:
        self.folder = folder
        self.shield_url = shield_url
        self.links = UnsubscribeLinks("http://127.0.0.1", [Secret("x" * 16)])
        self.store = CustomerStore(open_database(folder / "engage.db"), Keyring.of_guard(guard.decider))
        outbox = folder / "outbox"
        self.engine = RetentionEngine(
            self.store, GuardLine(guard), {"email": OutboxChannel(outbox)}, self.links.url, holdout=0, workers=2
        )
        self.service = EngageService(
            self.engine,
            TriggerDesk(shield_url, "127.0.0.1:1"),
            TriggerAudit(folder / "syncengage_audit.csv"),
            PostRoom(self.engine, readers, self.links, requests),
            playbooks={"book": parse_playbook(PLAYBOOK)},
            outbox=outbox,
            privacy_secret=None if secret is None else Secret(secret),
        )
        super().__init__()

    def running(self):
        environ = {"PORT": "0", "KIKI_DRAIN_SECONDS": "0", "KIKI_BODY_BYTES_MAX": "2MiB"}
        return _urls(listening(self.service.service(), parse_listen(environ)))


class _urls:  # noqa: N801
    def __init__(self, context) -> None:
        self._context = context

    async def __aenter__(self) -> str:
        return (await self._context.__aenter__()).url

    async def __aexit__(self, *failure) -> None:
        await self._context.__aexit__(*failure)


class _app:  # noqa: N801
    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def __aenter__(self) -> str:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *failure) -> None:
        await self._runner.cleanup()
