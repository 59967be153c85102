"""How often an account is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.clock import SECOND
from kiki.outbound.rate_budget import ASKED_MAX, MINUTE, RateBudget, reset_at, retry_after

NOW = 1_796_000_000 * SECOND


@given(st.integers(1, 300), st.lists(st.integers(0, 5 * SECOND), max_size=400))
def test_no_minute_has_more_calls_than_the_limit(per_minute: int, pauses: list[int]) -> None:
    budget, now, sent = RateBudget(per_minute), NOW, []
    for pause in pauses:
        now += pause
        wait = budget.take(now, patience=3600 * SECOND)
        assert wait is not None
        sent.append(now + wait)
    for first in sent:
        assert sum(first <= moment < first + MINUTE for moment in sent) <= per_minute


def test_a_quarter_of_the_limit_goes_out_at_once() -> None:
    budget = RateBudget(100)
    assert [0] * 25 == [budget.take(NOW) for _ in range(25)]
    assert budget.take(NOW) is None
    assert budget.free_at(NOW) == NOW + MINUTE // 75


def test_what_is_refused_is_not_booked() -> None:
    budget = RateBudget(4)
    assert budget.take(NOW) == 0
    free_at = budget.free_at(NOW)
    for _ in range(10):
        assert budget.take(NOW) is None
    assert budget.free_at(NOW) == free_at


def test_without_a_limit_only_the_platforms_word_counts() -> None:
    budget = RateBudget()
    assert {budget.take(NOW) for _ in range(1000)} == {0}
    budget.close(NOW + SECOND, NOW)
    assert budget.take(NOW) is None
    assert budget.take(NOW, patience=SECOND) == SECOND
    assert budget.take(NOW + SECOND) == 0


def test_a_platform_closes_an_account_for_a_day_at_most() -> None:
    budget = RateBudget()
    budget.close(NOW + 10**18, NOW)
    assert budget.free_at(NOW) == NOW + ASKED_MAX
    budget.close(NOW - 1, NOW)
    assert budget.free_at(NOW) == NOW + ASKED_MAX


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("0.25", 0.25),
        (" 7 ", 7),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e99", None),
        ("soon", None),
        ("", None),
        ("Mon, 99 Zzz", None),
        ("Mon, 30 Nov 2026 00:53:20 GMT", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_nothing_else(text: str, seconds: float | None) -> None:
    expected = None if seconds is None else NOW + round(seconds * SECOND)
    assert expected == retry_after({"retry-after": text}, NOW)


def test_a_limit_that_is_used_up_opens_at_its_reset() -> None:
    names = ("x-remaining", "x-reset")
    assert reset_at({"x-remaining": "0", "x-reset": "1796000100"}, *names) == 1_796_000_100 * SECOND
    for headers in (
        {},
        {"x-remaining": "1", "x-reset": "1796000100"},
        {"x-remaining": "0"},
        {"x-remaining": "0", "x-reset": "tomorrow"},
        {"x-remaining": "-", "x-reset": "1796000100"},
        {"x-remaining": "²", "x-reset": "1796000100"},
    ):
        assert reset_at(headers, *names) is None
