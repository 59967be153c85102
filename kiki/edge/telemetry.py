"""Logs as JSON lines on stdout, and metrics for Prometheus. Nothing personal goes into either.

The library never configures logging; only processes that kiki starts do.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric

METRICS_CONTENT_TYPE = CONTENT_TYPE_LATEST

request_id: ContextVar[str] = ContextVar("request_id", default="")

_SECRET_FIELD = re.compile(r"customer|token|authorization|password|secret|cookie|email|phone|ltv", re.IGNORECASE)
_QUERY = re.compile(r"\?[^\s\"'#]*")

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def redacted(text: str) -> str:
    """The text without query strings, which may name a person."""
    return _QUERY.sub("?…", text) if "?" in text else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, message, request_id, and the fields given as `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        current = request_id.get()
        if current:
            line["request_id"] = current
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            for name, value in fields.items():
                shown = "***" if _SECRET_FIELD.search(name) else value
                line[name] = redacted(shown) if isinstance(shown, str) else shown
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def configure_logging(level: str = "info", stream: IO[str] | None = None) -> None:
    """Send everything to `stream` (stdout) as JSON lines, from `level` up."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("aiohttp.access", "asyncio", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def log(logger: logging.Logger, level: int, message: str, **fields: object) -> None:
    """A line with fields of its own."""
    if logger.isEnabledFor(level):
        logger.log(level, message, extra={"fields": fields})


class RequestMetrics:
    """Requests by route, method and status, and their durations. Kept by one event loop, without locks.

    prometheus_client's own counters take a lock and a dictionary of labels each time, several microseconds
    a request; here a request costs two additions, and labels are put together when somebody scrapes.
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._counts: dict[tuple[str, str, int], int] = {}
        self._durations: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        key = (route, method, status)
        self._counts[key] = self._counts.get(key, 0) + 1
        cells = self._durations.get(route)
        if cells is None:
            cells = self._durations[route] = [0] * (len(BUCKETS) + 1)
            self._sums[route] = 0.0
        cells[bisect_left(BUCKETS, seconds)] += 1
        self._sums[route] += seconds

    def collect(self) -> Iterator[Metric]:
        """The metrics as Prometheus wants them."""
        requests = CounterMetricFamily(
            "kiki_http_requests", "HTTP requests answered.", labels=("service", "route", "method", "status")
        )
        for (route, method, status), count in list(self._counts.items()):
            requests.add_metric((self._service, route, method, str(status)), count)
        yield requests
        seconds = HistogramMetricFamily(
            "kiki_http_request_seconds", "Time from request to answer.", labels=("service", "route")
        )
        for route, cells in list(self._durations.items()):
            seconds.add_metric((self._service, route), list(_cumulated(cells)), self._sums[route])
        yield seconds

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not ask for samples to learn the names."""
        return ()


def _cumulated(cells: list[int]) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip([*map(str, BUCKETS), "+Inf"], cells, strict=True):
        total += count
        yield bound, total


def render_metrics(registry: CollectorRegistry) -> bytes:
    """What a scrape is answered."""
    return generate_latest(registry)
