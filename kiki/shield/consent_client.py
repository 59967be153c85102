"""Consent of a SyncShield behind HTTP, in two colours: `client.consents.grant(...)`.

Everything here may be sent again when nobody answers, because saying the same twice is saying it once: a repeated
grant or withdrawal writes nothing new, and a repeated question changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final, Unpack
from urllib.parse import quote

import msgspec

from kiki.clock import to_iso, wall_micros
from kiki.errors import InvalidInput
from kiki.shield.consent import State
from kiki.shield.consent_change import Given
from kiki.shield.consent_words import parse_customer_id
from kiki.shield.conversation import Conversation, Flow
from kiki.shield.enforcer import Leased
from kiki.shield.http_line import AsyncLine, Line
from kiki.shield.wire_consent import (
    ConsentAnswer,
    ConsentAnswersReply,
    ConsentPageReply,
    ConsentRecall,
    ConsentReply,
    ConsentsReply,
    CustomerConsentsReply,
    RecallsReply,
)
from kiki.shield.wire_moment import iso_of

Body = dict[str, Any]
Pair = tuple[str, str]

_MOMENTS: Final = ("expires_at", "said_at")


# -- each conversation once --------------------------------------------------------------------------


def _say(line: Conversation, customer: str, purpose: str, state: State, given: Given) -> Flow[ConsentReply]:
    body = {"customer_id": parse_customer_id(customer), "purpose": purpose, "state": state.value, **_members(given)}
    reply = yield from line.ask("POST", "/v1/consents", body)
    (record,) = line.understood(reply, lambda: _consents(line.read(reply, ConsentsReply).consents, 1))
    return record


def _signal(line: Conversation, customer: str, given: Given) -> Flow[list[ConsentReply]]:
    body = {"customer_id": parse_customer_id(customer), "gpc": "1", **_members(given)}
    return (yield from line.post("/v1/consents", body, ConsentsReply)).consents


def _consents(found: list[ConsentReply], count: int) -> list[ConsentReply]:
    if len(found) != count:
        raise ValueError(f"{len(found)} records for {count}")
    return found


def _status(line: Conversation, customer: str) -> Flow[dict[str, ConsentReply]]:
    found = yield from line.get(_of(customer), CustomerConsentsReply)
    return {record.purpose: record for record in found.consents}


def _history(line: Conversation, customer: str, purpose: str | None) -> Flow[list[ConsentReply]]:
    found = yield from line.get(f"{_of(customer)}/history", CustomerConsentsReply, [("purpose", purpose)])
    return found.consents


def _page(
    line: Conversation, after: str | None, limit: int | None, purpose: str | None, state: str | None
) -> Flow[ConsentPageReply]:
    params = [
        ("after", after),
        ("limit", None if limit is None else str(limit)),
        ("purpose", purpose),
        ("state", state),
    ]
    return line.get("/v1/consents", ConsentPageReply, params)


def _check(line: Conversation, pairs: list[Pair], holder: str | None) -> Flow[list[ConsentAnswer]]:
    body: Body = {"checks": [{"customer_id": customer, "purpose": purpose} for customer, purpose in pairs]}
    if holder is not None:
        body["holder"] = holder
    reply = yield from line.ask("POST", "/v1/consents:check", body)
    answers = line.read(reply, ConsentAnswersReply).answers
    if [(each.customer_id, each.purpose) for each in answers] != pairs:
        # An answer about somebody else must never be taken for one about this person.
        raise line.nonsense(reply, "the answers are not those to the questions")
    return answers


def _confirm(line: Conversation, holder: str, confirmed: Iterable[ConsentRecall]) -> Flow[list[ConsentRecall]]:
    body = {"holder": holder, "confirmed": [msgspec.to_builtins(each) for each in confirmed]}
    return (yield from line.post("/v1/consents:confirm", body, RecallsReply)).recalls


def _of(customer: str) -> str:
    return f"/v1/consents/{quote(parse_customer_id(customer), safe='')}"


def _members(given: Given) -> Body:
    """What goes with a statement, as JSON has it. A span is counted from now, so that a repeat says the same."""
    body: Body = {}
    for name, value in given.items():
        if value is None or value in {"", False}:
            continue
        body[name] = _moment(value) if name in _MOMENTS else value
    return body


def _moment(value: object) -> str:
    try:
        if isinstance(value, timedelta):
            return to_iso(wall_micros() + value // timedelta(microseconds=1))
        if isinstance(value, datetime):
            return iso_of(value) or ""
        if isinstance(value, int):
            return to_iso(value)
    except InvalidInput:
        raise  # it says what is wrong, and is a ValueError too
    except (ValueError, OverflowError, OSError):
        pass  # a year that there is not
    raise InvalidInput(
        "a moment is an aware datetime, a span from now, or microseconds since 1970, up to the year 9999"
    )


# -- in two colours ----------------------------------------------------------------------------------


class Consents:
    """A `ConsentStore` behind HTTP: who consented to what. Moments in records are RFC 3339."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def grant(self, customer: str, purpose: str, **given: Unpack[Given]) -> ConsentReply:
        """The customer consents; raises `ConsentConflict` against an opt-out signal without `overrides`."""
        return self._line.drive(_say(self._line, customer, purpose, State.GRANTED, given))

    def deny(self, customer: str, purpose: str, **given: Unpack[Given]) -> ConsentReply:
        """The customer was asked and says no."""
        return self._line.drive(_say(self._line, customer, purpose, State.DENIED, given))

    def revoke(self, customer: str, purpose: str, **given: Unpack[Given]) -> ConsentReply:
        """The customer takes consent back; answered once nobody acts on it any more."""
        return self._line.drive(_say(self._line, customer, purpose, State.REVOKED, given))

    def signal(self, customer: str, **given: Unpack[Given]) -> list[ConsentReply]:
        """The customer's browser sent `Sec-GPC: 1`: what holds now for each purpose that it concerns."""
        return self._line.drive(_signal(self._line, customer, given))

    def status(self, customer: str) -> dict[str, ConsentReply]:
        """Everything that is known of a customer, by purpose."""
        return self._line.drive(_status(self._line, customer))

    def history(self, customer: str, purpose: str | None = None) -> list[ConsentReply]:
        """Everything that a customer ever said, the oldest first."""
        return self._line.drive(_history(self._line, customer, purpose))

    def page(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        purpose: str | None = None,
        state: str | None = None,
    ) -> ConsentPageReply:
        """Some of all states of consent; give its `next` as `after` for the page behind it."""
        return self._line.drive(_page(self._line, after, limit, purpose, state))

    def records(self, *, purpose: str | None = None, state: str | None = None) -> Iterator[ConsentReply]:
        """Every customer's last word, page after page."""
        after: str | None = None
        while True:
            page = self.page(after=after, purpose=purpose, state=state)
            yield from page.consents
            if page.next is None:
                return
            after = page.next

    def check(self, customer: str, purpose: str) -> bool:
        """Whether the customer consents now."""
        return self.check_many([(customer, purpose)])[0].allowed

    def check_many(self, pairs: Iterable[Pair], *, holder: str | None = None) -> list[ConsentAnswer]:
        """Whether each customer consents, in order; with a `holder` the answers come under a lease."""
        return self._line.drive(_check(self._line, list(pairs), holder))

    def leased(self, customer: str, purpose: str, holder: str) -> Leased:
        """One answer as an `Enforcer` holds it."""
        return self.check_many([(customer, purpose)], holder=holder)[0].leased()

    def confirm(self, holder: str, confirmed: Iterable[ConsentRecall] = ()) -> list[ConsentRecall]:
        """Say which answers this holder acts on no more, and hear which ones it must drop."""
        return self._line.drive(_confirm(self._line, holder, confirmed))


class AsyncConsents:
    """A `ConsentStore` behind HTTP: who consented to what. Moments in records are RFC 3339."""

    def __init__(self, line: AsyncLine) -> None:
        self._line = line

    async def grant(self, customer: str, purpose: str, **given: Unpack[Given]) -> ConsentReply:
        """The customer consents; raises `ConsentConflict` against an opt-out signal without `overrides`."""
        return await self._line.drive(_say(self._line, customer, purpose, State.GRANTED, given))

    async def deny(self, customer: str, purpose: str, **given: Unpack[Given]) -> ConsentReply:
        """The customer was asked and says no."""
        return await self._line.drive(_say(self._line, customer, purpose, State.DENIED, given))

    async def revoke(self, customer: str, purpose: str, **given: Unpack[Given]) -> ConsentReply:
        """The customer takes consent back; answered once nobody acts on it any more."""
        return await self._line.drive(_say(self._line, customer, purpose, State.REVOKED, given))

    async def signal(self, customer: str, **given: Unpack[Given]) -> list[ConsentReply]:
        """The customer's browser sent `Sec-GPC: 1`: what holds now for each purpose that it concerns."""
        return await self._line.drive(_signal(self._line, customer, given))

    async def status(self, customer: str) -> dict[str, ConsentReply]:
        """Everything that is known of a customer, by purpose."""
        return await self._line.drive(_status(self._line, customer))

    async def history(self, customer: str, purpose: str | None = None) -> list[ConsentReply]:
        """Everything that a customer ever said, the oldest first."""
        return await self._line.drive(_history(self._line, customer, purpose))

    async def page(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        purpose: str | None = None,
        state: str | None = None,
    ) -> ConsentPageReply:
        """Some of all states of consent; give its `next` as `after` for the page behind it."""
        return await self._line.drive(_page(self._line, after, limit, purpose, state))

    async def records(self, *, purpose: str | None = None, state: str | None = None) -> AsyncIterator[ConsentReply]:
        """Every customer's last word, page after page."""
        after: str | None = None
        while True:
            page = await self.page(after=after, purpose=purpose, state=state)
            for record in page.consents:
                yield record
            if page.next is None:
                return
            after = page.next

    async def check(self, customer: str, purpose: str) -> bool:
        """Whether the customer consents now."""
        return (await self.check_many([(customer, purpose)]))[0].allowed

    async def check_many(self, pairs: Iterable[Pair], *, holder: str | None = None) -> list[ConsentAnswer]:
        """Whether each customer consents, in order; with a `holder` the answers come under a lease."""
        return await self._line.drive(_check(self._line, list(pairs), holder))

    async def leased(self, customer: str, purpose: str, holder: str) -> Leased:
        """One answer as an `Enforcer` holds it."""
        return (await self.check_many([(customer, purpose)], holder=holder))[0].leased()

    async def confirm(self, holder: str, confirmed: Iterable[ConsentRecall] = ()) -> list[ConsentRecall]:
        """Say which answers this holder acts on no more, and hear which ones it must drop."""
        return await self._line.drive(_confirm(self._line, holder, confirmed))
