"""Consent, compliance and evidence through the clients, in both colours, against a real service."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from kiki.clock import SECOND
from kiki.errors import (
    ConsentConflict,
    Forbidden,
    InvalidInput,
    KikiError,
    NotFound,
    ShieldUnreachable,
    SpendDenied,
    Unauthenticated,
)
from kiki.ledger.bundle_verifier import verify_bundle
from kiki.ledger.proof_verifier import verify_proof
from kiki.shield import consent_lease
from kiki.shield.compliance_client import AsyncCompliance, Compliance
from kiki.shield.consent_client import AsyncConsents, Consents
from kiki.shield.consent_store import ConsentStore
from kiki.shield.enforcer import Enforcer
from kiki.shield.evidence_client import AsyncEvidence, Evidence
from kiki.shield.shield_client import AsyncShieldClient, ShieldClient
from tests.shield.served import TOKENS, Running, Served


class InStep:
    """An async part whose calls are run to their end, so that one test serves both colours."""

    def __init__(self, part, loop: asyncio.AbstractEventLoop) -> None:
        self._part, self._loop = part, loop

    def __getattr__(self, name: str):
        found = getattr(self._part, name)
        if isinstance(found, AsyncConsents | AsyncCompliance | AsyncEvidence):
            return InStep(found, self._loop)

        def call(*given, **named):
            result = found(*given, **named)
            if inspect.isasyncgen(result):
                return self._loop.run_until_complete(gathered(result))
            return self._loop.run_until_complete(result)

        return call


async def gathered(items) -> list:
    return [item async for item in items]


@pytest.fixture
def shield() -> Iterator[Served]:
    running = Running()
    yield running.shield
    running.close()


@pytest.fixture(params=["sync", "async"])
def client(request, shield: Served):
    if request.param == "sync":
        with ShieldClient(shield.url) as found:
            yield found
        return
    loop = asyncio.new_event_loop()
    inner = AsyncShieldClient(shield.url)
    yield InStep(inner, loop)
    loop.run_until_complete(inner.close())
    loop.close()


def test_a_person_says_yes_and_no(client):
    granted = client.consents.grant(
        "cust_123", "marketing", version="3", expires_at=timedelta(days=30), ip_address="203.0.113.7"
    )
    assert ("granted", True, "3", "203.0.113.0/24") == (
        granted.state,
        granted.in_force,
        granted.version,
        granted.network,
    )
    assert client.consents.check("cust_123", "marketing")
    assert not client.consents.check("cust_123", "analytics")
    assert "revoked" == client.consents.revoke("cust_123", "marketing").state
    assert "denied" == client.consents.deny("cust_123", "analytics").state
    assert {"marketing": "revoked", "analytics": "denied"} == {
        purpose: record.state for purpose, record in client.consents.status("cust_123").items()
    }
    assert ["granted", "revoked", "denied"] == [each.state for each in client.consents.history("cust_123")]
    assert ["denied"] == [each.state for each in client.consents.history("cust_123", "analytics")]
    assert {} == client.consents.status("nobody")


def test_a_spend_for_a_purpose_needs_the_persons_consent(shield: Served):
    with ShieldClient(shield.url) as client:
        who, purpose = {"customer": "cust_123"}, "marketing"
        with pytest.raises(SpendDenied) as denied:
            client.spend("1", who, purpose=purpose)
        assert "consent_missing" == denied.value.reason
        assert not client.check("1", who, purpose=purpose).allowed
        client.consents.grant("cust_123", purpose)
        assert client.spend("1", who, purpose=purpose).allowed
        assert [True] == [each.allowed for each in client.spend_many(["1"], who, purpose=purpose)]
        client.reserve("1", who, purpose=purpose).release()
        client.consents.revoke("cust_123", purpose)
        with pytest.raises(SpendDenied):
            client.reserve("1", who, purpose=purpose)


def test_a_signal_stands_until_the_person_was_told(client):
    assert {"data_sharing", "targeting"} == {each.purpose for each in client.consents.signal("c")}
    with pytest.raises(ConsentConflict):
        client.consents.grant("c", "targeting")
    assert client.consents.grant("c", "targeting", overrides=True).overrides


@pytest.mark.parametrize("customer", ["a/b", "ä ö", "50%", "..x", "?#"])
def test_ids_that_need_quoting(client, customer: str):
    client.consents.grant(customer, "marketing")
    assert customer == client.consents.status(customer)["marketing"].customer_id


def test_pages_and_everybody(client):
    for number in range(7):
        client.consents.grant(f"c-{number}", "marketing")
    page = client.consents.page(limit=3)
    assert (3, True) == (len(page.consents), page.next is not None)
    assert {f"c-{number}" for number in range(7)} == {each.customer_id for each in client.consents.records()}
    assert [] == list(client.consents.records(state="revoked"))


def test_what_cannot_be_asked_is_refused_before_it_is_sent_or_as_the_service_says(client):
    with pytest.raises(InvalidInput, match="empty"):
        client.consents.grant("", "marketing")
    with pytest.raises(InvalidInput, match="data_sharing"):
        client.consents.grant("c", "sales")
    with pytest.raises(InvalidInput, match="time zone"):
        client.consents.grant("c", "marketing", expires_at=datetime(2999, 1, 1))
    with pytest.raises(InvalidInput, match="16 hexadecimal"):
        client.evidence.proof("../../health")
    with pytest.raises(NotFound):
        client.evidence.proof("0000000000ff0000")


def test_an_enforcer_over_the_client_stops_when_it_is_recalled(shield: Served, monkeypatch):
    """A revoke elsewhere is acknowledged after this enforcer has dropped its answer, and not before."""
    monkeypatch.setattr(consent_lease, "LEASE", 3600 * SECOND)  # nothing else ends the wait
    with ShieldClient(shield.url) as client, ShieldClient(shield.url) as officer:
        officer.consents.grant("c", "marketing")
        enforcer = Enforcer(lambda customer, purpose: client.consents.leased(customer, purpose, "worker-1"))
        assert enforcer.allows("c", "marketing")
        revoking = threading.Thread(target=lambda: officer.consents.revoke("c", "marketing"))
        revoking.start()
        recalls = []
        while not recalls:
            recalls = client.consents.confirm("worker-1")
        assert revoking.is_alive()
        for recall in recalls:
            end = enforcer.drop(recall.customer_id, recall.purpose)
            assert end == int(recall.lease, 16)
        client.consents.confirm("worker-1", recalls)
        revoking.join(60)
        assert not revoking.is_alive()
        assert not enforcer.allows("c", "marketing")


def test_answers_to_other_questions_are_never_believed():
    def wrong(_: httpx.Request) -> httpx.Response:
        answer = {"customer_id": "somebody else", "purpose": "marketing", "allowed": True, "lease_seconds": 2}
        return httpx.Response(200, json={"answers": [answer]})

    client = ShieldClient("http://localhost:1", transport=httpx.MockTransport(wrong), retries=0)
    with pytest.raises(ShieldUnreachable):
        client.consents.check("c", "marketing")


@pytest.mark.parametrize("body", [{"consents": []}, {"consents": [{}]}, {}, []])
def test_records_that_are_none_are_never_believed(body):
    client = ShieldClient(
        "http://localhost:1", transport=httpx.MockTransport(lambda _: httpx.Response(200, json=body)), retries=0
    )
    with pytest.raises(ShieldUnreachable):
        client.consents.grant("c", "marketing")


def test_the_report_and_the_register(client):
    client.consents.grant("c", "marketing")
    assert "breach" not in client.compliance.report("daily").period
    reply = client.compliance.declare_breach("INC-1", found_at=datetime.now(UTC) - timedelta(hours=1), affected=3)
    assert ("INC-1", 3) == (reply.reference, reply.affected)
    report = client.compliance.report()
    assert ("monthly", 1, 1) == (report.period, report.data_breaches, report.consent_changes)
    since = datetime.now(UTC) - timedelta(days=2)
    assert "custom" == client.compliance.report(since=since).period
    with pytest.raises(InvalidInput):
        client.compliance.report("hourly")


def test_evidence_checks_out(client, tmp_path: Path):
    record = client.consents.grant("c", "marketing")
    proved = verify_proof(client.evidence.proof(record.event_id), client.evidence.standing().verifier_key)
    assert int(record.event_id[:12], 16) == proved.seq
    assert client.evidence.checkpoints(limit=1).checkpoints
    path = tmp_path / "ledger.bundle"
    client.evidence.bundle(path)
    with path.open("rb") as file:
        assert verify_bundle(file, client.evidence.standing().verifier_key).trusted


def test_a_bundle_is_written_whole_or_not_at_all(client, tmp_path: Path):
    path = tmp_path / "ledger.bundle"
    with pytest.raises(NotFound):
        client.evidence.bundle(path, since=datetime.now(UTC) + timedelta(days=1))
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(KikiError, match="cannot be written"):
        client.evidence.bundle(path)
    assert "mine" == path.read_text()


def test_a_try_that_broke_off_leaves_nothing_of_itself_in_the_file(tmp_path: Path):
    tries = iter([httpx.Response(503, content=b"sorry"), httpx.Response(200, content=b"whole")])
    client = ShieldClient("http://localhost:1", transport=httpx.MockTransport(lambda _: next(tries)))
    client._sleep = lambda _: None
    client.evidence.bundle(tmp_path / "b")
    assert b"whole" == (tmp_path / "b").read_bytes()


def test_tokens_and_roles():
    running = Running(TOKENS)
    try:
        with ShieldClient(running.shield.url) as nobody, pytest.raises(Unauthenticated):
            nobody.consents.status("c")
        with ShieldClient(running.shield.url, token="read-0123456789abcdef") as reader:
            with pytest.raises(Forbidden):
                reader.consents.grant("c", "marketing")
            assert reader.evidence.standing().chain
    finally:
        running.close()


@pytest.mark.parametrize(
    ("one", "other"), [(Consents, AsyncConsents), (Compliance, AsyncCompliance), (Evidence, AsyncEvidence)]
)
def test_both_colours_have_the_same_face(one: type, other: type):
    for verb, member in vars(one).items():
        if not verb.startswith("_"):
            twin = getattr(other, verb)
            assert inspect.signature(member).parameters.keys() == inspect.signature(twin).parameters.keys()
            assert member.__doc__ == twin.__doc__


def test_the_names_are_the_stores():
    for name in ("grant", "deny", "revoke", "check"):
        mine, stores = (inspect.signature(getattr(kind, name)).parameters for kind in (Consents, ConsentStore))
        assert list(stores) == list(mine)
