"""docs/guide-coverage.md stays a table that can be trusted: complete, decided, and honest about what works."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guide-coverage.md"
HEADER = ["guide (as typed)", "kind", "state", "by what, why"]
STATES = {"works", "superseded"}

MUST_WORK = [
    'for i in {1..6}; do ⏎ curl "http://localhost:8081/spend?amount=100" ⏎ done',
    'curl "http://localhost:8081/check?ltv=600"  # Expect 403',
    'curl "http://localhost:8081/health"',
    'curl "http://localhost:8083/health"',
    "docker compose up -d redis syncshield syncengage",
    "8083",
    "50051",
    "SHIELD_URL",
    "LTV_GRPC_ADDR",
    "RETENTION_DAYS",
    "8081",
    "PORT",
    "REDIS_ADDR",
    "MAX_BURST_BUDGET",
    "WINDOW_SECONDS",
    "Redis (optional; in-memory fallback available)",
    "shield_audit_gdpr.csv",
    "cat shield_audit_gdpr.csv",
    'grep "DENIED" shield_audit_gdpr.csv',
]
MUST_BE_LISTED = [
    "8083",
    "50051",
    "RETENTION_DAYS",
    "SHIELD_URL",
    "LTV_GRPC_ADDR",
    "PORT=8081 REDIS_ADDR=localhost:6379 go run .",
    "docker compose up -d redis syncshield syncengage",
    "helm rollback kiki -n kiki",
    "kubectl -n kiki describe pod syncshield-0",
    "global.imageRegistry",
    "syncshield.autoscaling.targetCPUUtilizationPercentage",
    "networkPolicy.allowExternal",
    "otel.samplingRate",
    "pdb.minAvailable",
    "KUBECONFIG_BASE64",
    "kiki/prod/sendgrid_api_key",
    "http://syncshield.kiki.svc.cluster.local/dsr/create",
    'Pod Security Policy set to "restricted"',
    "helm/kiki/values-prod.yaml",
]


@dataclass(frozen=True)
class Row:
    line: int
    guide: str
    kind: str
    state: str
    why: str


def read_rows() -> list[Row]:
    """Every row of every table; a line that looks like one and is none fails."""
    rows = []
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        assert len(cells) == 4 or set(line) <= set("|-"), f"line {number} has {len(cells)} cells"
        if cells == HEADER:
            assert set(lines[number]) == set("|-"), f"line {number} is a header without a rule below it"
        elif len(cells) == 4:
            typed = re.fullmatch(r"`([^`]+)`", cells[0])
            assert typed, f"line {number}: what the guide says is not one code span"
            rows.append(Row(number, typed[1], *cells[1:]))
    return rows


ROWS = read_rows()
STATE_OF = {row.guide: row.state for row in ROWS}


def test_the_page_holds_the_whole_guide():
    assert len(ROWS) >= 150


def test_every_row_is_decided_and_says_why():
    assert [row for row in ROWS if row.state not in STATES or not row.kind or not row.why] == []


def test_nothing_is_listed_twice():
    counted = Counter((row.guide, row.kind) for row in ROWS)
    assert [row for row, count in counted.items() if count > 1] == []


def test_what_is_superseded_names_what_to_use_instead():
    assert [row for row in ROWS if row.state == "superseded" and not re.search(r"`[^`]+`", row.why)] == []


@pytest.mark.parametrize("typed", MUST_WORK)
def test_what_must_work_is_said_to_work(typed: str):
    assert STATE_OF.get(typed) == "works"


@pytest.mark.parametrize("typed", MUST_BE_LISTED)
def test_the_guides_key_items_are_listed(typed: str):
    assert typed in STATE_OF


def test_the_go_commands_are_replaced_by_ours():
    replaced = {row.guide: row.why for row in ROWS if row.state == "superseded"}
    assert "kiki serve shield" in replaced["PORT=8081 REDIS_ADDR=localhost:6379 go run ."]
    assert "kiki serve engage" in replaced["SHIELD_URL=http://localhost:8081/check go run ."]
