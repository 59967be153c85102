"""Weak priors: silent where the data speak, and a wall where they do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value import gamma_gamma
from kiki.value.count_models import COUNT_MODELS, count_model
from kiki.value.fitting import fit_count, maximise
from kiki.value.gamma_gamma import Spending
from kiki.value.groups import Groups
from kiki.value.priors import weak
from tests.value import cdnow

NAMES = pytest.mark.parametrize("name", [*COUNT_MODELS, "mbg-cnbd-3"])


@pytest.mark.parametrize("name", COUNT_MODELS)
def test_the_mode_for_cdnow_is_the_maximum_of_the_likelihood_in_every_printed_digit(name):
    plain, weakly = (fit_count(name, cdnow.groups(), estimator).fit for estimator in ("mle", "map"))
    assert plain.values == pytest.approx(weakly.values, rel=1e-9)


def test_so_it_is_for_the_spend():
    spending = Spending.of(cdnow.repeat_orders(), cdnow.mean_amounts())
    plain, weakly = (maximise(gamma_gamma, spending, prior=p) for p in (None, weak("gamma-gamma", spending)))
    assert plain.values == pytest.approx(weakly.values, rel=1e-9)


@NAMES
@settings(max_examples=40, deadline=None)
@given(shifts=st.lists(st.floats(-12, 12), min_size=4, max_size=4))
def test_the_gradient_is_that_of_the_density(name, shifts):
    groups = cdnow.groups()
    prior, model = weak(name, groups), count_model(name)
    theta = np.log(model.start(groups)) + shifts[: len(model.NAMES)]
    _check_gradient(prior, theta)


@settings(max_examples=60, deadline=None)
@given(shifts=st.tuples(st.floats(-5, 12), st.floats(0.02, 12), st.floats(-12, 12)))
def test_the_gradient_is_that_of_the_density_of_spend(shifts):
    prior = weak("gamma-gamma", Spending.of([1, 2], [20.0, 40.0]))
    _check_gradient(prior, np.array(shifts))


def _check_gradient(prior, theta):
    value, gradient = prior(theta)
    assert value <= 0
    # The curvature jumps at a shoulder, by 1: half of the step there.
    slack = 1e-5 + 1e-4 * np.abs(gradient).max()
    for place, unit in enumerate(np.eye(theta.size)):
        numeric = (prior(theta + 1e-6 * unit)[0] - prior(theta - 1e-6 * unit)[0]) / 2e-6
        assert numeric == pytest.approx(gradient[place], abs=slack)


@NAMES
def test_plausible_parameters_are_all_as_likely_and_wild_ones_are_not(name):
    groups = Groups.of([0, 1, 4], [0, 10, 35], [39, 39, 39])
    prior, start = weak(name, groups), np.log(count_model(name).start(groups))
    assert prior(start)[0] == prior(start + 0.5)[0] == 0
    assert prior(start + 8 * np.eye(start.size)[0])[0] < -1


def test_q_is_kept_from_1_and_it_is_said():
    """These amounts have no mean: the likelihood wants q below 1."""
    chance = np.random.default_rng(1)
    orders = chance.integers(1, 8, 5000)
    spending = Spending.of(orders, chance.gamma(3 * orders, 1 / (chance.gamma(0.8, 1 / 5, 5000) * orders)))
    plain = maximise(gamma_gamma, spending)
    weakly = maximise(gamma_gamma, spending, prior=weak("gamma-gamma", spending))
    assert plain.parameters["q"] < 1 < weakly.parameters["q"]
    assert "no finite mean" in plain.notes[0]
    assert "largest orders" in weakly.notes[0]
    assert weakly.converged


def test_a_model_without_a_prior_is_refused():
    with pytest.raises(InvalidInput, match="estimator mle"):
        weak("bg-bb", cdnow.groups())
    with pytest.raises(InvalidInput, match="no prior"):
        weak("pareto-nbd", Spending.of([1], [2.0]))
