"""SyncValue as a service: lifetime value by gRPC, under its own contract and both old ones, health and metrics by HTTP."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from kiki.clock import SECOND, to_iso, wall_micros
from kiki.errors import ConfigurationError, InvalidInput, KikiError
from kiki.settings import ValueSettings
from kiki.telemetry import log_event, new_registry
from kiki.value import legacy_ltv, legacy_syncvalue, wire
from kiki.value.call_metrics import CallMetrics
from kiki.value.grpc_server import GrpcServer, Method
from kiki.value.model_keeper import ModelKeeper
from kiki.value.orders import day_of
from kiki.value.pb import syncvalue_pb2, value_pb2
from kiki.value.served_model import ServedModel
from kiki.web import Check, Reply, Request, Route, Service, Tokens, json_reply, load_tokens

logger = logging.getLogger(__name__)

VALUE: Final = "kiki.value.v1.ValueService"
LTV: Final = "ltv.LTVService"
SYNCVALUE: Final = "syncvalue.v1.SyncValueService"

Answer = TypeVar("Answer")


class ValueService:
    """The three gRPC services over one model, which is replaced when its file changes."""

    def __init__(self, settings: ValueSettings, tokens: Tokens | None = None) -> None:
        self._settings = settings
        self._registry = new_registry()
        self._calls = CallMetrics(self._registry)
        self._keeper = ModelKeeper(settings.model_file, settings.customers_file, self._load)
        self._registry.register(_ModelMetrics(self._keeper))
        self._server = GrpcServer(self._methods(), settings, tokens, self._calls)
        self._tasks: list[asyncio.Task[None]] = []
        self._started = time.monotonic()

    def service(self) -> Service:
        """What `kiki.web.run` runs: the HTTP port, and with its life that of the gRPC port."""
        return Service(
            name="syncvalue",
            routes=[Route("/health", self._health, ("GET", "HEAD"), role="read", anonymous_inside=True, probe=True)],
            checks=self._checks,
            registry=self._registry,
            exposes="ASK FOR EVERYBODY'S VALUE (ON THE gRPC PORT, TOO)",
            on_start=self._start,
            on_reload=self._reload,
            on_close=self._close,
        )

    @property
    def port(self) -> int:
        """The gRPC port that was taken, 0 before the start."""
        return self._server.port

    # -- its life ------------------------------------------------------------------------------------

    async def _start(self) -> None:
        await self._keeper.start()
        await self._server.start()
        await self._server.say_serving(serving=False)
        self._tasks.append(asyncio.create_task(self._say_when_there()))
        if self._settings.reload_seconds:
            self._tasks.append(asyncio.create_task(self._keeper.watch(self._settings.reload_seconds)))
        log_event(
            logger,
            logging.INFO,
            "listening for gRPC",
            host=self._settings.listen.host,
            port=self._server.port,
            tls=self._settings.tls_cert_file is not None,
        )

    async def _say_when_there(self) -> None:
        await self._keeper.there.wait()
        await self._server.say_serving(serving=True)

    async def _reload(self) -> None:
        if self._settings.listen.tokens_file is not None:
            self._server.use_tokens(load_tokens(self._settings.listen.tokens_file))
        try:
            await self._keeper.reload()
        except ConfigurationError:
            raise
        except KikiError as error:
            raise ConfigurationError([str(error)]) from error

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._server.stop(self._settings.listen.drain_seconds)
        # What was frozen would never be let go, and DuckDB reports that as leaks when the process ends.
        gc.unfreeze()

    def _load(self) -> ServedModel:
        settings = self._settings
        try:
            return ServedModel.load(
                settings.model_file,
                settings.customers_file,
                answer_unknown=settings.unknown == "prior",
                batch_max=settings.batch_max,
            )
        except InvalidInput as error:
            # The model has an error of its own, so this is about the customers; and it is no caller's input.
            raise ConfigurationError([f"KIKI_VALUE_CUSTOMERS={settings.customers_file}: {error}"]) from error

    # -- HTTP ----------------------------------------------------------------------------------------

    async def _health(self, _: Request) -> Reply:
        keeper, served = self._keeper, self._keeper.current
        coverage = None if served is None else served.coverage
        return json_reply(
            {
                "status": "healthy" if served is not None else "waiting for a model",
                "service": "syncvalue",
                "model_version": None if served is None else served.model.model_version,
                "customers": None if served is None else len(served.table),
                "coverage_claimed": coverage is not None and coverage.claimed,
                "loaded_at": keeper.loaded_at or None,
                "reload_refused": keeper.refused,
                "grpc_port": self._server.port,
                "timestamp": to_iso(wall_micros()),
            }
        )

    async def _checks(self) -> Sequence[Check]:
        served = self._keeper.current
        if served is None:
            return [Check("model", ok=False, detail=self._keeper.refused or "it is being loaded")]
        refused = self._keeper.refused
        detail = served.model.model_version + (f"; its file is not taken over: {refused}" if refused else "")
        return [Check("model", ok=True, detail=detail)]

    # -- gRPC ----------------------------------------------------------------------------------------

    def _methods(self) -> list[Method]:
        return [
            Method(VALUE, "Predict", self._predict),
            Method(VALUE, "PredictBatch", self._predict_batch),
            Method(VALUE, "PredictStream", self._predict_batch, streaming=True),
            Method(VALUE, "ModelInfo", self._model_info),
            Method(LTV, "PredictLTV", self._ltv),
            Method(SYNCVALUE, "PredictLTV", self._syncvalue),
            Method(SYNCVALUE, "PredictLTVBatch", self._syncvalue_batch),
            Method(SYNCVALUE, "PredictLTVStream", self._syncvalue, streaming=True),
            Method(SYNCVALUE, "GetModelHealth", self._model_health),
        ]

    def _predict(self, data: bytes, _seconds: float | None) -> bytes | asyncio.Future[bytes]:
        served = self._keeper.served
        request = wire.read(value_pb2.PredictRequest, data)
        self._count(1)
        if served.is_quick(request):
            return served.predict(request)
        return _in_thread(lambda: served.predict(request))

    def _predict_batch(self, data: bytes, _seconds: float | None) -> bytes:
        request = wire.read(value_pb2.PredictBatchRequest, data)
        answer = self._keeper.served.predict_batch(request)
        self._count(len(request.customer_ids))
        return answer

    def _model_info(self, data: bytes, _seconds: float | None) -> bytes:
        wire.read(value_pb2.ModelInfoRequest, data)
        return self._keeper.served.info().SerializeToString()

    def _ltv(self, data: bytes, _seconds: float | None) -> bytes | asyncio.Future[bytes]:
        served = self._keeper.served
        asked = legacy_ltv.read_request(data)
        today = day_of(_today())
        self._count(1)
        if legacy_ltv.is_quick(served, asked):
            return legacy_ltv.answer(served, asked, today)
        return _in_thread(lambda: legacy_ltv.answer(served, asked, today))

    def _syncvalue(self, data: bytes, _seconds: float | None) -> bytes | asyncio.Future[bytes]:
        served, now = self._keeper.served, _now_ms()
        request = wire.read(syncvalue_pb2.LTVPredictionRequest, data)
        self._count(1)
        if legacy_syncvalue.is_quick(served, request):
            return legacy_syncvalue.predict(served, request, now).SerializeToString()
        return _in_thread(lambda: legacy_syncvalue.predict(served, request, now).SerializeToString())

    def _syncvalue_batch(self, data: bytes, seconds: float | None) -> asyncio.Future[bytes]:
        served, now = self._keeper.served, _now_ms()
        batch = wire.read(syncvalue_pb2.LTVBatchRequest, data)
        until = None if seconds is None else time.monotonic() + seconds
        self._count(len(batch.requests))

        def answer() -> bytes:
            left = (lambda: None) if until is None else (lambda: until - time.monotonic())
            return legacy_syncvalue.predict_batch(served, batch, now, left).SerializeToString()

        return _in_thread(answer)

    def _model_health(self, data: bytes, _seconds: float | None) -> bytes:
        request = wire.read(syncvalue_pb2.HealthRequest, data)
        served = self._keeper.current
        coverage = None if served is None else served.coverage.overall.get(("revenue", 95))
        response = syncvalue_pb2.HealthResponse(
            is_healthy=served is not None,
            model_version="" if served is None else served.model.model_version,
            uptime_seconds=int(time.monotonic() - self._started),
            current_accuracy=coverage or 0.0,
            target_accuracy=0.0 if coverage is None else 0.95,
        )
        if request.include_metrics:
            mean, p95, p99 = self._calls.latencies()
            used = resource.getrusage(resource.RUSAGE_SELF)
            uptime = max(time.monotonic() - self._started, 1e-3)
            response.predictions_today = self._calls.predictions_on(_today())
            response.avg_latency_ms, response.p95_latency_ms, response.p99_latency_ms = mean * 1e3, p95 * 1e3, p99 * 1e3
            response.cpu_usage_percent = 100 * (used.ru_utime + used.ru_stime) / uptime
            response.memory_usage_mb = used.ru_maxrss / 1024
            response.active_connections = self._calls.in_work
        return response.SerializeToString()

    def _count(self, customers: int) -> None:
        self._calls.count_predictions(customers, _today())


class _ModelMetrics(Collector):
    """Which model is served, and how reloading goes."""

    def __init__(self, keeper: ModelKeeper) -> None:
        self._keeper = keeper

    def collect(self) -> Iterable[Metric]:
        """The metric families with their samples of now."""
        keeper, served = self._keeper, self._keeper.current
        info = InfoMetricFamily("kiki_value_model", "The model that is served.")
        known = GaugeMetricFamily("kiki_value_customers", "Customers who are known by id.")
        if served is not None:
            info.add_metric([], {"model_version": served.model.model_version})
            known.add_metric([], len(served.table))
        reloads = CounterMetricFamily("kiki_value_reloads", "Model files that were read.", labels=["result"])
        reloads.add_metric(["taken"], keeper.taken)
        reloads.add_metric(["refused"], keeper.refusals)
        return [info, known, reloads]


def _in_thread(work: Callable[[], Answer]) -> asyncio.Future[Answer]:
    """The result of computing work: other calls are answered meanwhile."""
    return asyncio.get_running_loop().run_in_executor(None, work)


def _now_ms() -> int:
    return wall_micros() // 1000


def _today() -> int:
    """The day in UTC, in days since 1970-01-01."""
    return wall_micros() // (24 * 3600 * SECOND)
