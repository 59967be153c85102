"""What a lane tells the record: notes in the guard's ledger, each once, beside the money that they explain.

The journal keeps the same words: `progress` reads from them how a run stands, and the service's events are made of them.
"""

from __future__ import annotations

from typing import Final

from kiki.flow.guard_line import GuardLine
from kiki.flow.keys import write_key
from kiki.flow.port import Json, Port
from kiki.shield.note import Note, parse_note

TEXT_MAX: Final = 200
_PENDING_MAX: Final = 400
"""The guard takes 500 notes at once."""


class Story:
    """The notes of one lane, under its campaign, platform and run."""

    def __init__(self, port: Port, guard: GuardLine, run: str, scopes: dict[str, str]) -> None:
        self.run = run
        self._port = port
        self._guard = guard
        self._scopes = scopes
        self._pending: list[Note] = []

    async def tell(self, place: str, event: str, /, **detail: str | int | bool) -> None:
        """Write a note down, with those before it that the guard could not take yet."""
        told = {name: value[:TEXT_MAX] if isinstance(value, str) else value for name, value in detail.items()}
        # Every lane has places of the same names, so the campaign is part of the key.
        key = write_key(self.run, "note", f"{self._scopes['campaign']}/{place}", 1)
        note = parse_note(event, self._scopes, {"run": self.run, **told}, key)
        self._pending.append(note)
        await self._hand_over(place, note)

    async def finish(self, place: str) -> bool:
        """Hand over what is left; whether nothing is left."""
        if self._pending:
            await self._hand_over(place)
        return not self._pending

    async def _hand_over(self, place: str, told: Note | None = None) -> None:
        notes = self._pending[:_PENDING_MAX]

        async def act() -> Json:
            outcome = await self._guard.note(notes)
            # What the guard refuses it would refuse again: the journal alone has it.
            answer: Json = {"kept": not outcome.code or outcome.fate.value == "refused"}
            if outcome.fate.value == "refused":
                answer |= {"refused": outcome.code}
            return answer if told is None else answer | {"event": told.event, "detail": {**told.detail}}

        if (await self._port.step(place, act))["kept"]:
            del self._pending[: len(notes)]
