"""Every alert fires when it should and is silent when it should be, by Prometheus' own promtool."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

OBSERVABILITY = Path(__file__).parents[2] / "deploy" / "observability"
RULES = OBSERVABILITY / "kiki.rules.yaml"


class Case(NamedTuple):
    firing: dict[str, str]
    silent: dict[str, str]
    minutes: int


def rate(name: str, **labels: str) -> str:
    return f"{name}{{{','.join(f'{key}={value!r}' for key, value in labels.items())}}}".replace("'", '"')


REQUESTS, BUCKET = "kiki_http_requests_total", "kiki_http_request_seconds_bucket"
OK = rate(REQUESTS, service="syncshield", route="/spend", method="GET", status="200")
BAD = rate(REQUESTS, service="syncshield", route="/spend", method="GET", status="503")


def buckets(fast: str, all_of_them: str) -> dict[str, str]:
    return {
        rate(BUCKET, service="syncflow", route="/health", le="0.25"): fast,
        rate(BUCKET, service="syncflow", route="/health", le="1.0"): all_of_them,
        rate(BUCKET, service="syncflow", route="/health", le="+Inf"): all_of_them,
    }


def budget(spent: int, held: int) -> dict[str, str]:
    where = {"budget": "default", "scope": "all", "window": "60s"}
    values = {"limit": 500, "spent": spent, "held": held}
    return {rate(f"kiki_shield_budget_{name}", **where): f"{value}x60" for name, value in values.items()}


def gauge(name: str, firing: float, silent: float, minutes: int, **labels: str) -> Case:
    series = rate(name, **labels) if labels else name
    return Case({series: f"{firing}x60"}, {series: f"{silent}x60"}, minutes)


CASES = {
    "KikiServiceDown": gauge("up", 0, 1, 3, job="kiki/syncshield"),
    "KikiShieldMissing": Case(
        {rate("up", job="kiki/syncflow"): "1x60"}, {rate("up", job="kiki/syncshield"): "0x60"}, 10
    ),
    "KikiErrorRate": Case({OK: "0+90x60", BAD: "0+10x60"}, {OK: "0+999x60", BAD: "0+1x60"}, 12),
    "KikiSlow": Case(buckets("0+50x60", "0+100x60"), buckets("0+100x60", "0+100x60"), 20),
    "KikiGrpcErrorRate": Case(
        {
            rate("kiki_grpc_calls_total", method="/m", status="OK"): "0+9x60",
            rate("kiki_grpc_calls_total", method="/m", status="INTERNAL"): "0+1x60",
        },
        {
            rate("kiki_grpc_calls_total", method="/m", status="OK"): "0+9x60",
            rate("kiki_grpc_calls_total", method="/m", status="INVALID_ARGUMENT"): "0+9x60",
        },
        12,
    ),
    "KikiTelemetryDropped": Case(
        {rate("kiki_telemetry_dropped_total", reason="export_failed"): "0+5x60"},
        {rate("kiki_telemetry_dropped_total", reason="export_failed"): "5x60"},
        40,
    ),
    "KikiLedgerBroken": gauge("kiki_shield_ledger_ok", 0, 1, 2),
    "KikiWindowNotReady": gauge("kiki_shield_window_ready", 0, 1, 3),
    "KikiBudgetNearlySpent": Case(budget(400, 80), budget(400, 20), 12),
    "KikiArchiveBehind": gauge("kiki_shield_archive_lag_seconds", 1000, 800, 12),
    "KikiAuditViewStopped": gauge("kiki_shield_audit_view_running", 0, 1, 6),
    "KikiFlowAlerts": gauge("kiki_flow_alerts", 2, 0, 6, plan="spring"),
    "KikiFlowAccountUnreachable": gauge("kiki_flow_accounts_unreachable", 1, 0, 16),
    "KikiFlowBreakerOpen": Case(
        {rate("syncflow_circuit_breaker_state_count", platform="meta", state="open"): "1x60"},
        {
            rate("syncflow_circuit_breaker_state_count", platform="meta", state="open"): "0x60",
            rate("syncflow_circuit_breaker_state_count", platform="meta", state="closed"): "4x60",
        },
        16,
    ),
    "KikiFlowUnknownCalls": gauge("kiki_flow_unknown_calls", 1, 0, 31, platform="amazon"),
    "KikiEngageRunFailed": Case(
        {rate("kiki_engage_runs_total", result="failed"): "0x9 1x50"},
        {
            rate("kiki_engage_runs_total", result="failed"): "3x60",
            rate("kiki_engage_runs_total", result="done"): "0+1x60",
        },
        15,
    ),
    "KikiEngageUnknownMessages": Case(
        {
            rate("kiki_engage_messages_total", state="unknown"): "0+1x120",
            rate("kiki_engage_messages_total", state="done"): "0+9x120",
        },
        {
            rate("kiki_engage_messages_total", state="unknown"): "0+1x120",
            rate("kiki_engage_messages_total", state="done"): "0+99x120",
        },
        90,
    ),
    "KikiEngageWithoutForecasts": Case(
        {"kiki_engage_value_fallbacks_total": "0+1x60"}, {"kiki_engage_value_fallbacks_total": "7x60"}, 50
    ),
}


def alerts() -> list[str]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"]]


def test_every_alert_has_a_case_and_says_what_to_do():
    assert sorted(CASES) == sorted(alerts())
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert {"summary", "description"} == set(rule["annotations"])
            assert rule["labels"]["severity"] in {"info", "warning", "critical"}


def test_alerts_fire_and_are_silent_as_they_should(tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    tests = []
    for alert, case in CASES.items():
        count = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
        for series, found in ((case.firing, [{"labels": "{}", "value": 1}]), (case.silent, [])):
            tests.append({
                "name": f"{alert}, {'firing' if found else 'silent'}",
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [{"expr": count, "eval_time": f"{case.minutes}m", "exp_samples": found}],
            })  # fmt: skip
    file = tmp_path / "alerts_test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_rules_are_what_prometheus_takes():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    subprocess.run([promtool, "check", "rules", str(RULES)], check=True, capture_output=True)
    config = OBSERVABILITY / "prometheus.yml"
    subprocess.run([promtool, "check", "config", "--syntax-only", str(config)], check=True, capture_output=True)


def test_dashboards_are_what_grafana_takes():
    files = sorted((OBSERVABILITY / "dashboards").glob("*.json"))
    assert files
    uids = set()
    for file in files:
        board = json.loads(file.read_text())
        uids.add(board["uid"])
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
        assert len(places) == len(set(places))
        for panel in board["panels"]:
            if panel["type"] != "row":
                assert panel["targets"]
                assert panel["description"]
    assert len(uids) == len(files)
