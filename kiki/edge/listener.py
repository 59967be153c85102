"""One listening port: every request passes here once on its way down and once on its way up."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from aiohttp import web

from kiki.errors import Forbidden, KikiError, Unauthenticated
from kiki.edge.telemetry import METRICS_CONTENT_TYPE, RequestMetrics, log, render_metrics, request_id
from kiki.edge.answer import Answer, error_answer, json_answer, plain_answer, refused, retry_header
from kiki.edge.caller import HostRule, Principal, Rate, Tokens, is_cross_site
from kiki.edge.request import Request, Stop
from kiki.edge.route import Route, Routes, Service

logger = logging.getLogger("kiki.edge")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UNKNOWN = "(unknown)"


@dataclass(frozen=True, slots=True)
class ListenerRules:
    """What one port demands of its callers."""

    public: bool
    hosts: HostRule
    tokens: Tokens | None
    rate: float = 0.0
    """Requests a second of one caller; 0: no limit."""
    body_bytes_max: int = 1 << 20
    body_seconds_max: float = 10.0
    access_log: bool = False


class Listener:
    """Takes requests from aiohttp's server and answers them through the service's routes."""

    def __init__(self, service: Service, rules: ListenerRules, metrics: RequestMetrics) -> None:
        self._service = service
        self._rules = rules
        self._metrics = metrics
        self._routes = Routes([*service.routes, *self._own_routes()])
        self._rate = Rate(rules.rate) if rules.rate else None
        self._ids = count()
        self._id_prefix = secrets.token_hex(4)
        self.draining = False

    def _own_routes(self) -> Sequence[Route]:
        return (
            Route("GET", "/livez", self._livez, "read", open_inside=True, plain=True),
            Route("GET", "/readyz", self._readyz, "read", open_inside=True),
            Route("GET", "/metrics", self._metrics_page, "read", open_inside=True, plain=True),
            Route("GET", "/openapi.json", self._openapi, "read", open_inside=True),
        )

    # -- down and up ---------------------------------------------------------------------------------

    async def handle(self, raw: web.BaseRequest) -> Answer:
        """Answer one request, whatever it is."""
        started = time.perf_counter()
        given = raw.headers.get("X-Request-Id")
        identity = given if given and _REQUEST_ID.fullmatch(given) else f"{self._id_prefix}{next(self._ids):08x}"
        request_id.set(identity)
        path, _, query = raw.path_qs.partition("?")
        request = Request(raw, path, query)
        request.body_bytes_max, request.body_seconds_max = self._rules.body_bytes_max, self._rules.body_seconds_max
        route: Route | None = None
        found = self._routes.find(path)
        try:
            if found is not None:
                methods, request.parts = found
                route = methods.get(raw.method) or (methods.get("GET") if raw.method == "HEAD" else None)
                if raw.method == "HEAD" and route is not None and route.role not in (None, "read"):
                    route = None
            answer = self._stopped_at_the_door(request, route)
            if answer is None:
                if route is None:
                    answer = self._nowhere(request, None if found is None else sorted(found[0]))
                else:
                    answer = await route.handler(request)
        except KikiError as error:
            answer = error_answer(error, json=self._json(request, route))
            if answer.status >= 500:
                log(logger, logging.WARNING, "refused", code=error.code, route=route.path if route else _UNKNOWN)
        except Stop as stop:
            answer = refused(stop.status, stop.code, stop.args[0], json=self._json(request, route))
            # The rest of the body is not read, so the connection cannot be used again.
            answer.closing = stop.status in (408, 413)
        except Exception:
            logger.exception("a request failed")
            answer = refused(
                500, "internal", f"kiki failed; the log has the request id {identity}", json=self._json(request, route)
            )
        answer.request_id = identity
        if self.draining:
            answer.closing = True
        name = _UNKNOWN if route is None else route.path
        seconds = time.perf_counter() - started
        self._metrics.observe(name, raw.method if route else "*", answer.status, seconds)
        if self._rules.access_log:
            log(
                logger,
                logging.INFO,
                "request",
                method=raw.method,
                route=name,
                status=answer.status,
                milliseconds=round(seconds * 1000, 3),
                actor=request.actor,
            )
        return answer

    def _json(self, request: Request, route: Route | None) -> bool:
        if route is not None and not route.plain:
            return True
        return request.wants_json() or (route is None and request.path.startswith("/v1"))

    def _stopped_at_the_door(self, request: Request, route: Route | None) -> Answer | None:
        headers = request.raw.headers
        host, rules = headers.get("Host"), self._rules
        json = self._json(request, route) if route is None else not route.plain
        if not rules.hosts.admits(host):
            return refused(
                421,
                "wrong_host",
                "this service does not answer under that Host; name it in KIKI_ALLOWED_HOSTS",
                json=json,
            )
        site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
        if (site is not None or origin is not None) and is_cross_site(site, origin, host):
            return refused(403, "cross_site", "requests from other web sites are refused", json=json)
        self._admit_caller(request, route, headers.get("Authorization"))
        if self._rate is not None:
            caller = request.principal.name if request.principal else str(request.raw.remote)
            wait = self._rate.wait(caller)
            if wait:
                return refused(
                    429,
                    "too_many_requests",
                    f"more than {rules.rate:g} requests a second",
                    json=json,
                    headers=retry_header(wait),
                )
        return None

    def _admit_caller(self, request: Request, route: Route | None, authorization: str | None) -> None:
        rules = self._rules
        if rules.tokens is None or (route is not None and route.self_proving):
            return
        if authorization is None and not rules.public and route is not None and route.open_inside:
            return
        request.principal = principal = self._principal(authorization, rules.tokens)
        if principal is None:
            raise Unauthenticated(
                "a valid bearer token is needed here", hint="send the header Authorization: Bearer <token>"
            )
        if route is not None and route.role is not None and not principal.may(route.role):
            raise Forbidden(f"{principal.name} lacks the role {route.role!r}")

    @staticmethod
    def _principal(authorization: str | None, tokens: Tokens) -> Principal | None:
        scheme, _, token = (authorization or "").partition(" ")
        return tokens.find(token.strip()) if scheme.lower() == "bearer" and token.strip() else None

    def _nowhere(self, request: Request, methods: list[str] | None) -> Answer:
        json = self._json(request, None)
        if methods is None:
            return refused(404, "no_route", "there is nothing at this path; see /openapi.json", json=json)
        return refused(
            405,
            "method_not_allowed",
            f"this path takes {' and '.join(methods)}",
            json=json,
            headers={"Allow": ", ".join(methods)},
        )

    # -- what every service answers ------------------------------------------------------------------

    async def _livez(self, _: Request) -> Answer:
        return plain_answer("ok\n")

    async def _readyz(self, _: Request) -> Answer:
        checks = [] if self.draining else await self._service.checks()
        ready = not self.draining and all(check.ok for check in checks)
        parts = {check.name: {"ok": check.ok, "detail": check.detail} for check in checks}
        if self.draining:
            parts["drain"] = {"ok": False, "detail": "the service is stopping"}
        return json_answer({"ready": ready, "service": self._service.name, "checks": parts}, 200 if ready else 503)

    async def _metrics_page(self, _: Request) -> Answer:
        return Answer(200, render_metrics(self._service.registry), METRICS_CONTENT_TYPE)

    async def _openapi(self, _: Request) -> Answer:
        return json_answer(self._service.openapi)
