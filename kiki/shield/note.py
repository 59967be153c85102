"""What another service did, in its own words: a note in the ledger, beside the decisions that it rested on.

A campaign's steps and the reasons for messages stand in one record with the money that they cost. A note decides
nothing. Its key is remembered for as long as the ledger: the same note said again is the same entry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec

from kiki.errors import InvalidInput, KeyReused
from kiki.ledger.store import Write
from kiki.shield.call import ScopesGiven, parse_key
from kiki.shield.change import Change, Turn
from kiki.shield.decision import event_id
from kiki.shield.fact import Noted
from kiki.shield.scope import PERSONAL_KINDS, Scopes, kind_of, parse_scopes

NOTE_KEY: Final = "note_key"
"""The sequence of each note that came with a key, by the keyed hash of that."""

NOTES_MAX: Final = 500
DETAILS_MAX: Final = 32
TEXT_LENGTH_MAX: Final = 1024
EVENT_ACCEPTED: Final = "write the service and what happened, 1 to 64 of a-z, 0-9, _ - and dots, such as flow.step_done"

Detail = str | int | bool
EVENT_PATTERN: Final = r"^[a-z][a-z0-9_-]{0,31}(\.[a-z][a-z0-9_-]{0,31}){1,3}$"
NAME_PATTERN: Final = r"^[a-z][a-z0-9_]{0,63}$"
_EVENT: Final = re.compile(EVENT_PATTERN)
_NAME: Final = re.compile(NAME_PATTERN)
_INTEGER_MAX: Final = 2**63 - 1


class Note(NamedTuple):
    """One thing that happened."""

    event: str
    """The service and what happened, such as `flow.step_done`."""
    scopes: Scopes = ()
    """Whom and what it concerns, as in a spend."""
    detail: Mapping[str, Detail] = {}
    """More about it, by short names; sealed under a person's key when the scopes name one."""
    key: str = ""


class Kept(NamedTuple):
    """Where a note stands."""

    seq: int
    repeated: bool
    """It stood there already, under its key."""

    @property
    def event_id(self) -> str:
        """Under which evidence shows it."""
        return event_id(self.seq)


def parse_note(
    event: object, scopes: ScopesGiven = None, detail: Mapping[str, Any] | None = None, key: str | None = None
) -> Note:
    """A note as callers give it; raises `InvalidInput` and `InvalidScope`."""
    if not isinstance(event, str) or len(event) > 64 or not _EVENT.fullmatch(event):
        raise InvalidInput(f"{str(event)[:80]!r} is no event of a note", hint=EVENT_ACCEPTED)
    found = dict(detail or {})
    if len(found) > DETAILS_MAX:
        raise InvalidInput(f"a note tells {DETAILS_MAX} details at most, not {len(found)}")
    for name, value in found.items():
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"{str(name)[:80]!r} is no name of a detail", hint="write a-z, 0-9 and _, a letter first"
            )
        if isinstance(value, str):
            if len(value) > TEXT_LENGTH_MAX:
                raise InvalidInput(f"detail {name!r} has {len(value)} characters: {TEXT_LENGTH_MAX} at most")
        elif not isinstance(value, int) or abs(value) > _INTEGER_MAX:
            raise InvalidInput(f"detail {name!r} is a text, a whole number, true or false")
    return Note(event, parse_scopes(scopes), found, parse_key(key))


def note_change(notes: Sequence[Note], *, actor: str = "", network: str = "") -> Change:
    """A change that writes notes down, all or none; its result is a list of `Kept`, in their order.

    Raises `InvalidInput` for none or too many; its result raises `KeyReused` for a key that stands for another note.
    """
    if not 1 <= len(notes) <= NOTES_MAX:
        raise InvalidInput(f"write 1 to {NOTES_MAX} notes at once, not {len(notes)}")

    def act(turn: Turn) -> list[Kept]:
        return [_kept(turn, note, actor, network) for note in notes]

    return Change(act, [scope for note in notes for scope in note.scopes if kind_of(scope) in PERSONAL_KINDS])


def _kept(turn: Turn, note: Note, actor: str, network: str) -> Kept:
    persons = [turn.persons[scope] for scope in note.scopes if kind_of(scope) in PERSONAL_KINDS]
    scopes = [
        f"{kind_of(scope)}:{turn.persons[scope].reference}" if kind_of(scope) in PERSONAL_KINDS else scope
        for scope in note.scopes
    ]
    key = turn.subjects.keyed_hash(note.key) if note.key else b""
    detail = msgspec.msgpack.encode(dict(sorted(note.detail.items())))
    # Compared when the key comes again. Of a person's detail nothing may outlive the key, not even a hash.
    secret = persons[0].key if persons else b""
    told = "\0".join([note.event, *scopes, ""]).encode() + detail
    content = blake2b(told, key=secret, digest_size=16).digest()
    known = turn.get(NOTE_KEY, key) if key else None
    if known is not None:
        if known[8:] != content:
            raise KeyReused(
                "this idempotency key already stands for another note",
                hint="send the first note again unchanged, or use a new key",
            )
        return Kept(int.from_bytes(known[:8], "big"), repeated=True)
    fact = Noted(turn.now, note.event, scopes, {} if persons else dict(note.detail), key, content, actor, network)
    sealed = [turn.subjects.seal(person, detail) for person in persons] if note.detail else []
    return Kept(turn.add(fact, writes_of(fact, turn.next_seq), sealed), repeated=False)


def writes_of(fact: Noted, seq: int) -> list[Write]:
    """The projection of a note: the place of its key."""
    return [Write(NOTE_KEY, fact.key, seq.to_bytes(8, "big") + fact.content)] if fact.key else []
