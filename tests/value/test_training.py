"""`training.fit`: published numbers from a log's summary, the same model from every form of a log, and options that make sense."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kiki.errors import InvalidInput
from kiki.money import MICROS
from kiki.value import training
from kiki.value.orders import day_of
from kiki.value.purchases import COLUMNS, Purchases, summarise
from tests.value import shop

SUMMARY = np.loadtxt(Path(__file__).with_name("cdnow_sample_summary_39w_spend.csv"), delimiter=",", skiprows=1)
CALIBRATION_END = date(2024, 9, 30)


@pytest.fixture(scope="module")
def orders():
    return shop.orders(currency="EUR")


def cdnow() -> Purchases:
    """CDNOW's tenth as the papers have it: mean repeat amounts to the cent, first orders made up, which the papers' form does not look at."""
    x = SUMMARY[:, 1].astype(np.int64)
    none = {name: np.zeros(x.size, dtype=np.int64) for name in COLUMNS[1:]}
    columns = {
        "x": x,
        "tx": np.rint(SUMMARY[:, 2] * 7).astype(np.int64),
        "T": np.rint(SUMMARY[:, 3] * 7).astype(np.int64),
        "first_micros": np.full(x.size, 10 * MICROS),
        "repeat_micros": np.rint(SUMMARY[:, 4] * x * MICROS).astype(np.int64),
        "positive_repeats": np.where(SUMMARY[:, 4] > 0, x, 0),
    }
    ids = np.array([f"{int(number):05}" for number in SUMMARY[:, 0]], dtype=object)
    return Purchases(ids=ids, **(none | columns), calibration_end=date(1997, 9, 30))


@pytest.mark.parametrize(
    ("model", "published", "log_likelihood"),
    [
        # Fader, Hardie and Lee 2005, Marketing Science 24(2), table 2, with the digits of later software.
        ("bg-nbd", {"r": 0.2426, "alpha": 4.4136, "a": 0.7929, "b": 2.4259}, -9582.429),
        ("pareto-nbd", {"r": 0.5533, "alpha": 10.5777, "s": 0.6062, "beta": 11.6688}, -9594.976),
        # No paper prints these; they are what the equations of Batislam et al. 2007 give.
        ("mbg-nbd", {"r": 0.5248, "alpha": 6.1831, "a": 0.8914, "b": 1.6140}, -9582.136),
    ],
)
def test_a_named_model_is_the_published_maximum_likelihood(model: str, published, log_likelihood: float):
    fitted = training.fit(cdnow(), model=model)
    assert published == pytest.approx(fitted.parts[0].parameters, abs=1e-4)
    assert log_likelihood == pytest.approx(fitted.parts[0].log_likelihood, abs=6e-4)
    assert ("mle", model, 1) == (fitted.estimator, fitted.model, len(fitted.parts))


def test_spend_of_a_named_model_is_the_published_gamma_gamma():
    """Fader, Hardie and Lee 2005, J. of Marketing Research 42; Fader and Hardie 2013: p 6.25, q 3.74, v 15.44 of 946 repeaters."""
    spend = training.fit(cdnow(), model="bg-nbd").spend
    # The means of this summary are rounded to the cent, which moves v by a half per mille.
    assert (6.25, 3.74, 15.44) == pytest.approx((spend.p, spend.q, spend.v), abs=0.01)
    assert -4055.918 == pytest.approx(spend.log_likelihood, abs=0.02)


def test_standard_errors_are_those_of_other_software():
    """CLVTools prints these for Pareto/NBD; the shape of the dropout is known badly, so its scale is, too."""
    errors = training.fit(cdnow(), model="pareto-nbd").parts[0].standard_errors
    assert {"r": 0.0476264, "alpha": 0.8427222, "s": 0.1872594, "beta": 6.2105448} == pytest.approx(errors, rel=3e-4)


@pytest.mark.parametrize("model", [name for name in training.model_names() if name != "auto"])
@pytest.mark.parametrize("estimator", ["mle", "map"])
def test_every_named_model_fits_with_either_estimator(orders, model: str, estimator: str):
    fitted = training.fit(orders, model=model, estimator=estimator, calibration_end=CALIBRATION_END)
    assert estimator == fitted.estimator
    assert all(math.isfinite(value) and value > 0 for value in fitted.parts[0].parameters.values())
    assert {part.fell_back_from for part in fitted.parts} <= {None, model}


def test_later_rows_change_nothing(orders):
    """A calibration to a day is that of a log that ends on that day."""
    whole = training.fit(orders, model="bg-nbd", calibration_end=CALIBRATION_END)
    until = training.fit(summarise(orders, CALIBRATION_END), model="bg-nbd")
    assert whole.as_dict() == replace(until, fitted_on=whole.fitted_on).as_dict()
    assert whole.fitted_on.fingerprint == until.fitted_on.fingerprint
    assert whole.model_version != training.fit(orders, model="bg-nbd").model_version


def test_a_file_a_table_orders_and_a_summary_make_one_model(tmp_path: Path):
    chance = np.random.default_rng(3)
    days = [str(day_of(19_700 + int(day))) for day in chance.integers(0, 300, 400)]
    frame = pd.DataFrame(
        {
            "customer_id": [f"c{number}" for number in chance.integers(0, 80, 400)],
            "date": days,
            "amount": chance.integers(5, 50, 400),
        }
    )
    path = tmp_path / "log.csv"
    frame.to_csv(path, index=False)
    first = training.fit(path, model="mbg-nbd")
    assert first.as_dict() == training.fit(frame, model="mbg-nbd").as_dict()
    assert first.as_dict() == training.fit(str(path), model="mbg-nbd").as_dict()


def test_the_calibration_may_end_after_the_log_and_the_model_says_so(orders):
    later = day_of(orders.last_day) + timedelta(days=30)
    fitted = training.fit(orders, model="nbd", calibration_end=later)
    assert any("30 days after the last line of the log" in note for note in fitted.notes)
    assert later == fitted.calibration_end


@pytest.mark.parametrize(("unit", "year"), [("day", 365), ("week", 52), ("month", 12)])
def test_without_a_horizon_it_is_a_year(orders, unit: str, year: float):
    fitted = training.fit(orders, model="nbd", unit=unit, calibration_end=CALIBRATION_END)
    assert (unit, year) == (fitted.unit, fitted.horizon)


def test_units_change_the_scale_of_parameters_and_no_forecast(orders):
    known = summarise(orders, CALIBRATION_END)
    day, week = (
        training.fit(orders, model="mbg-nbd", unit=unit, calibration_end=CALIBRATION_END) for unit in ("day", "week")
    )
    assert day.parts[0].parameters["alpha"] == pytest.approx(7 * week.parts[0].parameters["alpha"], rel=1e-5)
    assert day.predict(known, 91).purchases.mean == pytest.approx(week.predict(known, 13).purchases.mean, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "arima"}, "the models are auto, "),
        ({"model": ""}, "there is no model ''"),
        ({"model": "bg-nbd", "estimator": "bayes"}, "the estimators are mle, map"),
        ({"model": "auto", "estimator": "mle"}, "no other estimator"),
        ({"unit": "year"}, "take day, week, month"),
        ({"horizon": 0}, "out of range"),
        ({"horizon": -3}, "out of range"),
        ({"horizon": math.nan}, "out of range"),
        ({"horizon": 53 * 10}, "ten years at most"),
        ({"discount_rate": 0}, "a discount rate is a year's"),
        ({"discount_rate": -0.1}, "a discount rate is a year's"),
        ({"discount_rate": math.nan}, "a discount rate is a year's"),
        ({"calibration_end": date(1999, 1, 1)}, "the log begins on 2024"),
    ],
)
def test_options_that_make_no_sense_are_refused(orders, options, said: str):
    with pytest.raises(InvalidInput, match=said):
        training.fit(orders, **options)


@pytest.mark.parametrize(("name", "module"), [("bg-bb", "bg_bb"), ("sbg", "sbg")])
def test_a_model_of_other_data_says_where_it_is(orders, name, module):
    with pytest.raises(InvalidInput, match="the models are auto") as refused:
        training.fit(orders, model=name)
    assert f"kiki.value.{module}" in (refused.value.hint or "")


def test_a_summary_cannot_be_calibrated_to_another_day(orders):
    known = summarise(orders, CALIBRATION_END)
    with pytest.raises(InvalidInput, match="needs the log"):
        training.fit(known, model="nbd", calibration_end=CALIBRATION_END - timedelta(days=1))


def test_progress_is_told_and_ends(orders):
    told: list[tuple[str, float, float]] = []
    training.fit(orders, model="nbd", progress=lambda *how_far: told.append(how_far))
    assert told
    assert all(0 <= done <= total for _, done, total in told)
    assert told[-1][1] == told[-1][2]


def test_people_who_buy_by_the_calendar_are_found_to_be_regular():
    """Everybody comes every fourth week, give or take a day: k is far above 1, and the next purchase is not today."""
    chance = np.random.default_rng(8)
    lines = []
    for number in range(150):
        day, gap = int(chance.integers(0, 28)), int(chance.integers(20, 40))
        for turn in range(int(chance.integers(2, 9))):
            when = day + turn * gap + int(chance.integers(-1, 2))
            lines.append((f"c{number}", str(date(2024, 2, 1) + timedelta(days=when)), 10 + turn))
    frame = pd.DataFrame(lines, columns=["customer_id", "date", "amount"])
    fitted = training.fit(frame, model="mbg-cnbd-k", calibration_end=date(2024, 12, 31))
    assert "mbg-cnbd-k" == fitted.model
    assert fitted.summary()["parameters"]["k"] >= 4
    assert fitted.as_dict() == type(fitted).from_dict(fitted.as_dict()).as_dict()


@pytest.mark.parametrize("customers", [1, 2, 3])
def test_a_log_of_one_customer_fits_or_says_why_not(customers: int):
    frame = pd.DataFrame(
        [(f"c{number}", f"2024-0{month}-01", 10 + month) for number in range(customers) for month in (1, 2, 4)],
        columns=["customer_id", "date", "amount"],
    )
    fitted = training.fit(frame, model="pareto-nbd", calibration_end=date(2024, 6, 30))
    known = summarise(shop.read_orders(frame), date(2024, 6, 30))
    assert np.isfinite(fitted.predict(known).revenue.upper[95]).all()


def test_one_purchase_each_is_a_log(orders):
    """Nobody ever came back: nobody is expected to, and nothing is infinite."""
    frame = pd.DataFrame(
        [(f"c{number}", f"2024-01-{1 + number % 28:02}", 10 + number % 7) for number in range(60)],
        columns=["customer_id", "date", "amount"],
    )
    fitted = training.fit(frame, model="bg-nbd", calibration_end=date(2024, 6, 30))
    predictions = fitted.predict(summarise(shop.read_orders(frame), date(2024, 6, 30)))
    for column in predictions.as_columns().values():
        assert column.dtype == object or np.isfinite(column).all()
    assert predictions.purchases.mean.sum() < 6


def test_all_amounts_equal_make_revenue_purchases_times_the_amount(orders):
    frame = pd.DataFrame(
        [(f"c{number}", f"2024-0{1 + (number * step) % 6}-1{step}", 12.5) for number in range(50) for step in range(4)],
        columns=["customer_id", "date", "amount"],
    )
    fitted = training.fit(frame, model="mbg-nbd", calibration_end=date(2024, 6, 30))
    found = fitted.predict(summarise(shop.read_orders(frame), date(2024, 6, 30)))
    assert 12.5 == fitted.spend.constant
    assert found.revenue.mean == pytest.approx(12.5 * found.purchases.mean)
    assert found.revenue.upper[95] == pytest.approx(12.5 * found.purchases.upper[95])
