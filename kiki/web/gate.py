"""What the two ports of one service share: its routes and its numbers, whether it is draining, and what it says of itself.

`/livez`, `/readyz`, `/metrics` and `/openapi.json` are here, for every service alike.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Final

from kiki.errors import KikiError
from kiki.telemetry import HttpMetrics, log_event, render
from kiki.web.refusals import RouteUnknown
from kiki.web.reply import JSON, Reply, json_reply, plain
from kiki.web.request import Request
from kiki.web.routes import Check, Route, Service, Table

logger = logging.getLogger(__name__)

CHECKS_SECONDS_MAX: Final = 5.0


class Gate:
    """One service behind its ports."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.draining = False
        self.metrics = HttpMetrics(service.name, service.registry)
        self.table = Table([*service.routes, *self._own_routes()], self.metrics)
        self._openapi = json.dumps(service.openapi).encode() if service.openapi is not None else b""

    def _own_routes(self) -> list[Route]:
        taken = {route.path for route in self.service.routes}
        ways = ("GET", "HEAD")
        own = [
            Route("/livez", self._livez, ways, plain=True, probe=True),
            Route("/readyz", self._readyz, ways, probe=True),
            Route("/metrics", self._metrics, ways, role="read", anonymous_inside=True, plain=True, probe=True),
        ]
        if self.service.openapi is not None:
            own.append(Route("/openapi.json", self._describe, ways, role="read", anonymous_inside=True))
        return [route for route in own if route.path not in taken]

    async def nothing(self, _request: Request) -> Reply:
        """The handler of no route; never called."""
        raise RouteUnknown

    async def _livez(self, _request: Request) -> Reply:
        """The event loop turns; nothing else is asked."""
        return plain("alive")

    async def _readyz(self, _request: Request) -> Reply:
        """Every part by name, 200 when all work and nothing is being shut down."""
        checks = (
            [Check("draining", ok=False, detail="the service is stopping")] if self.draining else await self._checks()
        )
        ready = all(check.ok for check in checks)
        return json_reply(
            {
                "ready": ready,
                "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks],
            },
            200 if ready else 503,
            () if ready else (("Retry-After", "1"),),
        )

    async def _checks(self) -> list[Check]:
        try:
            async with asyncio.timeout(CHECKS_SECONDS_MAX):
                return list(await self.service.checks())
        except TimeoutError:
            return [Check("checks", ok=False, detail=f"no answer within {CHECKS_SECONDS_MAX:g} seconds")]
        except KikiError as error:
            return [Check("checks", ok=False, detail=str(error))]
        except Exception as error:
            log_event(logger, logging.ERROR, "the readiness checks failed", exc_info=error)
            return [Check("checks", ok=False, detail=type(error).__name__)]

    async def _metrics(self, _request: Request) -> Reply:
        body, content_type = render(self.service.registry)
        return Reply(body, content_type)

    async def _describe(self, _request: Request) -> Reply:
        return Reply(self._openapi, JSON)
