"""The auditor's sums against a plain list: exact after a slide, and never too small before it."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.money import MICROS_MAX
from kiki.shield import audit_meter
from kiki.shield.audit_meter import Meter, SlidingSum, packed_amount

SPAN = 10
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 4), st.integers(0, 9)),
        st.tuples(st.just("late"), st.integers(-3, 3), st.integers(0, 9)),
        st.tuples(st.just("slide"), st.integers(0, 12), st.just(0)),
    ),
    max_size=120,
)


@pytest.mark.parametrize("with_recorded", [False, True])
@given(steps=STEPS)
def test_a_sum_is_that_of_a_plain_list(with_recorded: bool, steps: list[tuple[str, int, int]]):
    amounts = SlidingSum(SPAN, recorded_at=array("q") if with_recorded else None)
    plain: list[tuple[int, int, int]] = []
    now, latest = 100, 0
    for entry, (what, step, micros) in enumerate(steps):
        if what == "slide":
            now += step
            amounts.slide(now)
            plain = [each for each in plain if each[0] > now - SPAN]
            assert sum(micros for _, micros, _ in plain) == amounts.total
            shown = [entry for _, _, entry in plain]
            assert (shown if len(shown) <= 20 else shown[:10] + shown[-10:]) == list(amounts.entries())
            continue
        at = now = max(now, now + step)
        if what == "late":
            at = now + min(0, step)
            amounts.add_late(at, micros, packed_amount(at, micros, entry), at)
            at = max(at, latest)
        else:
            amounts.add(at, micros, packed_amount(at, micros, entry), at)
        latest = at
        plain.append((at, micros, entry))
        assert amounts.total >= sum(micros for at, micros, _ in plain if at > now - SPAN)


def test_memory_is_bounded_by_what_counts():
    amounts = SlidingSum(SPAN)
    for at in range(10_000):
        amounts.add(at, 1, packed_amount(at, 1, at))
    assert len(amounts._amounts) <= 3 * 4 * SPAN


def test_many_amounts_of_one_moment_are_kept_as_one(monkeypatch):
    monkeypatch.setattr(audit_meter, "_MERGED_FROM", 30)
    amounts = SlidingSum(SPAN)
    for entry in range(1000):
        amounts.add(7, 2, packed_amount(7, 2, entry))
    assert (2000, 11) == (amounts.total, len(amounts.entries()))
    amounts.add(7, MICROS_MAX, packed_amount(7, MICROS_MAX, 1000))
    assert (2000 + MICROS_MAX, 12) == (amounts.total, len(amounts.entries()))
    amounts.slide(7 + SPAN)
    assert 0 == amounts.total


def test_a_life_that_follows_goes_on_counting_what_was_spent_before():
    meter = Meter(SPAN, scope="*", recorded_at=array("q"))
    meter.add(100, 5, packed_amount(100, 5, 0), 1000)
    meter.begin_life(follows=True)
    meter.add(3, 7, packed_amount(3, 7, 1), 1001)
    assert (12, False) == (meter.sure(), meter.is_plain)
    meter.begin_life(follows=False)
    assert (0, True) == (meter.sure(), meter.is_idle())
