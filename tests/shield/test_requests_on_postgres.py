"""Requests of two replicas over one PostgreSQL: either takes the next step, whatever their clocks say."""

from __future__ import annotations

import threading

import pytest
from typer.testing import CliRunner

from kiki.cli.main import app
from kiki.errors import Unavailable
from kiki.ledger.master_key import KeySource
from kiki.ledger.source import Database
from kiki.settings import Secret, redis_address
from kiki.shield.consent import State as Said
from kiki.shield.dsr import State
from kiki.shield.opening import open_decider
from kiki.shield.policy import parse_policy
from kiki.shield.request_desk import RequestDesk
from kiki.shield.request_proof import verify_request_proof
from tests.ledger.doubles import FakeClock
from tests.shield.privacy_doubles import Shop

POLICY = parse_policy("budgets: [{name: all, scope: '*', limit: 100, window: 1h}]")
KEYS = KeySource(text=Secret("11" * 32))


@pytest.fixture
def replica(postgres, redis, tmp_path):
    """Opens the desk of a replica, whose clock is behind by so many seconds."""
    opened = []

    def start(name: str, shop: Shop, behind: float = 0) -> RequestDesk:
        decider = open_decider(
            None,
            POLICY,
            database=Database(Secret(postgres), name),
            keys=KEYS,
            redis=redis_address(redis.address),
            redis_timeout=5,
            clock=FakeClock(now=1_700_000_000_000_000 - round(behind * 1_000_000), step=1000),
        )
        desk = RequestDesk(decider, [shop], packages=tmp_path / "requests")
        opened.append(desk)
        return desk

    yield start
    for desk in opened:
        desk.close()
        desk.decider.close()


def test_one_replica_receives_and_another_one_runs(replica):
    shop = Shop()
    shop.records["c-1"] = ["order"]
    one, other = replica("one", shop), replica("other", shop, behind=30)
    one.consents.grant("c-1", "marketing")
    record = one.create("c-1", "DELETION")
    assert record.id == other.create("c-1", "DELETION").id
    other.verify_identity(record.id, method="operator", actor="anna")
    shop.broken = {"erase"}
    assert State.WAITING is one.run(record.id).state
    shop.broken = set()
    done = other.run(record.id)
    assert (State.COMPLETED, []) == (done.state, shop.records["c-1"])
    assert State.COMPLETED is one.get(record.id).state
    assert 2 == len({event.chain for event in done.request.events})
    moments = [event.fact.at for event in done.request.events]
    assert moments == sorted(moments)
    assert "window_hash" in [kept.reason for kept in done.request.systems["window"].kept]
    # A proof needs a checkpoint of every chain that has a fact of the request.
    one.decider.ledger.checkpoint()
    key = other.decider.ledger.signer.verifier_key
    assert "completed" == verify_request_proof(other.proof(record.id), key).state
    assert verify_request_proof(one.proof(record.id), key).document["events"].keys() == {
        one.decider.ledger.chain,
        other.decider.ledger.chain,
    }


def test_a_proof_waits_for_the_checkpoints_of_the_others(replica):
    shop = Shop()
    one, other = replica("one", shop), replica("other", shop)
    record = one.create("c-1", "DELETION")
    one.verify_identity(record.id, method="operator", actor="anna")
    other.run(record.id)
    with pytest.raises(Unavailable, match="no checkpoint"):
        other.proof(record.id)
    one.decider.ledger.checkpoint()
    assert other.proof(record.id)


def test_what_is_said_to_do_about_a_replica_that_never_signed_cures_it(replica, postgres, monkeypatch):
    """One that was killed right after its write, and does not come again."""
    one, other = replica("one", Shop()), replica("other", Shop())
    record = one.create("c-1", "DELETION")
    one.verify_identity(record.id, method="operator", actor="anna")
    one.decider.ledger.store.close()
    other.run(record.id)
    with pytest.raises(Unavailable, match="no checkpoint") as refused:
        other.proof(record.id)
    assert "kiki audit seal" in refused.value.hint
    other.decider.ledger.checkpoint()
    monkeypatch.setenv("DATABASE_URL", postgres)
    monkeypatch.setenv("KIKI_MASTER_KEY", "11" * 32)
    sealed = CliRunner().invoke(app, ["audit", "seal"])
    assert (0, "") == (sealed.exit_code, sealed.stderr)
    assert other.proof(record.id)


def test_both_asked_at_once_make_one_request(replica):
    desks = [replica(name, Shop()) for name in ("one", "other")]
    found: list[str] = []

    def ask(desk: RequestDesk) -> None:
        for number in range(10):
            found.append(desk.create(f"c-{number}", "ACCESS").id)  # noqa: PERF401  # two threads append

    threads = [threading.Thread(target=ask, args=[desk]) for desk in desks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (20, 10) == (len(found), len(set(found)))


def test_a_hold_of_one_replica_holds_the_other(replica):
    one, other = replica("one", Shop()), replica("other", Shop())
    record = one.create("c-1", "DELETION")
    one.verify_identity(record.id, method="operator", actor="anna")
    one.hold("matter 7", "c-1")
    assert ("matter 7",) == other.run(record.id).request.held
    (reopened,) = other.lift("matter 7", "c-1")
    assert (record.id, State.VERIFIED) == (reopened.id, one.get(record.id).state)
    assert State.COMPLETED is one.run(record.id).state


def test_an_opt_out_at_one_replica_is_one_at_the_other(replica):
    one, other = replica("one", Shop()), replica("other", Shop())
    one.consents.grant("c-1", "data_sharing")
    other.create("c-1", "OPT_OUT")
    assert Said.DENIED is one.consents.status("c-1")["data_sharing"].state
