"""How often and how fast each gRPC method answered, for Prometheus and for a health report."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from kiki.telemetry import BUCKETS, RouteMetrics

LATEST: Final = 4096
"""How many of the latest calls the health report's latencies are about."""


class CallMetrics(Collector):
    """The numbers of one gRPC server, changed on the event loop's thread only."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._methods: dict[str, RouteMetrics] = {}
        self._latest: deque[float] = deque(maxlen=LATEST)
        self._day = 0
        self._today = 0
        self.in_work = 0
        self.began = 0
        """Calls that began."""
        if registry is not None:
            registry.register(self)

    def record(self, method: str, status: str, seconds: float) -> None:
        """Count one call that ended; `method` is the whole name, `status` gRPC's code."""
        numbers = self._methods.get(method)
        if numbers is None:
            numbers = self._methods[method] = RouteMetrics(method)
        numbers.record(status, 0, seconds)
        self._latest.append(seconds)

    def count_predictions(self, number: int, day: int) -> None:
        """Count customers that were answered on `day`, a number that grows with the days."""
        if day != self._day:
            self._day, self._today = day, 0
        self._today += number

    def predictions_on(self, day: int) -> int:
        """Customers that were answered on this day."""
        return self._today if day == self._day else 0

    def latencies(self) -> tuple[float, float, float]:
        """Mean, 95th and 99th percentile of the latest calls in seconds; zeros before the first one."""
        ordered = sorted(self._latest)
        if not ordered:
            return 0.0, 0.0, 0.0
        last = len(ordered) - 1
        return sum(ordered) / len(ordered), ordered[round(0.95 * last)], ordered[round(0.99 * last)]

    def describe(self) -> list[Metric]:
        """Every family without its samples."""
        return list(self._families())

    def collect(self) -> Iterator[Metric]:
        """The metric families with their samples of now."""
        calls, durations = self._families()
        for name, numbers in list(self._methods.items()):
            below, buckets = 0, []
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), list(numbers.buckets), strict=True):
                below += count
                buckets.append((bound, float(below)))
            durations.add_metric([name], buckets, numbers.seconds)
            for (status, _), count in list(numbers.counts.items()):
                calls.add_metric([name, status], count)
        yield calls
        yield durations

    @staticmethod
    def _families() -> tuple[CounterMetricFamily, HistogramMetricFamily]:
        return (
            CounterMetricFamily("kiki_grpc_calls", "Calls that ended.", labels=["method", "status"]),
            HistogramMetricFamily(
                "kiki_grpc_call_seconds", "Time from a call's message to its end, in seconds.", labels=["method"]
            ),
        )
