"""A service as values: its routes, its checks, and what happens when it starts, reloads and stops."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from kiki.edge.answer import Answer
from kiki.edge.request import Request

Handler = Callable[[Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One path and method. `{name}` in the path captures one segment."""

    method: str
    path: str
    handler: Handler
    role: str | None = None
    """Which role its caller needs wherever callers must say who they are."""
    open_inside: bool = False
    """The guide's routes: on the internal port they need no token even where tokens exist."""
    self_proving: bool = False
    """Callers prove themselves by a signature or an opaque token, on the public port too."""
    plain: bool = False
    """Errors are plain text unless `Accept` asks for JSON."""


@dataclass(frozen=True, slots=True)
class Check:
    """One part that readiness depends on."""

    name: str
    ok: bool
    detail: str = ""


async def _nothing() -> None:
    """For a service that has nothing to do at that point."""


@dataclass(frozen=True, slots=True)
class Service:
    """What `kiki.edge.run` runs."""

    name: str
    routes: Sequence[Route]
    checks: Callable[[], Awaitable[Sequence[Check]]]
    registry: CollectorRegistry
    openapi: Mapping[str, Any] = field(default_factory=dict)
    on_start: Callable[[], Awaitable[None]] = _nothing
    on_reload: Callable[[], Awaitable[None]] = _nothing
    on_close: Callable[[], Awaitable[None]] = _nothing


class Routes:
    """Finds the route of a request: literal paths by one look-up, patterns in order."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._literal: dict[str, dict[str, Route]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], dict[str, Route]]] = {}
        for route in routes:
            if "{" in route.path:
                pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(route.path)))
                methods = self._patterns.setdefault(route.path, (pattern, {}))[1]
            else:
                methods = self._literal.setdefault(route.path, {})
            methods[route.method] = route

    def find(self, path: str) -> tuple[dict[str, Route], Mapping[str, str]] | None:
        """The routes of a path by method, and what its pattern captured."""
        methods = self._literal.get(path)
        if methods is not None:
            return methods, {}
        for pattern, methods in self._patterns.values():
            match = pattern.fullmatch(path)
            if match is not None:
                return methods, match.groupdict()
        return None
