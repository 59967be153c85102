"""PostgreSQL is the authority of a shared window: a Redis that lost it is counted anew from every chain, at once."""

from __future__ import annotations

import threading
import time

import pytest

from kiki.errors import Conflict, EpochPassed, KeyReused, LedgerUnavailable, SpendDenied, Unavailable
from kiki.ledger.master_key import KeySource
from kiki.ledger.source import Database
from kiki.settings import Secret, redis_address
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.call import spend_call
from kiki.shield.opening import open_decider
from kiki.shield.policy import parse_policy
from kiki.shield.projections import LAPSED
from kiki.shield.redis_connection import RedisConnection

POLICY = parse_policy(
    """
    budgets:
      - {name: all, scope: "*", limit: 100, window: 1h}
      - {name: each, scope: "customer:*", limit: 10, window: 30m}
    """
)
KEYS = KeySource(text=Secret("11" * 32))


@pytest.fixture
def replica(postgres, redis):
    """Opens a replica by its name; all share one Redis and one database."""
    opened = []

    def start(name):
        guard = BudgetGuard(
            open_decider(
                None,
                POLICY,
                database=Database(Secret(postgres), name),
                keys=KEYS,
                redis=redis_address(redis.address),
                redis_timeout=30,
            )
        )
        opened.append(guard)
        return guard

    yield start
    for guard in opened:
        guard.close()


def left(guard, scope="*"):
    (meter,) = guard.status(scope=scope)
    return meter.limit - meter.spent - meter.held


def eventually(act, seconds=60.0):
    """The result of `act`, once it is available again."""

    end = time.monotonic() + seconds
    while True:
        try:
            return act()
        except Unavailable:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def test_an_emptied_redis_is_counted_anew_at_once(replica, redis):
    """Every spend of every replica still counts, and nobody waits for an hour."""
    a, b = replica("a"), replica("b")
    a.spend("30")
    b.spend("8", {"customer": "c-1"})
    a.record("5")
    redis.flush()
    assert eventually(lambda: a.spend("7")).allowed
    assert left(a) == left(b) == 50_000_000
    with pytest.raises(SpendDenied):
        eventually(lambda: b.spend("3", {"customer": "c-1"}))
    assert eventually(lambda: b.spend("2", {"customer": "c-1"})).allowed
    with pytest.raises(SpendDenied):
        a.spend("48.01")


def test_holds_of_every_replica_are_counted_too(replica, redis):
    """Also those of one that is away, and they can be settled afterwards."""
    a, b = replica("a"), replica("b")
    hold = b.reserve("40")
    spent = b.reserve("20")
    spent.commit("4")
    b.close()
    redis.flush()
    eventually(lambda: a.spend("6"))
    assert left(a) == 50_000_000
    again = replica("b")
    again.commit(hold.id, "10")
    assert left(a) == 80_000_000


def test_a_hold_that_ran_out_counts_as_a_spend(replica, redis):
    """Its chain has no entry about the deadline: the window charged it, and the rebuilt one must, too."""
    a = replica("a")
    a.reserve("40", seconds=0.3)
    time.sleep(0.5)
    a.spend("1")
    a.spend("1")
    redis.flush()
    b = replica("b")
    eventually(lambda: b.spend("1"))
    assert left(b) == 57_000_000


def test_a_first_replica_on_an_empty_redis_counts_what_the_database_knows(replica, redis):
    """A loopback Redis without any state is no licence to start from nothing."""
    a = replica("a")
    a.spend("95")
    a.close()
    redis.flush()
    b = replica("b")
    with pytest.raises(SpendDenied):
        eventually(lambda: b.spend("6"))
    assert eventually(lambda: b.spend("5")).allowed


def test_what_an_older_epoch_decided_is_never_written_down(replica):
    """A replica that slept through a rebuild has its decision refused, and decides again in the new epoch."""
    a, b = replica("a"), replica("b")
    a.spend("1")
    b.spend("1")
    b.decider.ledger.store.raise_epoch("kiki")
    before = a.decider.ledger.next_seq
    with pytest.raises(EpochPassed):
        a.spend("50")
    assert before == a.decider.ledger.store.next_seq()


def test_a_storm_around_a_loss_is_never_over(replica, redis):
    """Four threads on two replicas spend while Redis is emptied again and again: the sum stays within the limit."""
    guards = [replica("a"), replica("b")]
    stop = threading.Event()
    admitted = []

    def spend(guard):
        while not stop.is_set():
            try:
                guard.spend("0.7")
                admitted.append(700_000)
            except SpendDenied:
                stop.wait(0.01)
            except Unavailable:
                stop.wait(0.02)

    threads = [threading.Thread(target=spend, args=(guard,)) for guard in guards for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        stop.wait(0.4)
        redis.flush()
    stop.wait(2.5)
    end = time.monotonic() + 60
    chains = guards[0].decider.all_chains()
    while (len(admitted) <= 10 or any(reader.next_seq() <= 3 for reader in chains)) and time.monotonic() < end:
        stop.wait(0.05)  # a busy machine
    stop.set()
    for thread in threads:
        thread.join()
    assert 10 < len(admitted)
    assert sum(admitted) <= 100_000_000
    for reader in chains:
        assert reader.next_seq() > 3


def test_a_look_that_rebuilds_between_a_decision_and_its_commit(replica, redis, monkeypatch):
    """What was decided before is not in the windows counted anew, so it is not written down either."""
    a = replica("a")
    a.spend("1")
    switch, rebuilt = a.decider._switch, []

    def look():
        eventually(lambda: a.check("1"))

    def between(*given):
        if not rebuilt:
            rebuilt.append(True)
            redis.flush()
            looking = threading.Thread(target=look)
            looking.start()
            looking.join()
        return switch(*given)

    monkeypatch.setattr(a.decider, "_switch", between)
    with pytest.raises(EpochPassed):
        a.spend("60")
    assert eventually(lambda: a.spend("99")).allowed


def test_what_was_never_written_down_is_no_first_answer(replica, redis, monkeypatch):
    """Redis still knows the key of a spend whose commit failed, and the windows counted anew do not have it."""
    a, b = replica("a"), replica("b")
    a.spend("1")
    with monkeypatch.context() as patched:

        def fail(*_):
            raise LedgerUnavailable("the disk is full")

        patched.setattr(b.decider.ledger, "append_all", fail)
        with pytest.raises(LedgerUnavailable):
            b.spend("60", key="k")
    kept = b.spend("2", key="kept")
    damage(redis)
    eventually(lambda: a.spend("97"))
    with pytest.raises(Conflict, match="could not be written down"):
        eventually(lambda: b.spend("60", key="k"))
    assert left(a) == 0
    assert a.spend("2", key="kept").fact.sequence == kept.fact.sequence


@pytest.mark.parametrize("end", ["commit", "release"])
def test_a_settlement_that_was_never_written_down_is_none(replica, redis, monkeypatch, end):
    """Redis remembers that the hold is over; the ledger, which counts, says that it is open."""
    a, b = replica("a"), replica("b")
    hold = a.reserve("40")
    with monkeypatch.context() as patched:

        def fail(*_):
            raise LedgerUnavailable("the disk is full")

        patched.setattr(a.decider.ledger, "append_all", fail)
        with pytest.raises(LedgerUnavailable):
            hold.commit("30") if end == "commit" else hold.release()
    b.spend("1")
    damage(redis)
    eventually(lambda: b.spend("1"))
    assert left(b) == 58_000_000
    eventually(lambda: a.commit(hold.id, "30"))
    assert left(b) == left(a) == 68_000_000
    b.spend("1")
    assert left(a) == 67_000_000


def damage(redis):
    """Make a window vanish, so that all are counted anew, while the outcomes of keys are still there."""
    connection = RedisConnection(redis_address(redis.address), 5)
    connection.open("any")
    connection.call("ZREMRANGEBYRANK", "{kiki}:live", 0, 0)
    connection.close()


def test_halts_of_every_replica_outlive_redis(replica, redis):
    """Also of one that is away; one that another replica has lifted stays lifted."""
    a, b = replica("a"), replica("b")
    a.halt("platform:x")
    a.halt("customer:*")
    a.halt("customer:c-1")
    a.halt("platform:y")
    b.resume("platform:y")
    a.close()
    redis.flush()
    eventually(lambda: b.spend("1", {"platform": "y"}))
    for scope in ({"platform": "x"}, {"customer": "c-2"}, {"customer": "c-1"}):
        with pytest.raises(SpendDenied):
            b.spend("1", scope)
    b.resume("customer:*")
    with pytest.raises(SpendDenied):
        b.spend("1", {"customer": "c-1"})


def test_a_hold_that_was_open_for_long_is_found_when_it_ran_out(replica):
    """Its key is forgotten by then, and its entry is not."""
    a = replica("a")
    hold = a.reserve("40", seconds=0.2)
    a.decider.books.kept.making_of = lambda _: None  # what the index of keys says when it forgot
    time.sleep(0.3)
    a.spend("1")
    assert [hold.id] == [key[8:].hex() for key, _ in a.decider.ledger.store.scan(LAPSED)]


def test_a_key_that_another_replica_answered_before_the_loss_counts_once(replica, redis):
    """The window forgot the keys with everything else; the chains have not."""
    a, b = replica("a"), replica("b")
    first = a.spend("30", key="k")
    redis.flush()
    eventually(lambda: b.spend("1"))
    again = b.decide(spend_call("30", key="k"))
    assert (again.repeated, again.event_id, again.chain) == (True, first.event_id, a.decider.ledger.chain)
    assert left(b) == 69_000_000
    with pytest.raises(KeyReused):
        b.spend("31", key="k")


def test_a_hold_that_another_replica_settled_is_not_held_again(replica, redis):
    """Its maker has no entry about the end, and asks the other chains before it brings its holds back."""
    a, b = replica("a"), replica("b")
    hold = a.reserve("40")
    b.commit(hold.id, "1")
    redis.flush()
    eventually(lambda: a.spend("2"))
    assert left(a) == 97_000_000
