from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from kiki.value.auto import fit_auto
from kiki.value.card import OriginScore
from kiki.value.claim import refusal
from kiki.value.evaluation import Metrics, judge
from kiki.value.orders import Orders, day_number
from kiki.value.purchases import outcomes, summarise
from kiki.value.seasonality import LevelSeries
from tests.value import buyers

TRUE = {80: 0.81, 90: 0.9, 95: 0.94}


def origin(coverage: dict[int, float], customers: int = 5000) -> OriginScore:
    one = Metrics(0.5, 1.0, 0.9, 0.0, 0.4, 0.5, coverage)
    kinds = {"purchases": one, "revenue": one}
    return OriginScore(date(2024, 6, 1), date(2024, 12, 31), customers, 900, kinds, {}, {}, {})


def series(logs: list[float], expected: float = 2000.0) -> LevelSeries:
    due = np.full(len(logs), expected)
    return LevelSeries(due * np.exp(logs), due)


def said(*, scores=(origin(TRUE), origin(TRUE)), spread=0.1, level=None, reach=1.0) -> str | None:
    return refusal(scores, level_spread=spread, series=level, reach=reach)


def test_intervals_that_held_around_a_steady_level_are_claimed():
    assert said() is None
    assert said(level=series([0.05, -0.05] * 6)) is None


@pytest.mark.parametrize(
    ("reason", "arguments"),
    [
        ("too few", {"scores": (origin(TRUE), origin(TRUE, 300))}),
        ("times the longest", {"reach": 7.0}),
        ("times the forecast", {"spread": 0.5}),
        ("held 76.0 %", {"scores": (origin(TRUE), origin(TRUE | {80: 0.76}))}),
        ("swing by", {"level": series([0.3, -0.3] * 6)}),
        ("35 % above", {"level": series([0.0] * 11 + [0.3])}),
        ("26 % below", {"level": series([0.0] * 10 + [-0.3, 0.0])}),
    ],
)
def test_what_was_not_measured_or_did_not_hold_is_not_claimed(reason, arguments):
    assert reason in said(**arguments)


def test_chance_is_no_swing_and_no_rise():
    few = series([0.0] * 11 + [0.3], expected=30.0)
    assert said(level=few) is None
    assert said(level=series([0.0] * 11 + [0.3, 0.3], expected=5.0)) is None


def kept(orders: Orders, share) -> Orders:
    """Each purchase after the first with the chance that its day has."""
    chance = np.random.default_rng(1)
    first = np.concatenate([[True], orders.customer[1:] != orders.customer[:-1]])
    day = orders.day - day_number(buyers.BEGIN)
    rows = first | (chance.random(day.size) < share(day))
    return Orders.of_lines(orders.ids, orders.customer[rows], orders.day[rows], orders.gross[rows])


def christmas(day):
    """Two and a half times as much in the last seven weeks of a year."""
    return np.where(day % 365 > 315, 1.0, 0.4)


LOGS = {
    "a season unseen": (lambda: buyers.log(1600, season=0.4, seed=5), 364, False),
    "a Christmas at the end": (lambda: kept(buyers.log(1900, seed=7), christmas), 363, False),
    "growth": (lambda: kept(buyers.log(1900, seed=8), lambda day: np.exp((day - 728) / 607)), 420, None),
    "decline": (lambda: kept(buyers.log(1900, seed=9), lambda day: np.exp(-day / 607)), 420, None),
}


@pytest.mark.parametrize("name", LOGS)
def test_what_is_claimed_is_true_within_three_points(name):
    make, days, claimed = LOGS[name]
    orders, end = make(), buyers.BEGIN + timedelta(days=days)
    found = fit_auto(orders, end, "week", 26.0)
    assert claimed in {None, found.card.coverage_claimed}
    forecast = found.predictive(summarise(orders, end), 26.0)
    done = outcomes(orders, forecast.purchases, end + timedelta(weeks=26))
    revenue = judge(forecast, done, found.recalibration)["revenue"]
    # Chance, of some thousand customers, is a point.
    assert not found.card.coverage_claimed or revenue.coverage == pytest.approx({80: 0.8, 90: 0.9, 95: 0.95}, abs=0.04)


def test_a_doubt_about_the_level_widens_intervals_and_leaves_means():
    orders, end = buyers.log(900, seed=3), buyers.BEGIN + timedelta(days=500)
    found = fit_auto(orders, end, "week", 26.0)
    assert found.card.level_spread <= found.level_doubt < 0.3
    forecast = found.predictive(summarise(orders, end), 26.0)
    assert found.level_doubt == forecast.level.log_sd
    forecast_without = type(forecast)(
        forecast.mixture, forecast.spend, forecast.purchases, 26.0, factor=forecast.factor, drift=forecast.drift
    )
    assert forecast_without.mean("revenue") == pytest.approx(forecast.mean("revenue"))
    assert forecast_without.quantile("revenue", 0.95).sum() < forecast.quantile("revenue", 0.95).sum()
