"""Anchors a ledger's checkpoints outside of it, in the background: a witness' cosignatures, RFC 3161 timestamps.

Both are kept beside the checkpoint, under the size of its tree: the cosigned note in the space "cosigned", the timestamp
response (over the note as the log alone signed it) in the space "timestamp". A failure is logged and tried again with
the checkpoint that is the latest then; it never stops deciding, and never a segment.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from kiki.clock import SECOND
from kiki.errors import CheckpointInvalid, TimestampInvalid
from kiki.ledger.backoff import Backoff
from kiki.ledger.checkpoint import add_signature, parse_checkpoint, split_note
from kiki.ledger.ledger import Ledger
from kiki.ledger.merkle import consistency_proof
from kiki.ledger.store import Write
from kiki.ledger.tiling import TileReader
from kiki.ledger.timestamp import TimestampService
from kiki.ledger.witness import Witness
from kiki.telemetry import log_event

logger = logging.getLogger(__name__)

COSIGNED: Final = "cosigned"
TIMESTAMPS: Final = "timestamp"
WITNESS_SECONDS: Final = 60.0
TIMESTAMP_SECONDS: Final = 3600.0
"""One timestamp covers everything before it, and services that cost nothing ask not to be called often."""
_LOOK_SECONDS: Final = 5.0


class Anchored(NamedTuple):
    """How far the anchors are behind the ledger."""

    cosigned_size: int
    stamped_size: int
    failures: int
    """Attempts that failed since the process began."""


class Anchors:
    """Anchors one ledger's checkpoints. `run` is a thread's whole work."""

    def __init__(
        self,
        ledger: Ledger,
        witness: Witness | None = None,
        timestamps: TimestampService | None = None,
        *,
        witness_seconds: float = WITNESS_SECONDS,
        timestamp_seconds: float = TIMESTAMP_SECONDS,
        steady: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._ledger = ledger
        self._witness = witness
        self._timestamps = timestamps
        self._every = {COSIGNED: witness_seconds, TIMESTAMPS: timestamp_seconds}
        self._steady = steady
        self._backoff = {space: Backoff(steady, chance) for space in self._every}
        self._due = dict.fromkeys(self._every, steady())

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        while not stop.wait(self.step()):
            pass

    def step(self) -> float:
        """Anchor what is due; the seconds until there may be more to do."""
        if self._witness is not None:
            self._attempt(COSIGNED, self._cosign)
        if self._timestamps is not None:
            self._attempt(TIMESTAMPS, self._stamp)
        return _LOOK_SECONDS

    def state(self) -> Anchored:
        """How far the anchors are, as of now."""
        failures = sum(backoff.failures for backoff in self._backoff.values())
        return Anchored(self._size(COSIGNED), self._size(TIMESTAMPS), failures)

    def _attempt(self, space: str, anchored: Callable[[bytes, int], bytes]) -> None:
        backoff = self._backoff[space]
        if self._steady() < self._due[space] or not backoff.is_ready:
            return
        try:
            # The last entries of a burst have no checkpoint yet when nothing came after them.
            note = self._ledger.checkpoint(older_than=round(self._every[space] * SECOND))
            size = 0 if note is None else parse_checkpoint(split_note(note)[0]).size
            if note is not None and size > self._size(space):
                self._ledger.keep([Write(space, size.to_bytes(8, "big"), anchored(note, size))])
                log_event(logger, logging.INFO, "checkpoint anchored", kind=space, size=size)
        except Exception as error:
            wait = backoff.failed()
            needs_a_person = isinstance(error, CheckpointInvalid | TimestampInvalid)
            log_event(
                logger, logging.ERROR if needs_a_person else logging.WARNING, "a checkpoint could not be anchored",
                kind=space, reason=f"{type(error).__name__}: {error}", hint=getattr(error, "hint", None),
                failures_in_a_row=backoff.in_a_row, seconds_until_then=round(wait, 1),
            )  # fmt: skip
            return
        backoff.succeeded()
        self._due[space] = self._steady() + self._every[space]

    def _size(self, space: str) -> int:
        latest = self._ledger.store.last(space)
        return 0 if latest is None else int.from_bytes(latest[0], "big")

    def _cosign(self, note: bytes, size: int) -> bytes:
        assert self._witness is not None
        tree = TileReader(self._ledger.store, size)
        signature = self._witness.cosign(
            note, self._size(COSIGNED), lambda old, new: consistency_proof(tree.node, old, new)
        )
        return add_signature(note, signature)

    def _stamp(self, note: bytes, size: int) -> bytes:
        assert self._timestamps is not None
        return self._timestamps.stamp(note)
