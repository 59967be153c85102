"""Evidence on SyncShield's wire: where the ledger stands, its checkpoints, and what may be asked for. Pure.

| route | request | answer |
|---|---|---|
| `GET /v1/evidence` | | 200 chain first_seq next_seq checkpoint verifier_key archive chains; null where there is none |
| `GET /v1/evidence/checkpoints` | ?after=&limit=&chain= | 200 `{"checkpoints": [checkpoint], "next": size or null}` |
| `GET /v1/evidence/{event_id}/proof` | ?chain= | 200 the document of `kiki.ledger.proof`; 404 |
| `GET /v1/evidence/bundle` | ?from=&to= | 200 the file of `kiki.ledger.bundle`, with every entry of that time |

    checkpoint   size root at? note; `note` is the signed note as it stands, for any tool that reads C2SP
    archive      oldest_seconds waiting failures set_aside
"""

from __future__ import annotations

import base64
import re
from typing import Final, NamedTuple

import msgspec

from kiki.clock import to_iso
from kiki.errors import InvalidInput
from kiki.ledger.checkpoint import parse_checkpoint, split_note
from kiki.ledger.shipper import Lag
from kiki.members import Query, limit_of, quoted, read_query
from kiki.shield.wire_moment import micros_or_none

CHECKPOINTS_LIMIT: Final = 100
CHECKPOINTS_LIMIT_MAX: Final = 1000
BUNDLE_TYPE: Final = "application/octet-stream"

_SIZE_DIGITS_MAX: Final = 18
_CHAIN_ID: Final = re.compile("[0-9a-f]{16}")


class CheckpointsQuery(NamedTuple):
    """Which checkpoints somebody wants to see: those over more than `after` entries."""

    after: int
    limit: int
    chain: str | None
    """None: that of whoever is asked."""


class Span(NamedTuple):
    """From one moment on, until before another, in microseconds since the epoch."""

    since: int | None
    until: int | None


def checkpoints_query(query: Query) -> CheckpointsQuery:
    """The query of `GET /v1/evidence/checkpoints`."""
    single, _ = read_query(query, ("after", "limit", "chain"))
    after = single.get("after", "0")
    if not (after.isascii() and after.isdigit() and len(after) <= _SIZE_DIGITS_MAX):
        raise InvalidInput(f"'after' is the size of a checkpoint, a whole number, not {quoted(after)}")
    limit = limit_of(single, default=CHECKPOINTS_LIMIT, most=CHECKPOINTS_LIMIT_MAX)
    return CheckpointsQuery(int(after), limit, _chain(single.get("chain")))


def proof_query(query: Query) -> str | None:
    """The chain in the query of `GET /v1/evidence/{event_id}/proof`; None: that of whoever is asked."""
    single, _ = read_query(query, ("chain",))
    return _chain(single.get("chain"))


def _chain(text: str | None) -> str | None:
    if text is not None and not _CHAIN_ID.fullmatch(text):
        raise InvalidInput(f"'chain' is the id of a chain, 16 hexadecimal digits, not {quoted(text)}")
    return text


def bundle_query(query: Query) -> Span:
    """The query of `GET /v1/evidence/bundle`."""
    single, _ = read_query(query, ("from", "to"))
    return Span(micros_or_none(single.get("from")), micros_or_none(single.get("to")))


class CheckpointReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A signed checkpoint, taken apart for whoever does not read notes."""

    size: int
    root: str
    note: str
    at: str = ""


class CheckpointsReply(msgspec.Struct, frozen=True, kw_only=True):
    """Some checkpoints in the order of their sizes; `next` is the `after` of the page behind it."""

    checkpoints: list[CheckpointReply]
    next: int | None


class ArchiveReply(msgspec.Struct, frozen=True, kw_only=True):
    """How far the archive is behind the ledger; see `kiki.ledger.shipper.Lag`."""

    oldest_seconds: float
    waiting: int
    failures: int
    set_aside: int


class EvidenceReply(msgspec.Struct, frozen=True, kw_only=True):
    """Where the ledger of this service stands."""

    chain: str
    first_seq: int
    next_seq: int
    checkpoint: CheckpointReply | None
    verifier_key: str
    """Hand it to whoever shall check evidence, and let them keep it: it never comes with what it checks."""
    archive: ArchiveReply | None
    chains: list[str]
    """Every chain in the same store, this one among them: the others are those of the other replicas."""


def checkpoint_reply(note: bytes) -> CheckpointReply:
    """A signed note as the wire shows it."""
    checkpoint = parse_checkpoint(split_note(note)[0])
    return CheckpointReply(
        size=checkpoint.size,
        root=base64.b64encode(checkpoint.root).decode(),
        note=note.decode(),
        at="" if checkpoint.at is None else to_iso(checkpoint.at),
    )


def archive_reply(lag: Lag) -> ArchiveReply:
    """How far the archive is behind."""
    return ArchiveReply(
        oldest_seconds=round(lag.oldest_seconds, 3),
        waiting=lag.waiting,
        failures=lag.failures,
        set_aside=lag.set_aside,
    )
