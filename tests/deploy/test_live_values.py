"""Nothing in the values is dead: each of them, and each key of the guide's blocks, changes what reaches the cluster."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from kiki.chart import schema
from kiki.chart.layers import read_layers
from kiki.chart.place import chart_schema
from kiki.chart.values import at, overlay
from tests.deploy.renders import (
    AZURE,
    CHART,
    GCP,
    GUIDE_OVERRIDES,
    GUIDE_VALUES,
    PROFILES,
    Engine,
    full,
    layers,
    leaves,
    put,
)

SCHEMA = chart_schema()
DEFAULTS = full({})

EVERYTHING = layers(
    "prod",
    *["redis.enabled=true", "redis.address=", "postgres.enabled=true", "postgres.host=", "otel.collector.endpoint="],
    *["otel.collector.deploy=true", "otel.jaeger.deploy=true", "gateway.enabled=true", "clusterIssuer.create=true"],
    *["serviceMonitor.enabled=true", "prometheusRule.enabled=true", "dashboards.enabled=true"],
    *["syncshield.policy=budgets: []", "syncvalue.model.existingClaim=models"],
)
SQLITE = layers("dev", "redis.storage.storageClass=")
AWAY = layers("prod", "syncshield.autoscaling.enabled=false", "syncvalue.autoscaling.enabled=false", "syncengage.autoscaling.enabled=false")  # fmt: skip
BASES = {
    "everything": EVERYTHING,
    "sqlite": SQLITE,
    "fixed": AWAY,
    "azure": layers("prod", *AZURE),
    "gcp": layers("prod", *GCP),
    "staging": layers("staging"),
    "a shop": layers("prod", "syncengage.crm.provider=shopify", "syncengage.crm.url=shop.example.com"),
    "any cloud": layers("prod", *AZURE, *GCP, "externalSecrets.provider=aws", "keys.existingSecret=mine"),
}
OTHER = {
    "image": "other:v9", "cpu": "333m", "memory": "333Mi", "size": "33Gi", "logLevel": "error", "imagePullPolicy": "Never",
    "provider": "azure", "refreshInterval": "33m", "interval": "33s", "region": "eu-west-1", "prefix": "other/one", "zone": None, "host": None,
    "vaultUrl": "https://other.vault.azure.net", "tenantId": "00000000-0000-0000-0000-000000000002", "endpoint": "other:4317",
    "address": "other:6380", "shipTo": "s3://other-bucket/", "email": "other@example.com", "server": "https://other.example.com/",
    "maxBurstBudget": "333", "windowSeconds": "333", "policy": "budgets: [other]", "imagePullSecrets": [{"name": "other"}],
    "customMetrics": [{"name": "other", "averageValue": "3"}], "tolerations": [{"key": "other", "operator": "Exists"}],
    "hosts": [{"host": "other.kiki.io", "service": "syncshield"}], "extraArgs": ["--other"], "grafana_dashboard": "2",
    "tls": [{"secretName": "other", "hosts": ["shield.kiki.io", "engage.kiki.io"]}], "extraEnv": {"KIKI_RATE": 7},
    "ingressNamespaces": ["other"], "monitoringNamespaces": ["other"], "dnsCIDRs": ["9.9.9.9/32"],
    "databaseCIDRs": ["9.9.9.0/24"], "httpsCIDRs": ["9.9.9.0/24"],
    "samplingRate": 0.33, "minReplicas": 4, "maxReplicas": 44, "imageRegistry": "other.io/kiki", "model": "other", "file": "other.json",
    "replicaCount": 4, "extraSecrets": ["other"],
    "mailFrom": "other@example.com", "smsFrom": "+15551234567", "playbooks": {"other.yaml": "name: other"},
}  # fmt: skip


def another(path: tuple, value: Any) -> Any:
    name = path[-1]
    if path[0] == "spread" and name in {"zone", "host"}:
        return "DoNotSchedule" if value == "ScheduleAnyway" else "ScheduleAnyway"
    if path == ("redis", "replicaCount"):
        return 0
    if path == ("redis", "tls"):
        return True
    if path[1:2] == ("crm",):
        return {"provider": "hubspot" if not value else "salesforce", "url": "other.example.com"}[name]
    if path[:2] == ("postgres", "host"):
        return "other.example.com"
    if path == ("pdb", "minAvailable") or path[1:] == ("pdb", "minAvailable"):
        return 1 if value != 1 else 0
    if OTHER.get(name) is not None and type(OTHER[name]) is not dict:
        return OTHER[name]
    if name in OTHER and OTHER[name] is not None:
        return OTHER[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 3
    if isinstance(value, dict):
        return {"other": "one"}
    return "other.kiki.io" if "domain" in path else "other"


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The chart without its schema, which is two thirds of a render's time; ours judges the values instead."""
    chart = tmp_path_factory.mktemp("bare") / "kiki"
    shutil.copytree(CHART, chart, ignore=shutil.ignore_patterns("values.schema.json"))
    return chart


@pytest.fixture(scope="module")
def plain_bases(engine: Engine, bare: Path) -> dict[str, dict[str, str]]:
    return {name: manifests(engine.texts(values, chart=bare)) for name, values in BASES.items()}


def manifests(texts: dict[str, str]) -> dict[str, str]:
    """What reaches the cluster; a value that only the notes know would be dead."""
    return {path: text for path, text in texts.items() if not path.endswith("NOTES.txt")}


@pytest.mark.parametrize("path", leaves(DEFAULTS), ids=".".join)
def test_every_value_changes_what_is_rendered(path: tuple, engine: Engine, bare: Path, plain_bases):
    for name, values in BASES.items():
        other = put(values, path, another(path, at(full(values), ".".join(path))))
        if schema.problems(full(other), SCHEMA):
            continue
        answer = engine.ask(chart=str(bare), values=other, namespace="kiki")
        if "refused" not in answer and manifests(answer) != plain_bases[name]:
            return
    pytest.fail(f"{'.'.join(path)} changes nothing in any of {list(BASES)}")


GUIDE_LEAVES = [(text, path) for text in (GUIDE_VALUES, GUIDE_OVERRIDES) for path in leaves(yaml.safe_load(text))]


@pytest.mark.parametrize(("text", "path"), GUIDE_LEAVES, ids=[".".join(path) for _, path in GUIDE_LEAVES])
def test_every_key_of_the_guides_blocks_is_live(text: str, path: tuple, engine: Engine, bare: Path):
    values = overlay(layers("prod"), yaml.safe_load(text))
    if path[-1] == "enabled" and path[0] == "pdb":
        other = put(values, path, False)
    else:
        other = put(values, path, another(path, at(values, ".".join(path))))
        if path[-1] == "provider":
            other = overlay(other, layers(None, *AZURE))
    if path[0] == "externalSecrets" and path[-1] == "enabled":
        other = overlay(other, {"keys": {"existingSecret": "mine"}})
    if path[1:2] == ("replicaCount",):  # an autoscaler rules the replicas, and then this is what it falls back to
        values, other = (overlay(one, {"syncshield": {"autoscaling": {"enabled": False}}}) for one in (values, other))
    assert schema.problems(full(other), SCHEMA) == []
    assert manifests(engine.texts(values, chart=bare)) != manifests(engine.texts(other, chart=bare))


@pytest.mark.parametrize("blocks", [[GUIDE_VALUES], [GUIDE_OVERRIDES], [GUIDE_VALUES, GUIDE_OVERRIDES]])
def test_the_guides_blocks_render_verbatim_over_production(blocks, engine: Engine, tmp_path):
    paths = []
    for number, block in enumerate(blocks):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(block)
    found = engine.objects(read_layers("prod", paths, ["syncshield.image=syncshield:v1.0.0"]))
    assert {"Deployment", "NetworkPolicy", "ExternalSecret", "Ingress"} <= {one["kind"] for one in found}


@pytest.mark.parametrize("environment", PROFILES)
def test_every_profile_renders_alone(environment: str):
    assert json.dumps(read_layers(environment, [], []))
