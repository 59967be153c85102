from __future__ import annotations

import aiohttp
import pytest

from kiki.engage.channel import Content, Message
from kiki.engage.channels.outbox import OutboxChannel
from kiki.engage.outbox_routes import OutboxRoutes
from kiki.settings import parse_listen
from kiki.web import Service, listening


@pytest.fixture
async def site(tmp_path):
    OutboxChannel(tmp_path).send(
        Message(action="act-1", channel="email", to="ann@example.com", content=Content(text="Hi", subject="Hello <b>"))
    )
    async with listening(Service("outbox", OutboxRoutes(tmp_path).routes()), parse_listen({"PORT": "0"})) as running:
        yield f"http://127.0.0.1:{running.port}"


async def test_the_outbox_is_a_page_and_leads_to_each_message(site):
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{site}/outbox") as reply:
            listing = await reply.text()
            policy = reply.headers.getall("Content-Security-Policy")
        async with session.get(f"{site}/outbox/act-1") as reply:
            message = await reply.text()
        async with session.get(f"{site}/outbox/..%2Fetc") as reply:
            assert 404 == reply.status
    assert 'href="outbox/act-1"' in listing
    assert "Hello &lt;b&gt;" in message
    [one] = policy
    assert ("default-src 'none'" in one, "style-src 'unsafe-inline'" in one) == (True, True)
