"""What a service tells the web layer about itself, and which of its routes a path means."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry

from kiki.telemetry import HttpMetrics, RouteMetrics, new_registry
from kiki.web.request import Request, decode_component
from kiki.web.tokens import ROLES, Role

Handler = Callable[[Request], Awaitable[web.StreamResponse]]
Hook = Callable[[], Awaitable[None]]

_PATH = re.compile(r"(/[A-Za-z0-9._:~-]+|/\{[a-z][a-z0-9_]*\})+|/")
_METHOD = re.compile(r"[A-Z]+")


@dataclass(frozen=True, slots=True)
class Check:
    """One part that a service needs, and whether it works; `detail` is for people and holds no personal data."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """One path and what it takes. Methods are exactly those listed: a GET that spends must not answer HEAD too.

    `path` may hold `{names}`, each one whole segment; their decoded values arrive in `request.params`.
    `role`: what a caller needs where tokens are asked for; None asks for a valid token of any role on the public
    port and for nothing inside.
    `anonymous_inside`: stays open on the internal port even when there is a token file (the guide's routes).
    `self_proving`: the handler itself checks a signature or an opaque token (webhooks, one-click unsubscribe), so
    neither bearer token nor same-site request is asked for, on either port.
    `plain`: refusals are plain text unless the caller prefers JSON; all other routes always answer JSON.
    `probe`: asked by machines that know only an address (kubelet, Prometheus): KIKI_ALLOWED_HOSTS and the rate
    limit do not apply to it.
    """

    path: str
    handler: Handler
    methods: tuple[str, ...] = ("GET",)
    role: Role | None = None
    anonymous_inside: bool = False
    self_proving: bool = False
    plain: bool = False
    probe: bool = False

    def __post_init__(self) -> None:
        if not _PATH.fullmatch(self.path):
            raise ValueError(f"{self.path!r} is not a route: write /segments/{{name}}/…")
        if not self.methods or not all(_METHOD.fullmatch(method) for method in self.methods):
            raise ValueError(f"{self.path}: methods are upper-case words, at least one")
        if self.role is not None and self.role not in ROLES:
            raise ValueError(f"{self.path}: {self.role!r} is not a role")


async def _nothing_to_check() -> Iterable[Check]:
    return ()


@dataclass(frozen=True, slots=True)
class Service:
    """An HTTP service: its routes and what belongs to its life.

    `on_start` runs after the ports are reserved and before the first request is accepted; `on_drain` when the service begins
    to stop, so that answers without an end find one; `on_close` after the last request was answered; `on_reload` on SIGHUP, and again what it raises is logged and changes nothing.
    `checks` says for /readyz which parts work; it must not take long, and one that raises counts as not ready.
    `openapi` is served at /openapi.json. `exposes` says what a caller could do who should not: it ends the warning of a
    port that is open beyond this machine and asks for no token.
    """

    name: str
    routes: Sequence[Route]
    checks: Callable[[], Awaitable[Iterable[Check]]] = _nothing_to_check
    on_start: Hook | None = None
    on_drain: Hook | None = None
    on_close: Hook | None = None
    on_reload: Hook | None = None
    openapi: Mapping[str, Any] | None = None
    exposes: str = "SPEND"
    registry: CollectorRegistry = field(default_factory=new_registry)


class Entry:
    """A route as the edge uses it: everything that can be known before a request comes is worked out here."""

    __slots__ = ("always_json", "handler", "metrics", "role", "route")

    def __init__(self, route: Route, metrics: RouteMetrics) -> None:
        self.route = route
        self.handler = route.handler
        self.metrics = metrics
        self.always_json = not route.plain
        self.role = route.role


class Table:
    """Finds the route for a path: one dict look-up for fixed paths, a short list for those with `{names}`."""

    __slots__ = ("_patterns", "fixed", "unknown")

    def __init__(self, routes: Iterable[Route], metrics: HttpMetrics) -> None:
        self.fixed: dict[str, dict[str, Entry]] = {}
        self._patterns: dict[tuple[str, ...], dict[str, Entry]] = {}
        self.unknown: Final = metrics.route("unknown")
        for route in routes:
            entry = Entry(route, metrics.route(route.path))
            segments = tuple(route.path.split("/")[1:])
            methods = (
                self._patterns.setdefault(segments, {})
                if any(segment.startswith("{") for segment in segments)
                else self.fixed.setdefault(route.path, {})
            )
            for method in route.methods:
                if method in methods:
                    raise ValueError(f"{method} {route.path} is routed twice")
                methods[method] = entry

    def search(self, target: str) -> tuple[dict[str, Entry] | None, Mapping[str, str]]:
        """The methods of a path that is not fixed as it was sent, and its parameters; (None, {}) when there are none.

        `target` is the request's target up to the `?`. Raises `InvalidInput` for escapes that are no UTF-8.
        """
        if not target.startswith("/"):
            # The absolute form, http://host/path, that proxies are sent.
            _, _, rest = target.partition("://")
            target = f"/{rest.partition('/')[2]}"
        # Split first, then decode: an escaped slash is a part of a value.
        segments = [decode_component(segment, "the path") for segment in target.split("/")[1:]]
        path = "/" + "/".join(segments)
        # A decoded slash must not turn one segment into two.
        if (methods := self.fixed.get(path)) is not None and path.count("/") == len(segments):
            return methods, {}
        for pattern, candidate in self._patterns.items():
            if len(pattern) == len(segments) and all(
                segment if expected.startswith("{") else expected == segment
                for expected, segment in zip(pattern, segments, strict=True)
            ):
                names = zip(pattern, segments, strict=True)
                return candidate, {name[1:-1]: value for name, value in names if name.startswith("{")}
        return None, {}
