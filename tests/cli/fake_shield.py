"""A SyncShield of a hundred lines for tests: the real wire over a real guard in memory, at will on a real socket."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Self

import httpx
from aiohttp import web

from kiki import errors
from kiki.errors import ConfigurationError, Conflict, InvalidInput, KikiError, LedgerUnavailable
from kiki.shield import wire, wire_answer, wire_call
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.policy import parse_policy
from kiki.web.reply import describe_error
from kiki.web.request import parse_json

CHAIN = "c0ffee0000000000"


class Guarded:
    """SyncShield as small as it can be: the wire over a guard in memory. Remembers what it was asked."""

    def __init__(self, limit: str = "500") -> None:
        self.guard = BudgetGuard.open(limit=limit)
        self.asked: list[httpx.Request] = []
        self.holds = iter(f"{number:032x}" for number in range(1, 1000))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        try:
            return self.answer(request.method, request.url.path, request)
        except (InvalidInput, ConfigurationError) as error:
            return self.problem(error, 400)
        except errors.NotFound as error:
            return self.problem(error, 404)
        except Conflict as error:
            return self.problem(error, 409)

    def problem(self, error: KikiError, status: int) -> httpx.Response:
        return httpx.Response(status, json=describe_error(error, status, "/"))

    def answer(self, method: str, path: str, request: httpx.Request) -> httpx.Response:
        body = parse_json(request.content) if request.content else None
        query = list(request.url.params.multi_items())
        guard = self.guard
        match method, path.split("/")[2:]:
            case "POST", ["spends"]:
                return self.outcome(wire_call.spend_body(body, "USD"), refusal=403)
            case "POST", ["records"]:
                return self.outcome(wire_call.record_body(body, "USD"))
            case "POST", ["checks"]:
                return self.outcome(wire_call.check_body(body, "USD"))
            case "POST", ["spends:batch"]:
                return self.said(wire_answer.batch_reply(guard.decide(wire_call.batch_body(body, "USD")), CHAIN, "USD"))
            case "POST", ["reservations"]:
                decision = guard.decide(wire_call.reserve_body(body, next(self.holds), "USD"))
                if not decision.outcome().allowed:
                    return httpx.Response(403, content=wire_answer.refusal_bytes(decision.outcome(), CHAIN, "USD"))
                return self.said(wire_answer.reservation_reply(decision, CHAIN, "USD"), 201)
            case "GET", ["reservations"]:
                return self.said(wire_answer.reservations_reply(guard.holds()))
            case "POST", ["reservations", hold, "commit"]:
                return self.said(
                    wire_answer.settlement_reply(guard.decide(wire_call.commit_body(hold, body, "USD")), CHAIN)
                )
            case "POST", ["reservations", hold, "release"]:
                return self.said(wire_answer.settlement_reply(guard.decide(wire_call.release_body(hold, body)), CHAIN))
            case "GET", ["budgets"]:
                asked = wire_call.budgets_query(query)
                meters = guard.status(asked.budget, asked.scope, asked.limit)
                at = max(1, guard.decider.clock())
                return self.said(
                    wire_answer.budgets_reply(meters, guard.halts(), currency="USD", window="local", at=at)
                )
            case "POST", ["halts"]:
                turn = wire_call.halt_body(body)
                return self.said(wire_answer.halt_reply(guard.halt(turn.pattern, note=turn.note), CHAIN))
            case "DELETE", ["halts"]:
                return self.said(wire_answer.halt_reply(guard.resume(wire_call.resume_query(query).pattern), CHAIN))
            case "GET", ["halts"]:
                return self.said(wire.HaltsReply(guard.halts()))
            case "POST", ["policies:simulate"]:
                text, since = wire_call.simulate_body(body)
                return self.said(guard.simulate(parse_policy(text), since).as_dict())
            case "GET", ["decisions"]:
                wire_call.decisions_query(query)
                return self.said(wire_answer.decisions_reply([{"event_id": "0" * 16}], None))
            case "GET", ["decisions", event_id]:
                return self.said({"event_id": event_id})
        return self.said({"status": "ok"}) if path == "/health" else httpx.Response(404, text="Not here")

    def outcome(self, call, refusal: int = 200) -> httpx.Response:
        outcome = self.guard.decide(call).outcome()
        if outcome.allowed or refusal == 200:
            return httpx.Response(200, content=wire_answer.outcome_bytes(outcome, CHAIN, "USD"))
        return httpx.Response(refusal, content=wire_answer.refusal_bytes(outcome, CHAIN, "USD", "/v1/spends"))

    def said(self, reply: object, status: int = 200) -> httpx.Response:
        return httpx.Response(status, content=wire.dump(reply))


class Real:
    """A real server on a thread of its own that behaves as badly as it is told, and then well."""

    def __init__(self) -> None:
        self.service = Guarded()
        self.bad: list[str] = []
        self.keys: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)

    def _run(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        self.keys.append(json.loads(content).get("key", "") if content else "")
        bad = self.bad.pop(0) if self.bad else ""
        if bad == "busy":
            return web.json_response(describe_error(LedgerUnavailable(), 503), status=503, headers={"Retry-After": "0"})
        if bad == "hang up":
            assert request.transport is not None
            request.transport.abort()
        if bad == "sleep":
            await asyncio.sleep(3)
        if bad == "dribble":
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(30):
                await response.write(b" ")
                await asyncio.sleep(0.1)
        found = self.service(httpx.Request(request.method, str(request.url), content=content))
        if bad == "lose":
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=found.status_code, body=found.content, content_type="application/json")
