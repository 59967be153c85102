"""Notes on SyncShield's wire. Pure.

| route | request | answer |
|---|---|---|
| `POST /v1/notes` | notes: [event, scopes?, detail?, key?] | 201 where each stands |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from kiki.errors import InvalidInput
from kiki.members import kind_of, read_members, text_or_none
from kiki.shield.change import Change
from kiki.shield.note import Detail, Kept, Note, note_change, parse_note
from kiki.shield.wire_answer import scopes_object

NOTES_MEMBERS: Final = ("notes",)
NOTE_MEMBERS: Final = ("event", "scopes", "detail", "key")
_WHOLE_BELOW: Final = 2**63


class NoteReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a note stands."""

    event_id: str
    repeated: bool = False
    """It stood there already, under its key."""


class NotesReply(msgspec.Struct, frozen=True, kw_only=True):
    """Where each note stands, in the order of the request."""

    notes: list[NoteReply]


def notes_body(body: object, *, actor: str, network: str) -> Change:
    """The notes of a request; raises what is wrong with the first that is wrong."""
    given = read_members(body, NOTES_MEMBERS, NOTES_MEMBERS)["notes"]
    if not isinstance(given, list):
        raise InvalidInput(f"'notes' is a list, not {kind_of(given)}")
    return note_change([_note(each) for each in given], actor=actor, network=network)


def _note(given: object) -> Note:
    found = read_members(given, NOTE_MEMBERS, ("event",))
    scopes, detail = found.get("scopes", {}), found.get("detail", {})
    if not isinstance(scopes, dict):
        raise InvalidInput(f"'scopes' is an object such as {{'campaign': 'spring'}}, not {kind_of(scopes)}")
    if not isinstance(detail, dict):
        raise InvalidInput(f"'detail' is an object, not {kind_of(detail)}")
    told = {name: _whole(value) for name, value in detail.items()}
    return parse_note(found["event"], scopes, told, text_or_none(found, "key"))


def _whole(value: Any) -> Any:
    """JSON has no whole numbers of its own: 12.0 is one."""
    if not isinstance(value, Decimal | float) or not -_WHOLE_BELOW < value < _WHOLE_BELOW:
        return value
    whole = int(value)
    return whole if whole == value else value


def notes_reply(kept: Sequence[Kept]) -> NotesReply:
    """Where notes stand, as the wire shows it."""
    return NotesReply(notes=[NoteReply(event_id=each.event_id, repeated=each.repeated) for each in kept])


def note_json(note: Note) -> dict[str, object]:
    """A note as a client sends it."""
    found: dict[str, object] = {"event": note.event}
    if note.scopes:
        found["scopes"] = scopes_object(note.scopes)
    if note.detail:
        detail: Mapping[str, Detail] = note.detail
        found["detail"] = dict(detail)
    if note.key:
        found["key"] = note.key
    return found
