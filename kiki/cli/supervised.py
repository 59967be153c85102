"""A command of kiki as the child of another: it ends in order as soon as its parent is gone, however that went.

Its standard input is a pipe that only the parent can write to. The kernel closes that with the parent, also when nobody
could say anything more (`kill -9`, a terminal that is closed, no memory), on every system; signals of a parent's death
are Linux's alone, and go by the thread that started the child.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO


def begin(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    output: IO[bytes] | int | None = None,
    keeps: int | None = None,
) -> subprocess.Popen[bytes]:
    """`kiki ARGUMENTS` in a process; it writes where we do, unless `output` says where, and keeps the descriptor `keeps` open."""
    return subprocess.Popen(
        [sys.executable, "-m", "kiki.cli.supervised", *arguments],
        env=dict(environ),
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,
        pass_fds=() if keeps is None else (keeps,),
    )


def let_go(process: subprocess.Popen[bytes]) -> None:
    """Close what is left of one that has ended."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True, name="end with parent").start()
    from kiki.cli.main import main

    main()
