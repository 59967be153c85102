"""BG/BB: the published numbers of Fader, Hardie and Shang 2010, and a distribution that is one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value import bg_bb
from kiki.value.bg_bb import Opportunities
from kiki.value.fitting import maximise

# Fader, Hardie and Shang 2010: 11,104 people who gave for the first time in 1995, and their gifts of the six years after:
# gifts, year of the last one, people.
DONATIONS = [
    (0, 0, 3464), (1, 1, 1091), (1, 2, 277), (1, 3, 129), (1, 4, 78), (1, 5, 119), (1, 6, 129), (2, 2, 613),
    (2, 3, 255), (2, 4, 155), (2, 5, 173), (2, 6, 234), (3, 3, 322), (3, 4, 181), (3, 5, 225), (3, 6, 357),
    (4, 4, 240), (4, 5, 284), (4, 6, 512), (5, 5, 335), (5, 6, 728), (6, 6, 1203),
]  # fmt: skip
P = np.array([1.204, 0.750, 0.657, 2.783])
ODD = Opportunities.of([0, 0, 1, 3, 12, 400, 1], [0, 0, 1, 9, 12, 400, 365], [0, 6, 1, 12, 12, 400, 400])[0]


def donations():
    gifts, last, people = np.array(DONATIONS).T
    return Opportunities.of(gifts, last, np.full(gifts.size, 6), people)[0]


def test_the_fit_to_the_donations_prints_the_published_digits():
    fit = maximise(bg_bb, donations())
    assert donations().customers == 11_104
    assert [1.204, 0.750, 0.657, 2.783] == [round(value, 3) for value in fit.parameters.values()]
    assert round(fit.log_likelihood, 2) == -33225.58
    assert fit.converged


def test_the_donations_forecasts_print_the_published_digits():
    data = donations()
    p = maximise(bg_bb, data).values
    people = Opportunities.of([0, 2, 6], [0, 4, 6], [6, 6, 6])[0]
    assert [0.11, 0.59, 0.93] == bg_bb.alive(p, people, ahead=1).round(2).tolist()
    assert round(float(data.weight @ bg_bb.expected(p, 5, data)), 1) == 12_884.2
    in_sample = data.customers * bg_bb.pmf_new(p, 6)
    assert [3454.9, 1253.1] == in_sample[[0, 6]].round(1).tolist()


def test_the_gradient_is_that_of_the_likelihood():
    theta, step = np.log(P), 1e-6
    _, gradient = bg_bb.log_likelihood(theta, ODD)
    for place, unit in enumerate(np.eye(4)):
        above, below = (bg_bb.log_likelihood(theta + sign * step * unit, ODD)[0] for sign in (1, -1))
        assert (above - below) / (2 * step) == pytest.approx(gradient[place], rel=1e-5, abs=1e-6)


def test_the_likelihoods_of_all_sequences_of_four_opportunities_sum_to_one():
    total = 0.0
    for code in range(16):
        taken = [opportunity for opportunity in range(1, 5) if code >> (opportunity - 1) & 1]
        row = Opportunities.of([len(taken)], [max(taken, default=0)], [4])[0]
        total += float(np.exp(bg_bb.log_likelihood(np.log(P), row)[0][0]))
    assert total == pytest.approx(1, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(shift=st.lists(st.floats(-3, 3), min_size=4, max_size=4), h=st.integers(0, 30))
def test_the_pmf_sums_to_one_and_its_mean_is_the_expectation(shift, h):
    p = P * np.exp(shift)
    pmf = bg_bb.pmf(p, h, ODD, h)
    assert ((pmf >= 0) & (pmf <= 1 + 1e-9)).all()
    assert np.ones(ODD.x.size) == pytest.approx(pmf.sum(axis=1), abs=1e-9)
    assert bg_bb.expected(p, h, ODD) == pytest.approx(pmf @ np.arange(h + 1), rel=1e-8, abs=1e-12)
    assert bg_bb.no_purchase(p, h, ODD) == pytest.approx(pmf[:, 0], abs=1e-12)


def test_a_new_customers_expectation_is_the_mean_of_his_distribution():
    until = bg_bb.expected_new(P, [[0, 1], [6, 11]])
    means = [[0, bg_bb.pmf_new(P, 1) @ np.arange(2)], [bg_bb.pmf_new(P, n) @ np.arange(n + 1) for n in (6, 11)]]
    assert np.array(means) == pytest.approx(until, rel=1e-10)


def test_discounting_is_the_sum_over_all_opportunities_to_come():
    each = np.diff([bg_bb.expected(P, h, ODD) for h in range(301)], axis=0)
    assert each.T @ 1.1 ** -np.arange(1.0, 301) == pytest.approx(bg_bb.discounted(P, ODD, 0.1), rel=1e-9)


def test_known_parameters_are_recovered_from_a_simulation():
    chance = np.random.default_rng(4)
    n, opportunities = 20_000, 12
    takes, leaves = chance.beta(1.2, 0.8, n), chance.beta(0.7, 2.8, n)
    here = np.cumsum(chance.random((n, opportunities)) < leaves[:, None], axis=1) == 0
    taken = here & (chance.random((n, opportunities)) < takes[:, None])
    last = np.where(taken.any(axis=1), opportunities - taken[:, ::-1].argmax(axis=1), 0)
    data, index = Opportunities.of(taken.sum(axis=1), last, np.full(n, opportunities))
    assert (data.x[index] == taken.sum(axis=1)).all()
    fit = maximise(bg_bb, data)
    errors = np.array(list((fit.standard_errors or {}).values()))
    assert (np.abs(fit.values - [1.2, 0.8, 0.7, 2.8]) < 3 * errors).all()


@pytest.mark.parametrize(
    ("x", "tx", "n", "said"),
    [
        ([], [], [], "no customers"),
        ([1], [2], [1], "not after the last one there was"),
        ([3], [2], [6], "more opportunities than there were"),
        ([0], [2], [6], "has 0 as the last"),
        ([1.5], [2], [6], "whole numbers"),
        ([np.nan], [2], [6], "whole numbers"),
        ([np.inf], [np.inf], [np.inf], "whole numbers"),
        ([1, 2], [2], [6], "one length"),
    ],
)
def test_impossible_histories_are_refused(x, tx, n, said):
    with pytest.raises(InvalidInput, match=said):
        Opportunities.of(x, tx, n)


def test_impossible_horizons_and_rates_are_refused():
    for horizon in (-1, 2.5):
        with pytest.raises(InvalidInput, match="whole number"):
            bg_bb.expected(P, horizon, ODD)
    with pytest.raises(InvalidInput, match="0 or more"):
        bg_bb.expected_new(P, -1)
    for rate in (0, -0.1, np.nan):
        with pytest.raises(InvalidInput, match="above 0"):
            bg_bb.discounted(P, ODD, rate)
