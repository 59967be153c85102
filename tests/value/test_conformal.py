from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value.conformal import PRIOR_CUSTOMERS, Recalibration, recalibrate, stratum
from kiki.value.evaluation import Pit, coverage


def exact(values) -> Pit:
    return Pit(np.asarray(values, dtype=float), np.asarray(values, dtype=float))


def both(values) -> dict[str, Pit]:
    return {"purchases": exact(values), "revenue": exact(values)}


def test_the_strata_are_none_one_a_few_and_many():
    assert [0, 1, 2, 2, 3, 3] == stratum(np.array([0, 1, 2, 5, 6, 900])).tolist()


def test_true_distributions_are_left_nearly_as_they_are():
    even = (np.arange(8000) + 0.5) / 8000
    found = recalibrate(both(even), np.zeros(8000, dtype=np.int64))
    for p in (0.025, 0.1, 0.5, 0.975):
        assert p == pytest.approx(found.levels("revenue", p, np.array([0]))[0], abs=2e-3)


def test_intervals_that_were_too_narrow_become_true_on_the_same_outcomes():
    chance = np.random.default_rng(4)
    too_wide = chance.beta(0.5, 0.5, 20_000)  # outcomes lie in the tails more often than was said
    x = np.zeros(too_wide.size, dtype=np.int64)
    found = recalibrate(both(too_wide), x)
    before, after = coverage(exact(too_wide), "revenue", x), coverage(exact(too_wide), "revenue", x, found)
    assert before[80] < 0.65
    assert {80: 0.8, 90: 0.9, 95: 0.95} == pytest.approx(after, abs=0.01)


def test_strata_are_recalibrated_apart_and_small_ones_hardly():
    x = np.array([0] * 5000 + [1] * 10)
    found = recalibrate(both(np.concatenate([np.linspace(0, 0.5, 5000), np.full(10, 0.99)])), x)
    often, seldom, never = (found.levels("purchases", 0.8, np.array([n]))[0] for n in (0, 1, 7))
    assert 0.42 == pytest.approx(often, abs=0.03)  # a tenth of the tail is spared
    share = 10 / (10 + PRIOR_CUSTOMERS)
    assert abs(seldom - 0.8) <= share
    assert 0.8 == pytest.approx(never)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40),
    st.lists(st.floats(0, 1), min_size=2, max_size=5),
)
def test_the_map_grows_and_stays_within_probabilities(parts, asked):
    ends = np.sort(np.array(parts), axis=1)
    pit = Pit(ends[:, 0], ends[:, 1])
    x = np.arange(len(parts)) % 9
    found = recalibrate({"purchases": pit, "revenue": pit}, x)
    read = np.array([found.levels("revenue", p, np.arange(9)) for p in sorted(asked)])
    assert ((read >= 0) & (read <= 1)).all()
    assert (np.diff(read, axis=0) >= 0).all()
    assert np.zeros(9).tolist() == found.levels("revenue", 0.0, np.arange(9)).tolist()
    assert np.ones(9).tolist() == found.levels("revenue", 1.0, np.arange(9)).tolist()


def test_it_comes_back_from_json():
    found = recalibrate(both(np.linspace(0, 0.7, 500)), np.arange(500) % 8)
    again = Recalibration.from_dict(json.loads(json.dumps(found.as_dict(), allow_nan=False)))
    assert found.as_dict() == again.as_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"strata": ["all"]},
        {"tables": {}},
        {"customers": [1]},
        {"customers": [2**70] * 4},
        {"tables": {"purchases": [[0.0, 1.0]] * 4, "revenue": [[0.0, 1.0]] * 4}},
        {"probabilities": [0, 1]},
    ],
)
def test_what_is_no_recalibration_is_refused(change):
    found = recalibrate(both(np.linspace(0, 0.7, 50)), np.arange(50) % 8)
    with pytest.raises(InvalidInput):
        Recalibration.from_dict(found.as_dict() | change)


def test_a_table_that_falls_is_refused():
    data = recalibrate(both(np.linspace(0, 0.7, 50)), np.arange(50) % 8).as_dict()
    data["tables"]["revenue"][0][5] = 0.9
    with pytest.raises(InvalidInput):
        Recalibration.from_dict(data)
