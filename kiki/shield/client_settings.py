"""Where a client finds SyncShield and as whom it calls, from the environment and from files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from kiki.errors import SettingsError
from kiki.settings import checked_token, shield_url


def default_url(environ: Mapping[str, str] | None = None) -> str:
    """Where SyncShield is: `KIKI_SHIELD_URL`, else `SHIELD_URL`, else this machine."""
    return shield_url(os.environ if environ is None else environ)


def read_token(path: str | Path) -> str:
    """The bearer token in a file; raises `SettingsError`, which never shows what the file holds."""
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError([f"the token file {path} cannot be read: {why}"]) from None
    return checked_token(token, f"the token file {path}")


def default_token(environ: Mapping[str, str] | None = None) -> str | None:
    """The bearer token of `KIKI_SHIELD_TOKEN`, else of the file `KIKI_SHIELD_TOKEN_FILE`, else None."""
    environ = os.environ if environ is None else environ
    if environ.get("KIKI_SHIELD_TOKEN"):
        return checked_token(environ["KIKI_SHIELD_TOKEN"].strip(), "KIKI_SHIELD_TOKEN")
    path = environ.get("KIKI_SHIELD_TOKEN_FILE")
    return read_token(path) if path else None
