"""Spend: the published form, what is known to have been put in, and logs that break the form."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kiki.errors import InvalidInput
from kiki.value.spend import SpendModel, fit_spend
from tests.value import cdnow
from tests.value.customers import customers, drawn

TRUTH = {"p": 4.0, "q": 3.5, "v": 25.0}


def test_the_papers_form_prints_the_digits_of_fader_hardie_and_lee_2005():
    x = cdnow.repeat_orders().astype(int)
    log = customers(x, np.where(x > 0, 200, 0), 273, first=1.0, repeats=x * cdnow.mean_amounts())
    found = fit_spend(log, "mle", first_order=False)
    assert [6.25, 3.744, 15.443] == pytest.approx([found.p, found.q, found.v], abs=0.006)
    assert found.log_likelihood == pytest.approx(-4055.92, abs=0.02)
    published = [24.65, 18.91, 35.17, 35.17, 35.17, 71.46, 18.91, 35.17, 27.28, 35.17]
    assert published == pytest.approx(found.expected_amount(log)[:10].tolist(), abs=0.015)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("estimator", ["mle", "map"])
def test_known_parameters_are_recovered(estimator, first_order):
    found = fit_spend(drawn(20_000, **TRUTH), estimator, first_order=first_order)
    assert found.standard_errors is not None
    for name, value in TRUTH.items():
        assert abs(getattr(found, name) - value) < 4 * found.standard_errors[name]
    assert found.frequency_exponent == 0
    assert found.independence_p_value > 0.01
    assert found.zero_share == 0


def test_first_orders_at_another_level_are_brought_to_that_of_later_ones():
    found = fit_spend(drawn(20_000, first=1.5, **TRUTH))
    assert found.first_order == pytest.approx(1.5, rel=0.03)
    assert [found.p, found.q, found.v] == pytest.approx(list(TRUTH.values()), rel=0.1)


def test_amounts_that_grow_with_frequency_fail_the_test_and_the_growth_is_found():
    log = drawn(20_000, power=0.2, **TRUTH)
    found = fit_spend(log)
    assert found.independence_p_value < 1e-6
    assert found.frequency_exponent == pytest.approx(0.2, abs=0.03)
    assert [found.p, found.q, found.v] == pytest.approx(list(TRUTH.values()), rel=0.1)
    plain = fit_spend(log, first_order=False)
    assert plain.independence_p_value < 1e-6
    assert plain.frequency_exponent == 0


def test_one_time_buyers_are_told_apart_by_their_first_order():
    log = customers([0, 0], 0, 100, first=[5.0, 50.0])
    model = fit_spend(drawn(5_000, **TRUTH))
    small, large = model.expected_amount(log)
    assert small < large
    plain = fit_spend(drawn(5_000, **TRUTH), first_order=False)
    small, large = plain.expected_amount(log)
    assert small == large


def test_the_share_of_free_orders_lowers_the_amount():
    found = fit_spend(drawn(20_000, free=0.2, **TRUTH))
    assert found.zero_share == pytest.approx(0.2, abs=0.01)
    nobody = customers([0], 0, 100, first=0.0)
    p, q, v = TRUTH.values()
    assert found.expected_amount(nobody)[0] == pytest.approx(0.8 * p * v / (q - 1), rel=0.05)


def test_equal_amounts_are_a_constant():
    found = fit_spend(customers([0, 3, 1], [0, 20, 9], 50, first=12.5, repeats=[0, 37.5, 12.5]))
    assert found.constant == 12.5
    assert [12.5] * 3 == found.expected_amount(customers([0, 0, 9], [0, 0, 30], 40)).tolist()


def test_a_log_of_free_orders_is_worth_nothing():
    found = fit_spend(customers([0, 2], [0, 20], 50, first=0.0, positive=0, free=[1, 3]))
    assert (0.0, 1.0) == (found.constant, found.zero_share)


def test_without_a_repeat_order_the_papers_form_takes_the_first_ones_and_says_so():
    found = fit_spend(customers([0, 0, 0], 0, 50, first=[10.0, 12.0, 30.0]), "map", first_order=False)
    assert found.first_order == 1
    assert "first orders" in found.notes[0]


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("estimator", ["mle", "map"])
def test_a_few_customers_give_a_finite_amount(rows, estimator):
    log = customers(
        [0, 1, 4][:rows], [0, 10, 30][:rows], 50, first=[3.0, 80.0, 7.0][:rows], repeats=[0, 1.0, 900][:rows]
    )
    amount = fit_spend(log, estimator).expected_amount(log)
    assert np.isfinite(amount).all()
    assert (amount > 0).all()


def test_amounts_without_a_mean_are_fitted_with_priors_and_it_is_said():
    log = drawn(3_000, p=2.0, q=0.8, v=5.0)
    found = fit_spend(log, "mle", first_order=False)
    assert found.q > 1
    assert any("without a mean" in note for note in found.notes)


def test_a_model_survives_json():
    for model in (fit_spend(drawn(500, free=0.1, **TRUTH)), fit_spend(customers([0], 0, 9))):
        assert model == SpendModel.from_dict(json.loads(json.dumps(model.as_dict())))


@pytest.mark.parametrize(
    "change",
    [
        {"q": 0.9}, {"p": None}, {"constant": 3.0}, {"zero_share": 1.5}, {"v": float("nan")}, {"first_order": 0.0},
        {"first_order": "2"}, {"log_likelihood": []}, {"independence_p_value": "x"}, {"standard_errors": {"p": None}},
        {"notes": "x"}, {"p": 10**400},
    ],
)  # fmt: skip
def test_what_is_no_model_is_refused(change):
    with pytest.raises(InvalidInput):
        SpendModel.from_dict(fit_spend(drawn(200, **TRUTH)).as_dict() | change)
    with pytest.raises(InvalidInput):
        SpendModel.from_dict({})


def test_an_unknown_estimator_is_refused():
    with pytest.raises(InvalidInput, match="mle, map"):
        fit_spend(customers([0], 0, 9), "ols")
