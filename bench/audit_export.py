"""How fast, and in how much memory, decisions become rows: the export in both formats, and the live view.

Each measurement runs in a fresh process, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import Row, shown
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
    """Print count, seconds and peak memory of one export or view, for the process that started this one."""
    before = time.perf_counter()
    if what == "view":
        view = AuditView(path, path.with_name("shield_audit_gdpr.csv"), bytes_max=2**40, retention_days=2555)
        count = view.catch_up()
        view.close()
    else:
        with Path("/dev/null").open("w", encoding="utf-8") as sink:
            count = export(SqliteReader(path), sink.write, format=what)  # type: ignore[arg-type]  # csv or jsonl
    seconds = time.perf_counter() - before
    # Not ru_maxrss: that remembers the process that started this one.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps([count, seconds, int(status["VmHWM"].split()[0]) / 1024]))


def run() -> list[Row]:
    """All rows of this part."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for size, count, name in ((BATCH, 10_000_000, "batches of 500"), (SINGLE, 1_000_000, "single decisions")):
            path = Path(directory) / f"ledger-{size}.db"
            write_ledger(path, count, size)
            for what in ("csv", "jsonl", "view"):
                code = "import sys; from pathlib import Path; from bench.audit_export import measure; "
                code += "measure(sys.argv[1], Path(sys.argv[2]))"
                done = subprocess.run(
                    [sys.executable, "-c", code, what, str(path)], check=True, capture_output=True, text=True
                )
                found, seconds, peak = json.loads(done.stdout)
                label = {"csv": "export as CSV", "jsonl": "export as JSON lines", "view": "live view"}[what]
                rows.append(
                    Row(
                        f"{label}, {found:,} rows from {name}: {shown(found / seconds)}, peak memory",
                        f"{peak:.0f} MB",
                        "< 200 MB",
                        peak < 200,
                    )
                )
            for each in Path(directory).iterdir():
                each.unlink()
    return rows
