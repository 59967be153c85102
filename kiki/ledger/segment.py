"""A segment: a sealed stretch of one chain, on its way to the archive. Pure.

A segment is a bundle (see `kiki.ledger.bundle`) of the entries from `first` to `last`, ending in the checkpoint over its
last entry. Everything that its bytes depend on is decided, and durable in the ledger, before the archive is first
asked to take it: so however often a crash interrupts the shipping, every attempt has the same bytes. The segments of a
chain follow each other without a gap.

The ledger keeps one row for each in the space "segment": the key is `first` as 8 bytes big-endian, the value the MessagePack
array [last, at, note, sha256, version, shipped_at].
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from kiki.errors import InvalidInput, LedgerCorrupt
from kiki.ledger.entry import UNDECODABLE
from kiki.ledger.store import Write

SEGMENTS: Final = "segment"
"""The space of segments, by their first sequence."""
SEGMENT_ENTRIES: Final = 65_536
SEGMENT_SECONDS: Final = 60.0
SUFFIX: Final = ".kiki"

_NAME: Final = re.compile(r"([0-9A-Za-z_-][0-9A-Za-z._-]{0,63})/([0-9]{20})-([0-9]{20})\.kiki", re.ASCII)


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """Entries `first` to `last` of a chain, inclusive. It is shipped once the archive has confirmed it."""

    chain: str
    first: int
    last: int
    at: int
    """When its checkpoint was signed, in microseconds since the epoch: no entry in it is younger."""
    note: bytes
    """The signed checkpoint whose size is `last + 1`."""
    sha256: bytes = b""
    """Of the bytes in the archive."""
    version: str = ""
    """What the archive calls these bytes. A bucket's lock holds versions, not names."""
    shipped_at: int = 0

    @property
    def name(self) -> str:
        """Its place in the archive; names sort as the entries do."""
        return f"{self.chain}/{self.first:020d}-{self.last:020d}{SUFFIX}"

    @property
    def is_shipped(self) -> bool:
        """True when the archive confirmed it."""
        return self.shipped_at > 0


class _Row(msgspec.Struct, array_like=True, frozen=True):
    last: int
    at: int
    note: bytes
    sha256: bytes
    version: str
    shipped_at: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Row).decode


def segment_key(first: int) -> bytes:
    """The key of the segment that begins at a sequence."""
    return first.to_bytes(8, "big")


def segment_write(segment: Segment) -> Write:
    """The row of a segment, new or changed."""
    row = _Row(segment.last, segment.at, segment.note, segment.sha256, segment.version, segment.shipped_at)
    return Write(SEGMENTS, segment_key(segment.first), _encode(row))


def read_segment(chain: str, key: bytes, value: bytes) -> Segment:
    """The segment in a row; raises `LedgerCorrupt`."""
    try:
        row = _decode(value)
    except UNDECODABLE as error:
        raise LedgerCorrupt(f"the row of a segment cannot be read: {error}") from error
    first = int.from_bytes(key, "big")
    if len(key) != 8 or row.last < first:
        raise LedgerCorrupt(f"the row of a segment names no stretch: key {key.hex()}, last entry {row.last}")
    return Segment(
        chain=chain,
        first=first,
        last=row.last,
        at=row.at,
        note=row.note,
        sha256=row.sha256,
        version=row.version,
        shipped_at=row.shipped_at,
    )


def cut(first: int, sizes: Iterable[int], most: int) -> int | None:
    """Where a segment that begins at `first` ends: one of the signed tree `sizes`, ascending; None when none is larger.

    The last one that leaves it at most `most` entries; where checkpoints are further apart than that, the next one.
    """
    end = None
    for size in sizes:
        if size <= first:
            continue
        if end is not None and size - first > most:
            break
        end = size
    return end


def parse_name(name: str) -> tuple[str, int, int]:
    """Chain, first and last sequence of a segment's name; raises `InvalidInput`."""
    found = _NAME.fullmatch(name)
    if found is None or int(found[2]) > int(found[3]):
        raise InvalidInput(
            f"{name[:200]!r} is not the name of a segment",
            hint="it is written <chain>/<first>-<last>.kiki, with 20 digits for each sequence",
        )
    return found[1], int(found[2]), int(found[3])
