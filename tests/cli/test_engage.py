"""`kiki engage` as somebody types it, on a store and a ledger of its own, and through a service."""

from __future__ import annotations

import json

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from kiki.cli.main import app
from kiki.engage.crm.csv_file import CsvSource
from kiki.shield.budget_guard import BudgetGuard
from tests.engage.running import PLAYBOOK, RunningEngage, RunningShield

CUSTOMERS = """customer,email,last_purchase,total_spend,purchase_count
c-1,ann@example.com,2026-01-01T00:00:00Z,120.50,3
c-2,bob@example.com,2026-01-01T00:00:00Z,20,1
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    with BudgetGuard.open(data / "shield.db", limit=100, window="1h") as guard:
        guard.consents.grant("c-1", "marketing")
    (tmp_path / "customers.csv").write_text(CUSTOMERS)
    (tmp_path / "book.yaml").write_text(PLAYBOOK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KIKI_DATA_DIR", str(data))
    monkeypatch.setenv("KIKI_ENGAGE_HOLDOUT", "0")
    monkeypatch.setenv("ENABLE_PREDICTIVE_CHURN", "false")
    return tmp_path


def kiki(*words: str, code: int = 0):
    result = CliRunner().invoke(app, ["engage", *words])
    assert result.exit_code == code, result.output
    return result


def test_from_a_file_to_a_report(place):
    ledger = ("--ledger", str(place / "data"))
    assert "2 customers" in kiki("sync", "--source", "csv", "--customers", "customers.csv").stdout
    assert "0 customers" in kiki("sync", "--source", "csv", "--customers", "customers.csv").stdout
    plan = json.loads(kiki("plan", "book.yaml", "--json", *ledger).stdout)
    assert plan["verdicts"] == {"chosen": 1, "no_consent": 1}
    assert "1 done" in kiki("run", "book.yaml", *ledger).stdout
    assert "messages: none" in kiki("run", "book.yaml", *ledger).stdout
    why = kiki("explain", "c-1", "--playbook", "book.yaml", *ledger).stdout
    assert "ten by email, done" in why
    assert "no_consent" in kiki("explain", "c-2", "--playbook", "book.yaml", *ledger).stdout
    report = json.loads(kiki("report", "book.yaml", "--json", "--export", "out.csv", *ledger).stdout)
    assert report["journeys"][0]["violations"] == 0
    exported = (place / "out.csv").read_text()
    assert exported.count("\n") == 2
    assert "c-1" not in exported


def test_an_export_is_csv_or_parquet(place):
    refused = kiki("report", "book.yaml", "--export", "out.foo", "--ledger", "data", code=2).output
    assert ".csv or .parquet" in refused
    assert not (place / "out.foo").exists()


def test_who_is_not_there_is_said_without_a_service(place):
    told = kiki("explain", "nix", "--ledger", "data", code=1).output
    assert "kiki engage sync takes customers in" in " ".join(told.split())


def test_what_a_playbook_sees_is_written_back_once(place):
    words = ("sync", "--source", "csv", "--customers", "customers.csv", "--write-back", "book.yaml", "--ledger", "data")
    assert "written back: 2 done" in kiki(*words).stdout
    assert "lapsed" in (place / "customers.kiki.csv").read_text()
    assert "written back: 0 done" in kiki(*words).stdout


def test_people_are_tagged_by_their_segments_once(place):
    words = ("sync", "--source", "csv", "--customers", "customers.csv", "--tag", "book.yaml", "--ledger", "data")
    assert "tagged: 2 done" in kiki(*words).stdout
    assert "kiki-lapsed" in (place / "customers.kiki.csv").read_text()
    assert "tagged: 0 done" in kiki(*words).stdout


def test_the_original_s_matrix_has_a_name(place):
    assert "legacy" in kiki("check", "legacy").stdout
    kiki("sync", "--source", "csv", "--customers", "customers.csv")
    plan = json.loads(kiki("plan", "legacy", "--json", "--ledger", "data").stdout)
    # Whether somebody is held out is drawn; which cell of the matrix they are in is not.
    assert {("c-1", "churn_risk_standard"), ("c-2", "churn_risk_standard")} == {
        (line["customer"], line["journey"]) for line in plan["lines"]
    }
    (place / "legacy").write_text(PLAYBOOK)
    assert "book" in kiki("check", "legacy").stdout
    assert "there is: shopify, hubspot" in kiki("sync", "--source", "sap", code=2).output


def test_a_playbook_s_mistakes_are_told_and_its_schema_is_printed(place):
    (place / "bad.yaml").write_text(PLAYBOOK.replace("lapsed:", "lapst:"))
    assert "did you mean 'lapst'" in kiki("check", "bad.yaml", code=1).output
    assert "no mistake" in kiki("check", "book.yaml").stdout
    assert json.loads(kiki("check", "--schema").stdout)["title"] == "kiki playbook"
    kiki("check", code=2)
    kiki("plan", "nowhere.yaml", code=1)


def test_preview_and_power(place):
    assert "Subject: Hello" in kiki("preview", "book.yaml", "ten").stdout
    assert "there is no offer" in kiki("preview", "book.yaml", "eleven", code=1).output
    told = json.loads(
        kiki("power", "--rate", "0.05", "--mean", "60", "--deviation", "40", "--effect", "0.5", "--json").stdout
    )
    assert told["always"] > told["fixed"] > 10_000


def test_a_playbook_in_another_currency_is_refused_beside_a_ledger_and_a_shield(place):
    (place / "euro.yaml").write_text(PLAYBOOK.replace("currency: USD", "currency: EUR"))
    kiki("sync", "--source", "csv", "--customers", "customers.csv")
    shield = RunningShield(BudgetGuard.open(limit=100, window="1h"))
    try:
        for where in (("--ledger", "data"), ("--url", shield.url)):
            for command in ("plan", "run"):
                told = " ".join(kiki(command, "euro.yaml", *where, code=2).output.split())
                assert "the shield counts in USD, and the playbook 'book' is in EUR: nothing is sent" in told
    finally:
        shield.close()
        shield.guard.close()


def test_a_service_that_is_not_there_is_told(place):
    assert "does not answer" in kiki("report", "book.yaml", "--service", "http://127.0.0.1:1", code=1).output


def test_customers_in_postgresql(place, postgres, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", postgres)
    monkeypatch.setenv("KIKI_MASTER_KEY", "0" * 64)
    assert "2 customers" in kiki("sync", "--source", "csv", "--customers", "customers.csv").stdout
    assert "0 customers" in kiki("sync", "--source", "csv", "--customers", "customers.csv").stdout


def test_a_service_that_has_the_store_open_does_the_same(place, tmp_path):
    with BudgetGuard.open(limit=100, window="1h") as guard:
        guard.consents.grant("c-1", "marketing")
        running = RunningEngage(tmp_path / "data", "http://127.0.0.1:1", guard)
        try:
            through(running, place)
        finally:
            running.close()


def through(running: RunningEngage, place) -> None:
    there = ("--service", running.url)
    running.store.keep("csv", CsvSource(place / "customers.csv", None).changes("").__next__().records)
    assert json.loads(kiki("plan", "book.yaml", "--json", *there).stdout)["at"].endswith("Z")
    assert "1 done" in kiki("run", "book.yaml", *there).stdout
    assert "offers: 1 ten" in kiki("report", "book.yaml", "--export", "out.csv", *there).stdout
    kiki("report", "book.yaml", "--export", "out.parquet", *there)
    assert (place / "out.csv").read_text().count("\n") == 2
    assert parquet.read_table(place / "out.parquet").num_rows == 1
    assert "Subject: Hello" in kiki("preview", "book.yaml", "ten", "--customer", "c-2", *there).stdout
    assert "no customer" in kiki("preview", "book.yaml", "ten", "--customer", "c-9", *there, code=1).output
    # The name of a playbook that it has does as well; a file goes first.
    assert json.loads(kiki("plan", "book", "--json", *there).stdout)["playbook"] == "book"
    assert "messages: none" in kiki("run", "book", *there).stdout
    assert "offers: 1 ten" in kiki("report", "book", *there).stdout
    assert "Subject: Hello" in kiki("preview", "book", "ten", *there).stdout
    assert "Subject: Hello" in kiki("preview", "book", "ten", "--customer", "c-2", *there).stdout
    assert "there is: book" in kiki("plan", "books", *there, code=1).output
    # A service takes no files: it says so instead of looking at its own source.
    refused = kiki("sync", "--source", "csv", "--customers", "customers.csv", *there, code=2).output
    assert "from its own source" in refused
    assert "start it with KIKI_ENGAGE_CUSTOMERS" in refused
    assert "SYNCENGAGE_CRM_PROVIDER" in kiki("sync", *there, code=2).output
