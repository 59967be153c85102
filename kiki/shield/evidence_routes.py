"""The routes of evidence: where the ledger stands, its signed checkpoints, a proof of one entry, a bundle of many.

Nothing of this is secret to whoever may read decisions: what is personal is sealed in it. All of it is made on
threads; a bundle is written to an unnamed file first, so that a slow reader holds up neither the ledger nor a thread.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, TypeVar, cast

from aiohttp import web

from kiki.errors import NotFound, Unavailable
from kiki.ledger.bundle import write_bundle
from kiki.ledger.checkpoint import Signer
from kiki.ledger.exhibit import OTHERS_CHECKPOINT, covering, latest, prove, recorded, size_key, stretches
from kiki.ledger.ledger import CHECKPOINTS, Ledger, first_recorded_since
from kiki.ledger.shipper import Lag, courteous
from kiki.ledger.store import Reader
from kiki.members import require_no_query
from kiki.shield.async_guard import AsyncGuard
from kiki.shield.evidence import chain_of, find_event, parse_event_id
from kiki.shield.wire import dump
from kiki.shield.wire_evidence import (
    BUNDLE_TYPE,
    CheckpointsReply,
    EvidenceReply,
    Span,
    archive_reply,
    bundle_query,
    checkpoint_reply,
    checkpoints_query,
    proof_query,
)
from kiki.web import Reply, Request, Route, pairs, stream
from kiki.web.reply import JSON

Value = TypeVar("Value")

NOT_COVERED: Final = "Kiki-Not-Covered"
"""Header of a bundle: a chain, and how many of its entries are not in it because its replica has not signed them yet."""

_PIECE_BYTES: Final = 1 << 20


class EvidenceRoutes:
    """Serves the evidence of one ledger, and of the chains beside it. `lag` says how far the archive is behind, where there is one."""

    def __init__(
        self,
        ledger: Ledger,
        asynchronous: Callable[[], AsyncGuard],
        *,
        all_chains: Callable[[], list[Reader]] | None = None,
        lag: Callable[[], Lag] | None = None,
        scratch: Path | None = None,
    ) -> None:
        self._ledger = ledger
        self._asynchronous = asynchronous
        self._all_chains: Callable[[], list[Reader]] = all_chains or (lambda: [ledger.store])
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
            chains=[chain_of(reader) for reader in self._chains()],
        )

    async def _checkpoints(self, request: Request) -> Reply:
        wanted = checkpoints_query(pairs(request))

        def look(ledger: Ledger) -> CheckpointsReply:
            reader = ledger.store if wanted.chain is None else self._reader(wanted.chain)
            found = [
                checkpoint_reply(note)
                for _, note in islice(reader.scan(CHECKPOINTS, size_key(wanted.after)), wanted.limit)
            ]
            following = found[-1].size if len(found) == wanted.limit else None
            return CheckpointsReply(checkpoints=found, next=following)

        return Reply(dump(await self._look(look)), JSON)

    async def _proof(self, request: Request) -> Reply:
        chain = proof_query(pairs(request))
        event = request.params["event_id"]
        parse_event_id(event)

        def look(ledger: Ledger) -> str:
            if chain in (None, ledger.chain):
                return proof_of(ledger, event)
            return proof_in(self._reader(chain), event, _signer(ledger).verifier_key)

        text = await self._look(look)
        name = f"kiki-proof-{event}.json"
        return Reply(text.encode(), JSON, 200, (("Content-Disposition", f'attachment; filename="{name}"'),))

    async def _bundle(self, request: Request) -> web.StreamResponse:
        span = bundle_query(pairs(request))
        if self._bundling.locked():
            raise Unavailable("another bundle is being made; one at a time", retry_after=5)
        async with self._bundling:
            with tempfile.TemporaryFile(dir=self._scratch) as file:
                beyond = await asyncio.to_thread(
                    bundle_into, cast("BinaryIO", file), self._ledger, self._chains(), span
                )
                size = file.seek(0, 2)
                file.seek(0)
                headers = [
                    ("Content-Length", str(size)),
                    ("Content-Disposition", f'attachment; filename="kiki-{self._ledger.chain}.bundle"'),
                    *((NOT_COVERED, f"{chain}={count}") for chain, count in beyond.items()),
                ]
                response = await stream(request, BUNDLE_TYPE, headers)
                while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                    await response.write(piece)
                return response

    def _chains(self) -> list[Reader]:
        """A reader of every chain in which something stands, our own among them."""
        return [reader for reader in self._all_chains() if chain_of(reader) and reader.next_seq()]

    def _reader(self, chain: str) -> Reader:
        """The reader of one chain; raises `NotFound`."""
        by_id = {chain_of(reader): reader for reader in self._chains()}
        if chain not in by_id:
            raise NotFound(f"there is no chain {chain} in this ledger", hint=f"there are: {', '.join(sorted(by_id))}")
        return by_id[chain]

    async def _look(self, at: Callable[[Ledger], Value]) -> Value:
        return await self._asynchronous().look(lambda _: at(self._ledger))


def proof_of(ledger: Ledger, event: str) -> str:
    """The inclusion proof of the entry behind an event id; under a fresh checkpoint when none covers it yet."""
    seq = _seq_of(ledger.store, event)
    if covering(ledger.store, seq + 1) is None:
        ledger.checkpoint()
    return prove(ledger.store, seq, _signer(ledger).verifier_key)


def proof_in(reader: Reader, event: str, key: str) -> str:
    """The same of a chain that another replica writes and signs; raises `Unavailable` until that one has."""
    seq = _seq_of(reader, event)
    if covering(reader, seq + 1) is None:
        raise Unavailable(
            f"no checkpoint of chain {chain_of(reader)} covers event {event} yet",
            hint=OTHERS_CHECKPOINT,
            retry_after=5,
        )
    return prove(reader, seq, key)


def _seq_of(reader: Reader, event: str) -> int:
    if find_event(reader, event) is None:
        raise NotFound(
            f"there is no event {event} in chain {chain_of(reader)}",
            hint="it may be pruned, or lie in another chain: name that with chain=",
        )
    return parse_event_id(event)[0]


def bundle_into(file: BinaryIO, ledger: Ledger, chains: Iterable[Reader], span: Span) -> dict[str, int]:
    """Write the bundle of every entry that was recorded in a span of time, and of those up to the next checkpoint.

    What other replicas wrote is in it as far as they have signed it. The number of entries of theirs that belong to
    the span and are not, by chain.
    """
    if covering(ledger.store, _end_of(ledger.store, span)) is None:
        ledger.checkpoint()
    signed: list[Reader] = []
    beyond: dict[str, int] = {}
    found_any = False
    for reader in chains:
        count = recorded(reader, span.since, span.until)
        found_any = found_any or bool(count)
        if latest(reader) is not None:
            signed.append(reader)
        elif count:
            beyond[chain_of(reader)] = count
    if not found_any:
        raise NotFound("nothing was recorded in that time", hint="leave out from= and to= for everything there is")
    found = stretches(signed, span.since, span.until, courteous)
    write_bundle(file, [each.bundle for each in found], _signer(ledger), at=max(ledger.clock(), ledger.recorded_at))
    # Our own are those that came while it was made.
    return beyond | {each.bundle.id: each.beyond for each in found if each.beyond and each.bundle.id != ledger.chain}


def _end_of(reader: Reader, span: Span) -> int:
    return reader.next_seq() if span.until is None else first_recorded_since(reader, span.until)


def _signer(ledger: Ledger) -> Signer:
    assert ledger.signer is not None, "a service opens its ledger with a key that signs"
    return ledger.signer
