from datetime import date, timedelta

import numpy as np
import pytest

from kiki.errors import InvalidInput
from kiki.flow.spend_forecast import forecast_spend

FIRST = date(2026, 3, 1)


def days(amounts):
    return {FIRST + timedelta(days=number): int(each) for number, each in enumerate(amounts)}


def test_a_forecast_stops_where_spending_stops():
    seen = days([100, 110, 90, 105, 95, 100, 90, 110, 100, 100])
    free = forecast_spend(seen, date(2026, 3, 31))
    cut = forecast_spend(seen, date(2026, 3, 31), limit=1500)
    assert free.low > 1500 == cut.mean == cut.low == cut.high
    assert free == forecast_spend(seen, date(2026, 3, 31), limit=10**9)
    assert cut.spent == forecast_spend(seen, date(2026, 3, 31), limit=500).high


def test_too_few_days_are_refused():
    with pytest.raises(InvalidInput, match="2 days are reported; a forecast needs 3"):
        forecast_spend(days([1, 2]), date(2026, 3, 31))


def test_when_the_month_is_over_there_is_nothing_to_guess():
    found = forecast_spend(days([10] * 31), date(2026, 3, 31))
    assert ("none", 310, 310, 310) == (found.method, found.low, found.mean, found.high)


def test_steady_spend_goes_on():
    found = forecast_spend(days([100_000_000] * 10), date(2026, 3, 31))
    assert 3_100_000_000 == found.mean == found.low == found.high
    assert (10, 21, "mean") == (found.days_seen, found.days_to_come, found.method)


def test_a_gap_counts_as_nothing_spent():
    found = forecast_spend(
        {FIRST: 100, FIRST + timedelta(days=1): 100, FIRST + timedelta(days=3): 100}, date(2026, 3, 8)
    )
    assert 4 == found.days_seen
    assert found.low < found.mean < found.high
    assert pytest.approx(600, rel=0.02) == found.mean


def test_weekdays_are_seen_and_the_interval_holds_about_as_often_as_it_says():
    chance, held, rounds = np.random.default_rng(4), 0, 12
    for number in range(rounds):
        weekday = 1 + 0.3 * chance.standard_normal(7)
        amounts = 1e8 * weekday[np.arange(31) % 7] * np.exp(0.1 * chance.standard_normal(31))
        found = forecast_spend(days(amounts[:20]), date(2026, 3, 31), seed=number)
        assert "weekdays" == found.method
        held += found.low <= amounts.sum() <= found.high
    assert held >= 7  # of 12 at 0.8: less happens once in 250 times


def test_the_same_question_has_the_same_answer():
    seen = days([90e6, 120e6, 100e6, 80e6, 110e6, 95e6, 105e6, 99e6, 130e6])
    assert forecast_spend(seen, date(2026, 3, 31)) == forecast_spend(seen, date(2026, 3, 31))
