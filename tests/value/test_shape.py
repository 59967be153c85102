from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value.mixture import Mixture
from kiki.value.purchases import summarise
from kiki.value.shape import FACTOR_MAX, FEATURES, Lesson, Shape, chosen, features, learnt, no_correction
from tests.value import buyers
from tests.value.customers import customers

PARETO = Mixture.of("pareto-nbd", [0.55, 10.6, 0.6, 11.7])
NBD = Mixture.of("nbd", [0.55, 10.6])


def lesson(effect: float, customers: int = 6000, seed: int = 1, level: float = 1.0) -> Lesson:
    """Customers who buy exp(`effect` times the third feature) times what was forecast."""
    chance = np.random.default_rng(seed)
    rows = chance.normal(size=(customers, len(FEATURES)))
    forecast = chance.gamma(0.8, 1.0, customers) + 0.05
    return Lesson(rows, forecast, chance.poisson(level * forecast * np.exp(effect * rows[:, 2])).astype(float))


def test_a_true_effect_is_learnt_whatever_the_levels_of_the_origins():
    (found,) = learnt([lesson(0.4, seed=1, level=0.5), lesson(0.4, seed=2, level=2.0)], [10.0])
    slopes = found.coefficients / found.scale
    assert 0.4 == pytest.approx(slopes[2], abs=0.03)
    assert np.abs(np.delete(slopes, 2)).max() < 0.05


def test_a_larger_ridge_learns_less():
    sizes = [np.abs(each.coefficients).sum() for each in learnt([lesson(0.4)], [10.0, 1000.0, 100_000.0])]
    assert sizes == sorted(sizes, reverse=True)


def test_ridges_one_after_another_find_what_each_finds_alone():
    together = learnt([lesson(0.4)], [10.0, 1000.0])
    (alone,) = learnt([lesson(0.4)], [1000.0])
    assert alone.coefficients.tolist() == pytest.approx(together[1].coefficients.tolist(), abs=1e-5)


def test_a_correction_is_chosen_where_it_proves_itself_and_none_where_there_is_nothing_to_learn():
    assert chosen([lesson(0.4, seed=1)], lesson(0.4, seed=2)).weight > 0
    assert 0 == chosen([lesson(0.0, seed=1)], lesson(0.0, seed=2)).weight


def test_an_effect_that_turned_round_is_not_chosen():
    assert 0 == chosen([lesson(0.4, seed=1)], lesson(-0.4, seed=2)).weight


def test_the_level_of_the_trial_decides_nothing():
    """The level is left to the model: a trial in which everybody buys three times as much chooses the same."""
    trial = lesson(0.4, seed=2)
    tripled = trial._replace(forecast=trial.forecast / 3)
    once, thrice = chosen([lesson(0.4)], trial), chosen([lesson(0.4)], tripled)
    assert (once.weight, once.ridge) == (thrice.weight, thrice.ridge)


@pytest.mark.parametrize(
    ("lessons", "trial"),
    [([], lesson(0.4)), ([lesson(0.4)], lesson(0.4)._replace(came=np.zeros(6000)))],
)
def test_without_lessons_or_outcomes_there_is_no_correction(lessons, trial):
    assert 0 == chosen(lessons, trial).weight


def test_columns_that_are_not_finite_are_refused():
    bad = lesson(0.4)
    bad.features[3, 3] = np.nan
    with pytest.raises(InvalidInput):
        learnt([bad], [10.0])
    with pytest.raises(InvalidInput):
        learnt([lesson(0.4)], [0.0])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=len(FEATURES), max_size=len(FEATURES)))
def test_no_forecast_is_multiplied_beyond_the_bound(row):
    (found,) = learnt([lesson(0.4, customers=500)], [10.0])
    (factor,) = found.tilts(np.array([row]))
    assert 1 / FACTOR_MAX <= factor <= FACTOR_MAX


def test_features_are_finite_for_every_history_there_can_be():
    everybody = customers([0, 0, 1, 500], [0, 0, 1, 900], [0, 900, 900, 900])
    rows = features(everybody, np.array([0.0, 1e-30, 1.0, 500.0]), np.array([0.0, 0.5, 1.0, 1.0]))
    assert (4, len(FEATURES)) == rows.shape
    assert np.isfinite(rows).all()


def test_equal_gaps_are_the_most_regular():
    log = buyers.log(300, 52, rhythm=8)
    regular = summarise(log, date(2020, 12, 28))
    random = summarise(buyers.log(300, 52), date(2020, 12, 28))
    column = FEATURES.index("regularity")
    mean = [
        features(each, np.ones(len(each)), np.ones(len(each)))[each.x >= 3, column].mean() for each in (regular, random)
    ]
    assert 0 >= mean[0] > mean[1]


def test_the_sum_that_is_kept_is_the_anchors_for_every_horizon_it_was_told():
    purchases = summarise(buyers.log(600), date(2021, 6, 28))
    mixture = Mixture((("pareto-nbd", PARETO.parts[0][1], 0.6), ("nbd", NBD.parts[0][1], 0.4)))
    (taught,) = learnt([lesson(0.4)], [10.0])
    groups, index = purchases.grouped()
    for shape in (no_correction(), replace(taught, weight=0.5)):
        kept = shape.keeping(mixture, PARETO, purchases, [10.0, 40.0])
        for horizon in (10.0, 40.0):
            factor = kept.factors(mixture, purchases, horizon)
            total = float(factor @ mixture.expected(horizon, groups)[index])
            assert float(PARETO.expected(horizon, groups) @ groups.weight) == pytest.approx(total, rel=1e-9)


def test_a_customer_has_the_same_factor_alone_and_among_others():
    purchases = summarise(buyers.log(600), date(2021, 6, 28))
    (taught,) = learnt([lesson(0.4)], [10.0])
    kept = taught.keeping(PARETO, NBD, purchases, [20.0])
    every = kept.factors(PARETO, purchases, 20.0)
    alone = kept.factors(PARETO, purchases.take(np.array([7])), 20.0)
    assert every[7] == pytest.approx(alone[0])


def test_histories_without_dates_keep_the_level_and_leave_the_correction_out():
    purchases = summarise(buyers.log(200), date(2021, 6, 28))
    (taught,) = learnt([lesson(0.4)], [10.0])
    kept = taught.keeping(PARETO, NBD, purchases, [20.0])
    assert {kept.level(20.0)} == set(kept.factors(PARETO, purchases, 20.0, dated=False).tolist())


def test_between_two_horizons_the_level_lies_between_theirs_and_beyond_it_stays():
    kept = replace(no_correction(), levels=((10.0, 1.1), (40.0, 1.4)))
    assert 1.1 < kept.level(20.0) < 1.4
    assert [1.1, 1.4] == pytest.approx([kept.level(1.0), kept.level(400.0)])


def test_it_comes_back_from_json():
    (taught,) = learnt([lesson(0.4, customers=300)], [10.0])
    whole = replace(taught, levels=((10.0, 1.1),))
    assert whole.as_dict() == Shape.from_dict(json.loads(json.dumps(whole.as_dict(), allow_nan=False))).as_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"features": ["age"]},
        {"weight": 1.5},
        {"scale": [0.0] * len(FEATURES)},
        {"mean": [1.0]},
        {"levels": [[1.0, -2.0]]},
        {"ridge": "much"},
    ],
)
def test_what_is_no_correction_is_refused(change):
    with pytest.raises(InvalidInput):
        Shape.from_dict(no_correction().as_dict() | change)
