"""Services on real ports of the loopback, each with a client, closed in order."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from aiohttp import ClientSession

from kiki.settings import parse_listen
from kiki.web import Listening, Service, listening, parse_tokens

TOKENS = """
tokens:
  - name: reader
    token: reader-token-0123456789
    roles: [read]
  - name: spender
    token: spender-token-0123456789
    roles: [read, spend]
"""


@dataclass
class Served:
    running: Listening
    inside: ClientSession
    outside: ClientSession | None


@pytest.fixture
async def serve():
    """A function that starts a service from its routes; keywords in upper case are settings, the rest the service's."""
    async with AsyncExitStack() as stack:

        async def start(*routes, tokens=None, **given):
            environ = {"PORT": "0", "KIKI_DRAIN_SECONDS": "1"}
            environ |= {name: given.pop(name) for name in list(given) if name.isupper()}
            service = Service(given.pop("name", "test"), routes, **given)
            found = parse_tokens(tokens, "tokens.yaml") if tokens else None
            running = await stack.enter_async_context(listening(service, parse_listen(environ), found))
            inside = await stack.enter_async_context(ClientSession(running.url))
            outside = None
            if running.public_url:
                outside = await stack.enter_async_context(ClientSession(running.public_url))
            return Served(running, inside, outside)

        yield start


@pytest.fixture
def tokens():
    """A token file with a reader and a spender."""
    return TOKENS
