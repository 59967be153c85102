"""Many chains over one shared window, added up in the window's own order."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress

import pytest

from kiki.errors import Conflict, Denied, NotFound, Unavailable
from kiki.shield.audit_finding import Kind
from kiki.shield.budget import Reason
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.decision import event_id
from kiki.shield.fact import (
    Decided,
    Opened,
    Refused,
)
from kiki.shield.policy import Policy, single_budget
from tests.ledger.doubles import SECOND
from tests.shield.audit_chain import T0, UNIT, A, B, Chain, audited, begun, budget, kinds


@pytest.fixture
def chain():
    return begun()


def shared(name, policy=None):
    chain = Chain(name)
    chain.add(Opened(T0, "1", "redis", "e1", name))
    chain.policy(policy or single_budget(100 * UNIT, 60 * SECOND))
    return chain


def test_chains_of_one_shared_window_are_added_up_in_its_order():
    one, two = shared("c1"), shared("c2")
    one.spend(60, 1, epoch="e1", sequence=1)
    two.spend(40, 2, epoch="e1", sequence=2)
    two.spend(100, 62, epoch="e1", sequence=4)
    one.spend(1, 61.5, epoch="e1", sequence=3)
    (finding,) = audited(one, two).findings
    assert ("c2", 3, 101 * UNIT) == (finding.chain, finding.seq, finding.overrun.spent)
    assert [f"c1/{event_id(3)}", f"c2/{event_id(3)}"] == finding.overrun.entries


def test_a_repeated_decision_counts_once_and_at_its_own_place():
    one, two = shared("c1"), shared("c2")
    one.spend(60, 1, epoch="e1", sequence=1, key=b"k")
    two.spend(40, 50, epoch="e1", sequence=2)
    one.spend(60, 1, epoch="e1", sequence=1, key=b"k", repeated=True)
    assert [] == audited(one, two).findings
    lost = shared("c1")
    lost.spend(30, 55, epoch="e1", sequence=3)
    lost.spend(60, 1, epoch="e1", sequence=1, key=b"k", repeated=True)
    (finding,) = audited(lost, two).findings
    assert 130 * UNIT == finding.overrun.spent


def test_an_outcome_that_nobody_knows_counts_as_spent_and_proves_nothing():
    one, two = shared("c1"), shared("c2")
    two.spend(60, 1, epoch="e1", sequence=1)
    one.spend(50, 2, epoch="e1", refused=[Refused(0, Reason.OUTCOME_UNKNOWN)])
    two.spend(40, 3, epoch="e1", sequence=2)
    report = audited(one, two)
    assert [] == report.findings
    (doubt,) = report.doubts
    assert (Kind.DOUBT, 100 * UNIT, 50 * UNIT) == (doubt.kind, doubt.overrun.spent, doubt.overrun.unsure)
    assert report.holds
    two.spend(1, 4, epoch="e1", sequence=3)
    assert [Kind.OVERRUN] == kinds(audited(one, two))


def test_a_reservation_may_be_ended_by_another_process():
    one, two = shared("c1"), shared("c2")
    one.reserve(80, 1, A, epoch="e1", sequence=1)
    two.settle("commit", 2, A, 10, 80, epoch="e1", sequence=2)
    one.spend(90, 3, epoch="e1", sequence=3)
    assert [] == audited(one, two).findings
    one.reserve(20, 62, B, epoch="e1", sequence=4)
    one.spend(81, 65, epoch="e1", sequence=5)
    two.settle("release", 66, B, 0, 20, epoch="e1", sequence=6)
    report = audited(one, two)
    assert ([Kind.OVERRUN], 1) == (kinds(report), report.finding_count)


def test_a_reservation_whose_end_nobody_wrote_down_is_a_doubt():
    """A process may have died between the window, which gave the money back, and its ledger."""
    one = shared("c1")
    one.reserve(80, 1, A, epoch="e1", sequence=1)
    one.spend(80, 2, epoch="e1", sequence=5)
    report = audited(one)
    assert ([], [Kind.DOUBT]) == (kinds(report), [doubt.kind for doubt in report.doubts])


def test_a_deadline_of_the_shared_window_needs_no_entry():
    one = shared("c1")
    one.reserve(80, 1, A, epoch="e1", sequence=1, seconds=10)
    one.spend(20, 70.5, epoch="e1", sequence=2)
    one.spend(100, 131, epoch="e1", sequence=3)
    report = audited(one)
    assert ([], []) == (report.findings, report.doubts)


def test_a_window_that_was_lost_and_admitted_everything_again_is_found():
    one, two = shared("c1"), shared("c2")
    one.spend(100, 1, epoch="e1", sequence=1)
    two.spend(100, 20, epoch="e2", sequence=1)
    assert [Kind.OVERRUN] == kinds(audited(one, two))


def test_a_window_that_was_lost_and_waited_is_not_accused_whatever_its_new_clock_says():
    """The second server's clock is 50 s behind; by the writers' clocks a whole window lay between."""
    one = shared("c1")
    one.spend(100, 100, epoch="e1", sequence=1)
    fact = Decided("spend", T0 + 111 * SECOND, "e2", 1, [[]], [100 * UNIT])
    one.add(fact, at=T0 + 161 * SECOND)
    report = audited(one)
    assert ([], []) == (report.findings, report.doubts)


def test_two_lives_at_once_are_judged_apart_and_said_to_be():
    one, two = shared("c1"), shared("c2")
    for second in range(0, 100, 20):
        one.spend(20, second, epoch="e1", sequence=second)
        two.spend(20, second + 1, epoch="e2", sequence=second)
    report = audited(one, two)
    assert [] == report.findings
    assert "at the same time" in report.doubts[0].message


def test_a_process_that_counts_alone_goes_on_from_what_it_decided_with_others(chain):
    one = shared("c1")
    one.spend(60, 1, epoch="e1", sequence=1)
    one.add(Opened(T0 + 2 * SECOND, "1", "local", "", "c1"))
    one.spend(50, 3)
    assert [Kind.OVERRUN] == kinds(audited(one))


def test_a_budget_that_only_one_process_knows_counts_what_that_one_admitted():
    """A shared window counts by budget: what it did not know of when it admitted, it never counts."""
    more = Policy((budget("default", "*", (100, 60)), budget("new", "campaign:*", (10, 60))))
    one, two = shared("c1"), shared("c2", more)
    one.spend(50, 1, "campaign:a", epoch="e1", sequence=1)
    two.spend(10, 2, "campaign:a", epoch="e1", sequence=2)
    assert [] == audited(one, two).findings
    two.spend(1, 3, "campaign:a", epoch="e1", sequence=3)
    assert ["new"] == [each.overrun.budget for each in audited(one, two).findings]


def test_chains_that_counted_alone_are_named():
    one, two = Chain("c1"), Chain("c2")
    for each in (one, two):
        each.policy(single_budget(100 * UNIT, 60 * SECOND))
        each.spend(100, 1)
    report = audited(one, two)
    assert ([], ["c1", "c2"]) == (report.findings, report.counted_apart)


def test_guards_over_a_real_redis_are_never_accused(tmp_path, own_redis):
    """Three processes' worth of guards, at once; replies are lost, the server stops and comes back empty."""
    policy = Policy((budget("all", "*", (100, 0.3)), budget("each", "campaign:*", (40, 0.2))))
    guards = [
        BudgetGuard.open(tmp_path / str(number) / "shield.db", policy=policy, redis=own_redis.url)
        for number in range(3)
    ]
    stop = threading.Event()

    spent = []

    def until_spent(more: int) -> None:
        wanted, end = len(spent) + more, time.monotonic() + 240
        while len(spent) < wanted:
            assert time.monotonic() < end, "nothing was admitted any more"
            time.sleep(0.01)

    def work(number: int) -> None:
        guard, chance, holds = guards[number], random.Random(number), []
        while not stop.is_set():
            scopes = chance.choice([(), ("campaign:a",), ("campaign:b",)])
            key = chance.choice([None, None, f"key-{chance.randrange(300)}"])
            with suppress(Denied, Conflict, NotFound, Unavailable):
                what = chance.randrange(5)
                if what == 0:
                    holds.append(
                        guard.reserve(chance.randint(1, 30), scopes, seconds=chance.choice([None, 0.05, 1])).id
                    )
                elif what == 1 and holds:
                    hold = holds.pop(chance.randrange(len(holds)))
                    chance.choice(guards).commit(hold, 1)
                elif not guard.spend(chance.randint(1, 30), scopes, key).fact.repeated:
                    spent.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for disturb in (own_redis.pause, own_redis.resume, own_redis.restart_empty, lambda: until_spent(1)):
            if disturb is not own_redis.resume:
                until_spent(7)
            time.sleep(0.6)
            disturb()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    chains = []
    for guard in guards:
        chain = Chain(guard.decider.ledger.chain)
        chain.bodies = [body for _, body in guard.decider.ledger.store.entries()]
        chains.append(chain)
        guard.close()
    report = audited(*chains)
    assert [] == report.findings
    assert report.admitted > 20
    assert 2 == report.windows
