"""Pure files stay pure: no input, no output, no clock, no chance.

import-linter forbids the modules; this finds what an import list cannot show, and needs no tool.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PURE = [
    "kiki/engage/allocation.py",
    "kiki/engage/holdout.py",
    "kiki/engage/doubly_robust.py",
    "kiki/engage/early_index.py",
    "kiki/engage/feature_coder.py",
    "kiki/engage/outcomes.py",
    "kiki/engage/policy.py",
    "kiki/engage/policy_value.py",
    "kiki/engage/shrunk_line.py",
    "kiki/engage/uplift.py",
    "kiki/engage/bandit.py",
    "kiki/engage/confidence_sequence.py",
    "kiki/engage/effect.py",
    "kiki/engage/loyalty_account.py",
    "kiki/engage/loyalty_program.py",
    "kiki/engage/loyalty_tables.py",
    "kiki/engage/moments.py",
    "kiki/engage/power.py",
    "kiki/errors.py",
    "kiki/engage/channel.py",
    "kiki/engage/event.py",
    "kiki/engage/crm/field_map.py",
    "kiki/engage/crm/mark.py",
    "kiki/engage/crm/shopify_text.py",
    "kiki/engage/crm/rows.py",
    "kiki/engage/journey_text.py",
    "kiki/engage/letter.py",
    "kiki/engage/moment.py",
    "kiki/engage/outbox_page.py",
    "kiki/engage/webhooks/hubspot.py",
    "kiki/engage/webhooks/proof.py",
    "kiki/engage/webhooks/sendgrid.py",
    "kiki/engage/webhooks/shopify.py",
    "kiki/engage/profile.py",
    "kiki/engage/address.py",
    "kiki/engage/people.py",
    "kiki/engage/playbook.py",
    "kiki/engage/playbook_reader.py",
    "kiki/engage/playbook_text.py",
    "kiki/engage/quiet_hours.py",
    "kiki/engage/retention.py",
    "kiki/engage/segment.py",
    "kiki/engage/source.py",
    "kiki/engage/webhook.py",
    "kiki/money.py",
    "kiki/yaml_document.py",
    "kiki/shield/scope.py",
    "kiki/shield/policy.py",
    "kiki/shield/budget.py",
    "kiki/ledger/checkpoint.py",
    "kiki/ledger/entry.py",
    "kiki/ledger/merkle.py",
    "kiki/ledger/retention.py",
    "kiki/ledger/sealing.py",
    "kiki/ledger/segment.py",
    "kiki/shield/compliance_chart.py",
    "kiki/shield/compliance_page.py",
    "kiki/shield/compliance_report.py",
    "kiki/shield/consent.py",
    "kiki/shield/fact.py",
    "kiki/shield/network.py",
    "kiki/shield/origin.py",
    "kiki/shield/consent_gate.py",
    "kiki/shield/decided_fact.py",
    "kiki/shield/evidence_words.py",
    "kiki/shield/persons.py",
    "kiki/shield/redis_own_holds.py",
    "kiki/shield/wire_answer.py",
    "kiki/shield/wire_guide_consent.py",
    "kiki/shield/wire_members.py",
    "kiki/shield/wire_moment.py",
    "kiki/shield/wire_problem.py",
]
FORBIDDEN_MODULES = {
    *("aiohttp", "apsw", "asyncio", "concurrent", "grpc", "httpx", "io", "logging", "multiprocessing", "os"),
    *("pathlib", "random", "redis", "secrets", "select", "shutil", "signal", "socket", "sqlalchemy", "sqlite3"),
    *("subprocess", "tempfile", "threading", "time", "urllib", "uuid"),
}
FORBIDDEN_CALLS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}
FORBIDDEN_METHODS = {"now", "today", "utcnow", "read_text", "write_text", "read_bytes", "write_bytes"}


def impurities(source: str) -> list[str]:
    """What the source does that a pure file must not, as `line: what`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                found.append(f"{node.lineno}: calls {node.func.id}()")
            elif isinstance(node.func, ast.Attribute) and node.func.attr in FORBIDDEN_METHODS:
                found.append(f"{node.lineno}: calls .{node.func.attr}()")
        elif isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncWith | ast.AsyncFor):
            found.append(f"{node.lineno}: is asynchronous")
        found += [f"{node.lineno}: imports {name}" for name in names if name.partition(".")[0] in FORBIDDEN_MODULES]
    return found


@pytest.mark.parametrize("path", PURE)
def test_a_pure_file_does_no_input_or_output(path: str):
    assert impurities((ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os.path", "1: imports os"),
        ("from time import time_ns", "1: imports time"),
        ("def f():\n    import random", "2: imports random"),
        ("x = open('y')", "1: calls open()"),
        ("from datetime import datetime\nx = datetime.now()", "2: calls .now()"),
        ("async def f(): ...", "1: is asynchronous"),
    ],
)
def test_the_check_finds_what_it_is_for(source: str, expected: str):
    assert [found[: len(expected)] for found in impurities(source)] == [expected]
