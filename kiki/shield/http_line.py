"""The lines that carry a conversation with SyncShield over HTTP, in two colours. They decide nothing: see `conversation`."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any, Self

import httpx

from kiki import tracing
from kiki.settings import is_loopback
from kiki.shield.conversation import DETAIL_LENGTH, Conversation, Failure, Flow, Heard, Reply, Send, Value, Wait

REPLY_BYTES_MAX = 64 * 1024 * 1024
"""A reply that is longer is no reply of SyncShield's."""

_TRACED_AS = {"peer.service": "syncshield"}


class Line(Conversation):
    """A conversation that waits."""

    def __init__(
        self,
        url: str | None,
        token: str | None,
        timeout: float,
        retries: int,
        deadline: float,
        transport: httpx.BaseTransport | None,
    ) -> None:
        super().__init__(url, token, timeout, retries, deadline)
        self._http = httpx.Client(**httpx_options(self.url), transport=transport)
        self._sleep = time.sleep

    def drive(self, flow: Flow[Value]) -> Value:
        """What a flow comes to."""
        heard: Heard = None
        while True:
            try:
                step = flow.send(heard)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # the flow's own return type
            if isinstance(step, Wait):
                self._sleep(step.seconds)
                heard = None
            else:
                heard = self._send(step)

    def _send(self, step: Send) -> Reply | Failure:
        end = self._clock() + step.timeout
        try:
            with (
                tracing.child(step.method, tracing.Kind.CLIENT, _TRACED_AS),
                self._http.stream(
                    step.method,
                    step.path,
                    params=list(step.params) or None,
                    content=step.content,
                    headers=tracing.carried(step.headers),
                    timeout=step.timeout,
                ) as response,
            ):
                content = _Content(step, response)
                for part in response.iter_bytes():
                    if not content.take(part):
                        return Failure("its reply is too long")
                    if self._clock() > end:
                        return Failure(f"its reply took longer than {step.timeout:g} s")
                return Reply(response.status_code, response.headers, bytes(content.kept))
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as error:
            return Failure(_why(error, step))

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncLine(Conversation):
    """A conversation on an event loop."""

    def __init__(
        self,
        url: str | None,
        token: str | None,
        timeout: float,
        retries: int,
        deadline: float,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        super().__init__(url, token, timeout, retries, deadline)
        self._http = httpx.AsyncClient(**httpx_options(self.url), transport=transport)
        self._sleep = asyncio.sleep

    async def drive(self, flow: Flow[Value]) -> Value:
        """What a flow comes to."""
        heard: Heard = None
        while True:
            try:
                step = flow.send(heard)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # the flow's own return type
            if isinstance(step, Wait):
                await self._sleep(step.seconds)
                heard = None
            else:
                heard = await self._send(step)

    async def _send(self, step: Send) -> Reply | Failure:
        try:
            with tracing.child(step.method, tracing.Kind.CLIENT, _TRACED_AS):
                async with (
                    asyncio.timeout(step.timeout),
                    self._http.stream(
                        step.method,
                        step.path,
                        params=list(step.params) or None,
                        content=step.content,
                        headers=tracing.carried(step.headers),
                        timeout=step.timeout,
                    ) as response,
                ):
                    content = _Content(step, response)
                    async for part in response.aiter_bytes():
                        if not content.take(part):
                            return Failure("its reply is too long")
                    return Reply(response.status_code, response.headers, bytes(content.kept))
        except TimeoutError:
            return Failure(f"it did not answer within {step.timeout:g} s")
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as error:
            return Failure(_why(error, step))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def httpx_options(to: str) -> dict[str, Any]:
    """How httpx is set up for an address."""
    import ssl

    url = httpx.URL(to)
    options: dict[str, Any] = {
        "base_url": to,
        "follow_redirects": False,
        # A proxy from the environment is for the world outside; what goes to this machine stays on it.
        "trust_env": not is_loopback(url.host),
    }
    if url.scheme == "http":
        # Loading all certificates takes longer than everything else here; this context trusts nobody.
        options["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return options


class _Content:
    """What comes back, gathered in memory, or in the caller's file when it is what the caller asked for."""

    def __init__(self, step: Send, response: httpx.Response) -> None:
        self.kept = bytearray()
        self._sink = step.sink if response.is_success else None
        if self._sink is not None:
            # Of an earlier try there may be a part.
            self._sink.seek(0)
            self._sink.truncate()

    def take(self, part: bytes) -> bool:
        """Keep a part; False when that is more than a reply can be."""
        if self._sink is not None:
            self._sink.write(part)
            return True
        self.kept += part
        return len(self.kept) <= REPLY_BYTES_MAX


def _why(error: Exception, step: Send) -> str:
    """Why nothing came back; no URL in it, since a query may name a person."""
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return f"no connection within {step.timeout:g} s"
    if isinstance(error, httpx.TimeoutException):
        return f"it did not answer within {step.timeout:g} s"
    if isinstance(error, httpx.ConnectError):
        return str(error)[:DETAIL_LENGTH] or "no connection"
    return f"{type(error).__name__}: {error}"[:DETAIL_LENGTH]
