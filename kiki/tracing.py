"""One trace across services: who called whom, and where a request's time went. No personal data, ever.

A span here is a few numbers in a slot of a queue; `kiki.otlp` hands what was sampled to OpenTelemetry's exporter on a thread
of its own. The SDK's own spans cost 10 to 50 µs each, which is as much as a whole decision: these cost about one.
Names and attributes are fixed words, route patterns and numbers; nothing that a caller wrote stands in them.

Nothing happens until a process calls `use`. Identifiers and the header are those of W3C Trace Context.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from enum import IntEnum
from random import Random
from time import time_ns
from types import TracebackType
from typing import Final

Attribute = str | int | float | bool

HEADER: Final = "traceparent"
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_getrandbits = Random().getrandbits  # seeded by the system, whatever somebody does to the module's own
_LOW_BITS: Final = (1 << 64) - 1


class Kind(IntEnum):
    """OpenTelemetry's kinds of spans, by their numbers in its API."""

    INTERNAL = 0
    SERVER = 1
    CLIENT = 2


class Span:
    """Some work with a beginning and an end. What is not sampled has its ids alone, for logs and for whoever is called."""

    __slots__ = (
        "attributes",
        "ended",
        "failed",
        "kind",
        "name",
        "parent_id",
        "sampled",
        "span_id",
        "started",
        "trace_id",
    )

    def __init__(self, trace_id: int, parent_id: int, name: str, kind: Kind, *, sampled: bool) -> None:
        self.trace_id = trace_id
        self.span_id = _getrandbits(64) or 1
        self.parent_id = parent_id
        self.sampled = sampled
        self.name = name
        self.kind = kind
        self.started = time_ns() if sampled else 0
        self.ended = 0
        self.attributes: Mapping[str, Attribute] = {}
        self.failed = False

    @property
    def header(self) -> str:
        """The header that makes whoever is called a part of this trace."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.sampled:02x}"

    @property
    def ids(self) -> tuple[str, str]:
        """Trace and span as logs name them."""
        return f"{self.trace_id:032x}", f"{self.span_id:016x}"


class Sampler:
    """Which traces are kept: a share of those that begin here, and of those that came from elsewhere what they said."""

    def __init__(self, share: float, *, parent_based: bool = True) -> None:
        self.below = round(share * (1 << 64))
        """A trace that begins here is kept when its id's lower half is below this."""
        self._parent_based = parent_based

    def keeps(self, trace_id: int, parent_sampled: bool | None) -> bool:
        """True when a span of this trace is kept; every service with the same share decides alike."""
        if parent_sampled is not None and self._parent_based:
            return parent_sampled
        return trace_id & _LOW_BITS < self.below


def _unsampled(trace_id: int) -> Span:
    """What most requests have: the ids alone. The rest of a span is never read where nothing is sampled."""
    span = Span.__new__(Span)
    span.trace_id, span.span_id, span.sampled = trace_id, _getrandbits(64) or 1, False
    return span


class Tracer:
    """Begins traces, and gives finished spans to `keep`, which must return at once and never raise."""

    def __init__(self, sampler: Sampler, keep: Callable[[Span], None]) -> None:
        self._sampler = sampler
        self.keep = keep

    def begin(self, name: str, kind: Kind, parent: str | None) -> Span:
        """A span of the trace that `parent` (a `traceparent` header) names, or the first one of its own."""
        found = _PARENT.fullmatch(parent) if parent else None
        trace_id = int(found[1], 16) if found else 0
        parent_id = int(found[2], 16) if found else 0
        if not trace_id or not parent_id:
            trace_id = _getrandbits(128) or 1
            if trace_id & _LOW_BITS >= self._sampler.below:
                return _unsampled(trace_id)
            return Span(trace_id, 0, name, kind, sampled=True)
        said = bool(int(found[3], 16) & 1) if found else None
        return Span(trace_id, parent_id, name, kind, sampled=self._sampler.keeps(trace_id, said))


_current: Final[ContextVar[Span | None]] = ContextVar("kiki_span", default=None)
_tracer: Tracer | None = None


def use(tracer: Tracer | None) -> None:
    """Trace from now on with this one; None: trace nothing."""
    global _tracer
    _tracer = tracer


def tracer() -> Tracer | None:
    """The one in use."""
    return _tracer


def enter(span: Span) -> Token[Span | None]:
    """Make a span the current one of this task or thread."""
    return _current.set(span)


def leave(token: Token[Span | None]) -> None:
    """Make the one before it the current one again."""
    _current.reset(token)


def end(span: Span, attributes: Mapping[str, Attribute], *, failed: bool = False) -> None:
    """Finish a span; one that is not sampled is forgotten."""
    if span.sampled and _tracer is not None:
        span.attributes, span.failed, span.ended = attributes, failed, time_ns()
        _tracer.keep(span)


def ids() -> tuple[str, str] | None:
    """Trace and span of what runs now; None outside of any."""
    span = _current.get()
    return None if span is None else span.ids


def current() -> Span | None:
    """The span of what runs now."""
    return _current.get()


def carried(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers of a call that is made now, with `traceparent` where there is a trace."""
    span = _current.get()
    return headers if span is None else {**headers, HEADER: span.header}


def metadata(given: tuple[tuple[str, str], ...] | None) -> tuple[tuple[str, str], ...] | None:
    """The metadata of a gRPC call that is made now, with `traceparent` where there is a trace."""
    span = _current.get()
    return given if span is None else (*(given or ()), (HEADER, span.header))


class within:  # noqa: N801  # read as a word: `with tracing.within(span):`
    """Do something as a part of a span that another task began; None: as a part of none."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def __enter__(self) -> None:
        self._token = _current.set(self._span)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


class child:  # noqa: N801  # read as a word: `with tracing.child("ledger commit"):`
    """Time a part of the current span: a call to another service, a commit. Costs next to nothing where nothing is sampled."""

    __slots__ = ("_attributes", "_kind", "_name", "_span", "_token")

    def __init__(
        self, name: str, kind: Kind = Kind.INTERNAL, attributes: Mapping[str, Attribute] | None = None
    ) -> None:
        self._name = name
        self._kind = kind
        self._attributes = attributes
        self._span: Span | None = None

    def __enter__(self) -> Span | None:
        parent = _current.get()
        if parent is None or not parent.sampled or _tracer is None:
            return None
        span = self._span = Span(parent.trace_id, parent.span_id, self._name, self._kind, sampled=True)
        self._token = _current.set(span)
        return span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        span = self._span
        if span is not None:
            _current.reset(self._token)
            end(span, self._attributes or {}, failed=kind is not None)
