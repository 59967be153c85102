"""Waits grow, end, and differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.ledger.backoff import MOST_SECONDS, Backoff, backoff_seconds


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (10**9, 300)])
def test_each_wait_is_twice_the_last_up_to_the_most(failures, seconds):
    assert seconds == backoff_seconds(failures, 0.0)


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_chance_takes_away_up_to_half(failures, chance):
    longest = backoff_seconds(failures, 0.0)
    assert longest / 2 <= backoff_seconds(failures, chance) <= longest <= MOST_SECONDS


def test_after_a_failure_nothing_is_ready_until_the_wait_is_over_and_success_ends_it():
    now = [0.0]
    backoff = Backoff(lambda: now[0], lambda: 0.0)
    assert backoff.is_ready
    assert [1.0, 2.0] == [backoff.failed(), backoff.failed()]
    now[0] = 1.9
    assert not backoff.is_ready
    now[0] = 2.0
    assert backoff.is_ready
    backoff.failed()
    backoff.succeeded()
    assert backoff.is_ready
    assert (3, 0) == (backoff.failures, backoff.in_a_row)
    assert 1.0 == backoff.failed()
