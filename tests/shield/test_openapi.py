"""The interface is what /openapi.json says: a fuzzer that reads it finds nothing, and no route is left out of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import unicodedata
from itertools import groupby

import pytest
import schemathesis
from aiohttp import ClientSession
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode
from schemathesis.core.jsonschema import patterns
from schemathesis.specs.openapi.checks import positive_data_acceptance

from kiki.settings import parse_listen
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.openapi import openapi
from kiki.shield.service import ShieldService
from kiki.web import listening
from kiki.web.edge import Gate

# FUZZ_EXAMPLES=500 looks further, by hand.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))


def _class_of(category: str) -> str:
    """The characters of a general category as the inside of a regular expression's class."""
    points = [point for point in range(0x110000) if unicodedata.category(chr(point))[0] == category]
    found = []
    for _, run in groupby(enumerate(points), lambda pair: pair[1] - pair[0]):
        part = [point for _, point in run]
        found.append("-".join(re.escape(chr(point)) for point in sorted({part[0], part[-1]})))
    return "".join(found)


# What a letter or a symbol is, schemathesis knows for a few blocks only; it would take the others' for bad input.
patterns._UNICODE_PROPERTY_RAW_MAP.update({category: _class_of(category) for category in "LMNPS"})

DOCUMENT = schemathesis.openapi.from_dict(openapi("USD"))
DOCUMENT.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])


class Running:
    """A shield that answers on a loop of its own, in a thread, until it is closed."""

    def __init__(self) -> None:
        self.url = ""
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        service = ShieldService(BudgetGuard.open(limit="1000000000", window="1s"))
        async with listening(service.service(), parse_listen({"PORT": "0", "KIKI_DRAIN_SECONDS": "1"})) as running:
            self.url = running.url
            self._ready.set()
            await self._stop.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def shield():
    running = Running()
    yield running
    running.close()


@DOCUMENT.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_a_fuzzer_finds_nothing(case, shield):
    """Good input is accepted, bad input refused, and every answer has the status, type and shape that is written down."""
    response = case.call(base_url=shield.url)
    excluded = []
    if case.path == "/v1/policies:simulate" and b"policy_invalid" in response.content:
        excluded = [positive_data_acceptance]  # no schema can say which texts are a policy
    if case.path == "/v1/records" and b"largest sum" in response.content:
        excluded = [positive_data_acceptance]  # nor how much was recorded before
    case.validate_response(response, excluded_checks=excluded)


async def test_every_route_is_in_the_document_and_nothing_else():
    """HEAD goes without saying where there is GET."""
    service = ShieldService(BudgetGuard.open(limit="1")).service()
    table = Gate(service).table
    served = {path: {*methods} - {"HEAD"} for path, methods in table.fixed.items()}
    served |= {"/" + "/".join(segments): {*methods} - {"HEAD"} for segments, methods in table._patterns.items()}
    written = {path: {method.upper() for method in item} for path, item in openapi("USD")["paths"].items()}
    assert served == written
    await service.on_close()


async def test_the_document_is_what_is_served():
    """With the currency of the policy in force."""
    service = ShieldService(BudgetGuard.open(limit="1", currency="EUR"))
    settings_ = parse_listen({"PORT": "0", "KIKI_DRAIN_SECONDS": "0"})
    async with listening(service.service(), settings_) as running, ClientSession(running.url) as session:
        async with session.get("/openapi.json") as response:
            assert response.content_type == "application/json"
            found = await response.json()
    assert found == openapi("EUR")
    assert found["components"]["schemas"]["SpendBody"]["properties"]["currency"]["const"] == "EUR"


def test_every_reference_leads_somewhere():
    document = json.dumps(openapi("USD"))
    known = openapi("USD")["components"]["schemas"]
    named = set(re.findall(r'"#/components/schemas/(\w+)"', document))
    assert named <= set(known)
    assert set(known) - named <= {"Scopes", "Key", "Money"}, "a schema that nothing uses is a mistake"
