"""The routes of the compliance report and of the register of breaches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from kiki.clock import Clock
from kiki.members import require_no_query
from kiki.shield import wire_compliance
from kiki.shield.async_guard import AsyncGuard
from kiki.shield.caller import actor_of
from kiki.shield.compliance_report import Period
from kiki.shield.compliance_survey import survey
from kiki.shield.consent_routes import EVERY_METHOD, guide_route
from kiki.shield.fact import BreachDeclared
from kiki.shield.network import coarsened
from kiki.shield.probe import Surroundings
from kiki.shield.wire import dump
from kiki.web import Reply, Request, Route, pairs, read_json
from kiki.web.reply import JSON


class ComplianceRoutes:
    """Serves the report over what `surroundings` gives, which is called on a thread for each report."""

    def __init__(
        self, surroundings: Callable[[], Surroundings], asynchronous: Callable[[], AsyncGuard], clock: Clock
    ) -> None:
        self._surroundings = surroundings
        self._clock = clock
        self._asynchronous = asynchronous
        # A report goes through a whole period: one after the other, so that deciding keeps its share of the machine.
        self._reporting = asyncio.Lock()

    def routes(self) -> Sequence[Route]:
        """All of them. The original's is open inside, for the reason that `ConsentRoutes.routes` gives."""
        return [
            Route(
                "/compliance/report",
                guide_route(self._guide_report),
                EVERY_METHOD,
                role="privacy",
                anonymous_inside=True,
                plain=True,
            ),
            Route("/v1/compliance/report", self._report, role="privacy"),
            Route("/v1/breaches", self._declare, ("POST",), role="privacy"),
        ]

    async def _guide_report(self, request: Request) -> Reply:
        if request.can_read_body:
            require_no_query(pairs(request))
            return await self._answer(wire_compliance.report_body(await read_json(request), self._clock()))
        return await self._report(request)

    async def _report(self, request: Request) -> Reply:
        return await self._answer(wire_compliance.report_query(pairs(request), self._clock()))

    async def _answer(self, period: Period) -> Reply:
        async with self._reporting:
            report = await asyncio.to_thread(lambda: survey(self._surroundings(), period))
        return Reply(dump(report), JSON)

    async def _declare(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        change = wire_compliance.breach_body(
            await read_json(request), actor=actor_of(request), network=coarsened(request.remote or "")
        )
        declared: tuple[BreachDeclared, int] = await self._asynchronous().decide(change)
        return Reply(dump(wire_compliance.breach_reply(*declared)), JSON, 201)
