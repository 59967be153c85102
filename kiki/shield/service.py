"""SyncShield over HTTP: parse, one call on the guard, answer. No rule lives here, and no shape: see `wire`.

The guide's routes (`/spend`, `/check`, `/health`) answer plain text, or JSON when `Accept` asks for it; `/v1`
answers JSON, and errors as RFC 9457 problem details.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kiki.clock import wall_micros
from kiki.errors import InvalidInput, KikiError, NotFound, Unavailable
from kiki.ledger.shipper import Lag
from kiki.ledger.store import Reader
from kiki.members import require_no_query
from kiki.shield import wire, wire_answer, wire_call
from kiki.shield.async_guard import AsyncGuard
from kiki.shield.audit_view_process import AuditViewProcess
from kiki.shield.budget import Reason
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.call import Call, Switch, invalid_call
from kiki.shield.caller import actor_of, key_of
from kiki.shield.decider import new_hold_id
from kiki.shield.decision import Decision, Outcome
from kiki.shield.evidence import find_event, page
from kiki.shield.evidence_keeper import EvidenceKeeper
from kiki.shield.health import Health
from kiki.shield.metrics import ShieldMetrics
from kiki.shield.openapi import openapi
from kiki.shield.origin import origin_of
from kiki.shield.policy import Policy, parse_policy
from kiki.shield.privacy_service import Deployment, PrivacyService
from kiki.shield.request_desk import RequestDesk
from kiki.shield.window import MeterStatus, Verb
from kiki.telemetry import log_event, new_registry
from kiki.web import (
    HttpRefusal,
    Reply,
    Request,
    Route,
    Service,
    json_reply,
    pairs,
    read_json,
    wants_json,
    whole_seconds,
)
from kiki.web.refusals import Headers
from kiki.web.reply import JSON, PROBLEM, TEXT

logger = logging.getLogger("kiki.shield")

_TICK_SECONDS = 1.0


class ShieldService:
    """The routes of SyncShield over one guard.

    `read_policy` gives the policy anew for SIGHUP; `audit_view` is the process that writes the CSV, if any.
    """

    def __init__(
        self,
        guard: BudgetGuard,
        *,
        read_policy: Callable[[], Policy] | None = None,
        audit_view: AuditViewProcess | None = None,
        redis_expected: bool = False,
        keeper: EvidenceKeeper | None = None,
        deployment: Deployment | None = None,
        desk: RequestDesk | None = None,
    ) -> None:
        self._guard = guard
        self._read_policy = read_policy
        self._audit_view = audit_view
        self._keeper = keeper
        self._async: AsyncGuard | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._chain = guard.decider.ledger.chain
        self._privacy = PrivacyService(guard, self._running, deployment, _lag(keeper), desk)
        self._health = Health(guard, audit_view, keeper, redis_expected=redis_expected)
        self._metrics = ShieldMetrics(self._health.gauges, self._health.shown_meters)
        self._registry = new_registry()
        self._registry.register(self._metrics)

    def service(self) -> Service:
        """What `kiki.web.run` runs."""
        return Service(
            name="syncshield",
            routes=self._routes(),
            checks=self._health.checks,
            registry=self._registry,
            openapi=openapi(self._guard.policy.currency, self._guard.consents.purposes),
            on_start=self._start,
            on_reload=self._reload,
            on_close=self._close,
        )

    def _routes(self) -> Sequence[Route]:
        both = ("GET", "POST")
        return [
            Route("/spend", self._spend, both, role="spend", anonymous_inside=True, plain=True),
            Route("/check", self._check, both, role="spend", anonymous_inside=True, plain=True),
            Route("/health", self._health.told, ("GET", "HEAD"), role="read", anonymous_inside=True, probe=True),
            Route("/v1/spends", self._spends, ("POST",), role="spend"),
            Route("/v1/spends:batch", self._batch, ("POST",), role="spend"),
            Route("/v1/checks", self._ask, ("POST",), role="spend"),
            Route("/v1/records", self._records, ("POST",), role="spend"),
            Route("/v1/reservations", self._reserve, ("POST",), role="spend"),
            Route("/v1/reservations", self._reservations, role="read"),
            Route("/v1/reservations/{id}/commit", self._commit, ("POST",), role="spend"),
            Route("/v1/reservations/{id}/release", self._release, ("POST",), role="spend"),
            Route("/v1/budgets", self._budgets, role="read"),
            Route("/v1/halts", self._halts, role="read"),
            Route("/v1/halts", self._halt, ("POST",), role="admin"),
            Route("/v1/halts", self._resume, ("DELETE",), role="admin"),
            Route("/v1/policies:simulate", self._simulate, ("POST",), role="read"),
            Route("/v1/decisions", self._decisions, role="read"),
            Route("/v1/decisions/{event_id}", self._decision, role="read"),
            *self._privacy.routes(),
        ]

    def _running(self) -> AsyncGuard:
        assert self._async is not None, "asked before the service was started"
        return self._async

    # -- deciding ------------------------------------------------------------------------------------

    async def _decide(self, request: Request, work: Call | Switch) -> Decision:
        work.actor = actor_of(request)
        work.origin = origin_of(request.remote or "", request.headers.get("User-Agent", ""))
        decision: Decision = await self._running().decide(work)
        self._metrics.count(decision)
        return decision

    async def _asked(self, request: Request, verb: Verb, read: Callable[[Any], Call]) -> Call:
        """The call in a JSON body; one that cannot be read leaves a row in the audit, as every decision does."""
        try:
            return read(await _body(request))
        except (InvalidInput, HttpRefusal):
            await self._decide(request, invalid_call(verb))
            raise

    async def _guide_call(
        self, request: Request, verb: Verb, read_body: Callable[[Any], Call], read_query: Callable[[], Call]
    ) -> Call:
        if request.method == "POST" and request.can_read_body:
            return await self._asked(request, verb, read_body)
        try:
            return read_query()
        except InvalidInput:
            await self._decide(request, invalid_call(verb))
            raise

    async def _spend(self, request: Request) -> Reply:
        currency = self._guard.policy.currency
        call = await self._guide_call(
            request,
            Verb.SPEND,
            lambda body: wire_call.spend_body(body, currency, key_of(request)),
            lambda: wire_call.spend_query(pairs(request), currency, key_of(request)),
        )
        decision = await self._decide(request, call)
        outcome = decision.outcome()
        if wants_json(request):
            return self._outcome_reply(decision)
        return _plain(outcome, wire_answer.spend_text(outcome), decision)

    async def _check(self, request: Request) -> Reply:
        currency = self._guard.policy.currency
        call = await self._guide_call(
            request,
            Verb.CHECK,
            lambda body: wire_call.check_body(body, currency),
            lambda: wire_call.check_query(pairs(request), currency),
        )
        decision = await self._decide(request, call)
        outcome = decision.outcome()
        if wants_json(request):
            return self._outcome_reply(decision)
        return _plain(outcome, wire_answer.check_text(outcome), decision)

    async def _spends(self, request: Request) -> Reply:
        return await self._money(request, Verb.SPEND, wire_call.spend_body)

    async def _records(self, request: Request) -> Reply:
        return await self._money(request, Verb.RECORD, wire_call.record_body)

    async def _money(self, request: Request, verb: Verb, read: Callable[[object, str, str | None], Call]) -> Reply:
        currency = self._guard.policy.currency
        call = await self._asked(request, verb, lambda body: read(body, currency, key_of(request)))
        return self._outcome_reply(await self._decide(request, call))

    def _outcome_reply(self, decision: Decision) -> Reply:
        outcome, currency, chain = decision.outcome(), self._guard.policy.currency, decision.chain or self._chain
        if outcome.allowed:
            return Reply(wire_answer.outcome_bytes(outcome, chain, currency), JSON, 200, _replayed(decision))
        if outcome.reason == Reason.OUTCOME_UNKNOWN:
            raise _unknown(outcome)
        body = wire_answer.refusal_bytes(outcome, chain, currency)
        return Reply(body, PROBLEM, 403, (*_retry_after(outcome), *_replayed(decision)))

    async def _batch(self, request: Request) -> Reply:
        currency = self._guard.policy.currency
        call = await self._asked(
            request, Verb.SPEND, lambda body: wire_call.batch_body(body, currency, key_of(request))
        )
        decision = await self._decide(request, call)
        reply = wire_answer.batch_reply(decision, decision.chain or self._chain, currency)
        return Reply(wire.dump(reply), JSON, 200, _replayed(decision))

    async def _ask(self, request: Request) -> Reply:
        currency = self._guard.policy.currency
        call = await self._asked(request, Verb.CHECK, lambda body: wire_call.check_body(body, currency))
        decision = await self._decide(request, call)
        return Reply(wire_answer.outcome_bytes(decision.outcome(), self._chain, currency), JSON)

    async def _reserve(self, request: Request) -> Reply:
        currency = self._guard.policy.currency
        call = await self._asked(
            request, Verb.RESERVE, lambda body: wire_call.reserve_body(body, new_hold_id(), currency, key_of(request))
        )
        decision = await self._decide(request, call)
        if not decision.outcome().allowed:
            return self._outcome_reply(decision)
        reply = wire_answer.reservation_reply(decision, decision.chain or self._chain, currency)
        return Reply(wire.dump(reply), JSON, 201, _replayed(decision))

    async def _commit(self, request: Request) -> Reply:
        body = await _body(request)
        call = wire_call.commit_body(request.params["id"], body, self._guard.policy.currency)
        return self._settled(await self._decide(request, call))

    async def _release(self, request: Request) -> Reply:
        body = await _body(request) if request.can_read_body else None
        return self._settled(await self._decide(request, wire_call.release_body(request.params["id"], body)))

    def _settled(self, decision: Decision) -> Reply:
        return Reply(wire.dump(wire_answer.settlement_reply(decision, self._chain)), JSON, 200, _replayed(decision))

    async def _halt(self, request: Request) -> Reply:
        decision = await self._decide(request, wire_call.halt_body(await _body(request)))
        return Reply(wire.dump(wire_answer.halt_reply(decision, self._chain)), JSON)

    async def _resume(self, request: Request) -> Reply:
        decision = await self._decide(request, wire_call.resume_query(pairs(request)))
        return Reply(wire.dump(wire_answer.halt_reply(decision, self._chain)), JSON)

    # -- looking -------------------------------------------------------------------------------------

    async def _look(self, at: Callable[[BudgetGuard], Any]) -> Any:
        return await self._running().look(at)

    def _reader(self) -> Reader:
        return self._guard.decider.ledger.store

    async def _budgets(self, request: Request) -> Reply:
        wanted = wire_call.budgets_query(pairs(request))

        def look(guard: BudgetGuard) -> tuple[list[MeterStatus], list[str]]:
            return guard.status(wanted.budget, wanted.scope, wanted.limit), guard.halts()

        statuses, halts = await self._look(look)
        reply = wire_answer.budgets_reply(
            statuses, halts, self._guard.policy.currency, self._guard.decider.books.window.kind, wall_micros()
        )
        return Reply(wire.dump(reply), JSON)

    async def _halts(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        return Reply(wire.dump(wire.HaltsReply(await self._look(lambda guard: guard.halts()))), JSON)

    async def _reservations(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        holds = await self._look(lambda guard: guard.holds())
        return Reply(wire.dump(wire_answer.reservations_reply(holds)), JSON)

    async def _simulate(self, request: Request) -> Reply:
        text, since = wire_call.simulate_body(await _body(request))
        currency = self._guard.policy.currency
        # A large policy takes long to read: not on the loop either.
        policy = await self._look(lambda _: parse_policy(text, "policy", currency))
        result = await self._look(lambda guard: guard.simulate(policy, since))
        return json_reply(result.as_dict())

    async def _decisions(self, request: Request) -> Reply:
        wanted = wire_call.decisions_query(pairs(request))

        def look(_: BudgetGuard) -> Any:
            return page(
                self._reader(),
                wanted.after,
                wanted.limit,
                since=wanted.since,
                until=wanted.until,
                outcome=wanted.outcome,
                scope=wanted.scope,
            )

        found = await self._look(look)
        return Reply(wire.dump(wire_answer.decisions_reply((row.as_dict() for row in found.rows), found.after)), JSON)

    async def _decision(self, request: Request) -> Reply:
        event = wire_call.parse_event_id(request.params["event_id"])
        row = await self._look(lambda _: find_event(self._reader(), event))
        if row is None:
            raise NotFound(f"there is no decision {event}")
        return json_reply(row.as_dict())

    # -- life ----------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._async = AsyncGuard(self._guard)
        if self._audit_view is not None:
            self._audit_view.start()
        if self._keeper is not None:
            self._keeper.start()
        self._ticking = asyncio.create_task(self._tick())
        self._privacy.start()

    async def _tick(self) -> None:
        assert self._async is not None
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            try:
                if self._audit_view is not None:
                    self._audit_view.check()
                await self._async.tick()
            except KikiError as error:
                log_event(logger, logging.WARNING, "the ledger is still failing", code=error.code, detail=str(error))
            except Exception:
                logger.exception("the tick failed")

    async def _reload(self) -> None:
        read = self._read_policy
        if read is None:
            logger.info("there is no policy file to read again")
            return
        try:
            policy = await self._look(lambda _: read())
            await self._look(lambda guard: guard.use(policy, actor="SIGHUP"))
        except KikiError as error:
            log_event(logger, logging.ERROR, "the policy was refused; the old one stays in force", detail=str(error))
            return
        log_event(logger, logging.INFO, "a new policy is in force", policy=policy.digest, budgets=len(policy.budgets))

    async def _close(self) -> None:
        self._privacy.stop()
        if self._ticking is not None:
            self._ticking.cancel()
        if self._keeper is not None:
            await asyncio.to_thread(self._keeper.stop)
        if self._async is not None:
            await self._async.close()
        if self._audit_view is not None and not await asyncio.to_thread(self._audit_view.stop):
            logger.warning("the audit view was not complete in time; the next start goes on where it ends")


async def _body(request: Request) -> Any:
    """The JSON body. What it would leave unread in the query is refused, for it may be a scope or an amount."""
    require_no_query(pairs(request))
    return await read_json(request)


def _replayed(decision: Decision) -> Headers:
    return ((wire.REPLAYED_HEADER, "true"),) if decision.repeated else ()


def _retry_after(outcome: Outcome) -> Headers:
    seconds = outcome.retry_after
    return () if seconds is None else (("Retry-After", whole_seconds(seconds)),)


def _plain(outcome: Outcome, text: str, decision: Decision) -> Reply:
    if outcome.allowed:
        return Reply(text.encode(), TEXT, 200, _replayed(decision))
    if outcome.reason == Reason.OUTCOME_UNKNOWN:
        raise _unknown(outcome)
    headers = (*_retry_after(outcome), ("Kiki-Reason", outcome.reason or ""), *_replayed(decision))
    return Reply(text.encode(), TEXT, 403, headers)


def _unknown(outcome: Outcome) -> Unavailable:
    return Unavailable(outcome.explanation, retry_after=1)


def _lag(keeper: EvidenceKeeper | None) -> Callable[[], Lag] | None:
    return None if keeper is None or keeper.shipper is None else keeper.shipper.lag


def ledger_path(data_dir: Path) -> Path:
    """Where a service keeps its ledger."""
    return data_dir / "shield.db"


def audit_view_path(data_dir: Path) -> Path:
    """Where a service keeps the live view of its audit."""
    return data_dir / "shield_audit_gdpr.csv"
