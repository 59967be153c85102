"""A file that a caller asked for: it was not there before, nobody else may read it, and it is there only when it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kiki.errors import KikiError


@contextmanager
def new_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open it for writing; raises `KikiError` where there is one already or none can be made."""
    try:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w+b") as file:
            try:
                yield file
            except BaseException:
                Path(path).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise KikiError(f"{path} cannot be written: {error.strerror or error}") from error
