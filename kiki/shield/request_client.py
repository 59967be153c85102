"""Data subject requests and legal holds of a SyncShield behind HTTP, in two colours: `client.requests.create(...)`.

What is sent again when nobody answers is what may be said twice: a request is made under a key, a run goes on where it
was. A proof of identity counts each time, and a step that closes a request cannot be taken again: those are sent once, and
who hears nothing looks at the request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Final, Unpack
from uuid import uuid4

from kiki.errors import InvalidInput, KikiError
from kiki.shield.conversation import DOWNLOAD_SECONDS, Conversation, Flow, Wait
from kiki.shield.dsr import State, parse_request_id
from kiki.shield.http_line import AsyncLine, Line
from kiki.shield.new_file import new_file
from kiki.shield.request_intake import Given
from kiki.shield.wire_moment import iso_of
from kiki.shield.wire_request_answer import (
    HoldReply,
    LegalHoldsReply,
    LiftedReply,
    PackageReply,
    RequestReply,
    RequestsReply,
)

RUN_SECONDS: Final = 600.0
"""How long a caller waits for a run by default; it goes on without the caller, too."""
_RUN_TRY_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 2.0


# -- each conversation once --------------------------------------------------------------------------


def _create(line: Conversation, customer: str, kind: str, given: Given) -> Flow[RequestReply]:
    body: dict[str, Any] = {"customer_id": customer, "type": kind, "key": uuid4().hex}
    for name, value in given.items():
        if value is None or value == "":
            continue
        if name == "received_at":
            if not isinstance(value, datetime):
                raise InvalidInput("received_at is an aware datetime")
            body[name] = iso_of(value)
        elif isinstance(value, str | dict):
            body[name] = value
        else:
            body[name] = list(value) if isinstance(value, Iterable) else value
    return line.post("/v1/requests", body, RequestReply)


def _list(
    line: Conversation,
    kind: str | None,
    state: str | None,
    is_open: bool | None,
    customer: str | None,
    due_before: datetime | None,
    limit: int | None,
) -> Flow[RequestsReply]:
    params = [
        ("type", kind),
        ("state", state),
        ("open", None if is_open is None else str(is_open).lower()),
        ("customer_id", customer),
        ("due_before", iso_of(due_before)),
        ("limit", None if limit is None else str(limit)),
    ]
    return line.get("/v1/requests", RequestsReply, params)


def _get(line: Conversation, request: str) -> Flow[RequestReply]:
    return line.get(_of(request), RequestReply)


def _step(
    line: Conversation, request: str, step: str, told: dict[str, Any] | None = None, *, repeat: bool = False
) -> Flow[RequestReply]:
    said = {name: value for name, value in (told or {}).items() if value not in (None, "")}
    reply = yield from line.ask("POST", f"{_of(request)}/{step}", said, repeat=repeat)
    return line.read(reply, RequestReply)


def _assign(line: Conversation, request: str, to: str) -> Flow[RequestReply]:
    reply = yield from line.ask("POST", f"{_of(request)}/assign", {"to": to})
    return line.read(reply, RequestReply)


def _run(line: Conversation, request: str, seconds: float) -> Flow[RequestReply]:
    """The request after its run, or as it is when the time is over."""
    reply = yield from line.ask("POST", f"{_of(request)}/run", {}, seconds=_RUN_TRY_SECONDS)
    found = line.read(reply, RequestReply)
    waited = 0.0
    while found.state == State.RUNNING and waited < seconds:
        yield Wait(_LOOK_SECONDS)
        waited += _LOOK_SECONDS
        found = yield from _get(line, request)
    return found


def _package(line: Conversation, request: str, file: BinaryIO) -> Flow[str]:
    made = yield from line.post(f"{_of(request)}/package", {}, PackageReply)
    # The token is good once: what breaks off is begun anew with another one.
    yield from line.ask(
        "GET",
        f"{_of(request)}/package",
        params=[("token", made.token)],
        repeat=False,
        seconds=DOWNLOAD_SECONDS,
        sink=file,
    )
    file.seek(0)
    digest = sha256()
    for piece in _pieces(file):
        digest.update(piece)
    if digest.hexdigest() != made.sha256:
        raise KikiError("the package is not the one that was made: its SHA-256 differs", hint="fetch it again")
    return made.sha256


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(1 << 20):
        yield piece


def _link(line: Conversation, request: str) -> Flow[PackageReply]:
    return line.post(f"{_of(request)}/package", {}, PackageReply)


def _proof(line: Conversation, request: str) -> Flow[str]:
    reply = yield from line.ask("GET", f"{_of(request)}/proof")
    return reply.content.decode("utf-8", "replace")


def _holds(line: Conversation) -> Flow[list[HoldReply]]:
    return (yield from line.get("/v1/legal-holds", LegalHoldsReply)).holds


def _hold(line: Conversation, reference: str, customer: str | None) -> Flow[HoldReply]:
    body = {"reference": reference} | ({} if customer is None else {"customer_id": customer})
    return line.post("/v1/legal-holds", body, HoldReply)


def _lift(line: Conversation, reference: str, customer: str | None) -> Flow[list[RequestReply]]:
    params = [("reference", reference), ("customer_id", customer)]
    reply = yield from line.ask("DELETE", "/v1/legal-holds", params=params, repeat=False)
    return line.read(reply, LiftedReply).requests


def _of(request: str) -> str:
    return f"/v1/requests/{parse_request_id(request)}"


# -- in two colours ----------------------------------------------------------------------------------


class Requests:
    """A `RequestDesk` behind HTTP: data subject requests from receipt to proof. Moments in records are RFC 3339."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def create(self, customer: str, kind: str, **given: Unpack[Given]) -> RequestReply:
        """Take in a request; while one of the same person and kind is open, that one is answered."""
        return self._line.drive(_create(self._line, customer, kind, given))

    def list(
        self,
        *,
        kind: str | None = None,
        state: str | None = None,
        is_open: bool | None = None,
        customer: str | None = None,
        due_before: datetime | None = None,
        limit: int | None = None,
    ) -> RequestsReply:
        """The requests that fit, those that are due first first."""
        return self._line.drive(_list(self._line, kind, state, is_open, customer, due_before, limit))

    def get(self, request: str) -> RequestReply:
        """One request as it stands; raises `NotFound`."""
        return self._line.drive(_get(self._line, request))

    def acknowledge(self, request: str) -> RequestReply:
        """The person was told that the request was received."""
        return self._line.drive(_step(self._line, request, "acknowledge", repeat=True))

    def send_code(self, request: str) -> RequestReply:
        """Send a one-time code to the channel that the person was known by."""
        return self._line.drive(_step(self._line, request, "code"))

    def verify(self, request: str, code: str) -> RequestReply:
        """The person answers with the code; raises `IdentityDenied`, and each wrong one counts."""
        return self._line.drive(_step(self._line, request, "verify", {"code": code}))

    def vouch(self, request: str, operator: str, *, agent_proof: str = "", note: str = "") -> RequestReply:
        """An operator checked the identity of the person, and what shows that an agent may act."""
        return self._line.drive(
            _step(self._line, request, "verify", {"operator": operator, "agent_proof": agent_proof, "note": note})
        )

    def pause(self, request: str, note: str = "") -> RequestReply:
        """The person was asked for proof of identity: the clock of GDPR waits for it."""
        return self._line.drive(_step(self._line, request, "pause", {"note": note}))

    def resume(self, request: str, note: str = "") -> RequestReply:
        """The clock goes on."""
        return self._line.drive(_step(self._line, request, "resume", {"note": note}))

    def extend(self, request: str, reason: str, regimes: Iterable[str] | None = None) -> RequestReply:
        """The person was told that it takes longer, and why."""
        return self._line.drive(
            _step(self._line, request, "extend", {"reason": reason, "regimes": None if regimes is None else [*regimes]})
        )

    def assign(self, request: str, to: str) -> RequestReply:
        """Somebody of the staff takes care of it; empty: nobody in particular."""
        return self._line.drive(_assign(self._line, request, to))

    def refuse(self, request: str, article: str, reason: str) -> RequestReply:
        """Close it without doing it, under a legal provision."""
        return self._line.drive(_step(self._line, request, "refuse", {"article": article, "reason": reason}))

    def cancel(self, request: str, reason: str = "") -> RequestReply:
        """Close it because the person took it back."""
        return self._line.drive(_step(self._line, request, "cancel", {"reason": reason}))

    def run(self, request: str, *, seconds: float = RUN_SECONDS) -> RequestReply:
        """Run it over every system and wait so long; what is still running then goes on by itself."""
        return self._line.drive(_run(self._line, request, seconds))

    def link(self, request: str) -> PackageReply:
        """A token with which the person can fetch the package once, until it expires."""
        return self._line.drive(_link(self._line, request))

    def proof(self, request: str) -> str:
        """The signed proof of what became of a closed request."""
        return self._line.drive(_proof(self._line, request))

    def holds(self) -> Sequence[HoldReply]:
        """The legal holds that are on."""
        return self._line.drive(_holds(self._line))

    def hold(self, reference: str, customer: str | None = None) -> HoldReply:
        """Put a legal hold on a customer, or on everybody."""
        return self._line.drive(_hold(self._line, reference, customer))

    def lift(self, reference: str, customer: str | None = None) -> Sequence[RequestReply]:
        """Lift a hold; the deletions that it stopped, which can be run now."""
        return self._line.drive(_lift(self._line, reference, customer))

    def download(self, request: str, path: str | Path) -> str:
        """Write the package of a finished request to a new file; its SHA-256, which was checked."""
        with new_file(path) as file:
            return self._line.drive(_package(self._line, request, file))


class AsyncRequests:
    """A `RequestDesk` behind HTTP: data subject requests from receipt to proof. Moments in records are RFC 3339."""

    def __init__(self, line: AsyncLine) -> None:
        self._line = line

    async def create(self, customer: str, kind: str, **given: Unpack[Given]) -> RequestReply:
        """Take in a request; while one of the same person and kind is open, that one is answered."""
        return await self._line.drive(_create(self._line, customer, kind, given))

    async def list(
        self,
        *,
        kind: str | None = None,
        state: str | None = None,
        is_open: bool | None = None,
        customer: str | None = None,
        due_before: datetime | None = None,
        limit: int | None = None,
    ) -> RequestsReply:
        """The requests that fit, those that are due first first."""
        return await self._line.drive(_list(self._line, kind, state, is_open, customer, due_before, limit))

    async def get(self, request: str) -> RequestReply:
        """One request as it stands; raises `NotFound`."""
        return await self._line.drive(_get(self._line, request))

    async def acknowledge(self, request: str) -> RequestReply:
        """The person was told that the request was received."""
        return await self._line.drive(_step(self._line, request, "acknowledge", repeat=True))

    async def send_code(self, request: str) -> RequestReply:
        """Send a one-time code to the channel that the person was known by."""
        return await self._line.drive(_step(self._line, request, "code"))

    async def verify(self, request: str, code: str) -> RequestReply:
        """The person answers with the code; raises `IdentityDenied`, and each wrong one counts."""
        return await self._line.drive(_step(self._line, request, "verify", {"code": code}))

    async def vouch(self, request: str, operator: str, *, agent_proof: str = "", note: str = "") -> RequestReply:
        """An operator checked the identity of the person, and what shows that an agent may act."""
        return await self._line.drive(
            _step(self._line, request, "verify", {"operator": operator, "agent_proof": agent_proof, "note": note})
        )

    async def pause(self, request: str, note: str = "") -> RequestReply:
        """The person was asked for proof of identity: the clock of GDPR waits for it."""
        return await self._line.drive(_step(self._line, request, "pause", {"note": note}))

    async def resume(self, request: str, note: str = "") -> RequestReply:
        """The clock goes on."""
        return await self._line.drive(_step(self._line, request, "resume", {"note": note}))

    async def extend(self, request: str, reason: str, regimes: Iterable[str] | None = None) -> RequestReply:
        """The person was told that it takes longer, and why."""
        return await self._line.drive(
            _step(self._line, request, "extend", {"reason": reason, "regimes": None if regimes is None else [*regimes]})
        )

    async def assign(self, request: str, to: str) -> RequestReply:
        """Somebody of the staff takes care of it; empty: nobody in particular."""
        return await self._line.drive(_assign(self._line, request, to))

    async def refuse(self, request: str, article: str, reason: str) -> RequestReply:
        """Close it without doing it, under a legal provision."""
        return await self._line.drive(_step(self._line, request, "refuse", {"article": article, "reason": reason}))

    async def cancel(self, request: str, reason: str = "") -> RequestReply:
        """Close it because the person took it back."""
        return await self._line.drive(_step(self._line, request, "cancel", {"reason": reason}))

    async def run(self, request: str, *, seconds: float = RUN_SECONDS) -> RequestReply:
        """Run it over every system and wait so long; what is still running then goes on by itself."""
        return await self._line.drive(_run(self._line, request, seconds))

    async def link(self, request: str) -> PackageReply:
        """A token with which the person can fetch the package once, until it expires."""
        return await self._line.drive(_link(self._line, request))

    async def proof(self, request: str) -> str:
        """The signed proof of what became of a closed request."""
        return await self._line.drive(_proof(self._line, request))

    async def holds(self) -> Sequence[HoldReply]:
        """The legal holds that are on."""
        return await self._line.drive(_holds(self._line))

    async def hold(self, reference: str, customer: str | None = None) -> HoldReply:
        """Put a legal hold on a customer, or on everybody."""
        return await self._line.drive(_hold(self._line, reference, customer))

    async def lift(self, reference: str, customer: str | None = None) -> Sequence[RequestReply]:
        """Lift a hold; the deletions that it stopped, which can be run now."""
        return await self._line.drive(_lift(self._line, reference, customer))

    async def download(self, request: str, path: str | Path) -> str:
        """Write the package of a finished request to a new file; its SHA-256, which was checked."""
        with new_file(path) as file:
            return await self._line.drive(_package(self._line, request, file))
