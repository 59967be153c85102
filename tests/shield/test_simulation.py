"""Shadow mode: the same policy changes nothing, a looser one only admits, a tighter one only refuses."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.errors import SpendDenied
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.policy import Budget, Limit, Policy
from kiki.shield.scope import Pattern
from tests.ledger.doubles import SECOND, FakeClock

UNIT = 1_000_000


def policy(everything=100, each=40, span=60):
    return Policy(
        (
            Budget("all", Pattern("*"), (Limit(everything * UNIT, span * SECOND),)),
            Budget("each", Pattern("campaign:*"), (Limit(each * UNIT, 2 * span * SECOND),)),
        )
    )


SCOPES = st.sampled_from([(), ("campaign:a",), ("campaign:b",), ("platform:x",)])
UNITS = st.integers(1, 60)
STEPS = st.one_of(
    st.tuples(st.just("spend"), UNITS, SCOPES),
    st.tuples(st.just("many"), st.lists(st.tuples(UNITS, SCOPES), min_size=1, max_size=4)),
    st.tuples(st.just("reserve"), UNITS, SCOPES, st.sampled_from([None, 5, 70])),
    st.tuples(st.just("commit"), st.integers(0, 100)),
    st.tuples(st.just("release")),
    st.tuples(st.just("record"), UNITS, SCOPES),
    st.tuples(st.just("halt"), st.sampled_from(["*", "campaign:a"]), st.booleans()),
    st.tuples(st.just("advance"), st.sampled_from([0.03, 1, 20, 59.95, 60.1, 130])),
)


def live(steps, used=None):
    """A guard that went through these steps; the moments it passed."""
    clock = FakeClock()
    guard = BudgetGuard.open(None, policy=used or policy(), clock=clock)
    holds = []
    moments = [clock()]
    for step, *given_ in steps:
        try:
            if step == "spend":
                guard.spend(*given_)
            elif step == "many":
                guard.spend_many(*given_)
            elif step == "reserve":
                units, scopes, seconds = given_
                holds.append(guard.reserve(units, scopes, seconds=seconds))
            elif step == "commit" and holds:
                hold = holds.pop(0)
                hold.commit(int(hold.amount.partition(".")[0]) * given_[0] // 100)
            elif step == "release" and holds:
                holds.pop().release()
            elif step == "record":
                guard.record(*given_)
            elif step == "halt":
                (guard.halt if given_[1] else guard.resume)(given_[0])
            elif step == "advance":
                clock.advance(given_[0])
                moments.append(clock())
        except SpendDenied:
            pass
    return guard, moments


@settings(max_examples=200)
@given(st.lists(STEPS, min_size=5, max_size=40))
def test_the_same_policy_decides_everything_the_same(steps):
    """Asked again under the policy that was in force, nothing is newly refused and nothing newly admitted."""
    guard, _ = live(steps)
    found = guard.simulate(policy())
    assert (found.newly_refused, found.newly_admitted) == (0, 0)
    assert found.decisions == found.admitted + found.refused


@settings(max_examples=200)
@given(st.lists(STEPS, min_size=5, max_size=40), st.data())
def test_a_later_start_decides_the_same(steps, data):
    """Also when only a part of the past is asked again: older spends and older open holds count without being asked."""
    guard, moments = live(steps)
    since = datetime.fromtimestamp(data.draw(st.sampled_from(moments)) / SECOND, UTC)
    found = guard.simulate(policy(), since)
    assert (found.newly_refused, found.newly_admitted) == (0, 0)


SPENDS = st.lists(
    st.one_of(
        st.tuples(st.just("spend"), UNITS, st.just(())), st.tuples(st.just("advance"), st.sampled_from([1, 20, 61]))
    ),
    max_size=40,
)


@settings(max_examples=100)
@given(SPENDS, st.integers(1, 200))
def test_another_limit_decides_as_a_guard_under_it_would_have(steps, limit):
    """The figures are those of a guard that had used the other policy all along, compared with what happened."""
    real, _ = live(steps)
    other, _ = live(steps, policy(limit))
    found = real.simulate(policy(limit))

    def outcomes(guard):
        return [
            (each.micros, each.allowed)
            for entry in guard.decider.ledger.read()
            for each in [decided_outcome(entry)]
            if each is not None
        ]

    was, would = outcomes(real), outcomes(other)
    expected = {
        "decisions": len(would),
        "admitted": sum(allowed for _, allowed in would),
        "admitted_micros": sum(micros for micros, allowed in would if allowed),
        "newly_refused": sum(a and not b for (_, a), (_, b) in zip(was, would, strict=True)),
        "newly_admitted": sum(b and not a for (_, a), (_, b) in zip(was, would, strict=True)),
    }
    assert expected == {name: getattr(found, name) for name in expected}
    assert found.refused_micros == sum(micros for micros, allowed in would if not allowed)
    assert sum(found.refused_by_budget.values()) == found.refused


def decided_outcome(entry):
    from kiki.shield.decision import Decision
    from kiki.shield.fact import Decided, decode_fact

    fact = decode_fact(entry)
    return Decision(entry.seq, fact).outcome() if isinstance(fact, Decided) else None


def test_no_budget_at_all_admits_everything():
    """What was refused for a budget is newly admitted when there is none."""
    guard, _ = live([("spend", 60, ()), ("spend", 60, ()), ("reserve", 50, (), None), ("spend", 40, ())])
    found = guard.simulate(Policy(()))
    assert (found.decisions, found.admitted, found.newly_admitted) == (4, 4, 2)
    assert found.as_dict()["newly_admitted_amount"] == "110.00"


def test_what_was_newly_admitted_as_a_reservation_is_not_held_for_ever():
    """A reservation that never was has no ending in the ledger: it must not fill the other policy's window for ever."""
    pause = ("advance", 130)
    guard, _ = live([("spend", 100, ()), ("reserve", 50, (), 5), pause, ("spend", 60, ()), ("reserve", 50, (), 5)])
    found = guard.simulate(policy(150))
    assert (found.newly_admitted, found.newly_refused) == (2, 0)


def test_a_halted_part_of_a_batch_does_not_hide_the_rest():
    """The amounts of a batch that were not halted are asked again like any others."""
    guard, _ = live([("halt", "campaign:a", True), ("many", [(60, ()), (1, ("campaign:a",))]), ("spend", 60, ())])
    found = guard.simulate(policy())
    assert (found.decisions, found.admitted, found.refused) == (2, 1, 1)
    assert (found.newly_refused, found.newly_admitted) == (0, 0)


def test_an_old_open_hold_counts_in_a_later_simulation():
    """A hold made before everything that is asked again still takes its room."""
    guard, moments = live([("reserve", 80, (), None), ("advance", 130), ("advance", 130), ("spend", 40, ())])
    found = guard.simulate(policy(), datetime.fromtimestamp(moments[-1] / SECOND, UTC))
    assert (found.decisions, found.refused, found.newly_admitted) == (1, 1, 0)


def test_an_old_hold_that_was_settled_later_counts_until_then():
    """A hold made before everything that is asked again, and settled in between, takes its room up to that moment."""
    pause = ("advance", 130)
    steps = [("reserve", 80, (), None), pause, pause, ("spend", 40, ()), ("release",), ("spend", 90, ())]
    guard, moments = live(steps)
    found = guard.simulate(policy(), datetime.fromtimestamp(moments[-1] / SECOND, UTC))
    assert (found.decisions, found.admitted, found.refused) == (2, 1, 1)
    assert (found.newly_refused, found.newly_admitted) == (0, 0)


def test_simulating_changes_nothing_and_tells_its_progress():
    """The guard goes on as before, and the caller hears how far it is, at last that it is done."""
    guard, _ = live([("spend", 60, ()), ("spend", 60, ())])
    before = guard.status(), guard.decider.ledger.next_seq
    told = []
    guard.simulate(policy(10), progress=lambda done, total: told.append((done, total)))
    assert before == (guard.status(), guard.decider.ledger.next_seq)
    assert told[-1] == (guard.decider.ledger.next_seq,) * 2
