"""The secret that customers' ids are hashed with in a ledger of points, kept apart from it: a file beside the file.

Whoever has a copy of the ledger alone can try no ids against it. `loyalty.key` (mode 0600) is made with the ledger;
without it nobody in the ledger is found, so it belongs into the same backup plan, and into another backup.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from kiki.engage.database import Database
from kiki.errors import InvalidInput
from kiki.ledger.secret_file import write_secret_file

SECRET_BYTES: Final = 32
_HEX = re.compile(rf"[0-9a-f]{{{2 * SECRET_BYTES}}}", re.ASCII)


def secret_beside(store: Path, database: Database) -> bytes:
    """The secret of the ledger in that file; a new ledger gets one, and one that kept its own hands it over."""
    file = store.with_suffix(".key")
    kept = _kept_inside(database)
    if not file.exists():
        if kept.get("hash") and not kept.get("secret"):
            raise InvalidInput(
                f"{file} is missing, and without it nobody in {store} is found",
                hint="restore it from a backup; nothing was changed",
            )
        with suppress(FileExistsError):  # another process was first, and its secret counts
            write_secret_file(file, kept.get("secret") or secrets.token_hex(SECRET_BYTES))
    secret = _read(file)
    if kept.get("secret") == secret.hex():
        with database.writing() as tx:
            tx.run("DELETE FROM loyalty_meta WHERE name = 'secret'")
    return secret


def _kept_inside(database: Database) -> dict[str, str]:
    if not database.read("SELECT 1 FROM sqlite_master WHERE name = 'loyalty_meta'"):
        return {}
    return {str(name): str(value) for name, value in database.read("SELECT name, value FROM loyalty_meta")}


def _read(file: Path) -> bytes:
    try:
        with file.open(encoding="ascii") as source:
            mode = os.fstat(source.fileno()).st_mode & 0o777
            text = source.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read: {type(error).__name__}") from None
    if mode & 0o027:
        raise InvalidInput(f"{file} has mode {mode:04o}: others could read or change it", hint=f"chmod 600 {file}")
    if not _HEX.fullmatch(text):
        raise InvalidInput(f"{file} holds no secret: it is {2 * SECRET_BYTES} hexadecimal digits")
    return bytes.fromhex(text)
