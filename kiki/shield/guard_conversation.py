"""What a client says to SyncShield for each verb of a guard, and how it reads the reply: written once, for both colours.

A call that changes something always carries an idempotency key, made here when the caller gives none, so that trying
again is the same spend and never a second one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from kiki.errors import PolicyError
from kiki.shield import wire, wire_call, wire_simulation
from kiki.shield.call import Call, Switch
from kiki.shield.conversation import Conversation, Flow, denied_of
from kiki.shield.note import Note
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
from kiki.shield.wire_moment import iso_of
from kiki.shield.wire_note import NoteReply, NotesReply, note_json


class GuardConversation(Conversation):
    """Every verb as a generator."""

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

    def _decisions(
        self,
        after: str | None,
        limit: int | None,
        since: datetime | None,
        until: datetime | None,
        outcome: str | None,
        scope: str | None,
    ) -> Flow[DecisionsReply]:
        params = [
            ("after", after),
            ("limit", None if limit is None else str(limit)),
            ("since", iso_of(since)),
            ("until", iso_of(until)),
            ("outcome", outcome),
            ("scope", scope),
        ]
        return self.get("/v1/decisions", DecisionsReply, params)

    def _decision(self, event_id: str) -> Flow[dict[str, Any]]:
        return self.get(f"/v1/decisions/{wire_call.parse_event_id(event_id)}", dict[str, Any])

    def _simulate(self, policy: str | Path, since: datetime | None) -> Flow[Simulation]:
        body = {"policy": _policy_text(policy)} | ({} if since is None else {"since": iso_of(since)})
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
    try:
        return Path(policy).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError([f"{policy}: cannot be read: {error}"]) from None
