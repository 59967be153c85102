"""Traces and metrics arrive at a collector that speaks OTLP; what is personal never does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kiki import otlp, tracing
from kiki.errors import SettingsError
from kiki.settings import OtelSettings, parse_listen
from tests.otlp_collector import Collector, collector
from tests.servers import free_port


@pytest.fixture(name="collector")
def _collector() -> Iterator[tuple[Collector, str]]:
    with collector() as found:
        yield found


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    yield
    tracing.use(None)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine, what is left at the end is sent: it takes as long as it takes."""
    monkeypatch.setattr(otlp, "_END_SECONDS", 60.0)


def settings_of(**environ: str) -> OtelSettings | None:
    return parse_listen(environ).otel


def test_a_trace_arrives_whole_with_its_resource(collector, patience, monkeypatch):
    found, address = collector
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    exporting = otlp.start(settings_of(OTEL_EXPORTER_OTLP_ENDPOINT=address), CollectorRegistry(), "syncshield")
    tracer = tracing.tracer()
    span = tracer.begin("GET /check", tracing.Kind.SERVER, f"00-{7:032x}-{9:016x}-01")
    token = tracing.enter(span)
    with tracing.child("ledger COMMIT", tracing.Kind.CLIENT, {"db.system.name": "sqlite"}):
        assert f"{7:032x}" == tracing.ids()[0]
    with pytest.raises(ValueError), tracing.child("redis EVALSHA"):
        raise ValueError
    tracing.leave(token)
    tracing.end(span, {"http.route": "/check", "http.response.status_code": 503}, failed=True)
    exporting.close()

    commit, script, server = found.spans
    assert {7} == {int.from_bytes(each.trace_id, "big") for each in found.spans}
    assert 9 == int.from_bytes(server.parent_span_id, "big")
    assert {server.span_id} == {commit.parent_span_id, script.parent_span_id}
    assert [0, 2, 2] == [commit.status.code, script.status.code, server.status.code]
    assert [3, 1, 2] == [commit.kind, script.kind, server.kind]
    assert server.start_time_unix_nano <= commit.start_time_unix_nano <= commit.end_time_unix_nano
    assert {"syncshield", "test"} <= set(found.resources[0].values())


def test_metrics_arrive_as_prometheus_has_them(collector, patience):
    found, address = collector
    registry = CollectorRegistry()
    Counter("orders", "How many.", ["kind"], registry=registry).labels("new").inc(3)
    Gauge("depth", "How deep.", registry=registry).set(2.5)
    times = Histogram("wait_seconds", "How long.", buckets=(0.1, 1.0), registry=registry)
    for seconds in (0.05, 0.5, 0.7, 5):
        times.observe(seconds)
    otlp.start(settings_of(OTEL_EXPORTER_OTLP_ENDPOINT=address), registry, "syncvalue").close()
    named = {each.name: each for each in found.metrics}
    (point,) = named["orders"].sum.data_points
    assert (3, True, "new") == (
        point.as_double,
        named["orders"].sum.is_monotonic,
        point.attributes[0].value.string_value,
    )
    assert 2.5 == named["depth"].gauge.data_points[0].as_double
    (point,) = named["wait_seconds"].histogram.data_points
    assert ([1, 2, 1], [0.1, 1.0], 4) == (list(point.bucket_counts), list(point.explicit_bounds), point.count)
    assert pytest.approx(6.25) == point.sum
    assert "kiki_telemetry_dropped" in named


def test_a_collector_that_is_away_costs_spans_and_no_time(caplog):
    registry = CollectorRegistry()
    address = f"127.0.0.1:{free_port()}"
    exporting = otlp.start(settings_of(OTEL_EXPORTER_OTLP_ENDPOINT=address), registry, "syncflow")
    tracer, began = tracing.tracer(), time.perf_counter()
    for _ in range(otlp.QUEUE_MAX + otlp.BATCH_MAX + 100):
        tracing.end(tracer.begin("work", tracing.Kind.INTERNAL, None), {})
    assert time.perf_counter() - began < 10
    assert registry.get_sample_value("kiki_telemetry_dropped_total", {"reason": "queue_full"}) >= 100
    began = time.perf_counter()
    exporting.close()
    assert time.perf_counter() - began < 2 * otlp._END_SECONDS + 20
    assert not exporting._thread.is_alive()


@pytest.mark.parametrize(
    ("environ", "share", "parent_based"),
    [
        ({}, 1.0, True),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}, 0.1, True),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, 0.25, False),
        ({"OTEL_TRACES_SAMPLER": "always_off", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, 0.0, False),
    ],
)
def test_opentelemetrys_own_variables_say_what_is_kept(environ, share, parent_based):
    found = settings_of(OTEL_EXPORTER_OTLP_ENDPOINT="collector:4317", **environ)
    assert (share, parent_based) == (found.share, found.parent_based)
    assert ("http://collector:4317", True) == (found.endpoint, found.insecure)


@pytest.mark.parametrize("address", ["localhost:99999", "collector:4317/?a", "grpc://collector:4317", "me:word@c:4317"])
def test_an_address_that_is_none_is_told_what_is_accepted(address):
    with pytest.raises(SettingsError) as told:
        settings_of(OTEL_EXPORTER_OTLP_ENDPOINT=address)
    said = "expected a collector's host:port, or its http:// or https:// URL without user, query or fragment, for example localhost:4317"
    assert told.value.problems[0].endswith(said)
    assert "word@" not in told.value.problems[0]


def test_without_a_collector_or_when_disabled_nothing_is_exported():
    assert settings_of() is None
    assert settings_of(OTEL_EXPORTER_OTLP_ENDPOINT="https://c:4317", OTEL_SDK_DISABLED="true") is None
    assert otlp.start(None, CollectorRegistry(), "syncshield") is None
    assert tracing.tracer() is None


@pytest.mark.parametrize(
    "parent",
    [
        None,
        "",
        "garbage",
        f"00-{0:032x}-{1:016x}-01",
        f"00-{1:032x}-{0:016x}-01",
        f"ff-{1:032x}-{1:016x}-01",
        "00-1-2-01",
    ],
)
def test_a_header_that_names_no_trace_begins_a_new_one(parent):
    tracer = tracing.Tracer(tracing.Sampler(1.0), lambda _: None)
    span = tracer.begin("x", tracing.Kind.SERVER, parent)
    assert 0 == span.parent_id
    assert span.sampled
    assert span.trace_id > 1


def test_a_trace_is_kept_or_not_as_its_caller_said():
    never = tracing.Tracer(tracing.Sampler(0.0), lambda _: None)
    assert never.begin("x", tracing.Kind.SERVER, f"00-{1:032x}-{1:016x}-01").sampled
    always = tracing.Tracer(tracing.Sampler(1.0), lambda _: None)
    assert not always.begin("x", tracing.Kind.SERVER, f"00-{1:032x}-{1:016x}-00").sampled


def test_a_share_is_kept_and_the_same_one_everywhere():
    kept = []
    here, there = (tracing.Tracer(tracing.Sampler(0.1), kept.append) for _ in range(2))
    spans = [here.begin("x", tracing.Kind.SERVER, None) for _ in range(20_000)]
    assert 1600 < sum(span.sampled for span in spans) < 2400
    assert all(there._sampler.keeps(span.trace_id, None) == span.sampled for span in spans)


def test_what_is_not_sampled_still_names_its_trace_and_measures_nothing():
    kept = []
    tracing.use(tracing.Tracer(tracing.Sampler(0.0), kept.append))
    span = tracing.tracer().begin("x", tracing.Kind.SERVER, None)
    with tracing.within(span):
        with tracing.child("inside") as inner:
            assert inner is None
        assert span.ids == tracing.ids()
        assert f"00-{span.ids[0]}-{span.ids[1]}-00" == tracing.carried({"a": "b"})["traceparent"]
    tracing.end(span, {})
    assert [] == kept
    assert tracing.ids() is None
    assert {"a": "b"} == tracing.carried({"a": "b"})


async def test_each_task_and_thread_has_its_own_span():
    kept = []
    tracing.use(tracing.Tracer(tracing.Sampler(1.0), kept.append))

    async def work(name):
        with tracing.within(tracing.tracer().begin(name, tracing.Kind.SERVER, None)), tracing.child(name):
            await asyncio.sleep(0)
            with tracing.child(f"{name} below"):
                await asyncio.sleep(0)

    await asyncio.gather(work("a"), work("b"))
    thread = threading.Thread(target=lambda: kept.append(tracing.ids()))
    thread.start()
    thread.join()
    assert kept.pop() is None
    traces = {}
    for span in kept:
        traces.setdefault(span.trace_id, set()).add(span.name)
    assert [{"a", "a below"}, {"b", "b below"}] == sorted(traces.values(), key=sorted)
