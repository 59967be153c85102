"""The process that keeps the audit view up to date until it is told that nothing more comes; `audit_view_process` starts it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from kiki.clock import to_iso, wall_micros
from kiki.errors import KikiError, LedgerLocked, LedgerUnavailable
from kiki.ledger.source import Database
from kiki.settings import Secret
from kiki.shield.audit_view import BYTES_MAX, RETENTION_DAYS, AuditView, Say

_POLL_SECONDS = 0.2
_BUSY_ROWS = 10_000
_REPORT_SECONDS = 10.0
_FINISH_SECONDS = 5.0
_IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def follow(view: AuditView, until_closed: int, say: Say) -> bool:
    """Keep the view up to date until the file descriptor ends, then write what is left; False when that fails.

    Errors are told and tried again: a full disk may get room.
    """
    troubles = _Troubles(say)
    pause = 0.0
    while not _ends(until_closed, pause):
        # Small bites cost the deciding process more than they help: a pause, unless much is left to do.
        rows = troubles.trying(view)
        pause = 0.0 if rows is not None and rows >= _BUSY_ROWS else _POLL_SECONDS
    give_up = time.monotonic() + _FINISH_SECONDS
    while troubles.trying(view) is None and view.may_exist():
        if time.monotonic() > give_up:
            say("error", f"{view.csv_path} is not complete; the next start goes on where it ends")
            return False
        time.sleep(_POLL_SECONDS)
    return True


class _Troubles:
    """Says an error once, and again while it lasts."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._since: float | None = None
        self._said: dict[str, float] = {}

    def trying(self, view: AuditView) -> int | None:
        """The rows that were appended, None when it failed."""
        try:
            count = view.catch_up()
        except (KikiError, OSError) as error:
            self._tell(error, view)
            return None
        if self._said:
            self._say("info", f"{view.csv_path} is being written again")
        self._since = None
        self._said.clear()
        return count

    def _tell(self, error: Exception, view: AuditView) -> None:
        if not view.may_exist():
            return
        now, text = time.monotonic(), f"the audit view cannot be written: {error}"
        self._since = self._since or now
        # A ledger being made, and an older view that is about to end, pass by themselves.
        passing = isinstance(error, LedgerUnavailable | LedgerLocked) and now - self._since < 1
        if not passing and now - self._said.get(text, -_REPORT_SECONDS) >= _REPORT_SECONDS:
            if len(self._said) > 100:
                self._said.clear()
            self._said[text] = now
            self._say("error", text)


def _ends(file: int, seconds: float) -> bool:
    """Wait; True as soon as the other end is closed."""
    readable, _, _ = select.select([file], [], [], seconds)
    return bool(readable) and not os.read(file, 1024)


def _log(level: str, message: str) -> None:
    line = {
        "timestamp": to_iso(wall_micros()),
        "level": level,
        "logger": "kiki.shield.audit_follower",
        "message": message,
    }
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(json.dumps(line) + "\n")
        sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m kiki.shield.audit_follower`: follow until standard input ends. 0: the file is complete."""
    # A Ctrl-C or a signal to the whole group is the service's; the view ends when the service is done.
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED_SIGNALS)
    parser = argparse.ArgumentParser(prog="kiki.shield.audit_follower", description="Write the audit view of a ledger.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--ledger", type=Path)
    where.add_argument("--replica", help="the chain of this replica in the database that DATABASE_URL names")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--bytes-max", type=int, default=BYTES_MAX)
    parser.add_argument("--retention-days", type=int, default=RETENTION_DAYS)
    given = parser.parse_args(arguments)
    with contextlib.suppress(OSError):
        os.nice(5)
    source = given.ledger or Database(Secret(os.environ["DATABASE_URL"]), given.replica)
    view = AuditView(source, given.csv, bytes_max=given.bytes_max, retention_days=given.retention_days, say=_log)
    try:
        return 0 if follow(view, sys.stdin.fileno(), _log) else 1
    except Exception as error:
        _log("error", f"the audit view stopped: {type(error).__name__}: {error}")
        return 1
    finally:
        view.close()


if __name__ == "__main__":
    sys.exit(main())
