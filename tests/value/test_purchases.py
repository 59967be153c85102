"""Summaries: the published ones of CDNOW, and a plain model beside random orders."""

from __future__ import annotations

import itertools
import math
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value.orders import EPOCH, Orders
from kiki.value.purchases import outcomes, summarise

LINES = st.lists(
    st.tuples(st.sampled_from(["01", "1", "é,😀", '"x"']), st.integers(0, 400), st.integers(0, 3_000_000)),
    min_size=1,
    max_size=40,
)


def orders_of(lines):
    names = sorted({line[0] for line in lines})
    return Orders.of_lines(
        np.array(names, dtype=object),
        np.array([names.index(line[0]) for line in lines], dtype=np.int64),
        np.array([line[1] for line in lines], dtype=np.int64),
        np.array([line[2] for line in lines], dtype=np.int64),
    )


def day(number):
    return EPOCH + timedelta(days=number)


@given(LINES, st.integers(0, 400))
def test_a_summary_says_what_each_customer_did(lines, end):
    seen = [line for line in lines if line[1] <= end]
    if not seen:
        with pytest.raises(InvalidInput, match="nobody bought"):
            summarise(orders_of(lines), day(end))
        return
    summary = summarise(orders_of(lines), day(end))
    assert sorted({line[0] for line in seen}) == summary.ids.tolist()
    for row, name in enumerate(summary.ids):
        amounts = {}
        for who, when, amount in seen:
            if who == name:
                amounts[when] = amounts.get(when, 0) + amount
        days = sorted(amounts)
        repeats = [amounts[when] for when in days[1:]]
        positive = [amount for amount in repeats if amount]
        assert (len(days) - 1, days[-1] - days[0], end - days[0]) == (summary.x[row], summary.tx[row], summary.T[row])
        assert (amounts[days[0]], sum(repeats)) == (summary.first_micros[row], summary.repeat_micros[row])
        assert sum(not amount for amount in amounts.values()) == summary.zero_orders[row]
        assert math.isclose(sum(positive) / max(len(positive), 1) / 1e6, summary.mean_amount_repeat[row])
        assert sum(when > end - 28 for when in days) == summary.last_4_weeks[row]
        assert sum(when > end - 91 for when in days) == summary.last_13_weeks[row]
        assert sum(when > end - 182 for when in days) == summary.last_26_weeks[row]
        gaps = sum(math.log(later - earlier) for earlier, later in itertools.pairwise(days))
        assert math.isclose(gaps, summary.sum_log_gaps[row], abs_tol=1e-7)
        assert np.datetime64(day(days[0]), "M") == summary.cohort[row]


@given(LINES, st.integers(0, 399), st.integers(1, 200))
def test_outcomes_are_what_came_after_the_calibration(lines, end, horizon):
    if not any(line[1] <= end for line in lines):
        return
    orders = orders_of(lines)
    summary = summarise(orders, day(end))
    later = outcomes(orders, summary, day(end + horizon))
    for row, name in enumerate(summary.ids):
        own = [(when, amount) for who, when, amount in lines if who == name and end < when <= end + horizon]
        assert (len({when for when, _ in own}), sum(amount for _, amount in own)) == (
            later.purchases[row],
            later.micros[row],
        )


def test_groups_weigh_as_many_customers_as_there_are():
    summary = summarise(orders_of([("01", 1, 5), ("1", 1, 7), ("é,😀", 2, 7)]), day(15))
    groups, place = summary.grouped()
    assert [2.0, 2.0, 13 / 7] == groups.t[place].tolist()
    assert 3 == groups.customers


def test_the_fingerprint_follows_every_value_and_not_the_unit():
    lines = [("01", 1, 5), ("1", 1, 7), ("1", 9, 0)]
    first = summarise(orders_of(lines), day(20)).fingerprint
    assert first == summarise(orders_of(lines[::-1]), day(20), unit="day").fingerprint
    assert first != summarise(orders_of(lines), day(21)).fingerprint
    assert first != summarise(orders_of([*lines[:2], ("1", 9, 1)]), day(20)).fingerprint


def test_customers_are_taken_by_mask_or_place():
    summary = summarise(orders_of([("01", 1, 5), ("1", 1, 7)]), day(20))
    assert ["1"] == summary.take(np.array([False, True])).ids.tolist()
    assert [5] == summary.take(np.array([0])).first_micros.tolist()


def test_what_makes_no_sense_is_refused():
    orders = orders_of([("1", 5, 5)])
    with pytest.raises(InvalidInput, match="not a unit of time"):
        summarise(orders, day(9), unit="year")
    with pytest.raises(InvalidInput, match="nobody bought"):
        summarise(orders, date(1969, 1, 1))
    with pytest.raises(InvalidInput, match="not after the calibration"):
        outcomes(orders, summarise(orders, day(9)), day(9))
