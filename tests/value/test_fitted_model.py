"""A fitted model predicts the same from its file as before, and one customer the same alone as among others."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from kiki.errors import InvalidInput, ModelInvalid
from kiki.value import training
from kiki.value.cohorts import Cohorts
from kiki.value.fitted_model import FittedModel
from kiki.value.groups import DAYS_PER_UNIT
from kiki.value.history import History
from kiki.value.model_file import write_model_file
from kiki.value.prediction import Predictions
from kiki.value.purchases import Purchases, summarise
from kiki.value.seasonality import LevelPath
from tests.value import shop

CALIBRATION_END = date(2024, 9, 30)


@pytest.fixture(scope="module")
def orders():
    return shop.orders(currency="EUR")


@pytest.fixture(scope="module")
def known(orders) -> Purchases:
    return summarise(orders, CALIBRATION_END)


@pytest.fixture(scope="module", params=["pareto-nbd", "auto"])
def model(request, orders) -> FittedModel:
    return training.fit(orders, model=request.param, calibration_end=CALIBRATION_END, horizon=13, discount_rate=0.1)


def same(first: Predictions, second: Predictions, rel: float = 0.0) -> None:
    one, other = first.as_columns(), second.as_columns()
    assert list(one) == list(other)
    for name in one:
        if one[name].dtype == object:
            assert one[name].tolist() == other[name].tolist()
        else:
            assert one[name] == pytest.approx(other[name], rel=rel, abs=rel), name


def test_a_model_from_its_file_predicts_the_same_to_the_last_bit(model, known, tmp_path: Path):
    path = tmp_path / "m.json"
    stated = model.save(path)
    again = FittedModel.load(path)
    same(model.predict(known), again.predict(known))
    assert model.info() == again.info()
    assert (model.model_version, None) == (again.model_version, again.fit_seconds)
    assert stated == again.save(tmp_path / "again.json")
    assert path.read_bytes() == (tmp_path / "again.json").read_bytes()


def test_a_model_file_names_nobody(model, orders, tmp_path: Path):
    path = tmp_path / "m.json"
    model.save(path)
    text = path.read_text()
    assert not [name for name in orders.ids if name in text or json.dumps(name)[1:-1] in text]


def test_a_customer_alone_is_predicted_as_among_others(model, known):
    everybody = model.predict(known)
    for row in (0, 7, len(known) - 1):
        alone = model.predict(known.take(np.array([row])))
        assert alone.purchases.mean[0] == pytest.approx(everybody.purchases.mean[row], rel=1e-9)
        assert alone.revenue.upper[95][0] == pytest.approx(everybody.revenue.upper[95][row], rel=1e-3)
        assert alone.no_purchase[0] == pytest.approx(everybody.no_purchase[row], rel=1e-6)


def test_every_prediction_is_possible(model, known):
    found = model.predict(known)
    for quantity in (found.purchases, found.revenue):
        assert (np.isfinite(quantity.mean) & (quantity.mean >= 0)).all()
        for wide, narrow in ((95, 90), (90, 80)):
            assert (quantity.lower[wide] <= quantity.lower[narrow]).all()
            assert (quantity.upper[wide] >= quantity.upper[narrow]).all()
        assert (quantity.lower[80] <= quantity.median).all()
        assert (quantity.median <= quantity.upper[80]).all()
    for chance in (found.alive, found.no_purchase):
        assert ((chance >= 0) & (chance <= 1)).all()
    assert (found.discounted_value >= 0).all()


def test_the_horizon_is_the_models_unless_told(model, known):
    assert (13.0, 26.0) == (model.predict(known).horizon, model.predict(known, 26).horizon)
    assert (model.predict(known, 26).purchases.mean >= model.predict(known).purchases.mean).all()
    for wrong in (0, -1, np.nan, np.inf):
        with pytest.raises(InvalidInput):
            model.predict(known, wrong)


def test_histories_in_another_unit_are_the_same_histories(model, known):
    same(model.predict(known), model.predict(replace(known, unit="day")))


def test_histories_in_another_currency_are_refused(model, known):
    with pytest.raises(InvalidInput, match="fitted in EUR, the histories are in USD"):
        model.predict(replace(known, currency="USD"))
    model.predict(replace(known, currency=None))


def test_a_history_typed_in_is_predicted_as_a_customer_with_that_history(model, known):
    days = DAYS_PER_UNIT["week"]
    # Somebody whose orders are all alike, so that a mean amount says everything.
    row = int(np.argmax(known.x))
    history = History(int(known.x[row]), known.tx[row] / days, known.T[row] / days, float(known.mean_amount[row]))
    typed = model.predict_history(history)
    logged = model.predict(known.take(np.array([row])), dated=False).row(0)
    assert logged.purchases.mean == pytest.approx(typed.purchases.mean, rel=1e-9)
    assert logged.alive == pytest.approx(typed.alive, rel=1e-9)
    assert 0 < typed.revenue.mean


def test_more_is_known_of_a_history_with_amounts(model):
    rich, poor, unknown = (
        model.predict_history(History(4, 10, 12, amount)).order_amount for amount in (500.0, 1.0, None)
    )
    assert poor < unknown < rich


def test_a_new_customer_is_somebody_without_a_past(model):
    found = model.new_customer()
    assert (1, 13.0) == (len(found), found.horizon)
    assert 0 < found.purchases.mean[0] < model.new_customer(horizon=26).purchases.mean[0]
    assert 0 < found.revenue.mean[0]
    assert (1.0, "new") == (pytest.approx(found.alive[0]), found.ids[0])


def test_reasons_are_words(model, known):
    predictions = model.predict(known)
    words = model.explain(known, predictions, int(np.argmax(known.x)))
    assert len(words) >= 2
    assert all(isinstance(said, str) and len(said) > 10 for said in words)
    alone = known.take(np.array([3]))
    assert len(words) == len(model.explain(alone, model.predict(alone), 0))


def test_what_is_told_of_a_model_is_json(model):
    told = json.loads(json.dumps(model.info(), allow_nan=False))
    assert model.model_version == told["model_version"]
    short = json.loads(json.dumps(model.summary(), allow_nan=False))
    assert {"model", "parameters", "standard_errors", "log_likelihood", "spend"} <= short.keys()
    assert {"p", "q", "v"} <= short["spend"].keys()
    assert short["parameters"].keys() <= {"r", "alpha", "s", "beta", "a", "b", "k"}


def test_equal_data_give_an_equal_version_and_others_another(orders, model):
    again = training.fit(
        orders,
        model=model.model if model.model == "auto" else "pareto-nbd",
        calibration_end=CALIBRATION_END,
        horizon=13,
        discount_rate=0.1,
    )
    assert model.model_version == again.model_version
    assert replace(model, horizon=14.0).model_version != model.model_version


def test_a_season_is_that_of_the_days_that_are_forecast(orders, known):
    """Nothing is bought but in the thirteen periods of each year's second half: whoever asks half a year later gets those."""
    half = 6.5 * 28 / 7
    path = LevelPath(tuple(([0.25] * 6 + [1.0] + [1.75] * 6) * 3), (0.1,) * 39)
    plain = training.fit(orders, model="pareto-nbd", calibration_end=CALIBRATION_END, horizon=half)
    seasonal = replace(plain, level=path)

    def ratio(days: int, horizon: float = half) -> float:
        later = replace(known, calibration_end=CALIBRATION_END + timedelta(days=days))
        means = [model.predict(later, horizon).purchases.mean.sum() for model in (seasonal, plain)]
        return means[0] / means[1]

    assert ratio(0) == pytest.approx((6 * 0.25 + 0.5) / 6.5)
    assert ratio(182) == pytest.approx((6 * 1.75 + 0.5) / 6.5, rel=0.02)
    assert ratio(730) == pytest.approx(ratio(0), rel=0.02)
    assert ratio(-183) == pytest.approx(ratio(182), rel=0.02)
    assert ratio(0, 52) == pytest.approx(1, rel=0.02)


def test_a_new_customer_of_a_good_month_is_expected_to_buy_more(orders):
    cohorts = Cohorts("pareto-nbd", {}, 0.5, ["2024-01", "2024-02"], [0.5, -0.5], [0.1, 0.1], [100, 100])
    model = replace(training.fit(orders, model="pareto-nbd", calibration_end=CALIBRATION_END), cohorts=cohorts)
    good, bad, unknown, nobody = (
        model.new_customer(cohort).purchases.mean[0] for cohort in ("2024-01", "2024-02", "2099-01", None)
    )
    assert bad < nobody < good
    assert good / bad == pytest.approx(np.e, rel=0.01)
    assert unknown == pytest.approx(nobody * np.exp(0.125), rel=1e-6)


MEMBERS = ["parts", "spend", "fitted_on", "unit", "horizon", "model"]
OPTIONAL = ["shape", "recalibration", "level", "cohorts", "card", "usual", "discount_rate", "currency"]


@pytest.mark.parametrize("member", [*MEMBERS, *OPTIONAL])
def test_content_that_makes_no_sense_is_refused(model, tmp_path: Path, member: str):
    """A file whose hash is right, by somebody who wrote it himself."""
    for value in (None, [], {}, "x", -1, [{}], {"p": 1}):
        content = model.as_dict() | {member: value}
        write_model_file(tmp_path / "m.json", content)
        if (member in {"model", "currency"} and isinstance(value, str)) or (member in OPTIONAL and value is None):
            continue
        with pytest.raises(ModelInvalid):
            FittedModel.load(tmp_path / "m.json")
    content = model.as_dict()
    del content[member]
    write_model_file(tmp_path / "m.json", content)
    with pytest.raises(ModelInvalid):
        FittedModel.load(tmp_path / "m.json")


@pytest.mark.parametrize("value", [-1.0, 0.0, None, "1"])
def test_impossible_parameters_in_a_file_are_refused(model, tmp_path: Path, value):
    content = model.as_dict()
    content["parts"][0]["parameters"]["r"] = value
    write_model_file(tmp_path / "m.json", content)
    with pytest.raises(ModelInvalid):
        FittedModel.load(tmp_path / "m.json")


def test_a_number_that_no_float_holds_is_refused_wherever_it_stands(model, tmp_path: Path):
    for members in (("horizon",), ("card", "horizon"), ("card", "shape_weight"), ("spend", "p")):
        content = copy.deepcopy(model.as_dict())
        place = content if len(members) == 1 else content[members[0]]
        if place is None:
            continue  # a named model has no card
        place[members[-1]] = 10**400
        write_model_file(tmp_path / "m.json", content)
        with pytest.raises(ModelInvalid):
            FittedModel.load(tmp_path / "m.json")
