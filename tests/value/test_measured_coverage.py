"""What is told about intervals is what the model's card says, and nothing where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kiki.value.measured_coverage import MeasuredCoverage
from kiki.value.pb import value_pb2 as pb
from kiki.value.served_model import ServedModel
from tests.value.served_value import fitted, purchases


def card(**changes):
    return replace(fitted("auto").card, **changes)


def claiming(model):
    return replace(model, card=replace(model.card, refusal=None))


def test_a_model_without_a_card_claims_and_tells_nothing():
    found = MeasuredCoverage.of(None)
    assert (False, {}, 0.0, None) == (found.claimed, found.overall, found.of_customer(3), found.total_accuracy)
    assert "--model auto" in found.reason


def test_it_is_what_was_measured_on_the_last_origin():
    last = card().origins[-1]
    found = MeasuredCoverage.of(card())
    assert last.metrics["purchases"].coverage[80] == found.overall["purchases", 80]
    assert last.metrics["revenue"].coverage[95] == found.overall["revenue", 95]
    assert pytest.approx(1 - abs(last.metrics["revenue"].bias_percent) / 100) == found.total_accuracy


@pytest.mark.parametrize(("x", "stratum"), [(0, "0"), (1, "1"), (2, "2-5"), (5, "2-5"), (6, "6+"), (400, "6+")])
def test_a_customers_is_that_of_the_stratum(x, stratum):
    assert card().origins[-1].by_stratum["revenue"][stratum][95] == MeasuredCoverage.of(card()).of_customer(x)


def test_a_refusal_is_passed_on_with_its_reason_and_a_claim_without():
    refused, claimed = MeasuredCoverage.of(card(refusal="no")), MeasuredCoverage.of(card(refusal=None))
    assert (False, "no", True, "") == (refused.claimed, refused.reason, claimed.claimed, claimed.reason)


def test_a_card_without_an_origin_has_nothing_measured():
    found = MeasuredCoverage.of(card(origins=(), refusal="too short"))
    assert (False, "too short", {}, 0.0) == (found.claimed, found.reason, found.overall, found.of_customer(0))


class TestWhatIsClaimed:
    """Measured were customers with a history, for the model's own horizon."""

    def claimed(self, **request) -> bool:
        served = ServedModel(claiming(fitted("auto")), purchases())
        return pb.PredictResponse.FromString(served.predict(pb.PredictRequest(**request))).coverage_claimed

    @pytest.mark.parametrize(
        ("request_", "expected"),
        [
            ({"customer_id": "c1"}, True),
            ({"history": pb.History(summary=pb.Summary(age_days=70))}, True),
            ({"customer_id": "c1", "horizon": 4.0}, False),
            ({"customer_id": "nobody"}, False),
            ({"new_customer": pb.NewCustomer()}, False),
            ({"new_customer": pb.NewCustomer(cohort="2025-03"), "horizon": 4.0}, False),
        ],
    )
    def test_only_what_was_measured(self, request_, expected):
        assert expected is self.claimed(**request_)

    def test_the_model_says_what_and_why_not(self):
        info = ServedModel(fitted("auto"), purchases()).info()
        assert {("purchases", 0.8), ("revenue", 0.95)} <= {(each.of, each.nominal) for each in info.coverage}
        assert (False, True) == (info.coverage_claimed, bool(info.coverage_reason))
