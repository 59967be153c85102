"""Consent, compliance and evidence of a SyncShield behind HTTP, in two colours: `client.consents.grant(...)`.

Everything here may be sent again when nobody answers, because saying the same twice is saying it once: a repeated
grant or withdrawal writes nothing new, and a repeated question changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final, Unpack
from urllib.parse import quote

import msgspec

from kiki.clock import to_iso, wall_micros
from kiki.errors import InvalidInput, KikiError
from kiki.shield.compliance_report import ComplianceReport
from kiki.shield.consent import State, parse_customer_id
from kiki.shield.consent_change import Given
from kiki.shield.conversation import AsyncLine, Conversation, Flow, Line
from kiki.shield.enforcer import Leased
from kiki.shield.wire_call import parse_event_id
from kiki.shield.wire_compliance import BreachReply
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
from kiki.shield.wire_evidence import CheckpointsReply, EvidenceReply

Body = dict[str, Any]
Pair = tuple[str, str]

DOWNLOAD_SECONDS: Final = 3600.0
"""How long a bundle may take, made and sent."""
REPORT_SECONDS: Final = 300.0
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
    params = [("after", after), ("limit", _number(limit)), ("purpose", purpose), ("state", state)]
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


def _report(
    line: Conversation, period: str | None, since: datetime | None, until: datetime | None
) -> Flow[ComplianceReport]:
    params = [("period", period), ("from", iso_of(since)), ("to", iso_of(until))]
    reply = yield from line.ask("GET", "/v1/compliance/report", params=params, seconds=REPORT_SECONDS)
    return line.read(reply, ComplianceReport)


def _breach(
    line: Conversation,
    reference: str,
    found_at: datetime | None,
    notified_at: datetime | None,
    affected: int | None,
) -> Flow[BreachReply]:
    given = {"found_at": iso_of(found_at), "notified_at": iso_of(notified_at), "affected": affected}
    told = {name: value for name, value in given.items() if value is not None}
    return line.post("/v1/breaches", {"reference": reference, **told}, BreachReply)


def _standing(line: Conversation) -> Flow[EvidenceReply]:
    return line.get("/v1/evidence", EvidenceReply)


def _checkpoints(line: Conversation, after: int | None, limit: int | None, chain: str | None) -> Flow[CheckpointsReply]:
    params = [("after", _number(after)), ("limit", _number(limit)), ("chain", chain)]
    return line.get("/v1/evidence/checkpoints", CheckpointsReply, params)


def _proof(line: Conversation, event_id: str, chain: str | None) -> Flow[str]:
    path = f"/v1/evidence/{parse_event_id(event_id)}/proof"
    reply = yield from line.ask("GET", path, params=[("chain", chain)])
    return reply.content.decode("utf-8", "replace")


def _bundle(line: Conversation, file: BinaryIO, since: datetime | None, until: datetime | None) -> Flow[None]:
    params = [("from", iso_of(since)), ("to", iso_of(until))]
    yield from line.ask("GET", "/v1/evidence/bundle", params=params, seconds=DOWNLOAD_SECONDS, sink=file)


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
    if isinstance(value, timedelta):
        return to_iso(wall_micros() + value // timedelta(microseconds=1))
    if isinstance(value, datetime):
        return iso_of(value) or ""
    if isinstance(value, int):
        return to_iso(value)
    raise InvalidInput("a moment is an aware datetime, a span from now, or microseconds since 1970")


def iso_of(moment: datetime | None) -> str | None:
    """A moment as the wire has it; raises `InvalidInput` without a time zone."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InvalidInput("a moment needs a time zone: datetime.now(UTC), not datetime.now()")
    return moment.isoformat()


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)


@contextmanager
def new_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file that was not there before, that nobody else may read, and that is there afterwards only when it is whole."""
    try:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w+b") as file:
            try:
                yield file
            except BaseException:
                Path(path).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise KikiError(f"{path} cannot be written: {error.strerror or error}") from error


# -- consent -----------------------------------------------------------------------------------------


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


# -- compliance and evidence -------------------------------------------------------------------------


class Compliance:
    """The compliance report of a service, and its register of breaches."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def report(
        self, period: str | None = None, *, since: datetime | None = None, until: datetime | None = None
    ) -> ComplianceReport:
        """The report of a named period up to now (by default the last month), or between two moments."""
        return self._line.drive(_report(self._line, period, since, until))

    def declare_breach(
        self,
        reference: str,
        *,
        found_at: datetime | None = None,
        notified_at: datetime | None = None,
        affected: int | None = None,
    ) -> BreachReply:
        """Write down a breach of personal data, or more about one that was declared under this reference."""
        return self._line.drive(_breach(self._line, reference, found_at, notified_at, affected))


class AsyncCompliance:
    """The compliance report of a service, and its register of breaches."""

    def __init__(self, line: AsyncLine) -> None:
        self._line = line

    async def report(
        self, period: str | None = None, *, since: datetime | None = None, until: datetime | None = None
    ) -> ComplianceReport:
        """The report of a named period up to now (by default the last month), or between two moments."""
        return await self._line.drive(_report(self._line, period, since, until))

    async def declare_breach(
        self,
        reference: str,
        *,
        found_at: datetime | None = None,
        notified_at: datetime | None = None,
        affected: int | None = None,
    ) -> BreachReply:
        """Write down a breach of personal data, or more about one that was declared under this reference."""
        return await self._line.drive(_breach(self._line, reference, found_at, notified_at, affected))


class Evidence:
    """The evidence of a service's ledger."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def standing(self) -> EvidenceReply:
        """Where the ledger stands: its chain, its last checkpoint, the key to verify it, the archive's lag."""
        return self._line.drive(_standing(self._line))

    def checkpoints(
        self, *, after: int | None = None, limit: int | None = None, chain: str | None = None
    ) -> CheckpointsReply:
        """Signed checkpoints over more than `after` entries; of another replica's chain if it is named."""
        return self._line.drive(_checkpoints(self._line, after, limit, chain))

    def proof(self, event_id: str, chain: str | None = None) -> str:
        """The document that proves one event; check it with `kiki audit verify --proof`.

        `chain` is the one that came with the event id, where several replicas write one each.
        """
        return self._line.drive(_proof(self._line, event_id, chain))

    def bundle(self, path: str | Path, *, since: datetime | None = None, until: datetime | None = None) -> None:
        """Write the bundle of everything that was recorded in that time to a new file."""
        with new_file(path) as file:
            self._line.drive(_bundle(self._line, file, since, until))


class AsyncEvidence:
    """The evidence of a service's ledger."""

    def __init__(self, line: AsyncLine) -> None:
        self._line = line

    async def standing(self) -> EvidenceReply:
        """Where the ledger stands: its chain, its last checkpoint, the key to verify it, the archive's lag."""
        return await self._line.drive(_standing(self._line))

    async def checkpoints(
        self, *, after: int | None = None, limit: int | None = None, chain: str | None = None
    ) -> CheckpointsReply:
        """Signed checkpoints over more than `after` entries; of another replica's chain if it is named."""
        return await self._line.drive(_checkpoints(self._line, after, limit, chain))

    async def proof(self, event_id: str, chain: str | None = None) -> str:
        """The document that proves one event; check it with `kiki audit verify --proof`.

        `chain` is the one that came with the event id, where several replicas write one each.
        """
        return await self._line.drive(_proof(self._line, event_id, chain))

    async def bundle(self, path: str | Path, *, since: datetime | None = None, until: datetime | None = None) -> None:
        """Write the bundle of everything that was recorded in that time to a new file."""
        with new_file(path) as file:
            await self._line.drive(_bundle(self._line, file, since, until))
