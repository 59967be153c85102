from __future__ import annotations

import json
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value import evaluation
from kiki.value.baselines import judged
from kiki.value.conformal import recalibrate
from kiki.value.evaluation import Metrics, Pit, coverage, deviances, judge, measure, report
from kiki.value.fitting import fit_count
from kiki.value.mixture import Mixture
from kiki.value.predictive import Predictive
from kiki.value.purchases import outcomes, summarise
from kiki.value.spend import fit_spend
from tests.value import buyers

PARTS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30)


def pit(parts) -> Pit:
    ends = np.sort(np.array(parts), axis=1)
    return Pit(ends[:, 0], ends[:, 1])


def test_metrics_are_those_of_the_textbook():
    found = measure([0, 1, 4], [0.5, 1, 3], [0, 1, 2])
    assert 2 / 3 == pytest.approx(found.mae_median)
    assert (1.25 / 3) ** 0.5 == pytest.approx(found.rmse_mean)
    expected = (2 * 0.5 + 0 + 2 * (4 * np.log(4 / 3) - 1)) / 3
    assert expected == pytest.approx(found.poisson_deviance_mean)
    assert -10 == pytest.approx(found.bias_percent)
    assert 1 == pytest.approx(found.spearman)
    assert found.coverage is None


def test_figures_without_a_meaning_are_none_and_not_nan():
    found = measure([0, 0, 0], [1, 1, 1], [0, 0, 0])
    assert [None, None, None] == [found.bias_percent, found.spearman, found.top_decile_capture]
    json.dumps(found.as_dict(), allow_nan=False)


def test_a_forecast_of_nothing_where_something_came_costs_much_but_not_infinitely_much():
    assert np.isfinite(deviances(np.array([3.0]), np.array([0.0]))).all()
    assert 20 < deviances(np.array([1.0]), np.array([0.0]))[0] < 40


@pytest.mark.parametrize("columns", [([], [], []), ([1], [1, 2], [1]), ([np.nan], [1], [1]), ([1], [-1], [1])])
def test_columns_that_make_no_sense_are_refused(columns):
    with pytest.raises(InvalidInput):
        measure(*columns)


def test_metrics_come_back_from_json():
    found = measure([0, 1, 4], [0.5, 1, 3], [0, 1, 2], coverage={80: 0.81, 90: 0.9, 95: 0.94})
    assert found == Metrics.from_dict(json.loads(json.dumps(found.as_dict())))
    with pytest.raises(InvalidInput, match="no metrics"):
        Metrics.from_dict({"mae_median": 1})


@given(PARTS, st.floats(0, 1))
def test_the_chance_below_a_level_is_that_of_an_even_draw_in_between(parts, level):
    found = pit(parts).chance_below(level)
    assert ((found >= 0) & (found <= 1)).all()
    draws = np.linspace(0, 1, 2001)[:, None]
    drawn = pit(parts).before + draws * (pit(parts).at - pit(parts).before)
    wide = pit(parts).at - pit(parts).before > 0.01
    assert (drawn <= level).mean(axis=0)[wide] == pytest.approx(found[wide], abs=1e-3 / 0.5)


@given(PARTS)
def test_the_share_reached_is_the_mean_of_the_chances(parts):
    levels = np.linspace(0, 1, 11)
    expected = [pit(parts).chance_below(level).mean() for level in levels]
    inside = np.array([not np.isclose(pit(parts).before, level, atol=1e-5).any() for level in levels])
    assert np.array(expected)[inside] == pytest.approx(pit(parts).reached(levels)[inside], abs=1e-6)


@given(PARTS)
def test_values_lie_in_between_and_are_the_same_on_each_call(parts):
    values = pit(parts).values()
    assert (values >= pit(parts).before - 1e-12).all()
    assert (values <= pit(parts).at + 1e-12).all()
    assert values.tolist() == pit(parts).values().tolist()


def test_coverage_of_a_true_distribution_of_counts_is_what_it_says():
    """A closed interval over-covers by the point mass at its end; the randomised transform does not."""
    chance = np.random.default_rng(3)
    counts = chance.poisson(0.7, 40_000)
    cumulative = np.concatenate(
        [[0.0], np.cumsum(np.exp(-0.7) * 0.7 ** np.arange(20) / np.cumprod([1, *range(1, 20)]))]
    )
    true = Pit(cumulative[counts], cumulative[counts + 1])
    found = coverage(true, "purchases", np.zeros(counts.size, dtype=np.int64))
    assert {80: 0.8, 90: 0.9, 95: 0.95} == pytest.approx(found, abs=0.006)


def test_a_point_mass_at_one_transform_counts_once():
    exact = Pit(np.full(4, 0.5), np.full(4, 0.5))
    assert [0.0, 1.0, 1.0] == exact.reached(np.array([0.4, 0.6, 1.0])).tolist()
    assert {80: 1.0, 90: 1.0, 95: 1.0} == coverage(exact, "revenue", np.zeros(4, dtype=np.int64))


def test_the_report_has_the_shape_that_evaluate_prints():
    orders = buyers.log(400, 52)
    purchases = summarise(orders, date(2020, 7, 6))
    done = outcomes(orders, purchases, date(2020, 12, 1))
    fit = fit_count("pareto-nbd", purchases.grouped()[0], "map")
    said = Predictive(Mixture.of(fit.name, fit.fit.values), fit_spend(purchases, "map"), purchases, 21.0)
    found = report(judge(said, done), judged(purchases, 21.0, done), fit_seconds=0.5, refusal="too few customers")
    whole = json.loads(json.dumps(found, allow_nan=False))
    assert {"purchases", "revenue", "baselines", "fit_seconds"} == set(whole)
    figures = {"mae_median", "rmse_mean", "poisson_deviance_mean", "bias_percent", "spearman", "top_decile_capture"}
    for each in (
        whole["purchases"],
        whole["revenue"],
        *(whole["baselines"][name]["revenue"] for name in ("naive", "heuristic")),
    ):
        assert figures | {"coverage", "coverage_claimed", "reason"} == set(each)
    assert {"80", "90", "95"} == set(whole["revenue"]["coverage"])
    assert "too few customers" == whole["purchases"]["reason"]
    claimed = report(judge(said, done), {}, fit_seconds=None, refusal=None)
    assert claimed["revenue"]["coverage_claimed"] is True
    assert "reason" not in claimed["revenue"]


def test_recalibration_moves_the_intervals_and_leaves_the_means_alone():
    orders = buyers.log(600, 52)
    purchases = summarise(orders, date(2020, 7, 6))
    done = outcomes(orders, purchases, date(2020, 12, 1))
    fit = fit_count("pareto-nbd", purchases.grouped()[0], "map")
    said = Predictive(Mixture.of(fit.name, fit.fit.values), fit_spend(purchases, "map"), purchases, 21.0)
    pits = {kind: Pit(*said.cdf(kind, evaluation.actual(kind, done))) for kind in evaluation.KINDS}
    plain, own = judge(said, done), judge(said, done, recalibrate(pits, purchases.x))
    assert plain["revenue"].rmse_mean == own["revenue"].rmse_mean
    off = [abs(metrics["revenue"].coverage[80] - 0.8) for metrics in (plain, own)]
    assert off[1] <= off[0] + 1e-9


def test_there_is_no_third_kind():
    with pytest.raises(InvalidInput, match="purchases, revenue"):
        evaluation.actual("visits", None)
