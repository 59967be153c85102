"""A caller's rate: bursts of a second's worth, a steady rate after it, a table that stays small."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.web.rate import RateLimit


def test_a_burst_of_one_second_then_the_rate():
    limit = RateLimit(10)
    assert [limit.take("a", 0.0) for _ in range(10)] == [0.0] * 10
    assert limit.take("a", 0.0) == pytest.approx(0.1)
    assert limit.take("b", 0.0) == 0.0, "each caller has its own"
    assert limit.take("a", 0.1) == 0.0
    assert limit.take("a", 0.1) > 0


def test_a_refusal_costs_nothing_and_its_wait_is_true():
    limit = RateLimit(0.5)
    assert limit.take("a", 0.0) == 0.0
    for _ in range(5):
        wait = limit.take("a", 0.5)
        assert wait == pytest.approx(1.5)
    assert limit.take("a", 0.5 + wait) == 0.0


def test_made_up_callers_neither_fill_memory_nor_free_anybody():
    limit = RateLimit(1, callers_max=100)
    limit.take("greedy", 0.0)
    admitted = sum(limit.take(f"made-up-{number}", 0.0) == 0.0 for number in range(10_000))
    assert admitted == 100, "99 places of their own and one that the rest shares"
    assert limit.take("greedy", 0.0) > 0
    assert len(limit._full_at) <= 101
    assert limit.take("late", 5.0) == 0.0, "quiet callers were forgotten"


@given(
    st.floats(0.5, 50),
    st.lists(st.tuples(st.floats(0, 0.5), st.sampled_from("ab")), max_size=200),
)
def test_never_more_than_the_burst_and_the_rate(rate, steps):
    limit, now, taken, started = RateLimit(rate), 0.0, {"a": 0, "b": 0}, {}
    for pause, caller in steps:
        now += pause
        started.setdefault(caller, now)
        if limit.take(caller, now) == 0.0:
            taken[caller] += 1
        assert taken[caller] <= max(1.0, rate) + rate * (now - started[caller]) + 1e-3
