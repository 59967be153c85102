"""The interface of SyncEngage is what /openapi.json says: no answer that is not written down, and no route left out."""

from __future__ import annotations

import os

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
)

from kiki.engage.openapi import openapi
from kiki.shield.budget_guard import BudgetGuard
from tests.engage.running import RunningEngage, RunningShield

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "10"))
DOCUMENT = schemathesis.openapi.from_dict(openapi())
DOCUMENT = DOCUMENT.exclude(path="/trigger", method=["GET", "PUT", "PATCH", "DELETE"])
DOCUMENT.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])


@pytest.fixture(scope="module")
def guard():
    made = BudgetGuard.open(limit="1000000", window="1s")
    yield made
    made.close()


@pytest.fixture(scope="module")
def engage(tmp_path_factory, guard):
    shield = RunningShield(guard)
    running = RunningEngage(tmp_path_factory.mktemp("fuzz"), shield.url, guard, secret="0123456789abcdef")
    yield running
    running.close()
    shield.close()


@DOCUMENT.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_a_fuzzer_finds_nothing(case, engage):
    """Whatever is sent, the answer has a status, type and shape that is written down, and is never a 500.

    What good input is, the schemas say only in part (an address of a customer that there is, a playbook, a moment), so
    refusing is not held against the service; taking what the schema forbids would be, but for /trigger, whose body the
    original left open.
    """
    response = case.call(base_url=engage.url, timeout=60)
    loose = case.path.startswith(("/trigger", "/v1/webhooks", "/privacy", "/v1/unsubscribe", "/v1/profiles/{"))
    excluded = [positive_data_acceptance, ignored_auth, unsupported_method] + (
        [negative_data_rejection] if loose else []
    )
    case.validate_response(response, excluded_checks=excluded)
    assert response.status_code != 500


def test_every_route_is_in_the_document_and_nothing_else(engage):
    served: dict[str, set[str]] = {}
    for route in engage.service._routes():
        served.setdefault(route.path, set()).update({*route.methods} - {"HEAD"})
    written = {path: {method.upper() for method in item} for path, item in openapi()["paths"].items()}
    # The outbox is for people who develop, and no interface.
    assert {path: methods for path, methods in served.items() if not path.startswith("/outbox")} == written


def test_the_document_is_served(engage):
    assert httpx.get(f"{engage.url}/openapi.json", trust_env=False, timeout=60).json() == openapi()
