"""Tables of revenue and what is read off them: against draws, and against themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betainc

from kiki.value.quantiles import Counts, Revenue, first_reaching, known_orders, revenue_table, thinned

PROBABILITIES = np.array([0.025, 0.1, 0.5, 0.8, 0.95, 0.975])


def poisson(mean: float, n_max: int) -> np.ndarray:
    n = np.arange(n_max + 1)
    logs = n * np.log(mean) - np.cumsum(np.log(np.maximum(n, 1)))
    chance = np.exp(logs - logs.max())
    return chance[None, :] / chance.sum()


def draws(pmf, p, q, zero_share, orders, size=400_000):
    """Revenue over scale, drawn from what the table is of."""
    chance = np.random.default_rng(5)
    n = chance.choice(pmf.shape[1], size, p=pmf[0])
    paid = chance.binomial(n, 1 - zero_share)
    nu = chance.gamma(q + p * orders, 1.0, size)
    return np.where(paid > 0, chance.gamma(np.maximum(p * paid, 1e-9), 1 / nu), 0.0)


@pytest.mark.parametrize(
    ("p", "q", "zero_share", "orders", "mean", "n_max"),
    [
        (6.25, 3.744, 0.0, 0, 0.8, 15),
        (6.25, 3.744, 0.2, 3, 2.5, 31),
        (3.9, 4.5, 0.1, 40, 90.0, 255),  # beyond the exact rows
        (0.4, 1.3, 0.0, 1, 1.0, 15),  # nearly no mean, many tiny orders
        (400.0, 60.0, 0.0, 2, 1.5, 15),  # amounts that hardly vary: a staircase
        (2.0, 3.0, 0.5, 8, 900.0, 2047),
        (6.25, 3.744, 0.0, 500, 400.0, 1023),  # known very well
        (0.3, 1.05, 0.3, 2, 2.0, 15),
    ],
)
def test_quantiles_and_chances_are_those_of_draws(p, q, zero_share, orders, mean, n_max):
    pmf = poisson(mean, n_max)
    sample = draws(pmf, p, q, zero_share, orders)
    revenue = Revenue(revenue_table(p, q, zero_share, float(orders), n_max), pmf)
    rows = np.zeros(PROBABILITIES.size, dtype=np.int64)
    read = revenue.quantile(rows, PROBABILITIES)
    below, upto = (np.array([op(sample, value).mean() for value in read]) for op in (np.less, np.less_equal))
    # Three standard errors of a share of the draws, and what a straight line between two points of the grid costs.
    slack = 3 * np.sqrt(0.25 / sample.size) + 0.002
    assert (below <= PROBABILITIES + slack).all()
    assert (upto >= PROBABILITIES - slack).all()
    amounts = np.quantile(sample, [0.3, 0.6, 0.9, 0.99])
    _, reached = revenue.cdf(np.zeros(4, dtype=np.int64), amounts)
    assert [np.mean(sample <= amount) for amount in amounts] == pytest.approx(reached.tolist(), abs=slack)


@settings(max_examples=60, deadline=None)
@given(
    p=st.floats(0.05, 500),
    q=st.floats(1.01, 300),
    zero_share=st.sampled_from([0.0, 0.01, 0.7, 1.0]),
    orders=st.integers(0, 500),
    n_max=st.sampled_from([1, 15, 255]),
)
def test_any_table_holds_distributions(p, q, zero_share, orders, n_max):
    table = revenue_table(p, q, zero_share, float(orders), n_max)
    assert np.isfinite(table.rows).all()
    assert ((table.rows >= 0) & (table.rows <= 1 + 1e-9)).all()
    assert (np.diff(table.rows, axis=1) >= -1e-9).all()
    assert (np.diff(table.grid) > 0).all()
    # More purchases are never less revenue.
    assert (np.diff(table.rows, axis=0) <= 1e-9).all()


@pytest.mark.parametrize(
    ("p", "q", "orders", "n_max"),
    [(6.25, 3.74, 0, 15), (6.25, 3.74, 40, 127), (0.5, 1.5, 200, 255), (40.0, 5.0, 20, 63), (300.0, 8.0, 90, 31)],
)
def test_a_table_is_the_incomplete_beta_function(p, q, orders, n_max):
    table = revenue_table(p, q, 0.0, float(orders), n_max)
    exact = betainc(p * table.nodes[1:, None], q + p * orders, table.grid / (1 + table.grid))
    assert np.abs(table.rows[1:] - exact).max() < 1e-9


def test_reading_a_chance_is_the_inverse_of_reading_a_quantile():
    revenue = Revenue(revenue_table(4.0, 3.0, 0.1, 2.0, 15), poisson(2.0, 15))
    p = np.linspace(0.2, 0.999, 50)
    rows = np.zeros(50, dtype=np.int64)
    _, upto = revenue.cdf(rows, revenue.quantile(rows, p))
    assert p == pytest.approx(upto, abs=1e-9)


def test_no_revenue_has_a_chance_of_its_own():
    pmf = poisson(1.0, 15)
    revenue = Revenue(revenue_table(4.0, 3.0, 0.0, 2.0, 15), pmf)
    rows = np.zeros(3, dtype=np.int64)
    below, upto = revenue.cdf(rows, np.array([-1.0, 0.0, 1e-12]))
    assert [0.0, 0.0, pmf[0, 0]] == pytest.approx(below.tolist())
    assert [0.0, pmf[0, 0], pmf[0, 0]] == pytest.approx(upto.tolist())
    assert [0.0] == revenue.quantile(rows[:1], pmf[0, :1]).tolist()


def test_counts_are_read_as_whole_numbers():
    counts = Counts(np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]]))
    rows = np.array([0, 0, 0, 0, 1, 1])
    assert [0, 0, 1, 2, 2, 2] == counts.quantile(rows, np.array([0.0, 0.5, 0.6, 1.0, 0.1, 0.3])).tolist()
    below, upto = counts.cdf(np.zeros(5, dtype=np.int64), np.array([-1.0, 0.0, 0.5, 1.0, 7.0]))
    assert [0.0, 0.0, 0.5, 0.5, 1.0] == below.tolist()
    assert [0.0, 0.5, 0.5, 0.75, 1.0] == upto.tolist()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 1.2))
def test_the_first_point_that_reaches_a_chance_is_that_of_a_search(values, p):
    column = np.sort(np.array(values))
    assert np.searchsorted(column, p) == first_reaching(column[None, :], np.array([0]), np.array([p]))[0]


@pytest.mark.parametrize("n_max", [15, 2047])
def test_free_orders_thin_a_distribution(n_max):
    pmf = poisson(n_max / 3, n_max)
    kept = thinned(pmf, 0.6)
    n = np.arange(n_max + 1)
    assert kept.sum() == pytest.approx(1)
    assert 0.6 * (pmf @ n) == pytest.approx(kept @ n, rel=1e-3)
    assert thinned(pmf, 1.0) is pmf
    assert thinned(pmf, 0.0)[0, 0] == pytest.approx(1)


def test_numbers_of_known_orders_are_exact_where_they_matter():
    orders = np.array([0.0, 1, 31, 32, 33, 100, 1000])
    found = known_orders(orders)
    assert orders[:4].tolist() == found[:4].tolist()
    assert (np.abs(found / orders.clip(1) - 1)[4:] < 0.025).all()
