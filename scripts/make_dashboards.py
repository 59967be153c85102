"""Writes the dashboards below deploy/observability/dashboards from the tables here: `python -m scripts.make_dashboards`.

A dashboard is a list of rows, a row a list of panels; whoever wants another panel adds a line. Every metric in them must
exist in a live scrape: a test compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).parents[1] / "deploy" / "observability" / "dashboards"
WIDTH, HEIGHT = 24, 8


class Panel(NamedTuple):
    """One picture: its title, what it tells, its queries by their legends, and the unit."""

    title: str
    tells: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"


RATE = "rate({}[$__rate_interval])"
HTTP, BUCKET = "kiki_http_requests_total", "kiki_http_request_seconds_bucket"

DASHBOARDS: Final[dict[str, tuple[str, dict[str, list[Panel]]]]] = {
    "kiki-services": (
        "kiki: services",
        {
            "Requests, errors, time": [
                Panel(
                    "Requests",
                    "Answered requests a second, by service.",
                    {"{{service}}": f"sum by (service) ({RATE.format(HTTP)})"},
                    "reqps",
                ),
                Panel(
                    "Failed requests",
                    "The share that a service itself failed (5xx). 503 means that nothing durable could be answered.",
                    {
                        "{{service}}": f'sum by (service) (rate({HTTP}{{status=~"5.."}}[$__rate_interval]))'
                        f" / sum by (service) ({RATE.format(HTTP)})"
                    },
                    "percentunit",
                ),
                Panel(
                    "Time of a request",
                    "Half of all requests, and all but one in a hundred, are answered within this time.",
                    {
                        f"{{{{service}}}} p{quantile * 100:g}": f"histogram_quantile({quantile}, sum by (service, le) "
                        f"({RATE.format(BUCKET)}))"
                        for quantile in (0.5, 0.99)
                    },
                    "s",
                ),
            ],
            "gRPC": [
                Panel(
                    "Calls",
                    "Calls of SyncValue and of SyncFlow's bids a second, by method.",
                    {"{{method}}": f"sum by (method) ({RATE.format('kiki_grpc_calls_total')})"},
                    "reqps",
                ),
                Panel(
                    "Calls that failed",
                    "By the code that they ended with.",
                    {"{{status}}": 'sum by (status) (rate(kiki_grpc_calls_total{status!="OK"}[$__rate_interval]))'},
                    "reqps",
                ),
                Panel(
                    "Time of a call",
                    "All but one call in a hundred take less.",
                    {
                        "{{method}}": "histogram_quantile(0.99, sum by (method, le) "
                        f"({RATE.format('kiki_grpc_call_seconds_bucket')}))"
                    },
                    "s",
                ),
            ],
            "Processes": [
                Panel(
                    "Memory",
                    "Resident memory of each process.",
                    {"{{job}}": "process_resident_memory_bytes"},
                    "bytes",
                ),
                Panel(
                    "Processor",
                    "Processor seconds a second.",
                    {"{{job}}": RATE.format("process_cpu_seconds_total")},
                ),
                Panel(
                    "Dropped telemetry",
                    "Spans that did not reach the collector; requests do not wait for it.",
                    {"{{reason}}": f"sum by (reason) ({RATE.format('kiki_telemetry_dropped_total')})"},
                ),
            ],
        },
    ),
    "kiki-money": (
        "kiki: budgets and campaigns",
        {
            "SyncShield": [
                Panel(
                    "Decisions",
                    "Durable decisions a second, by verb and outcome.",
                    {"{{verb}} {{outcome}}": f"sum by (verb, outcome) ({RATE.format('kiki_shield_decisions_total')})"},
                ),
                Panel(
                    "Budgets used",
                    "What is spent and held in each window, of its limit. It never passes 1.",
                    {
                        "{{budget}} {{scope}} {{window}}": "(kiki_shield_budget_spent + kiki_shield_budget_held) "
                        "/ (kiki_shield_budget_limit > 0)"
                    },
                    "percentunit",
                ),
                Panel(
                    "Left in budgets",
                    "What may still be spent, in the budget's currency.",
                    {
                        "{{budget}} {{scope}} {{window}}": "kiki_shield_budget_limit - kiki_shield_budget_spent "
                        "- kiki_shield_budget_held"
                    },
                ),
            ],
            "Evidence": [
                Panel("Ledger", "Entries in the ledger.", {"entries": "kiki_shield_ledger_entries"}),
                Panel(
                    "Open reservations", "Money that is set aside and not settled.", {"holds": "kiki_shield_open_holds"}
                ),
                Panel(
                    "Ready",
                    "1: the ledger takes entries, the windows can be used, the CSV is written.",
                    {
                        "ledger": "kiki_shield_ledger_ok",
                        "windows": "kiki_shield_window_ready",
                        "CSV": "kiki_shield_audit_view_running",
                    },
                ),
            ],
            "SyncFlow": [
                Panel(
                    "Spent by plans",
                    "What settled days cost, in micros.",
                    {"{{plan}}": "syncflow_budget_spent_micros", "{{plan}} held": "syncflow_budget_held_micros"},
                ),
                Panel(
                    "Runs",
                    "Runs by state, and those that this runner has.",
                    {"{{state}}": "kiki_flow_runs", "held": "kiki_flow_runs_held"},
                ),
                Panel(
                    "Look at these",
                    "Alerts of plans, calls without an answer, accounts that cannot be used.",
                    {
                        "alerts {{plan}}": "kiki_flow_alerts",
                        "unknown {{platform}}": "kiki_flow_unknown_calls",
                        "unreachable": "kiki_flow_accounts_unreachable",
                    },
                ),
            ],
        },
    ),
    "kiki-people": (
        "kiki: messages and value",
        {
            "SyncEngage": [
                Panel(
                    "Decisions about people",
                    "By verdict, a second: why somebody gets nothing is a verdict, too.",
                    {"{{verdict}}": f"sum by (verdict) ({RATE.format('kiki_engage_verdicts_total')})"},
                ),
                Panel(
                    "Messages",
                    "What became of messages: unknown ones wait for a provider's word.",
                    {"{{state}}": f"sum by (state) ({RATE.format('kiki_engage_messages_total')})"},
                ),
                Panel(
                    "Webhooks",
                    "Calls of providers, by what was done with them.",
                    {
                        "{{provider}} {{result}}": f"sum by (provider, result) ({RATE.format('kiki_engage_webhooks_total')})"
                    },
                ),
            ],
            "Triggers, as the first version counted them": [
                Panel(
                    "Triggers",
                    "By type, a second.",
                    {"{{type}}": f"sum by (type) ({RATE.format('syncengage_triggers_total')})"},
                ),
                Panel("Risk", "Customers asked about, by level.", {"{{level}}": "syncengage_churn_risk"}),
                Panel(
                    "Denied, and without forecast",
                    "Triggers that the shield denied; values that are no forecast.",
                    {
                        "denied": RATE.format("kiki_engage_denied_total"),
                        "no forecast": RATE.format("kiki_engage_value_fallbacks_total"),
                    },
                ),
            ],
            "SyncValue": [
                Panel(
                    "Customers known",
                    "Customers who can be asked about by their id.",
                    {"customers": "kiki_value_customers"},
                ),
                Panel(
                    "Model files", "Files that were taken over or refused.", {"{{result}}": "kiki_value_reloads_total"}
                ),
                Panel(
                    "Predicted values",
                    "Half of the values that triggers saw lie below this.",
                    {
                        "median": "histogram_quantile(0.5, sum by (le) "
                        f"({RATE.format('syncengage_ltv_predictions_bucket')}))"
                    },
                ),
            ],
        },
    ),
}


def dashboard(uid: str) -> str:
    """One dashboard as Grafana imports it."""
    title, rows = DASHBOARDS[uid]
    panels: list[dict[str, Any]] = []
    top = 0
    for name, row in rows.items():
        panels.append(
            {"type": "row", "title": name, "collapsed": False, "gridPos": _place(0, top, WIDTH, 1), "panels": []}
        )
        top += 1
        width = WIDTH // len(row)
        for number, panel in enumerate(row):
            panels.append(_panel(panel, _place(number * width, top, width, HEIGHT)))
        top += HEIGHT
    for number, panel_of in enumerate(panels, 1):
        panel_of["id"] = number
    board = {
        "uid": uid,
        "title": title,
        "tags": ["kiki"],
        "schemaVersion": 41,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }
    return json.dumps(board, indent=2, ensure_ascii=False) + "\n"


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.tells,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": source, "expr": query, "legendFormat": legend}
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(dashboard(name))
