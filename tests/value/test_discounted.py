"""Discounted purchases to come: against the integral of what is expected, model by model, and for frequent buyers."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad

from kiki.errors import InvalidInput
from kiki.value import bg_nbd, mbg_cnbd_k, mbg_nbd, nbd, pareto_nbd
from kiki.value.discounting import residual_purchases
from kiki.value.groups import Groups

MODELS = {
    "bg-nbd": (bg_nbd, [0.243, 4.414, 0.793, 2.426]),
    "mbg-nbd": (mbg_nbd, [0.525, 6.183, 0.891, 1.614]),
    "nbd": (nbd, [0.385, 12.07]),
    "pareto-nbd": (pareto_nbd, [0.553, 10.578, 0.606, 11.669]),
    "mbg-cnbd-3": (mbg_cnbd_k.of(3), [0.9, 2.1, 0.8, 2.4]),
}
GROUPS = Groups.of([0, 0, 1, 2, 7], [0, 0, 5, 30.43, 20], [0, 39, 39, 38.86, 39])


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_laplace_transform_of_the_expected_purchases(name):
    model, parameters = MODELS[name]
    p, rate = np.array(parameters), 0.02
    found = model.discounted(p, GROUPS, rate)
    for place in range(GROUPS.x.size):
        one = Groups(*(column[place : place + 1] for column in GROUPS))
        # By parts: the expectation itself, weighted by exp(-u) over u = rate * time.
        summed, _ = quad(
            lambda u, one=one: np.exp(-u) * model.expected(p, u / rate, one)[0], 0, 40, epsabs=1e-7, limit=40
        )
        assert summed == pytest.approx(found[place], rel=1e-5)


def exact(shape, rate, a, b, discount, k, phase):
    grown = mpmath.mpf(shape) + phase
    middle, width = mpmath.log(grown), 1 / mpmath.sqrt(grown)

    def integrand(y):
        later = 1 / (1 + discount * rate * mpmath.exp(-y))
        apart = 1 - later**k
        series = mpmath.hyp2f1(1, a, a + b, -(later**k) / apart) / apart
        return mpmath.exp(grown * y - mpmath.exp(y) - mpmath.loggamma(grown)) * later ** (k - phase) * series

    places = (
        [middle + width * step for step in (-9, -3, 0, 3, 9)] if grown > 30 else [-70, -30, -15, -6, -2, 0, 1, 2, 3, 5]
    )
    return float(mpmath.quad(integrand, places))


@pytest.mark.parametrize(
    ("shape", "rate", "a", "b", "discount", "k"),
    [
        (0.243, 43.0, 0.793, 2.426, 0.003, 1),
        (500.243, 43.0, 0.793, 502.426, 0.003, 1),
        (0.05, 1.0, 1.0, 2.0, 0.001, 1),
        (26.0, 30.0, 0.001, 20.0, 0.002, 1),
        (10.2, 20.0, 0.8, 5.4, 0.003, 3),
    ],
)
def test_the_quadrature_agrees_with_exact_arithmetic(shape, rate, a, b, discount, k):
    found = residual_purchases(np.array([shape]), np.array([rate]), a, np.array([b]), discount, k)[:, 0]
    assert [exact(shape, rate, a, b, discount, k, phase) for phase in range(k)] == pytest.approx(found, rel=1e-8)


def test_a_higher_rate_is_worth_less_and_nothing_breaks_for_odd_histories():
    odd = Groups.of([0, 0, 30, 400, 500, 2], [0, 0, 20, 38, 38.9, 1], [0, 500, 40, 40, 39, 500])
    for model, parameters in MODELS.values():
        values = np.array([model.discounted(np.array(parameters), odd, rate) for rate in (1e-5, 1e-3, 0.1, 10)])
        assert np.isfinite(values).all()
        assert (values >= 0).all()
        assert (np.diff(values, axis=0) <= 0).all()


def test_every_history_gets_its_own_value_however_many_there_are():
    n = 3000
    groups = Groups.of(np.arange(n) % 40 + 1, np.full(n, 5.0), 10 + np.arange(n) / 100)
    p = np.array([0.243, 4.414, 0.793, 2.426])
    found = bg_nbd.discounted(p, groups, 0.003)
    for place in (0, 1023, 1024, 2999):
        alone = Groups(*(column[place : place + 1] for column in groups))
        assert bg_nbd.discounted(p, alone, 0.003)[0] == pytest.approx(found[place], rel=1e-9)


def test_a_discount_rate_that_is_not_above_zero_is_refused():
    for rate in (0, -1, float("nan")):
        with pytest.raises(InvalidInput, match="above 0"):
            mbg_nbd.discounted(np.array([0.5, 6.0, 0.9, 1.6]), GROUPS, rate)
