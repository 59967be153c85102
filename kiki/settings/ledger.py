"""Where a ledger lies and what opens it, as settings."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from kiki.errors import SettingsError
from kiki.settings.ledger_table import ARCHIVE_VARIABLES, DATABASE_VARIABLES, KEY_VARIABLES
from kiki.settings.secret import Secret
from kiki.settings.shield_table import SHIELD_VARIABLES
from kiki.settings.variable import read_variables


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """Where the ledger lies and what opens it: what `kiki.cli.wiring` needs to open it, to read it or to move it."""

    data_dir: Path
    master_key_file: Path | None
    master_key: Secret | None
    master_key_command: str | None
    database_url: Secret | None
    """None: SQLite files in `data_dir`."""
    replica: str
    archive: str | None
    segment_seconds: float
    segment_entries: int
    witness_url: str | None
    witness_key: str | None
    tsa_url: str | None
    tsa_roots_file: Path | None

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> Self:
        """The settings of the ledger alone; raises `SettingsError` with every mistake."""
        problems: list[str] = []
        settings = read_ledger(environ, problems)
        if problems or settings is None:
            raise SettingsError(problems)
        return cls(**settings)


def read_ledger(environ: Mapping[str, str], problems: list[str]) -> dict[str, Any] | None:
    """The fields of `LedgerSettings`; None when `problems` grew."""
    before = len(problems)
    data_dir = next(variable for variable in SHIELD_VARIABLES if variable.field == "data_dir")
    values = read_variables(environ, (data_dir, *KEY_VARIABLES, *DATABASE_VARIABLES, *ARCHIVE_VARIABLES), problems)
    given = [
        name for name in ("KIKI_MASTER_KEY_FILE", "KIKI_MASTER_KEY", "KIKI_MASTER_KEY_COMMAND") if environ.get(name)
    ]
    if len(given) > 1:
        problems.append(f"{' and '.join(given)}: the master key comes from one place; set one of them")
    host, port, name, user = (values.pop(field, None) for field in ("db_host", "db_port", "db_name", "db_user"))
    passwords = [values.pop(field, None) for field in ("db_password", "postgres_password")]
    if values.get("witness_url") and not values.get("witness_key"):
        problems.append("KIKI_WITNESS_URL: KIKI_WITNESS_KEY must hold the witness's verifier key, name+id+key")
    if all(passwords) and passwords[0] != passwords[1]:
        problems.append("DB_PASSWORD and POSTGRES_PASSWORD differ; set one of them")
    if len(problems) > before:
        return None
    if values["database_url"] is None and host is not None:
        values["database_url"] = _database_url(host, port, name, user, passwords[0] or passwords[1])
    values["replica"] = values["replica"] or socket.gethostname()
    return values


def _database_url(host: str, port: int, name: str, user: str, password: Secret | None) -> Secret:
    shown = f"[{host}]" if ":" in host else host
    secret = f":{quote(password.reveal(), safe='')}" if password else ""
    return Secret(f"postgresql://{quote(user, safe='')}{secret}@{shown}:{port}/{quote(name, safe='')}")
