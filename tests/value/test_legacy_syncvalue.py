"""The second contract with its four methods: statuses instead of errors, measured numbers instead of constants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import numpy as np
import pytest

from kiki.value import legacy_syncvalue
from kiki.value.measured_coverage import MeasuredCoverage
from kiki.value.pb import syncvalue_pb2 as pb
from tests.value.served_value import FIRST_DAY, LAST_DAY, fitted, purchases, running, served_model, write_log

SERVICE = "/syncvalue.v1.SyncValueService/"
NOON = datetime(LAST_DAY.year, LAST_DAY.month, LAST_DAY.day, 12, tzinfo=UTC)
NOW = round(NOON.timestamp() * 1000)


def milliseconds(day) -> int:
    return round(datetime(day.year, day.month, day.day, 8, tzinfo=UTC).timestamp() * 1000)


def event(day=FIRST_DAY, value=10.0, kind="purchase") -> pb.CustomerEvent:
    return pb.CustomerEvent(timestamp_ms=milliseconds(day), event_type=kind, event_value=value)


def predict(served=None, **request) -> pb.LTVPredictionResponse:
    asked = pb.LTVPredictionRequest(**{"request_id": "r1", "customer_id": "nobody", "timestamp_ms": NOW} | request)
    return legacy_syncvalue.predict(served or served_model(), asked, NOW)


class TestOne:
    def test_a_known_customer_gets_value_and_interval(self):
        known = purchases()
        row = fitted().predict(known).row(3)
        answer = predict(customer_id=str(known.ids[3]))
        assert (row.revenue.mean, row.revenue.lower[95], row.revenue.upper[95]) == (
            answer.predicted_ltv,
            answer.ltv_lower_bound,
            answer.ltv_upper_bound,
        )
        assert (pb.SUCCESS, "r1", NOW, fitted().model_version, "") == (
            answer.status, answer.request_id, answer.timestamp_ms, answer.model_version, answer.error_message,
        )  # fmt: skip
        assert answer.inference_time_us > 0

    def test_features_are_named_with_what_they_are_and_shares_that_add_up(self):
        known = purchases()
        row = fitted().predict(known).row(3)
        features = {each.name: each for each in predict(customer_id=str(known.ids[3])).top_features}
        assert row.purchases.mean == features["expected_purchases"].value
        assert row.order_amount == features["expected_order_amount"].value
        assert pytest.approx(1) == sum(each.importance for each in features.values())

    def test_somebody_unknown_gets_a_new_customers_value_as_a_fallback(self):
        answer = predict()
        assert (pb.FALLBACK, fitted().new_customer().revenue.mean[0]) == (answer.status, answer.predicted_ltv)
        assert "unknown" in answer.error_message
        assert 0.0 == answer.confidence

    def test_or_no_value_where_the_service_is_told_so(self):
        answer = predict(served_model(answer_unknown=False))
        assert (pb.INSUFFICIENT_DATA, 0.0) == (answer.status, answer.predicted_ltv)

    def test_events_of_somebody_unknown_are_the_history(self, tmp_path):
        """The same orders by id and as events give the same."""
        known = purchases()
        place = int(np.argmax(known.x))
        name = str(known.ids[place])
        lines = [
            line.split(",") for line in write_log(tmp_path).read_text().splitlines() if line.startswith(f"{name},")
        ]
        events = [event(datetime.fromisoformat(day).date(), float(amount), "Purchase") for _, day, amount in lines]
        answer = predict(event_history=[*events, event(kind="page_view", value=-3)])
        assert (pb.SUCCESS, predict(customer_id=name).predicted_ltv) == (answer.status, answer.predicted_ltv)

    def test_a_refund_takes_its_order_away(self):
        day = LAST_DAY - timedelta(days=20)
        events = [event(), event(day), event(day, kind="refund")]
        assert predict(event_history=events[:1]).predicted_ltv == predict(event_history=events).predicted_ltv

    def test_confidence_is_what_was_measured_for_such_customers(self):
        served = served_model()
        served.coverage = MeasuredCoverage(
            claimed=True, reason="", overall={("revenue", 95): 0.94}, revenue_95=((0, 0.96), (1, 0.9))
        )
        two = [event(), event(FIRST_DAY + timedelta(days=9))]
        assert [0.96, 0.9] == [predict(served, event_history=events).confidence for events in (two[:1], two)]

    @pytest.mark.parametrize(
        ("request_", "said"),
        [
            ({"customer_id": ""}, "customer_id is empty"),
            ({"current_cac": -1}, "current_cac is -1"),
            ({"current_cac": float("nan")}, "current_cac is nan"),
            ({"event_history": [event(value=-5)]}, "event 0: event_value is -5"),
            ({"event_history": [event(), event(value=float("nan"))]}, "event 1: event_value is nan"),
            ({"event_history": [event(LAST_DAY + timedelta(days=9))]}, "not in the future"),
            ({"event_history": [pb.CustomerEvent(event_type="purchase")]}, "timestamp_ms is 0"),
            ({"event_history": [event()], "timestamp_ms": 2**62}, "no moment that a calendar has"),
            ({"event_history": [event()], "timestamp_ms": milliseconds(FIRST_DAY) - 10**9}, "nobody bought"),
            ({"event_history": [event(kind="refund")]}, "nobody bought|no order"),
            ({"event_history": [event()] * 10_001}, "at most 10,000 events"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_is_invalid_input(self, request_, said):
        answer = predict(**request_)
        assert pb.INVALID_INPUT == answer.status
        assert pytest.approx(0) == answer.predicted_ltv
        assert any(words in answer.error_message for words in said.split("|")), answer.error_message


class TestBatch:
    def batch(self, requests, left=lambda: None, served=None):
        return legacy_syncvalue.predict_batch(
            served or served_model(), pb.LTVBatchRequest(requests=requests), NOW, left
        )

    def test_each_request_has_an_answer_in_order(self):
        ids = ["c1", "nobody", "", "c2"]
        answer = self.batch([pb.LTVPredictionRequest(request_id=f"r-{each}", customer_id=each) for each in ids])
        assert [f"r-{each}" for each in ids] == [each.request_id for each in answer.responses]
        assert [pb.SUCCESS, pb.FALLBACK, pb.INVALID_INPUT, pb.SUCCESS] == [each.status for each in answer.responses]
        assert (4, 3, 1) == (answer.total_processed, answer.successful, answer.failed)

    def test_histories_together_get_what_each_alone_would(self):
        """Whatever is wrong with one of them, and whatever day each is of."""
        days = [FIRST_DAY + timedelta(days=11 * n) for n in range(9)]
        histories = [
            *([event(day, 5 + n) for day in days[: n % 9 + 1]] for n in range(30)),
            [event(), event(kind="refund")],
            [event(value=4e9)] * 3000,
            [event(value=-1)],
        ]
        requests = [
            pb.LTVPredictionRequest(
                request_id=str(n), customer_id="x", timestamp_ms=NOW - n % 2 * 10**9, event_history=events
            )
            for n, events in enumerate(histories)
        ]
        served = served_model()
        alone = [legacy_syncvalue.predict(served, request, NOW) for request in requests]
        together = list(self.batch(requests, served=served).responses)
        for each in (*alone, *together):
            each.inference_time_us = 0
        assert alone == together
        assert [pb.INVALID_INPUT] * 3 == [each.status for each in together[-3:]]
        assert {pb.SUCCESS} == {each.status for each in together[:-3]}

    def test_what_the_deadline_leaves_no_time_for_is_said_so(self):
        left = iter([1.0, 0.001])
        histories = [pb.LTVPredictionRequest(customer_id="x", event_history=[event()])] * 300
        answer = self.batch([pb.LTVPredictionRequest(customer_id="c1"), *histories], lambda: next(left))
        assert [pb.SUCCESS] * 251 + [pb.TIMEOUT] * 50 == [each.status for each in answer.responses]
        assert (251, 50) == (answer.successful, answer.failed)


class TestOnTheWire:
    async def test_one_a_stream_and_a_batch(self, tmp_path):
        requests = [pb.LTVPredictionRequest(request_id=str(n), customer_id=f"c{n}") for n in range(5)]
        async with running(tmp_path) as service:
            one = await service.ask(f"{SERVICE}PredictLTV", requests[1], pb.LTVPredictionResponse)
            call = service.channel.stream_stream(f"{SERVICE}PredictLTVStream")(r.SerializeToString() for r in requests)
            streamed = [pb.LTVPredictionResponse.FromString(data) async for data in call]
            batch = await service.ask(
                f"{SERVICE}PredictLTVBatch", pb.LTVBatchRequest(requests=requests), pb.LTVBatchResponse
            )
        assert [str(n) for n in range(5)] == [each.request_id for each in streamed]
        assert one.predicted_ltv == streamed[1].predicted_ltv == batch.responses[1].predicted_ltv

    async def test_a_history_is_answered_too(self, tmp_path):
        request = pb.LTVPredictionRequest(customer_id="x", event_history=[event()])
        async with running(tmp_path) as service:
            answer = await service.ask(f"{SERVICE}PredictLTV", request, pb.LTVPredictionResponse)
        assert pb.SUCCESS == answer.status

    async def test_too_large_a_batch_is_refused_with_the_limit(self, tmp_path):
        batch = pb.LTVBatchRequest(requests=[pb.LTVPredictionRequest(customer_id="c")] * 10_001)
        async with running(tmp_path) as service:
            code, words = await service.refused(f"{SERVICE}PredictLTVBatch", batch)
        assert grpc.StatusCode.INVALID_ARGUMENT is code
        assert "a batch has 1 to 10,000 requests, this one 10,001" in words

    async def test_health_says_what_was_measured_and_no_accuracy_that_was_not(self, tmp_path):
        async with running(tmp_path) as service:
            for _ in range(3):
                await service.ask(
                    f"{SERVICE}PredictLTV", pb.LTVPredictionRequest(customer_id="c1"), pb.LTVPredictionResponse
                )
            health = await service.ask(
                f"{SERVICE}GetModelHealth", pb.HealthRequest(include_metrics=True), pb.HealthResponse
            )
            short = await service.ask(f"{SERVICE}GetModelHealth", b"", pb.HealthResponse)
        assert (True, fitted().model_version) == (health.is_healthy, health.model_version)
        assert (0.0, 0.0) == (health.current_accuracy, health.target_accuracy)
        assert 3 == health.predictions_today
        assert 0 < health.avg_latency_ms <= health.p99_latency_ms
        assert health.memory_usage_mb > 10
        assert health.cpu_usage_percent > 0
        assert (0, 0.0) == (short.predictions_today, short.avg_latency_ms)
