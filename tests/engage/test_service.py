"""SyncEngage over HTTP with a real shield, and with shields that fail in every way."""

from __future__ import annotations

import csv
import json
import os
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from kiki.engage import trigger_desk
from kiki.engage.trigger_desk import SHIELD_SECONDS
from kiki.engage.webhooks.shopify import ShopifyReader
from kiki.settings import Secret
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.signed_call import signed_headers
from tests.engage.running import FakeShield, RunningEngage, RunningShield

SECRET = "0123456789abcdef"
PATIENCE = 60.0
"""Seconds for an answer: a busy machine may be ten times slower than an idle one."""


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A busy machine may answer later than a trigger waits for."""
    monkeypatch.setattr(trigger_desk, "SHIELD_SECONDS", PATIENCE)


def ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


def customer(**given):
    found = {
        "customer_id": "c-1",
        "email": "ann@example.com",
        "last_purchase": ago(100),
        "total_spend": 450,
        "purchase_count": 3,
        "engagement_score": 8.5,
        "last_engagement": ago(1),
    }
    return found | given


@pytest.fixture(scope="module")
def guard():
    made = BudgetGuard.open(limit="1000", window="1h")
    made.consents.grant("c-1", "marketing")
    yield made
    made.close()


@pytest.fixture(scope="module")
def shield(guard):
    running = RunningShield(guard)
    yield running
    running.close()


@pytest.fixture(scope="module")
def engage(tmp_path_factory, shield, guard):
    readers = [ShopifyReader(Secret("shopify-secret-1"), shop="shop.myshopify.com")]
    running = RunningEngage(tmp_path_factory.mktemp("engage"), shield.url, guard, readers=readers, secret=SECRET)
    yield running
    running.close()


@pytest.fixture
def http(engage):
    with httpx.Client(base_url=engage.url, trust_env=False, timeout=PATIENCE) as client:
        yield client


class TestTheOriginal:
    def test_health_says_the_truth_about_syncvalue(self, http):
        found = http.get("/health").json()
        assert found.pop("timestamp")
        assert found == {"status": "healthy", "service": "SyncEngage™ Retention Agent", "ltv_client": False}

    def test_a_trigger_has_the_original_s_members_and_is_in_the_audit(self, http, engage):
        found = http.post("/trigger", json=customer()).json()
        assert {*found} - {"ltv_source"} == {
            *("customer_id", "trigger_type", "action", "message", "discount_pct", "executed_at", "predicted_ltv")
        }
        assert (found["trigger_type"], found["action"], found["discount_pct"]) == ("churn_risk_high_value", "offer", 20)
        assert (found["predicted_ltv"], found["ltv_source"]) == (625, "fallback")
        with (engage.folder / "syncengage_audit.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert rows[-1] | {"timestamp": ""} == {
            "timestamp": "",
            "customer_id": "c-1",
            "trigger_type": "churn_risk_high_value",
            "action": "offer",
            "message": "We miss you! Here's 20% off your next order",
            "discount_pct": "20.00",
            "predicted_ltv": "625.00",
        }
        assert datetime.fromisoformat(rows[-1]["timestamp"]).tzinfo is not None

    def test_without_consent_the_answer_is_null(self, http):
        reply = http.post("/trigger", json=customer(customer_id="c-2"))
        assert (reply.status_code, reply.json()) == (200, None)

    def test_where_there_is_nothing_to_do_the_shield_is_not_asked(self, http):
        found = http.post("/trigger", json=customer(customer_id="c-2", last_purchase=ago(1), total_spend=1)).json()
        assert (found["trigger_type"], found["action"], found["message"]) == ("", "", "")

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b'{"customer_id": 5}',
            b'{"customer_id": ""}',
            json.dumps(customer(last_purchase=None)).encode(),
            json.dumps(customer(last_purchase="0001-01-01T00:00:00Z")).encode(),
            json.dumps(customer(last_purchase="yesterday")).encode(),
            json.dumps(customer(total_spend=-1)).encode(),
            json.dumps(customer(total_spend=1e300)).encode(),
            b'{"customer_id":"c","total_spend":NaN,"last_purchase":"2026-01-01T00:00:00Z"}',
            b"\xff\xfe",
            b"[" * 100_000,
        ],
    )
    def test_what_is_no_customer_is_refused(self, http, body):
        reply = http.post("/trigger", content=body)
        assert reply.status_code == 400
        assert reply.text.startswith("Invalid request body")

    def test_the_metrics_have_the_original_s_names(self, http):
        http.post("/trigger", json=customer())
        text = http.get("/metrics").text
        for name in ("syncengage_triggers_total{", "syncengage_ltv_predictions_count", "syncengage_churn_risk{"):
            assert name in text
        assert "c-1" not in text


GOOD_CONSENT = json.dumps(
    {"answers": [{"customer_id": "c-1", "purpose": "marketing", "allowed": True, "lease_seconds": 0}]}
)


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: (500, "boom"),
        lambda _: (200, "<html>hello</html>"),
        lambda _: (200, "{}"),
        lambda _: (200, '{"allowed": "yes"}'),
        lambda _: (204, ""),
        lambda _: (302, ""),
        lambda _: (403, '{"allowed": true}'),
        lambda _: (200, "x" * 1_000_000),
        lambda path: (200, GOOD_CONSENT if "consents" in path else "garbage"),
        lambda path: (500, "") if "consents" in path else (200, '{"allowed": true}'),
        lambda path: (200, GOOD_CONSENT.replace("c-1", "c-9")) if "consents" in path else (200, '{"allowed": true}'),
        lambda path: (200, GOOD_CONSENT if "consents" in path else '{"allowed": true}', 10 * PATIENCE),
    ],
    ids=["500", "html", "empty", "word", "204", "302", "403", "huge", "check", "consent", "other", "slow"],
)
def test_a_shield_that_is_not_clear_allows_nothing(tmp_path, guard, answer, monkeypatch):
    monkeypatch.setattr(trigger_desk, "SHIELD_SECONDS", SHIELD_SECONDS)
    shield = FakeShield(answer)
    engage = RunningEngage(tmp_path, shield.url, guard)
    reply = httpx.post(f"{engage.url}/trigger", json=customer(), trust_env=False, timeout=PATIENCE)
    assert (reply.status_code, reply.json()) == (200, None)
    assert not (tmp_path / "syncengage_audit.csv").exists()
    engage.close()
    shield.close()


def test_a_clear_yes_allows(tmp_path, guard):
    shield = FakeShield(lambda path: (200, GOOD_CONSENT if "consents" in path else "Compliance check passed"))
    engage = RunningEngage(tmp_path, shield.url, guard)
    assert (
        httpx.post(f"{engage.url}/trigger", json=customer(), trust_env=False, timeout=PATIENCE).json()["action"]
        == "offer"
    )
    engage.close()
    shield.close()


class TestCustomers:
    def test_kept_shown_planned_run_and_read(self, http, engage, guard):
        guard.consents.grant("lapsed-1", "marketing")
        profile = {
            "customer_id": "lapsed-1",
            "email": "bob@example.com",
            "last_purchase": ago(90),
            "total_spend": "12.50",
        }
        assert http.post("/v1/profiles", json={"profiles": [profile]}).json() == {"kept": 1, "erased": 0}
        shown = http.get("/v1/profiles/lapsed-1").json()
        assert (shown["total_spend"], shown["customer_id"]) == ("12.50", "lapsed-1")
        assert "bob@" not in http.get("/v1/profiles").text
        plan = http.post("/v1/plans", json={"playbook": "book"}).json()
        assert plan["verdicts"] == {"chosen": 1}
        run = http.post("/v1/runs", json={"playbook": "book"}).json()
        assert run["messages"] == {"done": 1}
        why = http.get("/v1/profiles/lapsed-1/explanation").json()
        assert [each["state"] for each in why["messages"]] == ["done"]
        assert why["playbooks"][0]["segments"] == ["lapsed"]
        assert http.get("/v1/outcomes").json()["journeys"][0]["violations"] == 0
        assert http.get("/v1/journeys").json()["journeys"] == [{"journey": "win-back", "state": "ended", "people": 1}]
        action = why["messages"][0]["action"]
        assert "bob@example.com" in http.get(f"/outbox/{action}").text
        assert action in http.get("/outbox").text

    def test_an_order_is_kept_once(self, http):
        event = {"id": "o-1", "type": "order", "customer_id": "c-7", "at": ago(1), "amount": "9.99"}
        assert http.post("/v1/events", json={"events": [event]}).json() == {"kept": 1, "repeated": 0, "erased": 0}
        assert http.post("/v1/events", json={"events": [event]}).json()["repeated"] == 1

    def test_a_playbook_that_is_sent_is_planned_and_its_mistakes_are_told(self, http):
        reply = http.post("/v1/plans", json={"playbook": "playbook: x\ncurrency: USD\n"})
        assert reply.status_code == 400
        assert "has no 'offers'" in reply.text
        assert http.post("/v1/plans", json={"playbook": "nobody"}).status_code == 404


class TestUnsubscribe:
    def action(self, http, engage, guard, name):
        guard.consents.grant(name, "marketing")
        profile = {"customer_id": name, "email": f"{name}@example.com", "last_purchase": ago(90)}
        http.post("/v1/profiles", json={"profiles": [profile]})
        http.post("/v1/runs", json={"playbook": "book"})
        return http.get(f"/v1/profiles/{name}/explanation").json()["messages"][0]["action"]

    def test_post_acts_without_token_or_cookie_and_get_never_does(self, http, engage, guard):
        link = f"/v1/unsubscribe/{engage.links.token(self.action(http, engage, guard, 'leaver'))}"

        def stopped():
            with engage.store.database.writing() as tx:
                return engage.store.suppressions.holds(tx, "leaver", "email", "")

        assert "button" in http.get(link).text
        assert http.head(link).status_code in {200, 405}
        assert not stopped()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "https://mail.example"}
        reply = http.post(link, content="List-Unsubscribe=One-Click", headers=headers)
        assert reply.status_code == 200
        assert stopped()
        assert http.post(link, content="List-Unsubscribe=One-Click").status_code == 200

    @pytest.mark.parametrize("token", ["x", "A" * 40, "../..", "%00"])
    def test_a_link_that_is_not_ours_changes_nothing(self, http, token):
        reply = http.post(f"/v1/unsubscribe/{token}", content="List-Unsubscribe=One-Click")
        assert 404 == reply.status_code
        if ".." not in token:  # that is another path, which does not exist
            assert "Nothing was changed" in reply.text


class TestOutside:
    def test_a_call_that_proves_nothing_is_refused(self, http):
        assert http.post("/v1/webhooks/shopify", content=b"{}").status_code == 401
        assert http.post("/v1/webhooks/nobody", content=b"{}").status_code == 404

    def test_ten_megabytes_are_refused(self, http):
        assert http.post("/v1/webhooks/shopify", content=b"x" * 10_000_000).status_code == 413

    def test_a_signed_redaction_becomes_a_demand_once(self, http, engage):
        import base64
        import hmac

        body = json.dumps(
            {
                "shop_id": 1,
                "shop_domain": "shop.myshopify.com",
                "customer": {"id": 77, "email": "x@example.com", "phone": ""},
                "orders_to_redact": [],
            }
        ).encode()
        signature = base64.b64encode(hmac.digest(b"shopify-secret-1", body, "sha256")).decode()
        headers = {
            "X-Shopify-Hmac-Sha256": signature,
            "X-Shopify-Topic": "customers/redact",
            "X-Shopify-Shop-Domain": "shop.myshopify.com",
            "X-Shopify-Event-Id": "e-1",
            "X-Shopify-Webhook-Id": "w-1",
            "X-Shopify-Triggered-At": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }
        replies = [http.post("/v1/webhooks/shopify", content=body, headers=headers) for _ in range(2)]
        assert [reply.status_code for reply in replies] == [200, 200]
        assert [reply.json()["kept"] for reply in replies] == [1, 0]
        assert [demand.customer for _, demand in engage.store.demands.waiting()] == ["77"]

    def call(self, http, method, body, secret=SECRET):
        content = json.dumps(body).encode()
        path = f"/privacy/{method}"
        headers = signed_headers(
            secret.encode(), "POST", path, content, now=int(time.time()), nonce=os.urandom(16).hex()
        )
        return http.post(path, content=content, headers=headers | {"Content-Type": "application/json"})

    def test_a_shield_elsewhere_erases_a_person(self, http, engage):
        http.post("/v1/profiles", json={"profiles": [{"customer_id": "p-1", "email": "p@example.com"}]})
        asked = {"request": "DSR-1", "method": "x", "type": "DELETION", "customer_id": "p-1"}
        assert self.call(http, "locate", asked).json()["records"] == 1
        export = self.call(http, "export", asked | {"type": "ACCESS"}).text.splitlines()
        assert json.loads(export[-1]) == {"end": True}
        assert self.call(http, "restrict", asked).status_code == 200
        assert self.call(http, "erase", asked).json() == {"records": 1, "kept": []}
        assert self.call(http, "verify", asked).json()["left"] == 0
        assert engage.store.profile("p-1") is None
        assert self.call(http, "erase", asked, "another-secret-1").status_code == 401
        assert http.post("/privacy/erase", json=asked).status_code == 401
        assert self.call(http, "explode", asked).status_code == 404
