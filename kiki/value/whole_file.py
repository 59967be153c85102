"""A file that appears whole and on disk, or not at all; what was there before stays until then."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(path: str | Path, data: bytes) -> Path:
    """Put `data` into the file `path` in one step, with the rights that any new file gets; the path.

    Raises `OSError` as writing a file does; nothing is then left behind.
    """
    target = Path(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    unfinished = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        unfinished.chmod(0o666 & ~mask)  # a temporary file is for its owner only, the result is as any other file
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target
