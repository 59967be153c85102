"""The routes of data subject requests and legal holds: the original's `/dsr/create`, and the ones under /v1.

Everything here waits for disks and for other people's systems, so all of it is done on threads. A run goes on
whether or not anybody waits for it; what became of it stands in the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from aiohttp import web

from kiki.clock import to_iso
from kiki.errors import NotFound
from kiki.members import read_members, require_no_query
from kiki.shield import wire_request, wire_request_answer
from kiki.shield.caller import actor_of, key_of
from kiki.shield.consent_routes import guide_route
from kiki.shield.consent_words import parse_customer_id
from kiki.shield.package_tokens import PackageTokens
from kiki.shield.request_desk import RequestDesk
from kiki.shield.request_record import RequestRecord
from kiki.shield.wire import dump
from kiki.web import Reply, Request, Route, json_reply, pairs, read_json, stream
from kiki.web.reply import JSON, TEXT

Value = TypeVar("Value")
Act = Callable[[RequestDesk, str, Any, str], RequestRecord]

RUN_WAIT_SECONDS: Final = 20.0
"""How long a caller waits for a run before it is told that it goes on."""
RUNS_MAX: Final = 2
ZIP: Final = "application/zip"


class RequestRoutes:
    """Serves one desk."""

    def __init__(self, desk: RequestDesk) -> None:
        self._desk = desk
        self._tokens = PackageTokens(desk.decider.clock)
        self._running = asyncio.Semaphore(RUNS_MAX)
        self._runs: dict[str, asyncio.Task[RequestRecord]] = {}

    def routes(self) -> Sequence[Route]:
        """All of them. The original's is open inside, for the reason that `ConsentRoutes.routes` gives."""
        one = "/v1/requests/{id}"
        steps: list[tuple[str, Callable[[object], Any], Act]] = [
            ("acknowledge", _nothing, lambda desk, number, _, actor: desk.acknowledge(number, actor=actor)),
            ("code", _nothing, lambda desk, number, _, actor: desk.send_code(number, actor=actor)),
            ("verify", wire_request.verify_body, _verify),
            (
                "pause",
                wire_request.note_body,
                lambda desk, number, note, actor: desk.pause(number, note=note, actor=actor),
            ),
            (
                "resume",
                wire_request.note_body,
                lambda desk, number, note, actor: desk.resume(number, note=note, actor=actor),
            ),
            ("extend", wire_request.extend_body, _extend),
            ("assign", wire_request.assign_body, lambda desk, number, to, actor: desk.assign(number, to, actor=actor)),
            (
                "refuse",
                wire_request.refuse_body,
                lambda desk, number, why, actor: desk.refuse(number, *why, actor=actor),
            ),
            (
                "cancel",
                wire_request.cancel_body,
                lambda desk, number, why, actor: desk.cancel(number, why, actor=actor),
            ),
        ]
        return [
            Route(
                "/dsr/create", guide_route(self._guide), ("POST",), role="privacy", anonymous_inside=True, plain=True
            ),
            Route("/v1/requests", self._create, ("POST",), role="privacy"),
            Route("/v1/requests", self._list, role="privacy"),
            Route(one, self._get, role="privacy"),
            *(Route(f"{one}/{name}", self._step(read, act), ("POST",), role="privacy") for name, read, act in steps),
            Route(f"{one}/run", self._run, ("POST",), role="privacy"),
            Route(f"{one}/package", self._package, ("POST",), role="privacy"),
            # The person has no bearer token: the one in the link is good once, for one package.
            Route(f"{one}/package", self._download, self_proving=True),
            Route(f"{one}/proof", self._proof, role="privacy"),
            Route("/v1/legal-holds", self._holds, role="privacy"),
            Route("/v1/legal-holds", self._hold, ("POST",), role="privacy"),
            Route("/v1/legal-holds", self._lift, ("DELETE",), role="privacy"),
        ]

    async def work(self) -> None:
        """Run what is due, and remove what waited too long; called now and then."""
        async with self._running:
            await asyncio.to_thread(self._desk.run_due)
            await asyncio.to_thread(self._desk.tidy)

    # -- coming in, and looking ----------------------------------------------------------------------

    async def _guide(self, request: Request) -> Reply:
        if request.can_read_body:
            require_no_query(pairs(request))
            asked = wire_request.guide_body(await read_json(request))
        else:
            asked = wire_request.guide_query(pairs(request))
        customer = parse_customer_id(asked.customer)
        asked.given["ip_address"] = request.remote or ""
        asked.given["user_agent"] = request.headers.get("User-Agent") or ""
        record = await self._made(request, asked)
        return json_reply(wire_request_answer.guide_request(record, customer))

    async def _create(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        record = await self._made(request, wire_request.request_body(await read_json(request), key_of(request)))
        return _recorded(record, 201 if record.is_new else 200)

    async def _made(self, request: Request, asked: wire_request.Asked) -> RequestRecord:
        asked.given["actor"] = actor_of(request)
        return await asyncio.to_thread(lambda: self._desk.create(asked.customer, asked.kind, **asked.given))

    async def _list(self, request: Request) -> Reply:
        wanted = wire_request.requests_query(pairs(request))

        def look() -> wire_request_answer.RequestsReply:
            found = self._desk.list(
                state=wanted.state,
                kind=wanted.kind,
                customer=wanted.customer,
                due_before=wanted.due_before,
                is_open=wanted.is_open,
            )
            shown = [wire_request_answer.request_reply(record) for record in found[: wanted.limit]]
            return wire_request_answer.RequestsReply(requests=shown, total=len(found))

        return Reply(dump(await asyncio.to_thread(look)), JSON)

    async def _get(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        return _recorded(await asyncio.to_thread(self._desk.get, request.params["id"]))

    # -- working on one ------------------------------------------------------------------------------

    def _step(self, read: Callable[[object], Any], act: Act) -> Callable[[Request], Any]:
        async def step(request: Request) -> Reply:
            require_no_query(pairs(request))
            told = read(await read_json(request) if request.can_read_body else {})
            number, actor = request.params["id"], actor_of(request)
            return _recorded(await asyncio.to_thread(act, self._desk, number, told, actor))

        return step

    async def _run(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        _nothing(await read_json(request) if request.can_read_body else {})
        number, actor = request.params["id"], actor_of(request)
        run = self._runs.get(number)
        if run is None:
            run = self._runs[number] = asyncio.create_task(self._ran(number, actor))
            run.add_done_callback(lambda _: self._runs.pop(number, None))
        done, _ = await asyncio.wait({run}, timeout=RUN_WAIT_SECONDS)
        if done:
            return _recorded(run.result())
        going = await asyncio.to_thread(self._desk.get, number)
        return _recorded(going, 202)

    async def _ran(self, number: str, actor: str) -> RequestRecord:
        async with self._running:
            return await asyncio.to_thread(lambda: self._desk.run(number, actor=actor))

    # -- what comes out ------------------------------------------------------------------------------

    async def _package(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        _nothing(await read_json(request) if request.can_read_body else {})
        number = request.params["id"]

        def make() -> wire_request_answer.PackageReply:
            record = self._desk.get(number)
            # A link to nothing is told now, and not to the person.
            for _ in self._desk.package(number):
                break
            made = self._tokens.make(record.id)
            return wire_request_answer.PackageReply(
                token=made.token, expires_at=to_iso(made.expires_at), sha256=record.request.package.hex()
            )

        return Reply(dump(await asyncio.to_thread(make)), JSON, 201)

    async def _download(self, request: Request) -> web.StreamResponse:
        number = request.params["id"]
        self._tokens.take(number, wire_request.package_query(pairs(request)))
        pieces = await asyncio.to_thread(self._desk.package, number)
        piece: bytes | None = await asyncio.to_thread(next, pieces, None)
        if piece is None:
            raise NotFound(f"request {number} has no package")
        headers = [("Content-Disposition", f'attachment; filename="{number}.zip"')]
        response = await stream(request, ZIP, headers)
        while piece is not None:
            await response.write(piece)
            piece = await asyncio.to_thread(next, pieces, None)
        return response

    async def _proof(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        text = await asyncio.to_thread(self._desk.proof, request.params["id"])
        return Reply(text.encode(), TEXT)

    # -- legal holds ---------------------------------------------------------------------------------

    async def _holds(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        holds = self._desk.holds

        def look() -> wire_request_answer.LegalHoldsReply:
            return wire_request_answer.LegalHoldsReply(
                holds=[wire_request_answer.hold_reply(hold, holds.customer_of(hold)) for hold in holds.all()]
            )

        return Reply(dump(await asyncio.to_thread(look)), JSON)

    async def _hold(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        asked, actor = wire_request.hold_body(await read_json(request)), actor_of(request)
        held = await asyncio.to_thread(lambda: self._desk.hold(asked.reference, asked.customer, actor=actor))
        return Reply(dump(wire_request_answer.hold_reply(held, asked.customer or "")), JSON, 201)

    async def _lift(self, request: Request) -> Reply:
        asked, actor = wire_request.hold_query(pairs(request)), actor_of(request)
        records = await asyncio.to_thread(lambda: self._desk.lift(asked.reference, asked.customer, actor=actor))
        reply = wire_request_answer.LiftedReply(
            requests=[wire_request_answer.request_reply(record) for record in records]
        )
        return Reply(dump(reply), JSON)


def _verify(desk: RequestDesk, number: str, told: wire_request.Verification, actor: str) -> RequestRecord:
    return desk.verify_identity(
        number,
        method=told.method,
        code=told.code,
        agent_proof=told.agent_proof,
        # Whoever showed a token is known by its name; without tokens one says who one is.
        actor=actor or told.operator,
        note=told.note,
    )


def _extend(desk: RequestDesk, number: str, told: tuple[str, list[str] | None], actor: str) -> RequestRecord:
    reason, regimes = told
    return desk.extend(number, reason, regimes=regimes, actor=actor)


def _nothing(body: object) -> None:
    read_members(body, ())


def _recorded(record: RequestRecord, status: int = 200) -> Reply:
    return Reply(dump(wire_request_answer.request_reply(record)), JSON, status)
