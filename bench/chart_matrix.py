"""Nine Kubernetes minors x three clouds x three profiles: strict schemas, lint, the tests' rules, the same bytes twice.

    python -m bench.chart_matrix [--checkov PROGRAM]

With --checkov each render is also given to that program, whose skips stand in the chart with their reasons.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def main() -> int:
    """Measure all 81 cells; the exit code is 1 when one of them is not sound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkov", metavar="PROGRAM")
    options = parser.parse_args()
    started = time.perf_counter()
    engine, wrong, cells, checked, texts = Engine(), [], 0, 0, {}
    for environment in PROFILES:
        for cloud in CLOUDS:
            name, values = f"{environment}-{cloud}", json.loads(profile(environment, cloud))
            one, two = (
                documents(text for path, text in sorted(engine.texts(values).items()) if not path.endswith("NOTES.txt"))
                for _ in range(2)
            )
            if joined(one) != joined(two):
                wrong.append(f"{name}: a second render differs")
            texts[name], found = joined(one), objects(one)
            wrong += [f"{name}: {problem}" for problem in objections(found)]
            for minor in MINORS:
                report = engine.ask(lint=f"v{minor}.0", chart=str(CHART), values=values)
                wrong += [f"{name} on {minor}: {each['error']}" for each in report["messages"] if each["severity"] >= 2]
                wrong += [f"{name}: {problem}" for each in found for problem in invalid(each, minor)]
                cells, checked = cells + 1, checked + len(found)
    engine.close()
    print(f"{cells} cells, {checked} objects against strict schemas, {time.perf_counter() - started:.1f} s")
    if options.checkov:
        begun = time.perf_counter()
        passed, skipped, failed = checkov(options.checkov, texts)
        wrong += failed
        print(f"checkov: {passed} passed, {len(failed)} failed, {skipped} skipped, {time.perf_counter() - begun:.1f} s")
        reasons = sorted(set(re.findall(r"checkov\.io/skip\d+: (.*)", "".join(texts.values()))))
        print("skipped, with reasons:", *(f"  {reason}" for reason in reasons), sep="\n")
    print(*(wrong or [f"all sound, {time.perf_counter() - started:.1f} s together"]), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
