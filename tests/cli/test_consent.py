"""`kiki consent`: what each command writes, shows and returns, over a ledger that no service has open."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kiki.cli.main import app
from kiki.errors import LedgerUnavailable
from kiki.ledger.sqlite import SqliteReader
from kiki.settings import client
from kiki.shield.consent_store import ConsentStore
from tests.servers import free_port


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch) -> Path:
    """An empty data directory, and no service anywhere."""
    for name in ("KIKI_SHIELD_URL", "SHIELD_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(client, "SHIELD_URL_DEFAULT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("KIKI_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def run(*arguments: str):
    return CliRunner().invoke(app, ["consent", *arguments])


def found(*arguments: str):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


# -- one customer ------------------------------------------------------------------------------------


def test_a_consent_from_its_grant_to_its_end():
    """0 while there is consent, 3 when there is none."""
    assert run("grant", "c-1", "marketing", "--version", "3", "--expires", "365d").stdout.startswith(
        "granted: marketing until "
    )
    assert (0, "yes") == ((asked := run("check", "c-1", "marketing")).exit_code, asked.stdout[:3])
    assert run("revoke", "c-1", "marketing").stdout.startswith("revoked: marketing (event ")
    asked = run("check", "c-1", "marketing")
    assert (3, "no: the customer took back the consent to marketing\n") == (asked.exit_code, asked.stdout)
    assert 3 == run("check", "c-2", "marketing").exit_code
    assert ["granted", "revoked"] == [record["state"] for record in found("history", "c-1")]


def test_a_word_that_is_older_than_what_is_known_is_said_to_change_nothing():
    run("grant", "c-1", "marketing")
    told = run("revoke", "c-1", "marketing", "--said-at", "2020-01-01")
    assert (0, "granted: marketing") == (told.exit_code, told.stdout[:18])
    assert "nothing was written: what the customer said at " in told.stderr
    assert "" == run("revoke", "c-1", "marketing").stderr


def test_json_says_what_the_words_say():
    notice = {"version": "3", "basis": "contract", "method": "phone", "jurisdiction": "EU"}
    options = [part for name, value in notice.items() for part in (f"--{name}", value)]
    granted = found("grant", "c-1", "marketing", *options, "--note", "on the phone", "--guardian", "Ada")
    assert {
        "state": "granted",
        "changed": True,
        "note": "on the phone",
        "guardian_name": "Ada",
    }.items() <= granted.items()
    assert notice.items() <= granted.items()
    assert not found("grant", "c-1", "marketing", *options, "--guardian", "Ada")["changed"]
    assert {"allowed": True, "purpose": "marketing", "state": "granted", "event_id": granted["event_id"]} == found(
        "check", "c-1", "marketing"
    )
    refused = run("check", "c-1", "analytics", "--json")
    assert (3, "none") == (refused.exit_code, json.loads(refused.stdout)["state"])
    assert "on the phone" == found("status", "c-1")["marketing"]["note"]
    assert "denied" == found("deny", "c-1", "analytics")["state"]
    assert ["marketing"] == [record["purpose"] for record in found("history", "c-1", "--purpose", "marketing")]


def test_tables_for_people():
    run("grant", "c-1", "marketing", "--version", "3")
    header, row = run("status", "c-1").stdout.splitlines()
    assert ["purpose", "state", "said", "until", "version", "how", "event"] == header.split()
    assert ["marketing", "granted"] == row.split()[:2]
    assert 2 == len(run("history", "c-1").stdout.splitlines())
    assert "nothing is known of this customer\n" == run("status", "c-2").stdout == run("history", "c-2").stdout


def test_the_notice_is_read_from_its_file(tmp_path: Path):
    (tmp_path / "notice.txt").write_text("We write on Fridays.\n", encoding="utf-8")
    record = found("grant", "c-1", "marketing", "--notice", str(tmp_path / "notice.txt"))
    assert ("We write on Fridays.\n", 64) == (record["notice_text"], len(record["notice_sha256"]))
    assert 2 == run("grant", "c-1", "marketing", "--notice", str(tmp_path / "nothing.txt")).exit_code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["grant", "", "marketing"], "the customer id is empty"),
        (["grant", "x" * 1024, "marketing"], "is too long"),
        (["grant", "c-1", "markting"], "write one of marketing, analytics"),
        (["check", "c-1", "markting"], "write one of marketing, analytics"),
        (["grant", "c-1", "marketing", "--expires", "2020-01-01"], "in the past"),
        (["grant", "c-1", "marketing", "--expires", "999999w"], "up to the year 9999"),
        (["grant", "c-1", "marketing", "--expires", "soon"], "write 12h, 365d"),
        (["grant", "c-1", "marketing", "--said-at", "2099-01-01"], "in the future"),
        (["grant", "c-1", "marketing", "--basis", "because"], "legitimate_interests"),
        (["grant", "c-1", "marketing", "--method", "magic"], "in_person"),
        (["revoke", "c-1", "marketing", "--method", "gpc"], "say how the person said this"),
        (["import", "list.xlsx"], "which format"),
        (["import", "nothing.csv"], "cannot be read"),
    ],
)
def test_what_was_typed_wrong_gets_a_sentence_and_exit_code_2(arguments, words):
    run("grant", "c-0", "marketing")
    result = run(*arguments)
    assert (2, "") == (result.exit_code, result.stdout)
    assert words in result.stderr
    told = run(*arguments, "--json")
    assert words in json.loads(told.stderr)["error"]["message"]


def test_looking_makes_no_ledger(data_dir: Path):
    for command in (["status", "c-1"], ["history", "c-1"], ["check", "c-1", "marketing"], ["export"]):
        result = run(*command)
        assert 1 == result.exit_code
        assert "there is no ledger at" in result.stderr
    assert not data_dir.exists()


def test_a_ledger_is_named_by_its_file_or_its_directory(tmp_path: Path):
    run("grant", "c-1", "marketing", "--ledger", str(tmp_path / "other"))
    assert 0 == run("check", "c-1", "marketing", "--ledger", str(tmp_path / "other" / "shield.db")).exit_code


def test_a_ledger_that_somebody_has_open_is_said_to_be(data_dir: Path):
    run("grant", "c-1", "marketing")
    with ConsentStore.open(data_dir / "shield.db"):
        result = run("check", "c-1", "marketing")
    assert 1 == result.exit_code
    assert "is open already in this process" in result.stderr
    assert "name that with --url" in result.stderr


def test_purposes_of_ones_own_come_from_the_settings(monkeypatch):
    assert 2 == run("grant", "c-1", "newsletter").exit_code
    monkeypatch.setenv("KIKI_PURPOSES", "newsletter")
    assert 0 == run("grant", "c-1", "newsletter").exit_code
    monkeypatch.setenv("KIKI_PURPOSES", "News letter")
    wrong = run("grant", "c-1", "newsletter")
    assert (1, True) == (wrong.exit_code, "KIKI_PURPOSES" in wrong.stderr)


# -- lists -------------------------------------------------------------------------------------------


def test_a_list_is_taken_over_and_what_is_wrong_with_it_is_told(tmp_path: Path):
    """Exit code 3 when lines were refused."""
    source = tmp_path / "list.csv"
    source.write_text("\ufeffcustomer_id,purpose,state\nc-1,marketing,granted\nc-2,spam,granted\n", encoding="utf-8")
    result = run("import", str(source), "--problems", str(tmp_path / "problems.tsv"))
    assert (3, "2 lines: 1 new, 0 known already, 0 about erased persons, 1 refused\n") == (
        result.exit_code,
        result.stdout,
    )
    assert "line 3: 'spam' is not a purpose" in result.stderr
    assert (tmp_path / "problems.tsv").read_text().startswith("3\t'spam' is not a purpose")
    source.write_text("customer_id,purpose,state\nc-1,marketing,granted\n", encoding="utf-8")
    again = found("import", str(source))
    assert (1, 0, 1, 0) == (again["rows"], again["changed"], again["unchanged"], again["bad"])


def test_bytes_that_are_no_text_cost_their_line(tmp_path: Path):
    source = tmp_path / "list.csv"
    source.write_bytes(
        b"customer_id,purpose,state\nc-1,marketing,granted\nc-\xff,marketing,granted\nc-3,marketing,granted\n"
    )
    result = run("import", str(source))
    assert (3, True) == (result.exit_code, result.stdout.startswith("3 lines: 2 new"))


def test_what_is_written_out_is_taken_over_elsewhere(tmp_path: Path):
    run("grant", "c-1", "marketing", "--version", "3", "--note", "hello")
    run("grant", "c-2", "analytics")
    run("revoke", "c-2", "analytics")
    for name in ("all.csv", "all.json"):
        result = run("export", "-o", str(tmp_path / name))
        assert (0, "") == (result.exit_code, result.stdout)
        other = str(tmp_path / name.replace(".", "-"))
        assert 0 == run("import", str(tmp_path / name), "--ledger", other).exit_code
        assert "hello" == found("status", "c-1", "--ledger", other)["marketing"]["note"]
        assert 3 == run("check", "c-2", "analytics", "--ledger", other).exit_code
    assert 0o600 == (tmp_path / "all.csv").stat().st_mode & 0o777


def test_one_customer_is_written_out_with_who_asks_for_the_consent():
    run("grant", "c-1", "marketing")
    run("grant", "c-2", "marketing")
    result = run("export", "--customer", "c-1", "--json", "--controller", "Example Ltd", "--withdrawal", "write to us")
    (record,) = map(json.loads, result.stdout.splitlines())
    assert ("c-1", "Example Ltd", "write to us") == (
        record["pii_principal_id"],
        record["party_identification"][0]["party_name"],
        record["pii_processing"]["withdrawal_method"],
    )


def written(path: Path) -> int:
    """How many entries the ledger has, none before there is one."""
    if not path.exists():
        return 0
    try:
        with closing(SqliteReader(path)) as reader:
            return reader.next_seq()
    except LedgerUnavailable:
        return 0  # its tables are still being made


def test_an_import_that_is_broken_off_says_where_it_can_go_on(tmp_path: Path, data_dir: Path):
    """A real process, a real Ctrl-C: exit code 130, and the line to go on behind."""
    # The list has no end as long as it is being read: however late the interrupt comes, it comes in the middle.
    source, over = tmp_path / "list.csv", threading.Event()
    os.mkfifo(source)

    def feed() -> None:
        with suppress(BrokenPipeError), source.open("w", encoding="utf-8") as lines:
            lines.write("customer_id,purpose,state\n")
            lines.writelines(f"c-{number},marketing,granted\n" for number in range(60_000))
            lines.flush()
            over.wait()

    feeding = threading.Thread(target=feed, daemon=True)
    feeding.start()
    importing = subprocess.Popen(
        [sys.executable, "-m", "kiki", "consent", "import", str(source), "--ledger", str(data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # It is in the middle of it: some of the list is durable.
    while importing.poll() is None and written(data_dir / "shield.db") < 2_000:
        time.sleep(0.05)
    importing.send_signal(signal.SIGINT)
    _, talk = importing.communicate(timeout=60)
    over.set()
    feeding.join()
    assert 130 == importing.returncode
    assert "--after-line" in talk
    durable = int(talk.rpartition("--after-line ")[2].split()[0])
    with ConsentStore.open(data_dir / "shield.db") as store:
        assert max(0, durable - 1) <= sum(1 for _ in store.records(sealed=False)) <= 60_000
