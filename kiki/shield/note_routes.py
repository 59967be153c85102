"""The route by which other services write down what they did."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kiki.members import require_no_query
from kiki.shield import wire_note
from kiki.shield.async_guard import AsyncGuard
from kiki.shield.caller import actor_of
from kiki.shield.network import coarsened
from kiki.shield.note import Kept
from kiki.shield.wire import dump
from kiki.web import Reply, Request, Route, pairs, read_json
from kiki.web.reply import JSON


class NoteRoutes:
    """Takes notes into the ledger of `asynchronous`."""

    def __init__(self, asynchronous: Callable[[], AsyncGuard]) -> None:
        self._asynchronous = asynchronous

    def routes(self) -> Sequence[Route]:
        """Whoever may spend may say what became of it."""
        return [Route("/v1/notes", self._write, ("POST",), role="spend")]

    async def _write(self, request: Request) -> Reply:
        require_no_query(pairs(request))
        change = wire_note.notes_body(
            await read_json(request), actor=actor_of(request), network=coarsened(request.remote or "")
        )
        kept: list[Kept] = await self._asynchronous().decide(change)
        return Reply(dump(wire_note.notes_reply(kept)), JSON, 201)
