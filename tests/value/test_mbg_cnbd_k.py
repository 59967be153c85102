"""MBG/CNBD-k: MBG/NBD at k = 1, true to a simulation of regular buyers, and k found from their gaps."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value import mbg_cnbd_k, mbg_nbd
from kiki.value.fitting import maximise
from kiki.value.groups import Groups
from kiki.value.mbg_cnbd_k import K_MAX, gap_evidence, of
from kiki.value.purchases import LOG_SCALE, Purchases
from kiki.value.regularity import fit_regularity
from tests.value import cdnow

P = np.array([0.85, 1.45, 0.79, 2.42])
GROUPS = Groups.of(
    [0, 0, 1, 2, 7, 26, 30], [0, 0, 5, 30.43, 20, 30.86, 30.9], [0, 39, 39, 38.86, 39, 31, 31], [1, 2, 3, 4, 5, 6, 7]
)
ODD = Groups.of(
    [0, 0, 0, 1, 3, 30, 221, 400, 500, 2],
    [0, 0, 0, 5, 39, 20, 103.43, 38, 38.9, 1],
    [0, 1e-3, 500, 39, 39, 40, 103.57, 40, 39, 500],
)


def regular_buyers(k, n, t, h, seed, days=None):
    """Histories until `t`, the gaps' sums of logarithms, and purchases in the `h` units after, for the parameters `P`.

    With `days` to a unit, times are in whole days.
    """
    chance = np.random.default_rng(seed)
    r, alpha, a, b = P
    rate = chance.gamma(r, 1 / alpha, n)
    stays = np.minimum(chance.geometric(chance.beta(a, b, n)), 10_000) - 1
    gaps = chance.gamma(k, 1 / rate[:, None], (n, 150))
    if days:
        gaps, t = np.maximum(np.rint(gaps * days), 1), t * days
    moments = np.cumsum(gaps, axis=1)
    happened = np.arange(150) < stays[:, None]
    seen = happened & (moments <= t)
    x = seen.sum(axis=1)
    tx = np.where(seen, moments, 0).max(axis=1)
    logs = np.where(seen, np.log(gaps), 0).sum(axis=1)
    later = (happened & (moments > t) & (moments <= t + h)).sum(axis=1)
    return x, tx, logs, later


def as_purchases(x, tx, t, logs):
    """With days as the unit of time and of the model."""
    none = np.zeros(x.size, dtype=np.int64)
    return Purchases(
        ids=np.array([f"{place:06}" for place in range(x.size)], dtype=object),
        x=x.astype(np.int64), tx=tx.astype(np.int64), T=none + t,
        first_micros=none, repeat_micros=none, positive_repeats=none, zero_orders=none,
        last_4_weeks=none, last_13_weeks=none, last_26_weeks=none,
        log_gaps=np.rint(logs * LOG_SCALE).astype(np.int64),
        calibration_end=dt.date(2024, 12, 31), unit="day",
    )  # fmt: skip


def test_one_event_a_purchase_is_mbg_nbd_exactly():
    p, one = np.array([0.525, 6.183, 0.891, 1.614]), of(1)
    for groups in (GROUPS, ODD):
        for found, plain in zip(one.total(np.log(p), groups), mbg_nbd.total(np.log(p), groups), strict=True):
            assert plain == pytest.approx(found, rel=1e-9, abs=1e-9)
        assert mbg_nbd.log_likelihood(np.log(p), groups)[0] == pytest.approx(one.log_likelihood(np.log(p), groups)[0])
        assert mbg_nbd.alive(p, groups) == pytest.approx(one.alive(p, groups), abs=1e-12)
        assert mbg_nbd.expected(p, 39, groups) == pytest.approx(one.expected(p, 39, groups), rel=1e-8)
        assert mbg_nbd.pmf(p, 39, groups, 60) == pytest.approx(one.pmf(p, 39, groups, 60), abs=1e-12)
        assert mbg_nbd.no_purchase(p, 39, groups) == pytest.approx(one.no_purchase(p, 39, groups), abs=1e-12)
        assert mbg_nbd.discounted(p, groups, 0.003) == pytest.approx(one.discounted(p, groups, 0.003), rel=1e-9)
    ages = np.array([[0, 1], [39, 400.0]])
    assert mbg_nbd.expected_new(p, ages) == pytest.approx(one.expected_new(p, ages), rel=1e-8, abs=1e-12)
    assert gap_evidence(1, [3, 0], [20, 0], [5.0, 0]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("k", [2, 3, K_MAX])
def test_the_gradient_and_the_hessian_are_those_of_the_likelihood(k):
    theta, step = np.log(P), 1e-5
    total = of(k).total(theta, GROUPS)
    for place, unit in enumerate(np.eye(4)):
        above, below = (of(k).total(theta + sign * step * unit, GROUPS) for sign in (1, -1))
        assert (above.value - below.value) / (2 * step) == pytest.approx(total.gradient[place], rel=1e-5, abs=1e-5)
        assert (above.gradient - below.gradient) / (2 * step) == pytest.approx(total.hessian[place], rel=1e-5, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(k=st.integers(1, K_MAX), shift=st.floats(-1.5, 1.5), h=st.floats(0.0, 200))
def test_nothing_overflows_and_chances_are_chances(k, shift, h):
    p = P * np.exp(shift)
    assert np.isfinite(of(k).log_likelihood(np.log(p), ODD)[0]).all()
    alive, expected, pmf = of(k).alive(p, ODD), of(k).expected(p, h, ODD), of(k).pmf(p, h, ODD, 30)
    assert np.isfinite(expected).all()
    assert (expected >= 0).all()
    for chances in (alive, pmf):
        assert ((chances >= 0) & (chances <= 1 + 1e-9)).all()
    assert (pmf.sum(axis=1) <= 1 + 1e-9).all()


@pytest.mark.parametrize("k", [2, 5])
def test_the_pmf_sums_to_one_and_its_mean_is_the_expectation(k):
    pmf = of(k).pmf(P, 39, GROUPS, 800)
    assert np.ones(7) == pytest.approx(pmf.sum(axis=1), abs=1e-9)
    assert of(k).expected(P, 39, GROUPS) == pytest.approx(pmf @ np.arange(801), rel=1e-7)


def test_a_new_customers_expectation_is_that_of_nothing_seen_yet():
    new = Groups.of([0], [0], [0])
    ages = np.array([0.0, 1, 10, 52])
    assert [of(3).expected(P, age, new)[0] for age in ages] == pytest.approx(of(3).expected_new(P, ages))


def test_forecasts_are_true_of_simulated_regular_buyers_by_what_they_did():
    """Customers who look alike buy as often as expected, and as often not at all: by frequency and idle time."""
    k, t, h = 3, 32.0, 20.0
    x, tx, _, later = regular_buyers(k, 50_000, t, h, seed=1)
    model, groups = of(k), Groups.of(x, tx, np.full(x.size, t))
    expected, none = model.expected(P, h, groups), model.no_purchase(P, h, groups)
    pmf = model.pmf(P, h, groups, 4)
    idle = (t - tx) / np.maximum(tx / np.maximum(x, 1), 1)
    for low, high in ((0, 0), (1, 1), (2, 4), (5, 9), (10, 40)):
        for early, late in ((0, 0.5), (0.5, 1), (1, 2), (2, 100)):
            rows = (x >= low) & (x <= high) & (idle >= early) & (idle < late)
            if rows.sum() < 200:
                continue
            size = np.sqrt(rows.sum())
            assert abs(later[rows].mean() - expected[rows].mean()) < 4 * later[rows].std() / size + 1e-3
            assert abs((later[rows] == 0).mean() - none[rows].mean()) < 4 * 0.5 / size
            for n in range(1, 5):
                assert abs((later[rows] == n).mean() - pmf[rows, n].mean()) < 4 * 0.5 / size
    assert abs(later.mean() / expected.mean() - 1) < 0.02


def test_known_parameters_are_recovered_from_simulated_regular_buyers():
    x, tx, _, _ = regular_buyers(3, 20_000, 32.0, 1.0, seed=2)
    fit = maximise(of(3), Groups.of(x, tx, np.full(x.size, 32.0)))
    errors = np.array(list((fit.standard_errors or {}).values()))
    assert fit.converged
    assert (np.abs(fit.values - P) < 3 * errors).all()


@pytest.mark.parametrize("k", [1, 3])
def test_the_true_k_has_the_largest_likelihood_even_without_the_gaps(k):
    x, tx, logs, _ = regular_buyers(k, 5000, 32.0, 1.0, seed=3)
    groups = Groups.of(x, tx, np.full(x.size, 32.0))
    alone = {tried: maximise(of(tried), groups).log_likelihood for tried in range(1, 6)}
    full = {tried: value + gap_evidence(tried, x, tx, logs) for tried, value in alone.items()}
    assert k == max(alone, key=alone.get)
    assert k == max(full, key=full.get)
    assert full[k] - full[2] > alone[k] - alone[2]


@pytest.mark.parametrize("k", [1, 4])
def test_the_k_of_a_log_in_days_is_found(k):
    # A unit of the simulation is ten days; gaps are rounded to whole days, and no two purchases fall on one.
    x, tx, logs, _ = regular_buyers(k, 4000, 32.0, 1.0, seed=4, days=10)
    found = fit_regularity(as_purchases(x, tx, int(max(320, tx.max())), logs))
    assert k == found.k
    assert found.log_likelihoods[k] == max(found.log_likelihoods.values())
    assert found.fit.log_likelihood + found.gap_evidence == pytest.approx(found.log_likelihoods[k])


def test_cdnow_is_not_regular_by_frequency_and_recency():
    groups = cdnow.groups()
    assert maximise(of(1), groups).log_likelihood > maximise(of(2), groups).log_likelihood
    assert round(maximise(of(1), groups).log_likelihood, 3) == -9582.136


def test_one_group_or_nobody_who_repeats_can_be_fitted():
    for groups in (Groups.of([0, 0], [0, 0], [30, 39]), Groups.of([2], [20], [39], [50])):
        assert np.isfinite(maximise(of(3), groups).values).all()


@pytest.mark.parametrize("estimator", ["mle", "map"])
def test_a_log_without_a_gap_shows_no_regularity(estimator):
    none = np.zeros(3)
    assert fit_regularity(as_purchases(none, none, 300, none), estimator).k == 1


def test_a_k_or_an_estimator_that_there_is_not_is_refused():
    for k in (0, K_MAX + 1, 1.5, "3"):
        with pytest.raises(InvalidInput, match=f"from 1 to {K_MAX}"):
            mbg_cnbd_k.MbgCnbdK(k)
    with pytest.raises(InvalidInput, match="estimators are mle, map"):
        fit_regularity(as_purchases(np.array([1]), np.array([5]), 9, np.array([1.6])), estimator="mcmc")
