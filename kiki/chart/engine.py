"""Renders the chart: with the `helm` on PATH, else with the engine of the extra `helm`.

Either runs in a process of its own: the second brings a Go runtime, which must not live in a process that forks.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from kiki.chart.manifest import Document, documents, joined
from kiki.chart.place import chart_directory
from kiki.errors import ChartError, MissingExtra

RELEASE: Final = "kiki"
NAMESPACE: Final = "kiki"
SECONDS: Final = 60

_SCRIPT: Final = """
import json, sys
from helm_python import Chart, HelmError
asked = json.load(sys.stdin)
try:
    texts = Chart.load(asked["chart"]).render(asked["values"], name=asked["name"], namespace=asked["namespace"])
except HelmError as error:
    sys.exit(str(error))
json.dump([text for path, text in sorted(texts.items()) if not path.endswith("NOTES.txt")], sys.stdout)
"""


def render_documents(values: dict[str, Any], *, namespace: str = NAMESPACE) -> list[Document]:
    """The objects that these values give, in order; raises `MissingExtra` without an engine, `ChartError` when it refuses."""
    helm = shutil.which("helm")
    if helm is not None:
        return documents([_with_program(helm, values, namespace)])
    if importlib.util.find_spec("helm_python") is None:
        raise MissingExtra("helm", "without a `helm` program on PATH, rendering the chart")
    asked = {"chart": str(chart_directory()), "values": values, "name": RELEASE, "namespace": namespace}
    return documents(json.loads(_output([sys.executable, "-c", _SCRIPT], json.dumps(asked))))


def render(values: dict[str, Any], *, namespace: str = NAMESPACE) -> str:
    """The same as one YAML text."""
    return joined(render_documents(values, namespace=namespace))


def _with_program(helm: str, values: dict[str, Any], namespace: str) -> str:
    with tempfile.TemporaryDirectory(prefix="kiki-helm-") as directory:
        path = Path(directory) / "values.json"
        path.write_text(json.dumps(values), encoding="utf-8")
        return _output([helm, "template", RELEASE, str(chart_directory()), "--namespace", namespace, "-f", str(path)])


def _output(command: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, check=False, timeout=SECONDS, text=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ChartError(f"{command[0]} did not answer: {error}") from error
    if done.returncode:
        raise ChartError(f"the chart cannot be rendered: {done.stderr.strip()[-4000:]}")
    return done.stdout
