"""The compliance report over HTTP: the original's members with numbers that were counted, and the register of breaches."""

from __future__ import annotations

import asyncio

import pytest

from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.evidence import export
from kiki.shield.privacy_service import Deployment
from tests.shield.served import TOKENS, bearer, served

ORIGINAL = (
    *("generated_at", "period", "total_events", "security_events", "consent_changes", "data_deletions"),
    *("data_access_requests", "data_breaches", "compliance_score", "frameworks", "findings", "recommendations"),
)


@pytest.fixture
async def shield():
    async with served(BudgetGuard.open(limit="500")) as found:
        yield found


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_the_originals_route_answers_the_originals_members_to_any_method(shield, method):
    answer = await shield.ask(method, "/compliance/report")
    assert (200, "application/json") == (answer.status, answer.kind)
    assert ORIGINAL == tuple(answer.json)[: len(ORIGINAL)]
    assert ("monthly", ["GDPR", "CCPA", "ISO 27001"]) == (answer.json["period"], answer.json["frameworks"])
    assert {int} == {type(answer.json[name]) for name in ORIGINAL if name.startswith(("total", "data", "security"))}


async def test_its_numbers_are_those_of_the_ledger(shield):
    before = (await shield.get("/compliance/report")).json
    await shield.get("/spend?amount=100")
    await shield.get("/spend?amount=1000")
    await shield.post("/v1/spends:batch", {"amounts": ["1", "2", "3"]})
    await shield.post("/consent/grant?customer_id=c&type=marketing")
    await shield.post("/consent/revoke?customer_id=c&type=marketing")
    await shield.post("/v1/halts", {"pattern": "platform:meta"})
    await shield.post("/v1/breaches", {"reference": "INC-1"})
    after = (await shield.get("/compliance/report")).json
    changed = {name: after[name] - before[name] for name in ORIGINAL if isinstance(after[name], int)}
    assert {
        "total_events": 9,
        "security_events": 2,
        "consent_changes": 2,
        "data_deletions": 0,
        "data_access_requests": 0,
        "data_breaches": 1,
    } == changed
    assert [(4, 1)] == [(each["approved"], each["denied"]) for each in after["decisions"] if each["approved"]]
    (marketing,) = after["consents"]
    assert {"revoked": 1} == marketing["states"]
    written: list[str] = []
    export(shield.guard.decider.ledger.store, written.append, format="jsonl")
    assert after["total_events"] == "".join(written).count("\n")


@pytest.mark.parametrize("period", ["daily", "weekly", "monthly", "quarterly", "yearly"])
async def test_every_period_has_its_name(shield, period):
    for path in ("/compliance/report", "/v1/compliance/report"):
        assert period == (await shield.get(f"{path}?period={period}")).json["period"]
    assert period == (await shield.post("/compliance/report", {"period": period})).json["period"]


async def test_a_period_may_be_given_by_its_moments(shield):
    await shield.get("/spend?amount=1")
    answer = await shield.get("/v1/compliance/report?from=2001-01-01T00:00:00Z&to=2002-01-01T00:00:00Z")
    assert ("custom", 0, 365) == (answer.json["period"], answer.json["total_events"], len(answer.json["decisions"]))


@pytest.mark.parametrize(
    "query",
    [
        "period=hourly", "period=", "perod=daily", "from=x", "to=2026-01-01T00:00:00Z", "period=daily&period=weekly",
        "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from=1900-01-01T00:00:00Z",
        "from=2026-01-01T00:00:00Z&period=daily",
    ],
)  # fmt: skip
async def test_a_period_that_cannot_be(shield, query):
    answer = await shield.get(f"/compliance/report?{query}")
    assert (400, "text/plain") == (answer.status, answer.kind)
    assert 400 == (await shield.get(f"/v1/compliance/report?{query}")).status


async def test_the_score_is_that_of_the_probes_and_findings_of_those_that_passed(shield):
    found = (await shield.get("/compliance/report")).json
    ran = [each for each in found["probes"] if each["verdict"] != "skipped"]
    passed = [each for each in ran if each["verdict"] == "passed"]
    assert round(100 * len(passed) / len(ran), 1) == found["compliance_score"]
    assert len(passed) == len(found["findings"])
    assert len(ran) - len(passed) == len(found["recommendations"])


async def test_a_probe_that_fails_takes_its_finding_away(tmp_path):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    deployment = Deployment(data_dir=data, master_key_file=tmp_path / "keys" / "master.key")
    async with served(BudgetGuard.open(data / "shield.db", limit="1"), service={"deployment": deployment}) as shield:
        before = (await shield.get("/compliance/report")).json
        data.chmod(0o755)
        after = (await shield.get("/compliance/report")).json
    assert any("data directory is open to its owner only" in each for each in before["findings"])
    assert not any("data directory" in each for each in after["findings"])
    assert any("chmod 700" in each for each in after["recommendations"])
    assert after["compliance_score"] < before["compliance_score"]


async def test_deciding_goes_on_while_a_report_is_made(shield):
    for _ in range(5):
        await shield.post("/v1/spends:batch", {"amounts": ["0.000001"] * 1000})
    report = asyncio.create_task(shield.get("/compliance/report"))
    assert 200 == (await shield.get("/spend?amount=1")).status
    assert (await report).json["total_events"] >= 5000


async def test_a_breach_is_written_down_and_more_may_be_told(shield):
    first = await shield.post(
        "/v1/breaches", {"reference": "INC-1", "found_at": "2026-11-01T10:00:00Z", "affected": 12}
    )
    assert 201 == first.status
    assert ("INC-1", "2026-11-04T10:00:00.000000Z", 12) == (
        first.json["reference"],
        first.json["authority_due_at"],
        first.json["affected"],
    )
    more = {"reference": "INC-1", "found_at": "2026-11-01T10:00:00Z", "notified_at": "2026-11-02T10:00:00Z"}
    assert 201 == (await shield.post("/v1/breaches", more)).status
    found = (await shield.get("/compliance/report")).json
    assert (1, "2026-11-02T10:00:00.000000Z") == (found["data_breaches"], found["breaches"][0]["notified_at"])
    row = (await shield.get(f"/v1/decisions/{first.json['event_id']}")).json
    assert ("breach", "DECLARED", "INC-1") == (row["verb"], row["outcome"], row["resource"])


async def test_telling_more_about_a_breach_leaves_the_rest_as_it_was(shield):
    """Above all the 72 hours: they do not begin again with each thing that is told."""
    await shield.post("/v1/breaches", {"reference": "INC-1", "found_at": "2026-11-01T10:00:00Z", "affected": 12})
    await shield.post("/v1/breaches", {"reference": "INC-1", "notified_at": "2026-11-02T10:00:00Z"})
    last = (await shield.post("/v1/breaches", {"reference": "INC-1", "affected": 270})).json
    expected = ("2026-11-01T10:00:00.000000Z", "2026-11-04T10:00:00.000000Z", "2026-11-02T10:00:00.000000Z", 270)
    (reported,) = (await shield.get("/compliance/report")).json["breaches"]
    for found in (last, reported):
        assert expected == tuple(found[name] for name in ("found_at", "authority_due_at", "notified_at", "affected"))
    moved = await shield.post("/v1/breaches", {"reference": "INC-1", "found_at": "2026-10-31T10:00:00Z"})
    assert "2026-11-03T10:00:00.000000Z" == moved.json["authority_due_at"]
    other = (await shield.post("/v1/breaches", {"reference": "INC-2"})).json
    assert (other["declared_at"], None) == (other["found_at"], other.get("affected"))


@pytest.mark.parametrize(
    "body",
    [
        {}, {"reference": ""}, {"reference": 5}, {"reference": "x" * 65}, {"reference": "a\nb"},
        {"reference": "a", "affected": -1}, {"reference": "a", "affected": "many"}, {"reference": "a", "affected": True},
        {"reference": "a", "affected": None}, {"reference": "a", "found_at": "2999-01-01T00:00:00Z"},
        {"reference": "a", "notified_at": "2999-01-01T00:00:00Z"}, {"reference": "a", "found_at": "1901-01-01T00:00:00Z"},
        {"reference": "a", "found_at": "2026-02-01T00:00:00Z", "notified_at": "2026-01-01T00:00:00Z"},
        {"reference": "a", "person": "b"},
    ],
)  # fmt: skip
async def test_a_breach_that_cannot_be(shield, body):
    answer = await shield.post("/v1/breaches", body)
    assert (400, "application/problem+json") == (answer.status, answer.kind)
    assert 0 == (await shield.get("/compliance/report")).json["data_breaches"]


async def test_who_may_ask_and_declare():
    async with served(BudgetGuard.open(limit="1"), tokens=TOKENS, KIKI_PUBLIC_PORT="0", KIKI_TOKENS_FILE="t") as shield:
        assert 200 == (await shield.get("/compliance/report")).status
        assert 401 == (await shield.get("/compliance/report", public=True)).status
        assert 401 == (await shield.get("/v1/compliance/report")).status
        assert 403 == (await shield.get("/v1/compliance/report", headers=bearer("read"))).status
        assert 200 == (await shield.get("/v1/compliance/report", headers=bearer("privacy"))).status
        assert 403 == (await shield.post("/v1/breaches", {"reference": "a"}, headers=bearer("spend"))).status
