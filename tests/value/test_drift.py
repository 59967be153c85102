from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import nbinom

from kiki.errors import InvalidInput
from kiki.value import drift
from kiki.value.auto import fit_auto
from kiki.value.count_pmf import tilted
from kiki.value.evaluation import judge
from kiki.value.mixture import Mixture
from kiki.value.orders import Orders, day_number
from kiki.value.predictive import Predictive
from kiki.value.purchases import outcomes, summarise
from tests.value.test_predictive import SEVERAL, spend

N = np.arange(1024)


def counts(shape: float, mean: float) -> np.ndarray:
    pmf = nbinom.pmf(N, shape, shape / (shape + mean))
    return (pmf / pmf.sum())[None]


@pytest.mark.parametrize(("shape", "mean"), [(0.3, 0.5), (1, 2), (5, 10), (20, 40), (60, 100)])
@pytest.mark.parametrize("sd", [0.2, 0.5])
def test_a_row_is_mixed_as_by_many_factors_one_by_one(shape, mean, sd):
    row = counts(shape, mean)
    nodes = np.linspace(-4, 4, 81)
    weights = np.exp(-(nodes**2) / 2) / np.exp(-(nodes**2) / 2).sum()
    centre = weights @ np.exp(sd * nodes)
    slow = sum(w * tilted(row, np.array([np.exp(sd * z) / centre]))[0] for z, w in zip(nodes, weights, strict=True))
    found = drift.spread(row, np.array([sd]))[0]
    assert row[0] @ N == pytest.approx(found @ N, rel=1e-3)
    assert np.abs(np.cumsum(found) - np.cumsum(slow)).max() < 0.004


@given(st.floats(0.05, 50), st.floats(0.01, 60), st.floats(0, 0.7))
def test_means_stay_and_nothing_gets_narrower(shape, mean, sd):
    row = counts(shape, mean)
    found = drift.spread(row, np.array([sd]))
    assert found.min() >= 0
    assert 1 == pytest.approx(found.sum())
    assert row[0] @ N == pytest.approx(found[0] @ N, rel=2e-2)
    assert found[0] @ N**2 >= (row[0] @ N**2) * (1 - 2e-2)


def test_no_drift_changes_nothing_and_what_is_not_felt_is_left():
    rows = np.concatenate([counts(1, 3), counts(0.5, 0.05)])
    assert (drift.spread(rows, np.zeros(2)) == rows).all()
    assert (drift.spread(rows, np.array([0.0, 0.1])) == rows).all()


def test_doubt_grows_with_the_history_and_with_the_horizon():
    near, old = drift.log_sd(0.003, np.array([10.0, 90.0]), 10.0)
    assert (0.003 * 20 / 3) ** 0.5 == pytest.approx(near)
    assert (0.003 * 100 / 3) ** 0.5 == pytest.approx(old)
    assert 0.7 == pytest.approx(drift.log_sd(0.1, np.array([90.0]), 500.0)[0])
    assert 0.003 / 7 == pytest.approx(drift.per_unit(0.003, "day"))


def test_the_largest_drift_that_is_not_rejected_is_taken():
    gains = np.array([0, 1, 3, 6, 9, 8.5, -5.0])
    assert drift.DRIFTS[4] == drift.chosen([gains], [10])
    assert drift.DRIFTS[3] == drift.chosen([gains * 3], [10])
    assert 0 == drift.chosen([-np.arange(7.0)], [10])
    assert drift.DRIFTS[-1] == drift.chosen([np.zeros(7)], [10])


def test_origins_that_look_less_far_do_not_decide_about_drift():
    gains = np.array([0, 1, 3, 6, 9, 8.5, -5.0])
    assert drift.DRIFTS[4] == drift.chosen([gains, -100 * np.arange(7.0)], [90, 10])
    assert drift.DRIFTS[3] == drift.chosen([gains, 4 * gains, 0 * gains], [26, 25.9, 10])


def test_the_scores_of_several_drifts_are_those_of_each():
    mixture = Mixture.of("pareto-nbd", [0.55, 10.6, 0.61, 11.7])
    came = np.arange(len(SEVERAL), dtype=np.float64) % 5
    together = Predictive(mixture, spend(), SEVERAL, 30.0).drift_scores(came, [0.0, 0.004, 0.02])
    for found, each in zip(together, (0.0, 0.004, 0.02), strict=True):
        alone = Predictive(mixture, spend(), SEVERAL, 30.0, drift=each).log_score(came)
        assert alone.sum() == pytest.approx(found, rel=1e-4)


def test_means_are_those_without_it_and_intervals_wider():
    mixture = Mixture.of("nbd", [2.0, 1.5])
    still, wandering = (Predictive(mixture, spend(), SEVERAL, 30.0, drift=each) for each in (0.0, 0.02))
    for kind in ("purchases", "revenue"):
        assert (still.mean(kind) == wandering.mean(kind)).all()
        assert (wandering.quantile(kind, 0.975) >= still.quantile(kind, 0.975)).all()
        assert (wandering.quantile(kind, 0.975) > still.quantile(kind, 0.975)).any()
    with pytest.raises(InvalidInput, match="a drift is a variance"):
        Predictive(mixture, spend(), SEVERAL, 30.0, drift=-0.1)


def wanderers(customers: int, weeks: int, variance: float) -> Orders:
    """Weekly buyers whose rate is a Brownian motion in logarithms; a purchase a day at most."""
    chance = np.random.default_rng(8)
    motion = np.cumsum(chance.normal(-variance / 2, variance**0.5, (customers, weeks)), axis=1)
    rate = chance.gamma(1.5, 1 / 1.5, customers)[:, None] * np.exp(motion) / 7
    bought = chance.random((customers, weeks * 7)) < np.repeat(-np.expm1(-rate), 7, axis=1)
    who, day = np.nonzero(bought)
    ids = np.array([f"w{number:05}" for number in range(customers)], dtype=object)
    amount = np.full(who.size, 5_000_000, dtype=np.int64)
    return Orders.of_lines(ids, who, day + day_number(date(2021, 1, 4)), amount)


def test_rates_that_wander_are_found_and_their_intervals_are_true():
    orders, end = wanderers(900, 52, 0.006), date(2021, 1, 4) + timedelta(weeks=26)
    found = fit_auto(orders, end, "week", 26.0)
    assert 0.001 < found.drift < 0.03
    said = found.predictive(summarise(orders, end), 26.0)
    done = outcomes(orders, said.purchases, end + timedelta(weeks=26))
    inside = judge(said, done, found.recalibration)["purchases"].coverage
    plain = Predictive(found.mixture, found.spend, said.purchases, 26.0, factor=said.factor)
    before = judge(plain, done)["purchases"].coverage
    assert before[80] < 0.72
    assert 0.8 == pytest.approx(inside[80], abs=0.05)
