"""Legal holds: matters for whose sake nothing may be erased, of one person or of everybody. Pure.

Preservation for legal claims comes before erasure (GDPR 17(3)(e); CCPA 1798.105(d)(8)). A hold is put on and lifted
under the reference of its matter; one person may be held by several, and is free when the last is lifted.
"""

from __future__ import annotations

from typing import Final

import msgspec

from kiki.errors import InvalidInput
from kiki.ledger.projected import projected
from kiki.ledger.store import SHARED, Write
from kiki.shield.fact import LegalHeld

LEGAL_HOLD: Final = SHARED + "legal_hold"
"""The space of the holds that are on, by `hold_key`."""
ARTICLE: Final = "GDPR 17(3)(e)"
REFERENCE_LENGTH_MAX: Final = 64

_EVERYBODY: Final = bytes(16)


class LegalHold(msgspec.Struct, frozen=True):
    """A hold that is on."""

    reference: str
    """The matter."""
    subject: str
    """The person's reference in the ledger; empty: everybody."""
    at: int
    actor: str
    chain: str
    seq: int


class _Value(msgspec.Struct, array_like=True, frozen=True):
    at: int
    actor: str
    chain: str
    seq: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Value).decode


def hold_key(subject: str, reference: str) -> bytes:
    """Under which a hold is kept; all of one person's lie together, those of everybody come first."""
    return holds_prefix(subject) + reference.encode()


def holds_prefix(subject: str) -> bytes:
    """What the keys of all holds of a person begin with; of everybody, for an empty subject."""
    return bytes.fromhex(subject) or _EVERYBODY


def read_hold(key: bytes, value: bytes) -> LegalHold:
    """The hold in a projected key and value."""
    prefix, found = key[: len(_EVERYBODY)], projected(_decode, value, "a legal hold")
    subject = "" if prefix == _EVERYBODY else prefix.hex()
    return LegalHold(key[len(_EVERYBODY) :].decode(), subject, found.at, found.actor, found.chain, found.seq)


def writes_of(fact: LegalHeld, chain: str, seq: int) -> list[Write]:
    """The projection of a fact that is entry `seq` of `chain`: the one rule for writing it and for rebuilding it."""
    value = _encode(_Value(fact.at, fact.actor, chain, seq)) if fact.on else None
    return [Write(LEGAL_HOLD, hold_key(fact.subject, fact.reference), value)]


def parse_reference(given: object) -> str:
    """The reference of a matter, which stands in clear; raises `InvalidInput`."""
    if isinstance(given, str) and given.strip() and len(given) <= REFERENCE_LENGTH_MAX and given.isprintable():
        return given.strip()
    raise InvalidInput(
        f"name the matter in 1 to {REFERENCE_LENGTH_MAX} printable characters, without personal data: it stays in clear"
    )
