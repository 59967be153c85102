"""The interface is what /openapi.json says: a fuzzer that reads it finds nothing, and no route is left out of it."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from kiki.settings import parse_listen
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.openapi import openapi
from kiki.shield.service import ShieldService
from kiki.web import listening

# By hand: KIKI_TEST_FUZZ is taken from the environment before conftest clears it, so it has another name.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))

# What the service answers for good input that the document cannot rule out: a refusal, a hold that is not there, a
# value whose meaning a pattern cannot say. 400 is not among them.
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
    # No schema can say which texts are a policy: there, and only there, good input may be refused.
    excluded = [positive_data_acceptance] if case.path == "/v1/policies:simulate" else []
    case.call_and_validate(base_url=shield.url, excluded_checks=excluded)
