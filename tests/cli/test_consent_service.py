"""`kiki consent` through a running service: the same words and exit codes as over a ledger of its own."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from kiki.cli.consent_access import record_of_reply
from kiki.cli.main import app
from kiki.errors import ShieldUnreachable
from kiki.settings import client
from kiki.shield.consent_store import ConsentStore
from kiki.shield.wire_consent import ConsentReply
from tests.servers import free_port
from tests.shield.served import TOKENS, Running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    running = Running()
    yield running.shield.url
    running.close()


@pytest.fixture(scope="module")
def guarded_url() -> Iterator[str]:
    """A service that asks for tokens."""
    running = Running(TOKENS)
    yield running.shield.url
    running.close()


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch):
    """Nothing is named but an empty data directory, and nothing listens at the usual address."""
    for name in ("KIKI_SHIELD_URL", "SHIELD_URL", "DATABASE_URL", "KIKI_SHIELD_TOKEN", "KIKI_SHIELD_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(client, "SHIELD_URL_DEFAULT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("KIKI_DATA_DIR", str(tmp_path / "data"))


def run(*arguments: str):
    return CliRunner().invoke(app, ["consent", *arguments])


def found(*arguments: str):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def token_file(tmp_path: Path):
    def write(role: str) -> str:
        path = tmp_path / f"{role}.token"
        path.write_text(f"{role}-0123456789abcdef\n")
        return str(path)

    return write


def test_a_consent_from_its_grant_to_its_end(url: str, monkeypatch, tmp_path: Path):
    """The service has it, and the ledger in KIKI_DATA_DIR is not even made."""
    monkeypatch.setenv("KIKI_SHIELD_URL", url)
    granted = run("grant", "c-1", "marketing", "--version", "3", "--expires", "365d", "--note", "on the phone")
    assert granted.stdout.startswith("granted: marketing until "), granted.output
    assert run("grant", "c-1", "marketing", "--version", "3").stdout.startswith("granted: marketing")
    assert 0 == run("check", "c-1", "marketing").exit_code
    assert "GRANTED" == httpx.get(f"{url}/consent/status?customer_id=c-1").json()["marketing"]["status"]
    assert "on the phone" == found("history", "c-1")[0]["note"]
    ids = [each["event_id"] for each in httpx.get(f"{url}/v1/consents/c-1/history").json()["consents"]]
    assert ids == [each["event_id"] for each in found("history", "c-1")]
    assert run("revoke", "c-1", "marketing").stdout.startswith("revoked: marketing (event ")
    asked = run("check", "c-1", "marketing")
    assert (3, "no: the customer took back the consent to marketing\n") == (asked.exit_code, asked.stdout)
    assert run("deny", "c-1", "analytics").stdout.startswith("denied: analytics (event ")
    assert {"marketing": "revoked", "analytics": "denied"} == {
        purpose: record["state"] for purpose, record in found("status", "c-1").items()
    }
    assert "denied" == found("history", "c-1", "--purpose", "analytics")[0]["state"]
    assert "nothing is known of this customer\n" == run("status", "c-2").stdout
    assert not (tmp_path / "data").exists()


def test_a_service_tells_what_a_ledger_tells(url: str, tmp_path: Path):
    """Only whether it was written anew is known to nobody but the ledger."""
    notice = tmp_path / "notice.txt"
    notice.write_text("We write on Fridays.\n")
    options = ["--version", "3", "--basis", "contract", "--method", "phone", "--jurisdiction", "EU", "--note", "x"]
    options += ["--notice", str(notice), "--guardian", "Ada", "--said-at", "2026-01-02", "--expires", "2099-01-01"]
    through = found("grant", "same", "marketing", *options, "--url", url)
    alone = found("grant", "same", "marketing", *options, "--ledger", str(tmp_path / "alone"))
    assert alone.pop("changed")
    for told in (through, alone):
        del told["event_id"], told["at"]
    assert alone == through
    for words in (("check", "same", "marketing"), ("check", "same", "analytics"), ("status", "nobody")):
        there, here = run(*words, "--url", url), run(*words, "--ledger", str(tmp_path / "alone"))
        assert (here.exit_code, here.stdout[:4]) == (there.exit_code, there.stdout[:4])
    assert (
        run("check", "same", "analytics", "--ledger", str(tmp_path / "alone")).stdout
        == run("check", "same", "analytics", "--url", url).stdout
    )


def test_a_service_at_the_usual_address_goes_before_a_ledger(url: str, monkeypatch, tmp_path: Path):
    """Nobody is told "revoked" by a ledger that no service acts on."""
    monkeypatch.setattr(client, "SHIELD_URL_DEFAULT", url)
    with ConsentStore.open(tmp_path / "data" / "shield.db") as store:
        store.grant("c-3", "marketing")
    assert run("revoke", "c-3", "marketing").exit_code == 0
    assert "REVOKED" == httpx.get(f"{url}/consent/status?customer_id=c-3").json()["marketing"]["status"]
    assert 0 == run("check", "c-3", "marketing", "--ledger", str(tmp_path / "data")).exit_code


def test_a_ledger_in_the_working_directory_is_used_where_nothing_answers_and_said_to_be(monkeypatch, tmp_path: Path):
    monkeypatch.delenv("KIKI_DATA_DIR")
    monkeypatch.chdir(tmp_path)
    alone = run("status", "c-1")
    assert (1, True) == (alone.exit_code, client.SHIELD_URL_DEFAULT in alone.stderr)
    assert 0 == run("grant", "c-1", "marketing", "--ledger", "kiki-data").exit_code
    asked = run("check", "c-1", "marketing")
    assert (0, True) == (asked.exit_code, "using the ledger in kiki-data" in asked.stderr), asked.output


def test_a_service_that_is_named_and_not_there_is_not_passed_by(tmp_path: Path):
    run("grant", "c-1", "marketing")
    for arguments in (("revoke", "c-1", "marketing"), ("check", "c-1", "marketing"), ("export", "-o", "all.csv")):
        result = run(*arguments, "--url", "http://127.0.0.1:1")
        assert (1, "") == (result.exit_code, result.stdout)
        assert "http://127.0.0.1:1" in result.stderr
    assert 0 == run("check", "c-1", "marketing").exit_code
    both = run("check", "c-1", "marketing", "--url", "http://127.0.0.1:1", "--ledger", str(tmp_path))
    assert (2, True) == (both.exit_code, "give it, or --url" in both.stderr)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["grant", "", "marketing"], "the customer id is empty"),
        (["grant", "x" * 1024, "marketing"], "is too long"),
        (["grant", "c-1", "markting"], "write one of marketing, analytics"),
        (["check", "c-1", "markting"], "write one of marketing, analytics"),
        (["history", "c-1", "--purpose", "markting"], "write one of marketing, analytics"),
        (["grant", "c-1", "marketing", "--expires", "2020-01-01"], "in the past"),
        (["grant", "c-1", "marketing", "--expires", "999999w"], "up to the year 9999"),
        (["grant", "c-1", "marketing", "--basis", "because"], "legitimate_interests"),
    ],
)
def test_what_was_typed_wrong_gets_the_same_exit_code(url: str, arguments: list[str], words: str):
    result = run(*arguments, "--url", url)
    assert (2, "") == (result.exit_code, result.stdout)
    assert words in result.stderr


def test_a_token_that_may_only_spend_learns_whether_and_not_why(guarded_url: str, token_file):
    def asked(role: str, *words: str):
        return run(*words, "--url", guarded_url, "--token-file", token_file(role))

    assert 0 == asked("privacy", "deny", "c-1", "marketing").exit_code
    assert 0 == asked("privacy", "grant", "c-1", "analytics").exit_code
    no = asked("spend", "check", "c-1", "marketing")
    why = "no: there is no consent to marketing; a token with the role privacy is told why\n"
    assert (3, why) == (no.exit_code, no.stdout)
    assert None is json.loads(asked("spend", "check", "c-1", "marketing", "--json").stdout)["state"]
    assert 0 == asked("spend", "check", "c-1", "analytics").exit_code
    refused = asked("spend", "status", "c-1")
    assert (1, "") == (refused.exit_code, refused.stdout)
    assert 1 == run("check", "c-1", "marketing", "--url", guarded_url).exit_code


def test_all_consents_are_written_out_beside_the_service(guarded_url: str, token_file, tmp_path: Path):
    there = ("--url", guarded_url, "--token-file", token_file("privacy"))
    for number in range(3):
        run("grant", f"e-{number}", "marketing", "--note", f"said {number}", *there)
        run("deny", f"e-{number}", "analytics", *there)
    file = tmp_path / "all.csv"
    assert 0 == run("export", "-o", str(file), *there).exit_code
    rows = [row for row in csv.DictReader(file.read_text().splitlines()) if row["customer_id"].startswith("e-")]
    assert {(f"e-{number}", "marketing", "granted", f"said {number}") for number in range(3)} <= {
        (row["customer_id"], row["purpose"], row["state"], row["note"]) for row in rows
    }
    assert 6 == len(rows)
    one = run("export", "--customer", "e-1", *there).stdout
    assert 3 == len(one.splitlines())
    assert 0 == run("import", str(file)).exit_code
    assert "said 2" == found("status", "e-2")["marketing"]["note"]
    records = run("export", "--format", "json", *there)
    assert (1, "", True) == (records.exit_code, records.stdout, "from the ledger itself" in records.stderr)


def test_a_list_is_not_taken_past_a_service(url: str, monkeypatch, tmp_path: Path):
    source = tmp_path / "list.csv"
    source.write_text("customer_id,purpose,state\ni-1,marketing,granted\n")
    monkeypatch.setenv("SHIELD_URL", f"{url}/check")
    result = run("import", str(source))
    assert (1, True) == (result.exit_code, f"SyncShield is at {url}" in result.stderr), result.output
    assert "give --ledger with its data directory" in result.stderr
    assert not (tmp_path / "data").exists()
    assert 0 == run("import", str(source), "--ledger", str(tmp_path / "data")).exit_code
    with ConsentStore.open(tmp_path / "data" / "shield.db"):
        locked = run("import", str(source), "--ledger", str(tmp_path / "data"))
    assert (1, True) == (locked.exit_code, "is open already in this process" in locked.stderr)


@pytest.mark.parametrize("wrong", [{"state": "maybe"}, {"at": "yesterday"}, {"event_id": "xyz"}])
def test_nonsense_from_a_service_is_not_shown_as_a_record(wrong: dict[str, str]):
    reply = {"customer_id": "c-1", "purpose": "marketing", "state": "granted"} | wrong
    with pytest.raises(ShieldUnreachable, match="what is no record of consent"):
        record_of_reply(ConsentReply(**reply))
