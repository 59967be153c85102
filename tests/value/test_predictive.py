"""The joint distribution: against draws, against its own closed forms, and at its edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value import predictive as predictive_file
from kiki.value.mixture import Mixture
from kiki.value.predictive import Level, Predictive
from kiki.value.spend import SpendModel, fit_spend
from tests.value.customers import customers, drawn

PARETO = np.array([0.553, 10.578, 0.606, 11.669])
MIXED = Mixture((("pareto-nbd", PARETO, 0.6), ("mbg-nbd", np.array([0.525, 6.183, 0.891, 1.614]), 0.4)))


def spend(**change) -> SpendModel:
    plain = {
        "p": 4.0,
        "q": 3.5,
        "v": 25.0,
        "constant": None,
        "zero_share": 0.0,
        "first_order": 1.0,
        "frequency_exponent": 0.0,
        "independence_statistic": None,
        "independence_p_value": None,
        "log_likelihood": None,
        "standard_errors": None,
    }
    return SpendModel(**(plain | change))


CONSTANT = spend(p=None, q=None, v=None, constant=12.5)
SEVERAL = customers(
    [0, 0, 1, 3, 26, 3], [0, 0, 100, 200, 216, 200], [10, 273, 270, 250, 217, 250], 20.0, [0, 0, 5, 90, 700, 9]
)


@pytest.mark.parametrize("model", [spend(), spend(zero_share=0.3, frequency_exponent=0.2, first_order=None), CONSTANT])
@pytest.mark.parametrize("row", [0, 1, 3, 4])
def test_quantiles_of_revenue_are_those_of_draws(model, row):
    """Draws follow the definition: a count of the mixture, an unknown nu, gamma orders of which some are free."""
    one = SEVERAL.take(np.array([row]))
    whole = Predictive(MIXED, model, one, 39.0)
    chance = np.random.default_rng(row)
    n = chance.choice(2000, 200_000, p=_sums_to_one(MIXED.pmf(39.0, whole.groups, 1999)[0]))
    paid = chance.binomial(n, 1 - model.zero_share)
    if model.constant is None:
        known = model.posterior(one)
        nu = chance.gamma(model.q + model.p * known.orders[0], 1 / known.scale[0], n.size)
        revenue = np.where(paid > 0, chance.gamma(np.maximum(model.p * paid, 1e-9), 1 / nu), 0.0)
    else:
        revenue = paid * model.constant
    for p in (0.1, 0.5, 0.9, 0.975):
        value = whole.quantile("revenue", p)[0]
        assert np.mean(revenue < value * (1 - 1e-9)) <= p + 0.006
        assert np.mean(revenue <= value * (1 + 1e-9)) >= p - 0.006
    assert revenue.mean() == pytest.approx(whole.mean("revenue")[0], abs=5 * revenue.std() / np.sqrt(n.size))
    assert n.mean() == pytest.approx(whole.mean("purchases")[0], abs=5 * n.std() / np.sqrt(n.size))


def _sums_to_one(pmf):
    return pmf / pmf.sum()


def test_customers_who_look_the_same_get_the_same_and_order_is_kept():
    whole = Predictive(MIXED, spend(), SEVERAL, 39.0)
    medians = whole.quantile("purchases", 0.8)
    assert medians[3] == medians[5]
    each = [
        Predictive(MIXED, spend(), SEVERAL.take(np.array([row])), 39.0).quantile("revenue", 0.8)[0] for row in range(6)
    ]
    assert whole.quantile("revenue", 0.8).tolist() == each


def test_a_probability_may_differ_between_customers():
    whole = Predictive(MIXED, spend(), SEVERAL, 39.0)
    p = np.array([0.1, 0.9, 0.5, 0.99, 0.3, 0.6])
    for kind in ("purchases", "revenue"):
        separate = [whole.quantile(kind, float(each))[row] for row, each in enumerate(p)]
        assert separate == whole.quantile(kind, p).tolist()


@settings(max_examples=15, deadline=None)
@given(
    h=st.floats(0.01, 520),
    p=st.floats(0, 1),
    factor=st.floats(0.05, 5),
    log_sd=st.sampled_from([0.0, 0.3]),
    zero_share=st.sampled_from([0.0, 0.4]),
)
def test_nothing_is_nan_and_chances_and_quantiles_agree(h, p, factor, log_sd, zero_share):
    odd = customers(
        [0, 0, 0, 1, 500, 2, 0],
        [0, 0, 0, 1, 490, 3, 0],
        [0, 1, 3650, 3650, 500, 3650, 20],
        [0, 5.0, 1e-6, 1e9, 3.0, 7.0, 0],
        [0, 0, 0, 1e-6, 4e6, 1.0, 0],
        positive=[0, 0, 0, 1, 480, 1, 0],
        free=[1, 0, 0, 0, 20, 1, 0],
    )
    whole = Predictive(MIXED, spend(zero_share=zero_share), odd, h, factor=np.full(7, factor), level=Level(1.1, log_sd))
    for kind in ("purchases", "revenue"):
        assert np.isfinite(whole.mean(kind)).all()
        value = whole.quantile(kind, p)
        assert np.isfinite(value).all()
        assert (value >= 0).all()
        below, upto = whole.cdf(kind, value)
        assert ((below >= 0) & (below <= upto + 1e-12) & (upto <= 1)).all()
        assert (below <= p + 1e-6).all()
        assert (upto >= min(p, 0.999) - 1e-6).all()
    assert ((whole.no_purchase >= 0) & (whole.no_purchase <= 1)).all()
    assert np.log(np.maximum(whole.no_purchase, 1e-300)) == pytest.approx(whole.log_score(np.zeros(7)))


def test_a_factor_multiplies_the_mean_of_the_distribution_too():
    factor = np.array([0.5, 2.0, 1.0, 1.5, 0.8, 1.0])
    plain = Predictive(MIXED, spend(), SEVERAL, 39.0)
    moved = Predictive(MIXED, spend(), SEVERAL, 39.0, factor=factor)
    assert plain.mean("purchases") * factor == pytest.approx(moved.mean("purchases"))
    assert plain.mean("revenue") * factor == pytest.approx(moved.mean("revenue"))
    # Customers whose factors are within 1/64 share a distribution.
    assert moved.mean("purchases") == pytest.approx(_mean_by_cdf(moved), rel=0.01)


def _mean_by_cdf(whole):
    return sum(1 - whole.cdf("purchases", np.full(6, each))[1] for each in range(500))


def test_a_level_moves_everybody_and_its_doubt_widens_intervals():
    plain, sure, vague = (
        Predictive(MIXED, spend(), SEVERAL, 39.0, level=level) for level in (None, Level(1.3), Level(1.3, 0.5))
    )
    assert 1.3 * plain.mean("purchases") == pytest.approx(sure.mean("purchases"))
    assert sure.mean("revenue").tolist() == vague.mean("revenue").tolist()
    assert sure.mean("purchases") == pytest.approx(_mean_by_cdf(vague), rel=0.005)
    assert vague.quantile("purchases", 0.975)[4] > sure.quantile("purchases", 0.975)[4]


def test_a_count_beyond_every_table_has_a_small_chance_and_not_none():
    whole = Predictive(MIXED, spend(), SEVERAL, 39.0)
    score = whole.log_score([0, 0, 90, 0, 0, 0])
    assert -100 < score[2] < np.log(1e-6)
    assert (whole.log_score(np.full(6, 1e9)) == np.log(1e-300)).all()


def test_many_customers_are_read_without_keeping_their_distributions(monkeypatch):
    kept = Predictive(MIXED, spend(), SEVERAL, 39.0)
    monkeypatch.setattr(predictive_file, "_KEPT", 2)
    streamed = Predictive(MIXED, spend(), SEVERAL, 39.0)
    assert kept.quantile("revenue", 0.9).tolist() == streamed.quantile("revenue", 0.9).tolist()
    assert kept.no_purchase.tolist() == streamed.no_purchase.tolist()


def test_equal_amounts_make_revenue_purchases_times_the_amount():
    whole = Predictive(MIXED, CONSTANT, SEVERAL, 39.0)
    for p in (0.1, 0.5, 0.8, 0.975):
        assert (12.5 * whole.quantile("purchases", p)).tolist() == whole.quantile("revenue", p).tolist()
    came = 12.5 * np.array([0, 1, 2, 3, 10, 0])
    assert whole.cdf("purchases", came / 12.5)[1].tolist() == whole.cdf("revenue", came)[1].tolist()
    assert whole.cdf("purchases", came / 12.5)[0].tolist() == whole.cdf("revenue", came)[0].tolist()


def test_free_orders_only_are_worth_nothing():
    free = customers([0, 2], [0, 20], 50, first=0.0, positive=0, free=[1, 3])
    whole = Predictive(MIXED, fit_spend(free), free, 39.0)
    assert [0.0, 0.0] == whole.quantile("revenue", 0.99).tolist()
    assert [1.0, 1.0] == pytest.approx(whole.cdf("revenue", np.zeros(2))[1].tolist())
    assert [0.0, 0.0] == whole.mean("revenue").tolist()


def test_the_transform_of_what_the_model_itself_draws_is_uniform():
    """The randomised PIT of Czado, Gneiting and Held 2009, with outcomes drawn from the same parameters."""
    model = spend(zero_share=0.1)
    log = drawn(4_000, p=4.0, q=3.5, v=25.0)
    whole = Predictive(MIXED, model, log, 20.0)
    chance = np.random.default_rng(9)
    pmf = MIXED.pmf(20.0, whole.groups, 600)[whole._group]
    n = (np.cumsum(pmf, axis=1) < chance.random((len(log), 1))).sum(axis=1)
    known = model.posterior(log)
    nu = chance.gamma(model.q + model.p * known.orders, 1 / known.scale)
    paid = chance.binomial(n, 0.9)
    revenue = np.where(paid > 0, chance.gamma(np.maximum(model.p * paid, 1e-9), 1 / nu), 0.0)
    for kind, came in (("purchases", n), ("revenue", revenue)):
        below, upto = whole.cdf(kind, came)
        pit = np.sort(below + chance.random(n.size) * (upto - below))
        # Kolmogorov and Smirnov's distance; 1.95 / sqrt(n) is passed once in a thousand times.
        assert np.abs(pit - (np.arange(n.size) + 0.5) / n.size).max() < 1.95 / np.sqrt(n.size)


@pytest.mark.parametrize(
    "change",
    [
        {"horizon": 0.0},
        {"horizon": -1.0},
        {"horizon": float("nan")},
        {"factor": np.ones(3)},
        {"factor": np.array([1, 1, 1, 1, 1, 0.0])},
        {"factor": np.array([1, 1, 1, 1, 1, np.nan])},
        {"level": Level(0.0)},
        {"level": Level(1.0, -0.1)},
        {"level": Level(float("inf"))},
    ],
)
def test_what_cannot_be_is_refused(change):
    with pytest.raises(InvalidInput):
        Predictive(MIXED, spend(), SEVERAL, **({"horizon": 39.0} | change))


def test_questions_that_make_no_sense_are_refused():
    whole = Predictive(MIXED, spend(), SEVERAL, 39.0)
    for ask in (
        lambda: whole.mean("clicks"),
        lambda: whole.quantile("revenue", 1.1),
        lambda: whole.quantile("revenue", [0.5, 0.5]),
        lambda: whole.quantile("revenue", float("nan")),
        lambda: whole.cdf("revenue", [1.0]),
        lambda: whole.cdf("revenue", np.full(6, np.nan)),
        lambda: whole.log_score(np.full(6, 0.5)),
        lambda: whole.log_score(np.full(6, -1)),
    ):
        with pytest.raises(InvalidInput):
            ask()
