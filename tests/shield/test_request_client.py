"""Data subject requests through the clients, in both colours, against a real service."""

from __future__ import annotations

import asyncio
import inspect
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from kiki.errors import Conflict, InvalidInput, KikiError, NotFound, ShieldUnreachable
from kiki.shield.request_client import AsyncRequests, Requests
from kiki.shield.request_proof import verify_request_proof
from kiki.shield.shield_client import AsyncShieldClient, ShieldClient
from tests.shield.served import Running, Served

REQUEST = "DSR-1-00000000"


@pytest.fixture
def shield() -> Iterator[Served]:
    running = Running()
    yield running.shield
    running.close()


class InStep:
    """An async part whose calls are run to their end."""

    def __init__(self, part, loop: asyncio.AbstractEventLoop) -> None:
        self._part, self._loop = part, loop

    def __getattr__(self, name: str):
        return lambda *given, **named: self._loop.run_until_complete(getattr(self._part, name)(*given, **named))


@pytest.fixture(params=["sync", "async"])
def requests(request, shield: Served):
    if request.param == "sync":
        with ShieldClient(shield.url) as found:
            yield found.requests
        return
    loop = asyncio.new_event_loop()
    inner = AsyncShieldClient(shield.url)
    yield InStep(inner.requests, loop)
    loop.run_until_complete(inner.close())
    loop.close()


def test_access_from_receipt_to_the_file(requests, tmp_path: Path):
    made = requests.create("cust_123", "ACCESS", regimes=["gdpr"], details="all of it", requested_by="Jane")
    assert ("received", "PENDING", ["gdpr"]) == (made.state, made.status, made.regimes)
    assert "all of it" == requests.get(made.request_id).details
    with pytest.raises(Conflict):
        requests.run(made.request_id)
    assert "verified" == requests.vouch(made.request_id, "Jane", note="a passport").state
    done = requests.run(made.request_id)
    assert "completed" == done.state
    digest = requests.download(made.request_id, tmp_path / "copy.zip")
    assert done.package_sha256 == digest
    with zipfile.ZipFile(tmp_path / "copy.zip") as package:
        assert "manifest.json" in package.namelist()
    assert 43 == len(requests.link(made.request_id).token)
    with pytest.raises(KikiError, match="cannot be written"):
        requests.download(made.request_id, tmp_path / "copy.zip")


def test_a_deletion_under_a_hold_and_after_it(requests, shield: Served):
    shield.guard.consents.grant("cust_123", "marketing")
    held = requests.hold("case 7", "cust_123")
    assert ("case 7", "cust_123") == (held.reference, held.customer_id)
    assert ["case 7"] == [each.reference for each in requests.holds()]
    made = requests.create("cust_123", "DELETION")
    requests.vouch(made.request_id, "Jane")
    assert "completed_with_exceptions" == requests.run(made.request_id).state
    assert [made.request_id] == [each.request_id for each in requests.lift("case 7", "cust_123")]
    done = requests.run(made.request_id)
    assert ("completed", "") == (done.state, done.customer_id)
    key = shield.guard.decider.ledger.signer.verifier_key
    assert made.request_id == verify_request_proof(requests.proof(made.request_id), key).request
    with pytest.raises(NotFound):
        requests.lift("case 7")


def test_steps_and_lists(requests):
    made = requests.create("c", "ACCESS", received_at=datetime.now(UTC) - timedelta(days=2))
    number = made.request_id
    assert "paused" == requests.pause(number, "asked for a passport").state
    assert "identity_pending" == requests.resume(number).state
    assert requests.acknowledge(number).acknowledged_at
    assert requests.extend(number, "many systems", ["ccpa"]).due_at
    assert "jane" == requests.assign(number, "jane").assignee
    assert "" == requests.assign(number, "").assignee
    with pytest.raises(Conflict):
        requests.send_code(number)
    assert (1, [number]) == ((found := requests.list(is_open=True)).total, [each.request_id for each in found.requests])
    assert "refused" == requests.refuse(number, "GDPR 12(5)", "the tenth this week").state
    other = requests.create("c", "ACCESS")
    assert "cancelled" == requests.cancel(other.request_id).state
    assert 0 == requests.list(is_open=True).total
    assert 1 == requests.list(kind="ACCESS", state="refused", customer="c", limit=5).total
    assert 0 == requests.list(due_before=datetime(2001, 1, 1, tzinfo=UTC)).total


def test_corrections_and_purposes_go_along(requests):
    made = requests.create("c", "RECTIFICATION", corrections={"email": "jane@example.org"})
    assert {"email": "jane@example.org"} == requests.get(made.request_id).corrections
    assert ["profiling"] == requests.create("c", "OBJECTION", purposes=("profiling",)).purposes


def test_two_calls_are_two_keys_and_yet_one_open_request(requests):
    first, again = requests.create("c", "ACCESS"), requests.create("c", "ACCESS")
    assert first.request_id == again.request_id
    requests.cancel(first.request_id)
    assert first.request_id != requests.create("c", "ACCESS").request_id


@pytest.mark.parametrize("number", ["", "x", "../../health", "DSR-1-0000000g"])
def test_an_id_that_is_none_is_never_sent(requests, number: str):
    for call in (requests.get, requests.run, requests.proof, requests.cancel):
        with pytest.raises(InvalidInput):
            call(number)


def client(answers) -> tuple[ShieldClient, list[str]]:
    asked: list[str] = []
    left = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        found = next(left)
        if isinstance(found, Exception):
            raise found
        return found

    made = ShieldClient("http://localhost:1", transport=httpx.MockTransport(answer))
    made._sleep = lambda _: None
    return made, asked


def record(state: str) -> dict:
    return {
        "request_id": REQUEST,
        "customer_id": "c",
        "type": "ACCESS",
        "state": state,
        "status": "PENDING",
        "received_at": "2026-11-23T00:00:00.000000Z",
    }


@pytest.mark.parametrize("step", ["verify", "cancel", "refuse", "extend", "pause", "send_code", "lift"])
def test_what_counts_each_time_is_sent_once(step: str):
    made, asked = client([httpx.ReadTimeout("slow")] * 9)
    given = {"verify": ("12345678",), "refuse": ("GDPR 12(5)", "x"), "extend": ("x",)}.get(step, ())
    with pytest.raises(ShieldUnreachable):
        getattr(made.requests, step)(*(() if step == "lift" else (REQUEST,)), *(given if step != "lift" else ("case",)))
    assert 1 == len(asked)


@pytest.mark.parametrize("step", ["get", "acknowledge", "run", "link"])
def test_what_may_be_said_twice_is_sent_again(step: str):
    made, asked = client([httpx.ReadTimeout("slow")] * 9)
    with pytest.raises(ShieldUnreachable):
        getattr(made.requests, step)(REQUEST)
    assert 4 == len(asked)


def test_a_run_that_goes_on_is_looked_at_until_it_ends():
    answers = [httpx.Response(202, json=record("running")), httpx.Response(200, json=record("running"))]
    made, asked = client([*answers, httpx.Response(200, json=record("completed"))])
    assert "completed" == made.requests.run(REQUEST).state
    assert [f"/v1/requests/{REQUEST}/run", *[f"/v1/requests/{REQUEST}"] * 2] == asked
    impatient, _ = client(answers)
    assert "running" == impatient.requests.run(REQUEST, seconds=0).state


def test_a_package_that_is_not_the_one_that_was_made_is_not_kept(tmp_path: Path):
    token = {"token": "t", "expires_at": "2026-11-24T00:00:00.000000Z", "sha256": "00" * 32}
    made, _ = client([httpx.Response(201, json=token), httpx.Response(200, content=b"something else")])
    with pytest.raises(KikiError, match="SHA-256"):
        made.requests.download(REQUEST, tmp_path / "copy.zip")
    assert not (tmp_path / "copy.zip").exists()


def test_both_colours_have_the_same_face():
    for verb, member in vars(Requests).items():
        if not verb.startswith("_"):
            twin = getattr(AsyncRequests, verb)
            assert inspect.signature(member).parameters.keys() == inspect.signature(twin).parameters.keys()
            assert member.__doc__ == twin.__doc__
