from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from kiki.errors import InvalidInput
from kiki.value import bg_nbd, pareto_nbd
from kiki.value.history_grid import history_grid, usual_size
from kiki.value.purchases import Purchases

PARETO = np.array([0.5533, 10.5777, 0.6062, 11.6688])


def test_each_cell_is_what_the_model_says_of_that_history():
    """Fader, Hardie and Lee 2005: BG/NBD, x 2, tx 30.43, T 38.86, 39 weeks: 1.226 (the grid's rows lie a little beside)."""
    p = np.array([0.2426, 4.4136, 0.7929, 2.4259])
    grid = history_grid(lambda groups: bg_nbd.expected(p, 39, groups), age=38.86, x_max=4)
    near = int(np.abs(grid.recency - 30.43).argmin())
    assert 1.226 == pytest.approx(grid.values[near, 2], abs=0.02)


def test_histories_that_cannot_be_are_empty():
    grid = history_grid(lambda groups: pareto_nbd.alive(PARETO, groups), age=3, x_max=10)
    assert np.isfinite(grid.values[0, 0])
    assert np.isnan(grid.values[1:, 0]).all()
    assert np.isnan(grid.values[0, 1:]).all()
    # A week has seven days after the first one.
    assert np.isfinite(grid.values[1, 1:8]).all()
    assert np.isnan(grid.values[1, 8:]).all()


def test_a_day_is_a_day_in_every_unit():
    by_day = history_grid(lambda groups: groups.tx, age=14, x_max=3, unit="day")
    assert np.isnan(by_day.values[1, 2])
    assert 2 == by_day.values[2, 2]


@pytest.mark.parametrize("age", [0.1, 1, 38.86, 520])
def test_the_grid_reaches_from_the_first_day_to_the_last(age):
    grid = history_grid(lambda groups: groups.t, age=age, x_max=0)
    assert (0, age) == (grid.recency[0], grid.recency[-1])
    assert 2 <= grid.recency.size <= 53


@pytest.mark.parametrize(("age", "x_max"), [(0, 3), (-1, 3), (float("nan"), 3), (float("inf"), 3), (5, -1)])
def test_impossible_sizes_are_refused(age, x_max):
    with pytest.raises(InvalidInput, match="age above 0"):
        history_grid(lambda groups: groups.t, age=age, x_max=x_max)


def test_the_usual_size_shows_nearly_everybody_and_stays_readable():
    def purchases(x, age):
        zero = np.zeros(len(x), dtype=np.int64)
        return Purchases(
            np.array([str(place) for place in range(len(x))], dtype=object),
            np.array(x),
            *(zero,),
            np.array(age),
            *(zero,) * 8,
            date(2025, 1, 1),
        )

    assert (10.0, 10) == usual_size(purchases([0, 1], [70, 7]))
    assert (1.0, 40) == usual_size(purchases([3000, 1], [0, 0]))
