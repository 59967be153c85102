"""Shifted-beta-geometric: the published numbers of Fader and Hardie 2007, and its own identities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value import sbg
from kiki.value.fitting import maximise
from kiki.value.sbg import Contracts

# Survival in per cent after 0 ... 7 years, of 1,000 customers each (Fader and Hardie 2007).
REGULAR = np.array([100, 63.1, 46.8, 38.2, 32.6, 28.9, 26.2, 24.1]) * 10
HIGH_END = np.array([100, 86.9, 74.3, 65.3, 59.3, 55.1, 51.7, 49.1]) * 10


@pytest.mark.parametrize(
    ("survivors", "published", "log_likelihood"),
    [(REGULAR, [0.704, 1.182], -1680.27), (HIGH_END, [0.668, 3.806], -1611.16)],
)
def test_the_fits_to_both_segments_print_the_published_digits(survivors, published, log_likelihood):
    fit = maximise(sbg, Contracts.of_survivors(survivors))
    assert published == [round(value, 3) for value in fit.parameters.values()]
    assert round(fit.log_likelihood, 2) == log_likelihood
    assert fit.converged


@pytest.mark.parametrize("survivors", [REGULAR, HIGH_END])
def test_the_fitted_survival_is_near_the_observed_one(survivors):
    fit = maximise(sbg, Contracts.of_survivors(survivors))
    assert survivors / 1000 == pytest.approx(sbg.survival(fit.values, np.arange(8)), abs=0.022)


def test_survivors_and_single_contracts_are_the_same_data():
    rows = [(1, 1)] * 3 + [(2, 1)] * 2 + [(3, 1)] + [(3, 0)] * 4
    single = Contracts.of(*np.array(rows).T)
    together = Contracts.of_survivors([10, 7, 5, 4])
    for one, other in zip(single, together, strict=True):
        assert one.tolist() == other.tolist()


@given(alpha=st.floats(0.01, 50), beta=st.floats(0.01, 50), lived=st.integers(0, 40))
def test_survival_is_what_retention_multiplies_to_and_what_leaving_leaves(alpha, beta, lived):
    p, years = np.array([alpha, beta]), np.arange(1, 31)
    kept = np.cumprod(sbg.retention(p, lived + years))
    assert kept == pytest.approx(sbg.survival(p, years, lived), rel=1e-9)
    assert 1 - np.cumsum(sbg.leaving(p, years)) == pytest.approx(sbg.survival(p, years), abs=1e-10)
    assert kept.sum() == pytest.approx(float(sbg.expected(p, 30, lived)), rel=1e-9)


def test_discounted_renewals_are_the_sum_of_all_to_come():
    p, lived, years = np.array([0.668, 3.806]), np.array([0, 1, 7]), np.arange(1, 401)
    summed = sbg.survival(p, years, lived[:, None]) @ 1.1 ** -(years - 1.0)
    assert summed == pytest.approx(sbg.discounted(p, lived, 0.1), rel=1e-12)


def test_the_gradient_is_that_of_the_likelihood():
    data, theta, step = Contracts.of([1, 1, 0, 7, 300], [1, 0, 0, 1, 0]), np.log([0.7, 1.2]), 1e-6
    gradient = sbg.log_likelihood(theta, data)[1]
    for place, unit in enumerate(np.eye(2)):
        above, below = (sbg.log_likelihood(theta + sign * step * unit, data)[0] for sign in (1, -1))
        assert (above - below) / (2 * step) == pytest.approx(gradient[place], rel=1e-6, abs=1e-7)


def test_known_parameters_are_recovered_from_contracts_of_different_ages():
    chance = np.random.default_rng(8)
    n = 20_000
    leaves, age = chance.beta(0.8, 2.4, n), chance.integers(1, 15, n)
    life = chance.geometric(leaves)
    fit = maximise(sbg, Contracts.of(np.minimum(life, age), life <= age))
    errors = np.array(list((fit.standard_errors or {}).values()))
    assert (np.abs(fit.values - [0.8, 2.4]) < 3 * errors).all()


def test_nobody_leaving_and_everybody_leaving_at_once_can_be_fitted():
    for survivors in ([100, 100, 100], [100, 0], [1, 1]):
        fit = maximise(sbg, Contracts.of_survivors(survivors))
        assert np.isfinite(fit.values).all()
        assert ((sbg.survival(fit.values, np.arange(5)) >= 0) & (sbg.survival(fit.values, np.arange(5)) <= 1)).all()


@pytest.mark.parametrize(
    ("periods", "left", "said"),
    [
        ([], [], "no contracts"),
        ([0], [1], "1 or more"),
        ([1.5], [0], "whole"),
        ([2], [2], "0 or 1"),
        ([np.nan], [0], "whole"),
    ],
)
def test_impossible_contracts_are_refused(periods, left, said):
    with pytest.raises(InvalidInput, match=said):
        Contracts.of(periods, left)


@pytest.mark.parametrize("survivors", [[], [100], [100, 101], [0, 0], [100, -1], [np.inf, 1], [[1, 2]]])
def test_impossible_survivors_are_refused(survivors):
    with pytest.raises(InvalidInput, match="survivors"):
        Contracts.of_survivors(survivors)


def test_a_discount_rate_that_is_not_above_zero_is_refused():
    with pytest.raises(InvalidInput, match="above 0"):
        sbg.discounted(np.array([1.0, 2.0]), 0, 0)
