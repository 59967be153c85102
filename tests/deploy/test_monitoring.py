"""What the chart hands to the Prometheus operator, to Grafana and to a collector."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from tests.deploy.reachability import table
from tests.deploy.renders import CHART, GUIDE_OVERRIDES, ROOT, Engine, layers, named
from tests.deploy.rules import objections


def with_observability(tmp_path: Path, rules: str, dashboard: str) -> Path:
    chart = tmp_path / "kiki"
    shutil.copytree(CHART, chart, ignore=shutil.ignore_patterns("observability"))
    (chart / "files" / "observability" / "dashboards").mkdir(parents=True)
    (chart / "files" / "observability" / "kiki.rules.yaml").write_text(rules)
    (chart / "files" / "observability" / "dashboards" / "shield.json").write_text(dashboard)
    return chart


def test_rules_and_dashboards_are_passed_on_as_they_are(tmp_path: Path, engine: Engine):
    rules = {
        "groups": [
            {"name": "g", "rules": [{"alert": "A", "expr": "up == 0", "annotations": {"summary": "{{ $labels.pod }}"}}]}
        ]
    }
    chart = with_observability(tmp_path, yaml.safe_dump(rules), '{"title": "{{x}}"}')
    on = "{prometheusRule: {enabled: true, labels: {release: mine}}, dashboards: {enabled: true, labels: {grafana_dashboard: '2'}}}"
    found = engine.objects(layers("prod", over=on), chart=chart)
    rule = named(found, "PrometheusRule", "kiki-kiki")
    assert rule["spec"] == rules
    assert rule["metadata"]["labels"]["release"] == "mine"
    dashboard = named(found, "ConfigMap", "kiki-dashboard-shield")
    assert dashboard["data"] == {"shield.json": '{"title": "{{x}}"}'}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "2"
    assert not [one for one in engine.objects(layers("prod"), chart=chart) if one["kind"] == "PrometheusRule"]
    assert objections(found) == []


def test_the_real_rules_and_dashboards_pass_too(engine: Engine):
    found = engine.objects(layers("prod", "prometheusRule.enabled=true", "dashboards.enabled=true"))
    assert objections(found) == []
    for path in (ROOT / "deploy" / "observability").glob("*.rules.yaml"):
        assert named(found, "PrometheusRule", f"kiki-{path.name.removesuffix('.rules.yaml')}")


def test_every_service_is_scraped_once(engine: Engine):
    found = engine.objects(layers("prod", "serviceMonitor.enabled=true", "serviceMonitor.labels.release=mine"))
    monitors = [one for one in found if one["kind"] == "ServiceMonitor"]
    assert {one["metadata"]["labels"]["release"] for one in monitors} == {"mine"}
    for monitor in monitors:
        (endpoint,) = monitor["spec"]["endpoints"]
        carrying = [
            one["metadata"]["name"]
            for one in found
            if one["kind"] == "Service"
            and monitor["spec"]["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
            and any(port["name"] == endpoint["port"] for port in one["spec"]["ports"])
        ]
        assert carrying == [monitor["metadata"]["name"]]


def test_the_collectors_configuration_holds_together(renders):
    (config,) = [
        one
        for one in renders["staging"]
        if one["kind"] == "ConfigMap" and one["metadata"]["name"].startswith("kiki-otel")
    ]
    told = yaml.safe_load(config["data"]["config.yaml"])
    assert "logging" not in told["exporters"]
    assert "jaeger" not in told["exporters"]
    for pipeline in told["service"]["pipelines"].values():
        for part in ("receivers", "processors", "exporters"):
            assert set(pipeline[part]) <= set(told[part])
    endpoints = [told["receivers"]["otlp"]["protocols"][name]["endpoint"] for name in ("grpc", "http")]
    assert endpoints == ["0.0.0.0:4317", "0.0.0.0:4318"]
    assert told["service"]["pipelines"]["traces/jaeger"]["exporters"] == ["otlp/jaeger"]
    assert told["exporters"]["otlp/jaeger"]["endpoint"] == "jaeger-query:4317"


def test_a_collector_of_the_release_passes_on_to_the_guides_endpoint(engine: Engine):
    """So the guide's port-forward and the guide's endpoint work at once."""
    found = engine.objects(layers("prod", "otel.collector.deploy=true", over=GUIDE_OVERRIDES))
    (config,) = [one for one in found if one["metadata"]["name"].startswith("kiki-otel-collector-")]
    told = yaml.safe_load(config["data"]["config.yaml"])
    upstream = told["exporters"]["otlp/upstream"]
    assert upstream["endpoint"] == "otel-collector.monitoring.svc.cluster.local:4317"
    assert "otlp/upstream" in told["service"]["pipelines"]["traces"]["exporters"]
    lines = table(found)
    assert "otel-collector -> the monitoring: 4317" in lines
    assert "syncshield -> otel-collector: 4317" in lines
    assert not [line for line in lines if line.startswith("sync") and "the monitoring" in line]
