"""The auditor's replay: it never accuses a guard that worked, and never misses a micro that was too much."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kiki.errors import Conflict, Denied, NotFound
from kiki.ledger.entry import Sealed, decode_entry, encode_entry
from kiki.ledger.sqlite import SqliteReader
from kiki.shield.audit_check import audit
from kiki.shield.audit_finding import Kind
from kiki.shield.audit_report import AuditReport
from kiki.shield.budget import Reason
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.decision import event_id
from kiki.shield.evidence import chain_of
from kiki.shield.fact import (
    ConsentChanged,
    ConsentUsed,
    Decided,
    Halted,
    Opened,
    PolicyUsed,
    Pruned,
    Refused,
    Settled,
    decode_fact,
)
from kiki.shield.policy import Budget, Limit, Policy, single_budget
from kiki.shield.scope import Pattern
from tests.ledger.doubles import SECOND, FakeClock

UNIT = 1_000_000
T0 = 1_700_000_000 * SECOND
A, B = "a" * 32, "b" * 32


def budget(name, pattern, *limits, consent=""):
    return Budget(
        name,
        Pattern.parse(pattern),
        tuple(Limit(units * UNIT, round(seconds * SECOND)) for units, seconds in limits),
        consent,
    )


POLICIES = [
    Policy((budget("all", "*", (100, 60), (300, 600)), budget("each", "campaign:*", (40, 60)))),
    Policy((budget("all", "*", (80, 60)), budget("meta", "platform:meta", (50, 600)))),
    Policy((budget("each", "campaign:*", (60, 7), (90, 600)), budget("platforms", "platform:*", (70, 60)))),
]


class Chain:
    """A chain of entries, written by hand."""

    def __init__(self, name="c0", first=0):
        self.name = name
        self.first = first
        self.bodies: list[bytes] = []
        self.recorded_at = T0

    def add(self, fact, at=None, sealed=()):
        """Append a fact; its sequence."""
        seq = self.first + len(self.bodies)
        self.recorded_at = max(self.recorded_at, getattr(fact, "at", 0) if at is None else at)
        self.bodies.append(encode_entry(seq, self.recorded_at, fact, sealed))
        return seq

    def policy(self, policy, at=T0):
        return self.add(PolicyUsed(at, policy.dump()))

    def spend(self, units, at, *scopes, **more):
        """A spend `at` seconds after the beginning."""
        micros = round(units * UNIT)
        return self.add(
            Decided("spend", T0 + round(at * SECOND), more.pop("epoch", ""), more.pop("sequence", 0), [list(scopes)],
                    [micros], **more)
        )  # fmt: skip

    def reserve(self, units, at, hold, *scopes, seconds=None, epoch="", sequence=0):
        moment = T0 + round(at * SECOND)
        deadline = None if seconds is None else moment + round(seconds * SECOND)
        return self.add(
            Decided("reserve", moment, epoch, sequence, [list(scopes)], [units * UNIT], hold=hold, deadline=deadline)
        )

    def settle(self, verb, at, hold, charged, reserved, *scopes, epoch="", sequence=0, late=False):
        moment = T0 + round(at * SECOND)
        return self.add(
            Settled(verb, moment, epoch, sequence, hold, round(charged * UNIT), reserved * UNIT, [list(scopes)], late)
        )


def audited(*chains: Chain) -> AuditReport:
    def read(on_entry):
        for chain in chains:
            for seq, body in enumerate(chain.bodies, chain.first):
                on_entry(chain.name, seq, body)

    return audit(read)[1]


def of_reader(reader, extra=()) -> AuditReport:
    chain = chain_of(reader)

    def read(on_entry):
        for seq, body in [*reader.entries(), *extra]:
            on_entry(chain, seq, body)

    return audit(read)[1]


def kinds(report: AuditReport) -> list[Kind]:
    return [finding.kind for finding in report.findings]


# -- budgets of one process --------------------------------------------------------------------------

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


@pytest.fixture
def chain():
    chain = Chain()
    chain.add(Opened(T0, "1", "local", "", "c0"))
    chain.policy(single_budget(100 * UNIT, 60 * SECOND))
    return chain


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
    monkeypatch.setattr("kiki.shield.audit_budgets._METERS_KEPT", 50)
    chain = Chain()
    chain.policy(Policy((budget("each", "customer:*", (10, 60)),)))
    for number in range(1000):
        chain.spend(10, number, f"customer:{number:032x}")
    chain.spend(10, 1000, f"customer:{999:032x}")
    (finding,) = audited(chain).findings
    assert f"customer:{999:032x}" == finding.overrun.scope


def test_many_spends_in_one_window_are_counted_to_the_micro(monkeypatch, chain):
    monkeypatch.setattr("kiki.shield.audit_meter._MERGED_FROM", 10)
    monkeypatch.setattr("kiki.shield.audit_meter._CUT_FROM", 10)
    for number in range(5000):
        chain.spend(0.02, number // 3 * 0.04)
    report = audited(chain)
    assert [] == report.findings
    chain.spend(10.020001, 5000 // 3 * 0.04)
    (finding,) = audited(chain).findings
    assert 100 * UNIT + 1 == finding.overrun.spent


# -- the shared window -------------------------------------------------------------------------------


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


# -- consent -----------------------------------------------------------------------------------------

ASKS = Policy((budget("mail", "channel:mail", (1000, 60), consent="marketing"), budget("all", "*", (5000, 60))))


def say(chain, state, at, subject=A, purpose="marketing", previous=(), **more):
    fact = ConsentChanged(
        T0 + round(at * SECOND), subject, purpose, state, "consent", previous=list(previous), **more
    )  # fmt: skip
    return chain.add(fact)


def mail(chain, at, *consents, verb="spend", subject=A, **more):
    fact = Decided(
        verb, T0 + round(at * SECOND), "", 0, [[f"customer:{subject}", "channel:mail"]], [UNIT],
        consents=list(consents), **more,
    )  # fmt: skip
    return chain.add(fact)


def used(seq, chain="c0", subject=A, purpose="marketing", given=True):
    return ConsentUsed(subject, purpose, chain, seq, given)


@pytest.fixture
def asking():
    chain = Chain()
    chain.policy(ASKS)
    return chain


def test_a_decision_that_rests_on_the_consent_in_force_is_fine(asking):
    grant = say(asking, "granted", 1)
    for verb in ("spend", "check"):
        mail(asking, 2, used(grant), verb=verb)
    renewed = say(asking, "granted", 3, expires_at=T0 + 10 * SECOND)
    mail(asking, 9, used(renewed))
    report = audited(asking)
    assert ([], 3, {}) == (report.findings, report.consents, report.not_covered)


def test_what_was_refused_for_want_of_consent_needs_none(asking):
    mail(asking, 2, used(-1, "", given=False), refused=[Refused(0, Reason.CONSENT_MISSING)])
    assert ([], 0) == (audited(asking).findings, audited(asking).consents)


@pytest.mark.parametrize(
    ("consents", "said"),
    [
        ([], "names no consent"),
        ([used(1, purpose="analytics")], "names no consent"),
        ([used(1, given=False)], "says itself that there was no consent"),
        ([used(-1)], "names no entry"),
        ([used(0)], "is no consent"),
        ([used(2)], "another person or purpose"),
        ([used(3)], "in which the person said no"),
        ([used(4)], "had said something else since"),
        ([used(99)], "comes after it"),
        ([used(6)], "had ended at 2023-11-14T22:13:26"),
    ],
)
def test_a_decision_against_consent_is_found(asking, consents, said):
    say(asking, "granted", 1)
    say(asking, "granted", 1, subject=B)
    say(asking, "denied", 1)
    say(asking, "granted", 2)
    say(asking, "revoked", 3)
    say(asking, "granted", 4, expires_at=T0 + 6 * SECOND)
    seq = mail(asking, 9, *consents)
    (finding,) = audited(asking).findings
    assert (Kind.CONSENT, seq) == (finding.kind, finding.seq)
    assert said in finding.message


def test_a_purpose_of_the_call_is_asked_for_unless_the_budget_says_none(asking):
    mail(asking, 2, used(1), purpose="analytics")
    mail(asking, 2, subject=B, purpose="analytics", verb="record")
    assert 2 == len(audited(asking).findings)
    chain = Chain()
    chain.policy(Policy((budget("all", "*", (5000, 60), consent="none"),)))
    mail(chain, 1, purpose="analytics")
    assert [] == audited(chain).findings


def test_consent_before_the_range_is_not_covered_and_not_passed_over():
    chain = Chain(first=256)
    chain.policy(ASKS)
    mail(chain, 1, used(9))
    mail(chain, 1, used(9, chain="gone"))
    report = audited(chain)
    assert [] == report.findings
    assert {"decisions that rest on consent given before or outside of the range": 2} == report.not_covered
    chain = Chain(first=256)
    mail(chain, 1)
    assert {
        "decisions about persons before the first policy of the range",
        "spends before the first policy of the range",
    } == set(audited(chain).not_covered)


def test_consent_that_lies_in_another_chain_is_followed_there():
    one, two = Chain("c1"), Chain("c2")
    for chain in (one, two):
        chain.policy(ASKS)
    grant = say(two, "granted", 1)
    revoke = say(two, "revoked", 30, previous=("c2", grant))
    mail(one, 31.5, used(grant, "c2"))
    assert [] == audited(one, two).findings
    assert [] == audited(two, one).findings
    for consents, at, said in (
        (used(grant, "c2"), 60, "had said something else since"),
        (used(revoke, "c2"), 60, "in which the person said no"),
        (used(0, "c2"), 60, "is no consent"),
    ):
        more = Chain("c1")
        more.bodies = [*one.bodies]
        seq = mail(more, at, consents)
        (finding,) = audited(more, two).findings
        assert ("c1", seq) == (finding.chain, finding.seq)
        assert said in finding.message


def test_consent_of_this_chain_that_was_withdrawn_in_another_is_found():
    one, two = Chain("c1"), Chain("c2")
    for chain in (one, two):
        chain.policy(ASKS)
    grant = say(one, "granted", 1)
    say(two, "revoked", 10, previous=("c1", grant))
    mail(one, 12, used(grant, "c1"))
    assert [] == audited(one, two).findings
    seq = mail(one, 40, used(grant, "c1"))
    assert [("c1", seq)] == [(each.chain, each.seq) for each in audited(one, two).findings]


def test_consents_of_a_real_guard_are_never_reported():
    clock = FakeClock(T0)
    with BudgetGuard.open(None, policy=ASKS, clock=clock) as guard:
        for number in range(6):
            clock.advance(1)
            with suppress(Denied):
                guard.spend(1, ["customer:c-1", "channel:mail"])
            with suppress(Denied):
                guard.spend(1, ["customer:c-1"], purpose="analytics")
            (guard.consents.grant if number % 2 else guard.consents.revoke)("c-1", "marketing")
        reader = guard.decider.ledger.store
        report = of_reader(reader)
        assert (2, []) == (report.consents, report.findings)


# -- form --------------------------------------------------------------------------------------------


def test_entries_that_nothing_of_kiki_writes_are_findings_and_no_crash(chain):
    class Strange(msgspec.Struct, array_like=True, tag="strange"):
        at: int

    strange = chain.add(Strange(T0))
    chain.bodies.append(b"\x02not an entry")
    chain.bodies.append(b"")
    chain.bodies.append(b"\x09")
    policy = chain.add(PolicyUsed(T0, b"{"))
    report = audited(chain)
    assert [strange, strange + 1, strange + 2, strange + 3, policy] == [each.seq for each in report.findings]
    assert {Kind.STRUCTURE} == set(kinds(report))


@pytest.mark.parametrize(
    "fact",
    [
        Decided("steal", T0, "", 0, [[]], [1]),
        Decided("spend", -1, "", 0, [[]], [1]),
        Decided("spend", 2**63, "", 0, [[]], [1]),
        Decided("spend", T0, "", 0, [[]], []),
        Decided("spend", T0, "", 0, [], [1]),
        Decided("spend", T0, "", 0, [[], []], [1, 1, 1]),
        Decided("spend", T0, "", 0, [[]], [-5]),
        Decided("spend", T0, "", 0, [[]], [2**64 - 1]),
        Decided("reserve", T0, "", 0, [[]], [1], hold="x"),
        Decided("reserve", T0, "", 0, [[]], [1, 1], hold=A),
        Decided("reserve", T0, "", 0, [[]], [1], hold=A, deadline=T0),
        Decided("reserve", T0, "", 0, [[]], [1], hold=A, deadline=2**64 - 1),
        Settled("commit", 2**64 - 1, "", 0, A, 1, 1),
        Settled("commit", T0, "", 0, A, -1, 1),
        Opened(T0, "1", "local", "", "another"),
    ],
    ids=repr,
)
def test_facts_that_cannot_be_are_findings(chain, fact):
    seq = chain.add(fact, at=T0)
    assert [(Kind.STRUCTURE, seq)] == [(each.kind, each.seq) for each in audited(chain).findings]


def test_sums_that_no_cell_can_hold_are_overruns(chain):
    for _ in range(3):
        chain.add(Decided("spend", T0, "", 0, [[]], [2**63 - 1] * 3))
    assert [Kind.OVERRUN] == kinds(audited(chain))


def test_order_and_time_go_forward(chain):
    chain.spend(1, 10)
    body = encode_entry(7, T0 + 5 * SECOND, Decided("spend", T0 + 5 * SECOND, "", 0, [[]], [1]))
    chain.bodies.append(body)
    chain.add(Decided("spend", T0 + 99 * SECOND, "", 0, [[]], [1]), at=T0)
    messages = " ".join(each.message for each in audited(chain).findings)
    for said in ("calls itself entry 7", "recorded before", "decided before", "decided after it was recorded"):
        assert said in messages


def test_sealed_parts_have_a_form(chain):
    good = Sealed(b"k" * 16, b"n" * 24, b"c" * 32, b"x" * 16)
    seq = chain.add(Halted(T0, "*", on=True), sealed=[good])
    assert ([], 1) == (audited(chain).findings, audited(chain).chains[0].sealed)
    for bad in ({"key_id": b""}, {"nonce": b"n"}, {"commitment": b"c"}, {"ciphertext": b"in clear"}):
        chain.add(Halted(T0, "*", on=False), sealed=[good, msgspec.structs.replace(good, **bad)])
    assert [seq + 1, seq + 2, seq + 3, seq + 4] == [each.seq for each in audited(chain).findings]


def test_a_forged_ledger_does_not_fill_the_memory(chain, monkeypatch):
    monkeypatch.setattr("kiki.shield.audit_finding.KEPT_MAX", 5)
    for _ in range(20):
        chain.add(Decided("steal", T0, "", 0, [[]], [1]))
    report = audited(chain)
    assert (5, 20, False) == (len(report.findings), report.finding_count, report.holds)
