"""A write passes the fence immediately before its first byte; a read does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kiki.errors import RunTaken
from kiki.outbound.fence import fenced
from kiki.outbound.line import Line, Request


@asynccontextmanager
async def counting() -> AsyncIterator[tuple[str, list[str]]]:
    heard: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        heard.append(request.method)
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/x", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("")), heard


WRITE = Request(method="POST", path="x", write=True)
READ = Request(method="GET", path="x", write=False)


def lasting(seconds: float, asked: list[float]):
    async def fence() -> float:
        now = asyncio.get_running_loop().time()
        asked.append(now)
        return now + seconds

    return fence


async def test_every_write_asks_and_no_read_does():
    async with counting() as (url, heard), Line(url) as line:
        asked: list[float] = []
        with fenced(lasting(60, asked)):
            await line.send(READ)
            assert [] == asked
            await line.send(WRITE)
            await line.send(WRITE)
        await line.send(WRITE)
    assert (2, 4) == (len(asked), len(heard))


async def test_whoever_lost_the_run_sends_nothing():
    async def closed() -> float:
        raise RunTaken("another runner has the run")

    async with counting() as (url, heard), Line(url) as line:
        with fenced(closed), pytest.raises(RunTaken):
            await line.send(WRITE)
        assert [] == heard
        await line.send(READ)  # the line is whole
    assert 1 == len(heard)


async def test_a_process_that_was_frozen_after_the_look_sends_nothing():
    """The lease was good when it was read, and over before the first byte."""
    async with counting() as (url, heard), Line(url) as line:
        await line.send(READ)
        for _ in range(2):
            with fenced(lasting(-0.001, [])), pytest.raises(RunTaken, match="was not sent"):
                await line.send(WRITE)
        with fenced(lasting(60, [])):
            await line.send(WRITE)
    assert ["GET", "POST"] == heard
