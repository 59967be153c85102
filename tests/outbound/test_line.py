"""The line to a platform, over real sockets: what an answer means, what silence means, and that nothing is sent again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self
from urllib.parse import parse_qs

import msgspec
import pytest

from kiki.clock import SECOND
from kiki.outbound.breaker import BreakerRule, BreakerState
from kiki.outbound.exchange import Reply, Request
from kiki.outbound.line import Line
from kiki.outbound.oauth import FixedToken, OAuth2
from kiki.outbound.outcome import Fate, Outcome, refused
from kiki.settings import Secret
from tests.servers import free_port

Step = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]
LOST = b""
"""The connection is cut."""

READ = Request(method="GET", path="campaigns", write=False)
WRITE = Request(method="POST", path="campaigns", write=True, json={"name": "a"})
TOKEN = "s3cr3t-token-value"


class Server:
    """Answers each request as its script says, byte for byte, and remembers what it got."""

    def __init__(self, *script: Step) -> None:
        self.script: list[Step] = list(script)
        self.got: list[bytes] = []
        self.url = ""
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
                self.got.append(head + body)
                step = self.script.pop(0)
                if step == LOST:
                    break
                if isinstance(step, bytes):
                    writer.write(step)
                else:
                    await step(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()


def http(status: int, body: object = None, **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def never(_writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def half(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()


async def trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    for _ in range(2000):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server() as made:
        yield made


def fate(answer: Reply | Outcome) -> tuple[str, str]:
    assert isinstance(answer, Outcome)
    return answer.fate.value, answer.code


async def once_got(server: Server, request: Request, seconds: float) -> Reply | Outcome:
    """What a request comes to that the server got. A machine that stands still may run out of time before anything is sent."""
    before = len(server.got)
    while True:
        async with Line(server.url, timeout_seconds=seconds) as line:
            answer = await line.send(request)
        if len(server.got) > before or not isinstance(answer, Outcome) or answer.fate is Fate.UNKNOWN:
            return answer


async def test_a_good_reply_is_handed_over_as_it_came(server: Server) -> None:
    server.script = [http(201, {"id": 7}, X_RestLi_Id="urn:1")]
    async with Line(server.url + "/v1", headers={"X-Version": "3"}) as line:
        reply = await line.send(WRITE)
    assert isinstance(reply, Reply)
    assert (201, {"id": 7}, "urn:1") == (reply.status, reply.json, reply.headers["x-restli-id"])
    [got] = server.got
    assert got.startswith(b"POST /v1/campaigns HTTP/1.1\r\n")
    assert b"X-Version: 3" in got
    assert got.endswith(b'{"name":"a"}')


@pytest.mark.parametrize(
    ("status", "write", "read"),
    [
        (400, ("refused", "invalid"), ("refused", "invalid")),
        (401, ("refused", "unauthorized"), ("refused", "unauthorized")),
        (403, ("refused", "unauthorized"), ("refused", "unauthorized")),
        (404, ("refused", "not_found"), ("refused", "not_found")),
        (408, ("unknown", "timeout"), ("refused", "unavailable")),
        (409, ("refused", "conflict"), ("refused", "conflict")),
        (422, ("refused", "invalid"), ("refused", "invalid")),
        (429, ("refused", "throttled"), ("refused", "throttled")),
        (500, ("unknown", "server_error"), ("refused", "unavailable")),
        (502, ("unknown", "server_error"), ("refused", "unavailable")),
        (503, ("unknown", "server_error"), ("refused", "unavailable")),
        (302, ("unknown", "unreadable"), ("refused", "unreadable")),
    ],
)
async def test_a_status_alone_says_what_happened(
    server: Server, status: int, write: tuple[str, str], read: tuple[str, str]
) -> None:
    for request, expected in ((WRITE, write), (READ, read)):
        server.script = [http(status, {"message": "because"})]
        server.got.clear()
        async with Line(server.url) as line:
            answer = await line.send(request)
        assert expected == fate(answer)
        assert isinstance(answer, Outcome)
        assert "because" in answer.message
        assert len(server.got) == 1, "it was sent again"


async def test_a_connection_that_is_never_made_proves_that_nothing_was_sent() -> None:
    for request in (READ, WRITE):
        async with Line(f"http://127.0.0.1:{free_port()}") as line:
            assert ("refused", "unavailable") == fate(await line.send(request))


async def test_a_connection_that_hangs_while_it_is_made_proves_the_same() -> None:
    with contextlib.ExitStack() as stack:
        import socket

        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # the queue is full: the next connection is not answered
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        async with Line(f"http://127.0.0.1:{full.getsockname()[1]}", timeout_seconds=0.3) as line:
            assert ("refused", "unavailable") == fate(await line.send(WRITE))


async def test_a_write_whose_connection_is_cut_is_unknown_and_a_read_is_not(server: Server) -> None:
    for request, expected in ((WRITE, ("unknown", "connection_lost")), (READ, ("refused", "unavailable"))):
        server.script = [LOST]
        async with Line(server.url) as line:
            assert expected == fate(await line.send(request))
    assert len(server.got) == 2, "something was sent again"


async def test_a_reply_that_breaks_off_in_the_middle_is_unknown(server: Server) -> None:
    server.script = [half, half]
    async with Line(server.url) as line:
        assert ("unknown", "connection_lost") == fate(await line.send(WRITE))
        assert ("refused", "unavailable") == fate(await line.send(READ))


async def test_a_write_on_a_kept_connection_that_was_closed_meanwhile_is_not_sent_again(server: Server) -> None:
    server.script = [http(200), LOST]
    async with Line(server.url) as line:
        assert isinstance(await line.send(READ), Reply)
        assert ("unknown", "connection_lost") == fate(await line.send(WRITE))
    assert len(server.got) == 2


async def test_an_answer_that_takes_too_long_is_unknown(server: Server) -> None:
    server.script = [never, never]
    assert ("unknown", "timeout") == fate(await once_got(server, WRITE, 0.5))
    assert ("refused", "unavailable") == fate(await once_got(server, READ, 0.5))


async def test_a_trickling_answer_does_not_prolong_the_time(server: Server) -> None:
    server.script = [trickle]
    assert ("unknown", "timeout") == fate(await asyncio.wait_for(once_got(server, WRITE, 0.3), 50))


@pytest.mark.parametrize("said", [b"<html>", b"", b"[1, 2", b'{"id": "seven"}', b"\xff\xfe", b"[" * 100_000])
async def test_a_reply_that_nobody_understands_is_unknown_after_a_write(server: Server, said: bytes) -> None:
    class Made(msgspec.Struct):
        id: int

    server.script = [http(200, said)] * 2
    async with Line(server.url) as line:
        for request, expected in ((WRITE, ("unknown", "unreadable")), (READ, ("refused", "unreadable"))):
            reply = await line.send(request)
            assert isinstance(reply, Reply)
            assert expected == fate(reply.read(Made))


async def test_a_platforms_own_words_come_before_the_status(server: Server) -> None:
    """TikTok says 'too often' with HTTP 200, and Meta says it with 400."""

    def judge(reply: Reply) -> Outcome | None:
        code = reply.json.get("code", 0)
        return refused("throttled", "too frequent", retry_at=reply.now + 1) if code == 40100 else None

    server.script = [http(200, {"code": 40100}), http(200, {"code": 0})]
    async with Line(server.url, judge=judge) as line:
        assert ("refused", "throttled") == fate(await line.send(WRITE))
        await asyncio.sleep(0.001)
        assert isinstance(await line.send(WRITE), Reply)


async def test_while_a_platform_wants_to_hear_nothing_nothing_is_sent(server: Server) -> None:
    server.script = [http(429, {}, Retry_After="3600")]
    async with Line(server.url) as line:
        first = await line.send(READ)
        again = await line.send(WRITE)
    assert isinstance(first, Outcome)
    assert isinstance(again, Outcome)
    assert again.retry_at is not None
    assert first.retry_at is not None
    assert (Fate.REFUSED, "throttled") == (again.fate, again.code)
    assert abs(again.retry_at - first.retry_at) <= SECOND
    assert len(server.got) == 1


async def test_headers_that_tell_of_a_limit_slow_the_account_down_before_it_is_refused(server: Server) -> None:
    server.script = [http(200, {}, X_Remaining="0")]
    async with Line(
        server.url, rates=lambda reply: reply.now + 900 * SECOND if reply.headers.get("x-remaining") == "0" else None
    ) as line:
        assert isinstance(await line.send(READ), Reply)
        assert ("refused", "throttled") == fate(await line.send(READ))


async def test_a_call_waits_a_moment_for_its_turn(server: Server) -> None:
    server.script = [http(200)] * 2
    async with Line(server.url, per_minute=1000) as line:
        waits: list[float] = []

        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        line._sleep = sleep  # type: ignore[assignment]
        now = line._clock()
        line._clock = lambda: now  # so that no turn becomes free before it is asked for
        while line.rate_budget.take(line._clock()) is not None:
            pass
        assert isinstance(await line.send(READ), Reply)
    assert len(waits) == 1
    assert 0 < waits[0] < 0.1


async def test_the_breaker_of_a_class_opens_alone_and_lets_nothing_out(server: Server) -> None:
    server.script = [http(500), LOST, http(503), http(200)]
    async with Line(server.url, breaker=BreakerRule(open_seconds=3600)) as line:
        for _ in range(3):
            assert ("unknown") == fate(await line.send(WRITE))[0]
        shut = await line.send(WRITE)
        assert ("refused", "unavailable") == fate(shut)
        assert isinstance(shut, Outcome)
        assert shut.retry_at is not None
        assert isinstance(await line.send(READ), Reply), "reads are another class"
        assert [BreakerState.CLOSED, BreakerState.OPEN] == [
            line.breakers[kind].state(line._clock()) for kind in ("read", "write")
        ]
    assert len(server.got) == 4


async def test_refusals_do_not_open_the_breaker(server: Server) -> None:
    server.script = [http(400), http(404), http(422), http(409)] * 3 + [http(200)]
    async with Line(server.url) as line:
        for _ in range(12):
            assert fate(await line.send(WRITE))[0] == "refused"
        assert isinstance(await line.send(WRITE), Reply)


async def test_a_connection_that_cannot_be_made_counts_against_the_platform() -> None:
    async with Line(f"http://127.0.0.1:{free_port()}") as line:
        for _ in range(3):
            await line.send(WRITE)
        assert line.breakers["write"].state(line._clock()) is BreakerState.OPEN


async def test_a_cancelled_call_leaves_the_breaker_as_it_was(server: Server) -> None:
    server.script = [never] * 5
    async with Line(server.url) as line:
        for _ in range(5):
            task = asyncio.create_task(line.send(WRITE))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert line.breakers["write"].state(line._clock()) is BreakerState.CLOSED


async def test_a_request_that_cannot_be_written_is_refused_unsent(server: Server) -> None:
    async with Line(server.url) as line:
        for request in (
            Request(method="POST", path="a", write=True, json={"budget": float("nan")}),
            Request(method="POST", path="a", write=True, json={1, 2}),
            Request(method="GET", path="http://exa mple:port/", write=True),
        ):
            answer = await line.send(request)
            assert isinstance(answer, Outcome)
            assert answer.fate is Fate.REFUSED
    assert not server.got


# -- tokens


def _oauth(tokens: Server) -> OAuth2:
    return OAuth2(f"{tokens.url}/token", "client", Secret("client-secret"), Secret("refresh-1"))


async def test_a_401_is_sent_once_more_with_a_renewed_token(server: Server) -> None:
    async with Server(
        http(200, {"access_token": "one", "expires_in": 3600, "refresh_token": "refresh-2"}),
        http(200, {"access_token": "two", "expires_in": "3600"}),
    ) as tokens:
        server.script = [http(401), http(200)]
        async with Line(server.url, authorization=_oauth(tokens)) as line:
            assert isinstance(await line.send(WRITE), Reply)
        assert [b"Bearer one" in server.got[0], b"Bearer two" in server.got[1]] == [True, True]
        forms = [parse_qs(got.split(b"\r\n\r\n", 1)[1].decode()) for got in tokens.got]
        assert [["refresh-1"], ["refresh-2"]] == [form["refresh_token"] for form in forms]


async def test_a_second_401_is_the_answer(server: Server) -> None:
    async with Server(*[http(200, {"access_token": f"t{number}"}) for number in range(9)]) as tokens:
        server.script = [http(401), http(401)]
        async with Line(server.url, authorization=_oauth(tokens)) as line:
            assert ("refused", "unauthorized") == fate(await line.send(WRITE))
        assert len(server.got) == 2


async def test_a_revoked_refresh_token_is_a_refusal_and_is_not_tried_again_at_once(server: Server) -> None:
    async with Server(http(400, {"error": "invalid_grant", "error_description": "refresh-1 is void"})) as tokens:
        async with Line(server.url, authorization=_oauth(tokens)) as line:
            for _ in range(3):
                answer = await line.send(WRITE)
                assert ("refused", "unauthorized") == fate(answer)
                assert isinstance(answer, Outcome)
                assert answer.message.endswith("400 invalid_grant")
        assert not server.got
        assert len(tokens.got) == 1


@pytest.mark.parametrize("said", [http(500), http(429), http(200, {"token": 1}), http(200, b"<html>"), LOST])
async def test_a_token_endpoint_that_is_down_means_that_nothing_was_sent(server: Server, said: bytes) -> None:
    async with Server(said) as tokens:
        async with Line(server.url, authorization=_oauth(tokens)) as line:
            assert ("refused", "unavailable") == fate(await line.send(WRITE))
        assert not server.got


async def test_a_token_endpoint_that_hangs_after_a_401_leaves_nothing_unknown(server: Server) -> None:
    asked = 0
    while asked < 2:  # a machine that stands still may run out of time before that
        async with Server(http(200, {"access_token": "one"}), never) as tokens:
            server.script = [http(401)]
            async with Line(server.url, authorization=_oauth(tokens), timeout_seconds=0.5) as line:
                answer = await line.send(WRITE)
            asked = len(tokens.got)
    assert isinstance(answer, Outcome)
    assert answer.fate is Fate.REFUSED


async def test_many_calls_at_once_renew_one_token_once(server: Server) -> None:
    async with Server(http(200, {"access_token": "one", "expires_in": 3600})) as tokens:
        server.script = [http(200)] * 20
        async with Line(server.url, authorization=_oauth(tokens)) as line:
            answers = await asyncio.gather(*(line.send(READ) for _ in range(20)))
        assert all(isinstance(answer, Reply) for answer in answers)
        assert len(tokens.got) == 1


async def test_no_secret_shows_anywhere(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.script = [http(400, {"message": f"bad token {TOKEN} and developer-0815 for a@b.c"}), http(500, TOKEN), LOST]
    authorization = FixedToken(Secret(TOKEN))
    line = Line(server.url, authorization=authorization, headers={"developer-token": Secret("developer-0815")})
    said = [repr(line), repr(authorization), repr(OAuth2("u", "c", Secret(TOKEN), Secret(TOKEN)))]
    query = {"appsecret_proof": TOKEN}
    for _ in range(3):
        answer = await line.send(Request(method="POST", path="a", write=True, params=query, json={}))
        said.append(repr(answer))
    await line.close()
    assert server.got[0].count(TOKEN.encode()) == 2, "the platform itself must see it"
    for text in [*said, caplog.text]:
        assert TOKEN not in text
        assert "developer-0815" not in text
