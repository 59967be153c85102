"""Predictions: every number of every customer, named for what it is."""

from __future__ import annotations

import numpy as np
import pytest

from kiki.errors import InvalidInput
from kiki.value import pareto_nbd
from kiki.value.mixture import Mixture
from kiki.value.prediction import LEVELS, Level, Predictive, new_customer, predict
from tests.value.test_predictive import MIXED, PARETO, SEVERAL, spend

ALONE = Mixture.of("pareto-nbd", PARETO)


def test_every_number_is_that_of_the_distribution():
    whole = Predictive(MIXED, spend(), SEVERAL, 39.0)
    found = predict(whole)
    for kind in ("purchases", "revenue"):
        quantity = getattr(found, kind)
        assert whole.mean(kind).tolist() == quantity.mean.tolist()
        assert whole.quantile(kind, 0.5).tolist() == quantity.median.tolist()
        for level in LEVELS:
            out = (1 - level / 100) / 2
            assert whole.quantile(kind, out).tolist() == quantity.lower[level].tolist()
            assert whole.quantile(kind, (1 + level / 100) / 2).tolist() == quantity.upper[level].tolist()
    assert whole.no_purchase.tolist() == found.no_purchase.tolist()
    assert MIXED.no_purchase(39.0, whole.groups)[whole._group] == pytest.approx(found.no_purchase, abs=1e-6)
    assert (found.no_purchase >= 1 - found.alive - 1e-9).all()
    assert found.discounted_value is None


def test_wider_levels_hold_narrower_ones_and_the_median():
    found = predict(Predictive(MIXED, spend(), SEVERAL, 39.0))
    for quantity in (found.purchases, found.revenue):
        ends = [quantity.lower[level] for level in (95, 90, 80)] + [quantity.median]
        ends += [quantity.upper[level] for level in (80, 90, 95)]
        assert (np.diff(ends, axis=0) >= 0).all()


def test_columns_say_what_they_hold_and_for_how_long():
    columns = predict(Predictive(ALONE, spend(), SEVERAL, 39.0), discount_rate=0.1).as_columns()
    assert {
        "customer_id",
        "purchases_39_weeks_mean",
        "purchases_39_weeks_lower_80",
        "revenue_39_weeks_upper_95",
        "revenue_39_weeks_median",
        "probability_alive",
        "probability_no_purchase_39_weeks",
        "order_amount_mean",
        "discounted_value_no_end",
    } <= set(columns)
    assert {len(SEVERAL)} == {len(column) for column in columns.values()}
    assert "revenue_4_5_weeks_mean" in predict(Predictive(ALONE, spend(), SEVERAL, 4.5)).as_columns()
    assert "revenue_1_week_mean" in predict(Predictive(ALONE, spend(), SEVERAL, 1)).as_columns()


def test_one_customer_is_a_row_of_all():
    found = predict(Predictive(ALONE, spend(), SEVERAL, 39.0), discount_rate=0.1)
    one = found.row(3)
    assert SEVERAL.ids[3] == one.id
    assert (found.revenue.upper[90][3], found.revenue.mean[3]) == (one.revenue.upper[90], one.revenue.mean)
    assert found.discounted_value[3] == one.discounted_value
    assert len(found) == 6


def test_the_discounted_value_is_dert_times_the_amount_and_is_named():
    whole = Predictive(ALONE, spend(), SEVERAL, 39.0)
    found = predict(whole, discount_rate=0.15)
    dert = pareto_nbd.discounted(PARETO, whole.groups, np.log(1.15) * 7 / 365.25)[whole._group]
    assert dert * found.order_amount == pytest.approx(found.discounted_value)
    assert found.discounting is not None
    assert "closed form" in found.discounting
    assert "15 %" in found.discounting


@pytest.mark.parametrize("rate", [0.0, -0.1, float("nan"), float("inf")])
def test_a_discount_rate_is_above_zero(rate):
    with pytest.raises(InvalidInput, match="discount"):
        predict(Predictive(ALONE, spend(), SEVERAL, 39.0), discount_rate=rate)


class Wider:
    """Reads the 80 % interval of those without a repeat purchase off at 90 %."""

    def levels(self, kind, p, x):
        return np.where(x == 0, 0.5 + (p - 0.5) * 9 / 8, p).clip(0, 1)


def test_a_recalibration_says_what_to_read_off():
    whole = Predictive(MIXED, spend(), SEVERAL, 39.0)
    plain, wider = predict(whole), predict(whole, recalibration=Wider())
    repeat = SEVERAL.x > 0
    assert plain.revenue.upper[80][repeat].tolist() == wider.revenue.upper[80][repeat].tolist()
    assert plain.revenue.upper[90][~repeat] == pytest.approx(wider.revenue.upper[80][~repeat])
    assert plain.revenue.mean.tolist() == wider.revenue.mean.tolist()


def test_a_new_customer_is_the_population_at_age_zero():
    found = new_customer(ALONE, spend(), 39.0)
    assert ALONE.expected_new(39.0) == pytest.approx(found.purchases.mean[0])
    p, q, v = 4.0, 3.5, 25.0
    assert found.order_amount[0] == pytest.approx(p * v / (q - 1))
    assert found.alive[0] == 1.0
    cohort = new_customer(ALONE, spend(), 39.0, Level(2.0, 0.3))
    assert 2 * found.purchases.mean[0] == pytest.approx(cohort.purchases.mean[0])
    assert cohort.no_purchase[0] < found.no_purchase[0]
