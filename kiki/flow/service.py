"""SyncFlow over HTTP: parse, one call on the runner, answer. Its runs are executed in the same process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from aiohttp import web

from kiki.clock import to_iso, wall_micros
from kiki.errors import KikiError
from kiki.flow import wire
from kiki.flow.campaign_runner import CampaignRunner
from kiki.flow.conversion import parse_conversions
from kiki.flow.flow_metrics import FlowMetrics
from kiki.flow.guard_line import UNAVAILABLE
from kiki.flow.openapi import openapi
from kiki.flow.plan_text import parse_plan
from kiki.flow.run_rows import RUNNING
from kiki.flow.value_upload import Uploaded
from kiki.members import require_no_query
from kiki.telemetry import log_event, new_registry
from kiki.web import Check, Reply, Request, Route, Service, json_reply, pairs, read_json, stream

if TYPE_CHECKING:
    from kiki.flow.bid_server import BidServer
    from kiki.value.call_metrics import CallMetrics

logger = logging.getLogger("kiki.flow")

EVENT_STREAM: Final = "text/event-stream"
_LOOK_SECONDS: Final = 0.25
_BEAT_SECONDS: Final = 15.0
_READY_SECONDS: Final = 1.0

Value = TypeVar("Value")


class FlowService:
    """The routes of SyncFlow over one runner; `bids` is its gRPC port, if it has one, and `calls` the numbers of that."""

    def __init__(self, runner: CampaignRunner, bids: BidServer | None = None, calls: CallMetrics | None = None) -> None:
        self._runner = runner
        self._bids = bids
        self._stopping = asyncio.Event()
        self._registry = new_registry()
        self._registry.register(FlowMetrics(runner))
        if calls is not None:
            self._registry.register(calls)

    def service(self) -> Service:
        """What `kiki.web.run` runs."""
        return Service(
            name="syncflow",
            routes=self._routes(),
            checks=self._checks,
            registry=self._registry,
            openapi=openapi(),
            exposes="START CAMPAIGNS THAT SPEND",
            on_start=self._start,
            on_reload=self._reload,
            on_drain=self._drain,
            on_close=self._close,
        )

    def _routes(self) -> Sequence[Route]:
        run = "/v1/runs/{run}"
        return [
            Route("/health", self._health, ("GET", "HEAD"), role="read", anonymous_inside=True, probe=True),
            Route("/v1/campaigns", self._campaigns, role="read"),
            Route("/v1/campaigns", self._begin, ("POST",), role="spend"),
            Route("/v1/campaigns:plan", self._preview, ("POST",), role="read"),
            Route("/v1/campaigns:upload", self._upload, ("POST",), role="spend"),
            Route("/v1/runs", self._runs, role="read"),
            Route(run, self._status, role="read"),
            Route(f"{run}/plan", self._plan, role="read"),
            Route(f"{run}/steps", self._steps, role="read"),
            Route(f"{run}/events", self._events, role="read"),
            Route(f"{run}/approvals", self._approve, ("POST",), role="admin"),
            Route(f"{run}/pause", self._teller("pause"), ("POST",), role="spend"),
            Route(f"{run}/resume", self._teller("resume"), ("POST",), role="spend"),
            Route(f"{run}/cancel", self._teller("cancel"), ("POST",), role="spend"),
            Route(f"{run}/reconcile", self._reconcile, ("POST",), role="spend"),
            Route("/v1/executors/{executor}/adopt", self._adopt, ("POST",), role="admin"),
        ]

    # -- plans ---------------------------------------------------------------------------------------

    async def _campaigns(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        return json_reply(wire.campaigns_reply(await _call(self._runner.runs)))

    async def _preview(self, request: Request) -> Reply:
        body = wire.read(wire.PlanBody, await read_json(request))
        plan = await _call(lambda: parse_plan(wire.plan_text(body.plan)))
        return json_reply(await _call(lambda: self._runner.preview(plan)))

    async def _begin(self, request: Request) -> Reply:
        body = wire.read(wire.StartBody, await read_json(request))

        def start() -> wire.StartReply:
            plan = parse_plan(wire.plan_text(body.plan))
            row = self._runner.store.run(self._runner.start(plan, again=body.again))
            return wire.StartReply(run=row.run, plan=row.plan_name, version=row.version, state=row.state)

        return json_reply(await _call(start), 201)

    async def _upload(self, request: Request) -> Reply:
        body = wire.read(wire.UploadBody, await read_json(request))

        def upload() -> Uploaded:
            plan = parse_plan(wire.plan_text(body.plan))
            given = parse_conversions(body.values, plan, wall_micros())
            return self._runner.upload_values(plan, body.campaign, given, purpose=body.purpose, dry_run=body.dry_run)

        return json_reply(await _call(upload))

    # -- runs ----------------------------------------------------------------------------------------

    async def _runs(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        rows = await _call(self._runner.runs)
        return json_reply(wire.RunsReply(runs=[wire.run_reply(row) for row in rows]))

    async def _status(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        return json_reply(await _call(lambda: self._runner.status(request.params["run"])))

    async def _plan(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        return json_reply(await _call(lambda: self._runner.plan(request.params["run"])))

    async def _steps(self, request: Request) -> Reply:
        run, (after, most) = request.params["run"], wire.cursor(pairs(request))

        def look() -> wire.StepsReply:
            self._runner.store.run(run)
            return wire.steps_reply(run, self._runner.store.steps(run, after, most), after)

        return json_reply(await _call(look))

    async def _events(self, request: Request) -> web.StreamResponse:
        run, (after, most) = request.params["run"], wire.cursor(pairs(request))
        if EVENT_STREAM in request.headers.get("Accept", ""):
            last = request.headers.get("Last-Event-ID", "")
            return await self._follow(request, run, wire.cursor([("after", last)])[0] if last else after)
        events = await _call(lambda: self._runner.events(run, after, most))
        replies = [wire.event_reply(run, told) for told in events]
        return json_reply(wire.EventsReply(events=replies, next=replies[-1].number if replies else after))

    async def _follow(self, request: Request, run: str, after: int) -> web.StreamResponse:
        """The story as it happens, until the run has ended; a caller that comes back goes on with Last-Event-ID."""
        events = await _call(lambda: self._runner.events(run, after))
        response = await stream(request, EVENT_STREAM, [("X-Accel-Buffering", "no")])
        loop = asyncio.get_running_loop()
        spoken = loop.time()
        # Whoever went away ends the stream, and there is nobody to tell.
        with contextlib.suppress(ConnectionError):
            while True:
                for told in events:
                    await response.write(wire.server_sent(run, told))
                    after, spoken = told.number, loop.time()
                if not events:
                    if self._stopping.is_set() or (await _call(lambda: self._runner.store.run(run))).state != RUNNING:
                        await response.write(b"event: end\ndata: {}\n\n")
                        break
                    if loop.time() - spoken > _BEAT_SECONDS:
                        await response.write(b": still here\n\n")
                        spoken = loop.time()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), _LOOK_SECONDS)
                events = await _call(partial(self._runner.events, run, after))
        return response

    def _teller(self, verb: str) -> Callable[[Request], Awaitable[Reply]]:
        async def tell(request: Request) -> Reply:
            body = wire.read(wire.TellBody, await read_json(request)) if request.can_read_body else wire.TellBody()
            run, actor = request.params["run"], _actor(request)
            told = await _call(lambda: getattr(self._runner, verb)(run, body.campaign, actor=actor))
            return json_reply(wire.ToldReply(run=run, told=verb, campaigns=told))

        return tell

    async def _approve(self, request: Request) -> Reply:
        if request.can_read_body:
            wire.read(wire.EmptyBody, await read_json(request))
        run, actor = request.params["run"], _actor(request)
        told = await _call(lambda: self._runner.approve(run, actor=actor))
        return json_reply(wire.ToldReply(run=run, told="approve", campaigns=told), 201)

    async def _reconcile(self, request: Request) -> Reply:
        body = (
            wire.read(wire.ReconcileBody, await read_json(request)) if request.can_read_body else wire.ReconcileBody()
        )
        run = request.params["run"]
        return json_reply(await _call(lambda: self._runner.reconcile(run, act=body.act)))

    async def _adopt(self, request: Request) -> Reply:
        if request.can_read_body:
            wire.read(wire.EmptyBody, await read_json(request))
        executor = request.params["executor"]
        runs = await _call(lambda: self._runner.adopt(executor))
        return json_reply(wire.AdoptReply(executor=executor, runs=runs))

    # -- its life ------------------------------------------------------------------------------------

    async def _start(self) -> None:
        await _call(self._runner.work)
        if self._bids is not None:
            await self._bids.start()
            log_event(logger, logging.INFO, "listening for gRPC", port=self._bids.port)

    async def _reload(self) -> None:
        if self._bids is not None:
            self._bids.reload()

    async def _drain(self) -> None:
        self._stopping.set()

    async def _close(self) -> None:
        if self._bids is not None:
            await self._bids.stop()
        await _call(self._runner.close)

    async def _health(self, _: Request) -> Reply:
        runner = self._runner
        open_runs = sum(row.state == RUNNING for row in await _call(runner.runs))
        return json_reply(
            {
                "status": "healthy" if runner.is_working else "stopped",
                "service": "syncflow",
                "executor": runner.executor,
                "open_runs": open_runs,
                "held_runs": len(runner.held),
                "grpc_port": None if self._bids is None else self._bids.port,
                "timestamp": to_iso(wall_micros()),
            }
        )

    async def _checks(self) -> Sequence[Check]:
        runner = self._runner
        found = [Check("runner", ok=runner.is_working, detail=runner.executor)]
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await _call(runner.runs)
            found.append(Check("store", ok=True))
        except (KikiError, TimeoutError, OSError) as error:
            found.append(Check("store", ok=False, detail=type(error).__name__))
        found.append(await self._guard_check())
        # A platform that is away stops its own campaigns, not the service.
        return found

    async def _guard_check(self) -> Check:
        try:
            async with asyncio.timeout(_READY_SECONDS):
                asked = await asyncio.wrap_future(self._runner.submit(self._runner.guard.holds_open()))
        except TimeoutError:
            return Check("guard", ok=False, detail="no answer in time")
        away = asked.code == UNAVAILABLE
        return Check("guard", ok=not away, detail="it cannot be asked, so nothing new is spent" if away else "")


async def _call(work: Callable[[], Value]) -> Value:
    """A call of the library, on a worker thread."""
    return await asyncio.to_thread(work)


def _actor(request: Request) -> str:
    return request.principal.name if request.principal else ""
