"""Consent over HTTP: the original's routes to the letter, the interface under /v1, leases, and who may call."""

from __future__ import annotations

import asyncio
import re
import time
from urllib.parse import quote

import pytest

from kiki.clock import SECOND
from kiki.shield import consent_lease
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.evidence import find_rows
from tests.shield.served import TOKENS, Served, bearer, served

GPC = {"Sec-GPC": "1"}
GRANT = {"customer_id": "cust_123", "consent_type": "marketing"}


@pytest.fixture
async def shield():
    async with served(BudgetGuard.open(limit="500")) as found:
        yield found


def rows(shield: Served):
    return [row for row in find_rows(shield.guard.decider.ledger.store, decisions=True) if row.verb == "consent"]


class TestOriginal:
    async def test_grant_status_revoke_as_the_guide_types_them(self, shield):
        granted = await shield.post("/consent/grant", GRANT)
        assert (200, "application/json") == (granted.status, granted.kind)
        assert {"status": "granted", "message": "Consent successfully recorded"} == granted.json
        status = await shield.get("/consent/status?customer_id=cust_123")
        assert 200 == status.status
        (shown,) = status.json.values()
        assert ["marketing"] == [*status.json]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", shown.pop("granted_at"))
        assert shown.pop("user_agent").startswith("Python/")
        assert {
            "customer_id": "cust_123",
            "consent_type": "marketing",
            "status": "GRANTED",
            "ip_address": "127.0.0.0/24",
            "version": "",
            "legal_basis": "Consent",
        } == shown
        revoked = await shield.post("/consent/revoke", GRANT)
        assert (200, {"status": "revoked", "message": "Consent successfully revoked"}) == (revoked.status, revoked.json)
        shown = (await shield.get("/consent/status?customer_id=cust_123")).json["marketing"]
        assert "REVOKED" == shown["status"]
        assert shown["granted_at"] < shown["revoked_at"]

    async def test_an_unknown_customer_has_an_empty_map_and_is_not_made_known(self, shield):
        answer = await shield.get("/consent/status?customer_id=nobody")
        assert (200, "{}") == (answer.status, answer.text)
        assert shield.guard.decider.subjects.find("customer:nobody") is None

    async def test_members_may_stand_in_the_query_under_the_originals_names(self, shield):
        path = "/consent/grant?customer_id=c%20%2F1&type=analytics&legal_basis=Legitimate+Interests&user_agent=U"
        assert 200 == (await shield.post(path)).status
        shown = (await shield.get("/consent/status?customer_id=c%20%2F1")).json["analytics"]
        assert ("c /1", "Legitimate interests", "U") == (
            shown["customer_id"],
            shown["legal_basis"],
            shown["user_agent"],
        )

    @pytest.mark.parametrize("declared", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
    async def test_json_with_and_without_a_charset(self, shield, declared):
        answer = await shield.post(
            "/consent/grant", {"customer_id": "c", "type": "marketing"}, headers={"Content-Type": declared}
        )
        assert 200 == answer.status

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    async def test_status_takes_any_method_and_a_body(self, shield, method):
        await shield.post("/consent/grant", GRANT)
        assert ["marketing"] == [*(await shield.ask(method, "/consent/status?customer_id=cust_123")).json]
        assert ["marketing"] == [*(await shield.ask(method, "/consent/status", {"customer_id": "cust_123"})).json]

    @pytest.mark.parametrize("path", ["/consent/grant", "/consent/revoke"])
    async def test_other_methods_are_refused_in_the_originals_words(self, shield, path):
        for method in ("GET", "PUT", "DELETE"):
            answer = await shield.ask(method, path)
            assert (405, "Method not allowed\n", "POST") == (answer.status, answer.text, answer.headers["Allow"])
        as_json = await shield.get(path, headers={"Accept": "application/json"})
        assert ("method_not_allowed", "POST") == (as_json.json["code"], as_json.json["allowed"])

    @pytest.mark.parametrize("path", ["/consent/grant", "/consent/revoke"])
    @pytest.mark.parametrize("given", ["", "?customer_id=c", "?type=marketing", "?customer_id=&type=marketing"])
    async def test_what_is_missing_is_said_in_the_originals_words(self, shield, path, given):
        answer = await shield.post(path + given)
        assert (400, "Missing required parameters\n", "text/plain") == (answer.status, answer.text, answer.kind)
        advice = await shield.post(path + given, headers={"Accept": "application/json"})
        assert "consent_type" in advice.json["hint"]

    async def test_status_without_a_customer(self, shield):
        for path in ("/consent/status", "/consent/status?customer_id="):
            answer = await shield.get(path)
            assert (400, "Missing customer_id parameter\n") == (answer.status, answer.text)

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            (b"{", "not valid JSON"),
            (b"[]", "must be a JSON object"),
            (b'{"customer_id": "c", "consent_type": "marketing", "consent_typ": "x"}', "did you mean 'consent_type'"),
            (b'{"customer_id": "c", "consent_type": "news"}', "marketing, analytics, targeting, profiling, data_sharing"),
            (b'{"customer_id": "c", "consent_type": "marketing", "type": "marketing"}', "send one of them"),
            (b'{"customer_id": 5, "consent_type": "marketing"}', "is text, not a number"),
            (b'{"customer_id": "' + b"x" * 1024 + b'", "consent_type": "marketing"}', "1024 characters is too long"),
            (b'{"customer_id": "a\\u0000", "consent_type": "marketing"}', "printable"),
            (b'{"customer_id": "*", "consent_type": "marketing"}', "lone *"),
            (b'{"customer_id": "c", "consent_type": "marketing", "legal_basis": "because"}', "legitimate_interests"),
        ],
    )  # fmt: skip
    async def test_garbage_is_refused_with_a_sentence_and_nothing_is_written(self, shield, body, says):
        answer = await shield.post("/consent/grant", body)
        assert (400, True) == (answer.status, says in answer.text), answer.text
        assert answer.text.endswith("\n")
        assert [] == rows(shield)

    async def test_a_query_beside_a_body_is_refused(self, shield):
        assert 400 == (await shield.post("/consent/grant?type=analytics", GRANT)).status
        assert 400 == (await shield.ask("PUT", "/consent/status?customer_id=a", {"customer_id": "b"})).status

    async def test_a_form_is_no_json(self, shield):
        answer = await shield.post(
            "/consent/grant", b"customer_id=c", headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
        assert (415, "text/plain") == (answer.status, answer.kind)

    async def test_a_revoke_of_what_was_never_granted_is_written_down(self, shield):
        answer = await shield.post("/consent/revoke", GRANT)
        assert 200 == answer.status
        assert ["REVOKED"] == [row.outcome for row in rows(shield)]
        shown = (await shield.get("/consent/status?customer_id=cust_123")).json["marketing"]
        assert ("REVOKED", False) == (shown["status"], "granted_at" in shown)

    async def test_an_expired_grant_is_pending(self, shield):
        await shield.post(
            "/v1/consents", {"customer_id": "c", "purpose": "marketing", "state": "granted",
                             "expires_at": "2999-01-01T00:00:00Z"}
        )  # fmt: skip
        shield.guard.decider.clock, real = (lambda: 40_000_000_000 * 10**6), shield.guard.decider.clock
        shown = (await shield.get("/consent/status?customer_id=c")).json["marketing"]
        shield.guard.decider.clock = real
        assert ("PENDING", "2999-01-01T00:00:00.000000Z") == (shown["status"], shown["expires_at"])

    async def test_a_full_address_is_sealed_and_only_its_network_shown(self, shield):
        await shield.post("/consent/grant", GRANT | {"ip_address": "203.0.113.77"})
        assert (
            "203.0.113.0/24"
            == (await shield.get("/consent/status?customer_id=cust_123")).json["marketing"]["ip_address"]
        )
        assert "203.0.113.77" == (await shield.get("/v1/consents/cust_123")).json["consents"][0]["ip_address"]

    async def test_a_storm_of_grants_and_revokes_leaves_one_history(self, shield):
        words = ["grant", "revoke"] * 40
        answers = await asyncio.gather(*(shield.post(f"/consent/{word}", GRANT) for word in words))
        assert {200} == {answer.status for answer in answers}
        history = (await shield.get("/v1/consents/cust_123/history")).json["consents"]
        states = [each["state"] for each in history]
        assert states == ["granted", "revoked"] * (len(states) // 2) + ["granted"] * (len(states) % 2)
        last = (await shield.get("/v1/consents/cust_123")).json["consents"][0]
        assert last["event_id"] == history[-1]["event_id"]


class TestSignal:
    @pytest.mark.parametrize(
        "path", ["/consent/grant?customer_id=c&type=analytics", "/consent/revoke?customer_id=c&type=analytics"]
    )
    async def test_exactly_1_opts_out_of_sharing_and_targeting(self, shield, path):
        answer = await shield.post(path, headers=GPC)
        assert (200, "honored") == (answer.status, answer.headers["Kiki-Opt-Out-Signal"])
        shown = (await shield.get("/consent/status?customer_id=c")).json
        assert {"analytics", "data_sharing", "targeting"} == {*shown}
        assert {"DENIED"} == {shown[purpose]["status"] for purpose in ("data_sharing", "targeting")}

    async def test_a_look_at_the_status_honours_it_too(self, shield):
        answer = await shield.get("/consent/status?customer_id=c", headers=GPC)
        assert {"data_sharing", "targeting"} == {*answer.json}
        assert "honored" == answer.headers["Kiki-Opt-Out-Signal"]
        before = len(rows(shield))
        await shield.get("/consent/status?customer_id=c", headers=GPC)
        assert before == len(rows(shield))

    @pytest.mark.parametrize("value", ["0", "true", "", "11", "1, 1"])
    async def test_anything_else_is_no_signal(self, shield, value):
        answer = await shield.post("/consent/grant", GRANT, headers={"Sec-GPC": value})
        assert (200, None) == (answer.status, answer.headers.get("Kiki-Opt-Out-Signal"))
        assert 1 == len(rows(shield))

    async def test_a_grant_against_the_signal_needs_to_say_that_the_person_was_told(self, shield):
        refused = await shield.post("/consent/grant?customer_id=c&type=targeting", headers=GPC)
        assert (409, True) == (refused.status, "opt-out signal" in refused.text)
        body = {"customer_id": "c", "purpose": "targeting", "state": "granted"}
        assert "consent_conflict" == (await shield.post("/v1/consents", body)).json["code"]
        granted = await shield.post("/v1/consents", body | {"overrides": True})
        assert [True] == [each["overrides"] for each in granted.json["consents"]]

    async def test_a_request_that_cannot_be_read_leaves_no_signal_either(self, shield):
        assert 400 == (await shield.post("/consent/grant?customer_id=c&type=news", headers=GPC)).status
        assert [] == rows(shield)

    async def test_the_site_says_that_it_honours_the_signal(self, shield):
        answer = await shield.get("/.well-known/gpc.json")
        assert (200, "application/json", True) == (answer.status, answer.kind, answer.json["gpc"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", answer.json["lastUpdate"])

    async def test_passed_on_under_v1(self, shield):
        answer = await shield.post("/v1/consents", {"customer_id": "c", "gpc": "1"})
        assert ["data_sharing", "targeting"] == sorted(each["purpose"] for each in answer.json["consents"])
        assert {"gpc"} == {each["method"] for each in answer.json["consents"]}
        for value in ("0", 1, True, None):
            assert 400 == (await shield.post("/v1/consents", {"customer_id": "c", "gpc": value})).status


FULL = {
    "customer_id": "c-1",
    "purpose": "marketing",
    "state": "granted",
    "basis": "consent",
    "version": "2026-11",
    "expires_at": "2999-01-01T00:00:00Z",
    "method": "form",
    "notice": "May we write to you?\nYou can say no.",
    "jurisdiction": "EU",
    "guardian": "Jane Doe",
    "ip_address": "2001:db8::7",
    "user_agent": "Mozilla/5.0",
    "note": "at the fair",
}


class TestV1:
    async def test_everything_that_is_told_is_kept(self, shield):
        answer = await shield.post("/v1/consents", FULL)
        assert 200 == answer.status
        (record,) = answer.json["consents"]
        assert {"granted", True} == {record["state"], record["in_force"]}
        (again,) = (await shield.get("/v1/consents/c-1")).json["consents"]
        assert record == again
        same = ("purpose", "basis", "version", "method", "jurisdiction", "ip_address", "user_agent", "note")
        assert [FULL[name] for name in same] == [again[name] for name in same]
        assert (FULL["notice"], FULL["guardian"]) == (again["notice_text"], again["guardian_name"])
        assert ("2001:db8::/48", "2999-01-01T00:00:00.000000Z") == (again["network"], again["expires_at"])
        assert 64 == len(again["notice_sha256"])

    @pytest.mark.parametrize("state", ["granted", "denied", "revoked"])
    async def test_saying_it_twice_is_saying_it_once(self, shield, state):
        body = {"customer_id": "c", "purpose": "marketing", "state": state}
        first, again = [await shield.post("/v1/consents", body) for _ in range(2)]
        assert first.json == again.json
        assert 1 == len(rows(shield))

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"customer_id": None}, "printable"), ({"customer_id": ""}, "empty"), ({"state": "maybe"}, "granted"),
            ({"purpose": "sales"}, "data_sharing"), ({"expires_at": "2001-01-01T00:00:00Z"}, "in the past"),
            ({"expires_at": "soon"}, "RFC 3339"), ({"said_at": "2999-01-01T00:00:00Z"}, "in the future"),
            ({"ip_address": "localhost"}, "203.0.113.7"), ({"ip_address": ""}, "203.0.113.7"),
            ({"notice_sha256": "00" * 32}, "not that of its text"), ({"overrides": "yes"}, "true or false"),
            ({"method": "telepathy"}, "form"), ({"basis": "because"}, "legitimate_interests"),
            ({"version": "x" * 65}, "at most 64"), ({"note": "x" * 4097}, "at most 4096"),
            ({"notic": "x"}, "did you mean 'notice'"), ({"imported": True}, "there is no member 'imported'"),
            ({"actor": "me"}, "there is no member"), ({"signal": True}, "there is no member"),
        ],
    )  # fmt: skip
    async def test_garbage_is_refused_with_a_sentence(self, shield, change, says):
        answer = await shield.post("/v1/consents", FULL | change)
        assert (400, "application/problem+json", True) == (answer.status, answer.kind, says in answer.json["detail"]), (
            answer.text
        )
        assert [] == rows(shield)

    async def test_a_revocation_in_the_past_of_a_later_grant_changes_nothing(self, shield):
        await shield.post("/v1/consents", {"customer_id": "c", "purpose": "marketing", "state": "granted"})
        late = {"customer_id": "c", "purpose": "marketing", "state": "revoked", "said_at": "2001-01-01T00:00:00Z"}
        (record,) = (await shield.post("/v1/consents", late)).json["consents"]
        assert "granted" == record["state"]

    @pytest.mark.parametrize("customer", ["a/b", "a b", "ä", "a%2Fb", "?", "#", "..;", "x" * 256])
    async def test_ids_in_paths_are_percent_decoded(self, shield, customer):
        from yarl import URL

        await shield.post("/v1/consents", {"customer_id": customer, "purpose": "marketing", "state": "granted"})
        for end in ("", "/history"):
            path = URL(f"{shield.url}/v1/consents/{quote(customer, safe='')}{end}", encoded=True)
            async with shield.session.get(path) as response:
                found = await response.json()
            assert (customer, 1) == (found["customer_id"], len(found["consents"]))

    async def test_the_history_has_everything_that_was_said(self, shield):
        for state in ("granted", "revoked", "granted"):
            await shield.post("/v1/consents", {"customer_id": "c", "purpose": "marketing", "state": state})
        await shield.post("/v1/consents", {"customer_id": "c", "purpose": "analytics", "state": "denied"})
        whole = (await shield.get("/v1/consents/c/history")).json["consents"]
        assert ["granted", "revoked", "granted", "denied"] == [each["state"] for each in whole]
        part = (await shield.get("/v1/consents/c/history?purpose=analytics")).json["consents"]
        assert whole[3:] == part
        assert 400 == (await shield.get("/v1/consents/c/history?purpose=x")).status
        assert [] == (await shield.get("/v1/consents/nobody/history")).json["consents"]

    async def test_pages_hold_everybody_once(self, shield):
        expected = set()
        for number in range(23):
            for purpose, state in (("marketing", "granted"), ("analytics", "denied")):
                await shield.post("/v1/consents", {"customer_id": f"c-{number}", "purpose": purpose, "state": state})
                expected.add((f"c-{number}", purpose))
        found, after = [], ""
        while after is not None:
            page = (await shield.get(f"/v1/consents?limit=7{after and f'&after={after}'}")).json
            assert len(page["consents"]) <= 7
            found += [(each["customer_id"], each["purpose"]) for each in page["consents"]]
            after = page["next"]
        assert sorted(expected) == sorted(found)
        only = (await shield.get("/v1/consents?purpose=analytics&state=denied&limit=1000")).json["consents"]
        assert 23 == len(only)
        assert [] == (await shield.get("/v1/consents?purpose=analytics&state=granted")).json["consents"]

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=1001", "after=x", "after=", "purpose=x", "state=none", "a=b", "after=" + "00" * 60]
    )
    async def test_a_page_that_cannot_be(self, shield, query):
        assert 400 == (await shield.get(f"/v1/consents?{query}")).status


def check(*pairs: tuple[str, str], holder: str | None = None):
    body = {"checks": [{"customer_id": customer, "purpose": purpose} for customer, purpose in pairs]}
    return body if holder is None else body | {"holder": holder}


class TestLeases:
    async def test_an_answer_names_the_entry_it_rests_on(self, shield):
        (record,) = (await shield.post("/v1/consents", FULL)).json["consents"]
        body = check(("c-1", "marketing"), ("c-1", "analytics"), ("nobody", "marketing"))
        answers = (await shield.post("/v1/consents:check", body)).json["answers"]
        assert [True, False, False] == [each["allowed"] for each in answers]
        assert record["event_id"] == answers[0]["event_id"]
        assert {0} == {each["lease_seconds"] for each in answers}

    async def test_a_revoke_waits_for_who_holds_an_answer_and_no_longer(self, shield):
        await shield.post("/v1/consents", FULL)
        asked = time.monotonic()
        (answer,) = (await shield.post("/v1/consents:check", check(("c-1", "marketing"), holder="w"))).json["answers"]
        assert (True, True) == (answer["allowed"], 0 < answer["lease_seconds"] <= 2)
        async with asyncio.timeout(60):
            await shield.post("/v1/consents", FULL | {"state": "revoked"})
        assert time.monotonic() - asked > 1.9

    async def test_a_confirmation_ends_the_wait(self, shield, monkeypatch):
        monkeypatch.setattr(consent_lease, "LEASE", 3600 * SECOND)  # nothing else can end it
        await shield.post("/v1/consents", FULL)
        await shield.post("/v1/consents:check", check(("c-1", "marketing"), holder="w"))
        revoking = asyncio.create_task(shield.post("/consent/revoke", {"customer_id": "c-1", "type": "marketing"}))
        recalls = []
        while not recalls:
            recalls = (await shield.post("/v1/consents:confirm", {"holder": "w"})).json["recalls"]
        assert ("c-1", "marketing") == (recalls[0]["customer_id"], recalls[0]["purpose"])
        assert not revoking.done()
        left = (await shield.post("/v1/consents:confirm", {"holder": "w", "confirmed": recalls})).json["recalls"]
        assert [] == left
        assert 200 == (await asyncio.wait_for(revoking, 60)).status
        (answer,) = (await shield.post("/v1/consents:check", check(("c-1", "marketing"), holder="w"))).json["answers"]
        assert not answer["allowed"]

    async def test_nobody_confirms_for_another_token_or_with_a_lease_of_another_process(self, monkeypatch):
        monkeypatch.setattr(consent_lease, "LEASE", 3600 * SECOND)  # nothing else can end the wait
        tokens = TOKENS + "  - {name: other, token: other-0123456789abcdef, roles: [spend]}\n"
        async with served(BudgetGuard.open(limit="1"), tokens=tokens) as shield:
            privacy, spend = {"headers": bearer("privacy")}, {"headers": bearer("spend")}
            await shield.post("/v1/consents", FULL, **privacy)
            body = check(("c-1", "marketing"), holder="w")
            (answer,) = (await shield.post("/v1/consents:check", body, **spend)).json["answers"]
            foreign = f"{int(answer['lease'], 16) ^ (1 << 70):024x}"
            revoking = asyncio.create_task(shield.post("/v1/consents", FULL | {"state": "revoked"}, **privacy))
            await asyncio.sleep(0.2)

            async def confirm(lease: str, who) -> None:
                item = {"customer_id": "c-1", "purpose": "marketing", "lease": lease}
                await shield.post("/v1/consents:confirm", {"holder": "w", "confirmed": [item]}, **who)

            await confirm(answer["lease"], {"headers": bearer("other")})
            await confirm(foreign, spend)
            await asyncio.sleep(0.2)
            assert not revoking.done()
            await confirm(answer["lease"], spend)
            await asyncio.wait_for(revoking, 60)

    @pytest.mark.parametrize(
        "body",
        [
            {}, {"checks": {}}, {"checks": [{}]}, {"checks": [{"customer_id": "c"}]}, {"checks": [1]},
            check(("c", "x")), check(("", "marketing")), check(("c", "marketing"), holder=""),
            check(("c", "marketing"), holder="x" * 63), check(*[("c", "marketing")] * 1001),
        ],
    )  # fmt: skip
    async def test_questions_that_cannot_be(self, shield, body):
        assert 400 == (await shield.post("/v1/consents:check", body)).status

    async def test_a_thousand_questions_in_one_call(self, shield):
        await shield.post("/v1/consents", FULL)
        body = check(*[("c-1", "marketing")] * 1000)
        assert {True} == {each["allowed"] for each in (await shield.post("/v1/consents:check", body)).json["answers"]}


class TestWhoMayCall:
    async def test_the_originals_routes_are_open_inside_and_ask_for_a_role_outside(self):
        async with served(
            BudgetGuard.open(limit="1"), tokens=TOKENS, KIKI_PUBLIC_PORT="0", KIKI_TOKENS_FILE="tokens.yaml"
        ) as shield:
            assert 200 == (await shield.post("/consent/grant", GRANT)).status
            assert 200 == (await shield.get("/consent/status?customer_id=cust_123")).status
            for path in ("/consent/status?customer_id=cust_123", "/v1/consents/cust_123"):
                assert 401 == (await shield.get(path, public=True)).status
                assert 403 == (await shield.get(path, public=True, headers=bearer("spend"))).status
                assert 200 == (await shield.get(path, public=True, headers=bearer("privacy"))).status
            assert 401 == (await shield.get("/v1/consents/cust_123")).status
            assert 200 == (await shield.get("/.well-known/gpc.json", public=True)).status

    async def test_who_entered_it_stands_in_the_audit(self):
        async with served(BudgetGuard.open(limit="1"), tokens=TOKENS) as shield:
            await shield.post("/v1/consents", FULL, headers=bearer("privacy"))
            assert ["privacy-er"] == [row.actor for row in rows(shield)]

    async def test_configured_purposes_are_purposes(self):
        guard = BudgetGuard.open(limit="1")
        own = BudgetGuard(guard.decider, purposes=["newsletter"])
        async with served(own) as shield:
            assert 200 == (await shield.post("/consent/grant?customer_id=c&type=newsletter")).status
            schema = (await shield.get("/openapi.json")).json["components"]["schemas"]["StatementBody"]
            assert "newsletter" in schema["properties"]["purpose"]["enum"]


async def test_no_log_line_names_a_customer(caplog):
    """Neither the access log nor a refusal says who was asked about."""
    caplog.set_level("DEBUG")
    async with served(BudgetGuard.open(limit="1"), KIKI_ACCESS_LOG="true") as shield:
        for path in ("/v1/consents/canary-7", "/v1/consents/canary-7/history", "/consent/status?customer_id=canary-7"):
            assert 200 == (await shield.get(path)).status
        assert 404 == (await shield.get("/v1/consents/canary-7/nothing")).status
        assert 400 == (await shield.post("/v1/consents", {"customer_id": "canary-7"})).status
        assert "canary" not in (await shield.get("/metrics")).text
    logged = "".join(
        f"{record.getMessage()}{vars(record)}" for record in caplog.records if record.name.startswith("kiki")
    )
    assert "/v1/consents/{customer_id}" in logged
    assert "canary" not in logged
