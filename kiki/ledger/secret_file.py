"""A file that is made once and holds a secret: whole and durable, or not there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_secret_file(path: Path, text: str) -> None:
    """Make the file, mode 0600, with one line; raises FileExistsError where there is one already."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # It gets its name when all of it is durable: a crash leaves no half of a secret, and another start none of two.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
        os.link(file.name, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the name, too, must survive what depends on the secret
    finally:
        os.close(directory)
