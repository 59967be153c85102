"""Evidence over HTTP: what is handed out is what the independent verifiers accept."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kiki.clock import SECOND, to_iso
from kiki.ledger.bundle_verifier import verify_bundle
from kiki.ledger.checkpoint import VerifierKey, open_note
from kiki.ledger.proof_verifier import verify_proof
from kiki.ledger.shipper import Lag
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.service import ShieldService
from tests.shield.served import TOKENS, bearer, served

START = 1_800_000_000 * SECOND


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def shield(clock):
    async with served(BudgetGuard.open(limit="500", clock=clock)) as found:
        yield found


def names_in(path: Path) -> set[str]:
    return {each.name for each in path.iterdir()}


async def key_of(shield) -> str:
    return (await shield.get("/v1/evidence")).json["verifier_key"]


async def test_where_the_ledger_stands(shield):
    ledger = shield.guard.decider.ledger
    await shield.get("/spend?amount=1")
    ledger.checkpoint()
    found = (await shield.get("/v1/evidence")).json
    assert (ledger.chain, 0, 3, None) == (found["chain"], found["first_seq"], found["next_seq"], found["archive"])
    assert (3, to_iso(START)) == (found["checkpoint"]["size"], found["checkpoint"]["at"])
    checkpoint, _ = open_note(found["checkpoint"]["note"].encode(), VerifierKey.parse(found["verifier_key"]))
    assert 3 == checkpoint.size


async def test_the_archives_lag_stands_there_where_there_is_one():
    shield = ShieldService(BudgetGuard.open(limit="1"))
    shield._privacy._evidence._lag = lambda: Lag(12.5, 2, 1, 0)
    found = shield._privacy._evidence._standing(shield._guard.decider.ledger)
    assert (12.5, 2, 1, 0) == (
        found.archive.oldest_seconds,
        found.archive.waiting,
        found.archive.failures,
        found.archive.set_aside,
    )


async def test_checkpoints_come_in_pages(shield, clock):
    ledger = shield.guard.decider.ledger
    sizes = set()
    for _ in range(5):
        await shield.get("/spend?amount=1")
        clock.now += SECOND
        ledger.checkpoint()
        sizes.add(ledger.next_seq)
    found, after = [], 0
    while after is not None:
        page = (await shield.get(f"/v1/evidence/checkpoints?after={after}&limit=2")).json
        found += [each["size"] for each in page["checkpoints"]]
        after = page["next"]
    assert sizes <= {*found}
    assert sorted(set(found)) == found
    for query in ("after=-1", "after=x", "after=" + "9" * 19, "limit=0", "limit=1001", "from=1"):
        assert 400 == (await shield.get(f"/v1/evidence/checkpoints?{query}")).status


async def test_every_event_has_a_proof_that_the_verifier_accepts(shield):
    key = await key_of(shield)
    for _ in range(3):
        await shield.post("/v1/spends:batch", {"amounts": ["1", "2"]})
    rows = (await shield.get("/v1/decisions")).json["decisions"]
    assert 6 <= len(rows)
    for row in rows:
        answer = await shield.get(f"/v1/evidence/{row['event_id']}/proof")
        assert (200, "application/json") == (answer.status, answer.kind)
        assert "attachment" in answer.headers["Content-Disposition"]
        proved = verify_proof(answer.body, key)
        assert (int(row["event_id"][:12], 16), True) == (proved.seq, proved.trusted)
        assert len(answer.body) < 50_000


@pytest.mark.parametrize(
    ("event", "status"),
    [("0000000000ff0000", 404), ("0000000000010001", 404), ("ffffffffffffffff", 404), ("x", 400), ("0" * 15, 400)],
)
async def test_what_is_not_there_cannot_be_proved(shield, event, status):
    assert status == (await shield.get(f"/v1/evidence/{event}/proof")).status


async def test_a_bundle_is_what_the_verifier_accepts(shield):
    key = await key_of(shield)
    for _ in range(20):
        await shield.get("/spend?amount=1&scope=customer:c-1")
    answer = await shield.get("/v1/evidence/bundle")
    assert (200, "application/octet-stream") == (answer.status, answer.kind)
    assert b"c-1" not in answer.body
    (chain,) = verify_bundle(io.BytesIO(answer.body), key).chains
    assert (0, shield.guard.decider.ledger.next_seq) == (chain.first, chain.size)
    assert 22 == chain.entries


async def test_a_bundle_of_a_time_begins_and_ends_there(shield, clock):
    key = await key_of(shield)
    for _ in range(10):
        clock.now += 60 * SECOND
        await shield.get("/spend?amount=1")
        shield.guard.decider.ledger.checkpoint()
    since, until = to_iso(START + 180 * SECOND), to_iso(START + 300 * SECOND)
    answer = await shield.get(f"/v1/evidence/bundle?from={since}&to={until}")
    (chain,) = verify_bundle(io.BytesIO(answer.body), key).chains
    assert (4, 6) == (chain.first, chain.size)  # after the opening and the policy


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("from=2999-01-01T00:00:00Z", 404),
        ("to=2001-01-01T00:00:00Z", 404),
        ("from=2001-01-01T00:00:00Z&to=2001-01-01T00:00:00Z", 404),
        ("from=yesterday", 400),
        ("until=2999-01-01T00:00:00Z", 400),
    ],
)
async def test_a_time_of_which_nothing_is_known(shield, query, status):
    assert status == (await shield.get(f"/v1/evidence/bundle?{query}")).status


async def test_one_bundle_at_a_time(shield, monkeypatch):
    evidence = "kiki.shield.evidence_routes.bundle_into"
    going, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(file, ledger, chains, span) -> dict[str, int]:
        loop.call_soon_threadsafe(going.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(60)
        file.write(b"made")
        return {}

    monkeypatch.setattr(evidence, slow)
    first = asyncio.create_task(shield.get("/v1/evidence/bundle"))
    await going.wait()
    second = await shield.get("/v1/evidence/bundle")
    assert (503, "5") == (second.status, second.headers["Retry-After"])
    assert 200 == (await shield.get("/spend?amount=1")).status
    go_on.set()
    assert b"made" == (await first).body


async def test_a_large_bundle_is_whole_and_leaves_no_file_behind(tmp_path: Path):
    from kiki.shield.privacy_service import Deployment

    guard = BudgetGuard.open(tmp_path / "shield.db", limit="1000000000")
    for _ in range(30):
        guard.spend_many(["1"] * 10_000)
    async with served(guard, service={"deployment": Deployment(data_dir=tmp_path)}) as shield:
        key, before = await key_of(shield), names_in(tmp_path)
        answer = await shield.get("/v1/evidence/bundle")
        assert int(answer.headers["Content-Length"]) == len(answer.body) > 300_000
        assert 32 == verify_bundle(io.BytesIO(answer.body), key).chains[0].entries
        assert before == names_in(tmp_path)


async def test_reading_evidence_takes_the_role_read():
    async with served(BudgetGuard.open(limit="1"), tokens=TOKENS) as shield:
        for path in ("", "/checkpoints", "/bundle", "/0000000000000000/proof"):
            assert 401 == (await shield.get(f"/v1/evidence{path}")).status
            assert 403 == (await shield.get(f"/v1/evidence{path}", headers=bearer("spend"))).status
            assert 200 == (await shield.get(f"/v1/evidence{path}", headers=bearer("read"))).status


async def test_nothing_is_found_out_of_a_moment_with_a_zone(shield):
    """A plus in a query is a space, and the refusal says so."""
    moment = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    answer = await shield.ask("GET", f"/v1/evidence/bundle?from={moment}")
    assert (400, True) == (answer.status, "%2B" in answer.json["detail"])
