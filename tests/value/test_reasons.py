"""Reasons in words: true of the history, the weightiest first."""

from __future__ import annotations

import pytest

from kiki.errors import InvalidInput
from kiki.value.prediction import Predictive, predict
from kiki.value.reasons import Usual, reasons
from tests.value.customers import customers
from tests.value.test_predictive import MIXED, SEVERAL, spend

PREDICTIONS = predict(Predictive(MIXED, spend(), SEVERAL, 39.0))


def test_what_is_said_is_in_the_history():
    said = reasons(SEVERAL, PREDICTIONS, 3)
    assert len(said) == 3
    text = " | ".join(said)
    assert "last bought 7.1 weeks ago, and every 9.5 weeks until then" in text
    assert "bought 3 times more in 35.7 weeks after the first purchase" in text
    assert "spent 27.50 on 4 orders, on average" in text
    assert "in 39 weeks while a customer" in text


def test_somebody_who_bought_once_is_said_to_have():
    text = " | ".join(reasons(SEVERAL, PREDICTIONS, 1))
    assert "bought once, 39 weeks ago" in text
    assert "spent 20.00 on 1 order:" in text


def test_what_sets_the_customer_furthest_apart_comes_first():
    # The fifth buys 26 times in 31 weeks, for ordinary amounts.
    assert reasons(SEVERAL, PREDICTIONS, 4)[0].startswith("bought 26 times more")
    dear = customers([0, 0, 0], 0, 100, first=[10.0, 10.0, 5000.0])
    found = predict(Predictive(MIXED, spend(), dear, 39.0))
    first = reasons(dear, found, 2)[0]
    assert first.startswith("spent 5,000.00 on 1 order")
    assert "times the average customer's" in first


def test_one_customer_alone_is_compared_only_with_a_usual_one_who_is_given():
    one = SEVERAL.take([4])
    found = predict(Predictive(MIXED, spend(), one, 39.0))
    assert not any("average customer" in sentence for sentence in reasons(one, found, 0))
    compared = reasons(one, found, 0, usual=Usual.of(PREDICTIONS))
    assert reasons(SEVERAL, PREDICTIONS, 4) == compared


def test_customers_without_a_paid_order_are_explained_too():
    free = customers([0, 2], [0, 20], 50, first=0.0, positive=0, free=[1, 3])
    found = predict(Predictive(MIXED, spend(), free, 39.0))
    assert any("no order above zero yet" in sentence for sentence in reasons(free, found, 0))


@pytest.mark.parametrize("row", [-1, 6])
def test_a_row_that_is_not_there_is_refused(row):
    with pytest.raises(InvalidInput):
        reasons(SEVERAL, PREDICTIONS, row)
