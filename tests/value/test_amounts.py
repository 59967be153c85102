"""Gamma-Gamma on first and later orders: the gradient, the Hessian, and that the shares tell p."""

from __future__ import annotations

import numpy as np
import pytest

from kiki.value import amounts, gamma_gamma
from kiki.value.amounts import Amounts

FIRST = np.array([10.0, 0.0, 30.0, 5.0, 8.0])
LATER_SUM = np.array([0.0, 40.0, 20.0, 30.0, 4.0])
LATER = np.array([0, 2, 1, 3, 1])
ROWS = Amounts.of(FIRST, LATER_SUM, LATER, np.ones(5))
THETA = np.log([3.9, 4.5, 29.8])


def test_the_gradient_is_that_of_the_likelihood():
    _, gradient = amounts.log_likelihood(THETA, ROWS)
    for place, unit in enumerate(np.eye(3)):
        above, below = (amounts.log_likelihood(THETA + sign * 1e-6 * unit, ROWS)[0] for sign in (1, -1))
        assert (above - below) / 2e-6 == pytest.approx(gradient[place], rel=1e-5, abs=1e-6)


def test_the_total_is_the_sum_and_its_hessian_that_of_the_gradient():
    value, gradient, hessian = amounts.total(THETA, ROWS)
    values, slopes = amounts.log_likelihood(THETA, ROWS)
    assert values @ ROWS.weight == pytest.approx(value)
    assert slopes @ ROWS.weight == pytest.approx(gradient)
    for place, unit in enumerate(np.eye(3)):
        above, below = (amounts.total(THETA + sign * 1e-5 * unit, ROWS).gradient for sign in (1, -1))
        assert (above - below) / 2e-5 == pytest.approx(hessian[place], rel=1e-5, abs=1e-6)


def test_without_first_orders_it_is_gamma_gamma_alone():
    rows = Amounts.of(np.zeros(5), LATER_SUM, LATER, np.ones(5))
    assert rows.later.size == 0
    assert gamma_gamma.total(THETA, rows.spending).value == pytest.approx(amounts.total(THETA, rows).value)


def test_a_first_order_and_another_have_the_joint_density_of_two_gamma_variables():
    """The product of the two parts, times the Jacobian of (mean, share), is the joint density, integrated over nu."""
    p, q, v = np.exp(THETA)
    first, later = 30.0, 20.0
    rows = Amounts.of(np.array([first]), np.array([later]), np.array([1]), np.ones(1))
    found = amounts.log_likelihood(THETA, rows)[0].sum()
    chance = np.random.default_rng(1)
    nu = chance.gamma(q, 1 / v, 400_000)
    joint = np.mean(
        np.exp(2 * p * np.log(nu) + (p - 1) * np.log(first * later) - nu * (first + later) - 2 * float(_log_gamma(p)))
    )
    # d(first, later) = 2 (first + later) d(mean, share)
    assert np.log(joint * 2 * (first + later)) == pytest.approx(found, abs=0.02)


def _log_gamma(p):
    from scipy.special import gammaln

    return gammaln(p)
