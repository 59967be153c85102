"""`python -m bench [part …]`: measure, and print a table in Markdown (`--write` puts it into the page of docs that has its place)."""

from __future__ import annotations

import importlib
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench.measure import Row

PARTS = (
    "decide",
    "durable",
    "http",
    "telemetry",
    "redis",
    "postgres",
    "audit_export",
    "evidence",
    "never_over",
    "killing",
    "deletion",
    "start",
    "value_fit",
    "value_predict",
    "value_rfm",
    "value_accuracy",
    "value_peers",
    "value_serve",
    "flow_engine",
    "flow_fleet",
    "flow_kills",
    "flow_pacing",
    "engage_decide",
    "engage_kills",
    "engage_optouts",
    "engage_allocation",
    "engage_peeking",
    "engage_policy",
    "engage_loyalty",
    "engage_verifiers",
    "chart_matrix",
    "chart_mutants",
    "engage_sync",
    "image",
)
PAGES = tuple(Path(__file__).parents[1] / "docs" / name for name in ("benchmarks.md", "value.md"))


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    cores = subprocess.run(["nproc"], capture_output=True, text=True, check=False).stdout.strip()
    return f"{model}, {cores} cores, Linux {platform.release()}, Python {platform.python_version()}"


def _table(rows: list[Row]) -> str:
    lines = ["| what | measured | goal | met |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(row.cells())} |" for row in rows])


def main(arguments: list[str]) -> int:
    """Measure the parts that were asked for, all by default."""
    write = "--write" in arguments
    wanted = [name for name in arguments if name != "--write"] or list(PARTS)
    failed = False
    for name in wanted:
        rows = importlib.import_module(f"bench.{name}").run()
        table = _table(rows)
        failed |= any(row.met is False for row in rows)
        print(f"## {name}\n\n{table}\n", flush=True)
        if write:
            stamp = f"Measured {datetime.now(UTC):%Y-%m-%d} on {_machine()}."
            block = f"<!-- {name} -->\n{stamp}\n\n{table}\n<!-- /{name} -->"
            for page in PAGES:
                text = page.read_text()
                place = rf"<!-- {name} -->.*?<!-- /{name} -->"
                page.write_text(re.sub(place, lambda _, block=block: block, text, flags=re.DOTALL))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
