from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.engage.allocation import NOTHING, Budget, allocate, exact_sum
from kiki.errors import InvalidInput


def best(margins: list[list[int]], costs: list[list[int]], budgets: list[Budget]) -> int:
    """The plain model: every combination is tried."""
    offers = range(NOTHING, len(margins[0]))
    top = 0
    for chosen in product(offers, repeat=len(margins)):
        picked = [(row, column) for row, column in enumerate(chosen) if column != NOTHING]
        if all(
            sum(costs[row][column] for row, column in picked if budget.offers is None or column in budget.offers)
            <= budget.limit
            for budget in budgets
        ):
            top = max(top, sum(margins[row][column] for row, column in picked))
    return top


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], list[Budget]]:
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    table = lambda low, high: draw(
        st.lists(st.lists(st.integers(low, high), min_size=columns, max_size=columns), min_size=rows, max_size=rows)
    )
    limits = st.integers(0, 60)
    some = st.one_of(st.none(), st.sets(st.integers(0, columns - 1), min_size=1))
    budgets = draw(st.lists(st.builds(Budget, limits, some), min_size=1, max_size=3))
    return table(-5, 30), table(0, 20), budgets


@given(problems())
def test_never_over_and_the_bound_bounds(problem: tuple[list[list[int]], list[list[int]], list[Budget]]):
    margins, costs, budgets = problem
    found = allocate(margins, costs, budgets)
    for budget, spent in zip(budgets, found.spent, strict=True):
        picked = [(row, int(column)) for row, column in enumerate(found.choice) if column != NOTHING]
        used = sum(costs[row][column] for row, column in picked if budget.offers is None or column in budget.offers)
        assert used == spent <= budget.limit
    assert found.margin == sum(margins[row][column] for row, column in enumerate(found.choice) if column != NOTHING)
    assert all(margins[row][column] > 0 for row, column in enumerate(found.choice) if column != NOTHING)
    assert 0 <= found.margin <= best(margins, costs, budgets) <= found.bound
    assert 0 <= found.gap <= 1


@given(problems())
def test_what_is_left_would_buy_nothing_better(problem: tuple[list[list[int]], list[list[int]], list[Budget]]):
    margins, costs, budgets = problem
    found = allocate(margins, costs, budgets)
    for row, old in enumerate(found.choice.tolist()):
        for column, margin in enumerate(margins[row]):
            if margin <= (margins[row][old] if old != NOTHING else 0):
                continue
            fits = True
            for budget, spent in zip(budgets, found.spent, strict=True):
                draws = lambda offer, own=budget: offer != NOTHING and (own.offers is None or offer in own.offers)
                after = spent + draws(column) * costs[row][column] - draws(old) * costs[row][old]
                fits &= after <= budget.limit
            assert not fits


def shop(rows: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    margins = (chance.gamma(0.5, 4e6, (rows, 5)) - 2e5).astype(np.int64)
    return margins, chance.integers(20_000, 8_000_000, (rows, 5))


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
def test_many_customers_come_within_a_hundredth_of_a_percent(share: float):
    margins, costs = shop(20_000)
    limit = int(costs.sum() / 5 * share)
    found = allocate(margins, costs, limit)
    assert found.spent[0] <= limit
    assert found.gap < 1e-4


def test_several_budgets_at_once_come_close_too():
    margins, costs = shop(10_000)
    whole = int(costs.sum() / 5)
    found = allocate(margins, costs, [Budget(whole // 10), Budget(whole // 50, (0, 1)), Budget(whole // 25, (3,))])
    assert found.gap < 1e-3


def test_the_price_is_what_one_more_unit_brings():
    margins, costs = shop(20_000)
    limit = int(costs.sum() / 5 * 0.05)
    less, more = allocate(margins, costs, limit), allocate(margins, costs, limit + limit // 100)
    assert (more.margin - less.margin) / (limit // 100) == pytest.approx(less.multipliers[0], rel=0.02)


def test_a_budget_that_is_no_limit_costs_nothing():
    found = allocate([[3, 5], [0, -1]], [[1, 2], [0, 0]], 100)
    assert (found.choice.tolist(), found.margin, found.multipliers, found.gap) == ([1, NOTHING], 5, (0.0,), 0.0)


def test_ties_go_to_the_earlier_customer():
    assert allocate([[5]] * 4, [[2]] * 4, 5).choice.tolist() == [0, 0, NOTHING, NOTHING]


def test_what_costs_nothing_is_given_without_a_budget():
    assert allocate([[5], [7]], [[0], [1]], 0).choice.tolist() == [0, NOTHING]


def test_nobody_gets_nothing():
    assert allocate(np.zeros((0, 3), np.int64), np.zeros((0, 3), np.int64), 5).margin == 0


@pytest.mark.parametrize(
    ("margins", "costs", "budgets", "why"),
    [
        ([[1.5]], [[1]], 1, "whole numbers"),
        ([[1]], [[1, 2]], 1, "shape"),
        ([1], [1], 1, "table"),
        ([[1]], [[-1]], 1, "less than nothing"),
        ([[1]], [[1]], -1, "less than nothing"),
        ([[1]], [[1]], [], "at least one"),
        ([[1]], [[1]], [Budget(1, (1,))], "not there"),
        ([[2**60]], [[1]], 1, "at most"),
    ],
)
def test_what_makes_no_sense_is_refused(margins: object, costs: object, budgets: object, why: str):
    with pytest.raises(InvalidInput, match=why):
        allocate(margins, costs, budgets)


@given(st.lists(st.integers(-(2**53), 2**53), max_size=50))
def test_a_sum_is_exact(amounts: list[int]):
    assert exact_sum(np.array(amounts, dtype=np.int64)) == sum(amounts)
