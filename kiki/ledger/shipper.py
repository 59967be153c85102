"""Ships sealed segments to the archive, in the background: at least once, idempotently, never in the way of deciding.

    seal (durable) → bundle in a temporary file → put if absent → shipped (durable)

A crash after any arrow repeats from there: the bytes of a sealed segment are the same each time, so an archive that took
them before takes them again for the same. What fails is tried again, with growing waits; meanwhile segments go on being
cut, and wait in the ledger. One that the archive refuses for good (it holds other bytes under that name) is set
aside, loudly, so that it does not hold up the rest.
"""

from __future__ import annotations

import logging
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Protocol

from kiki.clock import SECOND, Clock, wall_micros
from kiki.errors import ArchiveConflict, LedgerCorrupt
from kiki.ledger.archive import Archive
from kiki.ledger.backoff import MOST_SECONDS, Backoff
from kiki.ledger.bundle import BundleChain, write_bundle
from kiki.ledger.checkpoint import Signer
from kiki.ledger.entry import decode_entry
from kiki.ledger.merkle import peaks_of
from kiki.ledger.segment import SEGMENT_ENTRIES, SEGMENT_SECONDS, Segment
from kiki.ledger.store import Reader
from kiki.ledger.tiling import TileReader
from kiki.telemetry import log_event

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""How often it looks whether enough entries have gathered."""
_COURTESY_ENTRIES: Final = 256
_COURTESY_SECONDS: Final = 0.0005


class SegmentOwner(Protocol):
    """What writes about segments in the ledger: `kiki.ledger.segment_log.SegmentLog`."""

    chain: str

    def next_first(self) -> int:
        """Where the next segment begins."""
        ...

    def seal(self, most: int) -> Segment | None:
        """Cut the next segment, durably; None when there is nothing new."""
        ...

    def shipped(self, segment: Segment, sha256: bytes, version: str, at: int) -> None:
        """Remember, durably, that the archive confirmed it."""
        ...

    def unshipped(self) -> list[Segment]:
        """Those that the archive has not confirmed, in order."""
        ...


class Lag(NamedTuple):
    """How far the archive is behind the ledger."""

    oldest_seconds: float
    """The age of the oldest entry that the archive does not have; 0 when it has all."""
    waiting: int
    """Segments that are cut and not shipped."""
    failures: int
    """Attempts that failed since the process began."""
    set_aside: int
    """Segments that the archive refuses, or that the ledger cannot give: somebody has to look."""


class Shipper:
    """Cuts and ships the segments of one ledger. `run` is a thread's whole work; `lag` may be asked from any thread.

    `seconds` and `entries`, whichever is reached first, make the next segment due. Bundles are written to unnamed files in
    `scratch` (the system's temporary directory when None), as large as a segment; memory does not grow with it, but
    an archive in a bucket holds one segment in memory while it sends it.
    """

    def __init__(
        self,
        owner: SegmentOwner,
        reader: Reader,
        archive: Archive,
        signer: Signer,
        *,
        seconds: float = SEGMENT_SECONDS,
        entries: int = SEGMENT_ENTRIES,
        scratch: Path | None = None,
        clock: Clock = wall_micros,
        steady: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._owner = owner
        self._reader = reader
        self._archive = archive
        self._signer = signer
        self._seconds = seconds
        self._entries = entries
        self._scratch = scratch
        self._clock = clock
        self._steady = steady
        self._turn = threading.Lock()
        self._waiting: dict[int, Segment] | None = None
        self._aside: dict[int, float] = {}
        self._refusals = 0
        self._next_first: int | None = None
        self._seen_at: float | None = None
        self._cutting = Backoff(steady, chance)
        self._shipping = Backoff(steady, chance)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. Nothing ends it otherwise: whatever fails is logged and tried again."""
        wait = 0.0
        while not stop.wait(wait):
            wait = self.step()

    def step(self) -> float:
        """Do what is due: cut at most one segment, ship at most one; the seconds until there may be more to do."""
        with self._turn:
            # Each on its own: an archive that is away stops no cutting, a ledger that cannot write stops no shipping.
            has_cut = self._attempt(self._cutting, self._cut_if_due, "a segment could not be cut")
            has_shipped = self._attempt(self._shipping, self._ship_next, "a segment could not be archived")
            return 0.0 if has_cut or has_shipped else LOOK_SECONDS

    def _attempt(self, backoff: Backoff, act: Callable[[], bool], complaint: str) -> bool:
        if not backoff.is_ready:
            return False
        try:
            done = act()
        except Exception as error:
            wait = backoff.failed()
            log_event(
                logger, logging.WARNING, f"{complaint} and will be tried again",
                reason=f"{type(error).__name__}: {error}", hint=getattr(error, "hint", None),
                failures_in_a_row=backoff.in_a_row, seconds_until_then=round(wait, 1), waiting=len(self._waiting or ()),
            )  # fmt: skip
            return False
        if backoff.in_a_row:
            log_event(logger, logging.INFO, "archiving works again", failures_in_a_row=backoff.in_a_row)
        backoff.succeeded()
        return done

    def flush(self) -> None:
        """Cut what there is now and ship everything that waits, what was set aside included; raises what fails."""
        with self._turn:
            self._load()
            # What comes meanwhile is not waited for: under load there would be no end.
            end = self._reader.next_seq()
            while (self._next_first or 0) < end and self._seal() is not None:
                pass
            for segment in list(self._load().values()):
                self._ship(segment)

    def lag(self) -> Lag:
        """How far the archive is behind, as of now."""
        waiting = list((self._waiting or {}).values())
        first = waiting[0].first if waiting else self._next_first
        recorded_at = None if first is None else self._recorded_at(first)
        age = 0.0 if recorded_at is None else max(self._clock() - recorded_at, 0) / SECOND
        failures = self._cutting.failures + self._shipping.failures + self._refusals
        return Lag(age, len(waiting), failures, len(self._aside))

    def _recorded_at(self, seq: int) -> int | None:
        for _, data in self._reader.entries(seq, seq):
            return decode_entry(data).recorded_at
        return None

    def _load(self) -> dict[int, Segment]:
        if self._waiting is None:
            waiting = {segment.first: segment for segment in self._owner.unshipped()}
            self._next_first = self._owner.next_first()
            self._waiting = waiting
        return self._waiting

    def _cut_if_due(self) -> bool:
        self._load()
        first = self._next_first or 0
        gathered = self._reader.next_seq() - first
        if gathered <= 0:
            self._seen_at = None
            return False
        if self._seen_at is None:
            self._seen_at = self._steady()
        # By the entry's own time, which a restart does not begin anew, or by our own, which nobody sets back.
        recorded_at = self._recorded_at(first)
        age = 0 if recorded_at is None else self._clock() - recorded_at
        is_due = (
            gathered >= self._entries
            or age >= self._seconds * SECOND
            or self._steady() - self._seen_at >= self._seconds
        )
        return is_due and self._seal() is not None

    def _seal(self) -> Segment | None:
        waiting = self._load()
        try:
            segment = self._owner.seal(self._entries)
        except Exception:
            # Its row may be durable all the same: what waits is read again.
            self._waiting = None
            raise
        if segment is not None:
            waiting[segment.first] = segment
            self._next_first = segment.last + 1
            self._seen_at = None
        return segment

    def _ship_next(self) -> bool:
        now = self._steady()
        due = (one for one in self._load().values() if self._aside.get(one.first, now) <= now)
        segment = next(due, None)
        if segment is None:
            return False
        try:
            self._ship(segment)
        except (ArchiveConflict, LedgerCorrupt) as error:
            self._aside[segment.first] = now + MOST_SECONDS
            self._refusals += 1
            log_event(
                logger, logging.ERROR, "a segment cannot be archived and was set aside",
                segment=segment.name, reason=str(error), hint=error.hint,
            )  # fmt: skip
        return True

    def _ship(self, segment: Segment) -> None:
        began = self._steady()
        with tempfile.TemporaryFile(dir=self._scratch) as file:
            self._write(segment, file)
            size = file.tell()
            stored = self._archive.put_if_absent(segment.name, file)
        self._owner.shipped(segment, stored.sha256, stored.version, self._clock())
        self._load().pop(segment.first, None)
        self._aside.pop(segment.first, None)
        log_event(
            logger, logging.INFO, "segment archived",
            segment=segment.name, bytes=size, sha256=stored.sha256.hex(), version=stored.version,
            milliseconds=round((self._steady() - began) * 1000),
        )  # fmt: skip

    def _write(self, segment: Segment, out: BinaryIO) -> None:
        before = TileReader(self._reader, segment.first)
        chain = BundleChain(
            segment.chain,
            segment.first,
            peaks_of(before.node, segment.first),
            courteous(self._reader.entries(segment.first, segment.last)),
            segment.note,
        )
        write_bundle(out, [chain], self._signer, at=segment.at)


def courteous(entries: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The same entries, with a breath now and then, so that deciding need not wait for the interpreter's lock."""
    for count, entry in enumerate(entries, 1):
        yield entry
        if count % _COURTESY_ENTRIES == 0:
            time.sleep(_COURTESY_SECONDS)
