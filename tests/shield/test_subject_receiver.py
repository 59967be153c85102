"""The receiver in `examples/` does what docs/requests.md says, called by `RemoteData`."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from kiki.errors import SystemUnavailable
from kiki.settings import Secret
from kiki.shield.dsr import Kind
from kiki.shield.remote_data import RemoteData
from kiki.shield.signed_call import signed_headers
from kiki.shield.subject_data import Task
from kiki.shield.subject_systems import SystemConfig

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef"
TASK = Task("DSR-1-00000000", Kind.DELETION, "customer-7", "ab" * 16)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    spec = importlib.util.spec_from_file_location("subject_receiver_example", ROOT / "examples" / "subject_receiver.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    ports: list[int] = []

    async def serve() -> None:
        runner = web.AppRunner(example.application(SECRET.encode()))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    assert ready.wait(60)
    yield f"http://127.0.0.1:{ports[0]}/privacy"
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)
    loop.close()


def test_it_takes_part_in_a_deletion(url: str):
    orders = RemoteData(SystemConfig("orders", url, Secret(SECRET)))
    assert (2, ["orders"]) == orders.locate(TASK)
    orders.restrict(TASK)
    assert ["2 lamps\n1 chair\n"] == [b"".join(document.parts).decode() for document in orders.export(TASK)]
    assert 0 == orders.rectify(TASK, {"name": "Zoë"})
    assert [2, 0] == [orders.erase(TASK).records for _ in range(2)]
    assert (0, 1) == orders.verify(TASK)


def test_it_refuses_whoever_has_another_secret(url: str):
    with pytest.raises(SystemUnavailable, match="401"):
        RemoteData(SystemConfig("orders", url, Secret("another secret of 16"))).locate(TASK)


def test_the_page_has_the_vector_that_holds():
    page = (ROOT / "docs" / "requests.md").read_text()
    nonce = "9f86d081884c7d659a2feaa0c55ad015"
    headers = signed_headers(SECRET.encode(), "POST", "/erase", b"{}", now=1_795_409_064, nonce=nonce)
    for text in (SECRET, *headers.values()):
        assert text in page
