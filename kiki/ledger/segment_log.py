"""The segments of one ledger: where the next one ends, which the archive has. Kept in the ledger itself.

Rows are the ledger's own records, not projections: no fact says them, and nothing is decided by them. What a segment
consists of is durable when `seal` returns; a crash after that changes nothing about its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kiki.errors import LedgerCorrupt
from kiki.ledger.checkpoint import parse_checkpoint, split_note
from kiki.ledger.ledger import CHECKPOINTS, Ledger
from kiki.ledger.segment import SEGMENTS, Segment, cut, read_segment, segment_key, segment_write


class SegmentLog:
    """Cuts the chain of a ledger that has a signer into segments. One caller of `seal` at a time."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.chain = ledger.chain

    def next_first(self) -> int:
        """Where the next segment begins: after the last one, or at the oldest entry that is there."""
        row = self._ledger.store.last(SEGMENTS)
        return self._ledger.store.first_seq() if row is None else read_segment(self.chain, *row).last + 1

    def seal(self, most: int) -> Segment | None:
        """Cut the next segment of about `most` entries at most, under a checkpoint; None when there is nothing new.

        Raises `LedgerUnavailable` when the ledger cannot write.
        """
        ledger, first = self._ledger, self.next_first()
        if ledger.next_seq <= first or ledger.checkpoint() is None:
            return None
        keys = (key for key, _ in ledger.store.scan(CHECKPOINTS, segment_key(first)))
        size = cut(first, (int.from_bytes(key, "big") for key in keys), most)
        note = None if size is None else ledger.store.get(CHECKPOINTS, segment_key(size))
        if size is None or note is None:
            return None
        signed_at = parse_checkpoint(split_note(note)[0]).at
        if signed_at is None:
            raise LedgerCorrupt(f"the checkpoint over {size} entries does not say when it was signed")
        segment = Segment(chain=self.chain, first=first, last=size - 1, at=signed_at, note=note)
        ledger.keep([segment_write(segment)])
        return segment

    def shipped(self, segment: Segment, sha256: bytes, version: str, at: int) -> None:
        """Remember that the archive confirmed these bytes `at` microseconds since the epoch."""
        confirmed = msgspec.structs.replace(segment, sha256=sha256, version=version, shipped_at=at)
        self._ledger.keep([segment_write(confirmed)])

    def segments(self) -> Iterator[Segment]:
        """All segments in order."""
        for key, value in self._ledger.store.scan(SEGMENTS):
            yield read_segment(self.chain, key, value)

    def unshipped(self) -> list[Segment]:
        """Those that the archive has not confirmed, in order."""
        return [segment for segment in self.segments() if not segment.is_shipped]
