"""`syncengage_audit.csv`: what /trigger answered, one line each, on disk before the answer.

It names customers, as the original's did; who is erased is no longer named in it.
"""

from __future__ import annotations

import csv
import io
import os
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from kiki.engage.trigger import COLUMNS, Answer, audit_row
from kiki.errors import StoreUnavailable
from kiki.shield.consent_csv import unguarded

ERASED: Final = "erased"
"""What stands in the place of a customer who was erased."""
_CUSTOMER: Final = COLUMNS.index("customer_id")


class TriggerAudit:
    """Appends to the file; makes it with its header. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = threading.Lock()

    def write(self, answer: Answer) -> None:
        """Add a line; raises `StoreUnavailable`: then nothing may be answered."""
        with self._turn:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                number = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
                with os.fdopen(number, "ab") as file:
                    text = io.StringIO()
                    writer = csv.writer(text, lineterminator="\n")
                    if file.tell() == 0:
                        writer.writerow(COLUMNS)
                    writer.writerow(audit_row(answer, datetime.now().astimezone()))
                    file.write(text.getvalue().encode())
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise StoreUnavailable(f"{self._path} cannot be written: {error.strerror}") from error

    def lines_about(self, customer: str) -> list[str]:
        """The lines that name a customer."""
        with self._turn:
            return [_line(row) for row in self._rows() if unguarded(row[_CUSTOMER]) == customer]

    def forget(self, customer: str) -> int:
        """Take a customer's name out of the file, whose other words stay; how many lines had it."""
        with self._turn:
            if not any(unguarded(row[_CUSTOMER]) == customer for row in self._rows()):
                return 0
            count, draft = 0, self._path.with_name(f".{self._path.name}.{os.getpid()}")
            try:
                number = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                with os.fdopen(number, "w", encoding="utf-8", newline="") as file:
                    for row in self._rows():
                        is_theirs = unguarded(row[_CUSTOMER]) == customer
                        count += is_theirs
                        file.write(_line([*row[:_CUSTOMER], ERASED, *row[_CUSTOMER + 1 :]] if is_theirs else row))
                    file.flush()
                    os.fsync(file.fileno())
                draft.chmod(self._path.stat().st_mode & 0o777)
                draft.replace(self._path)
                number = os.open(self._path.parent, os.O_RDONLY)
                try:
                    os.fsync(number)
                finally:
                    os.close(number)
            except OSError as error:
                raise StoreUnavailable(f"{self._path} cannot be written: {error.strerror}") from error
            finally:
                draft.unlink(missing_ok=True)
            return count

    def _rows(self) -> Iterator[list[str]]:
        try:
            with self._path.open(encoding="utf-8", newline="") as file:
                yield from (row for row in csv.reader(file) if len(row) > _CUSTOMER)
        except FileNotFoundError:
            return


def _line(row: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()
