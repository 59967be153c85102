"""The live view `shield_audit_gdpr.csv`: a row for each decision, behind the ledger.

The file is its own memory: after any crash the view goes on behind the event id of its last whole line, so no row
is missing and none comes twice. A full file is renamed `shield_audit_gdpr.<its last event id>.csv`; sorted by name
is sorted by time. Deleting the file builds it anew, behind the newest renamed one or from the ledger's start.

The view is for people. The ledger is the evidence. `audit_follower` is the process that writes it, outside the deciding one.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO

from kiki.clock import SECOND, wall_micros
from kiki.errors import LedgerLocked, LedgerUnavailable
from kiki.ledger.source import Database, open_reader
from kiki.ledger.store import Reader
from kiki.shield.evidence import chain_of, find_event, parse_event_id, read_in_chunks
from kiki.shield.evidence_csv import CSV_HEADER, csv_lines

BYTES_MAX = 100_000_000
RETENTION_DAYS = 2555

_HEADER = CSV_HEADER.encode()
_EVENT_ID = re.compile("[0-9a-f]{16}")
_CHUNK_BYTES = 256 * 1024
_BLOCK_BYTES = 64 * 1024

Say = Callable[[str, str], None]
"""Told (level, message) of what an operator should know."""


class AuditView:
    """Appends a row for each new decision to a CSV. One at a time for a file, under a lock."""

    def __init__(
        self,
        source: str | Path | Database,
        csv_path: str | Path,
        *,
        bytes_max: int = BYTES_MAX,
        retention_days: int = RETENTION_DAYS,
        say: Say | None = None,
    ) -> None:
        """Opens nothing yet. A file grows to at most `bytes_max` bytes (0: without bound)."""
        self.source = source if isinstance(source, Database) else Path(source)
        self.csv_path = Path(csv_path)
        self.bytes_max = bytes_max
        self.retention_days = retention_days
        self._say = say or _say_nothing
        self._lock: IO[bytes] | None = None
        self._reader: Reader | None = None
        self._chain = ""
        self._file: int | None = None
        self._identity = (0, 0)
        self._size = 0
        self._last_id = ""
        """The event id of the file's last row; empty while it has none."""
        self._seq = 0
        """The entry to read next."""
        self._skip = 0
        """How many of its rows are written already."""

    # -- following -----------------------------------------------------------------------------------

    def catch_up(self) -> int:
        """Append a row for each decision that is durable now and has none yet; how many.

        Raises `LedgerUnavailable` while there is no ledger, `LedgerLocked` while another view writes the file,
        OSError when it cannot be written. After an error the next call starts from what the file holds.
        """
        try:
            if self._lock is None:
                self._lock = self._own()
            reader = self._reader or self._open_reader()
            if self._file is not None and not self._is_untouched():
                self._say("warning", f"{self.csv_path} was changed by somebody else: going on behind its last row")
                self._close_file()
            if self._file is None:
                self._resume(reader)
            return self._append_new(reader)
        except BaseException:
            self._close_file()
            self._close_reader()
            raise

    def _append_new(self, reader: Reader) -> int:
        last = reader.next_seq() - 1
        chain, days, size_max = self._chain, self.retention_days, self.bytes_max or sys.maxsize
        count, size, skip = 0, self._size, self._skip
        has_rows = bool(self._last_id)
        waiting: list[bytes] = []
        waiting_size = 0
        for entry in read_in_chunks(reader, self._seq, last):
            lines = csv_lines(entry, chain, days)
            if skip:
                lines, skip = lines[skip:], 0
            for line in lines:
                data = line.encode()
                if has_rows and size + len(data) > size_max:
                    self._write(waiting)
                    self._start_new_file()
                    size, waiting_size = len(_HEADER), 0
                elif waiting_size >= _CHUNK_BYTES:
                    self._write(waiting)
                    waiting_size = 0
                waiting.append(data)
                waiting_size += len(data)
                size += len(data)
                has_rows = True
            count += len(lines)
        self._write(waiting)
        self._seq, self._skip = max(self._seq, last + 1), 0
        return count

    def _write(self, lines: list[bytes]) -> None:
        """Append whole lines with one write, and empty the list."""
        if not lines:
            return
        data = b"".join(lines)
        if self._file is None:
            self._file = self._open_file()
            data = _HEADER + data
        written = os.write(self._file, data)
        while written < len(data):
            # Only a full disk writes less than it was given: this says so, or goes on.
            written += os.write(self._file, data[written:])
        self._size += len(data)
        self._last_id = lines[-1].split(b",", 2)[1].decode()
        lines.clear()

    def _start_new_file(self) -> None:
        """Put a full file away under the id of its last row. The next write makes the new one."""
        assert self._file is not None
        # Its name will promise all of its rows.
        os.fsync(self._file)
        self._close_file()
        self.csv_path.rename(self.csv_path.with_name(f"{self.csv_path.stem}.{self._last_id}{self.csv_path.suffix}"))
        self._size, self._last_id = 0, ""

    # -- resuming ------------------------------------------------------------------------------------

    def _resume(self, reader: Reader) -> None:
        """Open the file and find out what comes next: behind its last whole row."""
        while True:
            self._file = self._open_file()
            self._size = os.fstat(self._file).st_size
            head = os.pread(self._file, len(_HEADER), 0)
            if head == _HEADER:
                row = self._cut_to_last_row(self._file)
                if row is None or self._is_row_of(reader, row):
                    break
                self._set_aside([self.csv_path], "its last row is not in this ledger")
            elif self._size == len(head) and _HEADER.startswith(head):
                os.ftruncate(self._file, 0)
                os.write(self._file, _HEADER)
                self._size, row = len(_HEADER), None
                break
            else:
                self._set_aside([self.csv_path], "its first line is not the header of the audit view")
            self._close_file()
        self._last_id = _fields(row)[1] if row else ""
        place = self._last_id or self._last_id_put_away(reader)
        self._seq, index = parse_event_id(place) if place else (0, -1)
        self._skip = index + 1

    def _cut_to_last_row(self, file: int) -> bytes | None:
        """Drop a torn last line; the last row, None when there is none."""
        row, end = _last_line(file, self._size)
        if end < self._size:
            os.ftruncate(file, end)
            self._size = end
        return row if end > len(_HEADER) else None

    def _last_id_put_away(self, reader: Reader) -> str:
        """The last event id of the newest file that was put away; empty when there is none."""
        name = re.compile(
            f"{re.escape(self.csv_path.stem)}\\.({_EVENT_ID.pattern}){re.escape(self.csv_path.suffix)}(\\..+)?"
        )
        found = sorted(
            (match[1], path) for path in self.csv_path.parent.iterdir() if (match := name.fullmatch(path.name))
        )
        if not found:
            return ""
        newest, path = found[-1]
        if path.suffix == self.csv_path.suffix:
            with path.open("rb") as file:
                row, _ = _last_line(file.fileno(), os.fstat(file.fileno()).st_size)
            belongs = row is not None and self._is_row_of(reader, row)
        else:
            # Compressed by somebody: its name must do.
            belongs = find_event(reader, newest) is not None
        if belongs:
            return newest
        self._set_aside([path for _, path in found], "the last row is not in this ledger")
        return ""

    def _is_row_of(self, reader: Reader, line: bytes) -> bool:
        """True when the ledger holds a decision with this id at this second."""
        try:
            moment, event_id = _fields(line)[:2]
            row = find_event(reader, event_id)
            return (
                row is not None
                and row.is_decision
                and row.at // SECOND == round(datetime.fromisoformat(moment).timestamp())
            )
        except ValueError:
            return False

    def _set_aside(self, paths: Sequence[Path], why: str) -> None:
        for path in paths:
            aside = path.with_name(f"{self.csv_path.stem}.foreign-{wall_micros()}-{path.name}")
            path.rename(aside)
            self._say("warning", f"{path} is not this ledger's audit view ({why}): it is now {aside.name}")

    # -- files ---------------------------------------------------------------------------------------

    def _own(self) -> IO[bytes]:
        path = self.csv_path.with_name(self.csv_path.name + ".lock")
        lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise LedgerLocked(f"another process writes the audit view {self.csv_path}") from error
        return lock

    def may_exist(self) -> bool:
        """False when the ledger is certainly not there (any more)."""
        return isinstance(self.source, Database) or self.source.exists()

    def _open_reader(self) -> Reader:
        reader = open_reader(self.source)
        try:
            self._chain = chain_of(reader)
            if not self._chain:
                raise LedgerUnavailable(f"the ledger {self.source} is still being made")
        except BaseException:
            reader.close()
            raise
        self._reader = reader
        return reader

    def _open_file(self) -> int:
        file = os.open(self.csv_path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        status = os.fstat(file)
        self._identity = (status.st_dev, status.st_ino)
        return file

    def _is_untouched(self) -> bool:
        try:
            status = self.csv_path.stat()
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity and status.st_size == self._size

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def close(self) -> None:
        """Let go of the files and of the lock."""
        self._close_file()
        self._close_reader()
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _say_nothing(_level: str, _message: str) -> None:
    pass


def _fields(line: bytes) -> list[str]:
    """Timestamp, event id and the rest: the first two are never quoted."""
    return [*line.decode("utf-8", "replace").split(",", 2), "", ""][:3]


def _last_line(file: int, size: int) -> tuple[bytes | None, int]:
    """The last line that ends with a line feed, without it, and where it ends; fields never hold a line feed."""
    tail, start = b"", size
    while start > 0:
        step = min(_BLOCK_BYTES, start)
        start -= step
        tail = os.pread(file, step, start) + tail
        end = tail.rfind(b"\n")
        before = tail.rfind(b"\n", 0, end) if end > 0 else -1
        if before >= 0 or (start == 0 and end >= 0):
            return tail[before + 1 : end], start + end + 1
    return None, 0
