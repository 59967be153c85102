"""Nine Kubernetes minors x three clouds x three profiles: strict schemas, lint, the tests' rules, the same bytes twice.

Where CHECKOV names that program (scripts/check_chart.sh makes an environment for it), each render is given to it as well;
what it shall skip stands in the chart, with the reasons.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import Row
from kiki.chart.manifest import documents, joined, objects
from tests.deploy.renders import CHART, CLOUDS, PROFILES, Engine, profile
from tests.deploy.rules import invalid, objections

MINORS = [f"1.{minor}" for minor in range(29, 38)]


def checkov(program: str, texts: dict[str, str]) -> tuple[int, int, list[str]]:
    """How many checks passed, how many were skipped, and what failed, over all renders at once."""
    with tempfile.TemporaryDirectory(prefix="kiki-checkov-") as directory:
        for name, text in texts.items():
            (Path(directory) / f"{name}.yaml").write_text(text, encoding="utf-8")
        command = [program, "-d", directory, "--framework", "kubernetes", "--skip-download", "-o", "json", "--compact"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    report = json.loads(done.stdout)
    report = report[0] if isinstance(report, list) else report
    failed = [f"{one['file_path']}: {one['check_id']} {one['resource']}" for one in report["results"]["failed_checks"]]
    return report["summary"]["passed"], report["summary"]["skipped"], failed


class Matrix:
    """All 81 cells, judged; `wrong` holds a sentence for whatever is not sound."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.texts: dict[str, str] = {}
        self.cells = self.checked = self.same = 0
        started = time.perf_counter()
        engine = Engine()
        for environment in PROFILES:
            for cloud in CLOUDS:
                self._judge(engine, f"{environment}-{cloud}", json.loads(profile(environment, cloud)))
        engine.close()
        self.seconds = time.perf_counter() - started

    def _judge(self, engine: Engine, name: str, values: dict) -> None:
        one, two = (
            documents(text for path, text in sorted(engine.texts(values).items()) if not path.endswith("NOTES.txt"))
            for _ in range(2)
        )
        if joined(one) == joined(two):
            self.same += 1
        else:
            self.wrong.append(f"{name}: a second render differs")
        self.texts[name], found = joined(one), objects(one)
        self.wrong += [f"{name}: {problem}" for problem in objections(found)]
        for minor in MINORS:
            report = engine.ask(lint=f"v{minor}.0", chart=str(CHART), values=values)
            self.wrong += [f"{name}, {minor}: {one['error']}" for one in report["messages"] if one["severity"] >= 2]
            self.wrong += [f"{name}: {problem}" for each in found for problem in invalid(each, minor)]
            self.cells, self.checked = self.cells + 1, self.checked + len(found)


def run() -> list[Row]:
    """All rows of this part."""
    matrix, seconds = Matrix(), 0.0
    rows = [
        Row(
            "cells: Kubernetes 1.29 to 1.37, three clouds, three profiles", str(matrix.cells), "81", matrix.cells == 81
        ),
        Row("objects against the strict schema of their minor, lint, our own rules", str(matrix.checked)),
        Row("renders that are the same bytes twice", f"{matrix.same} of 9", "all", matrix.same == 9),
        Row("of all of these, not sound", str(len(matrix.wrong)), "0", not matrix.wrong),
    ]
    program = os.environ.get("CHECKOV") or shutil.which("checkov")
    if program:
        started = time.perf_counter()
        passed, skipped, failed = checkov(program, matrix.texts)
        seconds = time.perf_counter() - started
        rows.append(
            Row(
                "checkov: passed / skipped with a reason / failed",
                f"{passed} / {skipped} / {len(failed)}",
                "0 failed",
                not failed,
            )
        )
        matrix.wrong += failed
    total = matrix.seconds + seconds
    rows.append(Row(f"the whole matrix{', checkov too' if program else ''}", f"{total:.1f} s", "< 60 s", total < 60))
    for problem in matrix.wrong:
        print(problem)
    reasons = sorted(set(re.findall(r"checkov\.io/skip\d+: (.*)", "".join(matrix.texts.values()))))
    return [
        *rows,
        *(Row(f"skipped: {code}", why) for code, _, why in (reason.partition("=") for reason in reasons) if program),
    ]


if __name__ == "__main__":
    found = run()
    print(*(" | ".join(row.cells()) for row in found), sep="\n")
    sys.exit(any(row.met is False for row in found))
