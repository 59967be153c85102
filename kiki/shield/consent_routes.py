"""The routes of consent: the original's three, the ones under /v1, and the site's word about Global Privacy Control.

Like everything of the service they parse, make one call and answer. Writing is a change that the guard decides in
turn; a withdrawal is answered once nobody acts on the consent any more. Reading goes on a thread.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from kiki.errors import InvalidInput
from kiki.members import require_no_query
from kiki.shield import wire_consent, wire_guide_consent
from kiki.shield.async_guard import AsyncGuard
from kiki.shield.caller import actor_of
from kiki.shield.consent import State, consent_key
from kiki.shield.consent_change import Given, consent_change, signal_change
from kiki.shield.consent_record import ConsentRecord
from kiki.shield.consent_store import ConsentStore
from kiki.shield.consent_words import parse_customer_id, parse_purpose, signal_of
from kiki.shield.wire import dump
from kiki.shield.wire_consent import Asked, Checks, RecordsQuery
from kiki.web import Reply, Request, Route, json_reply, pairs, plain, read_json, wants_json
from kiki.web.refusals import Headers
from kiki.web.reply import JSON

Value = TypeVar("Value")
Handler = Callable[[Request], Awaitable[Reply]]

EVERY_METHOD: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
"""The original looked at no method where it only reads."""
SIGNAL_HEADER: Final = "Sec-GPC"
HONOURED_HEADER: Final[Headers] = (("Kiki-Opt-Out-Signal", "honored"),)
"""Whoever shows a person whether the signal was processed (11 CCR 7025(c)(6)) takes it from here."""
SIGNAL_SINCE: Final = "2026-11-22"
_SCANNED_MAX: Final = 20_000


def guide_route(handler: Handler) -> Handler:
    """The original's own words for what is wrong, without our advice behind them, unless JSON is asked for."""

    async def answered(request: Request) -> Reply:
        try:
            return await handler(request)
        except InvalidInput as error:
            if wants_json(request) or error.hint is None:
                raise
            return plain(str(error), 400)

    return answered


class ConsentRoutes:
    """Serves one `ConsentStore`; `asynchronous` gives the guard of the running loop."""

    def __init__(self, store: ConsentStore, asynchronous: Callable[[], AsyncGuard]) -> None:
        self._store = store
        self._asynchronous = asynchronous
        # Which process counted a lease: another one's monotonic clock means nothing here.
        self._epoch = secrets.randbits(32) | 1

    def routes(self) -> Sequence[Route]:
        """All of them.

        The original's routes are open inside even where there are tokens, as `/spend` is: the guide's commands send
        none, and the port inside is fenced by the network policy. Outside they ask for the role `privacy`.
        """
        inside: dict[str, Any] = {"role": "privacy", "anonymous_inside": True, "plain": True}
        return [
            Route("/consent/grant", guide_route(self._guide_grant), ("POST",), **inside),
            Route("/consent/revoke", guide_route(self._guide_revoke), ("POST",), **inside),
            Route("/consent/status", guide_route(self._guide_status), EVERY_METHOD, **inside),
            # There is nothing to prove: browsers and auditors read it without any token.
            Route("/.well-known/gpc.json", self._gpc, ("GET", "HEAD"), self_proving=True),
            Route("/v1/consents", self._say, ("POST",), role="privacy"),
            Route("/v1/consents", self._records, role="privacy"),
            Route("/v1/consents/{customer_id}", self._of_customer, role="privacy"),
            Route("/v1/consents/{customer_id}/history", self._history, role="privacy"),
            # Whoever may spend learns from every spend whether there is consent; this asks for no more.
            Route("/v1/consents:check", self._check, ("POST",), role="spend"),
            Route("/v1/consents:confirm", self._confirm, ("POST",), role="spend"),
        ]

    # -- the original's ------------------------------------------------------------------------------

    async def _guide_grant(self, request: Request) -> Reply:
        headers = await self._guide_say(request, State.GRANTED)
        return json_reply(wire_guide_consent.GRANTED_REPLY, headers=headers)

    async def _guide_revoke(self, request: Request) -> Reply:
        headers = await self._guide_say(request, State.REVOKED)
        return json_reply(wire_guide_consent.REVOKED_REPLY, headers=headers)

    async def _guide_say(self, request: Request, state: State) -> Headers:
        if request.can_read_body:
            require_no_query(pairs(request))
            asked = wire_guide_consent.guide_body(await read_json(request), state)
        else:
            asked = wire_guide_consent.guide_query(pairs(request), state)
        given = asked.given
        given["ip_address"] = address = given.get("ip_address") or request.remote or ""
        given["user_agent"] = given.get("user_agent") or request.headers.get("User-Agent") or ""
        # Everything is read before the signal of the same request is written down.
        parse_customer_id(asked.customer)
        parse_purpose(asked.purpose, self._store.purposes)
        headers = await self._honour(request, asked.customer, address)
        await self._write(request, asked)
        return headers

    async def _guide_status(self, request: Request) -> Reply:
        if request.can_read_body:
            require_no_query(pairs(request))
            customer = wire_guide_consent.guide_customer_body(await read_json(request))
        else:
            customer = wire_guide_consent.guide_customer_query(pairs(request))
        headers = await self._honour(request, customer, request.remote or "")
        records = await self._look(lambda store: store.status(customer))
        shown = {purpose: wire_guide_consent.guide_consent(record) for purpose, record in records.items()}
        return json_reply(shown, headers=headers)

    async def _honour(self, request: Request, customer: str, address: str) -> Headers:
        """Write down the opt-out signal that the request carries; what to say about that."""
        if not signal_of(request.headers.getall(SIGNAL_HEADER, ())):
            return ()
        agent = request.headers.get("User-Agent", "")
        await self._signal(request, customer, Given(ip_address=address, user_agent=agent))
        return HONOURED_HEADER

    async def _gpc(self, _: Request) -> Reply:
        return json_reply({"gpc": True, "lastUpdate": SIGNAL_SINCE})

    # -- saying --------------------------------------------------------------------------------------

    async def _say(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        asked = wire_consent.consent_body(await read_json(request))
        if isinstance(asked, Asked):
            records = [await self._write(request, asked)]
        else:
            records = await self._signal(request, asked.customer, asked.given)
        return _dumped(wire_consent.ConsentsReply(consents=[wire_consent.consent_reply(each) for each in records]))

    async def _write(self, request: Request, asked: Asked) -> ConsentRecord:
        asked.given["actor"] = actor_of(request)
        said = self._store.said(asked.customer, asked.purpose, asked.state, **asked.given)
        record: ConsentRecord = await self._asynchronous().decide(consent_change(said))
        return await self._store.settled_async(record)

    async def _signal(self, request: Request, customer: str, given: Given) -> list[ConsentRecord]:
        given["actor"] = actor_of(request)
        change = signal_change(customer, self._store.decider.clock(), **given)
        records: list[ConsentRecord] = await self._asynchronous().decide(change)
        return list(await asyncio.gather(*map(self._store.settled_async, records)))

    # -- asking --------------------------------------------------------------------------------------

    async def _records(self, request: Request) -> Reply:
        wanted = wire_consent.records_query(pairs(request), self._store.purposes)
        return _dumped(await self._look(lambda store: page_of(store, wanted)))

    async def _of_customer(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        customer = parse_customer_id(request.params["customer_id"])
        records = await self._look(lambda store: store.status(customer))
        return _customers(customer, records.values())

    async def _history(self, request: Request) -> Reply:
        purpose = wire_consent.history_query(pairs(request), self._store.purposes)
        customer = parse_customer_id(request.params["customer_id"])
        return _customers(customer, await self._look(lambda store: store.history(customer, purpose)))

    async def _check(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        checks = wire_consent.check_body(await read_json(request))
        for _, purpose in checks.pairs:
            parse_purpose(purpose, self._store.purposes)
        holder = None if checks.holder is None else _holder(request, checks.holder)
        return _dumped(await self._look(lambda store: self._answers(store, checks, holder)))

    def _answers(self, store: ConsentStore, checks: Checks, holder: str | None) -> wire_consent.ConsentAnswersReply:
        if holder is None:
            used = store.used_many(checks.pairs)
            answers = [wire_consent.unleased(*pair, each) for pair, each in zip(checks.pairs, used, strict=True)]
        else:
            answers = [
                wire_consent.answer_of(customer, purpose, store.lease(customer, purpose, holder), self._epoch)
                for customer, purpose in checks.pairs
            ]
        return wire_consent.ConsentAnswersReply(answers=answers)

    async def _confirm(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        given, confirmed = wire_consent.confirm_body(await read_json(request))
        holder = _holder(request, given)
        for each in confirmed:
            parse_purpose(each.purpose, self._store.purposes)

        def confirm(store: ConsentStore) -> wire_consent.RecallsReply:
            subjects = store.decider.subjects
            for each in confirmed:
                person = subjects.find(f"customer:{each.customer}")
                end = wire_consent.end_of(each.lease, self._epoch)
                if person is not None and end is not None:
                    store.leases.confirm(person.reference, each.purpose, holder, end)
            recalls: list[wire_consent.ConsentRecall] = []
            for recall in store.leases.recalls(holder):
                customer = (subjects.identity(recall.subject) or "").removeprefix("customer:")
                lease = wire_consent.write_lease(self._epoch, recall.end)
                recalls.append(wire_consent.ConsentRecall(customer_id=customer, purpose=recall.purpose, lease=lease))
            return wire_consent.RecallsReply(recalls=[each for each in recalls if each.customer_id])

        return _dumped(await self._look(confirm))

    async def _look(self, at: Callable[[ConsentStore], Value]) -> Value:
        return await self._asynchronous().look(lambda _: at(self._store))


def page_of(store: ConsentStore, wanted: RecordsQuery) -> wire_consent.ConsentPageReply:
    """Some of all states of consent. A page may hold few, or none, while there is a next one: it looks at so many."""
    found: list[ConsentRecord] = []
    last: ConsentRecord | None = None
    seen = 0
    for record in islice(store.records(sealed=False, after=wanted.after), _SCANNED_MAX):
        seen += 1
        last = record
        if wanted.purpose in {None, record.purpose} and wanted.state in {None, record.state}:
            found.append(record)
        if len(found) == wanted.limit:
            break
    more = last is not None and (len(found) == wanted.limit or seen == _SCANNED_MAX)
    following = consent_key(last.subject, last.purpose).hex() if last is not None and more else None
    return wire_consent.ConsentPageReply(
        consents=[wire_consent.consent_reply(record) for record in found], next=following
    )


def _customers(customer: str, records: Any) -> Reply:
    shown = [wire_consent.consent_reply(record) for record in records]
    return _dumped(wire_consent.CustomerConsentsReply(customer_id=customer, consents=shown))


def _dumped(reply: object) -> Reply:
    return Reply(dump(reply), JSON)


def _holder(request: Request, given: str) -> str:
    """A holder as its leases know it: nobody may confirm in the name of another token."""
    return f"{actor_of(request)}/{given}"
