"""`ShieldClient` and `AsyncShieldClient`: a `BudgetGuard` that lives behind HTTP, with the same names and errors.

A call that changes something always carries an idempotency key, made here when the caller gives none, so that trying
again is the same spend and never a second one. `consents`, `requests` and `evidence` hold what concerns persons and
proofs: see `privacy_client`. How patiently all of it is asked for stands in `conversation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from kiki.errors import InvalidInput
from kiki.shield import wire, wire_call, wire_simulation
from kiki.shield.call import (
    Amount,
    Call,
    ScopesGiven,
    Switch,
    check_call,
    commit_call,
    record_call,
    release_call,
    reserve_call,
    spend_call,
    spend_many_call,
    switch,
)
from kiki.shield.client_hold import AsyncClientHold, ClientHold
from kiki.shield.client_settings import default_token, default_url, read_token
from kiki.shield.conversation import (
    DEADLINE,
    RETRIES,
    TIMEOUT,
    Conversation,
    Flow,
    denied_of,
    outcome_of,
)
from kiki.shield.note import Detail, Note, parse_note
from kiki.shield.privacy_line import AsyncPrivacyLine, PrivacyLine
from kiki.shield.simulation import Simulation
from kiki.shield.window import OpenHold
from kiki.shield.wire import (
    BatchReply,
    BudgetsReply,
    DecisionsReply,
    HaltReply,
    OutcomeReply,
    ReservationReply,
    SettlementReply,
)
from kiki.shield.wire_note import NoteReply, NotesReply, note_json

__all__ = [
    "DEADLINE",
    "RETRIES",
    "TIMEOUT",
    "AsyncClientHold",
    "AsyncShieldClient",
    "ClientHold",
    "ShieldClient",
    "default_token",
    "default_url",
    "outcome_of",
    "read_token",
]


class _Flows(Conversation):
    """Every call as a generator."""

    def _spend(self, call: Call) -> Flow[OutcomeReply]:
        outcome = yield from self.post("/v1/spends", wire_call.call_json(_keyed(call)), OutcomeReply)
        # A service that said 200 to a refusal would be mistaken for one that took the money.
        if not outcome.allowed:
            raise denied_of(outcome)
        return outcome

    def _spend_many(self, call: Call) -> Flow[BatchReply]:
        reply = yield from self.ask("POST", "/v1/spends:batch", wire_call.batch_json(_keyed(call)))
        batch = self.read(reply, BatchReply)
        if len(batch.outcomes) != len(call.amounts):
            raise self.nonsense(reply, f"{len(batch.outcomes)} outcomes for {len(call.amounts)} amounts")
        return batch

    def _check(self, call: Call, *, any_amount: bool) -> Flow[OutcomeReply]:
        body = wire_call.call_json(call)
        if any_amount:
            del body["amount"]
        return self.post("/v1/checks", body, OutcomeReply)

    def _reserve(self, call: Call) -> Flow[ReservationReply]:
        return self.post("/v1/reservations", wire_call.call_json(_keyed(call)), ReservationReply)

    def _settle(self, call: Call) -> Flow[SettlementReply]:
        path = f"/v1/reservations/{call.hold}/{call.verb.value}"
        return self.post(path, wire_call.call_json(call), SettlementReply)

    def _record(self, call: Call) -> Flow[OutcomeReply]:
        return self.post("/v1/records", wire_call.call_json(_keyed(call)), OutcomeReply)

    def _note(self, notes: Sequence[Note]) -> Flow[list[NoteReply]]:
        body = {"notes": [note_json(each if each.key else each._replace(key=uuid4().hex)) for each in notes]}
        reply = yield from self.ask("POST", "/v1/notes", body)
        found = self.read(reply, NotesReply).notes
        if len(found) != len(notes):
            raise self.nonsense(reply, f"{len(found)} places for {len(notes)} notes")
        return found

    def _switch(self, turn: Switch) -> Flow[HaltReply]:
        if turn.on:
            body = {"pattern": turn.pattern} | ({"note": turn.note} if turn.note else {})
            return self.post("/v1/halts", body, HaltReply)
        return self._resume(turn.pattern)

    def _resume(self, pattern: str) -> Flow[HaltReply]:
        return self.read((yield from self.ask("DELETE", "/v1/halts", params=[("pattern", pattern)])), HaltReply)

    def _budgets(self, budget: str | None, scope: str | None, limit: int | None) -> Flow[BudgetsReply]:
        params = [("budget", budget), ("scope", scope), ("limit", None if limit is None else str(limit))]
        reply = yield from self.ask("GET", "/v1/budgets", params=params)
        found = self.read(reply, BudgetsReply)
        self.understood(reply, found.meters)
        return found

    def _halts(self) -> Flow[list[str]]:
        return (yield from self.get("/v1/halts", wire.HaltsReply)).halts

    def _reservations(self) -> Flow[list[OpenHold]]:
        reply = yield from self.ask("GET", "/v1/reservations")
        found = self.read(reply, wire.ReservationsReply)
        return self.understood(reply, lambda: [each.hold() for each in found.reservations])

    def _decisions(self, params: list[tuple[str, str | None]]) -> Flow[DecisionsReply]:
        return self.get("/v1/decisions", DecisionsReply, params)

    def _decision(self, event_id: str) -> Flow[dict[str, Any]]:
        return self.get(f"/v1/decisions/{wire_call.parse_event_id(event_id)}", dict[str, Any])

    def _simulate(self, policy: str | Path, since: datetime | None) -> Flow[Simulation]:
        body = {"policy": _policy_text(policy)} | ({} if since is None else {"since": _moment(since)})
        reply = yield from self.ask("POST", "/v1/policies:simulate", body)
        figures = self.read(reply, dict[str, Any])
        return self.understood(reply, lambda: wire_simulation.parse_simulation(figures))

    def _health(self) -> Flow[dict[str, Any]]:
        return self.get("/health", dict[str, Any])


def _keyed(call: Call) -> Call:
    """The call with a key, so that sending it again is the same call."""
    if not call.key:
        call.key = uuid4().hex
    return call


def _policy_text(policy: str | Path) -> str:
    from kiki.errors import PolicyError

    try:
        return Path(policy).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError([f"{policy}: cannot be read: {error}"]) from None


def _moment(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise InvalidInput("a moment needs a time zone: datetime.now(UTC), not datetime.now()")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _span(seconds: float | None) -> int | None:
    return None if seconds is None else wire_call.parse_seconds(seconds)


_NO_HOLD = "0" * 32
"""Where the service will put an id of its own."""


def _page(
    after: str | None,
    limit: int | None,
    since: datetime | None,
    until: datetime | None,
    outcome: str | None,
    scope: str | None,
) -> list[tuple[str, str | None]]:
    return [
        ("after", after),
        ("limit", None if limit is None else str(limit)),
        ("since", None if since is None else _moment(since)),
        ("until", None if until is None else _moment(until)),
        ("outcome", outcome),
        ("scope", scope),
    ]


class ShieldClient(_Flows, PrivacyLine):
    """A guard behind HTTP. Thread-safe; keeps its connections until it is closed.

    `url` is by default `KIKI_SHIELD_URL`, then `SHIELD_URL`, then http://localhost:8081; `token` is by default
    `KIKI_SHIELD_TOKEN`, then the content of `KIKI_SHIELD_TOKEN_FILE`. `timeout` is for one try, `deadline` for a
    call with all its `retries`. Raises what `BudgetGuard` raises, `ShieldUnreachable` when there is no
    sensible answer, `Unauthenticated` and `Forbidden` when the token does not do.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        deadline: float = DEADLINE,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, token, timeout, retries, deadline, transport)

    def spend(
        self, amount: Amount, scopes: ScopesGiven = None, key: str | None = None, *, purpose: str | None = None
    ) -> OutcomeReply:
        """Take `amount` from every budget that concerns it, all or nothing; raises `SpendDenied`."""
        return self.drive(self._spend(spend_call(amount, scopes, key, purpose)))

    def spend_many(
        self,
        amounts: Iterable[Amount | tuple[Amount, ScopesGiven]],
        scopes: ScopesGiven = None,
        key: str | None = None,
        *,
        purpose: str | None = None,
    ) -> list[OutcomeReply]:
        """Take many amounts in one durable commit: one outcome each, in order, none raised."""
        return self.drive(self._spend_many(spend_many_call(amounts, scopes, key, purpose))).outcomes

    def check(
        self,
        amount: Amount | None = None,
        scopes: ScopesGiven = None,
        *,
        ltv: Amount | None = None,
        purpose: str | None = None,
    ) -> OutcomeReply:
        """Whether `amount` (or anything at all) would fit now; takes nothing, and the service writes it down."""
        return self.drive(self._check(check_call(amount, scopes, ltv, purpose), any_amount=amount is None))

    def reserve(
        self,
        amount: Amount,
        scopes: ScopesGiven = None,
        key: str | None = None,
        *,
        seconds: float | None = None,
        purpose: str | None = None,
    ) -> ClientHold:
        """Set `amount` aside until it is committed or released; raises `SpendDenied`."""
        call = reserve_call(amount, _NO_HOLD, _span(seconds), scopes, key, purpose)
        return ClientHold(self, self.drive(self._reserve(call)))

    def commit(self, hold: str, amount: Amount) -> SettlementReply:
        """Turn a hold into a spend of `amount`, at most what was reserved; the rest is free at once."""
        return self.drive(self._settle(commit_call(hold, amount)))

    def release(self, hold: str) -> SettlementReply:
        """End a hold of which nothing was spent."""
        return self.drive(self._settle(release_call(hold)))

    def record(self, amount: Amount, scopes: ScopesGiven = None, key: str | None = None) -> OutcomeReply:
        """Count money that was spent elsewhere, even when it goes over a limit."""
        return self.drive(self._record(record_call(amount, scopes, key)))

    def note(
        self,
        event: str,
        scopes: ScopesGiven = None,
        detail: Mapping[str, Detail] | None = None,
        key: str | None = None,
    ) -> NoteReply:
        """Write down what your own program did, beside the decisions that it rested on; it costs and decides nothing."""
        return self.drive(self._note([parse_note(event, scopes, detail, key)]))[0]

    def note_many(self, notes: Sequence[Note]) -> list[NoteReply]:
        """The same for many, in one durable commit, all or none."""
        return self.drive(self._note(notes))

    def halt(self, pattern: str = "*", *, note: str = "") -> HaltReply:
        """Refuse every new spend and reservation that the pattern concerns, until `resume`."""
        return self.drive(self._switch(switch(pattern, on=True, note=note)))

    def resume(self, pattern: str = "*") -> HaltReply:
        """Take a halt back."""
        return self.drive(self._switch(switch(pattern, on=False)))

    def halts(self) -> list[str]:
        """The scope patterns that are halted."""
        return self.drive(self._halts())

    def budgets(self, budget: str | None = None, scope: str | None = None, limit: int | None = None) -> BudgetsReply:
        """What is spent, held and left in each window; `.meters()` gives the guard's own values."""
        return self.drive(self._budgets(budget, scope, limit))

    def reservations(self) -> list[OpenHold]:
        """Every open hold."""
        return self.drive(self._reservations())

    def decisions(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        outcome: str | None = None,
        scope: str | None = None,
    ) -> DecisionsReply:
        """A page of the audit, oldest first; give its `next` as `after` for the one behind it."""
        return self.drive(self._decisions(_page(after, limit, since, until, outcome, scope)))

    def decision(self, event_id: str) -> dict[str, Any]:
        """One row of the audit; raises `NotFound`."""
        return self.drive(self._decision(event_id))

    def simulate(self, policy: str | Path, since: datetime | None = None) -> Simulation:
        """What the policy in the file `policy` would have decided about everything asked since then."""
        return self.drive(self._simulate(policy, since))

    def health(self) -> dict[str, Any]:
        """What the service says of itself."""
        return self.drive(self._health())


class AsyncShieldClient(_Flows, AsyncPrivacyLine):
    """`ShieldClient` for an event loop: the same calls, awaited."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        deadline: float = DEADLINE,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, token, timeout, retries, deadline, transport)

    async def spend(
        self, amount: Amount, scopes: ScopesGiven = None, key: str | None = None, *, purpose: str | None = None
    ) -> OutcomeReply:
        """Take `amount` from every budget that concerns it, all or nothing; raises `SpendDenied`."""
        return await self.drive(self._spend(spend_call(amount, scopes, key, purpose)))

    async def spend_many(
        self,
        amounts: Iterable[Amount | tuple[Amount, ScopesGiven]],
        scopes: ScopesGiven = None,
        key: str | None = None,
        *,
        purpose: str | None = None,
    ) -> list[OutcomeReply]:
        """Take many amounts in one durable commit: one outcome each, in order, none raised."""
        return (await self.drive(self._spend_many(spend_many_call(amounts, scopes, key, purpose)))).outcomes

    async def check(
        self,
        amount: Amount | None = None,
        scopes: ScopesGiven = None,
        *,
        ltv: Amount | None = None,
        purpose: str | None = None,
    ) -> OutcomeReply:
        """Whether `amount` (or anything at all) would fit now; takes nothing, and the service writes it down."""
        return await self.drive(self._check(check_call(amount, scopes, ltv, purpose), any_amount=amount is None))

    async def reserve(
        self,
        amount: Amount,
        scopes: ScopesGiven = None,
        key: str | None = None,
        *,
        seconds: float | None = None,
        purpose: str | None = None,
    ) -> AsyncClientHold:
        """Set `amount` aside until it is committed or released; raises `SpendDenied`."""
        call = reserve_call(amount, _NO_HOLD, _span(seconds), scopes, key, purpose)
        return AsyncClientHold(self, await self.drive(self._reserve(call)))

    async def commit(self, hold: str, amount: Amount) -> SettlementReply:
        """Turn a hold into a spend of `amount`, at most what was reserved; the rest is free at once."""
        return await self.drive(self._settle(commit_call(hold, amount)))

    async def release(self, hold: str) -> SettlementReply:
        """End a hold of which nothing was spent."""
        return await self.drive(self._settle(release_call(hold)))

    async def record(self, amount: Amount, scopes: ScopesGiven = None, key: str | None = None) -> OutcomeReply:
        """Count money that was spent elsewhere, even when it goes over a limit."""
        return await self.drive(self._record(record_call(amount, scopes, key)))

    async def note(
        self,
        event: str,
        scopes: ScopesGiven = None,
        detail: Mapping[str, Detail] | None = None,
        key: str | None = None,
    ) -> NoteReply:
        """Write down what your own program did, beside the decisions that it rested on; it costs and decides nothing."""
        return (await self.drive(self._note([parse_note(event, scopes, detail, key)])))[0]

    async def note_many(self, notes: Sequence[Note]) -> list[NoteReply]:
        """The same for many, in one durable commit, all or none."""
        return await self.drive(self._note(notes))

    async def halt(self, pattern: str = "*", *, note: str = "") -> HaltReply:
        """Refuse every new spend and reservation that the pattern concerns, until `resume`."""
        return await self.drive(self._switch(switch(pattern, on=True, note=note)))

    async def resume(self, pattern: str = "*") -> HaltReply:
        """Take a halt back."""
        return await self.drive(self._switch(switch(pattern, on=False)))

    async def halts(self) -> list[str]:
        """The scope patterns that are halted."""
        return await self.drive(self._halts())

    async def budgets(
        self, budget: str | None = None, scope: str | None = None, limit: int | None = None
    ) -> BudgetsReply:
        """What is spent, held and left in each window; `.meters()` gives the guard's own values."""
        return await self.drive(self._budgets(budget, scope, limit))

    async def reservations(self) -> list[OpenHold]:
        """Every open hold."""
        return await self.drive(self._reservations())

    async def decisions(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        outcome: str | None = None,
        scope: str | None = None,
    ) -> DecisionsReply:
        """A page of the audit, oldest first; give its `next` as `after` for the one behind it."""
        return await self.drive(self._decisions(_page(after, limit, since, until, outcome, scope)))

    async def decision(self, event_id: str) -> dict[str, Any]:
        """One row of the audit; raises `NotFound`."""
        return await self.drive(self._decision(event_id))

    async def simulate(self, policy: str | Path, since: datetime | None = None) -> Simulation:
        """What the policy in the file `policy` would have decided about everything asked since then."""
        return await self.drive(self._simulate(policy, since))

    async def health(self) -> dict[str, Any]:
        """What the service says of itself."""
        return await self.drive(self._health())
