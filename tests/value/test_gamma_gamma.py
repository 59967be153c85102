"""Gamma-Gamma: published digits, the gradient, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from kiki.errors import InvalidInput
from kiki.value import gamma_gamma
from kiki.value.fitting import maximise
from kiki.value.gamma_gamma import Spending
from tests.value import cdnow


def test_the_fit_to_cdnow_is_the_published_one():
    """Fader, Hardie and Lee 2005; the file rounds mean amounts to cents, which moves the third digit."""
    fit = maximise(gamma_gamma, Spending.of(cdnow.repeat_orders(), cdnow.mean_amounts()))
    assert [6.25, 3.744, 15.443] == pytest.approx(fit.values.tolist(), abs=0.006)
    assert fit.log_likelihood == pytest.approx(-4055.92, abs=0.02)
    assert fit.converged


def test_the_mean_spend_of_the_first_customers_is_the_published_one():
    published = [24.65, 18.91, 35.17, 35.17, 35.17, 71.46, 18.91, 35.17, 27.28, 35.17]
    found = gamma_gamma.mean_spend(
        np.array([6.25, 3.744, 15.443]), cdnow.repeat_orders()[:10], cdnow.mean_amounts()[:10]
    )
    assert published == pytest.approx(found.tolist(), abs=0.015)


def test_the_gradient_is_that_of_the_likelihood():
    rows = Spending.of([1, 2, 40, 3], [0.01, 20, 35.5, 4000])
    theta = np.log([6.25, 3.744, 15.443])
    _, gradient = gamma_gamma.log_likelihood(theta, rows)
    for place, unit in enumerate(np.eye(3)):
        above, below = (gamma_gamma.log_likelihood(theta + sign * 1e-6 * unit, rows)[0] for sign in (1, -1))
        assert (above - below) / 2e-6 == pytest.approx(gradient[place], rel=1e-5, abs=1e-4)


def test_equal_customers_are_one_row():
    rows = Spending.of([1, 2, 1, 0], [5, 5, 5, 0])
    assert ([1, 2], [2, 1]) == (rows.orders.tolist(), rows.weight.tolist())


@pytest.mark.parametrize(("orders", "mean"), [([0], [0]), ([1], [0]), ([1], [-3]), ([1.5], [3]), ([1], [float("nan")])])
def test_spend_that_cannot_be_is_refused(orders, mean):
    with pytest.raises(InvalidInput):
        Spending.of(orders, mean)


def test_amounts_without_a_finite_mean_are_refused_not_negative():
    with pytest.raises(InvalidInput, match="no finite mean"):
        gamma_gamma.mean_spend(np.array([2.0, 0.9, 10.0]), [0], [0])
