"""Checkpoints, proofs and bundles of a SyncShield behind HTTP, in two colours: `client.evidence.bundle(path)`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from kiki.shield.conversation import DOWNLOAD_SECONDS, Conversation, Flow
from kiki.shield.http_line import AsyncLine, Line
from kiki.shield.new_file import new_file
from kiki.shield.wire_call import parse_event_id
from kiki.shield.wire_evidence import CheckpointsReply, EvidenceReply
from kiki.shield.wire_moment import iso_of


def _standing(line: Conversation) -> Flow[EvidenceReply]:
    return line.get("/v1/evidence", EvidenceReply)


def _checkpoints(line: Conversation, after: int | None, limit: int | None, chain: str | None) -> Flow[CheckpointsReply]:
    params = [("after", _number(after)), ("limit", _number(limit)), ("chain", chain)]
    return line.get("/v1/evidence/checkpoints", CheckpointsReply, params)


def _proof(line: Conversation, event_id: str, chain: str | None) -> Flow[str]:
    path = f"/v1/evidence/{parse_event_id(event_id)}/proof"
    reply = yield from line.ask("GET", path, params=[("chain", chain)])
    return reply.content.decode("utf-8", "replace")


def _bundle(line: Conversation, file: BinaryIO, since: datetime | None, until: datetime | None) -> Flow[None]:
    params = [("from", iso_of(since)), ("to", iso_of(until))]
    yield from line.ask("GET", "/v1/evidence/bundle", params=params, seconds=DOWNLOAD_SECONDS, sink=file)


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)


class Evidence:
    """The evidence of a service's ledger."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def standing(self) -> EvidenceReply:
        """Where the ledger stands: its chain, its last checkpoint, the key to verify it, the archive's lag."""
        return self._line.drive(_standing(self._line))

    def checkpoints(
        self, *, after: int | None = None, limit: int | None = None, chain: str | None = None
    ) -> CheckpointsReply:
        """Signed checkpoints over more than `after` entries; of another replica's chain if it is named."""
        return self._line.drive(_checkpoints(self._line, after, limit, chain))

    def proof(self, event_id: str, chain: str | None = None) -> str:
        """The document that proves one event; check it with `kiki audit verify --proof`.

        `chain` is the one that came with the event id, where several replicas write one each.
        """
        return self._line.drive(_proof(self._line, event_id, chain))

    def bundle(self, path: str | Path, *, since: datetime | None = None, until: datetime | None = None) -> None:
        """Write the bundle of everything that was recorded in that time to a new file."""
        with new_file(path) as file:
            self._line.drive(_bundle(self._line, file, since, until))


class AsyncEvidence:
    """The evidence of a service's ledger."""

    def __init__(self, line: AsyncLine) -> None:
        self._line = line

    async def standing(self) -> EvidenceReply:
        """Where the ledger stands: its chain, its last checkpoint, the key to verify it, the archive's lag."""
        return await self._line.drive(_standing(self._line))

    async def checkpoints(
        self, *, after: int | None = None, limit: int | None = None, chain: str | None = None
    ) -> CheckpointsReply:
        """Signed checkpoints over more than `after` entries; of another replica's chain if it is named."""
        return await self._line.drive(_checkpoints(self._line, after, limit, chain))

    async def proof(self, event_id: str, chain: str | None = None) -> str:
        """The document that proves one event; check it with `kiki audit verify --proof`.

        `chain` is the one that came with the event id, where several replicas write one each.
        """
        return await self._line.drive(_proof(self._line, event_id, chain))

    async def bundle(self, path: str | Path, *, since: datetime | None = None, until: datetime | None = None) -> None:
        """Write the bundle of everything that was recorded in that time to a new file."""
        with new_file(path) as file:
            await self._line.drive(_bundle(self._line, file, since, until))
