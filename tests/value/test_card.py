from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from kiki.errors import InvalidInput
from kiki.value.card import HonestyCard, OriginScore, PartScore, histogram, strata
from kiki.value.evaluation import Metrics, Pit

METRICS = Metrics(0.7, 1.6, 1.5, -11.5, None, 0.46, {80: 0.79, 90: 0.89, 95: 0.94})
SCORE = OriginScore(
    end=date(2024, 8, 1),
    until=date(2024, 10, 1),
    customers=1234,
    purchases=567,
    metrics={"purchases": METRICS, "revenue": METRICS},
    raw_coverage={kind: {80: 0.75, 90: 0.86, 95: 0.92} for kind in ("purchases", "revenue")},
    by_stratum={kind: {"0": {80: 0.8, 90: 0.9, 95: 0.95}} for kind in ("purchases", "revenue")},
    pit=dict.fromkeys(("purchases", "revenue"), (0.1,) * 10),
)
CARD = HonestyCard(
    first_day=date(2024, 1, 1),
    calibration_end=date(2024, 10, 1),
    unit="week",
    horizon=39.0,
    customers=100_000,
    sampled_customers=50_000,
    fingerprint="ab" * 32,
    parts=(PartScore("pareto-nbd", 1.0, 1e-9, converged=True, at_boundary=("s",)),),
    shape_weight=0.5,
    level_spread=0.1,
    origins=(SCORE,),
    refusal=None,
    notes=("s: the data do not tell",),
)


@pytest.mark.parametrize("card", [CARD, replace(CARD, origins=(), refusal="too short", level_spread=None)])
def test_it_comes_back_from_json(card):
    assert card == HonestyCard.from_dict(json.loads(json.dumps(card.as_dict(), allow_nan=False)))


def test_calibration_is_claimed_where_nothing_speaks_against_it():
    assert CARD.coverage_claimed
    assert 0.79 == CARD.coverage["revenue"][80]
    refused = replace(CARD, refusal="the origins disagree")
    assert not refused.coverage_claimed
    assert refused.as_dict()["coverage_claimed"] is False


def test_in_words_it_says_what_was_held_and_what_is_not_claimed():
    said = "\n".join(replace(CARD, refusal="the origins disagree").sentences())
    assert "not claimed: the origins disagree" in said
    assert "revenue from 2024-08-01 to 2024-10-01, 1,234 customers: intervals held 79 % at 80 %" in said
    assert "off by -12 %" in said
    assert "a sample of 50,000 of 100,000 customers" in said
    assert "the data do not tell" in said


def test_without_an_origin_nothing_was_measured():
    assert replace(CARD, origins=()).coverage is None


@pytest.mark.parametrize(
    "change", [{"origins": [{}]}, {"parts": [{"model": "x"}]}, {"first_day": "soon"}, {"notes": None}]
)
def test_what_is_no_card_is_refused(change):
    with pytest.raises(InvalidInput, match="no honesty card"):
        HonestyCard.from_dict(CARD.as_dict() | change)


def test_the_histogram_of_a_true_distribution_is_flat_and_sums_to_one():
    even = (np.arange(1000) + 0.5) / 1000
    assert [0.1] * 10 == pytest.approx(histogram(Pit(even, even)), abs=1e-3)
    assert 1 == pytest.approx(sum(histogram(Pit(np.zeros(5), np.full(5, 0.3)))))


def test_strata_without_a_customer_are_left_out():
    covered = {level: np.array([1.0, 0.0, 1.0]) for level in (80, 90, 95)}
    found = strata(covered, np.array([0, 0, 3]))
    assert {"0": {80: 0.5, 90: 0.5, 95: 0.5}, "6+": {80: 1.0, 90: 1.0, 95: 1.0}} == found
