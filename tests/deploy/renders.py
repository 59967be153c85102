"""Renders for the tests of the chart: each set of values once, by an engine that lives in a process of its own."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from kiki.chart.layers import read_layers, with_defaults
from kiki.chart.manifest import documents, objects
from kiki.chart.set_expression import parse_set
from kiki.chart.values import coalesce, overlay

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "kiki"
GUIDE_VALUES = """
global:
  imageRegistry: "ghcr.io/your-org/kiki"
  domain:
    shield: shield.kiki.io
    engage: engage.kiki.io

redis:
  address: "kiki-prod-redis.xxxxx.ng.0001.use1.cache.amazonaws.com:6379"

externalSecrets:
  enabled: true
  provider: aws
  region: us-east-1
"""
GUIDE_OVERRIDES = """
# Production resource allocation
syncshield:
  replicaCount: 3
  resources:
    requests:
      cpu: 250m
      memory: 512Mi
    limits:
      cpu: 1000m
      memory: 1Gi
  autoscaling:
    enabled: true
    minReplicas: 3
    maxReplicas: 10
    targetCPUUtilizationPercentage: 70

# High availability
pdb:
  enabled: true
  minAvailable: 2

# Network security
networkPolicy:
  enabled: true
  allowExternal: false

# Observability
otel:
  enabled: true
  collector:
    endpoint: "otel-collector.monitoring.svc.cluster.local:4317"
  samplingRate: 0.1
"""
AZURE = [
    "externalSecrets.provider=azure",
    "externalSecrets.azure.vaultUrl=https://kiki.vault.azure.net",
    "externalSecrets.azure.tenantId=00000000-0000-0000-0000-000000000001",
]
GCP = [
    "externalSecrets.provider=gcp",
    "externalSecrets.gcp.projectID=kiki-prod",
    "externalSecrets.gcp.clusterLocation=europe-west1",
    "externalSecrets.gcp.clusterName=kiki",
]
CLOUDS = {"aws": ["externalSecrets.provider=aws", "externalSecrets.region=us-east-1"], "azure": AZURE, "gcp": GCP}
PROFILES = ("dev", "staging", "prod")

# Answers one line of JSON with one line of JSON: the texts, or what was refused.
_SERVER = """
import json, logging, sys
from helm_python import Chart, HelmError, lint, parse_set_string
charts = {}
for line in sys.stdin:
    asked = json.loads(line)
    try:
        if asked.get("set"):
            answer = parse_set_string(asked["set"])
        elif asked.get("lint"):
            answer = lint(asked["chart"], asked["values"], strict=True, namespace="kiki", kube_version=asked["lint"])
        else:
            chart = charts.get(asked["chart"]) or charts.setdefault(asked["chart"], Chart.load(asked["chart"]))
            answer = chart.render(asked["values"], name=asked.get("name", "kiki"), namespace=asked["namespace"])
    except HelmError as error:
        answer = {"refused": str(error)}
    print(json.dumps(answer), flush=True)
"""


_shared: Engine | None = None


class Engine:
    """The engine in its own process, asked as often as one likes."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    @classmethod
    def shared(cls) -> Engine:
        """The one of this session, for tests that hypothesis runs many times."""
        global _shared
        if _shared is None:
            _shared = cls()
        return _shared

    def ask(self, **asked: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def texts(self, values: dict[str, Any], namespace: str = "kiki", chart: Path = CHART) -> dict[str, str]:
        """What each template gives."""
        answer = self.ask(chart=str(chart), values=values, namespace=namespace)
        assert "refused" not in answer, answer
        return answer

    def refusal(self, values: dict[str, Any], chart: Path = CHART) -> str:
        """Why the chart refuses these values."""
        answer = self.ask(chart=str(chart), values=values, namespace="kiki")
        assert set(answer) == {"refused"}, "the chart took values that it should refuse"
        return answer["refused"]

    def objects(self, values: dict[str, Any], namespace: str = "kiki", chart: Path = CHART) -> list[dict[str, Any]]:
        """The objects, in order."""
        texts = self.texts(values, namespace, chart)
        return objects(documents(text for path, text in sorted(texts.items()) if not path.endswith("NOTES.txt")))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def layers(environment: str | None, *sets: str, over: str = "") -> dict[str, Any]:
    """Values of a profile, a file's text over it, and what is set."""
    given = {} if environment is None else yaml.safe_load((CHART / f"values-{environment}.yaml").read_text())
    given = overlay(given, yaml.safe_load(over) or {})
    for one in sets:
        given = overlay(given, parse_set(one))
    return given


def full(given: dict[str, Any]) -> dict[str, Any]:
    """The same with the chart's defaults below."""
    return coalesce(json.loads(_defaults()), given)


@functools.cache
def _defaults() -> str:
    return json.dumps(with_defaults({}))


@functools.cache
def profile(environment: str, cloud: str) -> str:
    """The values of one cell of the matrix, as JSON, so that nobody changes them for the next one."""
    return json.dumps(read_layers(environment, [], CLOUDS[cloud] if environment != "dev" else []))


def named(found: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The one object of that kind and name."""
    (one,) = [each for each in found if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return one


def leaves(node: Any, path: tuple = ()) -> list[tuple]:
    if isinstance(node, dict) and node:
        return [leaf for key, item in node.items() for leaf in leaves(item, (*path, key))]
    return [path]


def put(values: dict[str, Any], path: tuple, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(values)
    here = changed
    for part in path[:-1]:
        here = here.setdefault(part, {})
    here[path[-1]] = value
    return changed
