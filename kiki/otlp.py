"""Traces and metrics to an OpenTelemetry collector, over OTLP and gRPC. Needs the extra `otel`.

Everything happens on one thread of its own, from a queue with an end: a collector that is slow or away costs spans, which are
counted (`kiki_telemetry_dropped_total`), and never a request its time.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from kiki import __version__, tracing
from kiki.errors import MissingExtra
from kiki.settings import OtelSettings
from kiki.telemetry import log_event

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource

logger = logging.getLogger(__name__)

QUEUE_MAX: Final = 8192
BATCH_MAX: Final = 512
_WAKE_SECONDS: Final = 1.0
_END_SECONDS: Final = 1.0


class SpanSink(Protocol):
    """An exporter of OpenTelemetry's SDK, as far as it is used here."""

    def export(self, spans: Sequence[tracing.Span]) -> Any:
        """Send them; the answer says whether they arrived."""
        ...

    def shutdown(self) -> None:
        """Give the connection free, and let go of what is being retried."""
        ...


class Exporting(Collector):
    """Sends what is put into it until it is closed."""

    def __init__(self, settings: OtelSettings, registry: CollectorRegistry, service: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
            from opentelemetry.sdk.resources import Resource
        except ModuleNotFoundError as error:
            raise MissingExtra("otel", "OTEL_EXPORTER_OTLP_ENDPOINT") from error
        self._resource = Resource.create(
            {"service.name": settings.service_name or service, "service.version": __version__}
        )
        self._registry = registry
        self._queue: deque[tracing.Span] = deque()
        self._dropped = 0
        self._failed = 0
        self._wake = threading.Event()
        self._ending = self._over = False
        self._spans = _span_exporter(settings, self._resource)
        self._metrics = (
            OTLPMetricExporter(endpoint=settings.endpoint, insecure=settings.insecure) if settings.metrics else None
        )
        self._every = settings.metric_seconds
        self._began = time_ns()
        # The SDK says "transient error" for each attempt; that the collector is away is said once, by us.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        registry.register(self)
        self._thread = threading.Thread(target=self._run, name="kiki-otlp", daemon=True)
        self._thread.start()

    def keep(self, span: tracing.Span) -> None:
        """Put a span into the queue; when it is full, drop and count it."""
        if len(self._queue) >= QUEUE_MAX:
            self._dropped += 1
            return
        self._queue.append(span)
        if len(self._queue) >= BATCH_MAX:
            self._wake.set()

    def close(self) -> None:
        """Send what is left, for about two seconds at most."""
        self._ending = True
        self._wake.set()
        self._thread.join(_END_SECONDS)
        # What is still tried again gives up: nobody waits for a collector that is away.
        self._over = True
        self._spans.shutdown()
        if self._metrics is not None:
            self._metrics.shutdown()
        self._thread.join(_END_SECONDS)

    def collect(self) -> Iterable[Metric]:
        """What did not reach the collector."""
        family = CounterMetricFamily(
            "kiki_telemetry_dropped", "Spans that did not reach the collector, by reason.", labels=["reason"]
        )
        family.add_metric(["queue_full"], self._dropped)
        family.add_metric(["export_failed"], self._failed)
        yield family

    def describe(self) -> Iterable[Metric]:
        """The same, for registering."""
        return self.collect()

    def _run(self) -> None:
        due, said = monotonic() + self._every, False
        while True:
            self._wake.wait(_WAKE_SECONDS)
            self._wake.clear()
            ending = self._ending
            said = self._send_spans(said=said)
            if self._metrics is not None and not self._over and (ending or monotonic() >= due):
                due = monotonic() + self._every
                self._send_metrics(self._metrics)
            if ending:
                return

    def _send_spans(self, *, said: bool) -> bool:
        """Everything that waits; whether it is known, and was said, that the collector is away."""
        while self._queue and not self._over:
            batch = [self._queue.popleft() for _ in range(min(BATCH_MAX, len(self._queue)))]
            try:
                arrived = self._spans.export(batch).name == "SUCCESS"
            except Exception as error:
                arrived = False
                log_event(logger, logging.DEBUG, "spans could not be sent", exc_info=error)
            if arrived:
                said = False
                continue
            self._failed += len(batch)
            if not said:
                log_event(logger, logging.WARNING, "the telemetry collector does not take spans; they are dropped")
                said = True
        return said

    def _send_metrics(self, exporter: Any) -> None:
        try:
            exporter.export(otlp_metrics(self._registry, self._resource, self._began, time_ns()))
        except Exception as error:
            log_event(logger, logging.DEBUG, "metrics could not be sent", exc_info=error)


def start(settings: OtelSettings | None, registry: CollectorRegistry, service: str) -> Exporting | None:
    """Trace and export from now on as the settings say; None: nothing is exported."""
    if settings is None:
        return None
    exporting = Exporting(settings, registry, service)
    if settings.traces:
        tracing.use(tracing.Tracer(tracing.Sampler(settings.share, parent_based=settings.parent_based), exporting.keep))
    return exporting


def _span_exporter(settings: OtelSettings, resource: Resource) -> SpanSink:
    """The SDK's exporter, with its retries, headers and TLS, for our spans: straight into protobuf, at a seventh of the cost."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

    def pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
        found = []
        for name, value in attributes.items():
            if isinstance(value, bool):
                told = AnyValue(bool_value=value)
            elif isinstance(value, int):
                told = AnyValue(int_value=value)
            elif isinstance(value, float):
                told = AnyValue(double_value=value)
            else:
                told = AnyValue(string_value=str(value))
            found.append(KeyValue(key=name, value=told))
        return found

    about = ResourceMessage(attributes=pairs(resource.attributes))
    scope = InstrumentationScope(name="kiki", version=__version__)
    failed = Status(code=Status.STATUS_CODE_ERROR)

    def message(span: tracing.Span) -> SpanMessage:
        return SpanMessage(
            trace_id=span.trace_id.to_bytes(16, "big"),
            span_id=span.span_id.to_bytes(8, "big"),
            parent_span_id=span.parent_id.to_bytes(8, "big") if span.parent_id else b"",
            name=span.name,
            kind=SpanMessage.SpanKind.ValueType(
                span.kind + 1
            ),  # the API counts its kinds from 0, the protocol has 0 for none
            start_time_unix_nano=span.started,
            end_time_unix_nano=span.ended,
            attributes=pairs(span.attributes),
            status=failed if span.failed else None,
        )

    class Exporter(OTLPSpanExporter):
        def _translate_data(self, data: Sequence[Any]) -> ExportTraceServiceRequest:
            spans = ScopeSpans(scope=scope, spans=map(message, data))
            return ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=about, scope_spans=[spans])])

    return cast("SpanSink", Exporter(endpoint=settings.endpoint, insecure=settings.insecure))


def otlp_metrics(registry: CollectorRegistry, resource: Resource, began: int, now: int) -> MetricsData:
    """Every metric of a registry as OpenTelemetry's SDK hands metrics to its exporters. Moments in nanoseconds."""
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    found = [converted for family in registry.collect() if (converted := _metric(family, began, now)) is not None]
    scope = ScopeMetrics(scope=InstrumentationScope("kiki", __version__), metrics=found, schema_url="")
    return MetricsData(resource_metrics=[ResourceMetrics(resource=resource, scope_metrics=[scope], schema_url="")])


def _metric(family: Metric, began: int, now: int) -> Any:
    from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Histogram, NumberDataPoint, Sum
    from opentelemetry.sdk.metrics.export import Metric as Exported

    cumulative = AggregationTemporality.CUMULATIVE
    if family.type == "histogram":
        data: Any = Histogram(_histograms(family, began, now), aggregation_temporality=cumulative)
    elif family.type in {"counter", "gauge", "info", "unknown"}:
        points = [
            NumberDataPoint(sample.labels, began, now, sample.value)
            for sample in family.samples
            if not sample.name.endswith("_created")
        ]
        data = (
            Sum(points, aggregation_temporality=cumulative, is_monotonic=True)
            if family.type == "counter"
            else Gauge(points)
        )
    else:
        return None
    return Exported(name=family.name, description=family.documentation, unit=family.unit, data=data)


def _histograms(family: Metric, began: int, now: int) -> list[Any]:
    """Data points of a histogram: Prometheus counts buckets cumulated, OpenTelemetry each on its own."""
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in family.samples:
        labels: Mapping[str, str] = sample.labels
        key = tuple(sorted((name, value) for name, value in labels.items() if name != "le"))
        if sample.name.endswith("_bucket"):
            buckets.setdefault(key, []).append((float(labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            sums[key] = sample.value
    points = []
    for key, found in buckets.items():
        found.sort()
        counts = [int(value - before) for (_, value), before in zip(found, [0.0, *(v for _, v in found)], strict=False)]
        points.append(
            HistogramDataPoint(
                attributes=dict(key),
                start_time_unix_nano=began,
                time_unix_nano=now,
                count=int(found[-1][1]),
                sum=sums.get(key, 0.0),
                bucket_counts=counts,
                explicit_bounds=[bound for bound, _ in found[:-1]],
                min=float("nan"),
                max=float("nan"),
            )
        )
    return points
