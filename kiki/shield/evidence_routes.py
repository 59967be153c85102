"""The routes of evidence: where the ledger stands, its signed checkpoints, a proof of one entry, a bundle of many.

Nothing of this is secret to whoever may read decisions: what is personal is sealed in it. All of it is made on
threads; a bundle is written to an unnamed file first, so that a slow reader holds up neither the ledger nor a thread.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, TypeVar, cast

from aiohttp import web

from kiki.errors import NotFound, Unavailable
from kiki.ledger.bundle import BundleChain, write_bundle
from kiki.ledger.checkpoint import Signer
from kiki.ledger.ledger import CHECKPOINTS, Ledger, first_recorded_since
from kiki.ledger.merkle import peaks_of
from kiki.ledger.proof import make_proof
from kiki.ledger.shipper import Lag, courteous
from kiki.ledger.tiling import TileReader
from kiki.shield.async_guard import AsyncGuard
from kiki.shield.evidence import find_event
from kiki.shield.wire import dump
from kiki.shield.wire_call import parse_event_id
from kiki.shield.wire_evidence import (
    BUNDLE_TYPE,
    CheckpointsReply,
    EvidenceReply,
    Span,
    archive_reply,
    bundle_query,
    checkpoint_reply,
    checkpoints_query,
)
from kiki.shield.wire_members import require_no_query
from kiki.web import Reply, Request, Route, pairs, stream
from kiki.web.reply import JSON

Value = TypeVar("Value")

_PIECE_BYTES: Final = 1 << 20
_SEQ_DIGITS: Final = 12


class EvidenceRoutes:
    """Serves the evidence of one ledger. `lag` says how far the archive is behind, where there is one."""

    def __init__(
        self,
        ledger: Ledger,
        asynchronous: Callable[[], AsyncGuard],
        *,
        lag: Callable[[], Lag] | None = None,
        scratch: Path | None = None,
    ) -> None:
        self._ledger = ledger
        self._asynchronous = asynchronous
        self._lag = lag
        self._scratch = scratch
        """Where bundles lie while they are sent; None: the system's temporary directory."""
        self._bundling = asyncio.Lock()

    def routes(self) -> Sequence[Route]:
        """All of them."""
        return [
            Route("/v1/evidence", self._summary, role="read"),
            Route("/v1/evidence/checkpoints", self._checkpoints, role="read"),
            Route("/v1/evidence/bundle", self._bundle, role="read"),
            Route("/v1/evidence/{event_id}/proof", self._proof, role="read"),
        ]

    async def _summary(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        return Reply(dump(await self._look(self._standing)), JSON)

    def _standing(self, ledger: Ledger) -> EvidenceReply:
        latest = ledger.store.last(CHECKPOINTS)
        return EvidenceReply(
            chain=ledger.chain,
            first_seq=ledger.store.first_seq(),
            next_seq=ledger.next_seq,
            checkpoint=None if latest is None else checkpoint_reply(latest[1]),
            verifier_key=_signer(ledger).verifier_key,
            archive=None if self._lag is None else archive_reply(self._lag()),
        )

    async def _checkpoints(self, request: Request) -> Reply:
        wanted = checkpoints_query(pairs(request))

        def look(ledger: Ledger) -> CheckpointsReply:
            found = [
                checkpoint_reply(note)
                for _, note in islice(ledger.store.scan(CHECKPOINTS, _key(wanted.after)), wanted.limit)
            ]
            following = found[-1].size if len(found) == wanted.limit else None
            return CheckpointsReply(checkpoints=found, next=following)

        return Reply(dump(await self._look(look)), JSON)

    async def _proof(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        event = parse_event_id(request.params["event_id"])
        text = await self._look(lambda ledger: proof_of(ledger, event))
        name = f"kiki-proof-{event}.json"
        return Reply(text.encode(), JSON, 200, (("Content-Disposition", f'attachment; filename="{name}"'),))

    async def _bundle(self, request: Request) -> web.StreamResponse:
        span = bundle_query(pairs(request))
        if self._bundling.locked():
            raise Unavailable("another bundle is being made; one at a time", retry_after=5)
        async with self._bundling:
            with tempfile.TemporaryFile(dir=self._scratch) as file:
                await asyncio.to_thread(bundle_into, cast("BinaryIO", file), self._ledger, span)
                size = file.seek(0, 2)
                file.seek(0)
                headers = [
                    ("Content-Length", str(size)),
                    ("Content-Disposition", f'attachment; filename="kiki-{self._ledger.chain}.bundle"'),
                ]
                response = await stream(request, BUNDLE_TYPE, headers)
                while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                    await response.write(piece)
                return response

    async def _look(self, at: Callable[[Ledger], Value]) -> Value:
        return await self._asynchronous().look(lambda _: at(self._ledger))


def proof_of(ledger: Ledger, event: str) -> str:
    """The inclusion proof of the entry behind an event id; under a fresh checkpoint when none covers it yet."""
    seq = int(event[:_SEQ_DIGITS], 16)
    entry = next((body for _, body in ledger.store.entries(seq, seq)), None)
    if entry is None or find_event(ledger.store, event) is None:
        raise NotFound(f"there is no event {event} in this ledger", hint="it may lie in another chain, or be pruned")
    note = _covering(ledger, seq + 1)
    size = checkpoint_reply(note).size
    return make_proof(ledger.chain, entry, note, TileReader(ledger.store, size).node, _signer(ledger).verifier_key)


def bundle_into(file: BinaryIO, ledger: Ledger, span: Span) -> None:
    """Write the bundle of every entry that was recorded in a span of time, and of those up to the next checkpoint."""
    reader = ledger.store
    first = reader.first_seq() if span.since is None else first_recorded_since(reader, span.since)
    end = reader.next_seq() if span.until is None else first_recorded_since(reader, span.until)
    if first >= end:
        raise NotFound("nothing was recorded in that time", hint="leave out from= and to= for everything there is")
    note = _covering(ledger, end)
    size = checkpoint_reply(note).size
    chain = BundleChain(
        ledger.chain,
        first,
        peaks_of(TileReader(reader, first).node, first),
        courteous(reader.entries(first, size - 1)),
        note,
        _earlier(ledger, first, size),
    )
    write_bundle(file, [chain], _signer(ledger), at=max(ledger.clock(), ledger.recorded_at))


def _earlier(ledger: Ledger, first: int, end: int) -> Iterator[bytes]:
    for key, note in ledger.store.scan(CHECKPOINTS, _key(first)):
        if int.from_bytes(key, "big") >= end:
            return
        yield note


def _covering(ledger: Ledger, size: int) -> bytes:
    """The first checkpoint over at least so many entries."""
    for _, note in ledger.store.scan(CHECKPOINTS, _key(size - 1)):
        return note
    latest = ledger.checkpoint()
    if latest is None:
        raise Unavailable("the ledger has no checkpoint yet", retry_after=1)
    return latest


def _key(size: int) -> bytes:
    return size.to_bytes(8, "big")


def _signer(ledger: Ledger) -> Signer:
    assert ledger.signer is not None, "a service opens its ledger with a key that signs"
    return ledger.signer
