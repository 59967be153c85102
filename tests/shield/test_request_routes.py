"""Data subject requests over HTTP: the original's route to the letter, and one request of each kind to its end."""

from __future__ import annotations

import asyncio
import io
import json
import re
import zipfile

import pytest

from kiki.errors import NotFound, SystemUnavailable
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.evidence import find_rows
from kiki.shield.package_tokens import TOKEN_LIFE, PackageTokens
from kiki.shield.request_desk import RequestDesk
from kiki.shield.request_proof import verify_request_proof
from kiki.shield.subject_data import Document, Erased, Found, Verification
from tests.shield.served import TOKENS, Served, bearer, served

ASK = {"customer_id": "cust_123", "request_type": "ACCESS"}


class Crm:
    """A system of somebody's own that holds one record of everybody."""

    name = "crm"
    depends_on = ()

    def __init__(self) -> None:
        self.fails = False
        self.known = {"cust_123"}

    def _there(self, task) -> int:
        if self.fails:
            raise SystemUnavailable("the CRM is down")
        return int(task.customer in self.known)

    def locate(self, task):
        return Found(self._there(task), ("contacts",))

    def restrict(self, task):
        self._there(task)

    def rectify(self, task, values):
        self.corrected = dict(values)
        return self._there(task)

    def export(self, task):
        yield Document("contact.json", [json.dumps({"id": task.customer}).encode()], self._there(task))

    def erase(self, task):
        found = self._there(task)
        self.known.discard(task.customer)
        return Erased(found)

    def verify(self, task):
        return Verification(self._there(task), 1)


@pytest.fixture
def crm() -> Crm:
    return Crm()


@pytest.fixture
async def shield(crm, tmp_path):
    guard = BudgetGuard.open(limit="500")
    desk = RequestDesk(guard.decider, [crm], consents=guard.consents, packages=tmp_path / "requests")
    async with served(guard, service={"desk": desk}) as found:
        yield found


async def made(shield: Served, kind: str, customer: str = "cust_123", **more) -> str:
    answer = await shield.post("/v1/requests", {"customer_id": customer, "type": kind} | more)
    assert 201 == answer.status, answer.text
    return answer.json["request_id"]


async def vouched(shield: Served, kind: str, **more) -> str:
    number = await made(shield, kind, **more)
    assert 200 == (await shield.post(f"/v1/requests/{number}/verify", {"operator": "Jane"})).status
    return number


async def run(shield: Served, number: str) -> dict:
    answer = await shield.post(f"/v1/requests/{number}/run")
    assert 200 == answer.status, answer.text
    return answer.json


class TestOriginal:
    async def test_a_request_as_the_guide_types_it(self, shield):
        answer = await shield.post("/dsr/create", ASK | {"requested_by": "Jane", "details": "everything"})
        assert (200, "application/json") == (answer.status, answer.kind)
        found = answer.json
        assert re.fullmatch(r"DSR-\d{10}-[0-9a-f]{8}", found.pop("request_id"))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", found.pop("requested_at"))
        assert {
            "customer_id": "cust_123",
            "request_type": "ACCESS",
            "status": "PENDING",
            "requested_by": "Jane",
            "processed_by": "",
            "notes": "everything",
        } == found

    @pytest.mark.parametrize(
        "kind", ["ACCESS", "DELETION", "PORTABILITY", "RECTIFICATION", "OBJECTION", "OPT_OUT", "access"]
    )
    async def test_every_type_is_taken_from_the_query_too(self, shield, kind):
        answer = await shield.post(f"/dsr/create?customer_id=c%201&type={kind}")
        assert (200, kind.upper(), "PENDING") == (answer.status, answer.json["request_type"], answer.json["status"])

    @pytest.mark.parametrize("customer", ["a", "abc", "x" * 256, "jos\u00e9"])
    async def test_short_and_odd_ids_work(self, shield, customer):
        answer = await shield.post("/dsr/create", {"customer_id": customer, "type": "ACCESS"})
        assert (200, customer) == (answer.status, answer.json["customer_id"])

    async def test_a_duplicate_gets_the_same_answer_and_is_no_second_request(self, shield):
        first, again = [await shield.post("/dsr/create", ASK) for _ in range(2)]
        assert first.json["request_id"] == again.json["request_id"]
        assert 1 == (await shield.get("/v1/requests")).json["total"]

    async def test_a_storm_of_duplicates_is_one_request(self, shield):
        answers = await asyncio.gather(*(shield.post("/dsr/create", ASK) for _ in range(30)))
        assert 1 == len({answer.json["request_id"] for answer in answers})

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    async def test_other_methods(self, shield, method):
        answer = await shield.ask(method, "/dsr/create")
        assert (405, "Method not allowed\n", "POST") == (answer.status, answer.text, answer.headers["Allow"])

    @pytest.mark.parametrize(
        ("query", "says"),
        [
            ("", "Missing required parameters\n"),
            ("?customer_id=c", "Missing required parameters\n"),
            ("?type=ACCESS", "Missing required parameters\n"),
        ],
    )
    async def test_what_is_missing_is_said_in_the_originals_words(self, shield, query, says):
        answer = await shield.post(f"/dsr/create{query}")
        assert (400, says) == (answer.status, answer.text)

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            (b"{", "not valid JSON"), (b'{"customer_id": "c", "request_type": "FORGET"}', "RECTIFICATION, OBJECTION"),
            (b'{"customer_id": "c", "request_typ": "ACCESS"}', "did you mean 'request_type'"),
            (b'{"customer_id": "", "request_type": "ACCESS"}', "Missing required parameters"),
            (b'{"customer_id": "' + b"x" * 1024 + b'", "type": "ACCESS"}', "too long"),
            (b'{"customer_id": "c", "type": "ACCESS", "request_type": "ACCESS"}', "send one of them"),
        ],
    )  # fmt: skip
    async def test_garbage(self, shield, body, says):
        answer = await shield.post("/dsr/create", body)
        assert (400, True) == (answer.status, says in answer.text), answer.text
        assert 0 == (await shield.get("/v1/requests")).json["total"]


class TestKinds:
    async def test_access_ends_in_a_package_that_is_fetched_once(self, shield):
        number = await vouched(shield, "ACCESS")
        done = await run(shield, number)
        assert ("completed", "COMPLETED", 1) == (done["state"], done["status"], done["systems"]["crm"]["exported"])
        token = await shield.post(f"/v1/requests/{number}/package")
        assert 201 == token.status
        path = f"/v1/requests/{number}/package?token={token.json['token']}"
        fetched = await shield.get(path)
        assert (200, "application/zip", "no-store") == (
            fetched.status,
            fetched.kind,
            fetched.headers["Cache-Control"],
        )
        with zipfile.ZipFile(io.BytesIO(fetched.body)) as package:
            assert {"crm/contact.json", "manifest.json", "summary.html"} <= {*package.namelist()}
            assert {"id": "cust_123"} == json.loads(package.read("crm/contact.json"))
        assert 404 == (await shield.get(path)).status
        assert token.json["sha256"] == done["package_sha256"]

    async def test_a_deletion_forgets_the_person_and_proves_it(self, shield, crm):
        await shield.post("/consent/grant?customer_id=cust_123&type=marketing")
        key = (await shield.get("/v1/evidence")).json["verifier_key"]
        number = await vouched(shield, "DELETION")
        done = await run(shield, number)
        assert ("completed", "") == (done["state"], done["customer_id"])
        assert {"done"} == {outcome["outcome"] for outcome in done["systems"].values()}
        assert set() == crm.known
        assert "{}" == (await shield.get("/consent/status?customer_id=cust_123")).text
        proof = await shield.get(f"/v1/requests/{number}/proof")
        assert (200, "text/plain") == (proof.status, proof.kind)
        verified = verify_request_proof(proof.body, key)
        assert (number, "completed") == (verified.request, verified.state)
        assert "cust_123" not in proof.text
        assert 1 == (await shield.get("/compliance/report")).json["data_deletions"]

    async def test_an_opt_out_is_in_force_at_once_and_needs_no_proof(self, shield):
        await shield.post("/consent/grant?customer_id=cust_123&type=targeting")
        number = await made(shield, "OPT_OUT")
        shown = (await shield.get("/consent/status?customer_id=cust_123")).json
        assert "GRANTED" not in {each["status"] for each in shown.values()}
        assert "completed" == (await run(shield, number))["state"]

    async def test_a_rectification_is_handed_to_the_systems(self, shield, crm):
        number = await vouched(shield, "RECTIFICATION", corrections={"email": "jane@example.org"})
        assert "completed" == (await run(shield, number))["state"]
        assert {"email": "jane@example.org"} == crm.corrected

    async def test_a_rectification_of_nothing_is_received_and_never_done(self, shield):
        number = (await shield.post("/dsr/create", {"customer_id": "c", "type": "RECTIFICATION"})).json["request_id"]
        await shield.post(f"/v1/requests/{number}/verify", {"operator": "Jane"})
        answer = await shield.post(f"/v1/requests/{number}/run")
        assert (409, True) == (answer.status, "corrections" in answer.json["hint"])
        assert "verified" == (await shield.get(f"/v1/requests/{number}")).json["state"]

    async def test_a_system_that_fails_leaves_it_waiting_with_the_reason(self, shield, crm):
        crm.fails = True
        number = await vouched(shield, "ACCESS")
        left = await run(shield, number)
        assert ("waiting", "PENDING", "failed") == (left["state"], left["status"], left["systems"]["crm"]["outcome"])
        assert left["next_attempt_at"]
        assert 404 == (await shield.post(f"/v1/requests/{number}/package")).status
        assert 409 == (await shield.get(f"/v1/requests/{number}/proof")).status
        crm.fails = False
        assert "completed" == (await run(shield, number))["state"]

    async def test_a_legal_hold_is_an_exception_that_is_told(self, shield, crm):
        held = await shield.post("/v1/legal-holds", {"reference": "case 7", "customer_id": "cust_123"})
        assert (201, "cust_123") == (held.status, held.json["customer_id"])
        number = await vouched(shield, "DELETION")
        kept = await run(shield, number)
        assert ("completed_with_exceptions", ["case 7"]) == (kept["state"], kept["legal_holds"])
        assert {"cust_123"} == crm.known
        assert ["case 7"] == [each["reference"] for each in (await shield.get("/v1/legal-holds")).json["holds"]]
        lifted = await shield.ask("DELETE", "/v1/legal-holds?reference=case+7&customer_id=cust_123")
        assert [number] == [each["request_id"] for each in lifted.json["requests"]]
        assert "completed" == (await run(shield, number))["state"]
        assert set() == crm.known
        assert 404 == (await shield.ask("DELETE", "/v1/legal-holds?reference=case+7")).status

    async def test_a_hold_on_everybody(self, shield):
        held = await shield.post("/v1/legal-holds", {"reference": "all"})
        assert (True, None) == (held.json["everybody"], held.json.get("customer_id"))
        report = (await shield.get("/compliance/report")).json
        assert any("legal hold keeps everything" in each["said"] for each in report["probes"])

    async def test_a_long_run_is_told_to_go_on(self, shield, monkeypatch):
        monkeypatch.setattr("kiki.shield.request_routes.RUN_WAIT_SECONDS", 0.0)
        number = await vouched(shield, "ACCESS")
        answer = await shield.post(f"/v1/requests/{number}/run")
        assert answer.status in {200, 202}
        for _ in range(1200):
            if (await shield.get(f"/v1/requests/{number}")).json["state"] == "completed":
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("it did not go on")


class TestSteps:
    async def test_clocks_pause_extend_assign(self, shield):
        number = await made(shield, "ACCESS", regimes=["gdpr"])
        path = f"/v1/requests/{number}"
        before = (await shield.get(path)).json
        assert {"gdpr"} == {each["regime"] for each in before["deadlines"]}
        assert "paused" == (await shield.post(f"{path}/pause", {"note": "asked for a passport"})).json["state"]
        assert "identity_pending" == (await shield.post(f"{path}/resume")).json["state"]
        assert (await shield.post(f"{path}/acknowledge")).json["acknowledged_at"]
        extended = (await shield.post(f"{path}/extend", {"reason": "many systems"})).json
        assert extended["due_at"] > before["due_at"]
        assert 409 == (await shield.post(f"{path}/extend", {"reason": "again"})).status
        assert "jane" == (await shield.post(f"{path}/assign", {"to": "jane"})).json["assignee"]
        assert 409 == (await shield.post(f"{path}/run")).status

    async def test_refused_and_cancelled(self, shield):
        refused = await made(shield, "ACCESS")
        answer = await shield.post(
            f"/v1/requests/{refused}/refuse", {"article": "GDPR 12(5)", "reason": "the tenth this week"}
        )
        assert ("refused", "REJECTED", "GDPR 12(5)") == tuple(
            answer.json[name] for name in ("state", "status", "article")
        )
        cancelled = await made(shield, "DELETION")
        assert "cancelled" == (await shield.post(f"/v1/requests/{cancelled}/cancel")).json["state"]
        assert 409 == (await shield.post(f"/v1/requests/{cancelled}/cancel")).status

    async def test_lists_by_urgency_and_filters(self, shield):
        numbers = [await made(shield, "ACCESS", f"c-{each}") for each in range(3)]
        closed = await made(shield, "DELETION", "c-9")
        await shield.post(f"/v1/requests/{closed}/cancel")
        everything = (await shield.get("/v1/requests")).json
        assert (4, closed) == (everything["total"], everything["requests"][-1]["request_id"])
        for query, expected in [
            ("open=true", {*numbers}), ("open=false", {closed}), ("type=deletion", {closed}), ("state=cancelled", {closed}),
            ("customer_id=c-1", {numbers[1]}), ("customer_id=nobody", set()), ("due_before=2001-01-01T00:00:00Z", set()),
            ("due_before=2999-01-01T00:00:00Z", {*numbers}),
        ]:  # fmt: skip
            found = (await shield.get(f"/v1/requests?{query}")).json["requests"]
            assert expected == {each["request_id"] for each in found}, query
        assert 1 == len((await shield.get("/v1/requests?limit=1")).json["requests"])
        for query in ("open=yes", "state=lost", "type=x", "limit=0", "due_before=soon", "customer_id=", "statee=x"):
            assert 400 == (await shield.get(f"/v1/requests?{query}")).status, query

    async def test_an_idempotency_key_makes_one_request(self, shield):
        body = {"customer_id": "c", "type": "ACCESS"}
        first = await shield.post("/v1/requests", body, headers={"Idempotency-Key": "k"})
        await shield.post(f"/v1/requests/{first.json['request_id']}/cancel")
        again = await shield.post("/v1/requests", body | {"key": "k"})
        assert (201, 200) == (first.status, again.status)
        assert first.json["request_id"] == again.json["request_id"]
        other = await shield.post("/v1/requests", body | {"type": "DELETION", "key": "k"})
        assert (409, "key_reused") == (other.status, other.json["code"])
        both = await shield.post("/v1/requests", body | {"key": "a"}, headers={"Idempotency-Key": "b"})
        assert (400, "invalid_key") == (both.status, both.json["code"])

    @pytest.mark.parametrize("number", ["DSR-1-00000000", "x", "DSR-1-0000000g"])
    @pytest.mark.parametrize("step", ["", "/run", "/cancel", "/proof"])
    async def test_a_request_that_is_not_there(self, shield, number, step):
        method = "GET" if step in {"", "/proof"} else "POST"
        assert (await shield.ask(method, f"/v1/requests/{number}{step}")).status in {400, 404, 405}

    @pytest.mark.parametrize(
        ("step", "body"),
        [
            ("verify", {}), ("verify", {"code": "1"}), ("verify", {"code": "12345678", "operator": "x"}),
            ("verify", {"operator": ""}), ("verify", {"operator": 5}), ("extend", {}), ("extend", {"reason": " "}),
            ("extend", {"reason": "x", "regimes": []}), ("extend", {"reason": "x", "regimes": ["pipeda"]}),
            ("assign", {}), ("assign", {"to": None}), ("refuse", {"reason": "x"}), ("refuse", {"article": "", "reason": "x"}),
            ("refuse", {"article": "GDPR 12(5)", "reason": ""}), ("cancel", {"why": "x"}), ("run", {"now": True}),
            ("pause", {"note": 5}), ("package", {"for": "me"}),
        ],
    )  # fmt: skip
    async def test_steps_that_cannot_be_read(self, shield, step, body):
        number = await made(shield, "ACCESS")
        answer = await shield.post(f"/v1/requests/{number}/{step}", body)
        assert (400, "application/problem+json") == (answer.status, answer.kind), answer.text
        assert "received" == (await shield.get(f"/v1/requests/{number}")).json["state"]

    @pytest.mark.parametrize(
        "change",
        [
            {"type": "FORGET"}, {"regimes": ["pipeda"]}, {"regimes": []}, {"regimes": "gdpr"}, {"regimes": [1]},
            {"purposes": ["marketing"]}, {"corrections": {"a": "b"}}, {"corrections": {}}, {"corrections": {"a": 1}},
            {"received_at": "2999-01-01T00:00:00Z"}, {"received_at": "2001-01-01T00:00:00Z"}, {"details": "x" * 4097},
            {"key": ""}, {"requester": "x"}, {"actor": "me"},
        ],
    )  # fmt: skip
    async def test_requests_that_cannot_be(self, shield, change):
        answer = await shield.post("/v1/requests", {"customer_id": "c", "type": "ACCESS"} | change)
        assert (400, "application/problem+json") == (answer.status, answer.kind), answer.text
        assert 0 == (await shield.get("/v1/requests")).json["total"]


class TestIdentity:
    async def test_a_code_to_a_known_channel(self, tmp_path):
        sent: list[tuple[str, str]] = []

        class Channel:
            def send(self, customer: str, code: str, request: str) -> None:
                sent.append((customer, code))

        guard = BudgetGuard.open(limit="1")
        desk = RequestDesk(guard.decider, consents=guard.consents, channel=Channel(), packages=tmp_path)
        async with served(guard, service={"desk": desk}) as shield:
            number = await made(shield, "ACCESS")
            assert 200 == (await shield.post(f"/v1/requests/{number}/code")).status
            ((customer, code),) = sent
            assert "cust_123" == customer
            wrong = f"{(int(code) + 1) % 10**8:08d}"
            denied = await shield.post(f"/v1/requests/{number}/verify", {"code": wrong})
            assert (403, "identity_denied") == (denied.status, denied.json["code"])
            found = await shield.post(f"/v1/requests/{number}/verify", {"code": f"{code[:4]} {code[4:]}"})
            assert ("verified", "code") == (found.json["state"], found.json["verified_by"])

    async def test_without_a_channel_no_code_is_promised(self, shield):
        answer = await shield.post(f"/v1/requests/{await made(shield, 'ACCESS')}/code")
        assert (409, True) == (answer.status, "operator" in answer.json["hint"])


class TestWhoMayCall:
    async def test_roles_and_the_link_that_proves_itself(self, tmp_path):
        guard = BudgetGuard.open(limit="1")
        desk = RequestDesk(guard.decider, consents=guard.consents, packages=tmp_path)
        async with served(
            guard, tokens=TOKENS, service={"desk": desk}, KIKI_PUBLIC_PORT="0", KIKI_TOKENS_FILE="t"
        ) as shield:
            privacy = {"headers": bearer("privacy")}
            assert 200 == (await shield.post("/dsr/create", ASK)).status
            assert 401 == (await shield.post("/dsr/create", ASK, public=True)).status
            assert 403 == (await shield.get("/v1/requests", headers=bearer("spend"))).status
            number = (await shield.get("/v1/requests", **privacy)).json["requests"][0]["request_id"]
            await shield.post(f"/v1/requests/{number}/verify", {"operator": "somebody else"}, **privacy)
            await shield.post(f"/v1/requests/{number}/run", **privacy)
            rows = find_rows(guard.decider.ledger.store, decisions=True)
            assert "privacy-er" in {row.actor for row in rows if row.reason_code == "verified"}
            token = (await shield.post(f"/v1/requests/{number}/package", **privacy)).json["token"]
            assert 400 == (await shield.get(f"/v1/requests/{number}/package", public=True)).status
            other = f"/v1/requests/DSR-1-00000000/package?token={token}"
            assert 404 == (await shield.get(other, public=True)).status
            # A token that was tried anywhere is used up.
            assert 404 == (await shield.get(f"/v1/requests/{number}/package?token={token}", public=True)).status
            token = (await shield.post(f"/v1/requests/{number}/package", **privacy)).json["token"]
            assert 200 == (await shield.get(f"/v1/requests/{number}/package?token={token}", public=True)).status


class TestTokens:
    def test_a_token_ends_with_its_day_and_with_its_use(self):
        now = [0]
        tokens = PackageTokens(lambda: now[0])
        first, second = tokens.make("r"), tokens.make("r")
        assert first.token != second.token
        tokens.take("r", first.token)
        with pytest.raises(NotFound, match="not good any more"):
            tokens.take("r", first.token)
        now[0] = TOKEN_LIFE
        with pytest.raises(NotFound, match="not good any more"):
            tokens.take("r", second.token)

    def test_memory_is_bounded_and_the_oldest_go_first(self, monkeypatch):
        monkeypatch.setattr("kiki.shield.package_tokens.TOKENS_MAX", 3)
        tokens = PackageTokens(lambda: 0)
        made = [tokens.make("r").token for _ in range(4)]
        with pytest.raises(NotFound, match="not good any more"):
            tokens.take("r", made[0])
        for token in made[1:]:
            tokens.take("r", token)


async def test_what_waits_is_run_again_by_the_service_itself(crm, tmp_path, monkeypatch):
    monkeypatch.setattr("kiki.shield.privacy_service._WORK_SECONDS", 0.05)
    monkeypatch.setattr("kiki.shield.request_run.RETRY_FIRST", 1)
    guard = BudgetGuard.open(limit="1")
    desk = RequestDesk(guard.decider, [crm], consents=guard.consents, packages=tmp_path)
    async with served(guard, service={"desk": desk}) as shield:
        crm.fails = True
        number = await vouched(shield, "ACCESS")
        assert "waiting" == (await run(shield, number))["state"]
        crm.fails = False
        for _ in range(1200):
            if (await shield.get(f"/v1/requests/{number}")).json["state"] == "completed":
                return
            await asyncio.sleep(0.05)
    raise AssertionError("nobody ran it")
