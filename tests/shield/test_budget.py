"""The meter of a sliding window, beside a plain list of what was spent when."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.shield.budget import SLOTS, Meter, MeterRule, Reason, Refusal, binding, judge_ltv, refuse
from kiki.shield.policy import Limit

SECOND = 1_000_000
START = 1_700_000_000 * SECOND


def rule_of(limit=100, span=60 * SECOND):
    return MeterRule.of("b", Limit(limit, span))


def take(meter, amount, now):
    """Spend if it fits, as a window does."""
    if now >= meter.due:
        meter.advance(now)
    if amount > meter.room:
        return False
    meter.charge(amount)
    return True


class Log:
    """Every spend with its moment: what a window of the exact length sums up."""

    def __init__(self):
        self.spends = []

    def within(self, now, span):
        """The sum over (now - span, now]."""
        return sum(amount for at, amount in self.spends if now - span < at <= now)


SPANS = st.sampled_from([1, 7, 599, 600, 601, 1_000, 60 * SECOND, 3600 * SECOND, 60 * SECOND + 1])
STEPS = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 100), st.floats(0, 1.3))
TRAFFIC = st.lists(st.tuples(STEPS, st.integers(1, 60)), max_size=60)


def moments(span, traffic):
    """The traffic as (moment, amount): a fractional step is a part of the span."""
    now = START
    for step, amount in traffic:
        now += round(step * span) if isinstance(step, float) else step
        yield now, amount


@settings(max_examples=300)
@given(SPANS, TRAFFIC)
def test_no_window_is_ever_over(span, traffic):
    """What was admitted in any (t - span, t] is at most the limit, to the unit."""
    meter, log = Meter(rule_of(100, span)), Log()
    for now, amount in moments(span, traffic):
        if take(meter, amount, now):
            log.spends.append((now, amount))
    # Sums are largest right at a spend, so these windows are all that matter.
    assert max((log.within(at, span) for at, _ in log.spends), default=0) <= 100


@settings(max_examples=300)
@given(SPANS, TRAFFIC)
def test_at_most_one_slot_late(span, traffic):
    """Whatever an exact log over span + one slot would admit, the meter admits."""
    rule = rule_of(100, span)
    meter, log = Meter(rule), Log()
    for now, amount in moments(span, traffic):
        due = log.within(now, span + rule.width) + amount <= 100
        admitted = take(meter, amount, now)
        assert admitted or not due
        if admitted:
            log.spends.append((now, amount))


@settings(max_examples=300)
@given(SPANS, TRAFFIC, st.integers(1, 100))
def test_the_moment_when_it_fits_is_exact(span, traffic, amount):
    """When nothing else happens the amount fits at `fits_at`, and not one microsecond before."""
    meter = Meter(rule_of(100, span))
    now = START
    for now, spent in moments(span, traffic):
        take(meter, spent, now)
    meter.advance(now)
    if amount <= meter.room:
        return
    moment = meter.fits_at(amount)
    assert moment is not None
    assert moment > now
    meter.advance(moment - 1)
    assert meter.room < amount
    meter.advance(moment)
    assert meter.room >= amount


@settings(max_examples=200)
@given(SPANS, TRAFFIC, st.lists(st.tuples(st.floats(0, 2), st.integers(1, 40)), max_size=5), st.integers(1, 100))
def test_the_moment_counts_holds_that_run_out(span, traffic, holds, amount):
    """An open hold becomes a spend at its deadline, so its money comes back one window later, exactly then."""
    meter = Meter(rule_of(100, span))
    now = START
    for now, spent in moments(span, traffic):
        take(meter, spent, now)
    meter.advance(now)
    deadlines = []
    for after, held in holds:
        if held <= meter.room:
            meter.hold(held)
            deadlines.append((now + 1 + round(after * span), held))
    if amount <= meter.room:
        return
    moment = meter.fits_at(amount, deadlines)
    assert moment is not None

    pending = sorted(deadlines)

    def advance(then):
        while pending and pending[0][0] <= then:
            deadline, held = pending.pop(0)
            meter.advance(deadline)
            meter.free(held, held)
        meter.advance(then)
        return meter.room

    assert advance(moment - 1) < amount
    assert advance(moment) >= amount


def test_nothing_fits_for_ever_when_it_is_above_the_limit():
    """More than the limit never fits, whatever is released."""
    meter = Meter(rule_of(100))
    take(meter, 60, START)
    assert meter.fits_at(101) is None
    assert meter.fits_at(100) is not None


def test_a_hold_without_a_deadline_is_not_predicted():
    """Nobody knows when it ends, so no moment is promised for what needs its money."""
    meter = Meter(rule_of(100))
    meter.advance(START)
    meter.hold(60)
    assert meter.fits_at(50) is None
    assert take(meter, 40, START)


def test_memory_is_flat_and_small():
    """A million microseconds of traffic in every slot keeps at most SLOTS slots and a few, under 16 kB."""
    rule = rule_of(10**12, 60 * SECOND)
    meter, largest, most = Meter(rule), 0, 0
    for number in range(5 * SLOTS):
        for part in range(4):
            assert take(meter, 1, START + number * rule.width + part * (rule.width // 4))
        largest = max(
            largest, sys.getsizeof(meter) + sum(sys.getsizeof(each) for each in (meter._ends, meter._sums) if each)
        )
        most = max(most, len(meter.filled_slots()))
    assert most <= SLOTS + 2
    assert largest <= 16_000
    meter.advance(START + 10 * 60 * SECOND)
    assert meter._ends is None
    assert meter.room == 10**12


@pytest.mark.parametrize("span", [1, 2, 599, 600, 601, 60 * SECOND, 86_400 * SECOND, 60 * SECOND - 1])
def test_a_window_is_at_most_six_hundred_slots(span):
    """The slots of a rule cover its window with at most SLOTS of them, none empty."""
    rule = rule_of(1, span)
    assert rule.width >= 1
    assert SLOTS * rule.width >= span
    assert (rule.width - 1) * SLOTS < span


def test_the_limit_itself_fits_and_one_more_does_not():
    """The bound is inclusive, to the micro."""
    meter = Meter(rule_of(500_000_000))
    assert not take(meter, 500_000_001, START)
    assert take(meter, 499_999_999, START)
    assert not take(meter, 2, START)
    assert take(meter, 1, START)
    assert not take(meter, 1, START)


def test_held_money_counts_until_it_is_freed():
    """A hold takes room whatever time passes; freeing gives the rest back at once and counts what was spent."""
    meter = Meter(rule_of(100))
    meter.advance(START)
    meter.hold(80)
    meter.advance(START + 3600 * SECOND)
    assert (meter.room, meter.held, meter.spent()) == (20, 80, 0)
    meter.free(80, 64)
    assert (meter.room, meter.held, meter.spent()) == (36, 0, 64)
    meter.advance(START + 3660 * SECOND - 1)
    assert meter.room == 36
    meter.advance(START + 3660 * SECOND + meter.rule.width)
    assert (meter.room, meter.spent()) == (100, 0)


def test_a_recorded_overrun_leaves_less_than_nothing_and_heals():
    """`charge` counts beyond the limit; room is negative until enough has left the window."""
    meter = Meter(rule_of(100))
    meter.advance(START)
    meter.charge(250)
    assert meter.room == -150
    moment = meter.fits_at(1)
    meter.advance(moment - 1)
    assert meter.room == -150
    meter.advance(moment)
    assert meter.room == 100


def test_idle_means_that_forgetting_changes_nothing():
    """A meter is idle when it neither counts nor holds anything, and not one microsecond before."""
    meter = Meter(rule_of(100))
    assert meter.is_idle(START)
    take(meter, 10, START)
    gone = meter.fits_at(100)
    assert not meter.is_idle(gone - 1)
    assert meter.is_idle(gone)
    meter.hold(5)
    assert not meter.is_idle(gone + 3600 * SECOND)
    meter.free(5, 0)
    assert meter.is_idle(gone + 3600 * SECOND)


def test_a_refusal_says_all_there_is_to_know():
    """Reason, budget, scope, window, limit, what is left and when it fits."""
    meter = Meter(rule_of(100))
    take(meter, 80, START)
    moment = meter.fits_at(30)
    assert refuse(meter, "*", 30) == Refusal(Reason.BUDGET_EXHAUSTED, "b", "*", 60 * SECOND, 100, 20, moment)
    assert refuse(meter, "*", 101) == Refusal(Reason.ABOVE_LIMIT, "b", "*", 60 * SECOND, 100, 20, None)


def test_the_binding_refusal_is_the_one_that_lasts():
    """Never before unknown, unknown before late, late before soon."""
    soon = Refusal(Reason.BUDGET_EXHAUSTED, "soon", retry_at=10)
    late = Refusal(Reason.BUDGET_EXHAUSTED, "late", retry_at=20)
    unknown = Refusal(Reason.BUDGET_EXHAUSTED, "unknown", retry_at=None)
    never = Refusal(Reason.ABOVE_LIMIT, "never", retry_at=None)
    assert [never, unknown, late, soon] == [
        binding(each) for each in ([soon, late, never, unknown], [soon, unknown, late], [soon, late], [soon])
    ]


@pytest.mark.parametrize(
    ("ltv", "reason"),
    [
        (9_999_999, Reason.LTV_BELOW_MINIMUM),
        (10_000_000, None),
        (600_000_000, None),
        (10_000_000_000, None),
        (10_000_000_001, Reason.LTV_ABOVE_MAXIMUM),
        (0, Reason.LTV_BELOW_MINIMUM),
    ],
)
def test_the_bounds_of_the_value_rule_pass(ltv, reason):
    """A predicted value may be anything from the minimum to the maximum, both included."""
    refusal = judge_ltv(ltv, 10_000_000, 10_000_000_000)
    assert reason == (refusal.reason if refusal else None)
