"""How long a person waits for the command line."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from bench.measure import Row


def _wall(arguments: list[str]) -> float:
    times = []
    for _ in range(9):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def run() -> list[Row]:
    """All rows of this part."""
    shown, bare = _wall(["-m", "kiki", "--help"]), _wall(["-c", "pass"])
    imported = _wall(["-c", "import kiki"])
    return [
        Row("python that does nothing (median of 9)", f"{bare:.3f} s"),
        Row("import kiki (median of 9)", f"{imported:.3f} s"),
        Row("kiki --help (median of 9)", f"{shown:.3f} s", "< 0.25 s", shown < 0.25),
    ]
