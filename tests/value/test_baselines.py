from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from kiki.value.baselines import heuristic, judged, naive
from kiki.value.purchases import outcomes, summarise
from tests.value import buyers
from tests.value.customers import customers


def test_everybody_goes_on_at_the_rate_of_repeat_purchases():
    one = customers([2, 0], [30, 0], 70, first=10, repeats=[50, 0])
    assert [1.0, 0.0] == pytest.approx(naive(one, 5.0).purchases.tolist())
    assert [25.0, 0.0] == pytest.approx(naive(one, 5.0).revenue.tolist())


def test_somebody_who_came_today_is_no_division_by_zero():
    assert np.isfinite(naive(customers([0], [0], 0), 5.0).purchases).all()


def test_the_formula_is_the_originals():
    one = customers([1], [30], 70, first=10, repeats=30)
    assert [40 * 1.2 * (1 + 0.8 * 0.5) * 0.95] == pytest.approx(heuristic(one).revenue.tolist())


def test_free_orders_are_counted_where_there_is_no_amount():
    free = customers([1], [30], 70, first=0, repeats=0, positive=[0], free=2)
    assert [2 * 1.2 * 1.4 * 0.95] == pytest.approx(heuristic(free).purchases.tolist())


def test_both_are_judged_by_the_same_metrics_and_cover_what_they_hit():
    orders = buyers.log(300, 52)
    purchases = summarise(orders, date(2020, 7, 6))
    found = judged(purchases, 10.0, outcomes(orders, purchases, date(2020, 9, 14)))
    assert ["naive", "heuristic"] == list(found)
    done = outcomes(orders, purchases, date(2020, 9, 14)).purchases
    hit = float((naive(purchases, 10.0).purchases == done).mean())
    assert 0 < hit < 1
    assert {80: hit, 90: hit, 95: hit} == found["naive"]["purchases"].coverage
