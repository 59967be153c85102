"""The interface is what /openapi.json says: a fuzzer that reads it finds nothing, and no route is left out of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from functools import cache
from urllib.parse import unquote

import jsonschema_rs
import pytest
import schemathesis
from aiohttp import ClientSession
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from kiki.settings import parse_listen
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.openapi import openapi
from kiki.shield.service import ShieldService
from kiki.web import listening
from kiki.web.gate import Gate

# FUZZ_EXAMPLES=500 looks further, by hand.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))

MOMENTS = {"expires_at", "said_at", "found_at", "notified_at", "received_at"}

DOCUMENT = schemathesis.openapi.from_dict(openapi("USD"))
# The same handler whatever the method: once is enough.
DOCUMENT = DOCUMENT.exclude(
    path=["/consent/status", "/compliance/report"], method=["PUT", "PATCH", "DELETE", "OPTIONS"]
)
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
        assert self._ready.wait(60)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        service = ShieldService(BudgetGuard.open(limit="1000000000", window="1s"))
        async with listening(service.service(), parse_listen({"PORT": "0", "KIKI_DRAIN_SECONDS": "1"})) as running:
            self.url = running.url
            self._ready.set()
            await self._stop.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def shield():
    running = Running()
    yield running
    running.close()


@cache
def validator(path: str, method: str, place: str):
    """Says of the body, the query or the headers of a request whether the document allows them."""
    document = openapi("USD")
    operation = document["paths"][path][method.lower()]
    if place == "body":
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
    else:
        own = [each for each in operation.get("parameters", ()) if each["in"] == place]
        schema = {
            "type": "object",
            "properties": {each["name"]: each["schema"] for each in own},
            "required": [each["name"] for each in own if each["required"]],
            "additionalProperties": False,
        }
    return jsonschema_rs.Draft202012Validator(schema | {"components": document["components"]})


def in_path(case) -> dict[str, str]:
    """What stands in the path, as the service reads it."""
    return {name: unquote(str(value)) for name, value in (case.path_parameters or {}).items()}


def is_allowed(case) -> bool:
    """Whether the document allows this request, by a validator that knows all of Unicode.

    schemathesis knows a few blocks of letters and symbols only, and would call the others' names bad input.
    """
    parts = {"query": case.query, "path": in_path(case)}
    parts |= {"body": case.body} if "requestBody" in case.operation.definition.raw else {}
    return all(validator(case.path, case.method, place).is_valid(value or {}) for place, value in parts.items())


@DOCUMENT.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_a_fuzzer_finds_nothing(case, shield):
    """Good input is accepted, bad input refused, and every answer has the status, type and shape that is written down."""
    response = case.call(base_url=shield.url)
    excluded = []
    if case.path == "/v1/policies:simulate" and b"policy_invalid" in response.content:
        excluded.append(positive_data_acceptance)  # no schema can say which texts are a policy
    if isinstance(case.body, dict) and MOMENTS & {*case.body}:
        excluded.append(positive_data_acceptance)  # no schema can say which moments lie in the past
    if not json.dumps((case.body, case.query, in_path(case)), ensure_ascii=False, default=str).isascii():
        excluded.append(negative_data_rejection if is_allowed(case) else positive_data_acceptance)
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
    environ = {"PORT": "0", "KIKI_DRAIN_SECONDS": "0"}
    async with (
        listening(service.service(), parse_listen(environ)) as running,
        ClientSession(running.url) as session,
        session.get("/openapi.json") as response,
    ):
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
