"""Static covariates: known effects are recovered, and without any the model is the plain one."""

from __future__ import annotations

import numpy as np
import pytest

from kiki.errors import InvalidInput
from kiki.value import bg_nbd, pareto_nbd
from kiki.value.covariates import EFFECTS, Coding, Strata, WithCovariates
from kiki.value.fitting import maximise
from kiki.value.groups import Groups

P = {
    "pareto-nbd": [0.8, 6.0, 1.2, 20.0],
    "bg-nbd": [0.8, 6.0, 0.9, 2.6],
    "mbg-nbd": [0.8, 6.0, 0.9, 2.6],
    "nbd": [0.8, 6.0],
}


def pareto_log(n=12_000, seed=3):
    """Ages, channels, and histories that depend on both."""
    chance = np.random.default_rng(seed)
    channel = chance.choice(["web", "shop", "app"], n, p=[0.5, 0.3, 0.2])
    years = chance.choice([20.0, 40.0, 60.0], n)
    z = (years - years.mean()) / years.std()
    faster = 0.5 * (channel == "shop") - 0.4 * (channel == "app") + 0.25 * z
    sooner = -0.6 * (channel == "shop") + 0.3 * (channel == "app") - 0.2 * z
    t = chance.integers(180, 365, n)
    rate = chance.gamma(0.8, 1 / 6, n) * np.exp(faster) / 7
    life = np.minimum(chance.exponential(7 / (chance.gamma(1.2, 1 / 20, n) * np.exp(sooner))), t)
    x = chance.poisson(rate * life)
    tx = np.where(x > 0, life * chance.random(n) ** (1 / np.maximum(x, 1)), 0).astype(int)
    return {"channel": channel, "years": years}, x, tx, t


def bg_log(n=12_000, seed=5):
    chance = np.random.default_rng(seed)
    shop = chance.random(n) < 0.4
    t = chance.integers(180, 365, n)
    rate = chance.gamma(0.8, 1 / 6, n) * np.exp(0.5 * shop) / 7
    leaves = chance.beta(0.9 * np.exp(-0.3 * shop), 2.6 * np.exp(0.4 * shop))
    most = np.minimum(chance.geometric(leaves), 400)
    moments = np.cumsum(chance.exponential(1 / rate[:, None], (n, 120)), axis=1)
    happened = (moments <= t[:, None]) & (np.arange(120) < most[:, None])
    x = happened.sum(axis=1)
    tx = np.where(x > 0, np.where(happened, moments, 0).max(axis=1), 0).astype(int)
    return {"channel": np.where(shop, "shop", "web")}, x, tx, t


def within(fit, truth, wide=3.5):
    errors = np.array([(fit.standard_errors or {})[name] for name in truth])
    found = np.array([fit.parameters[name] for name in truth])
    return (np.abs(found - list(truth.values())) < wide * errors).all()


def test_pareto_nbd_recovers_the_effects_of_a_simulated_log():
    columns, x, tx, t = pareto_log()
    coding = Coding.of(columns)
    strata, _ = Strata.collapse(x, tx, t, coding.encode(columns))
    model = WithCovariates("pareto-nbd", coding.names)
    fit = maximise(model, strata)
    assert fit.converged
    assert len(strata.groups) == 9
    truth = {
        "rate:years": 0.25, "rate:channel=shop": 0.5, "rate:channel=app": -0.4,
        "dropout:years": -0.2, "dropout:channel=shop": -0.6, "dropout:channel=app": 0.3,
    }  # fmt: skip
    assert within(fit, {name: float(np.exp(value)) for name, value in truth.items()})
    assert within(fit, {"r": 0.8, "alpha": 6.0, "s": 1.2, "beta": 20.0}, wide=4)


def test_bg_nbd_recovers_the_effects_of_a_simulated_log():
    columns, x, tx, t = bg_log()
    coding = Coding.of(columns)
    strata, _ = Strata.collapse(x, tx, t, coding.encode(columns))
    fit = maximise(WithCovariates("bg-nbd", coding.names), strata)
    truth = {"rate:channel=shop": 0.5, "a:channel=shop": -0.3, "b:channel=shop": 0.4}
    assert fit.converged
    assert within(fit, {name: float(np.exp(value)) for name, value in truth.items()})


@pytest.mark.parametrize("name", EFFECTS)
def test_the_gradient_and_the_hessian_are_those_of_the_likelihood(name):
    strata = Strata(
        np.array([[0.0, 1.5], [1.0, -0.5]]),
        (Groups.of([0, 3], [0, 20], [39, 39], [5, 1]), Groups.of([1, 30], [5, 20], [10, 40])),
    )
    model, step = WithCovariates(name, ("web", "age")), 1e-5
    theta = np.concatenate([np.log(P[name]), np.full(len(EFFECTS[name]) * 2, 0.3)])
    total = model.total(theta, strata)
    values, gradient = model.log_likelihood(theta, strata)
    assert float(strata.weight @ values) == pytest.approx(total.value, rel=1e-12)
    assert gradient @ strata.weight == pytest.approx(total.gradient, rel=1e-9)
    for place, unit in enumerate(np.eye(theta.size)):
        above, below = (model.total(theta + sign * step * unit, strata) for sign in (1, -1))
        assert (above.value - below.value) / (2 * step) == pytest.approx(total.gradient[place], rel=2e-4, abs=2e-4)
        assert (above.gradient - below.gradient) / (2 * step) == pytest.approx(total.hessian[place], rel=2e-3, abs=2e-3)


@pytest.mark.parametrize(("name", "plain"), [("pareto-nbd", pareto_nbd), ("bg-nbd", bg_nbd)])
def test_factors_of_one_are_the_plain_model_in_the_customers_order(name, plain):
    x, tx, t = np.array([3, 0, 1, 3, 0]), np.array([140, 0, 30, 140, 0]), np.array([273, 200, 273, 273, 200])
    columns = {"channel": np.array(["web", "web", "app", "app", "web"])}
    coding = Coding.of(columns)
    strata, index = Strata.collapse(x, tx, t, coding.encode(columns))
    model, own = WithCovariates(name, coding.names), np.array(P[name])
    p = np.concatenate([own, np.ones(len(EFFECTS[name]))])
    groups = Groups.of(x, tx / 7, t / 7)
    assert plain.alive(own, groups) == pytest.approx(model.alive(p, strata)[index])
    assert plain.expected(own, 39, groups) == pytest.approx(model.expected(p, 39, strata)[index])
    assert plain.pmf(own, 39, groups, 5) == pytest.approx(model.pmf(p, 39, strata, 5)[index])
    assert plain.no_purchase(own, 39, groups) == pytest.approx(model.no_purchase(p, 39, strata)[index])
    assert plain.expected_new(own, np.array([1.0, 39])) == pytest.approx(
        model.expected_new(p, np.array([1.0, 39]), np.ones(1))
    )


def test_a_rate_factor_of_two_is_half_of_alpha():
    model = WithCovariates("pareto-nbd", ("web",))
    p = np.array([0.8, 6.0, 1.2, 20.0, 2.0, 0.5])
    assert [0.8, 3.0, 1.2, 40.0] == pytest.approx(model.parameters(p, np.ones(1)))
    assert [0.8, 6.0, 1.2, 20.0] == pytest.approx(model.parameters(p, np.zeros(1)))


def test_a_narrow_ridge_leaves_no_effect_and_a_wide_one_the_likelihoods():
    columns, x, tx, t = pareto_log(4000)
    coding = Coding.of(columns)
    strata, _ = Strata.collapse(x, tx, t, coding.encode(columns))
    model = WithCovariates("pareto-nbd", coding.names)
    free = maximise(model, strata).values
    narrow, wide = (maximise(model, strata, prior=model.ridge(spread)).values for spread in (1e-3, 1e3))
    assert np.ones(6) == pytest.approx(narrow[4:], abs=5e-3)
    assert free == pytest.approx(wide, rel=1e-4)


def test_a_characteristic_that_differs_for_everybody_is_exact_too():
    _, x, tx, t = pareto_log(300)
    z = Coding.of({"score": np.arange(300.0)}).encode({"score": np.arange(300.0)})
    strata, index = Strata.collapse(x, tx, t, z)
    assert len(strata.groups) == 300
    assert strata.together.x[index].tolist() == x.tolist()
    fit = maximise(
        WithCovariates("pareto-nbd", ("score",)), strata, prior=WithCovariates("pareto-nbd", ("score",)).ridge()
    )
    assert fit.converged


def test_the_coding_of_one_log_reads_another():
    coding = Coding.of({"years": [20, 40, 60], "channel": ["web", "web", "app"]})
    assert ("years", "channel=app") == coding.names
    assert [[0.0, 1.0]] == coding.encode({"channel": ["app"], "years": [40]}).tolist()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({}, "no covariates"),
        ({"years": [20, 20]}, "the same for every customer"),
        ({"years": [20, np.nan]}, "row 1: years is missing"),
        ({"channel": np.array(["web", None], dtype=object)}, "row 1: channel is missing"),
        ({"channel": ["web", ""]}, "missing"),
        ({"channel": [["web"], ["app"]]}, "one column"),
    ],
)
def test_columns_that_say_nothing_are_refused(columns, said):
    with pytest.raises(InvalidInput, match=said):
        Coding.of(columns)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"channel": ["web"]}, "the covariates are channel, years"),
        ({"channel": ["post"], "years": [20]}, "row 0: channel is 'post'"),
        ({"channel": ["web"], "years": ["old"]}, "a column of numbers"),
        ({"channel": ["web", "app"], "years": [20]}, "one length"),
    ],
)
def test_columns_that_the_coding_does_not_know_are_refused(columns, said):
    coding = Coding.of({"years": [20, 40, 60], "channel": ["web", "web", "app"]})
    with pytest.raises(InvalidInput, match=said):
        coding.encode(columns)


def test_models_and_effects_that_there_are_not_are_refused():
    with pytest.raises(InvalidInput, match="takes no covariates"):
        WithCovariates("gamma-gamma", ("web",))
    with pytest.raises(InvalidInput, match="act on rate, dropout"):
        WithCovariates("pareto-nbd", ("web",), only=("a",))
    with pytest.raises(InvalidInput, match="no covariates"):
        WithCovariates("pareto-nbd", ())
    with pytest.raises(InvalidInput, match="above 0"):
        WithCovariates("pareto-nbd", ("web",)).ridge(0)
    with pytest.raises(InvalidInput, match="one row for each customer"):
        Strata.collapse([1, 2], [1, 2], [3, 3], np.ones((3, 1)))
