"""What a running process tells about itself: JSON log lines and Prometheus metrics, neither with personal data.

Only processes that we start call `configure_logging`; the library logs through the standard `logging` and leaves
its configuration to whoever imports it. Metrics live in a registry that is passed in, never in a global one.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, TextIO

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from kiki import tracing
from kiki.clock import to_iso

request_id: Final[ContextVar[str | None]] = ContextVar("kiki_request_id", default=None)
"""The id of the request that is being answered; every log line written meanwhile carries it."""

REDACTED: Final = "[redacted]"
DEPTH_MAX: Final = 6

# A query string carries customer ids, a URL's user part a password. These patterns only ever remove text.
_QUERY = re.compile(r"(?<=[\w/.:\]%~-])\?(?=[^\s\"'<>?]*[=&%])[^\s\"'<>]*")
_USER_PART = re.compile(r"(?<=://)[^\s/@\"'<>]*@")
_NAMED = re.compile(
    r"(?i)\b(customer\w*|(?:\w*_)?(?:token|authorization|password|secret|api_?key))(\"|')?(\s*[:=]\s*)"
    r"(\"[^\"]*\"?|'[^']*'?|(?:bearer\s+|basic\s+)?[^\s,;&\"'<>)\]}]+)"
)
_NAMED_KEY = re.compile(r"(?i)customer.*|(?:.*[_-])?(?:token|authorization|password|passwd|secret|api_?key|cookie)")


def redact_text(text: str) -> str:
    """The text without query strings, URL passwords, and what follows names such as `customer_id=` or `token:`."""
    if "?" in text:
        text = _QUERY.sub(f"?{REDACTED}", text)
    if "://" in text:
        text = _USER_PART.sub(f"{REDACTED}@", text)
    if ":" in text or "=" in text:
        text = _NAMED.sub(rf"\1\2\3{REDACTED}", text)
    return text


def redact(value: Any, depth: int = DEPTH_MAX) -> Any:
    """The value as JSON can hold it and as a log may: texts and named fields redacted, anything else as its text."""
    if isinstance(value, str):
        return redact_text(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # JSON has no NaN and no Infinity
    if depth <= 0:
        return "..."
    if isinstance(value, Mapping):
        return {
            redact_text(str(key)): REDACTED if _NAMED_KEY.fullmatch(str(key)) else redact(item, depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item, depth - 1) for item in value]
    return redact_text(str(value))


class JsonFormatter(logging.Formatter):
    """One JSON object per record: ts (RFC 3339, UTC), level, logger, event, request_id, trace_id, span_id, fields, exception.

    It never raises: a record that cannot be formatted is still a line that says so.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line without a line end."""
        try:
            event = record.getMessage()
        except Exception as error:
            event = f"{record.msg} (its arguments could not be formatted: {type(error).__name__})"
        line: dict[str, Any] = {
            "ts": to_iso(int(record.created * 1_000_000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": redact_text(event),
        }
        current = request_id.get()
        if current is not None:
            line["request_id"] = current
        traced = tracing.ids()
        if traced is not None:
            line["trace_id"], line["span_id"] = traced
        fields = getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            try:
                # A field never replaces what the line itself says.
                line |= {str(key): item for key, item in redact(fields).items() if str(key) not in line}
            except Exception as error:
                line["fields_error"] = type(error).__name__
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = _exception(record.exc_info)
        if record.stack_info:
            line["stack"] = redact_text(record.stack_info)
        # ensure_ascii keeps lone surrogates and line separators harmless, whatever the stream's encoding is.
        return json.dumps(line, ensure_ascii=True, default=str)


def _exception(
    info: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
) -> dict[str, str]:
    kind, error, trace = info
    if kind is None or error is None:
        return {}
    try:
        message = str(error)
    except Exception:
        message = "(the error cannot be shown)"
    return {
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "message": redact_text(message),
        "traceback": redact_text("".join(traceback.format_exception(kind, error, trace))),
    }


class _OurHandler(logging.StreamHandler[TextIO]):
    """Marks the handler that `configure_logging` made, so that configuring again replaces it."""


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """JSON lines from `level` (debug, info, warning, error) on, to `stream` (stdout); calling again replaces it."""
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _OurHandler)]:
        root.removeHandler(old)
    handler = _OurHandler(sys.stdout if stream is None else stream)
    handler.setFormatter(JsonFormatter())
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)


def log_event(
    logger: logging.Logger, level: int, event: str, *, exc_info: BaseException | bool | None = None, **fields: object
) -> None:
    """Log `event` (a fixed text, without values in it) with `fields` beside it."""
    if logger.isEnabledFor(level):
        logger.log(level, "%s", event, exc_info=exc_info, extra={"fields": fields}, stacklevel=2)


# Metrics

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the request histogram in seconds, inclusive as Prometheus wants them."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def new_registry() -> CollectorRegistry:
    """A registry of its own with what Prometheus expects of every Python process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def render(registry: CollectorRegistry) -> tuple[bytes, str]:
    """Every metric in the text format of Prometheus, and its content type."""
    return generate_latest(registry), CONTENT_TYPE_LATEST


class RouteMetrics:
    """How often and how fast one route answered. Plain numbers, changed by the event loop's thread only."""

    __slots__ = ("buckets", "counts", "route", "seconds")

    def __init__(self, route: str) -> None:
        self.route = route
        self.counts: dict[tuple[str, int], int] = {}
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def record(self, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        # prometheus_client's own Counter and Histogram take about 2.4 µs for this (a lock each, and the search
        # for the labelled child); these lines take about 0.4 µs, of a budget of a few for everything.
        key = (method, status)
        counts = self.counts
        counts[key] = counts.get(key, 0) + 1
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds


class HttpMetrics(Collector):
    """Requests and durations of one HTTP service, put together when Prometheus scrapes.

    Update it on the event loop's thread only; a scrape on another thread sees each number whole but not all of
    one moment, as with any Prometheus client.
    """

    def __init__(self, service: str, registry: CollectorRegistry | None = None) -> None:
        self._service = service
        self._routes: dict[str, RouteMetrics] = {}
        if registry is not None:
            registry.register(self)

    def route(self, route: str) -> RouteMetrics:
        """The numbers of one route, by its pattern and never by a path that a caller made up."""
        return self._routes.setdefault(route, RouteMetrics(route))

    def describe(self) -> list[Metric]:
        """Every family without its samples, so that registering finds a name that is taken."""
        return list(self._families())

    def collect(self) -> Iterator[Metric]:
        """The metric families with their samples of now."""
        requests, durations = self._families()
        for numbers in list(self._routes.values()):
            totals: dict[tuple[str, str], int] = {}
            for (method, status), count in list(numbers.counts.items()):
                # Methods are the caller's words: an unknown one must not become a time series of its own.
                key = (method if method in METHODS else "OTHER", str(status))
                totals[key] = totals.get(key, 0) + count
            for (method, status_text), count in totals.items():
                requests.add_metric([self._service, numbers.route, method, status_text], count)
            if totals:
                below, buckets = 0, []
                for bound, count in zip((*map(str, BUCKETS), "+Inf"), list(numbers.buckets), strict=True):
                    below += count
                    buckets.append((bound, float(below)))
                durations.add_metric([self._service, numbers.route], buckets, numbers.seconds)
        yield requests
        yield durations

    @staticmethod
    def _families() -> tuple[CounterMetricFamily, HistogramMetricFamily]:
        return (
            CounterMetricFamily(
                "kiki_http_requests", "Requests that were answered.", labels=["service", "route", "method", "status"]
            ),
            HistogramMetricFamily(
                "kiki_http_request_seconds",
                "Time from a request's head to its answer, in seconds.",
                labels=["service", "route"],
            ),
        )
