"""`LtvClient`: one interface over a service and over a file, with a deadline, one more try, and a fallback that says it is one."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import grpc
import pytest

import kiki
from kiki.errors import (
    Forbidden,
    InvalidInput,
    InvalidMoney,
    MissingExtra,
    NotFound,
    SettingsError,
    Unauthenticated,
    ValueUnreachable,
)
from kiki.value.ltv_answer import answer_of
from kiki.value.ltv_client import AsyncLtvClient, Heuristic, LtvClient
from kiki.value.pb import value_pb2 as pb
from tests.servers import free_port
from tests.value.served_value import (
    FIRST_DAY,
    LAST_DAY,
    TOKENS,
    fitted,
    process_in,
    purchases,
    running,
    write_log,
)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with process_in(tmp_path_factory.mktemp("service")) as process:
        yield process


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    fitted().save(directory / "model.json")
    return {"model": directory / "model.json", "customers": write_log(directory)}


@pytest.fixture(params=["service", "file"])
def client(request, service, files):
    given = {"address": service.address} if request.param == "service" else files
    with LtvClient(**given, timeout=30) as one:
        yield one


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda client: client.predict(17), "a customer_id is text, not 17"),
        (lambda client: client.predict_many("c17"), "customer_ids is one text"),
        (lambda client: client.predict_many([17]), "a customer_id is text, not 17"),
        (lambda client: client.predict_orders([("2026-01-02", "5")], LAST_DAY), "a day is a datetime.date, not '2026-01-02'"),
        (lambda client: client.predict_orders([(FIRST_DAY, "5")], datetime(2026, 1, 2, tzinfo=UTC)), "a day is a datetime.date"),
    ],
)  # fmt: skip
def test_what_is_of_another_type_is_refused_in_words(client, ask, said):
    with pytest.raises(InvalidInput, match=re.escape(said)):
        ask(client)


@contextmanager
def answering(*outcomes):
    """A server whose Predict takes these outcomes in turn, the last one again and again; what came is in `.calls`."""
    calls = []

    def predict(data, context):
        outcome = outcomes[min(len(calls), len(outcomes) - 1)]
        calls.append(dict(context.invocation_metadata()))
        if isinstance(outcome, grpc.StatusCode):
            context.abort(outcome, "no")
        return outcome if isinstance(outcome, bytes) else outcome(context)

    handler = grpc.method_handlers_generic_handler(
        "kiki.value.v1.ValueService",
        {name: grpc.unary_unary_rpc_method_handler(predict) for name in ("Predict", "PredictBatch", "ModelInfo")},
    )
    server = grpc.server(ThreadPoolExecutor(4), handlers=[handler])
    server.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.calls = calls
    server.start()
    try:
        yield server
    finally:
        server.stop(None).wait()


ANSWER = pb.PredictResponse(source=pb.SOURCE_SCORED).SerializeToString()


class TestOneInterface:
    """The same calls over a service and over a file."""

    def test_a_known_customer(self, client):
        expected = fitted().predict(purchases()).row(list(purchases().ids).index("c1"))
        answer = client.predict("c1")
        assert expected.revenue.mean == answer.expected == answer.revenue.mean
        assert (expected.revenue.lower[90], expected.revenue.upper[90]) == answer.interval() == answer.interval(90)
        assert (expected.purchases.lower[95], expected.purchases.upper[95]) == answer.purchases.interval_95
        assert (expected.alive, expected.no_purchase, expected.order_amount) == (
            answer.probability_alive,
            answer.probability_no_purchase,
            answer.expected_order_amount,
        )
        assert ("c1", "scored", False, None, 26.0, "week", LAST_DAY.isoformat(), fitted().model_version) == (
            answer.customer_id, answer.source, answer.is_fallback, answer.discounted_value,
            answer.horizon, answer.unit, answer.as_of, answer.model_version,
        )  # fmt: skip

    def test_reasons_and_another_horizon(self, client):
        answer = client.predict("c1", horizon=4, reasons=True)
        assert 4.0 == answer.horizon
        assert answer.reasons
        assert answer.expected < client.predict("c1").expected

    def test_an_unknown_customer_is_said_to_be_one(self, client):
        answer = client.predict("nobody")
        assert ("unknown_customer", None) == (answer.source, answer.as_of)
        assert client.predict_new().expected == answer.expected
        assert "new_customer" == client.predict_new("2026-01").source

    def test_a_summary_and_orders(self, client):
        orders = [
            (FIRST_DAY, "25.50"),
            (FIRST_DAY + timedelta(days=30), 25),
            (FIRST_DAY + timedelta(days=40), Decimal(-25)),
        ]
        by_orders = client.predict_orders(orders, LAST_DAY)
        by_summary = client.predict_summary(0, 0, 364, "25.50")
        assert "history" == by_orders.source == by_summary.source
        assert (by_summary.purchases, by_summary.expected) == (by_orders.purchases, by_orders.expected)

    def test_many_in_batches(self, client):
        ids = [*map(str, purchases().ids[:30]), "nobody"]
        answers = client.predict_many(ids, batch=7)
        assert [client.predict(each) for each in ids] == answers

    def test_means_of_many(self, client):
        full, means = client.predict_many(["c1"]), client.predict_many(["c1"], means_only=True)
        assert full[0].expected == means[0].expected
        assert (None, None) == (means[0].interval(), means[0].purchases.median)
        assert [] == client.predict_many([])

    def test_the_model(self, client):
        info = client.model_info()
        assert (fitted().model_version, len(purchases()), False) == (
            info["model_version"], info["customers"], info["coverage_claimed"],
        )  # fmt: skip
        assert json.loads(json.dumps(fitted().info())) == info["details"]

    @pytest.mark.parametrize(
        "call",
        [
            lambda client: client.predict(""),
            lambda client: client.predict("\ud800"),
            lambda client: client.predict("x" * 2000),
            lambda client: client.predict("c1", horizon=-1),
            lambda client: client.predict_many(["c1", ""]),
            lambda client: client.predict_summary(2, 30, 20),
            lambda client: client.predict_orders([], LAST_DAY),
            lambda client: client.predict_new("soon"),
            lambda client: client.predict("c1").interval(50),
        ],
    )
    def test_what_cannot_be_is_refused_and_never_a_fallback(self, client, call):
        client._fallback = 1.0
        with pytest.raises(InvalidInput):
            call(client)
        client._fallback = None

    def test_a_float_is_no_amount(self, client):
        with pytest.raises(InvalidMoney):
            client.predict_summary(0, 0, 10, 25.5)


class TestAway:
    def test_without_a_fallback_it_raises(self):
        with LtvClient(f"127.0.0.1:{free_port()}", timeout=30) as client:
            for call in (lambda: client.predict("c1"), lambda: client.predict_many(["a"]), client.model_info):
                with pytest.raises(ValueUnreachable, match="UNAVAILABLE"):
                    call()

    @pytest.mark.parametrize(
        ("fallback", "expected"),
        [
            (12.5, 12.5),
            (len, 2.0),
            (Heuristic(100, 0.5), 125.0),
            (Heuristic(-100, 0.5), 0.0),
            (0, 0.0),
        ],
    )
    def test_a_fallback_speaks_and_says_what_it_is(self, fallback, expected):
        with LtvClient(f"127.0.0.1:{free_port()}", fallback=fallback) as client:
            answer = client.predict("c1")
            many = client.predict_many(["c1", "c2"])
        assert (expected, True, "fallback", "c1") == (
            answer.expected, answer.is_fallback, answer.source, answer.customer_id,
        )  # fmt: skip
        assert (None, None, None) == (answer.revenue, answer.interval(), answer.model_version)
        assert [expected, expected] == [each.expected for each in many]

    def test_a_call_has_a_fallback_of_its_own_or_none(self):
        with LtvClient(f"127.0.0.1:{free_port()}", fallback=1.0) as client:
            assert 2.0 == client.predict("c1", fallback=2.0).expected
            with pytest.raises(ValueUnreachable):
                client.predict("c1", fallback=None)

    def test_a_slow_service_is_left_at_the_deadline(self):
        gone = threading.Event()
        with answering(lambda _: gone.wait(100) and b"") as server, LtvClient(server.address, fallback=7) as client:
            client.predict("c1", fallback=0)  # the connection
            assert client.predict("c1", timeout=0.1).is_fallback
            assert not gone.is_set()
            gone.set()

    def test_what_is_not_syncvalue_is_no_answer(self):
        with answering(b"\xff\xff\xff") as server, LtvClient(server.address, timeout=30) as client:
            with pytest.raises(ValueUnreachable, match="not SyncValue"):
                client.predict("c1")
            assert 3.0 == client.predict("c1", fallback=3).expected

    def test_a_batch_that_lacks_customers_is_no_answer(self):
        short = pb.PredictBatchResponse(source=[1]).SerializeToString()
        with answering(short) as server, LtvClient(server.address, timeout=30, fallback=3) as client:
            assert [3.0, 3.0] == [each.expected for each in client.predict_many(["c1", "c2"])]


class TestRetries:
    def test_a_lost_connection_is_tried_once_more(self):
        with answering(grpc.StatusCode.UNAVAILABLE, ANSWER) as server, LtvClient(server.address, timeout=30) as client:
            assert "scored" == client.predict("c1").source
            assert 2 == len(server.calls)

    def test_and_not_for_ever(self):
        with answering(grpc.StatusCode.UNAVAILABLE) as server, LtvClient(server.address, timeout=30) as client:
            assert client.predict("c1", fallback=0).is_fallback
            assert 2 == len(server.calls)

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            (grpc.StatusCode.INVALID_ARGUMENT, InvalidInput),
            (grpc.StatusCode.NOT_FOUND, NotFound),
            (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated),
            (grpc.StatusCode.PERMISSION_DENIED, Forbidden),
            (grpc.StatusCode.INTERNAL, ValueUnreachable),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, ValueUnreachable),
            (grpc.StatusCode.UNIMPLEMENTED, ValueUnreachable),
        ],
    )
    def test_other_codes_are_answers(self, code, expected):
        with answering(code) as server, LtvClient(server.address, timeout=30) as client:
            with pytest.raises(expected):
                client.predict("c1")
            assert 1 == len(server.calls)


class TestSettings:
    def test_address_and_token_come_from_the_environment(self, monkeypatch):
        with answering(ANSWER) as server:
            monkeypatch.setenv("LTV_GRPC_ADDR", server.address)
            monkeypatch.setenv("KIKI_VALUE_TOKEN", "token-0123456789abcdef")
            with LtvClient(timeout=30) as client:
                client.predict("c1")
            assert "Bearer token-0123456789abcdef" == server.calls[0]["authorization"]

    def test_a_token_may_be_in_a_file_or_an_argument(self, monkeypatch, tmp_path):
        (tmp_path / "token").write_text("file-0123456789abcdef\n")
        monkeypatch.setenv("KIKI_VALUE_TOKEN_FILE", str(tmp_path / "token"))
        with answering(ANSWER) as server:
            for token in (None, "given-0123456789abcdef"):
                with LtvClient(server.address, timeout=30, token=token) as client:
                    client.predict("c1")
            assert ["Bearer file-0123456789abcdef", "Bearer given-0123456789abcdef"] == [
                call["authorization"] for call in server.calls
            ]

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({"address": "nowhere"}, SettingsError),
            ({"address": "host:99999"}, SettingsError),
            ({"token": "two words"}, SettingsError),
            ({"ca_file": "/nowhere/ca.pem"}, SettingsError),
            ({"address": "a:1", "model": "m.json"}, InvalidInput),
            ({"customers": "c.csv"}, InvalidInput),
            ({"timeout": 0}, InvalidInput),
            ({"model": "/nowhere/model.json"}, kiki.KikiError),
        ],
    )
    def test_what_makes_no_sense_is_refused_at_once(self, given, expected):
        with pytest.raises(expected):
            LtvClient(**given)

    def test_a_client_of_a_service_needs_nothing_of_the_extra(self):
        """The base has gRPC and protobuf; numpy, pandas and scipy come with the extra `value`."""
        code = "import kiki, sys; kiki.LtvClient('127.0.0.1:1').close(); print(*{'numpy', 'pandas', 'scipy', 'aiohttp'} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "" == done.stdout.strip()

    def test_a_model_in_this_process_says_which_extra_it_needs(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "kiki.value.served_model", None)
        with pytest.raises(MissingExtra, match="needs the extra 'value'"):
            LtvClient(model="model.json")

    def test_it_is_a_public_name(self):
        assert (LtvClient, AsyncLtvClient) == (kiki.LtvClient, kiki.AsyncLtvClient)


class TestAsync:
    async def test_it_answers_as_the_other_one(self, service, files):
        with LtvClient(service.address, timeout=30) as blocking:
            one, many = blocking.predict("c1"), blocking.predict_many(["c1", "nobody"])
            info = blocking.model_info()
        for given in ({"address": service.address}, files):
            async with AsyncLtvClient(**given, timeout=30) as client:
                assert one == await client.predict("c1")
                assert many == await client.predict_many(["c1", "nobody"], batch=1)
                assert info == await client.model_info()
                assert "history" == (await client.predict_summary(0, 0, 10, 5)).source
                assert "history" == (await client.predict_orders([(FIRST_DAY, 5)], LAST_DAY)).source
                assert "new_customer" == (await client.predict_new()).source
                with pytest.raises(InvalidInput):
                    await client.predict("")

    async def test_many_at_once(self, service):
        async with AsyncLtvClient(service.address, timeout=30) as client:
            answers = await asyncio.gather(*(client.predict(f"c{n}") for n in range(200)))
        assert [f"c{n}" for n in range(200)] == [each.customer_id for each in answers]

    async def test_a_fallback_and_an_error_when_it_is_away(self):
        async with AsyncLtvClient(f"127.0.0.1:{free_port()}", fallback=4) as client:
            assert (await client.predict("c1")).is_fallback
            assert [4.0] == [each.expected for each in await client.predict_many(["c1"])]
            with pytest.raises(ValueUnreachable):
                await client.model_info()

    async def test_a_token_that_does_not_do(self, tmp_path):
        async with running(tmp_path, tokens=TOKENS) as one:
            address = f"127.0.0.1:{one.service.port}"
            for token, expected in (
                ("wrong-0123456789abcdef", Unauthenticated),
                ("spender-0123456789abcdef", Forbidden),
            ):
                async with AsyncLtvClient(address, token=token, timeout=30, fallback=1) as client:
                    with pytest.raises(expected):
                        await client.predict("c1")
            async with AsyncLtvClient(address, token="reader-0123456789abcdef", timeout=30) as client:
                assert "scored" == (await client.predict("c1")).source

    async def test_an_id_that_is_not_answered_is_not_found(self, tmp_path):
        async with running(tmp_path, KIKI_VALUE_UNKNOWN="not-found") as one:
            client = AsyncLtvClient(f"127.0.0.1:{one.service.port}", timeout=30, fallback=1)
            with pytest.raises(NotFound):
                await client.predict("nobody")
            (answer,) = await client.predict_many(["nobody"])
            await client.close()
        assert "not_found" == answer.source
        assert math.isnan(answer.expected)


def test_a_source_that_is_newer_than_the_client_is_another_one():
    assert "other" == answer_of(pb.PredictResponse(source=99), None).source
