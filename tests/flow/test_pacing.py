from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.flow.pacing import DayLine, DualPacer, day_budget, elapsed, weekday_weights

FIRST = date(2026, 3, 2)  # a Monday
DAYS = [FIRST + timedelta(days=each) for each in range(14)]
UNIT = 1_000_000


def test_a_days_buyers_come_in_the_middle_of_it():
    assert 0 == elapsed(0)
    assert pytest.approx(1) == elapsed(1)
    assert elapsed(0.25) < 0.25
    assert pytest.approx(0.5) == elapsed(0.5)
    assert all(elapsed(each / 100) <= elapsed((each + 1) / 100) for each in range(100))


@given(
    st.integers(0, 50 * UNIT),
    st.lists(st.tuples(st.integers(1, 10 * UNIT), st.integers(1, 10 * UNIT)), max_size=200),
)
def test_never_pays_more_than_its_budget_whatever_the_prices_are(budget, auctions):
    pacer, paid = DualPacer(budget, 100), 0
    for number, (value, price) in enumerate(auctions):
        cost = price if pacer.bid(value) >= price else 0
        paid += cost
        pacer.told(cost, min(1.0, number / 100))
    assert paid <= budget
    assert budget - paid == pacer.left


def test_bids_less_when_money_goes_too_fast_and_more_when_it_goes_too_slowly():
    pacer = DualPacer(1000 * UNIT, 1000)
    for number in range(100):
        pacer.told(5 * UNIT, number / 1000)
    fast = pacer.shading
    assert fast > 1
    for number in range(100, 600):
        pacer.told(0, number / 1000)
    assert 1 <= pacer.shading < fast


def line(total=1400 * UNIT, weights=()):
    return DayLine(total=total, days=DAYS, weights=weights)


def paced(spent, day, *, before=None, change=10.0, step=10_000, least=0, of=None):
    return day_budget(of or line(), day, spent, before=before, change=change, step=step, least=least)


def test_a_campaign_on_its_line_gets_what_was_planned():
    assert 100 * UNIT == paced({}, DAYS[0])
    spent = {str(day): 100 * UNIT for day in DAYS[:5]}
    assert 100 * UNIT == paced(spent, DAYS[5])


def test_what_a_day_did_not_spend_is_spread_over_the_rest():
    spent = {str(day): 30 * UNIT for day in DAYS[:4]}
    assert 128 * UNIT == paced(spent, DAYS[4])  # (1400 - 120) / 10


def test_a_day_that_nobody_reported_counts_as_planned():
    assert 100 * UNIT == paced({}, DAYS[9])


def test_a_budget_moves_by_no_more_than_the_platform_bears():
    assert 120 * UNIT == paced({str(DAYS[0]): 0}, DAYS[13], before=100 * UNIT, change=0.2)
    assert 80 * UNIT == paced({str(day): 107 * UNIT for day in DAYS[:13]}, DAYS[13], before=10 * UNIT) + 71 * UNIT


def test_but_is_never_more_than_what_is_left():
    spent = {str(day): 107 * UNIT for day in DAYS[:13]}
    assert 9 * UNIT == paced(spent, DAYS[13], before=100 * UNIT, change=0.2)
    assert 0 == paced(spent, DAYS[13], least=10 * UNIT)
    assert 0 == paced({str(DAYS[0]): 1400 * UNIT}, DAYS[1])


def test_a_day_on_which_it_does_not_run_costs_nothing():
    assert 0 == paced({}, FIRST - timedelta(days=1))


@given(st.lists(st.floats(0, 2), min_size=14, max_size=14), st.floats(0, 1))
def test_days_that_spend_within_their_budgets_stay_within_the_sum(shares, change):
    spent, before = {}, None
    for day, share in zip(DAYS, shares, strict=True):
        before = paced(spent, day, before=before, change=change)
        assert before % 10_000 == 0
        spent[str(day)] = int(before * min(share, 1))
    assert sum(spent.values()) <= 1400 * UNIT


def test_weekdays_tell_something_after_two_weeks():
    spent = {str(day): (300 if day.weekday() == 5 else 100) * UNIT for day in DAYS}
    assert () == weekday_weights({str(day): 1 for day in DAYS[:13]})
    weights = weekday_weights(spent)
    assert max(weights) == weights[5]
    assert pytest.approx(7) == sum(weights)
    assert () == weekday_weights({str(day): 0 for day in DAYS})
    weighted = line(weights=weights)
    assert paced({}, DAYS[5], of=weighted) > paced({}, DAYS[0], of=weighted)
    assert 1400 * UNIT >= sum(weighted.planned(day) for day in DAYS)
