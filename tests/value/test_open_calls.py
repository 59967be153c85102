"""Health and reflection ask for no token; that nobody's calls of them keep the service's own from being answered."""

from __future__ import annotations

import asyncio
import hashlib

import grpc
import pytest
from grpc_health.v1 import health_pb2

from kiki.settings import parse_listen
from kiki.value import open_calls
from kiki.value.call_metrics import CallMetrics
from kiki.value.grpc_server import GrpcServer, Method
from kiki.web import Tokens
from kiki.web.tokens import Principal
from tests.value.test_grpc_stop import Place

PROOF = [("authorization", "Bearer sixteen-letters-1")]
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
async def server(monkeypatch):
    monkeypatch.setattr(open_calls, "OPEN_MAX", 3)
    tokens = Tokens([(hashlib.sha256(b"sixteen-letters-1").digest(), Principal("a", frozenset({"read"})))])
    made = GrpcServer(
        [Method("s.S", "Echo", lambda data, _: data)], Place(parse_listen({"PORT": "0"})), tokens, CallMetrics()
    )
    await made.start()
    await made.say_serving(serving=True)
    yield made
    await made.stop(1)


@pytest.fixture
async def channel(server):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as made:
        yield made


async def check(channel, asked: bytes = b"") -> int | str:
    """What the health service says, or the code that it ends with."""
    try:
        answer = await channel.unary_unary("/grpc.health.v1.Health/Check")(asked, timeout=60)
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return int(health_pb2.HealthCheckResponse.FromString(answer).status)


@pytest.mark.parametrize(
    "path",
    [
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
async def test_calls_that_stay_open_are_few_and_the_others_are_answered(channel, path):
    """None of them says anything after its headers, so none ends by itself."""
    silent = [channel.stream_stream(path)(timeout=60) for _ in range(8)]
    ends = [asyncio.ensure_future(call.code()) for call in silent]
    while len(ended := [end for end in ends if end.done()]) < 5:
        await asyncio.wait(set(ends) - set(ended), return_when=asyncio.FIRST_COMPLETED)
    assert [grpc.StatusCode.RESOURCE_EXHAUSTED] * 5 == [end.result() for end in ended]
    assert b"x" == await channel.unary_unary("/s.S/Echo")(b"x", metadata=PROOF, timeout=60)
    for call in silent:
        call.cancel()
    await asyncio.gather(*ends)
    while (found := await check(channel)) == "RESOURCE_EXHAUSTED":  # noqa: ASYNC110  # until the server has heard of it
        await asyncio.sleep(0.01)
    assert found == SERVING


async def test_the_standard_services_answer_and_nonsense_is_no_failure_of_ours(channel):
    assert await check(channel) == SERVING
    assert await check(channel, b"\xff\xff") == "INVALID_ARGUMENT"
    assert await check(channel, health_pb2.HealthCheckRequest(service="x").SerializeToString()) == "NOT_FOUND"
    watching = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=60)
    assert health_pb2.HealthCheckResponse.FromString(await watching.read()).status == SERVING
    watching.cancel()


async def test_who_has_no_token_is_refused_before_a_message_has_come(channel):
    assert grpc.StatusCode.UNAUTHENTICATED is await channel.stream_stream("/s.S/Echo")(timeout=60).code()
