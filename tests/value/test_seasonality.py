from __future__ import annotations

import json
from datetime import date

import numpy as np
import pytest

from kiki.errors import InvalidInput
from kiki.value.fitting import fit_count
from kiki.value.mixture import Mixture
from kiki.value.orders import day_number
from kiki.value.purchases import outcomes, summarise
from kiki.value.seasonality import STEP_DAYS, LevelPath, LevelSeries, level_series, season
from kiki.value.tracking import track
from tests.value import buyers

END = date(2022, 12, 26)


def wave(amplitude: float, steps: int = 39, noise: float = 0.05, seed: int = 1) -> LevelSeries:
    """Years of 28-day periods whose level follows the year."""
    chance = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(steps) * STEP_DAYS / 365.25
    expected = np.full(steps, 500.0)
    return LevelSeries(expected * np.exp(amplitude * np.sin(angle) + noise * chance.normal(size=steps)), expected)


def test_a_season_is_found_and_goes_on():
    path = season(wave(0.5))
    assert path is not None
    angle = 2 * np.pi * (39 + np.arange(len(path.multipliers))) * STEP_DAYS / 365.25
    assert np.exp(0.5 * np.sin(angle)) / np.exp(0.5 * np.sin(angle)).mean() == pytest.approx(
        np.array(path.multipliers), abs=0.06
    )


def test_chance_is_no_season():
    assert [None] * 5 == [season(wave(0.0, seed=seed)) for seed in range(5)]


def test_a_trend_is_not_carried_on():
    falling = wave(0.0)
    ratio = np.exp(-0.03 * np.arange(falling.expected.size))
    assert season(falling._replace(actual=falling.actual * ratio)) is None


def test_less_than_two_years_are_no_season():
    assert season(wave(0.5, steps=26)) is None
    assert season(wave(0.5, steps=27)) is not None


def test_periods_in_which_nothing_is_expected_are_left_out_with_all_before_them():
    series = wave(0.5, steps=39)
    thin = series.expected.copy()
    thin[12] = 1.0
    assert season(series._replace(expected=thin)) is None


def test_the_series_counts_what_tracking_counts():
    orders = buyers.log(800, 104)
    purchases = summarise(orders, date(2021, 6, 28))
    model = Mixture.of("pareto-nbd", [0.55, 10.6, 0.6, 11.7])
    found, weekly = (
        level_series(orders, purchases, model.expected_new),
        track(orders, purchases, model.expected_new, date(2021, 6, 28)),
    )
    weeks = 4 * found.actual.size
    assert weekly.actual[-weeks:].reshape(-1, 4).sum(axis=1).tolist() == found.actual.tolist()
    assert weekly.expected[-weeks:].reshape(-1, 4).sum(axis=1) == pytest.approx(found.expected)


@pytest.mark.parametrize("weeks", [13.0, 26.0])
def test_the_level_of_a_seasonal_log_is_foretold_better_with_its_season(weeks):
    orders = buyers.log(5000, 208, season=0.8, seed=3)
    purchases = summarise(orders, END)
    groups, index = purchases.grouped()
    fit = fit_count("pareto-nbd", groups, "map")
    model = Mixture.of(fit.name, fit.fit.values)
    path = season(level_series(orders, purchases, model.expected_new))
    assert path is not None
    until = date.fromordinal(END.toordinal() + int(7 * weeks))
    assert day_number(until) <= orders.last_day
    came = int(outcomes(orders, purchases, until).purchases.sum())
    forecast = float(model.expected(weeks, groups)[index].sum())
    with_it = forecast * path.level(weeks, "week").mean
    assert abs(np.log(came / with_it)) < abs(np.log(came / forecast)) - 0.05


def test_a_horizon_covers_its_share_of_the_periods():
    path = LevelPath((2.0, 1.0), (0.1, 0.3))
    assert (2.0, 0.1) == pytest.approx(path.level(2.0, "week"))
    assert (5 / 3, 0.5 / 3) == pytest.approx(path.level(6.0, "week"))
    # Beyond its end, a path is at the mean of a year.
    assert (5 / 4, 0.4 / 4) == pytest.approx(path.level(16.0, "week"))
    assert path.level(28.0, "day") == pytest.approx(path.level(4.0, "week"))


def test_it_comes_back_from_json():
    path = LevelPath((2.0, 1.0), (0.1, 0.3))
    assert path == LevelPath.from_dict(json.loads(json.dumps(path.as_dict())))


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"step_days": 7, "multipliers": [1], "log_sds": [0]},
        {"step_days": 28, "multipliers": [1, 2], "log_sds": [0]},
        {"step_days": 28, "multipliers": [0], "log_sds": [0]},
        {"step_days": 28, "multipliers": [1], "log_sds": [-1]},
        {"step_days": 28, "multipliers": [], "log_sds": []},
    ],
)
def test_what_is_no_path_is_refused(data):
    with pytest.raises(InvalidInput):
        LevelPath.from_dict(data)
