"""How fast, and in how much memory, decisions become rows: the export in both formats, and the live view.

python bench/audit_export.py [rows, default 10000000] [directory]: writes ledgers of its own there. Each measurement runs
in a fresh process, so that its peak memory is its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kiki.ledger.ledger import Ledger
from kiki.ledger.sqlite import SqliteReader, SqliteStore
from kiki.shield.audit_view import AuditView
from kiki.shield.evidence import export
from kiki.shield.fact import Decided, Refused

START = 1_795_341_600_000_000
SINGLE, BATCH = 1, 500


def write_ledger(path: Path, rows: int, size: int) -> None:
    """Spends of a platform, every other one of a customer, one in ten refused; no two amounts alike."""
    ledger = Ledger(SqliteStore(path))
    for index in range(rows // size):
        at = START + index * 500
        customer = [f"customer:{index:032x}"] if index % 2 else []
        refused = [Refused(0, "budget_exhausted", "default", "*", 60_000_000, 500_000_000)] if index % 10 == 0 else []
        amounts = [1_000_000 + (index * size + place) * 10_000 for place in range(size)]
        ledger.append(Decided("spend", at, "", index, [[*customer, "platform:meta"]], amounts, refused, actor="bench"))
        if index % 1000 == 999:
            ledger.flush()
    ledger.close()


def measure(what: str, path: Path) -> None:
    before = time.perf_counter()
    if what == "view":
        view = AuditView(path, path.with_name("shield_audit_gdpr.csv"))
        count = view.catch_up()
        view.close()
    else:
        with Path("/dev/null").open("w", encoding="utf-8") as sink:
            count = export(SqliteReader(path), sink.write, format=what)
    seconds = time.perf_counter() - before
    # Not ru_maxrss: that remembers the process that started this one.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 1024
    print(f"{what:>6} {count:>12,} rows {count / seconds:>12,.0f} rows/s   peak {peak:.0f} MB", flush=True)


def main() -> None:
    if len(sys.argv) == 4:
        measure(sys.argv[2], Path(sys.argv[3]))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as directory:
        for size, name in ((BATCH, "batches of 500"), (SINGLE, "single decisions")):
            path = Path(directory) / f"ledger-{size}.db"
            count = rows if size == BATCH else rows // 10
            write_ledger(path, count, size)
            print(f"{name}:")
            for what in ("csv", "jsonl", "view"):
                subprocess.run([sys.executable, __file__, "-", what, str(path)], check=True)
            for each in Path(directory).iterdir():
                each.unlink()


if __name__ == "__main__":
    main()
