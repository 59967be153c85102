"""Where `kiki dsr` finds the requests: in a ledger that this process owns as long as the command lasts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kiki.cli.consent_ledger import opened
from kiki.cli.options import data_directory

if TYPE_CHECKING:
    from kiki.shield.request_desk import RequestDesk


@contextlib.contextmanager
def open_desk(given: Path | None, *, may_make: bool = False) -> Iterator[RequestDesk]:
    """The requests in a ledger; the copies that wait for their persons lie in a directory beside it."""
    from kiki.cli.wiring import request_desk
    from kiki.settings import RequestSettings

    settings = RequestSettings.parse(os.environ)
    folder = data_directory(given)
    if folder.suffix == ".db" or folder.is_file():
        folder = folder.parent
    with (
        opened(given, may_make=may_make) as store,
        contextlib.closing(request_desk(store, folder, settings, os.environ)) as desk,
    ):
        yield desk
