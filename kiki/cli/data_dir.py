"""The folder that the services write to: made so that nobody else can look into it, or the reason why it cannot be used."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from kiki.errors import ConfigurationError, LedgerLocked

_LOCK: Final = "kiki-up.lock"
_POLL_SECONDS: Final = 0.1


def make_data_dir(folder: Path) -> None:
    """Make it, and what is missing above it; raises `ConfigurationError` when it cannot be written to.

    Folder by folder: `mkdir` with parents would leave those open to everybody.
    """
    try:
        for each in (*reversed(folder.parents), folder):
            if not each.is_dir():
                each.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError as error:
        raise ConfigurationError([unwritable(folder, f"{error.filename} is no directory")]) from error
    except OSError as error:
        raise ConfigurationError([unwritable(folder, error.strerror or str(error))]) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError([unwritable(folder, "nothing can be made in it")])


@contextmanager
def held(folder: Path, say: Callable[[str], None], patience: float) -> Iterator[int]:
    """The folder for one supervisor alone, and the descriptor that holds it: who keeps that open holds it, too.

    Raises `LedgerLocked` when another has it. One that is gone is waited for, at most `patience` seconds: its services
    still end.
    """
    try:
        lock = os.fdopen(os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0)
    except OSError as error:
        raise ConfigurationError([unwritable(folder, error.strerror or str(error))]) from error
    with lock:
        until, waited = time.monotonic() + patience, False
        while not _taken(lock):
            owner = os.pread(lock.fileno(), 64, 0).decode("ascii", "replace").strip()
            gone = owner.isdecimal() and not _runs(int(owner))
            if not gone or time.monotonic() >= until:
                raise LedgerLocked(
                    f"another kiki up or kiki serve all (pid {owner or 'unknown'}) keeps its books in {folder}"
                    + (" and is gone, but not all of its services" if gone else ""),
                    hint="stop it, or name another folder with KIKI_DATA_DIR or --data-dir",
                )
            if not waited:
                say(f"waiting for the services of another kiki up (pid {owner}), which is gone, to end")
            waited = True
            time.sleep(_POLL_SECONDS)
        lock.truncate(0)
        os.pwrite(lock.fileno(), f"{os.getpid()}\n".encode(), 0)
        yield lock.fileno()


def _taken(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def unwritable(folder: Path, why: str) -> str:
    """What to say about a folder that cannot be used."""
    return f"{folder} cannot be written to: {why}; name another with KIKI_DATA_DIR or --data-dir"
