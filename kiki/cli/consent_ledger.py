"""A ledger that this process owns as long as a command lasts, with the consents in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kiki.cli import show
from kiki.cli.options import LEDGER
from kiki.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from kiki.shield.consent_store import ConsentStore

LedgerPath = Annotated[
    Path | None,
    typer.Option(
        "--ledger",
        metavar="PATH",
        help="A ledger that no service has open, instead of a service: its file, or its directory. Where no service "
        "is named or answers, it is the one in KIKI_DATA_DIR or DATABASE_URL.",
    ),
]


@contextlib.contextmanager
def opened(given: Path | None, *, may_make: bool = False) -> Iterator[ConsentStore]:
    """The consents in a ledger that this process owns as long as it lasts."""
    from dataclasses import replace

    from kiki.cli.wiring import database, key_source
    from kiki.settings import LedgerSettings, shield_setting
    from kiki.shield.consent_store import ConsentStore
    from kiki.shield.consent_words import parse_purposes
    from kiki.shield.opening import open_decider

    settings = LedgerSettings.parse(os.environ)
    shared = database(settings) if given is None else None
    path = None
    if shared is None:
        path = _ledger_file(settings.data_dir if given is None else given, may_make=may_make)
        settings = replace(settings, data_dir=path.parent, database_url=None)
    purposes = parse_purposes(shield_setting(os.environ, "KIKI_PURPOSES") or ())
    decider = open_decider(path, None, database=shared, keys=key_source(settings))
    with ConsentStore(decider, purposes=purposes) as store:
        yield store


def _ledger_file(path: Path, *, may_make: bool) -> Path:
    if path.suffix != ".db" and not path.is_file():
        path /= LEDGER
    if not path.exists():
        if not may_make:
            raise NotFound(f"there is no ledger at {path}", hint="name it with --ledger or KIKI_DATA_DIR")
        show.talk(f"a new ledger is made: {path}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"{path.parent} cannot be made: {error.strerror}") from None
    return path


def actor() -> str:
    """Who types this, as the system knows it; empty where it does not."""
    import getpass

    try:
        return getpass.getuser()[:64]
    except (KeyError, OSError, ImportError):
        return ""
