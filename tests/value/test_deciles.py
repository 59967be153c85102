from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value.deciles import deciles


def test_the_best_forecasts_come_first():
    found = deciles(np.arange(100), np.arange(100) * 2)
    assert [94.5, 84.5] == found.forecast[:2].tolist()
    assert [189, 169] == found.actual[:2].tolist()
    assert 1 == pytest.approx(found.share.sum())


def test_customers_with_one_forecast_share_what_they_brought():
    """Else the order of the rows would decide who stands in front."""
    assert [0.5] * 10 == deciles(np.ones(20), [1, 0] * 10).actual.tolist()


def test_few_customers_are_as_many_groups():
    found = deciles([3.0, 1.0], [0, 2])
    assert ([3, 1], [0, 2], [0, 1]) == tuple(column.tolist() for column in found)


def test_nothing_happened_has_no_share():
    found = deciles([1.0, 2.0], [0, 0])
    assert np.isnan(found.share).all()


@pytest.mark.parametrize(
    ("forecast", "actual"), [([], []), ([1], [1, 2]), ([[1]], [[1]]), ([float("nan")], [1]), ([1], [float("inf")])]
)
def test_columns_that_do_not_fit_are_refused(forecast, actual):
    with pytest.raises(InvalidInput):
        deciles(forecast, actual)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 1000)), min_size=1, max_size=80), st.randoms())
def test_nothing_is_lost_and_the_order_of_rows_does_not_matter(rows, chance):
    found = deciles(*zip(*rows, strict=True))
    shuffled = list(rows)
    chance.shuffle(shuffled)
    again = deciles(*zip(*shuffled, strict=True))
    assert found.actual.tolist() == pytest.approx(again.actual.tolist())
    assert (np.diff(found.forecast) <= 1e-9 * (1 + found.forecast[:-1])).all()
    sizes = [part.size for part in np.array_split(np.arange(len(rows)), min(10, len(rows)))]
    assert sum(done for _, done in rows) == pytest.approx(float(found.actual @ sizes))
