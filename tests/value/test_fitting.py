"""Fits: what is found, how far it is trusted, and what is said where the data do not tell."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from kiki.errors import InvalidInput
from kiki.value import bg_nbd, mbg_nbd, nbd, pareto_nbd
from kiki.value.count_models import COUNT_MODELS
from kiki.value.fitting import EDGE, TOLERANCE, Point, fit_count, maximise, minimised
from kiki.value.groups import Groups
from tests.value import cdnow, simulated
from tests.value.simulated import gamma, same

NAMES = pytest.mark.parametrize("name", COUNT_MODELS)
WITH_DROPOUT = pytest.mark.parametrize("name", [name for name in COUNT_MODELS if name != "nbd"])
ESTIMATORS = pytest.mark.parametrize("estimator", ["mle", "map"])

ODD_LOGS = {
    "nobody repeats": Groups.collapse([0] * 50, [0] * 50, range(10, 60))[0],
    "one customer": Groups.of([3], [2.5], [7]),
    "one customer who never came back": Groups.of([0], [0], [7]),
    "one group": Groups.of([2], [20], [39], [50]),
    "some came on the last day": Groups.of([0, 0, 1, 4], [0, 0, 0.5, 7], [0, 0, 1, 9]),
    "everybody buys to the end": Groups.of([5], [43], [43], [100]),
    "everybody leaves on the second day": Groups.of([1], [1 / 7], [43], [100]),
    "hundreds of purchases": Groups.of([500, 3, 800, 0], [43, 29, 52, 0], [52, 52, 52, 52]),
}


@NAMES
@ESTIMATORS
@pytest.mark.parametrize("log", ODD_LOGS)
def test_an_odd_log_gets_finite_parameters_and_forecasts(name, estimator, log):
    groups = ODD_LOGS[log]
    found, fit, fell_back_from = fit_count(name, groups, estimator)
    assert found in {name, "nbd"}
    assert (fell_back_from == name) == (found != name)
    assert np.isfinite(fit.values).all()
    assert (fit.values > 0).all()
    assert np.isfinite(fit.log_likelihood)
    model = COUNT_MODELS[found]
    expected = model.expected(fit.values, 52, groups)
    assert np.isfinite(expected).all()
    assert (expected >= 0).all()
    assert np.isfinite(model.pmf(fit.values, 52, groups, 20)).all()


@NAMES
def test_a_fit_does_not_depend_on_how_rows_are_grouped_or_ordered(name):
    groups = cdnow.groups()
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(groups.x.size), groups.weight.astype(int)))
    rows = Groups.of(groups.x[order], groups.tx[order], groups.t[order])
    grouped, single = (fit_count(name, data).fit for data in (groups, rows))
    assert grouped.values == pytest.approx(single.values, rel=1e-6)
    assert grouped.log_likelihood == pytest.approx(single.log_likelihood, rel=1e-11)


@NAMES
@ESTIMATORS
def test_a_fit_to_cdnow_has_no_slope_left(name, estimator):
    fit = fit_count(name, cdnow.groups(), estimator).fit
    assert fit.converged
    assert fit.gradient_max <= TOLERANCE
    assert ([], []) == (fit.notes, fit.at_boundary)
    assert fit.standard_errors == dict(zip(fit.parameters, np.sqrt(np.diag(fit.covariance)), strict=True))


@pytest.mark.parametrize(
    ("model", "truth"), [(nbd, [0.8, 6.0]), (bg_nbd, [0.6, 4.0, 0.8, 2.5]), (mbg_nbd, [0.9, 5.0, 0.9, 2.0])]
)
def test_parameters_of_a_simulated_log_are_recovered(model, truth):
    groups = _drops_by_chance(truth, at_once=model is mbg_nbd)
    fit = maximise(model, groups)
    errors = np.array(list((fit.standard_errors or {}).values()))
    assert (np.abs(fit.values - truth) < 3 * errors).all()


def _drops_by_chance(truth, *, at_once):
    chance = np.random.default_rng(7)
    r, alpha, *beta = truth
    histories = []
    for _ in range(15_000):
        rate, age = chance.gamma(r, 1 / alpha), chance.uniform(30, 60)
        leaves = chance.beta(*beta) if beta else 0.0
        x, last, now = 0, 0.0, 0.0
        alive = not (at_once and chance.random() < leaves)
        while alive:
            now += chance.exponential(1 / max(rate, 1e-12))
            if now > age:
                break
            x, last = x + 1, now
            alive = chance.random() >= leaves
        histories.append((x, last, age))
    return Groups.of(*zip(*histories, strict=True))


@WITH_DROPOUT
@ESTIMATORS
def test_without_any_dropout_the_answer_is_the_nbd_and_says_so(name, estimator):
    groups = simulated.groups(300, gamma(0.8, 8), same(0))
    found, fit, fell_back_from = fit_count(name, groups, estimator)
    assert ("nbd", name) == (found, fell_back_from)
    assert re.fullmatch(
        rf"dropout is not identified: {name} gains -?[0-9.]+ in log likelihood over nbd, and less than (1.92|4.61) may be "
        "chance; nbd was fitted instead",
        fit.notes[-1],
    )
    assert fit.standard_errors is not None


@ESTIMATORS
def test_dropout_that_is_the_same_for_everybody_is_kept_though_s_and_beta_run_away(estimator):
    """The NBD would be 2,000 lower in log likelihood, and expect seven times as many purchases."""
    groups = simulated.groups(5000, gamma(0.8, 8), same(0.05))
    name, fit, fell_back_from = fit_count("pareto-nbd", groups, estimator)
    assert ("pareto-nbd", None) == (name, fell_back_from)
    assert ["s", "beta"] == fit.at_boundary
    assert fit.standard_errors is None
    assert "s, beta" in fit.notes[0]
    assert fit.parameters["s"] / fit.parameters["beta"] == pytest.approx(0.05, rel=0.1)
    assert 20 < fit.parameters["s"] < {"mle": np.inf, "map": 60}[estimator]
    alive = float(groups.weight @ pareto_nbd.alive(fit.values, groups)) / groups.customers
    assert alive == pytest.approx(float(np.exp(-0.05 * groups.t) @ groups.weight) / groups.customers, abs=0.03)


def test_everybody_leaving_at_once_is_dropout_and_nobody_is_expected_back():
    groups = simulated.groups(2000, gamma(0.8, 8), same(5))
    name, fit, _ = fit_count("pareto-nbd", groups)
    assert name == "pareto-nbd"
    assert float(groups.weight @ pareto_nbd.expected(fit.values, 52, groups)) < 1


def test_parameters_stay_between_edges_and_those_at_one_are_named():
    groups = ODD_LOGS["one group"]
    fit = maximise(nbd, groups)
    assert ["r", "alpha"] == fit.at_boundary
    assert (np.abs(np.log(fit.values / nbd.start(groups))) <= EDGE + 1e-6).all()
    assert fit.parameters["r"] / fit.parameters["alpha"] == pytest.approx(2 / 39, rel=1e-3)


@settings(max_examples=100, deadline=None)
@given(
    best=st.lists(st.floats(-20, 20), min_size=3, max_size=3),
    begin=st.lists(st.sampled_from([-EDGE, -1.0, 0.0, EDGE]), min_size=3, max_size=3),
)
def test_a_parabola_is_minimised_inside_of_the_edges_from_any_place_in_a_few_steps(best, begin):
    hessian = np.array([[2.0, 0.9, 0.0], [0.9, 1.0, 0.3], [0.0, 0.3, 1.0]])
    calls = []

    def parabola(theta):
        calls.append(theta)
        apart = theta - best
        return Point(float(apart @ hessian @ apart) / 2, hessian @ apart, hessian)

    theta, point = minimised(parabola, np.zeros(3), 100.0, begin=np.array(begin))
    exact = minimize(
        lambda at: (at - best) @ hessian @ (at - best) / 2, np.zeros(3), bounds=[(-EDGE, EDGE)] * 3, tol=1e-12
    )
    assert (np.abs(theta) <= EDGE + 1e-9).all()
    assert exact.fun == pytest.approx(point.value, abs=1e-6)
    assert len(calls) < 60


class _WithoutHessian:
    """BG/NBD by its gradient alone, as somebody may write a model."""

    NAMES = bg_nbd.NAMES
    start = staticmethod(bg_nbd.start)
    log_likelihood = staticmethod(bg_nbd.log_likelihood)


def test_a_model_without_a_hessian_is_fitted_as_well():
    exact, differences = maximise(bg_nbd, cdnow.groups()), maximise(_WithoutHessian(), cdnow.groups())
    assert differences.converged
    assert exact.values == pytest.approx(differences.values, rel=1e-6)
    assert exact.covariance == pytest.approx(differences.covariance, rel=1e-4)


def test_unknown_estimators_and_logs_without_any_time_are_refused():
    with pytest.raises(InvalidInput, match="mle, map"):
        fit_count("bg-nbd", cdnow.groups(), "bayes")
    with pytest.raises(InvalidInput, match="every age is 0"):
        fit_count("bg-nbd", Groups.of([0, 0], [0, 0], [0, 0]))
