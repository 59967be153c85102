"""The bytes on the wire are what the generated code would have written, and what cannot be is refused."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.value import wire
from kiki.value.history import History
from kiki.value.pb import value_pb2 as pb
from kiki.value.score_table import WIDTH

QUANTITY = ("mean", "median", "lower_80", "upper_80", "lower_90", "upper_90", "lower_95", "upper_95")
SHARED = {"horizon": 26.0, "unit": "week", "model_version": "m-1", "currency": "EUR", "coverage_claimed": True}
numbers = st.lists(st.floats(0, 1e9), min_size=WIDTH, max_size=WIDTH)


def shared() -> bytes:
    return wire.shared_bytes(**SHARED)


@given(row=numbers)
def test_one_answer_says_every_number_under_its_name(row):
    data = wire.response_bytes(row, pb.SOURCE_SCORED, shared(), as_of="2026-03-31", reasons=["because"])
    answer = pb.PredictResponse.FromString(data)
    assert row[:8] == [getattr(answer.purchases, name) for name in QUANTITY]
    assert row[8:16] == [getattr(answer.revenue, name) for name in QUANTITY]
    assert row[16:] == [
        answer.probability_alive,
        answer.probability_no_purchase,
        answer.expected_order_amount,
        answer.discounted_value,
    ]
    assert {name: getattr(answer, name) for name in SHARED} == SHARED
    assert (pb.SOURCE_SCORED, "2026-03-31", ["because"]) == (answer.source, answer.as_of, list(answer.reasons))


def test_a_value_that_the_model_does_not_give_is_absent():
    row = [1.0] * (WIDTH - 1) + [float("nan")]
    assert not pb.PredictResponse.FromString(wire.response_bytes(row, 1, b"")).HasField("discounted_value")


@given(rows=st.lists(numbers, min_size=1, max_size=40), means_only=st.booleans(), discounted=st.booleans())
def test_a_batch_is_the_same_bytes_as_the_generated_code_writes(rows, means_only, discounted):
    scores = np.array(rows)
    sources = np.arange(len(rows)) % 4 + 1
    names = QUANTITY[:1] if means_only else QUANTITY
    expected = pb.PredictBatchResponse(
        purchases=pb.Quantities(**{name: scores[:, place] for place, name in enumerate(names)}),
        revenue=pb.Quantities(**{name: scores[:, 8 + place] for place, name in enumerate(names)}),
        probability_alive=scores[:, 16],
        probability_no_purchase=scores[:, 17],
        expected_order_amount=scores[:, 18],
        discounted_value=scores[:, 19] if discounted else [],
        source=sources.tolist(),
        as_of="2026-03-31",
        **SHARED,
    )
    data = wire.batch_bytes(scores, sources, shared(), as_of="2026-03-31", means_only=means_only, discounted=discounted)
    assert expected == pb.PredictBatchResponse.FromString(data)
    assert len(expected.SerializeToString()) == len(data)


@given(data=st.binary(max_size=60))
def test_bytes_are_a_message_or_refused(data):
    try:
        assert isinstance(wire.read(pb.PredictRequest, data), pb.PredictRequest)
    except InvalidInput as error:
        assert "no kiki.value.v1.PredictRequest" in str(error)  # noqa: PT017


class TestHistories:
    def test_a_summary_is_turned_into_the_models_unit(self):
        summary = pb.Summary(frequency=3, recency_days=14, age_days=28, mean_order_micros=12_500_000)
        assert History(3, 2.0, 4.0, 12.5) == wire.history_of(summary, "week")
        assert History(3, 14.0, 28.0, 12.5) == wire.history_of(summary, "day")

    def test_an_amount_that_is_not_told_is_unknown_and_a_free_one_is_free(self):
        assert wire.history_of(pb.Summary(age_days=7), "week").amount is None
        assert wire.history_of(pb.Summary(age_days=7, mean_order_micros=0), "week").amount == 0.0

    @pytest.mark.parametrize(
        ("summary", "said"),
        [
            (pb.Summary(frequency=2, recency_days=30, age_days=20), "the recency is larger than the age"),
            (pb.Summary(frequency=-1, age_days=20), "0 or more"),
            (pb.Summary(frequency=0, recency_days=3, age_days=20), "without a repeat purchase"),
            (pb.Summary(frequency=0, age_days=-20), "0 or more"),
            (pb.Summary(frequency=0, age_days=20, mean_order_micros=-1), "mean_order_micros is below 0"),
        ],
    )
    def test_a_summary_that_cannot_be_is_refused(self, summary, said):
        with pytest.raises(InvalidInput, match=said):
            wire.history_of(summary, "week")

    def test_orders_are_days_and_amounts(self):
        history = pb.History(orders=[pb.Order(date="2026-03-31", amount_micros=-1_500_000)])
        assert [(date(2026, 3, 31), -1.5)] == wire.orders_of(history)

    @pytest.mark.parametrize(
        "text", ["", "2026-02-30", "20260331", "2026-W14-2", "31.3.2026", "2026-03-31T00:00", "x" * 999]
    )
    def test_a_day_that_is_none_is_refused(self, text):
        with pytest.raises(InvalidInput, match="expected a day, for example 2026-03-31"):
            wire.day_of_text(text, "as_of")

    def test_a_history_without_an_end_is_refused(self):
        with pytest.raises(InvalidInput, match="at most 10,000 orders, this one 10,001"):
            wire.orders_of(pb.History(orders=[pb.Order()] * 10_001))


@pytest.mark.parametrize(("customer_id", "said"), [("", "empty"), ("x" * 1025, "1,025 characters")])
def test_an_id_that_nobody_has_is_refused(customer_id, said):
    with pytest.raises(InvalidInput, match=said):
        wire.checked_id(customer_id)
