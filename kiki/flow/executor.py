"""Who a runner is: an executor id that only one living process can hold.

A runner that starts again under its own id goes on with its runs at once. So the id must be stable (the ordinal of a pod,
the instance of a unit) and must never be held by two: beside a SQLite store a locked file sees to that, in PostgreSQL an
advisory lock of a session of its own. Both end with the process, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from kiki.errors import InvalidInput, RunTaken

EXECUTOR_ACCEPTED: Final = "write 1 to 64 of a-z, A-Z, 0-9, _ . and -, such as syncflow-0"
_EXECUTOR: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def claim(engine: sa.Engine, executor: str) -> Callable[[], None]:
    """Hold an executor id until the function that comes back is called; raises `RunTaken` when a process has it."""
    if not _EXECUTOR.fullmatch(executor):
        raise InvalidInput(f"{executor[:80]!r} is no executor id", hint=EXECUTOR_ACCEPTED)
    if engine.dialect.name == "sqlite":
        return _claim_file(Path(str(engine.url.database)), executor)
    return _claim_session(engine, executor)


def _taken(executor: str) -> RunTaken:
    return RunTaken(
        f"another process runs as executor {executor!r}",
        hint="give each runner its own KIKI_FLOW_EXECUTOR, and keep it the same across restarts",
    )


def _claim_file(store: Path, executor: str) -> Callable[[], None]:
    descriptor = os.open(store.with_name(f"{store.name}.{executor}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise _taken(executor) from None
    return lambda: os.close(descriptor)


def _claim_session(engine: sa.Engine, executor: str) -> Callable[[], None]:
    number = int.from_bytes(blake2b(f"kiki.flow {executor}".encode(), digest_size=8).digest(), "big", signed=True)
    connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    if not connection.execute(sa.text("SELECT pg_try_advisory_lock(:number)"), {"number": number}).scalar_one():
        connection.close()
        raise _taken(executor)

    def let_go() -> None:
        # Whoever asks next may have it: the server notices the end of a session only some time after it was closed.
        with suppress(sa.exc.DBAPIError):  # a session that is lost has no lock
            connection.execute(sa.text("SELECT pg_advisory_unlock(:number)"), {"number": number})
        # Not given back to the pool: a session in which the unlocking went wrong would keep the lock.
        if not connection.invalidated:
            connection.detach()
        connection.close()

    return let_go
