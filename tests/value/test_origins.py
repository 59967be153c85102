from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from kiki.value.orders import Orders, day_number, day_of
from kiki.value.origins import CUSTOMERS_MIN, rolling_origins, sampled
from kiki.value.purchases import outcomes, summarise
from tests.value import buyers

END = date(2021, 6, 28)


@pytest.fixture(scope="module")
def orders() -> Orders:
    return buyers.log(800)


def test_origins_grow_and_the_rest_of_the_calibration_is_forecast_from_each(orders):
    found = rolling_origins(orders, END)
    assert 4 == len(found)
    assert [origin.end for origin in found] == sorted(origin.end for origin in found)
    assert {END} == {origin.until for origin in found}
    assert all(origin.horizon == pytest.approx(origin.days / 7) for origin in found)


def test_no_origin_forecasts_further_than_will_be_asked(orders):
    assert {(10 * 7)} == {origin.days for origin in rolling_origins(orders, END, "week", 10.0)}
    assert all(2.9 < origin.horizon <= 3 for origin in rolling_origins(orders, END, "month", 3.0))


def test_an_origin_knows_nothing_of_what_came_after_it(orders):
    for origin in rolling_origins(orders, END):
        alone = summarise(orders, origin.end)
        assert alone.fingerprint == origin.purchases.fingerprint
        assert outcomes(orders, alone, origin.until).purchases.tolist() == origin.outcomes.purchases.tolist()


def test_what_comes_after_the_calibration_changes_no_origin(orders):
    shorter = Orders.of_lines(
        orders.ids[np.unique(orders.customer[orders.day <= day_number(END)])],
        np.unique(orders.customer[orders.day <= day_number(END)], return_inverse=True)[1],
        orders.day[orders.day <= day_number(END)],
        orders.gross[orders.day <= day_number(END)],
    )
    for whole, cut in zip(rolling_origins(orders, END), rolling_origins(shorter, END), strict=True):
        assert whole.purchases.fingerprint == cut.purchases.fingerprint
    most = 200
    kept = [summarise(sampled(log, END, most), END).fingerprint for log in (orders, shorter)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("days", [1, 10, 27])
def test_a_log_of_days_has_no_usable_origin(orders, days):
    assert [] == rolling_origins(orders, day_of(orders.first_day + days))


def test_a_log_of_few_customers_has_no_usable_origin():
    assert [] == rolling_origins(buyers.log(CUSTOMERS_MIN - 1), END)


def test_a_sample_keeps_whole_customers_and_is_the_same_on_each_call(orders):
    small = sampled(orders, END, 300)
    assert 300 == small.ids.size
    assert small.ids.tolist() == sampled(orders, END, 300).ids.tolist() == sorted(small.ids)
    every = summarise(orders, END)
    kept = summarise(small, END)
    chosen = np.isin(every.ids, kept.ids)
    assert 300 == int(chosen.sum())
    assert every.take(chosen).fingerprint == kept.fingerprint


def test_a_sample_of_more_than_there_are_is_the_log_itself(orders):
    assert sampled(orders, END, 10_000) is orders


def test_a_sample_keeps_the_refunds_of_its_customers():
    lines = [(who, day, 10_000_000) for who in range(200) for day in (0, 40)]
    lines += [(who, 50, -4_000_000) for who in range(0, 200, 3)]
    who, day, amount = (np.array(column, dtype=np.int64) for column in zip(*lines, strict=True))
    orders = Orders.of_lines(
        np.array([f"c{number:03}" for number in range(200)], dtype=object),
        who,
        day + day_number(date(2024, 1, 1)),
        amount,
    )
    end = date(2024, 1, 1) + timedelta(days=90)
    small, every = summarise(sampled(orders, end, 50), end), summarise(orders, end)
    assert every.take(np.isin(every.ids, small.ids)).repeat_micros.tolist() == small.repeat_micros.tolist()
    assert 6_000_000 in small.repeat_micros
