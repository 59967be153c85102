from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value import bg_nbd
from kiki.value.order_log import read_orders
from kiki.value.orders import day_number
from kiki.value.purchases import summarise
from kiki.value.tracking import track

CDNOW = np.array([0.2426, 4.4136, 0.7929, 2.4259])


def log(*lines: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame([{"customer_id": who, "date": day, "amount": 10} for who, day in lines])


def one_a_week(age):
    """A model that expects one purchase a week of everybody."""
    return np.asarray(age, dtype=float)


def test_weeks_end_with_the_calibration_and_count_what_happened():
    orders = read_orders(
        log(("a", "2025-01-01"), ("a", "2025-01-09"), ("a", "2025-01-16"), ("b", "2025-01-08"), ("b", "2025-01-30"))
    )
    found = track(orders, summarise(orders, date(2025, 1, 14)), one_a_week)
    assert [date(2025, 1, 7), date(2025, 1, 14), date(2025, 1, 21), date(2025, 1, 28)] == [
        date.fromordinal(day + date(1970, 1, 1).toordinal()) for day in found.ends.tolist()
    ]
    assert [0, 1, 1, 0] == found.actual.tolist()
    # By 01-07 a is 6 days old; then 7 more of a and 6 of b; then 7 of each.
    assert [6 / 7, 13 / 7, 2, 2] == pytest.approx(found.expected.tolist())
    assert day_number(date(2025, 1, 14)) == found.calibration_end
    assert 4 / 1 - 1 == found.holdout_error


def test_customers_who_come_later_are_not_followed():
    orders = read_orders(log(("a", "2025-01-01"), ("z", "2025-01-20"), ("z", "2025-01-22"), ("a", "2025-02-20")))
    found = track(orders, summarise(orders, date(2025, 1, 7)), one_a_week)
    assert 0 == found.actual.sum()
    assert found.holdout_error is None


def test_without_a_holdout_the_plot_ends_with_the_calibration():
    orders = read_orders(log(("a", "2025-01-01"), ("a", "2025-01-09")))
    found = track(orders, summarise(orders), one_a_week)
    assert found.calibration_end == found.ends[-1]
    assert [0, 1] == found.actual.tolist()
    assert found.holdout_error is None


def test_one_customer_of_one_day_is_a_week():
    orders = read_orders(log(("a", "2025-01-01")))
    found = track(orders, summarise(orders), one_a_week)
    assert [[0], [0.0]] == [found.actual.tolist(), found.expected.tolist()]


def test_a_log_that_ends_long_before_the_calibration_has_only_whole_weeks():
    orders = read_orders(log(("a", "2025-01-01"), ("a", "2025-01-09")))
    found = track(orders, summarise(orders, date(2025, 2, 28)), one_a_week)
    assert found.ends[-1] <= day_number(date(2025, 1, 9))
    with pytest.raises(InvalidInput, match="not one whole week"):
        track(orders, summarise(orders, date(2025, 2, 28)), one_a_week, date(2025, 1, 2))


def test_the_unit_is_the_models():
    orders = read_orders(log(("a", "2025-01-01"), ("a", "2025-01-31")))
    by_week = track(orders, summarise(orders, unit="week"), one_a_week).expected
    by_day = track(orders, summarise(orders, unit="day"), one_a_week).expected
    assert (by_week * 7).tolist() == pytest.approx(by_day.tolist())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 120)), min_size=1, max_size=60),
    st.integers(0, 150),
)
def test_no_purchase_is_lost_and_expectations_add_up(lines, cut):
    first = date(2025, 1, 1).toordinal()
    frame = log(*((who, date.fromordinal(first + day).isoformat()) for who, day in lines))
    orders = read_orders(frame)
    calibration_end = date.fromordinal(first + max(cut, min(day for _, day in lines)))
    purchases = summarise(orders, calibration_end)
    try:
        found = track(orders, purchases, lambda age: bg_nbd.expected_new(CDNOW, age))
    except InvalidInput:
        return
    last = int(found.ends[-1])
    days = {(who, day_number(date.fromordinal(first + day))) for who, day in lines}
    followed = dict(zip(purchases.ids, purchases.first_day.tolist(), strict=True))
    assert sum(followed[who] < day <= last for who, day in days if who in followed) == found.actual.sum()
    ages = np.maximum(last - purchases.first_day, 0) / 7
    assert bg_nbd.expected_new(CDNOW, ages).sum() == pytest.approx(found.expected.sum(), abs=1e-9)
    assert (found.expected >= -1e-12).all()
