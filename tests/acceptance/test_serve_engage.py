"""`kiki serve engage` beside `kiki serve shield`: the guide's commands, a shield that goes away, kill -9, and a person who is erased."""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.acceptance.serving import Engage, Shield
from tests.servers import free_port

PLAYBOOK = """
playbook: book
currency: USD
zone: Europe/Vienna
holdout: 0%
segments: {lapsed: {days_since_purchase: {over: 60}}}
messages: {mail: {channel: email, subject: Hello, text: Hello}}
offers: {ten: {message: mail, cost: 4.00, gain: 6.00}}
journeys: {win-back: {enter: {segment: lapsed}, steps: [{send: ten, name: first}]}}
"""
SECRET = "a secret of this test"


def ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


@pytest.fixture
def services(tmp_path):
    systems = tmp_path / "systems.yaml"
    # It is stopped and started again: on a port that no outgoing connection takes meanwhile.
    port = str(free_port())
    shield = Shield(tmp_path / "shield", MAX_BURST_BUDGET="100000", KIKI_AUDIT_CSV="false", PORT=port)
    shield.start()
    (tmp_path / "book.yaml").write_text(PLAYBOOK)
    engage = Engage(
        tmp_path / "engage",
        SHIELD_URL=f"http://localhost:{shield.port}/check",
        KIKI_ENGAGE_PLAYBOOKS=str(tmp_path / "book.yaml"),
        KIKI_ENGAGE_RUN_SECONDS="0",
        KIKI_ENGAGE_HOLDOUT="0",
        KIKI_ENGAGE_PRIVACY_SECRET=SECRET,
        ENABLE_PREDICTIVE_CHURN="false",
    )
    engage.start()
    systems.write_text(
        f"systems:\n  - name: engage\n    url: http://127.0.0.1:{engage.port}/privacy\n    secret_env: ENGAGE_SECRET\n"
    )
    yield shield, engage, systems
    engage.close()
    shield.close()


def test_the_guide_s_services_work_together_and_a_person_is_erased_everywhere(services):
    shield, engage, systems = services
    status, body, _ = engage.ask("/health")
    assert (status, json.loads(body)["service"]) == (200, "SyncEngage™ Retention Agent")
    # Consent, a customer, a plan, a message.
    grant = {"customer_id": "c-1", "purpose": "marketing", "state": "granted"}
    assert shield.ask("/v1/consents", "POST", grant)[0] == 200
    profile = {"customer_id": "c-1", "email": "ann@example.com", "last_purchase": ago(90)}
    assert engage.ask("/v1/profiles", "POST", {"profiles": [profile, {**profile, "customer_id": "c-2"}]})[0] == 200
    run = json.loads(engage.ask("/v1/runs", "POST", {"playbook": "book"})[1])
    assert (run["messages"], run["verdicts"]) == ({"done": 1}, {"chosen": 1, "no_consent": 1})
    assert len(list((engage.data / "outbox").glob("*.json"))) == 1
    # The reasons stand in the shield's ledger, the money is spent.
    budgets = json.loads(shield.ask("/v1/budgets")[1])["budgets"]
    assert budgets[0]["spent"] == "4.00"
    trigger = {"customer_id": "c-1", "last_purchase": ago(100), "total_spend": 450, "engagement_score": 8.5}
    deadline = time.monotonic() + 60
    while (answer := json.loads(engage.ask("/trigger", "POST", trigger)[1])) is None:
        # On a busy machine the shield may answer later than a trigger waits for it.
        assert time.monotonic() < deadline
    assert answer["trigger_type"] == "churn_risk_high_value"
    assert (engage.directory / "syncengage_audit.csv").read_text().count("\n") == 2
    # The shield is told of engage, and a deletion runs over both.
    shield.close()
    shield.environ |= {"KIKI_SUBJECT_SYSTEMS_FILE": str(systems), "ENGAGE_SECRET": SECRET}
    shield.start()
    made = json.loads(shield.ask("/v1/requests", "POST", {"customer_id": "c-1", "type": "DELETION", "key": "k"})[1])
    request = made["request_id"]
    assert shield.ask(f"/v1/requests/{request}/verify", "POST", {"operator": "alice"})[0] == 200
    assert shield.ask(f"/v1/requests/{request}/run", "POST", {})[0] in {200, 202}
    deadline = time.monotonic() + 60
    while not (found := json.loads(shield.ask(f"/v1/requests/{request}")[1]))["state"].startswith("completed"):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    assert engage.status("/v1/profiles/c-1") == 404
    assert engage.status("/v1/profiles/c-2") == 200
    engage.close()
    files = b"".join(each.read_bytes() for each in engage.data.glob("engage*") if each.is_file())
    assert b"ann@example.com" not in files
    for line in (*shield.log().splitlines(), *engage.log().splitlines()):
        assert "ann@example.com" not in line


def test_without_a_shield_nothing_is_sent_and_killed_it_goes_on(services):
    shield, engage, _ = services
    for number in range(30):
        shield.ask("/v1/consents", "POST", {"customer_id": f"c-{number}", "purpose": "marketing", "state": "granted"})
    profiles = [
        {"customer_id": f"c-{number}", "email": f"{number}@example.com", "last_purchase": ago(90)}
        for number in range(30)
    ]
    engage.ask("/v1/profiles", "POST", {"profiles": profiles})
    shield.close()
    assert engage.ask("/v1/runs", "POST", {"playbook": "book"})[0] == 503
    assert not (engage.data / "outbox").exists()
    trigger = {"customer_id": "c-1", "last_purchase": ago(100), "total_spend": 450}
    assert engage.ask("/trigger", "POST", trigger)[1].strip() == "null"
    shield.start()
    engage.process.send_signal(signal.SIGKILL)
    engage.wait()
    engage.start()
    runs = [json.loads(engage.ask("/v1/runs", "POST", {"playbook": "book"})[1]) for _ in range(2)]
    assert sum(run["messages"].get("done", 0) for run in runs) == 30
    assert len(list((engage.data / "outbox").glob("*.json"))) == 30
    engage.signal(signal.SIGTERM)
    assert engage.wait() == 0


def test_every_mistake_in_settings_and_playbooks_is_told_at_the_start(tmp_path):
    (tmp_path / "bad.yaml").write_text(PLAYBOOK.replace("{segment: lapsed}", "{segment: lapst}"))
    engage = Engage(tmp_path / "engage", KIKI_ENGAGE_PLAYBOOKS=str(tmp_path / "bad.yaml"))
    code, said = engage.refuse_to_start()
    assert code == 1
    assert "did you mean 'lapsed'" in said
    wrong = Engage(tmp_path / "wrong", SENDGRID_API_KEY="SG.x", KIKI_ENGAGE_HOLDOUT="150%", KIKI_ENGAGE_HOLDUOT="1")
    code, said = wrong.refuse_to_start()
    assert code == 1
    for each in ("SENDGRID_FROM_EMAIL", "KIKI_ENGAGE_HOLDOUT", "KIKI_ENGAGE_HOLDUOT"):
        assert each in said
    assert "SG.x" not in said
