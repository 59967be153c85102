"""Two replicas of `kiki serve shield` on one PostgreSQL and one Redis: one budget, one consent, one body of evidence."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

from kiki.cli.main import app
from kiki.ledger.postgres import PostgresStore
from tests.acceptance.serving import END_SECONDS, ROOT, Shield, shield_in

pytestmark = pytest.mark.redis

KEY = base64.b64encode(bytes(range(32))).decode()
CUSTOMER = "scope=customer:cust_123&purpose=marketing"


@pytest.fixture
def environ(postgres, redis):
    return {
        "DATABASE_URL": postgres,
        "KIKI_MASTER_KEY": KEY,
        "KIKI_REDIS": "auto",
        "REDIS_ADDR": redis.address,
        "KIKI_REDIS_TIMEOUT_SECONDS": "30",
    }


@pytest.fixture
def replicas(tmp_path, environ):
    with (
        shield_in(tmp_path / "a", KIKI_REPLICA="pod-0", **environ) as first,
        shield_in(tmp_path / "b", KIKI_REPLICA="pod-1", **environ) as second,
    ):
        yield first, second


def kiki(environ, *arguments):
    command = [sys.executable, "-m", "kiki", *arguments]
    found = {**os.environ, **environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=found, capture_output=True, text=True, timeout=200, check=False)


def post(shield: Shield, path: str, body: object) -> int:
    return shield.ask(path, "POST", body)[0]


def test_the_budget_is_one_over_both(replicas):
    a, b = replicas
    assert [a.status("/spend?amount=100") for _ in range(3)] == [200] * 3
    assert [b.status("/spend?amount=100") for _ in range(2)] == [200] * 2
    assert (a.status("/spend?amount=1"), b.status("/spend?amount=1")) == (403, 403)


def test_consent_given_to_one_is_known_to_the_other_and_so_is_its_end(replicas):
    """When a revocation is acknowledged, no replica acts on the old consent any more."""
    a, b = replicas
    body = {"customer_id": "cust_123", "consent_type": "marketing"}
    assert b.status(f"/spend?amount=1&{CUSTOMER}") == 403
    assert post(a, "/consent/grant", body) == 200
    b.until(f"/spend?amount=1&{CUSTOMER}", 200)  # b may have looked a moment ago, and found nothing
    assert post(a, "/consent/revoke", body) == 200
    assert b.status(f"/spend?amount=1&{CUSTOMER}") == 403


def test_the_audit_sees_every_chain_and_verifies(replicas, environ, tmp_path):
    """Live, while both write; and offline from one file, in which neither chain may be missing."""
    a, b = replicas
    # A replica whose first start failed has claimed its chain, and nothing stands in it.
    PostgresStore(environ["DATABASE_URL"], "pod-9").close()
    for shield in (a, b):
        assert shield.status("/spend?amount=10") == 200
    live = kiki(environ, "audit", "verify", "--json")
    assert (live.returncode, len(json.loads(live.stdout)["chains"])) == (0, 2), live.stderr
    a.close()
    b.close()
    bundle = kiki(environ, "audit", "bundle", "-o", str(tmp_path / "e.kiki"), "--json")
    assert bundle.returncode == 0, bundle.stderr
    offline = kiki({}, "audit", "verify", str(tmp_path / "e.kiki"), "--json")
    found = json.loads(offline.stdout)
    assert (offline.returncode, found["finding_count"]) == (0, 0)
    assert sorted(chain["entries"] > 2 for chain in found["chains"]) == [True, True]


def unserved(monkeypatch, environ, *arguments):
    """What a command answers where nothing listens at the usual address, whatever runs on this machine."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("kiki.cli.place.listens", lambda _: False)
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_each_replica_reports_on_all_of_them_and_hands_out_all_their_evidence(replicas, environ, tmp_path, monkeypatch):
    """Whichever one a load balancer picks: the same counts, and a bundle in which no chain is missing."""
    a, b = replicas
    for shield, amount in ((a, "10"), (a, "11"), (b, "12")):
        assert shield.status(f"/spend?amount={amount}") == 200
    assert post(a, "/consent/grant", {"customer_id": "cust_1", "consent_type": "marketing"}) == 200
    assert post(b, "/consent/revoke", {"customer_id": "cust_1", "consent_type": "marketing"}) == 200
    assert post(a, "/dsr/create", {"customer_id": "cust_1", "request_type": "ACCESS"}) == 200
    reports = [json.loads(each.ask("/compliance/report")[1]) for each in (a, b)]
    reports.append(unserved(monkeypatch, environ, "compliance", "report"))
    for report in reports:
        assert report["chain"] in report["chains"]
        assert (2, 2, 1) == (len(report["chains"]), report["consent_changes"], report["data_access_requests"])
        assert sum(day["approved"] for day in report["decisions"]) == 3
    assert reports[0]["chain"] != reports[1]["chain"]
    policy = tmp_path / "policy.yaml"
    policy.write_text("budgets: [{name: all, scope: '*', limit: 25, window: 1h}]")
    tried = unserved(monkeypatch, environ, "budget", "simulate", str(policy))
    assert (tried["decisions"], tried["admitted_amount"], tried["newly_refused"]) == (3, "21.00", 1)
    standing = json.loads(a.ask("/v1/evidence")[1])
    assert sorted(standing["chains"]) == sorted(reports[0]["chains"])
    key = tmp_path / "key"
    key.write_text(standing["verifier_key"])
    (foreign,) = {*standing["chains"]} - {standing["chain"]}
    end = time.monotonic() + END_SECONDS
    # b signs what it wrote within ten seconds; a can only wait for it.
    while (found := urlopen(f"http://127.0.0.1:{a.port}/v1/evidence/bundle")).headers["Kiki-Not-Covered"]:
        assert time.monotonic() < end
        time.sleep(0.3)
    (tmp_path / "e.kiki").write_bytes(found.read())
    offline = kiki({}, "audit", "verify", str(tmp_path / "e.kiki"), "--key", str(key), "--json")
    verified = json.loads(offline.stdout)
    assert (offline.returncode, verified["decisions"], verified["finding_count"]) == (0, 3, 0), offline.stdout
    event = json.loads(b.ask("/v1/decisions")[1])["decisions"][0]["event_id"]
    status, proof, _ = a.ask(f"/v1/evidence/{event}/proof?chain={foreign}")
    (tmp_path / "proof.json").write_text(proof)
    proved = kiki({}, "audit", "verify", "--proof", str(tmp_path / "proof.json"), "--key", str(key), "--json")
    assert (status, json.loads(proved.stdout)["chain"]) == (200, foreign)
    assert a.status(f"/v1/evidence/{event}/proof?chain={'0' * 16}") == 404


def test_the_view_of_a_replica_is_its_own(replicas):
    a, b = replicas
    assert a.status("/spend?amount=11") == 200
    assert b.status("/spend?amount=12") == 200
    end = time.monotonic() + END_SECONDS
    views = [each.data / "shield_audit_gdpr.csv" for each in (a, b)]
    # Each view has its own replica's row; when both have one, neither is still to come.
    for view, own, foreign in zip(views, ("11.00", "12.00"), ("12.00", "11.00"), strict=True):
        while time.monotonic() < end and not (view.exists() and f"amount={own}" in view.read_text()):
            time.sleep(0.1)
        assert f"amount={own}" in view.read_text()
        assert f"amount={foreign}" not in view.read_text()
    assert "amount=12.00" not in views[0].read_text()


def test_without_a_master_key_no_replica_makes_its_own(tmp_path, environ):
    """Two replicas with a key each could not read each other's persons."""
    with_none = {name: value for name, value in environ.items() if name != "KIKI_MASTER_KEY"}
    shield = Shield(tmp_path, KIKI_REPLICA="pod-0", **with_none)
    shield.launch()
    assert shield.wait() != 0
    assert "openssl rand -base64 32" in shield.log()
    assert not (shield.data / "master.key").exists()


def test_two_replicas_of_one_name_are_refused(replicas, tmp_path, environ):
    twin = Shield(tmp_path / "c", KIKI_REPLICA="pod-0", **environ)
    twin.launch()
    assert twin.wait() != 0
    assert "pod-0" in twin.log()
    assert environ["DATABASE_URL"].split(":")[2].split("@")[0] not in twin.log()
