"""The bytes of one ledger entry. Pure; facts are forever, so what is written here must always be read.

An entry is a version byte and a MessagePack array: [seq, recorded_at, fact, sealed].

- seq: dense from 0 within one chain; a chain has one writer.
- recorded_at: microseconds since the epoch when the writer took it in.
- fact: an array whose first element names its kind, with closed vocabularies and references only.
- sealed: parts encrypted for one person each; empty in version 1.

MessagePack as msgspec writes it is canonical: one encoding for one value. The leaf hash of an entry is
SHA-256(0x00 || bytes), as RFC 6962 section 2.1 has it, over everything that is stored.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from kiki.errors import LedgerCorrupt

VERSION = 1
_PREFIX = bytes([VERSION])


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One entry as it is read: the fact is still encoded, its domain decodes it."""

    seq: int
    recorded_at: int
    fact: msgspec.Raw
    sealed: list[bytes] = []


class _Written(msgspec.Struct, array_like=True, frozen=True):
    seq: int
    recorded_at: int
    fact: msgspec.Struct
    sealed: list[bytes]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def encode_entry(seq: int, recorded_at: int, fact: msgspec.Struct) -> bytes:
    """The stored bytes of an entry."""
    return _PREFIX + _encoder.encode(_Written(seq, recorded_at, fact, []))


def decode_entry(data: bytes) -> Entry:
    """The entry in these bytes; raises `LedgerCorrupt` when no version of kiki wrote them."""
    if not data or data[0] != VERSION:
        found = f"version {data[0]}" if data else "no bytes"
        raise LedgerCorrupt(f"a ledger entry has {found}; this kiki reads version {VERSION}")
    try:
        return _decoder.decode(memoryview(data)[1:])
    except msgspec.DecodeError as error:
        raise LedgerCorrupt(f"a ledger entry cannot be read: {error}") from error


def leaf_hash(data: bytes) -> bytes:
    """The RFC 6962 leaf hash of an entry's stored bytes."""
    return sha256(b"\x00" + data).digest()
