"""Everything the guard knows can be told again from the ledger alone."""

from __future__ import annotations

import re

import apsw
import pytest

from kiki.ledger.ledger import CHECKPOINTS, META, read_entries
from kiki.ledger.memory import MemoryStore
from kiki.ledger.sqlite import SqliteReader
from kiki.shield.budget import Reason
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.consent import CONSENT, read_state
from kiki.shield.fact import ConsentChanged, Decided, Halted, PolicyUsed, Refused, Settled, decode_fact
from kiki.shield.local_window import LocalWindow
from kiki.shield.policy import Budget, Limit, Policy
from kiki.shield.projections import HALTS, HOLDS, POLICY, settled_key
from kiki.shield.replay import admitted, replay
from kiki.shield.scope import Pattern
from tests.ledger.doubles import SECOND, FakeClock

UNIT = 1_000_000
POLICY_USED = Policy(
    (
        Budget("all", Pattern("*"), (Limit(1000 * UNIT, 60 * SECOND),)),
        Budget("each", Pattern("campaign:*"), (Limit(300 * UNIT, 600 * SECOND),)),
    )
)


def a_history(guard, clock):
    """A little of everything; the guard is left with open holds, a halt, and keys."""
    guard.spend(10, {"campaign": "a"}, "k1")
    guard.spend_many([5, (6, {"campaign": "b"}), 2000], key="k2")
    guard.reserve(20, key="k3").commit(12)
    guard.reserve(30, {"campaign": "a"}).release()
    guard.reserve(40, {"customer": "alice"}, seconds=10)
    guard.halt("campaign:b")
    guard.halt("customer:bob")
    clock.advance(30)
    guard.resume("campaign:b")
    late = guard.reserve(7, seconds=5)
    clock.advance(5)
    late.commit(3)
    guard.reserve(50, {"campaign": "c"}, "k4")
    guard.reserve(60, seconds=400)
    guard.record(70, {"campaign": "a"}, "k5")
    for purpose in ("marketing", "analytics"):
        guard.consents.grant("alice", purpose, version="v1")
    guard.consents.revoke("alice", "analytics")
    guard.consents.deny("bob", "profiling")


def folded(entries):
    """Every projection but the ledger's own, from the facts alone: {space kind: {key: value}}."""
    holds, halts, keys, policy, consents = {}, {}, {}, {}, {}
    for entry in entries:
        fact, place = decode_fact(entry), entry.seq.to_bytes(8, "big")
        if isinstance(fact, Decided):
            if fact.key:
                keys[fact.key] = place
            if fact.verb == "reserve" and not fact.refused:
                holds[bytes.fromhex(fact.hold)] = keys[bytes.fromhex(fact.hold)] = place
        elif isinstance(fact, Settled):
            holds.pop(bytes.fromhex(fact.hold), None)
            keys[settled_key(fact.hold)] = place
        elif isinstance(fact, Halted):
            halts[fact.pattern.encode()] = b"1"
            if not fact.on:
                del halts[fact.pattern.encode()]
        elif isinstance(fact, PolicyUsed):
            policy[b""] = fact.policy
        elif isinstance(fact, ConsentChanged):
            consents[bytes.fromhex(fact.subject) + fact.purpose.encode()] = (fact.state, fact.version, entry.seq)
    return {HOLDS: holds, HALTS: halts, POLICY: policy, "key": keys, CONSENT: consents}


def stored(reader):
    """The projections as the store has them; the generations of keys are one. Fails when there are others."""
    found = {HOLDS: {}, HALTS: {}, POLICY: {}, "key": {}, CONSENT: {}}
    for space in reader.spaces():
        if space not in (META, CHECKPOINTS) and not space.startswith("tile/"):
            found[re.sub(r"/\d+$", "", space)].update(reader.scan(space))
    for key, value in found[CONSENT].items():
        state = read_state(value)
        found[CONSENT][key] = (state.state, state.version, state.seq)
    return found


def test_every_projection_is_a_fold_of_the_ledger(tmp_path):
    """Open holds, halts, the policy and the places of keys follow from the facts, so they can be built again."""
    clock = FakeClock()
    with BudgetGuard.open(tmp_path / "shield.db", policy=POLICY_USED, clock=clock) as guard:
        a_history(guard, clock)
        reader = guard.decider.ledger.store
        expected = folded(read_entries(reader))
        assert expected == stored(reader)
        assert [len(expected[space]) for space in (HOLDS, HALTS, POLICY, CONSENT)] == [2, 1, 1, 3]


def seen(guard):
    """All that callers can see of a guard's state."""
    status = sorted(
        (each.budget, each.scope, each.spent, each.held) for each in guard.status() if each.spent or each.held
    )
    return (
        status,
        sorted(hold.id for hold in guard.holds()),
        guard.halts(),
        guard.spend(10, {"campaign": "a"}, "k1").event_id,
        {name: (record.state, record.version) for name, record in guard.consents.status("alice").items()},
    )


def test_a_guard_without_its_projections_finds_the_same(tmp_path):
    """When every projection is gone, the next start builds them again from the ledger and nothing is forgotten."""
    clock, path = FakeClock(), tmp_path / "shield.db"
    with BudgetGuard.open(path, policy=POLICY_USED, clock=clock) as guard:
        a_history(guard, clock)
    clock.advance(3600)  # the open holds are older than every window
    with BudgetGuard.open(path, policy=POLICY_USED, clock=clock) as guard:
        before = seen(guard)
        projections = stored(guard.decider.ledger.store)
    database = apsw.Connection(str(path))
    database.execute("DELETE FROM projection WHERE space NOT IN ('meta', 'checkpoint')")
    database.close()
    with BudgetGuard.open(path, policy=POLICY_USED, clock=clock) as guard:
        assert before == seen(guard)
        assert projections == stored(guard.decider.ledger.store)


@pytest.mark.parametrize("since", ["beginning", "window"])
def test_a_window_that_is_told_the_ledger_is_the_guards(tmp_path, since):
    """From entry 0 without any projection, or from one window ago with the open holds: the same meters and holds."""
    clock = FakeClock()
    with BudgetGuard.open(tmp_path / "shield.db", policy=POLICY_USED, clock=clock) as guard:
        a_history(guard, clock)
        for seconds in (0, 3.3, 26.7, 29.95, 0.1, 400, 200, 600):
            clock.advance(seconds)
            guard.decider.tick()
            window = LocalWindow(POLICY_USED, clock)
            if since == "beginning":
                replay(guard.decider.ledger.store, window, [], since=0)
            else:
                slots = 600 * SECOND + 10 * SECOND
                replay(guard.decider.ledger.store, window, guard.holds(), since=clock() - slots)
            assert counting(guard.status()) == counting(window.status())
            assert [hold.id for hold in guard.holds()] == [hold.id for hold in window.holds()]


def counting(status):
    return sorted(
        (each.budget, each.scope, each.spent, each.held, each.room_at) for each in status if each.spent or each.held
    )


def test_looking_while_the_guard_runs(tmp_path):
    """A reader beside the guard can tell the same story without owning the file."""
    clock = FakeClock()
    with BudgetGuard.open(tmp_path / "shield.db", policy=POLICY_USED, clock=clock) as guard:
        a_history(guard, clock)
        reader = SqliteReader(tmp_path / "shield.db")
        window = LocalWindow(POLICY_USED, clock)
        replay(reader, window, [], since=0)
        reader.close()
        assert counting(guard.status()) == counting(window.status())


def decided(**more):
    return Decided(
        **{"verb": "spend", "at": 1, "epoch": "", "sequence": 0, "scopes": [["a:1"]], "amounts": [1, 2, 3], **more}
    )


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        (decided(), [(1, ("a:1",)), (2, ("a:1",)), (3, ("a:1",))]),
        (decided(refused=[Refused(1, Reason.BUDGET_EXHAUSTED)]), [(1, ("a:1",)), (3, ("a:1",))]),
        (decided(refused=[Refused(1, Reason.OUTCOME_UNKNOWN)]), [(1, ("a:1",)), (2, ("a:1",)), (3, ("a:1",))]),
        (decided(scopes=[["a:1"], [], ["b:2"]]), [(1, ("a:1",)), (2, ()), (3, ("b:2",))]),
        (decided(refused=[Refused(index, Reason.HALTED) for index in range(3)]), []),
    ],
)
def test_what_counts_of_a_decision(fact, expected):
    """All but the refused; one whose outcome is unknown counts."""
    assert expected == list(admitted(fact))


def test_an_empty_ledger_tells_nothing():
    """Replaying nothing leaves a window empty."""
    window = LocalWindow(POLICY_USED, FakeClock())
    replay(MemoryStore(), window, [], since=0)
    assert counting(window.status()) == []
