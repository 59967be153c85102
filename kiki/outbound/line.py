"""The line to one account of one platform: what is sent over it has an `Outcome`, and nothing is ever sent again.

    reply = await line.send(Request(method="POST", path="campaigns", write=True, json=body))
    if isinstance(reply, Outcome):
        return reply  # refused, or unknown
    made = reply.read(Campaign)

Every adapter speaks through a line, so that a lost answer means the same everywhere: a connection that was never made
proves that nothing happened; after the first byte was sent a write that is not answered is `unknown`. Before it is sent, a
call passes the account's rate budget and the breaker of its class (read or write). One thing alone is tried a second time,
once: what was answered 401, which proves that nothing happened, after its token was renewed. The call with all its waits
ends at `timeout_seconds`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx

from kiki import __version__, tracing
from kiki.clock import SECOND, Clock, wall_micros
from kiki.errors import RunTaken
from kiki.outbound.breaker import Breaker, BreakerRule
from kiki.outbound.exchange import (
    CONNECTION_LOST,
    INVALID,
    MESSAGE_LENGTH,
    THROTTLED,
    TIMEOUT,
    UNAUTHORIZED,
    UNAVAILABLE,
    Judge,
    Rates,
    Reply,
    Request,
    by_status,
    unanswered,
)
from kiki.outbound.fence import current_fence
from kiki.outbound.oauth import Anonymous, Authorization
from kiki.outbound.outcome import Fate, Outcome, refused
from kiki.outbound.rate_budget import RateBudget
from kiki.outbound.tls import trusted
from kiki.settings import Secret, is_loopback
from kiki.telemetry import redact_text

__all__ = ["Line", "Reply", "Request"]

TIMEOUT_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 10.0
PATIENCE: Final = 2 * SECOND
"""So long a call waits for its turn; what would wait longer is refused as throttled, with the moment of its turn."""
THROTTLED_FOR: Final = 5 * SECOND
"""How long an account is left alone that said "too often" and not until when."""
REPLY_BYTES_MAX: Final = 64 * 1024 * 1024

READ: Final = "read"
WRITE: Final = "write"


class Line:
    """Connections, rate budget and breakers of one account. Bound to one event loop."""

    def __init__(
        self,
        base_url: str,
        *,
        authorization: Authorization | None = None,
        headers: Mapping[str, str | Secret] | None = None,
        judge: Judge | None = None,
        rates: Rates | None = None,
        per_minute: int | None = None,
        breaker: BreakerRule | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Clock = wall_micros,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`headers` go with every request; `judge` and `rates` know the platform's own words, `per_minute` its limit."""
        rule = breaker or BreakerRule()
        self.breakers: Mapping[str, Breaker] = {READ: Breaker(rule), WRITE: Breaker(rule)}
        self.rate_budget = RateBudget(per_minute)
        self._base = base_url.rstrip("/")
        self._authorization: Authorization = authorization or Anonymous()
        self._headers = dict(headers or {})
        self._judge = judge
        self._rates = rates
        self._timeout = timeout_seconds
        self._clock = clock
        self._sleep = asyncio.sleep
        self._http = httpx.AsyncClient(
            transport=transport,
            verify=trusted(),
            follow_redirects=False,
            # A proxy from the environment is for the world outside; what goes to this machine stays on it.
            trust_env=not is_loopback(httpx.URL(base_url).host),
            timeout=httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds)),
            headers={"User-Agent": f"kiki/{__version__}"},
        )

    def __repr__(self) -> str:
        return f"Line({self._base!r})"

    async def send(self, request: Request) -> Reply | Outcome:
        """The reply to what the platform took; else the outcome: refused, or unknown."""
        began = self._clock()
        wait = self.rate_budget.take(began, min(PATIENCE, round(self._timeout * SECOND / 2)))
        if wait is None:
            free_at = self.rate_budget.free_at(began)
            return refused(THROTTLED, "not sent: the account's calls are used up for now", retry_at=free_at)
        if wait:
            await self._sleep(wait / SECOND)
        breaker = self.breakers[WRITE if request.write else READ]
        ticket = breaker.admit(self._clock())
        if ticket is None:
            now = self._clock()
            message = "not sent: the platform did not answer lately"
            return refused(UNAVAILABLE, message, retry_at=breaker.retry_at(now))
        progress = _Progress()
        try:
            answer = await self._within_time(request, progress, self._timeout - wait / SECOND)
            if progress.heard:
                breaker.answered(ticket, self._clock(), self._clock() - progress.sent_at)
            elif progress.sent_at:
                breaker.failed(ticket, self._clock())
            return answer
        finally:
            breaker.given_up(ticket)

    async def close(self) -> None:
        """Give connections free."""
        await self._http.aclose()
        await self._authorization.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _within_time(self, request: Request, progress: _Progress, seconds: float) -> Reply | Outcome:
        try:
            async with asyncio.timeout(seconds):
                return await self._exchange(request, progress)
        except TimeoutError:
            return unanswered(TIMEOUT, f"no answer within {seconds:g} s", write=request.write, sent=progress.sent)

    async def _exchange(self, request: Request, progress: _Progress) -> Reply | Outcome:
        renewed = False
        while True:
            try:
                built = self._build(request)
            except (httpx.InvalidURL, TypeError, ValueError) as error:
                return refused(INVALID, f"not sent: the request cannot be written: {self.plain(str(error))}")
            failure = await self._authorization.apply(built)
            if failure is not None:
                return failure
            with tracing.child(request.method, tracing.Kind.CLIENT, {"server.address": built.url.host}):
                fence = current_fence() if request.write else None
            progress.until = None if fence is None else await fence()
            reply = await self._transmit(built, request, progress)
            if isinstance(reply, Outcome):
                return reply
            outcome = self._meaning(reply)
            self._heed(reply, outcome)
            if outcome is None:
                return reply
            denied = outcome.fate is Fate.REFUSED and outcome.code == UNAUTHORIZED and reply.status != 403
            if not denied or renewed:
                return outcome
            # The platform has said that nothing happened.
            progress.sent = False
            if not await self._authorization.renew(built):
                return outcome
            renewed = True

    def _build(self, request: Request) -> httpx.Request:
        headers = {name: _revealed(value) for name, value in self._headers.items()} | dict(request.headers)
        whole = request.path.startswith(("https://", "http://"))
        path = request.path.lstrip("/")
        return self._http.build_request(
            request.method,
            request.path if whole else f"{self._base}/{path}" if path else self._base,
            params=dict(request.params) or None,
            json=request.json,
            data=dict(request.form) if request.form is not None else None,
            content=request.content,
            headers=headers,
        )

    async def _transmit(self, built: httpx.Request, request: Request, progress: _Progress) -> Reply | Outcome:
        progress.begin(self._clock())
        built.extensions = {**built.extensions, "trace": progress.trace}
        try:
            response = await self._http.send(built, stream=True)
            try:
                content = bytearray()
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > REPLY_BYTES_MAX:
                        return unanswered(CONNECTION_LOST, "its answer is too long", write=request.write, sent=True)
            finally:
                await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            progress.sent = False
            return unanswered(UNAVAILABLE, f"not sent: {self._why(error)}", write=request.write, sent=False)
        except httpx.TimeoutException as error:
            return unanswered(TIMEOUT, self._why(error), write=request.write, sent=progress.sent)
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            return unanswered(CONNECTION_LOST, self._why(error), write=request.write, sent=progress.sent)
        progress.heard = response.status_code < 500
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Reply(
            status=response.status_code,
            headers=headers,
            content=bytes(content),
            write=request.write,
            now=self._clock(),
        )

    def _meaning(self, reply: Reply) -> Outcome | None:
        outcome = self._judge(reply) if self._judge is not None else None
        outcome = outcome or by_status(reply)
        if outcome is None:
            return None
        return Outcome(
            fate=outcome.fate,
            value=outcome.value,
            code=outcome.code,
            message=self.plain(outcome.message),
            retry_at=outcome.retry_at,
        )

    def _heed(self, reply: Reply, outcome: Outcome | None) -> None:
        """Leave the account alone for as long as the platform asks."""
        until = self._rates(reply) if self._rates is not None else None
        if until is not None:
            self.rate_budget.close(until, reply.now)
        if outcome is not None and outcome.code == THROTTLED:
            self.rate_budget.close(outcome.retry_at or reply.now + THROTTLED_FOR, reply.now)

    def plain(self, text: str) -> str:
        """A text of the platform's as it may be shown: no secrets, one line, not too long."""
        for secret in self._secrets():
            text = text.replace(secret, "***")
        text = "".join(letter if letter.isprintable() else " " for letter in redact_text(text))
        return text[:MESSAGE_LENGTH]

    def _secrets(self) -> Iterator[str]:
        named = (value for value in self._headers.values() if isinstance(value, Secret))
        for secret in (*named, *self._authorization.secrets):
            if secret:
                yield secret.reveal()

    def _why(self, error: Exception) -> str:
        return self.plain(f"{type(error).__name__}: {error}")


class _Progress:
    """How far a call has come."""

    def __init__(self) -> None:
        self.sent = False
        """Whether the platform may have got something of it."""
        self.sent_at = 0
        self.heard = False
        """Whether the platform answered as one that works."""
        self.until: float | None = None
        """On the loop's clock: the first byte may not be sent later."""

    def begin(self, now: int) -> None:
        # A transport that tells nothing (a test's) counts as one that has sent.
        self.sent = True
        self.sent_at = now
        self.heard = False

    async def trace(self, event: str, _info: Mapping[str, Any]) -> None:
        """Follow httpcore: while a connection is being made, nothing was sent."""
        if event == "connection.connect_tcp.started":
            self.sent = False
        elif event.endswith("send_request_headers.started"):
            if self.until is not None and asyncio.get_running_loop().time() >= self.until:
                raise RunTaken("the lease ended immediately before a call was sent; it was not sent")
            self.sent = True


def _revealed(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


class _WithoutQuery(logging.Filter):
    """httpx logs whole URLs; a query may hold a signature or name a person."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                str(each.copy_with(query=None)) if isinstance(each, httpx.URL) else each for each in record.args
            )
        return True


logging.getLogger("httpx").addFilter(_WithoutQuery())
