"""Histories of customers who stand in no log."""

from __future__ import annotations

import math
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value.history import History, purchases_of, purchases_of_orders

END = date(2025, 6, 30)


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ((1, 5, 4), "larger than the age"),
        ((-1, 0, 4), "whole number"),
        ((1.5, 2, 4), "whole number"),
        ((0, 2, 4), "without a repeat purchase"),
        ((2, 0, 4), "above 0"),
        ((1, -2, 4), "0 or more"),
        ((0, 0, -4), "0 or more"),
        ((1, math.nan, 4), "not a number"),
        ((1, 2, math.inf), "not a number"),
        ((math.nan, 2, 4), "not a number"),
        ((1, 2, 4, -1), "an amount"),
        ((1, 2, 4, math.nan), "an amount"),
        ((1, 2, 4, 1e12), "an amount"),
    ],
)
def test_a_history_that_cannot_be_is_refused_with_the_reason(history, said: str):
    with pytest.raises(InvalidInput, match=said):
        History(*history)


def test_more_purchases_than_days_and_a_lifetime_of_ages_are_refused():
    with pytest.raises(InvalidInput, match="15 repeat purchases in 14 days"):
        purchases_of([History(15, 2, 4)], END)
    with pytest.raises(InvalidInput, match="cannot be: at most"):
        purchases_of([History(0, 0, 10_000)], END)
    with pytest.raises(InvalidInput, match="no history"):
        purchases_of([], END)


def test_a_summary_becomes_whole_days_and_money():
    found = purchases_of([History(2, 30.43, 38.86, 22.35), History(0, 0, 1)], END, currency="EUR")
    assert ([2, 0], [213, 0], [272, 7]) == (found.x.tolist(), found.tx.tolist(), found.T.tolist())
    assert [22.35, 0] == pytest.approx(found.first_amount.tolist())
    assert [44.70, 0] == pytest.approx(found.sum_amount_repeat.tolist())
    assert ([2, 0], [0, 0]) == (found.positive_repeats.tolist(), found.zero_orders.tolist())
    assert ("EUR", ["0", "1"]) == (found.currency, found.ids.tolist())


def test_an_amount_of_zero_is_free_orders_and_an_unknown_one_is_nothing():
    found = purchases_of([History(2, 3, 4, 0), History(2, 3, 4)], END)
    assert ([3, 0], [0, 0]) == (found.zero_orders.tolist(), found.positive_repeats.tolist())


@given(
    st.lists(st.tuples(st.integers(0, 900), st.floats(0, 1000)), min_size=1, max_size=20),
    st.sampled_from(["day", "week", "month"]),
)
def test_orders_and_their_summary_are_the_same_history(lines, unit: str):
    """What a summary can say, it says as the dated orders do."""
    orders = [(END - timedelta(days=days), amount) for days, amount in lines]
    dated = purchases_of_orders(orders, END, unit)
    days = {"day": 1.0, "week": 7.0, "month": 365.25 / 12}[unit]
    x, tx, age = int(dated.x[0]), float(dated.tx[0]) / days, float(dated.T[0]) / days
    summed = purchases_of([History(x, tx, age, float(dated.sum_amount[0]) / (x + 1))], END, unit)
    assert (x, dated.tx[0], dated.T[0]) == (summed.x[0], summed.tx[0], summed.T[0])
    assert float(dated.sum_amount[0]) == pytest.approx(float(summed.sum_amount[0]), abs=1e-4)


@given(st.integers(0, 200), st.integers(0, 900), st.integers(0, 900))
def test_purchases_of_a_summary_are_spread_evenly(x: int, tx: int, idle: int):
    """Recent windows count the evenly spread days, and never more purchases than there were."""
    tx = max(tx, x) if x else 0
    found = purchases_of([History(x, tx, tx + idle)], END, "day")
    places = np.linspace(0, tx, x + 1) if x else np.zeros(1)
    for weeks, name in ((4, "last_4_weeks"), (13, "last_13_weeks"), (26, "last_26_weeks")):
        assert np.sum(places > tx + idle - 7 * weeks + 1e-6) == getattr(found, name)[0]


def test_orders_after_the_day_have_not_happened_yet():
    orders = [(END, 10.0), (END + timedelta(days=1), 99.0), (END - timedelta(days=30), 5.0)]
    found = purchases_of_orders(orders, END, customer="c", currency="EUR")
    assert (1, 30, 30, 5.0, "c") == (found.x[0], found.tx[0], found.T[0], found.first_amount[0], found.ids[0])
    refunded = purchases_of_orders([*orders, (END, -10.0)], END)
    assert 0 == refunded.x[0]


@pytest.mark.parametrize("orders", [[], [(END, math.nan)], [(END, math.inf)], [(END, 1e10)], [(END, 5.0), (END, -5.0)]])
def test_orders_without_a_purchase_are_refused(orders):
    with pytest.raises(InvalidInput):
        purchases_of_orders(orders, END)
