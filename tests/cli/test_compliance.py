"""`kiki compliance`: the report from a service and from a ledger, as words, as JSON and as a page; declared breaches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kiki.cli.main import app
from kiki.shield.budget_guard import BudgetGuard
from tests.shield.served import Running, Served


@pytest.fixture
def shield(monkeypatch) -> Iterator[Served]:
    running = Running()
    monkeypatch.setenv("KIKI_SHIELD_URL", running.shield.url)
    yield running.shield
    running.close()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir(mode=0o700)
    with BudgetGuard.open(path / "shield.db", limit="500") as guard:
        guard.spend("100")
        guard.consents.grant("cust_123", "marketing")
    return path


def run(*arguments: str):
    return CliRunner().invoke(app, ["compliance", *arguments])


def found(*arguments: str):
    result = run(*arguments, "--json")
    assert 0 == result.exit_code, result.stderr
    return json.loads(result.stdout)


def test_a_report_in_words(shield: Served):
    shield.guard.consents.grant("cust_123", "marketing")
    result = run("report")
    assert (0, "") == (result.exit_code, result.stderr)
    assert "changes of consent                   1" in result.stdout
    assert "passed   Every decision is a durable entry" in result.stdout
    assert "cust_123" not in result.stdout


def test_a_report_in_json_is_what_the_service_answers(shield: Served):
    assert ("yearly", ["GDPR", "CCPA", "ISO 27001"]) == (
        (answer := found("report", "--period", "yearly"))["period"],
        answer["frameworks"],
    )
    assert "custom" == found("report", "--from", "7d")["period"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--period", "hourly"), ("--period", "daily", "--from", "7d"), ("--to", "7d"), ("--from", "soon"),
        ("--from", "1d", "--to", "7d"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("local", [True, False])
def test_a_period_that_cannot_be_is_a_mistake_of_usage(shield: Served, data_dir: Path, arguments, local: bool):
    result = run("report", *arguments, *(("--data-dir", str(data_dir)) if local else ()))
    assert (2, "") == (result.exit_code, result.stdout)
    assert result.stderr.startswith("error: ")


def test_a_ledger_is_reported_on_without_a_service_and_without_its_keys(data_dir: Path):
    (data_dir / "shield-subjects.db").unlink()
    report = found("report", "--data-dir", str(data_dir))
    assert (1, [1]) == (
        report["consent_changes"],
        [each["approved"] for each in report["decisions"] if each["approved"]],
    )


def test_a_ledger_that_is_written_meanwhile_is_reported_on(data_dir: Path):
    with BudgetGuard.open(data_dir / "shield.db", limit="500") as guard:
        guard.spend("100")
        report = found("report", "--data-dir", str(data_dir))
    assert 2 == sum(each["approved"] for each in report["decisions"])


def test_a_page_for_people(data_dir: Path, tmp_path: Path):
    page = tmp_path / "report.html"
    result = run("report", "--data-dir", str(data_dir), "--html", str(page))
    assert 0 == result.exit_code
    assert page.read_text().startswith("<!DOCTYPE html>")
    refused = run("report", "--data-dir", str(data_dir), "--html", str(tmp_path / "absent" / "report.html"))
    assert (1, True) == (refused.exit_code, "cannot be written" in refused.stderr)


def test_no_ledger_no_service(tmp_path: Path, monkeypatch):
    result = run("report", "--data-dir", str(tmp_path / "absent"))
    assert (1, True) == (result.exit_code, "there is no ledger" in result.stderr)
    result = run("report", "--url", "http://127.0.0.1:1")
    assert (1, True) == (result.exit_code, "cannot be reached" in result.stderr)


def test_a_breach_is_declared_and_counted(shield: Served):
    result = run("breach", "INC-1", "--affected", "12")
    assert (0, "") == (result.exit_code, result.stderr)
    assert result.stdout.startswith("declared: INC-1, found ")
    assert "has to be told by" in result.stdout
    reply = found("breach", "INC-1", "--found", "2026-11-01", "--notified", "2026-11-02")
    assert "2026-11-02T00:00:00.000000Z" == reply["notified_at"]
    assert 1 == found("report")["data_breaches"]


@pytest.mark.parametrize("arguments", [("",), ("x", "--affected", "-1"), ("x", "--found", "2999-01-01")])
def test_a_breach_that_cannot_be(shield: Served, arguments):
    assert 2 == run("breach", *arguments).exit_code
