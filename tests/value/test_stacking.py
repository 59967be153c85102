from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kiki.errors import InvalidInput
from kiki.value.stacking import NEGLIGIBLE, stack


def test_the_weights_of_a_true_mixture_are_found():
    chance = np.random.default_rng(2)
    first = chance.random(20_000) < 0.7
    drawn = np.where(first, chance.poisson(1, first.size), chance.poisson(6, first.size))
    scores = np.stack([drawn * np.log(rate) - rate - _log_factorial(drawn) for rate in (1.0, 6.0)], axis=1)
    assert [0.7, 0.3] == pytest.approx(stack(scores).tolist(), abs=0.02)


@given(arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=st.floats(-50, 0)))
def test_weights_are_shares_and_foretell_no_worse_than_any_model_alone(scores):
    weights = stack(scores)
    assert 1 == pytest.approx(weights.sum())
    assert ((weights >= 0) & ((weights == 0) | (weights >= NEGLIGIBLE / 2))).all()
    mixed = np.log(np.exp(scores - scores.max(axis=1, keepdims=True)) @ weights).sum()
    alone = (scores - scores.max(axis=1, keepdims=True)).sum(axis=0)
    # Leaving a negligible weight out may cost a little.
    assert mixed >= alone.max() - 0.05 * scores.shape[0] - 0.01


def test_models_that_do_equally_well_leave_the_weight_to_the_one_with_the_prior():
    scores = np.full((50, 3), -1.0)
    assert [1 / 3] * 3 == pytest.approx(stack(scores).tolist())
    assert [1.0, 0.0, 0.0] == pytest.approx(stack(scores, np.array([100.0, 0, 0])).tolist())


def test_outcomes_impossible_for_every_model_tell_nothing():
    scores = np.array([[-1.0, -2.0]] * 40 + [[-np.inf, -np.inf]])
    assert stack(scores[:-1]).tolist() == stack(scores).tolist()
    assert [0.5, 0.5] == stack(scores[-1:]).tolist()


def test_an_outcome_that_one_model_rules_out_keeps_the_other():
    scores = np.array([[-0.1, -3.0]] * 40 + [[-np.inf, -2.0]] * 2)
    weights = stack(scores)
    assert weights[1] > 0


@pytest.mark.parametrize("scores", [np.empty((0, 2)), np.zeros(3), np.full((2, 2), np.nan), np.ones((2, 2))])
def test_scores_that_are_none_are_refused(scores):
    with pytest.raises(InvalidInput):
        stack(scores)


def _log_factorial(n: np.ndarray) -> np.ndarray:
    table = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 60)))])
    return table[n]
