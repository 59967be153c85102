"""A platform that is played for the tests: what all fakes share, and what the contract suite asks of each.

A fake answers over real sockets on loopback, in its platform's own words, by what the platform documents. It keeps the
truth, the campaigns as they are, and every request as it came, so that tests can show them to the platform's own kit.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, ClassVar, NamedTuple, Self
from urllib.parse import parse_qsl

from aiohttp import web

from kiki.flow.plan import Account
from kiki.flow.platform import CampaignState, Platform, Status
from kiki.flow.platforms.amounts import smallest_unit
from kiki.flow.platforms.registry import adapter_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TOKEN = "an-access-token-of-theirs"
RENEWED = "another-access-token-of-theirs"
REFRESH = "a-refresh-token-of-theirs"

THROTTLED = "throttled"
"""The platform says 'too often', in its own words; nothing happens."""
INVALID = "invalid"
"""The platform refuses what was asked, in its own words; nothing happens."""
UNAUTHORIZED = "unauthorized"
"""The platform does not take the token; nothing happens."""
ERROR_BEFORE = "error_before"
"""503, and nothing happened."""
ERROR_AFTER = "error_after"
"""500, although it happened."""
LOST_BEFORE = "lost_before"
LOST_AFTER = "lost_after"
GARBLED = "garbled"
"""It happened, and the answer is no JSON."""


class Said(NamedTuple):
    """An answer as it went."""

    path: str
    status: int
    json: Any


class Got(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    raw_query: str
    headers: Mapping[str, str]
    content: bytes
    write: bool

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.content.decode(), keep_blank_values=True))


@dataclass
class FakeCampaign:
    """A campaign as the platform has it; money in micros."""

    id: str
    name: str
    status: Status = Status.PAUSED
    budget: int | None = None
    bid: int | None = None
    more: dict[str, Any] = field(default_factory=dict)


class Bill(NamedTuple):
    spent: int
    impressions: int = 0
    clicks: int = 0
    conversions: int = 0
    value: int = 0


class Fake:
    """One account of a platform that is played. Subclasses add the platform's words."""

    NAME = ""
    CURRENCIES: tuple[str, ...] = ("USD", "EUR", "JPY", "KRW", "BHD")
    """Those that the platform's accounts may have."""
    ENVIRON: ClassVar[Mapping[str, str]] = {}
    """Credentials that the fake takes; what it takes of addresses is added by `environ`."""
    OPTIONAL: tuple[str, ...] = ()
    """Those of ENVIRON that need not be set."""
    ACCOUNT = Account(account="1")
    SETTINGS: ClassVar[Mapping[str, str | int | float | bool]] = {}
    """Of a campaign, where the platform needs some."""
    UNITS: ClassVar[Mapping[str, int]] = {}
    """The smallest step of a budget by currency, in micros, where it is not the currency's own unit."""
    BUDGET = 120
    """A daily budget that the platform takes, in whole units of any currency."""
    RENEWS = False
    """Whether a token that is refused is renewed."""
    BILLS = True
    """Whether a test may say what was billed."""
    VALUES = True
    """Whether the platform takes what conversions were worth."""
    SHOWS_ENDED = True
    """Whether the platform still shows what was removed."""

    def __init__(self, *, currency: str = "USD", time_zone: str = "America/New_York") -> None:
        self.currency = currency
        self.time_zone = time_zone
        self.campaigns: dict[str, FakeCampaign] = {}
        self.bills: dict[tuple[str, date], Bill] = {}
        self.uploads: dict[str, int] = {}
        """What conversions were worth, by order, in micros."""
        self.got: list[Got] = []
        self.said: list[Said] = []
        self.faults: list[tuple[str, bool]] = []
        self.token = TOKEN
        self.renewed = 0
        self.url = ""
        self.garble: Callable[[Any], Any] | None = None
        """What to make of every answer's JSON, for who wants to see nonsense understood."""
        self._numbers = 0

    # -- what the contract suite asks ----------------------------------------------------------------

    def open(self) -> Platform:
        """The adapter, opened as a plan opens it."""
        return adapter_of(self.NAME).open(self.ACCOUNT, self.environ())

    def environ(self) -> dict[str, str]:
        return dict(self.ENVIRON)

    async def fail(self, kind: str, *, times: int = 1, read: bool = False) -> None:
        """Let the next writes (or reads) meet a fault."""
        self.faults += [(kind, not read)] * times

    async def forgive(self) -> None:
        self.faults.clear()

    async def truth(self) -> list[CampaignState]:
        """The campaigns as they are."""
        return [
            CampaignState(
                id=each.id,
                name=each.name,
                status=each.status,
                daily_budget=each.budget,
                bid=each.bid,
                currency=self.currency,
                account=self.ACCOUNT.account,
            )
            for each in self.campaigns.values()
        ]

    async def bill(self, campaign: str, day: date, bill: Bill) -> None:
        self.bills[campaign, day] = bill

    async def end(self, campaign: str) -> None:
        """Remove a campaign, as somebody may by hand."""
        self.campaigns[campaign].status = Status.ENDED

    async def uploaded(self) -> dict[str, int]:
        return dict(self.uploads)

    def unit(self) -> int:
        return self.UNITS.get(self.currency, smallest_unit(self.currency))

    @property
    def writes(self) -> list[Got]:
        return [each for each in self.got if each.write]

    # -- what a platform adds ------------------------------------------------------------------------

    def routes(self, router: web.UrlDispatcher) -> None:
        raise NotImplementedError

    def is_write(self, request: web.Request) -> bool:
        return request.method != "GET"

    def answers_always(self, request: web.Request) -> bool:
        """Whether a path is no part of the API, such as the token's."""
        return request.path.endswith("/token")

    def is_known(self, request: web.Request, content: bytes) -> bool:
        """Whether a request shows the right credentials."""
        return request.headers.get("Authorization") == f"Bearer {self.token}"

    def throttled(self) -> web.Response:
        raise NotImplementedError

    def refused(self, message: str = "the sum is too small") -> web.Response:
        raise NotImplementedError

    def unauthorized(self) -> web.Response:
        raise NotImplementedError

    def next_id(self) -> str:
        self._numbers += 1
        return str(10_000 + self._numbers)

    def named(self, name: str) -> list[FakeCampaign]:
        return [each for each in self.campaigns.values() if each.name == name]

    # -- the server ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._middleware()], client_max_size=2**24)
        self.routes(app.router)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def _middleware(self) -> Any:
        @web.middleware
        async def play(request: web.Request, handler: Handler) -> web.StreamResponse:
            content = await request.read()
            if self.answers_always(request):
                return await handler(request)
            write = self.is_write(request)
            query = dict(request.query.items())
            got = Got(
                request.method, request.path, query, request.rel_url.raw_query_string, request.headers, content, write
            )
            self.got.append(got)
            fault = self._meet(write)
            if fault == UNAUTHORIZED or not self.is_known(request, content):
                return self.unauthorized()
            if fault in {LOST_BEFORE, ERROR_BEFORE, THROTTLED, INVALID}:
                answer = {
                    LOST_BEFORE: lambda: _cut(request),
                    ERROR_BEFORE: lambda: web.Response(status=503, text="upstream is away"),
                    THROTTLED: self.throttled,
                    INVALID: self.refused,
                }[fault]()
                self._note(request, answer)
                return answer
            answer = await handler(request)
            self._note(request, answer)
            if self.garble is not None and isinstance(answer, web.Response):
                return self._garbled(answer)
            if fault == LOST_AFTER:
                return _cut(request)
            if fault == ERROR_AFTER:
                return web.Response(status=500, text="internal error")
            if fault == GARBLED:
                return web.Response(text="<html>fine</html>", content_type="text/html", status=200)
            return answer

        return play

    def _garbled(self, answer: web.Response) -> web.Response:
        assert self.garble is not None
        told = json.loads(answer.text) if answer.text else {}
        headers = {name: text for name, text in answer.headers.items() if name.lower().startswith("x-")}
        return web.json_response(self.garble(told), status=answer.status, headers=headers)

    def _note(self, request: web.Request, answer: web.StreamResponse) -> None:
        if isinstance(answer, web.Response) and answer.content_type == "application/json":
            self.said.append(Said(request.path, answer.status, json.loads(answer.text or "null")))

    def _meet(self, write: bool) -> str | None:
        for number, (kind, of_write) in enumerate(self.faults):
            if of_write == write:
                del self.faults[number]
                return kind
        return None

    async def renew_token(self, request: web.Request) -> web.Response:
        """RFC 6749, 6."""
        form = await request.post()
        if form.get("grant_type") != "refresh_token" or form.get("refresh_token") != REFRESH:
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.renewed += 1
        return web.json_response({"access_token": self.token, "expires_in": 3600, "token_type": "Bearer"})


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
