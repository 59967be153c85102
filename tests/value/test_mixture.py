"""Mixtures of count models: weighted means of their parts, closed forms, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kiki.errors import InvalidInput
from kiki.value import bg_nbd, mbg_nbd, nbd, pareto_nbd
from kiki.value.groups import Groups
from kiki.value.mixture import Mixture, living_pmf, memoryless

PARAMETERS = {
    "bg-nbd": np.array([0.243, 4.414, 0.793, 2.426]),
    "mbg-nbd": np.array([0.525, 6.183, 0.891, 1.614]),
    "nbd": np.array([0.385, 12.07]),
    "pareto-nbd": np.array([0.553, 10.578, 0.606, 11.669]),
    "mbg-cnbd-2": np.array([0.525, 6.183, 0.891, 1.614]),
}
MODULES = {"bg-nbd": bg_nbd, "mbg-nbd": mbg_nbd, "nbd": nbd, "pareto-nbd": pareto_nbd}
GROUPS = Groups.of([0, 0, 1, 2, 7, 26, 500], [0, 0, 5, 30.43, 20, 30.86, 70], [0, 39, 39, 38.86, 39, 31, 72])
MIXED = Mixture((("pareto-nbd", PARAMETERS["pareto-nbd"], 3.0), ("mbg-nbd", PARAMETERS["mbg-nbd"], 1.0)))


@pytest.mark.parametrize("name", PARAMETERS)
def test_one_part_is_the_model_itself(name):
    alone = Mixture.of(name, PARAMETERS[name])
    assert alone.pmf(39.0, GROUPS, 20)[:, 0] == pytest.approx(alone.no_purchase(39.0, GROUPS))
    if name in MODULES:
        assert MODULES[name].expected(PARAMETERS[name], 39.0, GROUPS).tolist() == alone.expected(39.0, GROUPS).tolist()


def test_a_mixture_is_the_weighted_mean_of_its_parts():
    first, second = (Mixture.of(name, PARAMETERS[name]) for name in ("pareto-nbd", "mbg-nbd"))
    for value in (
        lambda mixture: mixture.alive(GROUPS),
        lambda mixture: mixture.expected(39.0, GROUPS),
        lambda mixture: mixture.expected_new([1.0, 39.0]),
        lambda mixture: mixture.pmf(39.0, GROUPS, 20),
        lambda mixture: mixture.no_purchase(39.0, GROUPS),
        lambda mixture: mixture.discounted(GROUPS, 0.003, month=4.35),
    ):
        assert 0.75 * value(first) + 0.25 * value(second) == pytest.approx(value(MIXED))


@pytest.mark.parametrize("name", [name for name in PARAMETERS if memoryless(name)])
def test_the_pmf_of_the_living_with_the_dead_is_the_models(name):
    p = PARAMETERS[name]
    living = living_pmf(name, p, 39.0, GROUPS, 30)
    alive = MODULES[name].alive(p, GROUPS)[:, None]
    whole = living * alive
    whole[:, 0] += 1 - alive[:, 0]
    assert MODULES[name].pmf(p, 39.0, GROUPS, 30) == pytest.approx(whole, abs=1e-12)


def test_the_closed_form_of_the_discounted_value_is_the_limit_of_the_monthly_sum(monkeypatch):
    alone = Mixture.of("pareto-nbd", PARAMETERS["pareto-nbd"])
    groups, rate = Groups.of([0, 2, 7], [0, 30, 20], [39, 38.86, 39]), 0.01
    closed = alone.discounted(groups, rate, month=4.35)
    assert alone.closed_form
    monkeypatch.delattr(pareto_nbd, "discounted")
    assert not alone.closed_form
    assert closed == pytest.approx(alone.discounted(groups, rate, month=4.35), rel=0.005)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_value_without_an_end_needs_a_discount(rate):
    with pytest.raises(InvalidInput, match="discount"):
        MIXED.discounted(GROUPS, rate, month=4.35)


def test_weights_are_brought_to_one_and_parts_without_weight_left_out():
    mixture = Mixture((("nbd", PARAMETERS["nbd"], 0.0), ("bg-nbd", PARAMETERS["bg-nbd"], 5.0)))
    assert [("bg-nbd", 1.0)] == [(name, weight) for name, _, weight in mixture.parts]


def test_a_mixture_survives_json():
    again = Mixture.from_dict(json.loads(json.dumps(MIXED.as_dict())))
    assert MIXED.expected(39.0, GROUPS).tolist() == again.expected(39.0, GROUPS).tolist()


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (("nbd", [0.4, 12.0], 0.0),),
        (("nbd", [0.4, 12.0], -1.0),),
        (("nbd", [0.4, 12.0], float("nan")),),
        (("nbd", [0.4], 1.0),),
        (("nbd", [0.4, -1.0], 1.0),),
        (("nbd", [0.4, float("inf")], 1.0),),
        (("oracle", [1.0], 1.0),),
    ],
)
def test_what_is_no_mixture_is_refused(parts):
    with pytest.raises(InvalidInput):
        Mixture(parts)


@pytest.mark.parametrize(
    "data", [{}, {"parts": None}, {"parts": [{"model": "nbd", "parameters": {"r": 1.0}, "weight": 1}]}, {"parts": [3]}]
)
def test_a_dictionary_that_is_no_mixture_is_refused(data):
    with pytest.raises(InvalidInput):
        Mixture.from_dict(data)
