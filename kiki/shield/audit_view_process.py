"""The process that writes the audit view, as its service sees it: started, watched, and ended last."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import kiki
from kiki.ledger.source import Database

_RESTART_SECONDS = 1.0
_BLOCKED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class AuditViewProcess:
    """Keeps one `kiki.shield.audit_follower` running.

    It lives as long as the pipe to its standard input: when this process stops it, or is killed, it writes what is
    left in the ledger and ends. Its complaints are JSON lines on this process's standard error.
    """

    def __init__(
        self,
        source: str | Path | Database,
        csv_path: str | Path,
        *,
        bytes_max: int,
        retention_days: int,
        say: Callable[[str, str], None] | None = None,
    ) -> None:
        """Starts nothing yet. `say` is told (level, message) when the process had to be started again."""
        self._environ: dict[str, str] = {}
        if isinstance(source, Database):
            # A password is for the environment: everybody may read a command line.
            self._environ["DATABASE_URL"] = source.url.reveal()
            where = ("--replica", source.replica)
        else:
            where = ("--ledger", str(Path(source).absolute()))
        self._arguments = (
            *(*where, "--csv", str(Path(csv_path).absolute())),
            *("--bytes-max", str(bytes_max), "--retention-days", str(retention_days)),
        )
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._wanted = False

    @property
    def pid(self) -> int | None:
        """The id of the process, None before the first start."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, unless it runs."""
        self._wanted = True
        if self.is_running():
            return
        self._forget()
        root = str(Path(kiki.__file__).resolve().parents[1])
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
        # Blocked here, they are blocked in the child from its first instruction until it ignores them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "kiki.shield.audit_follower", *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **self._environ, "PYTHONPATH": path},
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._started = time.monotonic()

    def is_running(self) -> bool:
        """True while the process lives."""
        return self._process is not None and self._process.poll() is None

    def check(self) -> bool:
        """Whether it runs; one that died is started again, at most once a second. Does not wait."""
        if self.is_running():
            return True
        if self._wanted and time.monotonic() - self._started >= _RESTART_SECONDS:
            code = self._process.returncode if self._process else None
            if self._say is not None:
                self._say("warning", f"the audit view ended with status {code}: starting it again where its file ends")
            self.start()
        return False

    def stop(self, timeout: float = 10.0) -> bool:
        """End it after it has written all that is durable; True when the file is complete. Waits that long.

        Call it after the last decision. One that does not get ready is killed: the next start goes on from there.
        """
        if not self._wanted:
            return True
        end = time.monotonic() + timeout
        # One that died before it was ready, or is killed just now, is still needed for the rest: once more.
        for _ in range(2):
            self.start()
            self._wanted = False
            process = self._process
            assert process is not None
            assert process.stdin is not None
            process.stdin.close()
            try:
                code = process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return False
            if code >= 0:
                return code == 0
        return False

    def _forget(self) -> None:
        """Let go of the pipe to one that ended."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


def spawn_audit_view(
    source: str | Path | Database, csv_path: str | Path, *, bytes_max: int, retention_days: int
) -> AuditViewProcess:
    """A running audit view."""
    process = AuditViewProcess(source, csv_path, bytes_max=bytes_max, retention_days=retention_days)
    process.start()
    return process
