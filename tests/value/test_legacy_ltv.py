"""The first contract, as its clients speak it: either wire type, true answers, never a constant, never below zero."""

from __future__ import annotations

import contextlib
import json
import struct
from datetime import date, timedelta
from functools import cache

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput, NotFound
from kiki.value import legacy_ltv
from kiki.value.legacy_ltv import Asked
from kiki.value.measured_coverage import MeasuredCoverage
from kiki.value.pb import ltv_pb2
from tests.value.served_value import LAST_DAY, fitted, purchases, running, served_model

PATH = "/ltv.LTVService/PredictLTV"
KEYS = {
    *("base_spend_value", "engagement_score", "spend_contribution", "engagement_contribution"),
    *("recency_contribution", "confidence_factors", "source", "horizon", "model_version", "coverage_claimed"),
}


def compiled_with_float():
    """The messages as the original's server had them: spend and score are float."""
    file = descriptor_pb2.FileDescriptorProto(name="ltv_float.proto", package="ltv_float", syntax="proto3")
    message = file.message_type.add(name="LTVRequest")
    kinds = descriptor_pb2.FieldDescriptorProto
    for number, (name, kind) in enumerate(
        [
            ("customer_id", kinds.TYPE_STRING),
            ("recent_spend", kinds.TYPE_FLOAT),
            ("engagement_score", kinds.TYPE_FLOAT),
        ],
        1,
    ):
        message.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("ltv_float.LTVRequest"))


FLOAT = compiled_with_float()
KINDS = {"double": ltv_pb2.LTVRequest, "float": FLOAT}
amounts = st.floats(0, 1e6, width=32)


@cache
def shop():
    """One for all the examples of a property."""
    return served_model()


class TestRequests:
    @given(spend=amounts, score=st.floats(0, 10, width=32), kind=st.sampled_from(sorted(KINDS)))
    def test_either_wire_type_says_the_same(self, spend, score, kind):
        found = legacy_ltv.read_request(
            KINDS[kind](customer_id="c1", recent_spend=spend, engagement_score=score).SerializeToString()
        )
        assert "c1" == found.customer_id
        assert pytest.approx(spend, rel=1e-6) == found.recent_spend
        assert pytest.approx(score, rel=1e-6) == found.engagement_score

    def test_the_types_may_be_mixed(self):
        data = b"\x0a\x02c1" + b"\x15" + struct.pack("<f", 12.34) + b"\x19" + struct.pack("<d", 0.5)
        assert Asked("c1", 12.34, 0.5) == legacy_ltv.read_request(data)

    def test_other_fields_are_left_alone(self):
        data = b"\x0a\x02c1" + b"\x25" + struct.pack("<f", 9.0) + b"\x2a\x03abc"
        assert Asked("c1", 0.0, 0.0) == legacy_ltv.read_request(data)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("spend", "score", "said"),
        [
            (-0.01, 0, "recent_spend is -0.01"),
            (float("nan"), 0, "recent_spend is nan"),
            (float("inf"), 0, "recent_spend is inf"),
            (1e12, 0, "recent_spend is 1e"),
            (1, -1, "engagement_score is -1"),
            (1, float("nan"), "engagement_score is nan"),
        ],
    )
    def test_what_no_customer_has_is_refused(self, kind, spend, score, said):
        data = KINDS[kind](customer_id="c1", recent_spend=spend, engagement_score=score).SerializeToString()
        with pytest.raises(InvalidInput, match=said):
            legacy_ltv.read_request(data)

    def test_a_score_above_1_is_answered(self):
        assert (
            legacy_ltv.read_request(FLOAT(customer_id="c1", engagement_score=7).SerializeToString()).engagement_score
            == 7
        )

    @given(data=st.binary(max_size=40))
    def test_any_bytes_are_a_request_or_refused(self, data):
        with contextlib.suppress(InvalidInput):
            assert legacy_ltv.read_request(data).recent_spend >= 0


class TestAnswers:
    def ask(self, served, customer_id="nobody", spend=0.0, score=0.0, today=LAST_DAY):
        data = legacy_ltv.answer(served, Asked(customer_id, spend, score), today)
        response = ltv_pb2.LTVResponse.FromString(data)
        return response, json.loads(response.explanation)

    def test_a_known_customer_gets_the_expected_revenue_whatever_the_request_says(self):
        served, known = served_model(), purchases()
        expected = fitted().predict(known).revenue.mean
        for place in (0, 5, 17):
            for spend, score in ((0, 0), (500, 3)):
                response, explanation = self.ask(served, str(known.ids[place]), spend, score)
                assert expected[place] == response.predicted_ltv
                assert ("scored", score) == (explanation["source"], explanation["engagement_score"])

    def test_base_and_contributions_add_up_to_the_prediction(self):
        served = served_model()
        for customer_id, spend in (*((str(each), 0) for each in purchases().ids[:40]), ("nobody", 0), ("nobody", 80)):
            response, parts = self.ask(served, customer_id, spend, 0.7)
            total = sum(
                parts[name]
                for name in (
                    "base_spend_value",
                    "spend_contribution",
                    "engagement_contribution",
                    "recency_contribution",
                )
            )
            assert pytest.approx(response.predicted_ltv, abs=1e-5) == total
            assert set(parts) == KEYS
            assert 0.0 == parts["engagement_contribution"]

    def test_somebody_unknown_gets_what_is_expected_of_a_new_customer(self):
        served = served_model()
        response, explanation = self.ask(served)
        assert fitted().new_customer().revenue.mean[0] == response.predicted_ltv
        assert ("unknown_customer", 0.0) == (explanation["source"], response.confidence_score)

    def test_the_spend_of_somebody_unknown_counts_as_a_first_order(self):
        response, explanation = self.ask(served_model(), spend=80.0)
        assert "new_customer" == explanation["source"]
        assert response.predicted_ltv > 0

    def test_somebody_unknown_is_not_found_where_the_service_is_told_so(self):
        with pytest.raises(NotFound):
            self.ask(served_model(answer_unknown=False), spend=5)

    @given(spend=st.floats(0, 1e6), customer=st.sampled_from(["nobody", "c1", "late"]))
    def test_a_value_is_never_below_zero(self, spend, customer):
        response, _ = self.ask(shop(), customer, spend)
        assert response.predicted_ltv >= 0
        assert 0 <= response.confidence_score <= 1

    def test_confidence_is_what_was_measured_for_such_customers_and_nothing_else(self):
        served, known = served_model(), purchases()
        one, many = str(known.ids[int(np.argmin(known.x))]), str(known.ids[int(np.argmax(known.x))])
        assert 0.0 == self.ask(served, one)[0].confidence_score
        served.coverage = MeasuredCoverage(
            claimed=True,
            reason="",
            overall={("revenue", 95): 0.94},
            revenue_95=((0, 0.96), (1, 0.95), (2, 0.93), (6, 0.91)),
            total_accuracy=0.88,
        )
        assert 0.96 == self.ask(served, one)[0].confidence_score
        response, explanation = self.ask(served, many)
        assert 0.91 == response.confidence_score
        assert {"data_freshness": 1.0, "model_calibration": 0.94, "historical_accuracy": 0.88} == explanation[
            "confidence_factors"
        ]

    @pytest.mark.parametrize(("days", "expected"), [(-5, 1.0), (0, 1.0), (91, 0.5), (182, 0.0), (1000, 0.0)])
    def test_freshness_is_the_part_of_the_horizon_that_is_still_to_come(self, days, expected):
        _, explanation = self.ask(served_model(), today=LAST_DAY + timedelta(days=days))
        assert expected == explanation["confidence_factors"]["data_freshness"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_of_either_type_gets_the_same_true_answer(tmp_path, kind):
    request = KINDS[kind](customer_id="c1", recent_spend=12.5, engagement_score=0.5)
    async with running(tmp_path) as service:
        answer = await service.ask(PATH, request, ltv_pb2.LTVResponse)
    assert fitted().predict(purchases()).revenue.mean[list(purchases().ids).index("c1")] == answer.predicted_ltv
    assert 0.5 == json.loads(answer.explanation)["engagement_score"]


async def test_somebody_new_is_predicted_from_the_spend_and_a_negative_one_is_refused(tmp_path):
    async with running(tmp_path) as service:
        answer = await service.ask(PATH, ltv_pb2.LTVRequest(customer_id="new", recent_spend=80), ltv_pb2.LTVResponse)
        code, words = await service.refused(PATH, FLOAT(customer_id="new", recent_spend=-80))
    assert answer.predicted_ltv > 0
    assert (grpc.StatusCode.INVALID_ARGUMENT, True) == (code, "recent_spend is -80" in words)


def test_the_day_of_an_answer_is_only_an_argument():
    """No clock inside: the same request on the same day is the same answer."""
    served, asked = served_model(), Asked("c1", 1.0, 1.0)
    assert legacy_ltv.answer(served, asked, date(2026, 1, 1)) == legacy_ltv.answer(served, asked, date(2026, 1, 1))
