"""`ShieldClient` and `AsyncShieldClient`: a `BudgetGuard` that lives behind HTTP, with the same names and errors.

What is said for each verb stands in `guard_conversation`, and how patiently it is asked in `conversation`. `consents`, `requests`,
`compliance` and `evidence` hold what concerns persons and proofs: see `privacy_line`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from kiki.shield import wire_call
from kiki.shield.call import (
    Amount,
    ScopesGiven,
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
from kiki.shield.conversation import DEADLINE, RETRIES, TIMEOUT, outcome_of
from kiki.shield.guard_conversation import GuardConversation
from kiki.shield.note import Detail, Note, parse_note
from kiki.shield.privacy_line import AsyncPrivacyLine, PrivacyLine
from kiki.shield.simulation import Simulation
from kiki.shield.window import OpenHold
from kiki.shield.wire import (
    BudgetsReply,
    DecisionsReply,
    HaltReply,
    OutcomeReply,
    SettlementReply,
)
from kiki.shield.wire_note import NoteReply

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


_NO_HOLD = "0" * 32
"""Where the service will put an id of its own."""


class ShieldClient(GuardConversation, PrivacyLine):
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
        return self.drive(self._decisions(after, limit, since, until, outcome, scope))

    def decision(self, event_id: str) -> dict[str, Any]:
        """One row of the audit; raises `NotFound`."""
        return self.drive(self._decision(event_id))

    def simulate(self, policy: str | Path, since: datetime | None = None) -> Simulation:
        """What the policy in the file `policy` would have decided about everything asked since then."""
        return self.drive(self._simulate(policy, since))

    def health(self) -> dict[str, Any]:
        """What the service says of itself."""
        return self.drive(self._health())


class AsyncShieldClient(GuardConversation, AsyncPrivacyLine):
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
        return await self.drive(self._decisions(after, limit, since, until, outcome, scope))

    async def decision(self, event_id: str) -> dict[str, Any]:
        """One row of the audit; raises `NotFound`."""
        return await self.drive(self._decision(event_id))

    async def simulate(self, policy: str | Path, since: datetime | None = None) -> Simulation:
        """What the policy in the file `policy` would have decided about everything asked since then."""
        return await self.drive(self._simulate(policy, since))

    async def health(self) -> dict[str, Any]:
        """What the service says of itself."""
        return await self.drive(self._health())


def _span(seconds: float | None) -> int | None:
    return None if seconds is None else wire_call.parse_seconds(seconds)


_NO_HOLD = "0" * 32
"""Where the service will put an id of its own."""
