"""Notes over HTTP, with both clients."""

from __future__ import annotations

import httpx
import pytest

from kiki import AsyncShieldClient, ShieldClient
from kiki.errors import InvalidInput, KeyReused
from kiki.shield.note import parse_note
from kiki.testing import running_shield


def test_a_note_over_http_is_written_once_under_its_key() -> None:
    with running_shield(limit=100) as shield, ShieldClient(shield.url) as client:
        first = client.note("flow.step_done", {"campaign": "spring"}, {"attempt": 1, "done": True}, key="k")
        again = client.note("flow.step_done", {"campaign": "spring"}, {"attempt": 1, "done": True}, key="k")

        assert (first.event_id, False) == (again.event_id, first.repeated)
        assert again.repeated
        with pytest.raises(KeyReused):
            client.note("flow.step_done", {"campaign": "summer"}, key="k")
        with pytest.raises(InvalidInput):
            client.note_many([])


async def test_the_asynchronous_client_writes_many() -> None:
    with running_shield(limit=100) as shield:
        async with AsyncShieldClient(shield.url) as client:
            one = await client.note("flow.a")
            many = await client.note_many([parse_note("flow.b"), parse_note("flow.c")])

        assert 3 == len({one.event_id, *(each.event_id for each in many)})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"notes": {}},
        {"notes": []},
        {"notes": [{}]},
        {"notes": [{"event": "flow.x", "detail": [1]}]},
        {"notes": [{"event": "flow.x", "detail": {"a": 1.5}}]},
        {"notes": [{"event": "flow.x", "scopes": "campaign:a"}]},
        {"notes": [{"event": "flow.x", "more": 1}]},
        {"notes": [{"event": 3}]},
    ],
)
def test_garbage_is_refused_with_what_is_accepted(body: object) -> None:
    with running_shield(limit=100) as shield:
        reply = httpx.post(f"{shield.url}/v1/notes", json=body)

    assert 400 == reply.status_code
    assert reply.json()["detail"]
