"""SyncShield over HTTP: every route of the contract, every refusal, and a ledger that fails. Real sockets, one process."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import threading
from contextlib import AsyncExitStack
from dataclasses import dataclass
from io import BytesIO

import apsw
import pytest
from aiohttp import ClientSession

from kiki.errors import LedgerUnavailable
from kiki.ledger.sqlite import SqliteStore, _translated
from kiki.ledger.store import Write
from kiki.settings import parse_listen
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.evidence import find_rows
from kiki.shield.opening import read_policy
from kiki.shield.policy import parse_policy
from kiki.shield.service import ShieldService
from kiki.web import Service, listening, parse_tokens

UNIT = 1_000_000
START = 1_800_000_000 * UNIT
JSON = {"Accept": "application/json"}
ROLES = ("read", "spend", "privacy", "admin")
TOKENS = "tokens:\n" + "".join(
    f"  - {{name: {role}-er, token: {role}-0123456789abcdef, roles: [{role}]}}\n" for role in ROLES
)


def bearer(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {role}-0123456789abcdef"}


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += round(seconds * UNIT)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0]


@dataclass
class Served:
    guard: BudgetGuard
    clock: Clock
    url: str
    public_url: str | None
    session: ClientSession
    service: Service

    async def ask(self, method: str, path: str, *, public: bool = False, **given) -> Answer:
        url = (self.public_url if public else self.url) + path
        if "json" in given:
            given["data"] = json.dumps(given.pop("json")).encode()
            given["headers"] = {"Content-Type": "application/json"} | given.get("headers", {})
        async with self.session.request(method, url, **given) as response:
            return Answer(response.status, dict(response.headers), await response.read())

    async def get(self, path: str, **given) -> Answer:
        return await self.ask("GET", path, **given)

    async def post(self, path: str, body=None, **given) -> Answer:
        return await self.ask("POST", path, **(given if body is None else given | {"json": body}))

    async def raw(self, request: bytes) -> tuple[int, bytes]:
        """Status and everything after the head of the answer to these very bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.url.rpartition(":")[2]))
        try:
            writer.write(request)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
            method = request.partition(b" ")[0]
            return int(head.split()[1]), b"" if method == b"HEAD" else await reader.readexactly(length)
        finally:
            writer.close()

    def rows(self):
        """What the audit holds, oldest first."""
        return list(find_rows(self.guard.decider.ledger.store, decisions=True))

    def spent(self) -> int:
        """What the default budget counts, holds included."""
        return sum(status.spent + status.held for status in self.guard.status(budget="default"))


@pytest.fixture
async def serve():
    """A function that starts a shield; keywords in upper case are settings, the rest the guard's or the service's."""
    async with AsyncExitStack() as stack:

        async def start(path=None, *, tokens=None, service=None, moving=False, **given) -> Served:
            environ = {"PORT": "0", "KIKI_DRAIN_SECONDS": "1"}
            environ |= {name: given.pop(name) for name in list(given) if name.isupper()}
            clock = Clock()
            if "policy" not in given:
                given.setdefault("limit", "500")
            guard = BudgetGuard.open(path, clock=None if moving else clock, **given)
            shield = ShieldService(guard, **(service or {})).service()
            found = parse_tokens(tokens, "tokens.yaml") if tokens else None
            running = await stack.enter_async_context(listening(shield, parse_listen(environ), found))
            session = await stack.enter_async_context(ClientSession(auto_decompress=False))
            return Served(guard, clock, running.url, running.public_url, session, shield)

        yield start


@pytest.fixture
async def shield(serve):
    """A shield with 500 per 60 seconds and a clock that stands."""
    return await serve()


POLICY = """
currency: USD
budgets:
  - {name: default, scope: "*", limit: "500", window: 60s}
  - {name: campaigns, scope: "campaign:*", limit: "50", window: 60s}
  - {name: people, scope: "customer:*", limit: "20", window: 1h}
"""


@pytest.fixture
async def many(serve, tmp_path):
    """A shield with three budgets."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    return await serve(policy=tmp_path / "policy.yaml")


class TestGuide:
    async def test_the_guides_loop(self, shield):
        """Six spends of 100: five are recorded, the sixth is refused, and then a check of a good value is too."""
        answers = [await shield.get("/spend?amount=100") for _ in range(6)]
        assert [answer.status for answer in answers] == [200] * 5 + [403]
        assert [answer.text for answer in answers[:5]] == ["Spend recorded: 100.00"] * 5
        assert re.fullmatch(r"Spend refused: 100\.00 does not fit .*500\.00 per 60s.*\n", answers[5].text)
        assert answers[5].headers["Retry-After"] == "61"
        assert answers[5].headers["Kiki-Reason"] == "budget_exhausted"
        assert {answer.kind for answer in answers} == {"text/plain"}
        check = await shield.get("/check?ltv=600")
        assert (check.status, check.text) == (403, "Bid validation failed\n")
        assert shield.spent() == 500 * UNIT
        assert [row.outcome for row in shield.rows()] == ["APPROVED"] * 5 + ["DENIED"] * 2

    @pytest.mark.parametrize(
        ("ltv", "status"),
        [("9.99", 403), ("9.999999", 403), ("0", 403), ("10", 200), ("10.00", 200), ("600", 200), ("10000", 200),
         ("10000.000001", 403), ("10000.01", 403)],
    )  # fmt: skip
    async def test_bounds_of_the_value(self, shield, ltv, status):
        """The bounds themselves pass, a micro beyond them does not; a check takes nothing."""
        answer = await shield.get(f"/check?ltv={ltv}")
        text = "Compliance check passed" if status == 200 else "Bid validation failed\n"
        assert (answer.status, answer.text) == (status, text)
        assert shield.spent() == 0
        (row,) = shield.rows()
        assert row.outcome == ("APPROVED" if status == 200 else "DENIED")

    @pytest.mark.parametrize(
        ("query", "begins"),
        [
            ("", "Invalid amount"), ("?amount=", "Invalid amount"), ("?amount=abc", "Invalid amount"),
            ("?amount=-1", "Invalid amount"), ("?amount=NaN", "Invalid amount"), ("?amount=1e2", "Invalid amount"),
        ],
    )  # fmt: skip
    async def test_the_originals_words_for_a_bad_amount(self, shield, query, begins):
        answer = await shield.get(f"/spend{query}")
        assert answer.status == 400
        assert answer.text.startswith(begins)
        assert "12.34" in answer.text  # says what is accepted
        assert answer.text.endswith("\n")

    async def test_the_originals_words_for_a_bad_value(self, shield):
        missing = await shield.get("/check")
        assert (missing.status, missing.text.startswith("Missing LTV parameter")) == (400, True)
        for ltv in ("", "abc", "NaN", "Infinity", "-5", "1e400"):
            wrong = await shield.get(f"/check?ltv={ltv}")
            assert (wrong.status, wrong.text.startswith("Invalid LTV value")) == (400, True)
        assert [row.outcome for row in shield.rows()] == ["DENIED"] * 7

    async def test_a_check_with_an_amount_asks_about_that_amount(self, many):
        """With an amount the value may be left out; scopes choose the budgets, and nothing is taken."""
        assert (await many.get("/check?amount=500")).status == 200
        assert (await many.get("/check?amount=500.000001")).status == 403
        assert (await many.get("/check?amount=51&scope=campaign:a")).status == 403
        assert (await many.get("/check?amount=50&scope=campaign:a&scope=platform:meta&ltv=600")).status == 200
        assert (await many.get("/check?amount=50&ltv=5")).status == 403
        assert many.spent() == 0

    async def test_json_where_it_is_asked_for(self, shield):
        """`Accept: application/json` gives the outcome, problems for refusals, and for bad input."""
        spend = await shield.get("/spend?amount=10", headers=JSON)
        assert (spend.status, spend.kind) == (200, "application/json")
        assert spend.json["amount"] == "10.00"
        assert spend.json["allowed"] is True
        refused = await shield.get("/spend?amount=1000", headers=JSON)
        assert (refused.status, refused.kind) == (403, "application/problem+json")
        assert refused.json["code"] == "spend_denied"
        assert refused.json["reason"] == "above_limit"
        wrong = await shield.get("/check", headers=JSON)
        assert (wrong.status, wrong.kind, wrong.json["code"]) == (400, "application/problem+json", "invalid_input")
        check = await shield.get("/check?ltv=5", headers=JSON)
        assert (check.status, check.json["reason"]) == (403, "ltv_below_minimum")
        for accept in ("*/*", "text/plain, application/json;q=0.5"):
            assert (await shield.get("/spend?amount=1", headers={"Accept": accept})).kind == "text/plain"

    async def test_post_with_json_on_the_guides_routes(self, many):
        spend = await many.post("/spend", {"amount": "10", "scopes": {"campaign": "a"}, "currency": "USD", "key": "k"})
        assert (spend.status, spend.text) == (200, "Spend recorded: 10.00")
        check = await many.post("/check", {"ltv": 600, "amount": 45, "scopes": {"campaign": "a"}})
        assert (check.status, check.text) == (403, "Bid validation failed\n")
        assert (await many.post("/check", {"ltv": "600"})).status == 200

    async def test_post_without_a_body_reads_the_query(self, shield):
        answer = await shield.post("/spend?amount=7")
        assert (answer.status, answer.text) == (200, "Spend recorded: 7.00")

    @pytest.mark.parametrize(
        "path", ["/spend", "/check", "/v1/spends", "/v1/checks", "/v1/records", "/v1/reservations"]
    )
    async def test_a_query_beside_a_body_is_refused(self, many, path):
        """A scope in the query of a request that carries a body would be a budget silently passed over."""
        answer = await many.post(f"{path}?scope=campaign:a", {"amount": "10"})
        assert answer.status == 400
        assert "'scope'" in answer.text
        assert many.spent() == 0
        assert [row.outcome for row in many.rows()] == ["DENIED"]

    @pytest.mark.parametrize("path", ["/spend?amount=100", "/check?ltv=600"])
    async def test_head_never_decides(self, shield, path):
        """A HEAD, which caches and link checkers send, is refused and charges nothing."""
        answer = await shield.ask("HEAD", path)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, POST")
        assert shield.spent() == 0
        assert shield.rows() == []

    async def test_health(self, shield):
        answer = await shield.get("/health")
        assert answer.status == 200
        assert answer.json | {"timestamp": ""} == {
            "status": "healthy",
            "service": "syncshield",
            "gdpr_compliant": True,
            "iso27001_active": True,
            "ccpa_compliant": True,
            "redis_connected": False,
            "timestamp": "",
        }
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", answer.json["timestamp"])
        assert (await shield.ask("HEAD", "/health")).status == 200


class TestKeys:
    async def test_keyless_repeats_are_new_spends(self, shield):
        for _ in range(3):
            assert (await shield.get("/spend?amount=100")).status == 200
        assert shield.spent() == 300 * UNIT

    @pytest.mark.parametrize("path", ["/spend", "/v1/spends", "/v1/records"])
    async def test_a_key_in_the_header_or_the_body_is_the_same_key(self, shield, path):
        first = await shield.post(path, {"amount": "10"}, headers={"Idempotency-Key": "order-1"} | JSON)
        again = await shield.post(path, {"amount": "10", "key": "order-1"}, headers=JSON)
        both = await shield.post(
            path, {"amount": "10.00", "key": "order-1"}, headers={"Idempotency-Key": "order-1"} | JSON
        )
        assert (first.status, first.headers.get("Idempotency-Replayed")) == (200, None)
        for repeat in (again, both):
            assert (repeat.status, repeat.body) == (200, first.body)
            assert repeat.headers["Idempotency-Replayed"] == "true"
        assert shield.spent() == 10 * UNIT
        assert len(shield.rows()) == 1

    async def test_two_different_keys_in_one_request_are_refused(self, shield):
        answer = await shield.post("/v1/spends", {"amount": "1", "key": "a"}, headers={"Idempotency-Key": "b"})
        assert (answer.status, answer.json["code"]) == (400, "invalid_key")
        assert shield.spent() == 0

    @pytest.mark.parametrize("path", ["/spend?amount=1", "/v1/spends"])
    async def test_two_keys_in_the_header_are_refused(self, shield, path):
        """Which of them counts is not for us to guess."""
        body = b'{"amount": "1"}' if path.startswith("/v1") else b""
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nContent-Type: application/json\r\n"
        status, _ = await shield.raw(f"{head}Idempotency-Key: a\r\nIdempotency-Key: b\r\n\r\n".encode() + body)
        assert status == 400
        assert shield.spent() == 0
        assert [row.outcome for row in shield.rows()] == ["DENIED"]

    async def test_a_repeat_is_the_first_answer_to_the_byte_after_the_window_moved(self, shield):
        """Taken or refused, text or JSON: what was said once is said again, and nothing is charged."""
        asked = [("/spend?amount=400", {"Idempotency-Key": "a"}), ("/spend?amount=200", {"Idempotency-Key": "b"})]
        asked += [(path, headers | JSON) for path, headers in asked]
        first = [await shield.get(path, headers=headers) for path, headers in asked]
        assert [answer.status for answer in first] == [200, 403, 200, 403]
        shield.clock.move(3600)
        again = [await shield.get(path, headers=headers) for path, headers in asked]
        assert [(answer.status, answer.body) for answer in again] == [(answer.status, answer.body) for answer in first]
        assert again[1].headers["Retry-After"] == first[1].headers["Retry-After"]
        assert shield.spent() == 0
        assert len(shield.rows()) == 2

    @pytest.mark.parametrize(
        "other", [{"amount": "11"}, {"amount": "10", "scopes": {"platform": "meta"}}, {"amount": "10.000001"}]
    )
    async def test_the_same_key_for_something_else_is_a_conflict(self, shield, other):
        await shield.post("/v1/spends", {"amount": "10", "key": "k"})
        answer = await shield.post("/v1/spends", {**other, "key": "k"})
        assert (answer.status, answer.kind, answer.json["code"]) == (409, "application/problem+json", "key_reused")
        plain = await shield.post("/spend", {**other, "key": "k"})
        assert (plain.status, plain.kind) == (409, "text/plain")
        for path in ("/v1/records", "/v1/reservations"):
            assert (await shield.post(path, {"amount": "10", "key": "k"})).status == 409
        assert shield.spent() == 10 * UNIT

    async def test_a_hundred_at_once_with_one_key_are_one_spend(self, shield):
        answers = await asyncio.gather(*(shield.post("/v1/spends", {"amount": "10", "key": "k"}) for _ in range(100)))
        assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
        assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
        assert shield.spent() == 10 * UNIT

    async def test_hundreds_at_once_are_never_over(self, shield):
        """400 concurrent spends of 2 against 500: exactly 250 are admitted."""
        answers = await asyncio.gather(*(shield.get("/spend?amount=2") for _ in range(400)))
        assert sum(answer.status == 200 for answer in answers) == 250
        assert shield.spent() == 500 * UNIT

    async def test_at_the_cap_new_keys_are_refused_and_old_ones_answered(self, serve):
        shield = await serve(keys_max=2)
        for key in "ab":
            assert (await shield.post("/v1/spends", {"amount": "1", "key": key})).status == 200
        refused = await shield.post("/v1/spends", {"amount": "1", "key": "c"})
        assert (refused.status, refused.json["code"]) == (503, "capacity_reached")
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await shield.post("/v1/spends", {"amount": "1", "key": "a"})).headers["Idempotency-Replayed"] == "true"
        assert (await shield.post("/v1/spends", {"amount": "1"})).status == 200
        assert shield.spent() == 3 * UNIT


class TestVersionOne:
    async def test_a_spend_and_its_refusal(self, many):
        taken = await many.post("/v1/spends", {"amount": 12.5, "scopes": {"campaign": "a", "platform": "meta"}})
        assert taken.status == 200
        assert taken.json == {
            "event_id": taken.json["event_id"],
            "chain": taken.json["chain"],
            "verb": "spend",
            "allowed": True,
            "amount": "12.50",
            "currency": "USD",
            "decided_at": "2027-01-15T08:00:00.000000Z",
        }
        refused = await many.post("/v1/spends", {"amount": "40", "scopes": {"campaign": "a"}})
        assert (refused.status, refused.kind) == (403, "application/problem+json")
        problem = refused.json
        assert {name: problem[name] for name in ("type", "code", "status", "reason", "budget", "scope", "limit", "remaining")} == {
            "type": "urn:kiki:error:spend_denied", "code": "spend_denied", "status": 403, "reason": "budget_exhausted",
            "budget": "campaigns", "scope": "campaign:a", "limit": "50.00", "remaining": "37.50",
        }  # fmt: skip
        assert problem["window_seconds"] == 60
        assert "allowed" not in problem
        assert int(refused.headers["Retry-After"]) - 1 < problem["retry_after"] <= int(refused.headers["Retry-After"])
        # And at that very moment, not before, it fits.
        many.clock.move(problem["retry_after"] - 0.000001)
        assert (await many.post("/v1/spends", {"amount": "40", "scopes": {"campaign": "a"}})).status == 403
        many.clock.move(0.000001)
        assert (await many.post("/v1/spends", {"amount": "40", "scopes": {"campaign": "a"}})).status == 200

    async def test_a_refusal_charges_no_budget_at_all(self, many):
        assert (await many.post("/v1/spends", {"amount": "51", "scopes": {"campaign": "a"}})).status == 403
        assert many.spent() == 0

    @pytest.mark.parametrize(
        "body",
        [
            {"amounts": ["1", 2, 497.01, "0.5"]},
            {"spends": [{"amount": "1"}, {"amount": 2}, {"amount": 497.01}, {"amount": "0.5"}]},
        ],
    )
    async def test_a_batch_answers_each_in_order(self, shield, body):
        answer = await shield.post("/v1/spends:batch", body | {"key": "batch"})
        assert answer.status == 200
        assert (answer.json["admitted"], answer.json["refused"]) == (3, 1)
        assert [outcome["allowed"] for outcome in answer.json["outcomes"]] == [True, True, False, True]
        assert answer.json["outcomes"][0]["event_id"] == answer.json["event_id"]
        assert len({outcome["event_id"] for outcome in answer.json["outcomes"]}) == 4
        again = await shield.post("/v1/spends:batch", body | {"key": "batch"})
        assert (again.body, again.headers["Idempotency-Replayed"]) == (answer.body, "true")
        assert shield.spent() == 3_500_000

    async def test_one_bad_item_refuses_the_whole_batch(self, shield):
        for body in ({"amounts": ["1", "-1"]}, {"spends": [{"amount": "1"}, {"amount": "1", "scope": {}}]}):
            answer = await shield.post("/v1/spends:batch", body)
            assert answer.status == 400
            assert "item 1" in answer.json["detail"]
        for body in (
            {"amounts": []},
            {},
            {"amounts": ["1"], "spends": []},
            {"amounts": "1"},
            {"amounts": ["1"] * 10_001},
        ):
            assert (await shield.post("/v1/spends:batch", body)).status == 400
        assert shield.spent() == 0
        assert [row.outcome for row in shield.rows()] == ["DENIED"] * 7

    async def test_checks_answer_200_either_way(self, shield):
        yes = await shield.post("/v1/checks", {"amount": "500", "ltv": "10"})
        no = await shield.post("/v1/checks", {"amount": "501"})
        empty = await shield.post("/v1/checks", {})
        assert [(each.status, each.json["allowed"]) for each in (yes, no, empty)] == [
            (200, True),
            (200, False),
            (200, True),
        ]
        assert no.json["reason"] == "above_limit"
        assert no.json["explanation"].startswith("501.00 never fits")
        assert [row.outcome for row in shield.rows()] == ["APPROVED", "DENIED", "APPROVED"]

    async def test_records_count_even_over_the_limit(self, shield):
        answer = await shield.post("/v1/records", {"amount": "600", "key": "r"})
        assert (answer.status, answer.json["verb"], answer.json["allowed"]) == (200, "record", True)
        assert shield.spent() == 600 * UNIT
        assert (await shield.get("/spend?amount=0.000001")).status == 403
        budgets = (await shield.get("/v1/budgets")).json["budgets"]
        assert budgets[0]["remaining"] == "-100.00"

    async def test_a_reservation_is_committed_once(self, shield):
        made = await shield.post("/v1/reservations", {"amount": "80", "key": "h"})
        assert (made.status, made.json["amount"], made.json["deadline"]) == (201, "80.00", None)
        again = await shield.post("/v1/reservations", {"amount": "80", "key": "h"})
        assert (again.status, again.body) == (201, made.body)
        hold = made.json["id"]
        assert [each["id"] for each in (await shield.get("/v1/reservations")).json["reservations"]] == [hold]
        more = await shield.post(f"/v1/reservations/{hold}/commit", {"amount": "80.01"})
        assert (more.status, more.json["code"]) == (409, "commit_exceeds_hold")
        assert shield.spent() == 80 * UNIT
        done = await shield.post(f"/v1/reservations/{hold}/commit", {"amount": "64.20"})
        assert done.status == 200
        assert {name: done.json[name] for name in ("reserved", "charged", "actual", "late")} == {
            "reserved": "80.00", "charged": "64.20", "actual": "64.20", "late": False,
        }  # fmt: skip
        repeat = await shield.post(f"/v1/reservations/{hold}/commit", {"amount": "64.20"})
        assert (repeat.status, repeat.body, repeat.headers["Idempotency-Replayed"]) == (200, done.body, "true")
        for path, body in (("commit", {"amount": "64.21"}), ("release", None)):
            other = await shield.post(f"/v1/reservations/{hold}/{path}", body)
            assert (other.status, other.json["code"]) == (409, "hold_closed")
        assert (await shield.get("/v1/reservations")).json == {"reservations": []}
        assert shield.spent() == 64_200_000

    @pytest.mark.parametrize("body", [None, {}])
    async def test_a_release_frees_all_of_it(self, shield, body):
        hold = (await shield.post("/v1/reservations", {"amount": "500"})).json["id"]
        assert (await shield.get("/spend?amount=1")).status == 403
        released = await shield.post(f"/v1/reservations/{hold}/release", body)
        assert (released.status, released.json["charged"]) == (200, "0.00")
        assert (await shield.get("/spend?amount=500")).status == 200

    async def test_a_commit_of_nothing_is_legal(self, shield):
        hold = (await shield.post("/v1/reservations", {"amount": "500"})).json["id"]
        assert (await shield.post(f"/v1/reservations/{hold}/commit", {"amount": 0})).status == 200
        assert shield.spent() == 0

    async def test_past_its_deadline_a_reservation_is_spent(self, shield):
        """A late commit writes down what was spent and charges nothing more."""
        made = await shield.post("/v1/reservations", {"amount": "500", "seconds": 10})
        assert made.json["deadline"] == "2027-01-15T08:00:10.000000Z"
        shield.clock.move(11)
        assert (await shield.get("/spend?amount=1")).status == 403
        late = await shield.post(f"/v1/reservations/{made.json['id']}/commit", {"amount": "100"})
        assert (late.status, late.json["late"], late.json["charged"], late.json["actual"]) == (
            200,
            True,
            "0.00",
            "100.00",
        )
        assert shield.spent() == 500 * UNIT
        assert [row.verb for row in shield.rows()] == ["reserve", "expire", "spend", "commit"]

    @pytest.mark.parametrize("verb", ["commit", "release"])
    async def test_an_unknown_reservation_is_not_found(self, shield, verb):
        body = {"amount": "1"} if verb == "commit" else None
        unknown = await shield.post(f"/v1/reservations/{'0' * 32}/{verb}", body)
        assert (unknown.status, unknown.json["code"]) == (404, "hold_unknown")
        for wrong in ("x", "0" * 31, "0" * 33, "A" * 32, "%C3%A9" * 32, "0" * 32 + "%0A"):
            assert (await shield.post(f"/v1/reservations/{wrong}/{verb}", body)).status == 400

    async def test_a_refused_reservation_holds_nothing(self, shield):
        answer = await shield.post("/v1/reservations", {"amount": "501"})
        assert (answer.status, answer.json["verb"]) == (403, "reserve")
        assert (await shield.get("/v1/reservations")).json == {"reservations": []}

    @pytest.mark.parametrize("seconds", [0, -1, 366 * 24 * 3600 + 1, 1e30, True, "10", None])
    async def test_a_bad_deadline_is_refused(self, shield, seconds):
        answer = await shield.post("/v1/reservations", {"amount": "1", "seconds": seconds})
        assert answer.status == 400
        assert "seconds" in answer.json["detail"] or "366 days" in answer.json["detail"]
        assert shield.spent() == 0

    async def test_the_kill_switch(self, many):
        """A halt refuses what it concerns, at once, whatever is left; a resume takes it back."""
        halted = await many.post("/v1/halts", {"pattern": "campaign:a", "note": "looks wrong"})
        assert (halted.status, halted.json["pattern"], halted.json["halted"]) == (200, "campaign:a", True)
        assert (await many.get("/v1/halts")).json == {"halts": ["campaign:a"]}
        refused = await many.get("/spend?amount=1&scope=campaign:a", headers=JSON)
        assert (refused.status, refused.json["reason"]) == (403, "halted")
        assert "Retry-After" not in refused.headers
        assert (await many.get("/spend?amount=1&scope=campaign:b")).status == 200
        resumed = await many.ask("DELETE", "/v1/halts?pattern=campaign:a")
        assert (resumed.status, resumed.json["halted"]) == (200, False)
        assert (await many.get("/spend?amount=1&scope=campaign:a")).status == 200
        everything = await many.post("/v1/halts", {"pattern": "*"})
        assert everything.status == 200
        assert (await many.get("/check?ltv=600")).status == 403
        assert {row.verb for row in many.rows()} >= {"halt", "resume"}

    @pytest.mark.parametrize("pattern", ["", "x", "Platform:meta", "platform:", ":", "**", "platform:a*\n", 5, None])
    async def test_a_bad_pattern_is_refused(self, shield, pattern):
        assert (await shield.post("/v1/halts", {"pattern": pattern})).status == 400
        assert (await shield.get("/v1/halts")).json == {"halts": []}

    async def test_resume_wants_its_pattern(self, shield):
        assert (await shield.ask("DELETE", "/v1/halts")).status == 400

    async def test_budgets_say_what_is_left(self, many):
        await many.post("/v1/spends", {"amount": "10", "scopes": {"campaign": "a"}})
        await many.post("/v1/reservations", {"amount": "5", "scopes": {"campaign": "b"}})
        found = (await many.get("/v1/budgets")).json
        assert (found["currency"], found["window"], found["halts"]) == ("USD", "local", [])
        by_scope = {each["scope"]: each for each in found["budgets"]}
        assert (by_scope["*"]["spent"], by_scope["*"]["held"], by_scope["*"]["remaining"]) == (
            "10.00",
            "5.00",
            "485.00",
        )
        assert by_scope["campaign:a"]["remaining"] == "40.00"
        assert by_scope["campaign:b"]["room_at"] is None
        only = (await many.get("/v1/budgets?budget=campaigns&scope=campaign:a&limit=1")).json["budgets"]
        assert [each["scope"] for each in only] == ["campaign:a"]
        for wrong in ("limit=0", "limit=1001", "limit=x", "scope=nonsense", "budget=", "bugdet=x", "limit=1&limit=2"):
            assert (await many.get(f"/v1/budgets?{wrong}")).status == 400

    async def test_simulate_judges_what_was_asked(self, shield):
        for _ in range(4):
            await shield.get("/spend?amount=100")
        tight = 'budgets: [{name: tight, scope: "*", limit: "200", window: 60s}]'
        found = await shield.post("/v1/policies:simulate", {"policy": tight, "since": "2027-01-15T00:00:00Z"})
        assert found.status == 200
        assert (found.json["admitted"], found.json["refused"], found.json["newly_refused"]) == (2, 2, 2)
        assert (await shield.get("/spend?amount=100")).status == 200, "a simulation changes nothing"
        broken = await shield.post("/v1/policies:simulate", {"policy": "budgets: [{limit: x}]"})
        assert (broken.status, broken.json["code"]) == (400, "policy_invalid")
        assert len(broken.json["problems"]) > 1
        assert (await shield.post("/v1/policies:simulate", {"policy": tight, "since": "yesterday"})).status == 400

    async def test_a_large_policy_holds_nobody_up(self, shield, monkeypatch):
        """While somebody's megabyte of YAML is read, others spend."""
        reading, go_on = threading.Event(), threading.Event()

        def read(*given):
            reading.set()
            assert go_on.wait(60)
            return parse_policy(*given)

        monkeypatch.setattr("kiki.shield.service.parse_policy", read)
        large = "budgets:\n" + "".join(
            f"  - {{name: b{n}, scope: 'k:{n}', limit: '1', window: 1s}}\n" for n in range(15_000)
        )
        simulating = asyncio.ensure_future(shield.post("/v1/policies:simulate", {"policy": large}))
        await asyncio.to_thread(reading.wait, 60)
        for _ in range(3):
            assert (await shield.get("/spend?amount=0.01")).status == 200
        go_on.set()
        while not simulating.done():
            assert (await shield.get("/spend?amount=0.01")).status == 200
        assert (await simulating).status == 400

    async def test_decisions_are_paged_to_the_end(self, shield):
        """Following `next` gives every decision once, in order, batches included."""
        for _ in range(3):
            await shield.post("/v1/spends:batch", {"amounts": ["60"] * 4})
        ids, after = [], ""
        while True:
            page = (await shield.get(f"/v1/decisions?limit=5{after}")).json
            ids += [row["event_id"] for row in page["decisions"]]
            if page["next"] is None:
                break
            assert len(page["decisions"]) <= 5
            after = f"&after={page['next']}"
        assert ids == [row.event_id for row in shield.rows()]
        assert len(ids) == 12
        denied = (await shield.get("/v1/decisions?outcome=denied")).json["decisions"]
        assert [row["outcome"] for row in denied] == ["DENIED"] * 4
        one = await shield.get(f"/v1/decisions/{ids[4]}")
        assert (one.status, one.json["event_id"]) == (200, ids[4])
        assert (await shield.get("/v1/decisions/00000000ffff0000")).status == 404
        assert (await shield.get("/v1/decisions/nonsense")).status == 400
        for wrong in ("limit=0", "limit=1001", "after=x", "since=x", "outcome=MAYBE", "scope=x", "cursor=1"):
            assert (await shield.get(f"/v1/decisions?{wrong}")).status == 400

    async def test_decisions_by_time_and_scope(self, many):
        await many.post("/v1/spends", {"amount": "1", "scopes": {"campaign": "a"}})
        many.clock.move(10)
        await many.post("/v1/spends", {"amount": "2", "scopes": {"campaign": "b"}})
        amounts = {
            query: [row["amount"] for row in (await many.get(f"/v1/decisions?{query}")).json["decisions"]]
            for query in ("since=2027-01-15T08:00:05Z", "until=2027-01-15T08:00:05Z", "scope=campaign:b", "since=2027-01-15T09:00:05%2B01:00")
        }  # fmt: skip
        assert [*amounts.values()] == [["2.00"], ["1.00"], ["2.00"], ["2.00"]]

    async def test_a_customer_is_a_reference_everywhere(self, many):
        """The name goes in, and neither the audit, the budgets, the metrics nor the holds give it back."""
        name = "jane.doe@example.org"
        await many.post("/v1/spends", {"amount": "15", "scopes": {"customer": name}})
        await many.post("/v1/reservations", {"amount": "1", "scopes": {"customer": name}})
        refused = await many.post("/v1/spends", {"amount": "15", "scopes": {"customer": name}})
        assert (refused.status, refused.json["budget"]) == (403, "people")
        plain = await many.get(f"/spend?amount=15&scope=customer:{name}")
        paths = ("/v1/decisions", "/v1/budgets", "/v1/reservations", "/metrics", "/readyz", "/health")
        texts = [refused.text, plain.text, *[(await many.get(path)).text for path in paths]]
        assert not [text for text in texts if "jane" in text]
        reference = many.rows()[0].customer
        assert re.fullmatch("[0-9a-f]{32}", reference)
        found = (await many.get(f"/v1/decisions?scope=customer:{reference}")).json["decisions"]
        assert len(found) == 4
        by_name = await many.get(f"/v1/decisions?scope=customer:{name}")
        assert by_name.status == 400


KEY_65K = "k" * 65_000
BODIES = {
    "NaN": b'{"amount": NaN}',
    "NaN as text": b'{"amount": "NaN"}',
    "Infinity": b'{"amount": Infinity}',
    "-Infinity as text": b'{"amount": "-Infinity"}',
    "1e400": b'{"amount": 1e400}',
    "1e400 as text": b'{"amount": "1e400"}',
    "1e-7": b'{"amount": 1e-7}',
    "1e999999999": b'{"amount": 1e999999999}',
    "a long exponent": b'{"amount": 1e' + b"9" * 100 + b"}",
    "negative": b'{"amount": "-1"}',
    "a negative number": b'{"amount": -1}',
    "zero": b'{"amount": "0"}',
    "zero with decimals": b'{"amount": 0.00}',
    "minus zero": b'{"amount": -0.0}',
    "seven decimals": b'{"amount": "1.0000001"}',
    "a number with seven decimals": b'{"amount": 1.0000001}',
    "empty": b'{"amount": ""}',
    "missing": b"{}",
    "past int64": b'{"amount": "9223372036854.775808"}',
    "a number past int64": b'{"amount": 9223372036854775808}',
    "a number of thousands of digits": b'{"amount": ' + b"9" * 5000 + b"}",
    "true": b'{"amount": true}',
    "null": b'{"amount": null}',
    "a list": b'{"amount": ["1"]}',
    "spaces": b'{"amount": " 1"}',
    "a plus": b'{"amount": "+1"}',
    "other digits": '{"amount": "١٢"}'.encode(),
    "a comma": b'{"amount": "1,5"}',
    "no JSON": b"{amount: 1}",
    "a JSON list": b"[]",
    "a lone text": b'"1"',
    "two documents": b'{"amount": "1"} {}',
    "deep": b'{"scopes": ' * 5000,
    "invalid UTF-8": b'{"amount": "1", "key": "\xff"}',
    "UTF-16": '{"amount": "1"}'.encode("utf-16"),
    "half a surrogate pair": b'{"amount": "1", "key": "\\ud800"}',
    "a NUL in the key": b'{"amount": "1", "key": "a\\u0000b"}',
    "a duplicate key": b'{"amount": "1", "amount": "2"}',
    "a duplicate key inside": b'{"amount": "1", "scopes": {"platform": "a", "platform": "b"}}',
    "another currency": b'{"amount": "1", "currency": "EUR"}',
    "a currency in lower case": b'{"amount": "1", "currency": "usd"}',
    "no currency": b'{"amount": "1", "currency": null}',
    "a scope without a value": b'{"amount": "1", "scopes": {"platform": ""}}',
    "a scope of capitals": b'{"amount": "1", "scopes": {"Platform": "a"}}',
    "a scope that means each": b'{"amount": "1", "scopes": {"campaign": "*"}}',
    "a scope as text": b'{"amount": "1", "scopes": "platform:meta"}',
    "a scope as a list": b'{"amount": "1", "scopes": ["platform:meta"]}',
    "nine scopes": json.dumps({"amount": "1", "scopes": {f"k{n}": "v" for n in range(9)}}).encode(),
    "a long scope": json.dumps({"amount": "1", "scopes": {"platform": "v" * 129}}).encode(),
    "a number as a scope": b'{"amount": "1", "scopes": {"platform": 5}}',
    "a key of 65 kB": json.dumps({"amount": "1", "key": KEY_65K}).encode(),
    "an empty key": b'{"amount": "1", "key": ""}',
    "a number as a key": b'{"amount": "1", "key": 5}',
    "an unknown member": b'{"amount": "1", "scope": {"platform": "meta"}}',
}  # fmt: skip
QUERIES = {
    "NaN": "amount=NaN",
    "Inf": "amount=Inf",
    "1e400": "amount=1e400",
    "negative": "amount=-1",
    "zero": "amount=0",
    "zeros": "amount=0.000000",
    "seven decimals": "amount=1.0000001",
    "empty": "amount=",
    "missing": "",
    "no value": "amount",
    "past int64": "amount=9223372036854.775808",
    "a plus": "amount=%2B1",
    "a space": "amount=1+",
    "hexadecimal": "amount=0x10",
    "an underscore": "amount=1_0",
    "invalid UTF-8": "amount=%FF",
    "invalid UTF-8 in a name": "amount=1&%FF=1",
    "a broken escape": "amount=1%2",
    "twice": "amount=1&amount=1",
    "another currency": "amount=1&currency=EUR",
    "a scope without a kind": "amount=1&scope=meta",
    "an empty scope": "amount=1&scope=",
    "one kind twice": "amount=1&scope=platform:a&scope=platform:b",
    "an unknown parameter": "amount=1&scopes=platform:meta",
    "a parameter in capitals": "Amount=1",
    "a key in the query": "amount=1&key=a",
    "a long value": "amount=1&scope=platform:" + "v" * 4000,
}


def no_trace(shield: Served, verb: str = "spend") -> None:
    """Nothing was charged, and the audit holds exactly one row: DENIED, without anything that was sent."""
    assert shield.spent() == 0
    (row,) = shield.rows()
    assert (row.verb, row.outcome, row.reason_code, row.amount, row.scopes) == (
        verb,
        "DENIED",
        "invalid_input",
        None,
        [],
    )


class TestBadInput:
    @pytest.mark.parametrize("path", ["/spend", "/v1/spends"])
    async def test_in_a_body(self, serve, path):
        """400 with a sentence, nothing charged, one row in the audit: for every way to write a spend wrongly."""
        wrong = {}
        shield = await serve()
        for name, body in BODIES.items():
            before = len(shield.rows())
            answer = await shield.post(path, data=body, headers={"Content-Type": "application/json"})
            text = answer.json["detail"] if path.startswith("/v1") else answer.text
            rows = shield.rows()[before:]
            held = [(row.verb, row.outcome, row.reason_code, row.amount, row.scopes) for row in rows]
            if (
                answer.status != 400
                or not 15 < len(text) < 400
                or held != [("spend", "DENIED", "invalid_input", None, [])]
                or answer.kind != ("application/problem+json" if path.startswith("/v1") else "text/plain")
            ):
                wrong[name] = (answer.status, text, held)
        assert wrong == {}
        assert shield.spent() == 0

    async def test_in_a_query(self, shield):
        wrong = {}
        for name, query in QUERIES.items():
            before = len(shield.rows())
            status, body = await shield.raw(f"GET /spend?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            held = [(row.verb, row.outcome, row.reason_code) for row in shield.rows()[before:]]
            if status != 400 or not 15 < len(body) < 400 or held != [("spend", "DENIED", "invalid_input")]:
                wrong[name] = (status, body, held)
        assert wrong == {}
        assert shield.spent() == 0

    async def test_bytes_that_are_no_utf8_in_a_query(self, shield):
        status, _ = await shield.raw(b"GET /spend?amount=1&scope=platform:\xff HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status == 400
        assert shield.spent() == 0

    @pytest.mark.parametrize(
        "path", ["/spend", "/check", "/v1/spends", "/v1/spends:batch", "/v1/checks", "/v1/reservations"]
    )
    async def test_a_body_of_10_mb(self, shield, path):
        """413 before it is read, one row DENIED."""
        body = b'{"amount": "1", "key": "' + b"k" * 10_000_000 + b'"}'
        answer = await shield.post(path, data=BytesIO(body), headers={"Content-Type": "application/json"})
        assert answer.status == 413
        assert "1048576" in answer.text
        no_trace(shield, "check" if "check" in path else "reserve" if "reservations" in path else "spend")

    async def test_a_body_of_10_mb_without_a_length(self, shield):
        """Chunked, so that no header announces its size."""

        async def chunks():
            yield b'{"amount": "1", "key": "'
            for _ in range(160):
                yield b"k" * 65_536

        answer = await shield.post("/v1/spends", data=chunks(), headers={"Content-Type": "application/json"})
        assert answer.status == 413
        no_trace(shield)

    @pytest.mark.parametrize(
        "kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"]
    )
    async def test_a_body_of_another_type(self, shield, kind):
        """A form, which other sites' pages can send without asking, is 415."""
        head = f"Content-Type: {kind}\r\n" if kind else ""
        request = f'POST /spend HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: 15\r\n\r\n{{"amount": "1"}}'
        status, body = await shield.raw(request.encode())
        assert status == 415
        assert b"application/json" in body
        no_trace(shield)

    async def test_a_body_that_does_not_arrive(self, serve):
        """408 after the configured time, and the row that every request for a decision leaves."""
        shield = await serve(KIKI_REQUEST_SECONDS_MAX="0.2")
        head = b"POST /v1/spends HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
        status, body = await shield.raw(head + b'{"amount"')
        assert (status, json.loads(body)["code"]) == (408, "body_late")
        no_trace(shield)

    async def test_a_body_that_is_compressed(self, shield):
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        assert (await shield.post("/v1/spends", data=b"\x1f\x8b", headers=headers)).status == 415
        no_trace(shield)

    async def test_a_key_of_8_kb_in_the_header(self, shield):
        answer = await shield.get("/spend?amount=1", headers={"Idempotency-Key": "k" * 8000})
        assert answer.status == 400
        assert "1 to 255" in answer.text
        no_trace(shield)

    async def test_a_key_of_65_kb_in_the_header_charges_nothing(self, shield):
        request = f"GET /spend?amount=1 HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: {KEY_65K}\r\n\r\n"
        status, _ = await shield.raw(request.encode())
        assert status == 400
        assert shield.spent() == 0
        no_trace(shield)

    async def test_an_empty_key_in_the_header(self, shield):
        """A variable that was not set is a mistake, not a call without a key."""
        answer = await shield.get("/spend?amount=1", headers={"Idempotency-Key": ""})
        assert answer.status == 400
        no_trace(shield)

    @pytest.mark.parametrize("path", ["/v1/checks", "/v1/records", "/v1/reservations", "/v1/spends:batch"])
    async def test_every_verb_leaves_its_row(self, shield, path):
        answer = await shield.post(path, {"nonsense": 1})
        assert (answer.status, answer.kind) == (400, "application/problem+json")
        (row,) = shield.rows()
        assert (row.verb in path or row.verb in {"reserve", "spend"}, row.outcome) == (True, "DENIED")

    async def test_a_misspelt_member_is_told_the_right_one(self, shield):
        answer = await shield.post("/v1/spends", {"amount": "1", "scope": {"platform": "meta"}})
        assert "did you mean 'scopes'" in answer.json["detail"]

    async def test_what_was_sent_is_not_kept(self, shield):
        """A name in a request that cannot be read is in no row."""
        await shield.post("/v1/spends", {"amount": "x", "scopes": {"customer": "jane@example.org"}})
        assert "jane" not in (await shield.get("/v1/decisions")).text

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/", 404), ("GET", "/spends", 404), ("GET", "/spend/", 404), ("GET", "/v1", 404), ("POST", "/v2/spends", 404),
            ("PUT", "/spend", 405), ("DELETE", "/spend", 405), ("PATCH", "/check", 405), ("OPTIONS", "/spend", 405),
            ("GET", "/v1/spends", 405), ("POST", "/v1/budgets", 405), ("PUT", "/v1/halts", 405), ("POST", "/health", 405),
        ],
    )  # fmt: skip
    async def test_unknown_routes_and_methods(self, shield, method, path, status):
        answer = await shield.ask(method, path)
        assert answer.status == status
        assert ("Allow" in answer.headers) is (status == 405)
        is_guide = path in {"/spend", "/check", "/spends", "/spend/"}
        if is_guide or path.startswith("/v1/"):
            assert answer.kind == ("text/plain" if is_guide else "application/problem+json")
        assert shield.rows() == []


# Route, what a token needs, and whether it is open inside although there is a token file.
GUIDE = [("GET", "/spend?amount=1", "spend"), ("GET", "/check?ltv=600", "spend"), ("GET", "/health", "read"), ("GET", "/metrics", "read"), ("GET", "/openapi.json", "read")]  # fmt: skip
CLOSED = [
    ("POST", "/v1/spends", "spend"), ("POST", "/v1/spends:batch", "spend"), ("POST", "/v1/checks", "spend"),
    ("POST", "/v1/records", "spend"), ("POST", "/v1/reservations", "spend"), ("GET", "/v1/reservations", "read"),
    ("POST", f"/v1/reservations/{'0' * 32}/commit", "spend"), ("POST", f"/v1/reservations/{'0' * 32}/release", "spend"),
    ("GET", "/v1/budgets", "read"), ("GET", "/v1/halts", "read"), ("POST", "/v1/halts", "admin"),
    ("DELETE", "/v1/halts?pattern=*", "admin"), ("POST", "/v1/policies:simulate", "read"), ("GET", "/v1/decisions", "read"),
    ("GET", "/v1/decisions/0000000000000000", "read"),
]  # fmt: skip


class TestWhoMay:
    async def test_routes_roles_and_ports(self, serve):
        """Outside, every route but the probes wants a token with its role; inside, the guide's routes stay open."""
        shield = await serve(tokens=TOKENS, KIKI_PUBLIC_PORT="0", KIKI_TOKENS_FILE="tokens.yaml", KIKI_PUBLIC_RATE="0")
        wrong = []
        for method, path, role in GUIDE + CLOSED:
            for public in (False, True):
                is_open = not public and (method, path, role) in GUIDE
                for who in (None, "nobody", *ROLES):
                    headers = {} if who is None else bearer(who)
                    status = (await shield.ask(method, path, public=public, headers=headers)).status
                    admitted = status not in {401, 403}
                    expected = who == role or (is_open and who != "nobody")
                    refused = 401 if who in {None, "nobody"} else 403
                    if admitted != expected or (not admitted and status != refused):
                        wrong.append((method, path, public, who, status))
        assert wrong == []

    async def test_probes_are_open_inside_and_want_any_token_outside(self, serve):
        shield = await serve(tokens=TOKENS, KIKI_PUBLIC_PORT="0", KIKI_TOKENS_FILE="tokens.yaml")
        for path in ("/livez", "/readyz"):
            assert (await shield.get(path)).status == 200
            assert (await shield.get(path, public=True)).status == 401
            assert (await shield.get(path, public=True, headers=bearer("privacy"))).status == 200

    async def test_outside_a_stranger_does_not_learn_what_exists(self, serve):
        shield = await serve(tokens=TOKENS, KIKI_PUBLIC_PORT="0", KIKI_TOKENS_FILE="tokens.yaml")
        for method, path in (("GET", "/nothing"), ("PUT", "/spend"), ("GET", "/v1/spends")):
            answer = await shield.ask(method, path, public=True)
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")

    async def test_without_a_token_file_everything_is_open_inside(self, shield):
        for method, path, _ in GUIDE + CLOSED:
            assert (await shield.ask(method, path)).status not in {401, 403}

    async def test_the_audit_names_who_asked(self, serve):
        shield = await serve(tokens=TOKENS)
        await shield.post("/v1/spends", {"amount": "1"}, headers=bearer("spend"))
        await shield.post("/v1/spends", {"amount": "x"}, headers=bearer("spend"))
        await shield.get("/spend?amount=1")
        assert [row.actor for row in shield.rows()] == ["spend-er", "spend-er", ""]

    @pytest.mark.parametrize(
        "headers",
        [
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
        ],
    )
    async def test_another_sites_page_cannot_spend(self, shield, headers):
        for method, path in (
            ("GET", "/spend?amount=1"),
            ("POST", "/spend?amount=1"),
            ("GET", "/check?ltv=600"),
            ("POST", "/v1/halts"),
        ):
            assert (await shield.ask(method, path, headers=headers)).status == 403
        assert shield.spent() == 0

    async def test_the_pages_of_this_very_address_can(self, shield):
        host = shield.url.removeprefix("http://")
        for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": f"http://{host}"}):
            assert (await shield.get("/spend?amount=1", headers=headers)).status == 200

    async def test_hosts(self, serve):
        """On the loopback only its own names are answered (a page may rebind a name of its own); else those listed."""
        shield = await serve()
        for host, status in (
            ("evil.example", 421),
            ("localhost", 200),
            ("127.0.0.1:8081", 200),
            ("[::1]", 200),
            ("localhost.evil.example", 421),
        ):
            assert (await shield.get("/spend?amount=1", headers={"Host": host})).status == status
        assert shield.spent() == 3 * UNIT
        listed = await serve(KIKI_ALLOWED_HOSTS="shield.kiki.io,localhost")
        for host, status in (("shield.kiki.io", 200), ("SHIELD.kiki.io:443", 200), ("127.0.0.1", 421)):
            assert (await listed.get("/spend?amount=1", headers={"Host": host})).status == status

    async def test_no_rate_limit_unless_it_is_configured(self, serve):
        shield, limited = await serve(), await serve(KIKI_RATE="1")
        assert {(await shield.get("/check?ltv=600")).status for _ in range(50)} == {200}
        answers = [await limited.get("/check?ltv=600") for _ in range(50)]
        refused = [answer for answer in answers if answer.status == 429]
        assert len(refused) > 20
        assert refused[0].headers["Retry-After"] == "1"
        assert (await limited.get("/readyz")).status == 200


class TestMetrics:
    async def test_numbers_and_nothing_personal(self, many):
        await many.get("/spend?amount=10&scope=campaign:summer")
        await many.get("/spend?amount=10&scope=customer:jane@example.org", headers={"Idempotency-Key": "secret-key"})
        await many.get("/spend?amount=1000")
        await many.get("/spend?amount=nonsense-in-a-query")
        await many.get("/nothing-of-the-kind?customer_id=jane")
        text = (await many.get("/metrics")).text
        assert 'kiki_shield_decisions_total{outcome="admitted",verb="spend"} 2.0' in text
        assert 'kiki_shield_decisions_total{outcome="above_limit",verb="spend"} 1.0' in text
        assert 'kiki_shield_decisions_total{outcome="invalid_input",verb="spend"} 1.0' in text
        assert 'kiki_shield_budget_spent{budget="default",scope="*",window="60s"} 20.0' in text
        assert 'scope="campaign:summer"' in text
        for gauge in ("ledger_ok 1.0", "window_ready 1.0", "open_holds 0.0", "idempotency_keys 1.0"):
            assert f"kiki_shield_{gauge}" in text
        for secret in ("jane", "secret-key", "customer", "nonsense", "nothing-of-the-kind", "amount="):
            assert secret not in text

    async def test_a_crowd_of_customers_hides_no_budget(self, serve, tmp_path):
        """However many persons have a budget of their own, and wherever it stands in the policy, the others are shown."""
        lines = POLICY.splitlines()
        (tmp_path / "policy.yaml").write_text("\n".join([*lines[:3], lines[5], *lines[3:5]]))
        shield = await serve(policy=tmp_path / "policy.yaml")
        people = [{"amount": "0.01", "scopes": {"customer": f"c{number}"}} for number in range(200)]
        assert (await shield.post("/v1/spends:batch", {"spends": people})).json["admitted"] == 200
        text = (await shield.get("/metrics")).text
        assert 'kiki_shield_budget_spent{budget="default",scope="*",window="60s"} 2.0' in text
        assert "customer" not in text

    async def test_a_repeat_is_not_counted_again(self, shield):
        for _ in range(3):
            await shield.post("/v1/spends", {"amount": "1", "key": "k"})
        assert 'kiki_shield_decisions_total{outcome="admitted",verb="spend"} 1.0' in (await shield.get("/metrics")).text


class Disk:
    """A disk that can be full: then every commit of a store on it needs a page that SQLite may not have."""

    def __init__(self, monkeypatch) -> None:
        self.full: set[str] = set()
        commit = SqliteStore.commit

        def on_disk(store, entries, writes=()):
            if store.path.name not in self.full:
                store._write.pragma("max_page_count", 2**30)
                return commit(store, entries, writes)
            store._write.pragma("max_page_count", store._write.pragma("page_count"))
            return commit(store, entries, [*writes, Write("filler", b"", bytes(100_000))])

        monkeypatch.setattr(SqliteStore, "commit", on_disk)


class TestLedgerFails:
    @pytest.fixture
    def disk(self, monkeypatch):
        return Disk(monkeypatch)

    @pytest.fixture
    async def shield(self, serve, tmp_path, disk):
        """A shield with its ledger on that disk."""
        return await serve(tmp_path / "shield.db")

    async def test_everything_is_refused_and_readyz_names_the_ledger(self, shield, disk):
        hold = (await shield.post("/v1/reservations", {"amount": "1"})).json["id"]
        before = shield.rows()
        disk.full.add("shield.db")
        for method, path, body in (
            ("GET", "/spend?amount=1", None), ("GET", "/check?ltv=600", None), ("POST", "/v1/spends", {"amount": "1"}),
            ("POST", "/v1/spends:batch", {"amounts": ["1"]}), ("POST", "/v1/checks", {"amount": "1"}),
            ("POST", "/v1/records", {"amount": "1"}), ("POST", "/v1/reservations", {"amount": "1"}),
            ("POST", f"/v1/reservations/{hold}/commit", {"amount": "1"}), ("POST", f"/v1/reservations/{hold}/release", None),
            ("POST", "/v1/halts", {"pattern": "*"}), ("DELETE", "/v1/halts?pattern=*", None), ("GET", "/spend?amount=nonsense", None),
        ):  # fmt: skip
            answer = await shield.ask(method, path, **({} if body is None else {"json": body}))
            assert (answer.status, "Retry-After" in answer.headers) == (503, True), path
        assert shield.rows() == before, "what was refused with 503 is not in the ledger"
        ready = await shield.get("/readyz")
        assert ready.status == 503
        checks = {check["name"]: check["ok"] for check in ready.json["checks"]}
        assert {"ledger": False, "keys": True, "window": True} == checks
        assert "full" in next(check["detail"] for check in ready.json["checks"] if check["name"] == "ledger")
        health = await shield.get("/health")
        assert (health.status, health.json["gdpr_compliant"]) == (200, False)
        assert "kiki_shield_ledger_ok 0.0" in (await shield.get("/metrics")).text

    async def test_looking_still_works(self, shield, disk):
        disk.full.add("shield.db")
        assert (await shield.get("/spend?amount=1")).status == 503
        for path in ("/v1/budgets", "/v1/decisions", "/v1/halts", "/v1/reservations"):
            assert (await shield.get(path)).status == 200

    async def test_while_the_disk_is_full_it_stays_down(self, shield, disk):
        """It goes on trying, and recovery proves itself by a write: a disk that only reads is no recovery."""
        disk.full.add("shield.db")
        assert (await shield.get("/spend?amount=1")).status == 503
        for _ in range(3):
            with pytest.raises(LedgerUnavailable):
                shield.guard.decider.tick()
            assert (await shield.get("/spend?amount=1")).status == 503
            assert (await shield.get("/readyz")).status == 503

    async def test_it_comes_back_by_itself_when_there_is_space(self, shield, disk):
        disk.full.add("shield.db")
        assert (await shield.get("/spend?amount=1")).status == 503
        disk.full.clear()
        for _ in range(1200):
            if (await shield.get("/readyz")).status == 200:
                break
            await asyncio.sleep(0.05)
        assert (await shield.get("/readyz")).status == 200
        assert (await shield.get("/spend?amount=1")).status == 200

    async def test_what_may_be_durable_stays_counted(self, shield, disk):
        """A spend that was answered 503 keeps its room until it is known that it was not written."""
        assert (await shield.get("/spend?amount=200")).status == 200
        disk.full.add("shield.db")
        assert (await shield.get("/spend?amount=300")).status == 503
        assert shield.spent() == 500 * UNIT
        disk.full.clear()
        shield.guard.decider.tick()
        assert shield.spent() == sum(row.amount for row in shield.rows() if row.outcome == "APPROVED")
        for _ in range(10):
            await shield.get("/spend?amount=100")
        assert sum(row.amount for row in shield.rows() if row.outcome == "APPROVED") == 500 * UNIT

    async def test_a_spend_that_was_durable_after_all_counts_after_recovery(self, shield, monkeypatch):
        """The commit is carried out, its answer is lost: 503, and then neither forgotten nor taken twice with its key."""
        store = shield.guard.decider.ledger.store
        commit = SqliteStore.commit

        def lost_answer(self, entries, writes=()):
            commit(self, entries, writes)
            if entries:  # not the key store's
                error = LedgerUnavailable("the answer was lost")
                error.recoverable = True
                raise error

        with monkeypatch.context() as patch:
            patch.setattr(SqliteStore, "commit", lost_answer)
            assert (await shield.post("/v1/spends", {"amount": "400", "key": "k"})).status == 503
        assert store is shield.guard.decider.ledger.store
        shield.guard.decider.tick()
        assert shield.spent() == 400 * UNIT
        again = await shield.post("/v1/spends", {"amount": "400", "key": "k"})
        assert (again.status, again.headers.get("Idempotency-Replayed")) == (200, "true")
        assert (await shield.get("/spend?amount=101")).status == 403
        assert (await shield.get("/spend?amount=100")).status == 200

    async def test_a_keyed_spend_that_got_503_can_be_sent_again(self, shield, disk):
        """The same key is not stuck: once there is space, it is decided, and then it repeats."""
        disk.full.add("shield.db")
        assert (await shield.post("/v1/spends", {"amount": "1", "key": "k"})).status == 503
        disk.full.clear()
        shield.guard.decider.tick()
        first = await shield.post("/v1/spends", {"amount": "1", "key": "k"})
        assert (first.status, first.headers.get("Idempotency-Replayed")) == (200, None)
        assert (await shield.post("/v1/spends", {"amount": "1", "key": "k"})).body == first.body
        assert shield.spent() == UNIT

    @pytest.mark.parametrize("seconds", [None, 60])
    async def test_a_commit_that_got_503_can_be_sent_again(self, shield, disk, tmp_path, seconds):
        """The reservation is still there, is settled once, and a restart counts the same."""
        body = {"amount": "400"} if seconds is None else {"amount": "400", "seconds": seconds}
        hold = (await shield.post("/v1/reservations", body)).json["id"]
        disk.full.add("shield.db")
        assert (await shield.post(f"/v1/reservations/{hold}/commit", {"amount": "390"})).status == 503
        disk.full.clear()
        shield.guard.decider.tick()
        assert shield.spent() == 400 * UNIT
        done = await shield.post(f"/v1/reservations/{hold}/commit", {"amount": "390"})
        assert (done.status, done.json["charged"], done.json["late"]) == (200, "390.00", False)
        assert shield.spent() == 390 * UNIT
        shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("copy", "*.lock", "*-shm"))
        with BudgetGuard.open(tmp_path / "copy" / "shield.db", limit="500", clock=shield.clock) as guard:
            assert [status.spent + status.held for status in guard.status()] == [390 * UNIT]

    async def test_a_halt_that_got_503_is_on_only_when_it_says_so(self, shield, disk):
        """After recovery the switch stands as the ledger says."""
        disk.full.add("shield.db")
        assert (await shield.post("/v1/halts", {"pattern": "*"})).status == 503
        disk.full.clear()
        shield.guard.decider.tick()
        assert (await shield.get("/v1/halts")).json == {"halts": []}
        assert (await shield.get("/spend?amount=1")).status == 200

    async def test_the_directory_of_persons_fails(self, shield, disk):
        """Without a reference nothing about a person can be written down: that spend is refused, and it comes back."""
        disk.full.add("shield-subjects.db")
        first = await shield.post("/v1/spends", {"amount": "10", "scopes": {"customer": "jane"}})
        assert first.status == 503
        assert shield.rows() == []
        disk.full.clear()
        for _ in range(3):
            shield.guard.decider.tick()
        again = await shield.post("/v1/spends", {"amount": "10", "scopes": {"customer": "jane"}})
        assert again.status == 200
        (row,) = shield.rows()
        assert re.fullmatch("[0-9a-f]{32}", row.customer)

    async def test_an_error_that_is_no_full_disk_stops_for_good(self, shield, monkeypatch):
        """A failed sync leaves the pages unknown: only a new process may look at the disk again."""

        def unsynced(store, entries, writes=()):
            raise _translated(apsw.IOError("disk I/O error"), store.path)

        with monkeypatch.context() as patch:
            patch.setattr(SqliteStore, "commit", unsynced)
            assert (await shield.get("/spend?amount=1")).status == 503
        shield.guard.decider.tick()
        assert (await shield.get("/spend?amount=1")).status == 503
        assert (await shield.get("/readyz")).status == 503


class TestReload:
    async def test_a_policy_takes_effect_and_a_broken_one_does_not(self, serve, tmp_path, caplog):
        """What was spent counts under the new policy; a broken one is refused whole, and the log says why."""
        path = tmp_path / "policy.yaml"
        path.write_text(POLICY)
        shield = await serve(policy=path, service={"read_policy": lambda: read_policy(path)})
        assert (await shield.get("/spend?amount=400")).status == 200
        path.write_text(POLICY.replace('"500"', '"450"'))
        await shield.service.on_reload()
        assert (await shield.get("/spend?amount=51")).status == 403
        path.write_text(POLICY.replace('"500"', '"9000"').replace("1h", "1x"))
        with caplog.at_level("ERROR"):
            await shield.service.on_reload()
        assert any("policy.yaml:6" in str(record.fields) for record in caplog.records)
        assert (await shield.get("/spend?amount=51")).status == 403
        assert (await shield.get("/spend?amount=50")).status == 200

    async def test_a_policy_that_cannot_be_written_down_is_not_in_force(self, serve, tmp_path, monkeypatch):
        """While the ledger fails, the old policy decides, before and after it comes back."""
        disk, path = Disk(monkeypatch), tmp_path / "policy.yaml"
        path.write_text(POLICY)
        shield = await serve(tmp_path / "shield.db", policy=path, service={"read_policy": lambda: read_policy(path)})
        path.write_text(POLICY.replace('"500"', '"9000"'))
        disk.full.add("shield.db")
        await shield.service.on_reload()
        disk.full.clear()
        shield.guard.decider.tick()
        limits = [each["limit"] for each in (await shield.get("/v1/budgets?budget=default")).json["budgets"]]
        assert (await shield.get("/spend?amount=501")).status == 403
        assert limits in ([], ["500.00"])
        await shield.service.on_reload()
        assert (await shield.get("/spend?amount=501")).status == 200

    async def test_without_a_policy_file_nothing_changes(self, shield):
        await shield.service.on_reload()
        assert (await shield.get("/spend?amount=500")).status == 200
