"""The folder that the services write to: made so that nobody else can look into it, or the reason why it cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

from kiki.errors import ConfigurationError


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


def unwritable(folder: Path, why: str) -> str:
    """What to say about a folder that cannot be used."""
    return f"{folder} cannot be written to: {why}; name another with KIKI_DATA_DIR or --data-dir"
