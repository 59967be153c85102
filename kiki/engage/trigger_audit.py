"""`syncengage_audit.csv`: what /trigger answered, one line each, on disk before the answer."""

from __future__ import annotations

import csv
import io
import os
import threading
from datetime import datetime
from pathlib import Path

from kiki.engage.trigger import COLUMNS, Answer, audit_row
from kiki.errors import StoreUnavailable


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
