"""The bytes of one ledger entry. Pure; facts are forever, so what is written here must always be read.

An entry is a version byte and a MessagePack array: [seq, recorded_at, fact, sealed].

- seq: dense from 0 within one chain; a chain has one writer.
- recorded_at: microseconds since the epoch when the writer took it in.
- fact: an array whose first element names its kind, with closed vocabularies and references only.
- sealed: parts that only the key of one person, or of one stretch of the ledger, opens: see `kiki.ledger.sealing`.
  Empty in version 1.

MessagePack as msgspec writes it is canonical: one encoding for one value. The leaf hash of an entry is
SHA-256(0x00 || bytes), as RFC 6962 section 2.1 has it, over everything that is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import msgspec

from kiki.errors import LedgerCorrupt

UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what they should be; bad UTF-8 and deep nesting are no DecodeError to it."""

VERSION = 2
VERSIONS = frozenset({1, 2})
_PREFIX = bytes([VERSION])


class Sealed(msgspec.Struct, array_like=True, frozen=True):
    """Bytes that only the holder of a key can read. Destroying the key leaves this, and every hash over it, as it is."""

    key_id: bytes
    """16 bytes: the reference of the person whose key it is, or the id of a segment's key."""
    nonce: bytes
    """24 random bytes, from which the key of this part alone is derived."""
    commitment: bytes
    """32 bytes that no other key gives: AES-GCM by itself opens under more than one key."""
    ciphertext: bytes


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One entry as it is read: the fact is still encoded, its domain decodes it."""

    seq: int
    recorded_at: int
    fact: msgspec.Raw
    sealed: list[Sealed] = []


class _Written(msgspec.Struct, array_like=True, frozen=True):
    seq: int
    recorded_at: int
    fact: msgspec.Struct
    sealed: Sequence[Sealed]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def encode_entry(seq: int, recorded_at: int, fact: msgspec.Struct, sealed: Sequence[Sealed] = ()) -> bytes:
    """The stored bytes of an entry."""
    return _PREFIX + _encoder.encode(_Written(seq, recorded_at, fact, sealed))


def decode_entry(data: bytes) -> Entry:
    """The entry in these bytes; raises `LedgerCorrupt` when no version of kiki wrote them."""
    if not data or data[0] not in VERSIONS:
        found = f"version {data[0]}" if data else "no bytes"
        raise LedgerCorrupt(f"a ledger entry has {found}; this kiki reads versions up to {VERSION}")
    try:
        return _decoder.decode(data[1:])
    except UNDECODABLE as error:
        raise LedgerCorrupt(f"a ledger entry cannot be read: {error}") from error


def leaf_hash(data: bytes) -> bytes:
    """The RFC 6962 leaf hash of an entry's stored bytes."""
    return sha256(b"\x00" + data).digest()
