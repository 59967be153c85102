"""Budgets added up again: a guard that worked is never accused, and no micro too much is missed."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kiki.errors import Conflict, Denied, NotFound
from kiki.ledger.entry import decode_entry, encode_entry
from kiki.ledger.sqlite import SqliteReader
from kiki.shield.audit_finding import Kind
from kiki.shield.budget import Reason
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.decision import event_id
from kiki.shield.fact import (
    Decided,
    Halted,
    Pruned,
    Refused,
    Settled,
    decode_fact,
)
from kiki.shield.policy import Policy, single_budget
from kiki.shield.scope import Pattern
from tests.ledger.doubles import SECOND, FakeClock
from tests.shield.audit_chain import POLICIES, T0, UNIT, A, Chain, audited, begun, budget, kinds, of_reader


@pytest.fixture
def chain():
    return begun()


SCOPES = st.sampled_from(
    [(), ("campaign:a",), ("campaign:b",), ("platform:meta",), ("campaign:a", "platform:meta"), ("campaign:c",)]
)
UNITS = st.integers(1, 60)
ACTS = st.one_of(
    st.tuples(st.just("spend"), UNITS, SCOPES),
    st.tuples(st.just("many"), st.lists(st.tuples(UNITS, SCOPES), min_size=1, max_size=4)),
    st.tuples(st.just("reserve"), UNITS, SCOPES, st.sampled_from([None, 0.05, 5, 60, 700])),
    st.tuples(st.just("commit"), st.integers(0, 20), st.sampled_from([0, 0.3, 1])),
    st.tuples(st.just("release"), st.integers(0, 20)),
    st.tuples(st.just("record"), UNITS, SCOPES),
    st.tuples(st.just("halt"), st.sampled_from(["*", "campaign:a", "campaign:*"]), st.booleans()),
    st.tuples(st.just("advance"), st.sampled_from([1e-6, 0.05, 0.1, 1, 6.99, 29.95, 59.9, 60, 60.1, 599.5, 601])),
    st.tuples(st.just("use"), st.sampled_from(POLICIES)),
    st.tuples(st.just("restart")),
)


def act(guard, clock, holds, what, *arguments):
    """One step of a random history."""
    if what == "spend":
        guard.spend(*arguments)
    elif what == "many":
        guard.spend_many(*arguments)
    elif what == "reserve":
        units, scopes, seconds = arguments
        holds.append((guard.reserve(units, scopes, seconds=seconds).id, units))
    elif what in {"commit", "release"} and holds:
        hold, units = holds[arguments[0] % len(holds)]
        if what == "commit":
            guard.commit(hold, f"{units * arguments[1]:.2f}")
        else:
            guard.release(hold)
    elif what == "record":
        guard.record(*arguments)
    elif what == "halt":
        (guard.halt if arguments[1] else guard.resume)(arguments[0])
    elif what == "advance":
        clock.advance(*arguments)
    elif what == "use":
        guard.use(*arguments)


@settings(max_examples=60, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(ACTS, min_size=5, max_size=40), st.integers(0, 2), st.data())
def test_a_guard_that_worked_is_never_accused_and_one_micro_too_much_is_always_found(acts, first, data):
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    clock, holds = FakeClock(T0), []
    try:
        guard = BudgetGuard.open(folder / "shield.db", policy=POLICIES[first], clock=clock)
        for what, *arguments in acts:
            if what == "restart":
                guard.close()
                guard = BudgetGuard.open(folder / "shield.db", policy=guard.policy, clock=clock)
                continue
            with suppress(Denied, Conflict, NotFound):
                act(guard, clock, holds, what, *arguments)
        guard.decider.tick()
        policy, now = guard.policy, clock.now
        guard.close()
        reader = SqliteReader(folder / "shield.db")
        report = of_reader(reader)
        assert ([], []) == (report.findings, report.doubts)
        assert {} == report.not_covered
        facts = [decode_fact(decode_entry(body)) for _, body in reader.entries()]
        _, limit, scope = data.draw(st.sampled_from(limits_of(policy)))
        left = limit.micros - counted(facts, scope, now, limit.span)
        scopes = () if scope == "*" else (scope,)
        others = min(
            other.micros - counted(facts, where, now, other.span)
            for _, other, where in limits_of(policy)
            if where in {"*", scope}
        )
        for micros, over in ((left + 1, True), (min(left, others), False)):
            if micros > 0 and not any(Pattern.parse(pattern).instance(scopes) for pattern in halts_of(facts)):
                seq = reader.next_seq()
                forged = encode_entry(seq, now, Decided("spend", now, "", 0, [list(scopes)], [micros]))
                found = of_reader(reader, [(seq, forged)])
                assert over == bool(found.findings)
                if over:
                    assert {(Kind.OVERRUN, seq)} == {(each.kind, each.seq) for each in found.findings}
                    assert limit.micros + 1 in {each.overrun.worst for each in found.findings}
        reader.close()
    finally:
        shutil.rmtree(folder)


def limits_of(policy):
    """Every limit with a scope that it can be about."""
    return [
        (each.name, limit, each.pattern.text.replace("campaign:*", "campaign:a").replace("platform:*", "platform:meta"))
        for each in policy.budgets
        for limit in each.limits
    ]


def counted(facts, scope, now, span):
    """Spent in (now - span, now] and held at `now`: a plain sum over the facts, without records."""
    holds, spends = {}, []
    for fact in facts:
        if isinstance(fact, Settled):
            holds.pop(fact.hold, None)
            spends.append((fact.at, fact.charged, fact.scopes[0]))
        elif isinstance(fact, Decided) and fact.verb in {"spend", "reserve"}:
            refused = {each.index for each in fact.refused}
            for index, amount in enumerate(fact.amounts):
                scopes = fact.scopes[index if len(fact.scopes) > 1 else 0]
                if index not in refused and fact.verb == "spend":
                    spends.append((fact.at, amount, scopes))
                elif index not in refused:
                    holds[fact.hold] = (amount, scopes)
    mine = [amount for at, amount, scopes in spends if now - span < at <= now and (scope == "*" or scope in scopes)]
    return sum(mine) + sum(amount for amount, scopes in holds.values() if scope == "*" or scope in scopes)


def halts_of(facts):
    halts = {}
    for fact in facts:
        if isinstance(fact, Halted):
            halts[fact.pattern] = fact.on
    return [pattern for pattern, on in halts.items() if on]


def test_an_overrun_is_told_with_its_window_its_sums_and_its_entries(chain):
    first = chain.spend(60, 1)
    chain.spend(30, 30)
    second = chain.spend(20, 50)
    (finding,) = audited(chain).findings
    assert (Kind.OVERRUN, second) == (finding.kind, finding.seq)
    over = finding.overrun
    assert ("default", "*", 60 * SECOND, 100 * UNIT) == (over.budget, over.scope, over.span, over.limit)
    assert (T0 + 50 * SECOND, 110 * UNIT, 0, 110 * UNIT) == (over.at, over.spent, over.held, over.worst)
    assert [event_id(first), event_id(first + 1), event_id(second)] == over.entries
    assert "110.00 spent" in finding.told()
    assert "2023-11-14T22:14:10.000000Z" == finding.as_dict()["window"]["to"]
    assert finding.event_id == event_id(second)


def test_a_spend_leaves_exactly_one_window_later(chain):
    """The window is (now - span, now]: at the very end of it the first spend is out."""
    chain.spend(100, 0)
    chain.spend(100, 60)
    assert [] == audited(chain).findings
    chain.spend(0.000001, 119.999999)
    assert [Kind.OVERRUN] == kinds(audited(chain))


def test_one_stretch_over_the_limit_is_one_finding_with_its_worst_sum(chain):
    for second in range(10):
        chain.spend(30, second)
    chain.spend(30, 100)
    report = audited(chain)
    (finding,) = report.findings
    assert (120 * UNIT, 300 * UNIT, 7) == (
        finding.overrun.spent, finding.overrun.worst, finding.overrun.admissions
    )  # fmt: skip
    chain.spend(80, 101)
    assert 2 == len(audited(chain).findings)


def test_refused_amounts_do_not_count_and_batches_count_each_admitted_one(chain):
    at = T0 + SECOND
    refused = [Refused(1, Reason.BUDGET_EXHAUSTED, "default")]
    chain.add(Decided("spend", at, "", 0, [[]], [60 * UNIT, 60 * UNIT, 40 * UNIT], refused))
    assert [] == audited(chain).findings
    chain.add(Decided("spend", at, "", 0, [["a:1"], ["a:2"]], [1, 1], [Refused(0, Reason.HALTED)]))
    assert [(Kind.OVERRUN, 3)] == [(each.kind, each.seq) for each in audited(chain).findings]


def test_checks_take_nothing(chain):
    chain.add(Decided("check", T0 + 1, "", 0, [[]], [10**15]))
    assert [] == audited(chain).findings


def test_an_open_reservation_counts_in_full_and_outlives_the_window(chain):
    chain.reserve(80, 0, A)
    chain.spend(20, 1000)
    assert [] == audited(chain).findings
    chain.spend(0.000001, 1001)
    (finding,) = audited(chain).findings
    assert (80 * UNIT, 20 * UNIT + 1) == (finding.overrun.held, finding.overrun.spent)


def test_a_commit_counts_at_its_own_moment_and_frees_the_rest(chain):
    chain.reserve(80, 0, A)
    chain.settle("commit", 50, A, 30, 80)
    chain.spend(70, 50)
    assert [] == audited(chain).findings
    chain.spend(1, 109)
    assert [Kind.OVERRUN] == kinds(audited(chain))


def test_a_released_reservation_is_free_at_once(chain):
    chain.reserve(80, 0, A)
    chain.settle("release", 1, A, 0, 80)
    chain.spend(100, 1)
    assert [] == audited(chain).findings


def test_an_expired_reservation_is_a_spend_of_its_deadline_written_down_or_not(chain):
    """The moment counts, not when somebody wrote it down; a late commit adds nothing."""
    chain.reserve(80, 0, A, seconds=50)
    chain.settle("expire", 50, A, 80, 80)
    chain.settle("commit", 55, A, 0, 80, late=True)
    chain.spend(20, 109)
    chain.spend(100, 170)
    assert [] == audited(chain).findings
    other = Chain()
    other.policy(single_budget(100 * UNIT, 60 * SECOND))
    other.reserve(80, 0, A, seconds=50)
    other.spend(21, 109)
    assert [Kind.OVERRUN] == kinds(audited(other))


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda chain: chain.settle("commit", 1, A, 81, 80), "charged with more than was reserved"),
        (lambda chain: chain.settle("expire", 1, A, 80, 80), "ended before its deadline"),
        (lambda chain: chain.settle("expire", 51, A, 80, 80), "another moment than its deadline"),
        (lambda chain: chain.settle("commit", 55, A, 10, 80), "after its deadline had charged it"),
        (lambda chain: chain.settle("commit", 55, A, 10, 80, late=True), "as kiki never writes one"),
        (lambda chain: chain.settle("release", 1, A, 10, 80), "as kiki never writes one"),
        (lambda chain: chain.settle("commit", 1, "no hold", 10, 80), "as kiki never writes one"),
        (lambda chain: chain.reserve(1, 1, A), "was made twice"),
    ],
)
def test_ends_of_reservations_that_cannot_be(chain, write, said):
    chain.reserve(80, 0, A, seconds=50)
    seq = write(chain)
    (finding,) = audited(chain).findings
    assert (Kind.STRUCTURE, seq) == (finding.kind, finding.seq)
    assert said in finding.message


def test_money_spent_elsewhere_stands_outside_and_is_told(chain):
    chain.spend(90, 1)
    chain.add(Decided("record", T0 + 2 * SECOND, "", 0, [[]], [500 * UNIT]))
    chain.add(Decided("record", T0 + 2 * SECOND, "", 0, [[]], [5 * UNIT]))
    report = audited(chain)
    assert [] == report.findings
    assert (2, 505 * UNIT, 2) == (report.recorded, report.recorded_micros, report.recorded_over)


def test_a_new_policy_counts_what_was_spent_before_it(chain):
    """Its budgets are not known when those spends come by, so the evidence is read twice."""
    chain.spend(90, 1, "campaign:a")
    later = Policy((budget("hour", "campaign:*", (100, 3600)),))
    chain.policy(later, T0 + 2 * SECOND)
    chain.spend(10, 1000, "campaign:a")
    assert [] == audited(chain).findings
    chain.spend(1, 1001, "campaign:a")
    (finding,) = audited(chain).findings
    assert ("hour", "campaign:a", 101 * UNIT) == (finding.overrun.budget, finding.overrun.scope, finding.overrun.spent)


def test_a_lower_limit_is_broken_by_the_next_spend_only(chain):
    chain.spend(90, 1)
    chain.policy(single_budget(50 * UNIT, 60 * SECOND), T0 + 2 * SECOND)
    assert [] == audited(chain).findings
    chain.spend(1, 3)
    assert [Kind.OVERRUN] == kinds(audited(chain))


def test_spends_before_the_first_policy_of_a_range_are_not_covered():
    chain = Chain(first=500)
    chain.spend(10**6, 1)
    chain.policy(single_budget(100 * UNIT, 60 * SECOND), T0 + SECOND)
    chain.settle("commit", 2, A, 5, 5)
    report = audited(chain)
    assert [] == report.findings
    assert {
        "spends before the first policy of the range": 1,
        "ends of reservations made before the range": 1,
    } == report.not_covered


def test_a_policy_that_was_said_again_when_its_entry_was_pruned_was_in_force_before():
    chain = Chain(first=512)
    chain.spend(101, 1)
    chain.policy(single_budget(100 * UNIT, 60 * SECOND), T0 + 9 * SECOND)
    chain.add(Pruned(T0 + 9 * SECOND, 512, 2555))
    report = audited(chain)
    assert ([(Kind.OVERRUN, 512)], {}) == ([(each.kind, each.seq) for each in report.findings], report.not_covered)


def test_the_kill_switch_stops_what_it_concerns(chain):
    chain.add(Halted(T0 + 1, "campaign:*", on=True))
    chain.spend(1, 1)
    chain.add(Decided("record", T0 + SECOND, "", 0, [["campaign:a"]], [UNIT]))
    seq = chain.spend(1, 2, "campaign:a")
    chain.add(Halted(T0 + 3 * SECOND, "campaign:*", on=False))
    chain.spend(1, 4, "campaign:a")
    assert [(Kind.HALTED, seq)] == [(each.kind, each.seq) for each in audited(chain).findings]


def test_each_customer_has_a_window_of_its_own_and_a_million_of_them_are_forgotten_in_time(monkeypatch):
    monkeypatch.setattr("kiki.shield.audit_lanes._METERS_KEPT", 50)
    chain = Chain()
    chain.policy(Policy((budget("each", "customer:*", (10, 60)),)))
    for number in range(1000):
        chain.spend(10, number, f"customer:{number:032x}")
    chain.spend(10, 1000, f"customer:{999:032x}")
    (finding,) = audited(chain).findings
    assert f"customer:{999:032x}" == finding.overrun.scope


def test_many_spends_in_one_window_are_counted_to_the_micro(monkeypatch, chain):
    monkeypatch.setattr("kiki.shield.audit_meter._MERGED_FROM", 10)
    monkeypatch.setattr("kiki.shield.audit_meter._TIDIED_FROM", 6)
    for number in range(5000):
        chain.spend(0.02, number // 3 * 0.04)
    report = audited(chain)
    assert [] == report.findings
    chain.spend(10.020001, 5000 // 3 * 0.04)
    (finding,) = audited(chain).findings
    assert 100 * UNIT + 1 == finding.overrun.spent
