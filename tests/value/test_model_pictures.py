from __future__ import annotations

import re
from datetime import date, timedelta

import numpy as np
import pytest

from kiki.value import plots, training
from kiki.value.model_pictures import HISTORIES, HOLDOUT, model_pictures, recalibrated
from kiki.value.orders import day_number, day_of
from tests.value import shop

CALIBRATION_END = date(2024, 9, 30)


@pytest.fixture(scope="module")
def orders():
    return shop.orders(currency="EUR")


@pytest.fixture(scope="module")
def model(orders):
    return training.fit(orders, model="pareto-nbd", calibration_end=CALIBRATION_END, horizon=13)


def test_with_a_holdout_there_is_every_plot(model, orders):
    found = model_pictures(model, orders)
    assert [*HISTORIES, *sorted(HOLDOUT)] == [*list(found)[: len(HISTORIES)], *sorted(list(found)[len(HISTORIES) :])]
    assert "revenue a customer (EUR)" in found["lift-revenue"].figure.axes[0].get_ylabel()
    assert "13 weeks" in found["frequency-recency"].figure.axes[0].get_title(loc="left")


def test_without_a_whole_week_after_the_calibration_a_day_inside_of_it_is_compared(model, orders):
    before = model_pictures(model, orders, CALIBRATION_END + timedelta(days=6))
    assert {*HISTORIES, *HOLDOUT} == {*before}
    assert "After the calibration" not in before["tracking-cumulative"].caption
    known, came = re.findall(
        r"on (\S+), against what they brought from \S+ to (\S+)\.", before["lift-revenue"].caption
    )[0]
    assert known < came <= str(CALIBRATION_END)
    after = model_pictures(model, orders, CALIBRATION_END + timedelta(days=7))
    assert "brought from 2024-10-01 to 2024-10-07" in after["lift-revenue"].caption


def test_what_comes_after_the_end_of_the_calibration_cannot_change_a_comparison_inside_of_it(model, orders):
    less = shop.orders(currency="EUR", until=str(CALIBRATION_END))
    assert less.last_day <= day_number(CALIBRATION_END) < orders.last_day
    first, second = (model_pictures(model, each, CALIBRATION_END)["lift-purchases"].figure for each in (orders, less))
    assert plots.image(first, "svg") == plots.image(second, "svg")


def test_a_log_that_is_too_short_has_no_comparison():
    short = shop.orders(customers=40, days=60)
    assert [*HISTORIES] == list(model_pictures(training.fit(short, model="nbd", horizon=4), short))


def test_the_card_of_auto_is_drawn_where_there_is_no_holdout(orders):
    fitted = training.fit(orders, model="auto", horizon=13)
    score = fitted.card.origins[-1]
    found = model_pictures(fitted, orders)
    assert f"from {score.end}, a day inside of the calibration" in found["calibration-revenue"].caption
    said = found["calibration-revenue"].figure.axes[1].texts[0].get_text()
    assert [f"{level}% hold {share:.1%}" for level, share in score.metrics["revenue"].coverage.items()] == said.split(
        "\n"
    )


def test_an_end_before_the_calibration_or_after_the_log_is_the_logs_own(model, orders):
    last = day_of(orders.last_day)
    later = model_pictures(model, orders, date(2099, 1, 1))["lift-purchases"].caption
    assert str(last) in later
    assert {*HISTORIES, *HOLDOUT} == {*model_pictures(model, orders, date(2024, 6, 1))}


@pytest.mark.parametrize("unit", ["day", "month"])
def test_every_unit_can_be_drawn(orders, unit):
    fitted = training.fit(orders, model="mbg-nbd", calibration_end=CALIBRATION_END, unit=unit, horizon=1)
    found = model_pictures(fitted, orders)
    assert f"recency: age at the last one ({unit}s)" == found["probability-alive"].figure.axes[0].get_ylabel()


class Sharper:
    """Reads the median off at p squared: outcomes were lower than the forecast said."""

    def levels(self, kind, p, x):
        return np.full(len(x), p**2)


def test_recalibration_turned_around_gives_the_true_probability():
    pit = np.array([0.0, 0.09, 0.25, 0.81, 1.0])
    assert [0, 0.3, 0.5, 0.9, 1] == pytest.approx(
        recalibrated(pit, "purchases", np.array([0, 1, 0, 1, 7]), Sharper()), abs=1e-4
    )
