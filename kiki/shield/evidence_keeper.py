"""What happens to evidence behind the deciding: it is archived, anchored elsewhere, and removed when its time is over.

Each is a thread of its own that retries by itself and never holds up a decision.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from kiki.errors import KikiError
from kiki.ledger.anchors import Anchors
from kiki.ledger.archive import Archive
from kiki.ledger.retention import prunable
from kiki.ledger.segment import SEGMENT_ENTRIES, SEGMENT_SECONDS, SEGMENTS, Segment, segment_key
from kiki.ledger.segment_log import SegmentLog
from kiki.ledger.shipper import Shipper
from kiki.ledger.store import Write
from kiki.ledger.timestamp import TimestampService
from kiki.ledger.witness import Witness
from kiki.shield.decider import Decider
from kiki.shield.legal_hold import LEGAL_HOLD
from kiki.shield.pruning import prune
from kiki.telemetry import log_event

logger = logging.getLogger("kiki.shield")

RETENTION_SECONDS = 3600.0
_STOP_SECONDS = 5.0


class EvidenceKeeper:
    """Archives, anchors and prunes the ledger of one decider. `archive` None: nothing leaves this machine."""

    def __init__(
        self,
        decider: Decider,
        *,
        retention_days: int,
        archive: Archive | None = None,
        segment_seconds: float = SEGMENT_SECONDS,
        segment_entries: int = SEGMENT_ENTRIES,
        witness: Witness | None = None,
        timestamps: TimestampService | None = None,
    ) -> None:
        self._decider = decider
        self._retention_days = retention_days
        self._archive = archive
        self._entries = segment_entries
        ledger = decider.ledger
        self._log = SegmentLog(ledger)
        self.shipper: Shipper | None = None
        if archive is not None and ledger.signer is not None:
            self.shipper = Shipper(
                self._log, ledger.store, archive, ledger.signer, seconds=segment_seconds, entries=segment_entries
            )
        self.anchors = Anchors(ledger, witness, timestamps) if witness or timestamps else None
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads."""
        work: dict[str, Callable[[threading.Event], None]] = {"retention": self._retain}
        if self.shipper is not None:
            work["archive"] = self.shipper.run
        if self.anchors is not None:
            work["anchors"] = self.anchors.run
        for name, run in work.items():
            thread = threading.Thread(target=run, args=(self._stop,), name=f"kiki-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End the threads; what is not archived yet is at the next start."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)
        self._threads.clear()

    def gauges(self) -> dict[str, float]:
        """How far the archive and the anchors are behind, for the metrics."""
        found: dict[str, float] = {}
        if self.shipper is not None:
            lag = self.shipper.lag()
            found["archive_lag_seconds"] = lag.oldest_seconds
            found["archive_segments_waiting"] = float(lag.waiting)
            found["archive_segments_set_aside"] = float(lag.set_aside)
            found["archive_failures"] = float(lag.failures)
        if self.anchors is not None:
            state = self.anchors.state()
            found["cosigned_entries"] = float(state.cosigned_size)
            found["timestamped_entries"] = float(state.stamped_size)
            found["anchor_failures"] = float(state.failures)
        return found

    # -- retention -----------------------------------------------------------------------------------

    def _retain(self, stop: threading.Event) -> None:
        wait = 60.0
        while not stop.wait(wait):
            wait = RETENTION_SECONDS
            try:
                self.prune()
            except KikiError as error:
                log_event(logger, logging.WARNING, "evidence could not be pruned", code=error.code, detail=str(error))
            except Exception:
                logger.exception("evidence could not be pruned")

    def prune(self) -> int:
        """Remove what is past its retention, unless a legal hold is on; the lowest sequence that is left."""
        ledger = self._decider.ledger
        if self.shipper is None:
            # Nobody else cuts segments, and by their ends the age of entries is known.
            while self._log.seal(self._entries) is not None:
                pass
        before = prunable(
            self._log.segments(),
            self._decider.clock(),
            self._retention_days,
            first=ledger.store.first_seq(),
            hold=next(iter(ledger.store.scan(LEGAL_HOLD)), None) is not None,
            archived=self.shipper is not None,
        )
        if before is None:
            return ledger.store.first_seq()
        first = prune(self._decider, before, self._retention_days)
        over = list(self._over(first))
        for segment in over:
            if self._archive is not None:
                self._archive.delete(segment.name)
        if over:
            ledger.keep([Write(SEGMENTS, segment_key(segment.first), None) for segment in over])
        log_event(logger, logging.INFO, "evidence past its retention was removed", before=first, segments=len(over))
        return first

    def _over(self, first: int) -> Iterator[Segment]:
        """The segments all of whose entries were removed."""
        for segment in self._log.segments():
            if segment.last >= first:
                return
            yield segment
