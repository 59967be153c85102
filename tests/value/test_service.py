"""SyncValue's own contract on a real port: what it answers, what it refuses, and how its model is replaced."""

from __future__ import annotations

import asyncio
import itertools
import json
from datetime import timedelta

import grpc
import numpy as np
import pytest
from aiohttp import ClientSession
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from kiki.errors import ConfigurationError
from kiki.value.pb import value_pb2 as pb
from tests.value.served_value import LAST_DAY, TOKENS, fitted, purchases, running, write_log

PREDICT = "/kiki.value.v1.ValueService/Predict"
BATCH = "/kiki.value.v1.ValueService/PredictBatch"
STREAM = "/kiki.value.v1.ValueService/PredictStream"
INFO = "/kiki.value.v1.ValueService/ModelInfo"
HEALTH = "/grpc.health.v1.Health/Check"


async def predicted(service, **request) -> pb.PredictResponse:
    return await service.ask(PREDICT, pb.PredictRequest(**request), pb.PredictResponse)


async def get(url: str):
    async with ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


class TestPredict:
    async def test_a_known_customer_gets_what_the_model_says(self, tmp_path):
        known, model = purchases(), fitted()
        expected = model.predict(known).row(4)
        async with running(tmp_path) as service:
            answer = await predicted(service, customer_id=str(known.ids[4]))
        assert expected.revenue.mean == answer.revenue.mean
        assert (expected.purchases.lower[90], expected.purchases.upper[90]) == (
            answer.purchases.lower_90,
            answer.purchases.upper_90,
        )
        assert (expected.alive, expected.no_purchase) == (answer.probability_alive, answer.probability_no_purchase)
        assert (pb.SOURCE_SCORED, 26.0, "week", LAST_DAY.isoformat(), model.model_version) == (
            answer.source, answer.horizon, answer.unit, answer.as_of, answer.model_version,
        )  # fmt: skip
        assert not answer.HasField("discounted_value")
        assert not answer.coverage_claimed

    async def test_a_known_customer_is_predicted_for_another_horizon_with_reasons(self, tmp_path):
        known = purchases()
        expected = fitted().predict(known.take(np.array([4])), 4.0).row(0)
        async with running(tmp_path) as service:
            answer = await predicted(service, customer_id=str(known.ids[4]), horizon=4.0, reasons=True)
        assert (expected.revenue.mean, 4.0) == (answer.revenue.mean, answer.horizon)
        assert answer.reasons

    async def test_an_unknown_id_gets_a_new_customers_value_and_is_told_so(self, tmp_path):
        async with running(tmp_path) as service:
            unknown = await predicted(service, customer_id="nobody")
            new = await predicted(service, new_customer=pb.NewCustomer())
        assert (pb.SOURCE_UNKNOWN_CUSTOMER, pb.SOURCE_NEW_CUSTOMER) == (unknown.source, new.source)
        assert fitted().new_customer().row(0).revenue.mean == unknown.revenue.mean == new.revenue.mean
        assert not unknown.as_of

    async def test_an_unknown_id_is_not_found_where_the_service_is_told_so(self, tmp_path):
        async with running(tmp_path, KIKI_VALUE_UNKNOWN="not-found") as service:
            code, words = await service.refused(PREDICT, pb.PredictRequest(customer_id="nobody"))
            batch = await service.ask(
                BATCH, pb.PredictBatchRequest(customer_ids=["nobody", "late"]), pb.PredictBatchResponse
            )
        assert grpc.StatusCode.NOT_FOUND is code
        assert "nobody" not in words
        assert [pb.SOURCE_NOT_FOUND, pb.SOURCE_SCORED] == list(batch.source)
        assert np.isnan(batch.revenue.mean[0])
        assert not np.isnan(batch.revenue.mean[1])

    async def test_a_summary_gets_the_same_as_the_customer_whose_summary_it_is(self, tmp_path):
        known = purchases()
        place = int(np.argmax(known.x))
        summary = pb.Summary(
            frequency=int(known.x[place]), recency_days=int(known.tx[place]), age_days=int(known.T[place])
        )
        async with running(tmp_path) as service:
            own = await predicted(service, customer_id=str(known.ids[place]))
            answer = await predicted(service, history=pb.History(summary=summary))
        assert (own.purchases, own.probability_alive) == (answer.purchases, answer.probability_alive)
        assert (pb.SOURCE_HISTORY, "") == (answer.source, answer.as_of)

    async def test_orders_get_the_same_as_the_customer_whose_orders_they_are(self, tmp_path):
        log = write_log(tmp_path).read_text().splitlines()
        name = str(purchases().ids[int(np.argmax(purchases().x))])
        mine = [line.split(",") for line in log if line.startswith(f"{name},")]
        orders = [pb.Order(date=day, amount_micros=round(float(amount) * 1e6)) for _, day, amount in mine]
        history = pb.History(orders=orders, as_of=LAST_DAY.isoformat())
        async with running(tmp_path) as service:
            own = await predicted(service, customer_id=name)
            answer = await predicted(service, history=history)
        assert own.revenue == answer.revenue
        assert LAST_DAY.isoformat() == answer.as_of

    @pytest.mark.parametrize(
        ("request_", "said"),
        [
            (pb.PredictRequest(), "name a customer"),
            (pb.PredictRequest(customer_id=""), "customer_id is empty"),
            (pb.PredictRequest(customer_id="x" * 2000), "2,000 characters"),
            (pb.PredictRequest(customer_id="a", horizon=0), "a horizon is above 0"),
            (pb.PredictRequest(customer_id="a", horizon=float("nan")), "a horizon is above 0"),
            (pb.PredictRequest(customer_id="a", horizon=1e9), "at most 522 weeks"),
            (pb.PredictRequest(history=pb.History()), "orders or a summary"),
            (
                pb.PredictRequest(history=pb.History(summary=pb.Summary(frequency=2, recency_days=30, age_days=20))),
                "the recency is larger than the age",
            ),
            (pb.PredictRequest(history=pb.History(orders=[pb.Order(date="2025-01-01")])), "as_of is ''"),
            (
                pb.PredictRequest(history=pb.History(orders=[pb.Order(date="2025-01-01")], as_of="2024-12-31")),
                "nobody bought on 2024-12-31 or before",
            ),
            (pb.PredictRequest(new_customer=pb.NewCustomer(cohort="next month")), "cohort"),
            (b"\xff\xff\xff", "no kiki.value.v1.PredictRequest"),
        ],
        ids=itertools.count(),
    )  # fmt: skip
    async def test_what_cannot_be_is_an_invalid_argument(self, tmp_path, request_, said):
        async with running(tmp_path) as service:
            code, words = await service.refused(PREDICT, request_)
        assert (grpc.StatusCode.INVALID_ARGUMENT, True) == (code, said in words), words


class TestBatches:
    async def test_a_batch_says_what_each_alone_would(self, tmp_path):
        ids = [*map(str, purchases().ids[:50]), "nobody"]
        async with running(tmp_path) as service:
            batch = await service.ask(BATCH, pb.PredictBatchRequest(customer_ids=ids), pb.PredictBatchResponse)
            alone = [await predicted(service, customer_id=each) for each in ids]
        assert [each.revenue.mean for each in alone] == list(batch.revenue.mean)
        assert [each.purchases.upper_95 for each in alone] == list(batch.purchases.upper_95)
        assert [each.source for each in alone] == list(batch.source)
        assert [] == list(batch.discounted_value)

    async def test_means_alone_are_less(self, tmp_path):
        ids = list(map(str, purchases().ids))
        async with running(tmp_path) as service:
            batch = await service.ask(
                BATCH, pb.PredictBatchRequest(customer_ids=ids, means_only=True), pb.PredictBatchResponse
            )
        assert (len(ids), 0, 0) == (len(batch.revenue.mean), len(batch.revenue.median), len(batch.purchases.upper_95))

    async def test_too_many_and_none_are_refused_with_the_limit(self, tmp_path):
        async with running(tmp_path, KIKI_VALUE_BATCH_MAX="10000") as service:
            for ids in (["c1"] * 100_000, []):
                code, words = await service.refused(BATCH, pb.PredictBatchRequest(customer_ids=ids))
                assert grpc.StatusCode.INVALID_ARGUMENT is code
                assert f"a batch has 1 to 10,000 customers, this one {len(ids):,}" in words
                assert "PredictStream takes any number" in words

    async def test_a_stream_answers_each_batch_in_order(self, tmp_path):
        batches = [["c1"], ["c2", "c3"], ["nobody"] * 500]
        async with running(tmp_path) as service:
            call = service.channel.stream_stream(STREAM)(
                pb.PredictBatchRequest(customer_ids=ids).SerializeToString() for ids in batches
            )
            sizes = [len(pb.PredictBatchResponse.FromString(data).revenue.mean) async for data in call]
        assert [1, 2, 500] == sizes

    async def test_a_stream_ends_at_what_cannot_be_answered(self, tmp_path):
        async with running(tmp_path) as service:
            call = service.channel.stream_stream(STREAM)(timeout=60)
            await call.write(pb.PredictBatchRequest(customer_ids=["c1"]).SerializeToString())
            assert pb.PredictBatchResponse.FromString(await call.read()).source
            await call.write(pb.PredictBatchRequest().SerializeToString())
            with pytest.raises(grpc.aio.AioRpcError, match="a batch has 1 to"):
                await call.read()


async def test_model_info_says_what_is_served(tmp_path):
    model = fitted()
    async with running(tmp_path) as service:
        info = await service.ask(INFO, b"", pb.ModelInfoResponse)
    assert (model.model_version, "mbg-nbd", "week", 26.0) == (info.model_version, info.model, info.unit, info.horizon)
    assert (model.fitted_on.fingerprint, len(purchases()), 10_000) == (
        info.data_fingerprint, info.customers, info.batch_max,
    )  # fmt: skip
    assert not info.coverage_claimed
    assert "without measuring" in info.coverage_reason
    assert json.loads(json.dumps(model.info())) == json.loads(info.details_json)


class TestTokens:
    @pytest.mark.parametrize(
        ("token", "expected"),
        [
            (None, grpc.StatusCode.UNAUTHENTICATED),
            ("wrong", grpc.StatusCode.UNAUTHENTICATED),
            ("spender-0123456789abcdef", grpc.StatusCode.PERMISSION_DENIED),
        ],
    )
    async def test_a_caller_without_the_role_is_refused_everywhere(self, tmp_path, token, expected):
        async with running(tmp_path, tokens=TOKENS) as service:
            for path in (
                PREDICT,
                BATCH,
                INFO,
                "/ltv.LTVService/PredictLTV",
                "/syncvalue.v1.SyncValueService/GetModelHealth",
            ):
                code, _ = await service.refused(path, b"", token=token)
                assert expected is code
            metadata = None if token is None else (("authorization", f"Bearer {token}"),)
            # Nothing is written: grpc.aio calls a write that the refusal overtakes an internal error of its own.
            assert expected is await service.channel.stream_stream(STREAM)(metadata=metadata, timeout=60).code()

    async def test_a_reader_is_answered_and_probes_need_no_token(self, tmp_path):
        request = pb.PredictRequest(customer_id="c1")
        async with running(tmp_path, tokens=TOKENS) as service:
            await service.ask(PREDICT, request, pb.PredictResponse, token="reader-0123456789abcdef")
            health = await service.ask(HEALTH, b"", health_pb2.HealthCheckResponse)
        assert health_pb2.HealthCheckResponse.SERVING == health.status


class TestStandardServices:
    @pytest.mark.parametrize(
        "name", ["", "kiki.value.v1.ValueService", "ltv.LTVService", "syncvalue.v1.SyncValueService"]
    )
    async def test_each_service_has_a_health(self, tmp_path, name):
        async with running(tmp_path) as service:
            request = health_pb2.HealthCheckRequest(service=name)
            answer = await service.ask(HEALTH, request, health_pb2.HealthCheckResponse)
        assert health_pb2.HealthCheckResponse.SERVING == answer.status

    async def test_reflection_lists_and_describes_the_services(self, tmp_path):
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="ltv.LTVService"),
        ]
        async with running(tmp_path) as service:
            call = service.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")(
                each.SerializeToString() for each in asked
            )
            listed, described = [reflection_pb2.ServerReflectionResponse.FromString(data) async for data in call]
        names = {each.name for each in listed.list_services_response.service}
        assert {"kiki.value.v1.ValueService", "ltv.LTVService", "syncvalue.v1.SyncValueService"} <= names
        file = descriptor_pb2.FileDescriptorProto.FromString(
            described.file_descriptor_response.file_descriptor_proto[0]
        )
        assert "ltv.proto" == file.name

    async def test_an_unknown_method_is_unimplemented(self, tmp_path):
        async with running(tmp_path) as service:
            code, _ = await service.refused("/kiki.value.v1.ValueService/Nothing", b"")
        assert grpc.StatusCode.UNIMPLEMENTED is code


class TestHttp:
    async def test_health_readiness_and_metrics(self, tmp_path):
        async with running(tmp_path) as service:
            await predicted(service, customer_id="c1")
            await service.refused(PREDICT, pb.PredictRequest())
            status, text = await get(f"{service.url}/health")
            assert (200, "healthy", len(purchases())) == (
                status,
                json.loads(text)["status"],
                json.loads(text)["customers"],
            )
            assert 200 == (await get(f"{service.url}/livez"))[0]
            assert 200 == (await get(f"{service.url}/readyz"))[0]
            _, metrics = await get(f"{service.url}/metrics")
        assert f'kiki_grpc_calls_total{{method="{PREDICT}",status="OK"}} 1.0' in metrics
        assert f'kiki_grpc_calls_total{{method="{PREDICT}",status="INVALID_ARGUMENT"}} 1.0' in metrics
        assert f'kiki_value_model_info{{model_version="{fitted().model_version}"}} 1.0' in metrics
        assert 'kiki_value_reloads_total{result="taken"} 1.0' in metrics


class TestReload:
    async def test_a_new_file_is_taken_over_whole(self, tmp_path):
        new = fitted("pareto-nbd")
        async with running(tmp_path) as service:
            before = await predicted(service, customer_id="c1")
            new.save(tmp_path / "model.json")
            for _ in range(3000):
                after = await predicted(service, customer_id="c1")
                if after.model_version != before.model_version:
                    break
                await asyncio.sleep(0.02)
        assert (new.model_version, fitted().model_version) == (after.model_version, before.model_version)
        assert before.revenue != after.revenue

    @pytest.mark.parametrize("harm", ["edited", "cut off", "emptied"])
    async def test_a_broken_file_is_refused_and_the_old_model_goes_on(self, tmp_path, harm):
        path = tmp_path / "model.json"
        async with running(tmp_path) as service:
            text = path.read_text()
            new = tmp_path / "new"
            new.write_text({"edited": text.replace("26.0", "27.0"), "cut off": text[:-40], "emptied": ""}[harm])
            new.replace(path)  # at once: half of it would be refused, too
            for _ in range(3000):
                health = json.loads((await get(f"{service.url}/health"))[1])
                if health["reload_refused"]:
                    break
                await asyncio.sleep(0.02)
            assert health["reload_refused"]
            assert fitted().model_version == (await predicted(service, customer_id="c1")).model_version
            assert 200 == (await get(f"{service.url}/readyz"))[0]
            assert 'result="refused"} 1.0' in (await get(f"{service.url}/metrics"))[1]
            path.unlink()
            gone = f"{path} does not exist; `kiki ltv fit LOG -o {path}` makes it"
            for _ in range(3000):
                health = json.loads((await get(f"{service.url}/health"))[1])
                if gone == health["reload_refused"]:
                    break
                await asyncio.sleep(0.02)
            assert gone == health["reload_refused"]
            assert fitted().model_version == (await predicted(service, customer_id="c1")).model_version
            assert 200 == (await get(f"{service.url}/readyz"))[0]
            fitted("pareto-nbd").save(path)
            for _ in range(3000):
                answer = await predicted(service, customer_id="c1")
                if answer.model_version != fitted().model_version:
                    break
                await asyncio.sleep(0.02)
        assert fitted("pareto-nbd").model_version == answer.model_version

    async def test_without_a_model_it_waits_for_one(self, tmp_path):
        path = tmp_path / "later.json"
        async with running(tmp_path, KIKI_VALUE_MODEL=str(path)) as service:
            code, words = await service.refused(PREDICT, pb.PredictRequest(customer_id="c1"))
            assert grpc.StatusCode.UNAVAILABLE is code
            assert "kiki ltv fit" in words
            health = await service.ask(HEALTH, b"", health_pb2.HealthCheckResponse)
            assert health_pb2.HealthCheckResponse.NOT_SERVING == health.status
            assert 503 == (await get(f"{service.url}/readyz"))[0]
            assert 200 == (await get(f"{service.url}/livez"))[0]
            fitted().save(path)
            for _ in range(3000):
                health = await service.ask(HEALTH, b"", health_pb2.HealthCheckResponse)
                if health.status == health_pb2.HealthCheckResponse.SERVING:
                    break
                await asyncio.sleep(0.02)
            assert pb.SOURCE_SCORED == (await predicted(service, customer_id="c1")).source
            assert 200 == (await get(f"{service.url}/readyz"))[0]

    async def test_it_does_not_start_on_a_broken_file(self, tmp_path):
        (tmp_path / "model.json").write_text("{}")
        with pytest.raises(Exception, match="no model file of kiki's"):
            async with running(tmp_path):
                pass

    async def test_it_does_not_start_on_a_port_that_is_taken(self, tmp_path):
        async with running(tmp_path) as service:
            with pytest.raises(ConfigurationError, match="KIKI_VALUE_PORT"):
                async with running(tmp_path, KIKI_VALUE_PORT=str(service.service.port)):
                    pass


class TestDeadlines:
    async def test_a_call_ends_at_its_deadline(self, tmp_path):
        orders = [pb.Order(date=str(LAST_DAY - timedelta(days=day % 300)), amount_micros=10**7) for day in range(9_000)]
        request = pb.PredictRequest(history=pb.History(orders=orders, as_of=LAST_DAY.isoformat()))
        async with running(tmp_path) as service:
            code, _ = await service.refused(PREDICT, request, timeout=0.0005)
            assert grpc.StatusCode.DEADLINE_EXCEEDED is code
            assert pb.SOURCE_SCORED == (await predicted(service, customer_id="c1")).source
