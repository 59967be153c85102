"""The score table: everybody's numbers by id, and what an unknown id gets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kiki.errors import InvalidInput
from kiki.value.score_table import (
    ALIVE,
    DISCOUNTED_VALUE,
    NO_PURCHASE,
    ORDER_AMOUNT,
    PURCHASES,
    REVENUE,
    WIDTH,
    ScoreTable,
    scores_of,
)
from tests.value.served_value import fitted, purchases


def numbered(count: int) -> np.ndarray:
    return np.arange(count * WIDTH, dtype=float).reshape(count, WIDTH)


def test_scores_are_the_predictions_in_order():
    known = purchases()
    predictions = fitted(discount_rate=0.1).predict(known)
    scores = scores_of(predictions)
    assert scores.shape == (len(known), WIDTH)
    row = predictions.row(7)
    for place, outcome in ((PURCHASES, row.purchases), (REVENUE, row.revenue)):
        ends = [end for level in (80, 90, 95) for end in (outcome.lower[level], outcome.upper[level])]
        assert [outcome.mean, outcome.median, *ends] == scores[7, place].tolist()
    assert [row.alive, row.no_purchase, row.order_amount, row.discounted_value] == scores[
        7, [ALIVE, NO_PURCHASE, ORDER_AMOUNT, DISCOUNTED_VALUE]
    ].tolist()


def test_without_a_discount_rate_the_value_is_nan():
    assert np.isnan(scores_of(fitted().predict(purchases()))[:, DISCOUNTED_VALUE]).all()


def test_each_id_finds_its_own_row():
    known = purchases()
    table = ScoreTable(known, numbered(len(known)), None)
    assert len(known) == len(table)
    for place in (0, 1, len(known) - 1):
        assert place == table.find(known.ids[place])
        assert numbered(len(known))[place].tolist() == table.row(place)


def test_an_unknown_id_gets_the_last_row():
    known = purchases()
    table = ScoreTable(known, numbered(len(known)), np.full(WIDTH, 7.0))
    assert table.find("nobody") is None
    assert [7.0] * WIDTH == table.row(None)
    rows = table.rows(["nobody", known.ids[3], ""], 3)
    assert [-1, 3, -1] == rows.tolist()
    assert table.scores[rows][0].tolist() == [7.0] * WIDTH


def test_an_unknown_id_without_an_answer_gets_nan():
    assert np.isnan(ScoreTable(None, np.empty((0, WIDTH)), None).row(None)).all()


def test_ids_that_stand_twice_are_refused():
    known = purchases().take(np.array([0, 1]))
    twice = replace(known, ids=np.array(["a", "a"], dtype=object))
    with pytest.raises(InvalidInput, match="1 customers stand twice"):
        ScoreTable(twice, numbered(2), None)
