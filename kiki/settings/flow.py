"""What SyncFlow is told from outside."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from kiki.errors import SettingsError
from kiki.settings.flow_table import FLOW_VARIABLES
from kiki.settings.ledger import read_ledger
from kiki.settings.names import unknown_names
from kiki.settings.secret import Secret
from kiki.settings.shield_table import SHIELD_VARIABLES
from kiki.settings.variable import read_variables


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """What SyncFlow and `kiki campaign` are told from outside, without the HTTP port."""

    data_dir: Path
    database_url: Secret | None
    """None: a SQLite file in `data_dir`."""
    executor: str
    grpc_port: int
    lease_seconds: float
    grace_seconds: float
    sandbox_url: str | None
    sandbox_day_seconds: float
    log_level: str

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> Self:
        """The settings in this environment; raises `SettingsError` with every mistake that it holds."""
        problems = unknown_names(environ)
        shared = [variable for variable in SHIELD_VARIABLES if variable.field in {"data_dir", "log_level"}]
        values = read_variables(environ, (*FLOW_VARIABLES, *shared), problems)
        ledger = read_ledger(environ, problems)
        if problems or ledger is None:
            raise SettingsError(dict.fromkeys(problems))
        values["executor"] = (
            values["executor"] or re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:64] or "runner"
        )
        return cls(database_url=ledger["database_url"], **values)

    @property
    def store(self) -> str:
        """Where the runs are kept."""
        return str(self.data_dir / "flow.db") if self.database_url is None else self.database_url.reveal()
