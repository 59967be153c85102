"""Whatever alerts and dashboards ask for is there when the four services are scraped, in a bounded number of series."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from scripts.make_dashboards import DASHBOARDS, FOLDER, dashboard
from tests.deploy.test_alerts import RULES

ROOT = Path(__file__).parents[2]
SERIES_MAX = 1500
"""Of a service that has just begun: no label may be something that callers make up."""
ELSEWHERE = {"up"}
"""Made by Prometheus itself."""
_NAME = re.compile(r"\b(?:kiki|syncflow|syncengage|process|up)(?:_[a-z0-9_]+)?\b(?=[\s{\[()]|$)")


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Iterator[dict[str, str]]:
    """The /metrics of each service."""
    processes, found = {}, {}
    try:
        for name in ("shield", "value", "flow", "engage"):
            folder = tmp_path_factory.mktemp(name)
            environ = {key: value for key, value in os.environ.items() if not key.startswith(("KIKI_", "OTEL_"))}
            environ |= {
                "PYTHONPATH": str(ROOT),
                "PORT": "0",
                "KIKI_DATA_DIR": str(folder),
                "KIKI_REDIS": "off",
                "KIKI_VALUE_HTTP_PORT": "0",
                "KIKI_FLOW_GRPC_PORT": "0",
                "SHIELD_URL": "http://127.0.0.1:9/check",
            }
            command = [sys.executable, "-m", "kiki", "serve", name]
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, cwd=folder)
            processes[name] = folder, process
        for name, (folder, process) in processes.items():
            port = _port(folder / "log", process)
            for path in ("/health", "/nowhere"):
                _get(port, path)
            found[name] = _get(port, "/metrics")
        yield found
    finally:
        for _, process in processes.values():
            process.kill()
            process.wait()


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().split("\n")[:-1]:
            told = json.loads(line) if line.startswith("{") else {}
            if told.get("event") == "listening":
                return int(told["port"])
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def _get(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as reply:
            return reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def families(page: str) -> set[str]:
    """Every name that a query may ask for."""
    names: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)", page, re.MULTILINE):
        names |= {name} if kind != "histogram" else {f"{name}{end}" for end in ("_bucket", "_sum", "_count")}
    return names


def asked() -> dict[str, set[str]]:
    """The metrics of each alert and panel."""
    found = {}
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        found |= {rule["alert"]: set(_NAME.findall(rule["expr"])) for rule in group["rules"]}
    for title, rows in DASHBOARDS.values():
        for row in rows.values():
            for panel in row:
                found[f"{title}: {panel.title}"] = {
                    name for query in panel.queries.values() for name in _NAME.findall(query)
                }
    return found


# Only there when somebody exports to a collector, or has an archive.
CONDITIONAL = {"kiki_telemetry_dropped_total", "kiki_shield_archive_lag_seconds"}


def test_every_metric_that_is_asked_for_is_scraped(pages):
    there = set().union(*map(families, pages.values())) | ELSEWHERE | CONDITIONAL
    missing = {where: names - there for where, names in asked().items() if names - there}
    assert {} == missing
    assert all(asked().values())


def test_a_service_has_a_bounded_number_of_series(pages):
    for name, page in pages.items():
        series = [line for line in page.splitlines() if line and not line.startswith("#")]
        assert 0 < len(series) < SERIES_MAX, name
        assert "customer" not in "".join(re.findall(r"\{[^}]*\}", page)), name


def test_dashboards_are_those_of_the_tables():
    assert {f"{name}.json" for name in DASHBOARDS} == {file.name for file in FOLDER.glob("*.json")}
    for name in DASHBOARDS:
        assert dashboard(name) == (FOLDER / f"{name}.json").read_text(), "run python -m scripts.make_dashboards"
