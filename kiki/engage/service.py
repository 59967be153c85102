"""SyncEngage over HTTP: parse, one call, answer. The engine, the store and the desk decide; what blocks runs in a thread."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from kiki.clock import to_iso, wall_micros
from kiki.engage import wire
from kiki.engage.assignment_export import csv_text
from kiki.engage.engage_data import EngageData
from kiki.engage.explanation import explain
from kiki.engage.message_maker import MessageMaker
from kiki.engage.metrics import EngageMetrics
from kiki.engage.openapi import openapi
from kiki.engage.outbox_routes import OutboxRoutes
from kiki.engage.plan import as_json, run_json
from kiki.engage.playbook import Playbook
from kiki.engage.playbook_report import export_rows, report, report_json
from kiki.engage.playbook_shelf import PlaybookShelf
from kiki.engage.post_room import PostRoom
from kiki.engage.preview import preview
from kiki.engage.privacy_routes import PrivacyRoutes
from kiki.engage.profile import ID_CHARS_MAX
from kiki.engage.program_report import program_report
from kiki.engage.retention_engine import RetentionEngine
from kiki.engage.rounds import Rounds
from kiki.engage.source import Source
from kiki.engage.trigger import read_customer
from kiki.engage.trigger_audit import TriggerAudit
from kiki.engage.trigger_desk import TriggerDesk
from kiki.engage.unsubscribe import PATH, broken_page, done_page, question_page
from kiki.engage.webhook import BODY_BYTES_MAX, WebhookCall
from kiki.engage.write_back import add_tags, write_back
from kiki.errors import InvalidInput, KikiError, NotFound, Unauthenticated
from kiki.members import limit_of, read_query, require_no_query
from kiki.settings import Secret
from kiki.telemetry import log_event, new_registry
from kiki.web import (
    Check,
    Reply,
    Request,
    Route,
    Service,
    json_reply,
    page,
    pairs,
    plain,
    read_body,
    read_json_text,
)
from kiki.web.refusals import BodyTooLarge

logger = logging.getLogger("kiki.engage")

NAME: Final = "SyncEngage™ Retention Agent"
_PAGE: Final = 100
_PAGE_MAX: Final = 1000
_ANY: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_Found = TypeVar("_Found")


class EngageService:
    """The routes of SyncEngage."""

    def __init__(
        self,
        engine: RetentionEngine,
        desk: TriggerDesk,
        audit: TriggerAudit,
        post_room: PostRoom,
        *,
        playbooks: Mapping[str, Playbook],
        read_playbooks: Callable[[], Mapping[str, Playbook]] | None = None,
        source: Source | None = None,
        run_seconds: float = 0.0,
        poll_seconds: float = 300.0,
        outbox: Path | None = None,
        letters: Path | None = None,
        privacy_secret: Secret | None = None,
        public_url: str = "",
        take_webhooks: bool = True,
    ) -> None:
        self._engine = engine
        self._store = engine.store
        self._desk = desk
        self._audit = audit
        self._post_room = post_room
        self._shelf = PlaybookShelf(playbooks, read_playbooks)
        self._source = source
        self._outbox = outbox
        self._public_url = public_url
        self._take_webhooks = take_webhooks
        self._privacy = PrivacyRoutes(EngageData(self._store, letters or outbox, audit), privacy_secret)
        self._registry = new_registry()
        self._metrics = EngageMetrics(self._registry)
        self._rounds = Rounds(
            engine, self._shelf, post_room, source, self._metrics, run_seconds=run_seconds, poll_seconds=poll_seconds
        )

    def service(self) -> Service:
        """What `kiki.web.run` runs."""
        return Service(
            name="syncengage",
            routes=self._routes(),
            checks=self._checks,
            registry=self._registry,
            openapi=openapi(),
            exposes="READ CUSTOMERS AND SEND MESSAGES",
            on_start=self._start,
            on_reload=self._reload,
            on_close=self._close,
        )

    def _routes(self) -> Sequence[Route]:
        routes = [
            Route("/health", self._health, ("GET", "HEAD"), role="read", anonymous_inside=True, probe=True),
            Route("/trigger", self._trigger, _ANY, role="spend", anonymous_inside=True, plain=True),
            Route("/v1/profiles", self._list, role="privacy"),
            Route("/v1/profiles", self._put_profiles, ("POST",), role="privacy"),
            Route("/v1/profiles/{customer_id}", self._profile, role="privacy"),
            Route("/v1/profiles/{customer_id}/explanation", self._explain, role="privacy"),
            Route("/v1/events", self._put_events, ("POST",), role="privacy"),
            Route("/v1/suppressions", self._suppress, ("POST",), role="privacy"),
            Route("/v1/playbooks", self._list_playbooks, role="read"),
            Route("/v1/plans", self._plan, ("POST",), role="privacy"),
            Route("/v1/previews", self._preview, ("POST",), role="privacy"),
            Route("/v1/runs", self._run, ("POST",), role="admin"),
            Route("/v1/syncs", self._sync, ("POST",), role="admin"),
            Route("/v1/journeys", self._journeys, role="read"),
            Route("/v1/outcomes", self._outcomes, role="read"),
            Route("/v1/outcomes/export", self._export, role="privacy"),
            Route("/v1/webhooks/{provider}", self._webhook, ("POST",), self_proving=True),
            Route(f"{PATH}{{token}}", self._ask_to_leave, self_proving=True),
            Route(f"{PATH}{{token}}", self._leave, ("POST",), self_proving=True),
            *self._privacy.routes(),
        ]
        if self._outbox is not None:
            routes += OutboxRoutes(self._outbox).routes()
        return routes

    # -- its life ------------------------------------------------------------------------------------

    async def _start(self) -> None:
        await self._desk.open()
        lost = await _blocking(self._engine.sender.recover)
        if lost:
            log_event(logger, logging.WARNING, "messages may have been sent when this service was killed", unknown=lost)
        self._rounds.start()

    async def _close(self) -> None:
        await self._rounds.stop()
        await self._desk.close()
        await _blocking(self._store.close)

    async def _reload(self) -> None:
        await _blocking(self._shelf.reload)

    async def _checks(self) -> Sequence[Check]:
        found = []
        try:
            await _blocking(lambda: self._store.database.read("SELECT 1"))
            found.append(Check("store", ok=True))
        except KikiError as error:
            found.append(Check("store", ok=False, detail=str(error)))
        if self._rounds.failure:
            # Ready all the same: what is asked for is answered, and nothing is sent that should not be.
            found.append(Check("tasks", ok=True, detail=self._rounds.failure))
        return found

    # -- the original's routes -----------------------------------------------------------------------

    async def _health(self, _: Request) -> Reply:
        return json_reply(
            {
                "status": "healthy",
                "service": NAME,
                "ltv_client": await self._desk.knows_value(),
                "timestamp": to_iso(wall_micros()),
            }
        )

    async def _trigger(self, request: Request) -> Reply:
        try:
            customer = read_customer(await read_body(request))
        except InvalidInput as error:
            return plain(str(error), 400)
        answer, allowed = await self._desk.decide(customer)
        self._metrics.answered(answer, allowed=allowed)
        headers = (("X-Kiki-LTV-Source", "fallback" if answer.is_fallback else "syncvalue"),)
        if not allowed:
            return json_reply(None, headers=headers)
        if answer.trigger.trigger_type:
            await _blocking(lambda: self._audit.write(answer))
        return json_reply(answer.as_json(), headers=headers)

    # -- customers -----------------------------------------------------------------------------------

    async def _list(self, request: Request) -> Reply:
        given = _parameters(request, "after", "limit")
        after, limit = given.get("after") or "", limit_of(given, default=_PAGE, most=_PAGE_MAX)
        if len(after) > ID_CHARS_MAX:
            raise InvalidInput(f"after is a customer's id, at most {ID_CHARS_MAX} characters")
        found = await _blocking(lambda: self._store.customers(after, limit))
        following = found[-1].customer if len(found) == limit else None
        return json_reply({"profiles": [wire.profile_json(each) for each in found], "next": following})

    async def _profile(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        customer = request.params["customer_id"]
        found = await _blocking(lambda: self._store.profile(customer))
        if found is None:
            raise NotFound(f"there is no customer {customer[:40]!r}")
        return json_reply(wire.profile_json(found))

    async def _explain(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        customer = request.params["customer_id"]
        return json_reply(await _blocking(lambda: explain(self._engine, customer, self._shelf.playbooks())))

    async def _put_profiles(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        profiles = [each.profile() for each in wire.read(await read_json_text(request), wire.ProfilesBody).profiles]
        kept = await _blocking(lambda: self._store.keep("api", profiles))
        return json_reply({"kept": kept.profiles, "erased": kept.erased})

    async def _put_events(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        events = [each.event() for each in wire.read(await read_json_text(request), wire.EventsBody).events]
        kept = await _blocking(lambda: self._store.keep("api", events))
        return json_reply({"kept": kept.events, "repeated": kept.repeated, "erased": kept.erased})

    async def _suppress(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        body = wire.read(await read_json_text(request), wire.SuppressionBody)
        await _blocking(lambda: self._store.suppressions.add(body.customer_id, body.channel, body.reason))
        return json_reply({"customer_id": body.customer_id, "channel": body.channel})

    # -- playbooks -----------------------------------------------------------------------------------

    async def _list_playbooks(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        found = sorted((each.name, each.version) for each in self._shelf.playbooks())
        return json_reply({"playbooks": [{"name": name, "version": version} for name, version in found]})

    async def _plan(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        playbook = await self._named(request)
        return json_reply(as_json(await _blocking(lambda: self._engine.plan(playbook))))

    async def _run(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        playbook = await self._named(request)
        maker = self._shelf.maker(playbook)
        run = await _blocking(lambda: self._engine.run(maker.playbook, maker))
        self._metrics.ran(run.verdicts, run.messages)
        return json_reply(run_json(run))

    async def _preview(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        body = wire.read(await read_json_text(request), wire.PreviewBody)
        maker = await _blocking(lambda: MessageMaker(self._shelf.read(body.playbook)))
        if body.customer_id is None:
            return json_reply(await _blocking(lambda: preview(maker, body.offer)))
        customer = body.customer_id
        person = await _blocking(lambda: self._store.profile(customer))
        if person is None:
            raise NotFound(f"there is no customer {customer[:40]!r}")
        return json_reply(await _blocking(lambda: preview(maker, body.offer, person)))

    async def _sync(self, request: Request) -> Reply:
        given = _parameters(request, "write_back", "tag")
        asked = {"written_back": (given.get("write_back"), write_back), "tagged": (given.get("tag"), add_tags)}
        wanted = [(told, self._shelf.named(name), tell) for told, (name, tell) in asked.items() if name is not None]
        done = await self._rounds.sync_once()
        for told, playbook, tell in wanted:
            if self._source is not None:
                done[told] = (await _blocking(partial(tell, self._engine, self._source, playbook)))._asdict()
        return json_reply(done)

    async def _journeys(self, request: Request) -> Reply:
        playbook = self._shelf.named(_parameters(request, "playbook").get("playbook"))
        found = await _blocking(lambda: self._engine.book.occupancy(playbook.name))
        return json_reply({"playbook": playbook.name, "journeys": found})

    async def _outcomes(self, request: Request) -> Reply:
        given = _parameters(request, "playbook", "together")
        playbook = self._shelf.named(given.get("playbook"))
        together = given.get("together") or "false"
        if together not in {"true", "false"}:
            raise InvalidInput("together is true or false")
        if together == "true":
            everywhere = self._engine.sides.everywhere
            return json_reply(await _blocking(lambda: report_json(program_report(playbook, self._store, everywhere))))
        share = self._engine.held_out_share(playbook)
        return json_reply(await _blocking(lambda: report_json(report(playbook, self._store, share))))

    async def _export(self, request: Request) -> Reply:
        playbook = self._shelf.named(_parameters(request, "playbook").get("playbook"))
        text = await _blocking(lambda: csv_text(export_rows(playbook, self._store), secrets.token_bytes(32)))
        return Reply(text.encode(), "text/csv")

    async def _named(self, request: Request) -> Playbook:
        body = wire.read(await read_json_text(request), wire.PlaybookBody)
        return await _blocking(lambda: self._shelf.read(body.playbook))

    # -- from outside --------------------------------------------------------------------------------

    async def _webhook(self, request: Request) -> Reply:
        provider = request.params["provider"]
        if not self._take_webhooks:
            raise NotFound("webhooks are turned off", hint="ENABLE_WEBHOOKS=true takes them")
        body = await read_body(request)
        if len(body) > BODY_BYTES_MAX:
            raise BodyTooLarge(f"a call of a provider has at most {BODY_BYTES_MAX} bytes")
        base = self._public_url or f"{request.scheme}://{request.host}"
        headers = {name.lower(): value for name, value in request.headers.items()}
        # The target as it came: what was signed is its very bytes, not a normalised spelling of them.
        call = WebhookCall(request.method, f"{base}{request.raw_path}", headers, body)
        try:
            taken = await _blocking(lambda: self._post_room.take(provider, call))
        except (Unauthenticated, InvalidInput, NotFound):
            self._metrics.called(provider if provider in self._post_room.readers else "other", "refused")
            raise
        self._metrics.called(provider, "taken")
        if taken.has_demands:
            self._rounds.demanded.set()
        return json_reply({"kept": taken.new})

    async def _ask_to_leave(self, _: Request) -> Reply:
        # Whatever the token: link scanners fetch everything, and learn and change nothing.
        return page(question_page())

    async def _leave(self, request: Request) -> Reply:
        await read_body(request)
        try:
            await _blocking(lambda: self._post_room.leave(request.params["token"]))
        except NotFound:
            return page(broken_page(), 404)
        return page(done_page())


async def _blocking(work: Callable[[], _Found]) -> _Found:
    return await asyncio.to_thread(work)


def _parameters(request: Request, *names: str) -> dict[str, str]:
    return read_query(pairs(request), names)[0]
