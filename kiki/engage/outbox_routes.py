"""The outbox over HTTP, to look at while developing: a list, and each message. It shows addresses, so the role is `privacy`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kiki.engage.channels.outbox import letter, letters
from kiki.engage.outbox_page import letter_page, list_page
from kiki.errors import NotFound
from kiki.web import Reply, Request, Route, page

PATH: Final = "/outbox"


class OutboxRoutes:
    """Serves one directory of letters."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def routes(self) -> Sequence[Route]:
        """Both of them."""
        return (
            Route(PATH, self._list, role="privacy"),
            Route(f"{PATH}/{{action}}", self._letter, role="privacy"),
        )

    async def _list(self, request: Request) -> Reply:
        return page(await asyncio.to_thread(lambda: list_page(letters(self._directory))))

    async def _letter(self, request: Request) -> Reply:
        found = await asyncio.to_thread(letter, self._directory, request.params["action"])
        if found is None:
            raise NotFound("the outbox holds no such message")
        return page(letter_page(found))
