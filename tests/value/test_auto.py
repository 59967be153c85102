from __future__ import annotations

import json
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from kiki.errors import InvalidInput
from kiki.value.auto import AutoFit, fit_auto
from kiki.value.card import HonestyCard
from kiki.value.evaluation import judge
from kiki.value.fitting import fit_count
from kiki.value.mixture import Mixture
from kiki.value.order_log import read_orders
from kiki.value.orders import Orders, day_number
from kiki.value.predictive import Predictive
from kiki.value.purchases import outcomes, summarise
from kiki.value.spend import fit_spend
from tests.value import buyers

END = date(2021, 6, 28)
UNTIL = END + timedelta(weeks=26)


@pytest.fixture(scope="module")
def orders() -> Orders:
    return buyers.log(2000)


@pytest.fixture(scope="module")
def auto(orders) -> AutoFit:
    return fit_auto(orders, END, "week", 26.0)


def forecast(found: AutoFit, orders: Orders, horizon: float = 26.0, end: date = END) -> Predictive:
    return found.predictive(summarise(orders, end), horizon)


def judged(found: AutoFit, orders: Orders) -> dict:
    said = forecast(found, orders)
    return judge(said, outcomes(orders, said.purchases, UNTIL), found.recalibration)


def published(orders: Orders):
    """Pareto/NBD by maximum likelihood, as people use it."""
    purchases = summarise(orders, END)
    fit = fit_count("pareto-nbd", purchases.grouped()[0])
    return Predictive(Mixture.of(fit.name, fit.fit.values), fit_spend(purchases), purchases, 26.0)


def log(lines) -> Orders:
    return read_orders(pd.DataFrame(lines, columns=["customer_id", "date", "amount"]))


def test_on_a_log_as_the_model_says_it_is_the_model_and_its_intervals_are_true(orders, auto):
    assert "pareto-nbd" == auto.parts[0][0].name
    assert 0.8 < auto.parts[0][1]
    assert auto.card.coverage_claimed, auto.card.refusal
    assert auto.drift < 0.005
    metrics = judged(auto, orders)
    for kind in ("purchases", "revenue"):
        for level, share in metrics[kind].coverage.items():
            assert level / 100 == pytest.approx(share, abs=0.03)


def test_what_the_card_measured_is_what_came(orders, auto):
    last = auto.card.origins[-1]
    assert (last.end, last.until) < (END, END + timedelta(days=1))
    assert 4 == len(auto.card.origins)
    for kind in ("purchases", "revenue"):
        measured, came = auto.card.coverage[kind], judged(auto, orders)[kind].coverage
        assert measured == pytest.approx(came, abs=0.04)
        assert 1 == pytest.approx(sum(last.pit[kind]))


def test_what_comes_after_the_calibration_changes_nothing(orders, auto):
    kept = orders.day <= day_number(END)
    customers, numbers = np.unique(orders.customer[kept], return_inverse=True)
    known = Orders.of_lines(orders.ids[customers], numbers, orders.day[kept], orders.gross[kept])
    again = fit_auto(known, END, "week", 26.0)
    assert auto.card == again.card
    assert [weight for _, weight in auto.parts] == [weight for _, weight in again.parts]
    assert auto.recalibration.as_dict() == again.recalibration.as_dict()


def test_the_level_is_the_anchors(orders, auto):
    """The weights and the correction were chosen on short horizons, whose levels swing: they move no total."""
    purchases = summarise(orders, END)
    groups, _ = purchases.grouped()
    anchor = fit_count("pareto-nbd", groups, "map")
    expected = float(Mixture.of(anchor.name, anchor.fit.values).expected(26.0, groups) @ groups.weight)
    assert expected == pytest.approx(float(forecast(auto, orders).mean("purchases").sum()), rel=1e-6)


def test_regular_buyers_are_told_from_those_by_chance():
    regular = buyers.log(1800, rhythm=6, seed=2)
    found = fit_auto(regular, END, "week", 26.0)
    assert 0 < found.card.shape_weight <= 1
    plain = published(regular)
    peer = judge(plain, outcomes(regular, plain.purchases, UNTIL))["purchases"]
    own = judged(found, regular)["purchases"]
    assert own.poisson_deviance_mean < peer.poisson_deviance_mean
    assert own.rmse_mean < 1.02 * peer.rmse_mean
    assert own.mae_median < peer.mae_median


def test_without_dropout_it_is_the_nbd():
    found = fit_auto(buyers.log(800, dropout=False, seed=3), END, "week", 26.0)
    assert ["nbd"] == [fit.name for fit, _ in found.parts]
    assert 1 == pytest.approx(found.parts[0][1])


def test_a_season_seen_once_is_no_ground_for_a_claim():
    seasonal = buyers.log(1500, 78, season=0.9, seed=4)
    found = fit_auto(seasonal, date(2021, 1, 4), "week", 26.0)
    assert found.level is None
    assert not found.card.coverage_claimed
    assert "times the forecast" in found.card.refusal


def test_a_season_seen_twice_moves_the_level():
    seasonal = buyers.log(1800, 182, season=0.8, seed=5)
    end = date(2022, 12, 26)
    found = fit_auto(seasonal, end, "week", 13.0)
    assert found.level is not None
    said = forecast(found, seasonal, 13.0, end)
    came = int(outcomes(seasonal, said.purchases, end + timedelta(weeks=13)).purchases.sum())
    without = Predictive(found.mixture, found.spend, said.purchases, 13.0, factor=said.factor)
    near, far = (abs(np.log(came / float(each.mean("purchases").sum()))) for each in (said, without))
    assert near < far


def test_a_horizon_far_beyond_what_could_be_tested_is_not_claimed(orders):
    assert "times the longest" in fit_auto(orders, END, "week", 500.0).card.refusal


@pytest.mark.parametrize("days", [20, 60])
def test_a_short_log_gets_one_model_and_no_claim(orders, days):
    end = date.fromordinal(buyers.BEGIN.toordinal() + days)
    found = fit_auto(orders, end, "week", 26.0)
    assert 1 == len(found.parts)
    assert ((), None, None, None) == (found.card.origins, found.shape, found.recalibration, found.level)
    assert "too short" in found.card.refusal
    assert np.isfinite(forecast(found, orders, end=end).mean("revenue")).all()


@pytest.mark.parametrize(
    "lines",
    [
        [("a", f"2024-01-{day:02}", 5.0 + day) for day in range(1, 30, 7)],
        [(f"c{n}", f"2024-0{1 + n % 6}-1{n % 9}", 3.0) for n in range(300)],
        [(f"c{n % 150}", str(date(2024, 1, 1) + timedelta(days=7 * n % 300)), 9.99) for n in range(1500)],
        [(f"c{n % 150}", str(date(2024, 1, 1) + timedelta(days=11 * n % 300)), 0.0) for n in range(1500)],
        [(f"c{n}", str(date(2024, 1, 1) + timedelta(days=d)), 1.0 + n) for n in range(101) for d in range(n % 50, 90)],
    ],
    ids=["one customer", "one purchase each", "equal amounts", "all free", "daily buyers"],
)
@pytest.mark.parametrize("horizon", [0.5, 52.0])
def test_strange_logs_are_forecast_in_finite_numbers_without_a_claim(lines, horizon):
    orders = log(lines)
    found = fit_auto(orders, None, "week", horizon)
    said = found.predictive(summarise(orders), horizon)
    for kind in ("purchases", "revenue"):
        assert np.isfinite(said.mean(kind)).all()
        assert (said.mean(kind) >= 0).all()
        assert np.isfinite(said.quantile(kind, 0.975)).all()
    assert not found.card.coverage_claimed
    assert found.card == HonestyCard.from_dict(json.loads(json.dumps(found.card.as_dict(), allow_nan=False)))


def test_a_log_of_one_day_is_refused():
    with pytest.raises(InvalidInput, match="calibrate to a later day"):
        fit_auto(log([("a", "2024-01-01", 5.0), ("b", "2024-01-01", 6.0)]))


def test_it_tells_how_far_it_is(orders):
    said: list[tuple[str, float, float]] = []
    fit_auto(orders, date(2020, 12, 28), "week", 26.0, lambda *told: said.append(told))
    assert ["fitting", "rolling origins"] == list(dict.fromkeys(what for what, _, _ in said))
    assert all(done <= of for _, done, of in said)
    assert said[-1][1] == said[-1][2]
