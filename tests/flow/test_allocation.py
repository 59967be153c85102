import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.flow.allocation import Bounds, Day, allocate

UNIT = 1_000_000
TOTAL = 700 * UNIT


def bounds(count, **given):
    return {f"c{number}": Bounds(**({"most": TOTAL} | given)) for number in range(count)}


def test_without_any_report_everyone_gets_the_same():
    assert {f"c{number}": 100 * UNIT for number in range(7)} == allocate(TOTAL, {}, bounds(7, step=UNIT), day=0, seed=1)
    assert {} == allocate(TOTAL, {}, {}, day=0, seed=1)


histories = st.lists(st.tuples(st.integers(0, 200 * UNIT), st.integers(0, 900 * UNIT)), max_size=8)


@given(st.lists(histories, min_size=1, max_size=5), st.integers(0, 60), st.integers(0, 9), st.integers(1, TOTAL))
def test_never_more_than_the_total_and_never_outside_of_the_bounds(days, day, seed, total):
    history = {f"c{number}": [Day(*each) for each in seen] for number, seen in enumerate(days)}
    step = 10_000
    limits = bounds(len(days), least=UNIT, most=300 * UNIT, step=step)
    found = allocate(total, history, limits, day=day, seed=seed)
    assert sum(found.values()) <= total
    assert all(micros % step == 0 and 0 <= micros <= max(300 * UNIT, int(total * 0.005)) for micros in found.values())
    if total > len(days) * 2 * UNIT:
        assert all(micros >= UNIT - step for micros in found.values())
    assert found == allocate(total, history, limits, day=day, seed=seed)


def test_money_goes_where_it_earns_more_and_everyone_keeps_a_trickle():
    # c0 returns four times what c1 does, however much is spent.
    history = {"c0": [Day(100 * UNIT, 400 * UNIT)] * 30, "c1": [Day(100 * UNIT, 100 * UNIT)] * 30}
    found = allocate(200 * UNIT, history, bounds(2), day=40, seed=3)
    assert found["c0"] > 5 * found["c1"] > 0
    assert found["c1"] >= 200 * UNIT * 0.0049


def test_what_returned_nothing_gets_less():
    history = {"c0": [Day(100 * UNIT, 100 * UNIT)] * 10, "c1": [Day(100 * UNIT, 0)] * 10}
    found = allocate(200 * UNIT, history, bounds(2), day=40, seed=3)
    assert found["c0"] > 5 * found["c1"]


def test_least_budgets_beyond_the_total_are_cut_alike():
    assert {"c0": 350 * UNIT, "c1": 350 * UNIT} == allocate(TOTAL, {}, bounds(2, least=TOTAL), day=0, seed=1)


@pytest.mark.parametrize("scale", [1, 1_000_000])
def test_the_unit_of_money_does_not_matter(scale):
    history = {
        "c0": [Day(90 * scale, 300 * scale), Day(110 * scale, 290 * scale)],
        "c1": [Day(100 * scale, 90 * scale)],
    }
    found = allocate(1000 * scale, history, {name: Bounds(most=1000 * scale) for name in history}, day=50, seed=1)
    assert 0.6 < found["c0"] / (1000 * scale) < 1
