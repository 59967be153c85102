"""The table of a fit, and intervals where a table of normal approximations would mislead."""

from __future__ import annotations

import re

import numpy as np
import pytest

from kiki.errors import InvalidInput
from kiki.value import bg_nbd, gamma_gamma, pareto_nbd
from kiki.value.count_models import COUNT_MODELS
from kiki.value.fitting import fit_count, maximise
from kiki.value.gamma_gamma import Spending
from kiki.value.profile import profile_intervals
from kiki.value.summary import likelihood_results, summary_table
from tests.value import cdnow, simulated
from tests.value.simulated import gamma, same


@pytest.mark.parametrize("name", COUNT_MODELS)
@pytest.mark.filterwarnings("error")
def test_statsmodels_finds_our_covariance_at_our_parameters(name):
    groups = cdnow.groups()
    fit = fit_count(name, groups).fit
    results = likelihood_results(name, COUNT_MODELS[name], fit, groups)
    assert fit.values.tolist() == results.params.tolist()
    assert fit.covariance == pytest.approx(results.cov_params(), rel=1e-9)
    assert results.llf == pytest.approx(fit.log_likelihood, rel=1e-12)
    assert ([*fit.parameters], 2357) == (results.model.exog_names, results.nobs)
    assert results.model.score(fit.values) == pytest.approx(np.zeros(fit.values.size), abs=1e-3)


def test_the_table_has_the_literatures_names_and_four_digits():
    groups = cdnow.groups()
    table = summary_table("pareto-nbd", fit_count("pareto-nbd", groups).fit, groups)
    assert re.search(r"^r +0\.5533 +0\.048 +11\.6\d\d +0\.000 +0\.460 +0\.647$", table, re.MULTILINE)
    assert re.search(r"^beta +11\.6687 +6\.211", table, re.MULTILINE)
    assert "2,357 customers in 1,016 groups" in table


def test_the_spend_has_a_table_too():
    spending = Spending.of(cdnow.repeat_orders(), cdnow.mean_amounts())
    table = summary_table("gamma-gamma", maximise(gamma_gamma, spending), spending)
    assert re.search(r"^q +3\.74\d\d +0\.290", table, re.MULTILINE)


def test_on_a_ridge_the_table_has_profile_intervals_and_says_why():
    groups = simulated.groups(2000, gamma(0.8, 8), same(0.05))
    fit = fit_count("pareto-nbd", groups).fit
    table = summary_table("pareto-nbd", fit, groups)
    assert "profile likelihood" in table
    assert re.search(r"^s .* inf$", table, re.MULTILINE)
    assert fit.notes[0] in table
    with pytest.raises(InvalidInput, match="boundary"):
        likelihood_results("pareto-nbd", pareto_nbd, fit, groups)


def test_profile_intervals_are_those_of_the_normal_approximation_where_there_are_many_customers():
    groups = simulated.groups(20_000, gamma(0.8, 6), gamma(1.2, 20))
    fit = maximise(bg_nbd, groups)
    for name, (low, high) in profile_intervals(bg_nbd, groups, fit).items():
        error = (fit.standard_errors or {})[name]
        assert (low, high) == pytest.approx(
            (fit.parameters[name] - 1.96 * error, fit.parameters[name] + 1.96 * error), rel=0.03
        )


def test_profile_intervals_hold_the_truth_and_are_lopsided_where_the_likelihood_is():
    groups = simulated.groups(2000, gamma(0.8, 8), gamma(0.6, 12))
    fit = maximise(pareto_nbd, groups)
    ends = profile_intervals(pareto_nbd, groups, fit)
    for truth, (low, high) in zip([0.8, 8, 0.6, 12], ends.values(), strict=True):
        assert low < truth < high
    low, high = ends["beta"]
    assert high - fit.parameters["beta"] > fit.parameters["beta"] - low


def test_on_a_ridge_only_the_end_that_the_data_set_is_finite():
    groups = simulated.groups(2000, gamma(0.8, 8), same(0.05))
    ends = profile_intervals(pareto_nbd, groups, maximise(pareto_nbd, groups))
    assert ends["s"][0] > 0.5
    assert [np.inf, np.inf] == [ends["s"][1], ends["beta"][1]]
    assert ends["r"][0] < 0.8 < ends["r"][1]
