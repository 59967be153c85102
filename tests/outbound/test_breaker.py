"""The breaker: when a platform is left alone, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kiki.clock import SECOND
from kiki.outbound.breaker import PROBE_WAIT, Breaker, BreakerRule, BreakerState

RULE = BreakerRule()
NOW = 1_000_000 * SECOND
OPEN = 30 * SECOND


def _fail(breaker: Breaker, times: int, now: int = NOW) -> None:
    for _ in range(times):
        ticket = breaker.admit(now)
        assert ticket is not None
        breaker.failed(ticket, now)


def _answer(breaker: Breaker, now: int, took: int = 0) -> None:
    ticket = breaker.admit(now)
    assert ticket is not None
    breaker.answered(ticket, now, took)


def test_opens_after_three_failures_in_a_row() -> None:
    breaker = Breaker(RULE)
    _fail(breaker, 2)
    assert breaker.state(NOW) is BreakerState.CLOSED
    _fail(breaker, 1)
    assert breaker.state(NOW) is BreakerState.OPEN
    assert breaker.admit(NOW) is None
    assert breaker.retry_at(NOW) == NOW + OPEN


def test_an_answer_in_between_begins_the_count_anew() -> None:
    breaker = Breaker(RULE)
    _fail(breaker, 2)
    _answer(breaker, NOW)
    _fail(breaker, 2)
    assert breaker.state(NOW) is BreakerState.CLOSED


def test_after_thirty_seconds_one_call_at_a_time_tries_and_two_successes_close_it() -> None:
    breaker = Breaker(RULE)
    _fail(breaker, 3)
    assert breaker.admit(NOW + OPEN - 1) is None
    later = NOW + OPEN
    assert breaker.state(later) is BreakerState.HALF_OPEN
    ticket = breaker.admit(later)
    assert ticket is not None
    assert breaker.admit(later) is None, "another call went out beside the one that tries"
    assert breaker.retry_at(later) == later + PROBE_WAIT
    breaker.answered(ticket, later, 0)
    assert breaker.state(later) is BreakerState.HALF_OPEN
    _answer(breaker, later)
    assert breaker.state(later) is BreakerState.CLOSED


def test_one_failure_while_trying_opens_it_again() -> None:
    breaker = Breaker(RULE)
    _fail(breaker, 3)
    _answer(breaker, NOW + OPEN)
    _fail(breaker, 1, NOW + OPEN)
    assert breaker.state(NOW + 2 * OPEN - 1) is BreakerState.OPEN
    _answer(breaker, NOW + 2 * OPEN)
    assert breaker.state(NOW + 2 * OPEN) is BreakerState.HALF_OPEN, "a success before the failure still counted"


def test_a_trying_call_that_was_cancelled_gives_its_place_free() -> None:
    breaker = Breaker(RULE)
    _fail(breaker, 3)
    ticket = breaker.admit(NOW + OPEN)
    assert ticket is not None
    breaker.given_up(ticket)
    assert breaker.admit(NOW + OPEN) is not None


def test_a_slow_answer_opens_it_where_slowness_counts() -> None:
    patient, hasty = Breaker(RULE), Breaker(BreakerRule(slow_seconds=0.5))
    for breaker in (patient, hasty):
        _answer(breaker, NOW, took=SECOND // 2)
        assert breaker.state(NOW) is BreakerState.CLOSED
        _answer(breaker, NOW, took=SECOND // 2 + 1)
    assert patient.state(NOW) is BreakerState.CLOSED
    assert hasty.state(NOW) is BreakerState.OPEN


def test_calls_from_before_it_opened_say_nothing_about_the_time_after() -> None:
    breaker = Breaker(RULE)
    old = breaker.admit(NOW)
    assert old is not None
    _fail(breaker, 3)
    breaker.failed(old, NOW + OPEN - 1)
    assert breaker.retry_at(NOW) == NOW + OPEN, "a straggler prolonged it"
    breaker.answered(old, NOW + OPEN, 0)
    _answer(breaker, NOW + OPEN)
    assert breaker.state(NOW + OPEN) is BreakerState.HALF_OPEN, "a straggler counted as a success"


@given(st.lists(st.tuples(st.sampled_from(["answered", "failed", "given_up"]), st.integers(0, 40 * SECOND))))
def test_it_never_stays_shut_for_longer_than_it_says(calls: list[tuple[str, int]]) -> None:
    breaker, now = Breaker(RULE), NOW
    for kind, pause in calls:
        now += pause
        ticket = breaker.admit(now)
        if ticket is None:
            now = breaker.retry_at(now)
            assert now <= NOW + len(calls) * (40 * SECOND + OPEN)
            ticket = breaker.admit(now)
            assert ticket is not None
        if kind == "given_up":
            breaker.given_up(ticket)
        elif kind == "failed":
            breaker.failed(ticket, now)
        else:
            breaker.answered(ticket, now, 0)
