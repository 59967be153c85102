"""Where a command finds what it works on: in a running service, or in a ledger that no service has open.

`--ledger` names a ledger, `--url` a service. Without either it is the service of KIKI_SHIELD_URL or SHIELD_URL, else the
one at the usual address; where nothing listens there, it is the ledger of KIKI_DATA_DIR or DATABASE_URL, or the one in
./kiki-data if there is one.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kiki.cli import show
from kiki.cli.consent_ledger import opened
from kiki.cli.options import LEDGER
from kiki.errors import InvalidInput, LedgerLocked

if TYPE_CHECKING:
    from kiki.settings import LedgerSettings
    from kiki.shield.consent_store import ConsentStore

CONNECT_SECONDS = 2.0
_STOP_SERVICE = "stop the service, and give --ledger with its data directory (KIKI_DATA_DIR, by default ./kiki-data)"
_NAME_SERVICE = "a service has it open: name that with --url, or stop it"


def is_ledger(ledger: Path | None, url: str | None) -> bool:
    """Whether a command works on a ledger, not through a service; says so where nothing named the ledger.

    Only where nothing listens: a service that is slow or in trouble may be the one that owns the ledger, and
    whoever takes consent back must never be told "done" by a ledger that nobody acts on.
    """
    if ledger is not None:
        if url:
            raise InvalidInput("--ledger is for a ledger that no service has open: give it, or --url")
        return True
    if url or _is_named() or listens(address()):
        return False
    settings = _settings()
    if settings.database_url is None and not os.environ.get("KIKI_DATA_DIR"):
        if not (settings.data_dir / LEDGER).exists():
            return False
        show.talk(f"nothing answers at {address()}: using the ledger in {settings.data_dir}", dim=True)
    return True


def is_offline(data_dir: Path | None, url: str | None) -> bool:
    """Whether a command that only reads does so in the ledger: the same rule, and the ledger may be in use."""
    if data_dir is not None:
        if url:
            raise InvalidInput("--data-dir reads a ledger, and --url asks a service: give one of them")
        return True
    return is_ledger(None, url)


@contextlib.contextmanager
def open_ledger_alone(ledger: Path | None, *, may_make: bool = False) -> Iterator[ConsentStore]:
    """The ledger, for this process as long as it lasts; `may_make`: one that is named and not there is made."""
    with contextlib.ExitStack() as stack:
        try:
            store = stack.enter_context(opened(ledger, may_make=may_make))
        except LedgerLocked as error:
            raise LedgerLocked(str(error), hint=_NAME_SERVICE) from None
        yield store


@contextlib.contextmanager
def open_unserved(ledger: Path | None, *, what: str, may_make: bool = False) -> Iterator[ConsentStore]:
    """The ledger, for what no service offers; raises `LedgerLocked` where a service would be passed by.

    A service that is named or answers has a ledger of its own, and nobody wants a list to land in another one. A
    shared database has room for both.
    """
    if ledger is None and not _is_shared() and (_is_named() or listens(address())):
        raise LedgerLocked(f"{what} needs the ledger to itself, and SyncShield is at {address()}", hint=_STOP_SERVICE)
    with contextlib.ExitStack() as stack:
        try:
            store = stack.enter_context(opened(ledger, may_make=may_make))
        except LedgerLocked as error:
            raise LedgerLocked(f"{what} needs the ledger to itself: {error}", hint=_STOP_SERVICE) from None
        yield store


def address() -> str:
    """Where the service is when no option says so."""
    from kiki.shield.client_settings import default_url

    return default_url()


def listens(url: str) -> bool:
    """False where a connection to the service is refused, or its host has no address; else True, even without an answer."""
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS):
            return True
    except (ConnectionRefusedError, socket.gaierror):
        return False
    except (OSError, ValueError):
        return True


def _settings() -> LedgerSettings:
    from kiki.settings import LedgerSettings

    return LedgerSettings.parse(os.environ)


def _is_shared() -> bool:
    return _settings().database_url is not None


def _is_named() -> bool:
    return bool(os.environ.get("KIKI_SHIELD_URL") or os.environ.get("SHIELD_URL"))
