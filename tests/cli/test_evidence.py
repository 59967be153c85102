"""The auditor's commands: what they write proves something, what was touched is named, and readers disturb nobody."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kiki.cli.ledger_access import Access
from kiki.cli.main import app
from kiki.clock import SECOND, wall_micros
from kiki.errors import LedgerCorrupt, SpendDenied
from kiki.ledger.checkpoint import Signer
from kiki.ledger.entry import encode_entry
from kiki.ledger.ledger import META, Append, Ledger
from kiki.ledger.master_key import KeySource
from kiki.ledger.postgres import PostgresStore
from kiki.ledger.source import Database
from kiki.ledger.sqlite import SqliteReader, SqliteStore
from kiki.ledger.store import Write
from kiki.settings.secret import Secret
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.fact import Decided
from kiki.shield.pruning import prune
from tests.ledger.doubles import FakeClock
from tests.servers import free_port


def run(*arguments: str | Path, **options):
    return CliRunner().invoke(app, [str(each) for each in arguments], **options)


@pytest.fixture
def data(tmp_path: Path, monkeypatch) -> Path:
    """A data directory with some decisions in it, nobody's at the moment."""
    folder = tmp_path / "data"
    with BudgetGuard.open(folder / "shield.db", limit="100") as guard:
        guard.spend("60", ["platform:meta"])
        guard.consents.grant("c-1", "marketing")
        guard.spend("30", ["customer:c-1"], purpose="marketing")
        with pytest.raises(SpendDenied):
            guard.spend("20")
    monkeypatch.setenv("KIKI_DATA_DIR", str(folder))
    return folder


@pytest.fixture
def vkey(data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "auditor.vkey"
    path.write_text(run("audit", "key").stdout)
    return path


@pytest.fixture
def bundle(data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "evidence.kiki"
    assert run("audit", "bundle", "-o", path).exit_code == 0
    return path


# -- verify ------------------------------------------------------------------------------------------


def test_a_ledger_that_nobody_touched_holds(data: Path):
    result = run("audit", "verify")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "holds")
    assert "1 of them resting on consent; 0 findings" in result.stdout
    told = json.loads(run("audit", "verify", "--json").stdout)
    assert (True, 3, 2, 1) == (told["holds"], told["decisions"], told["admitted"], told["consents"])
    assert 0 == told["trees"][0]["unsigned"]


def test_the_same_offline_from_one_file(bundle: Path, vkey: Path, monkeypatch, tmp_path: Path):
    """The auditor has the bundle and the key, and neither ledger nor master key."""
    monkeypatch.setenv("KIKI_DATA_DIR", str(tmp_path / "nothing"))
    result = run("audit", "verify", bundle, "--key", vkey)
    assert (0, "") == (result.exit_code, result.stderr)
    told = json.loads(run("audit", "verify", bundle, "--key", vkey.read_text().strip(), "--json").stdout)
    assert (True, True) == (told["holds"], told["trusted"])


def test_without_a_key_a_bundle_is_whole_and_nobodys(bundle: Path):
    result = run("audit", "verify", bundle)
    assert (0, True) == (result.exit_code, "not who made it" in result.stderr)
    assert json.loads(run("audit", "verify", bundle, "--json").stdout)["trusted"] is False


def test_the_key_of_another_log_is_refused(bundle: Path):
    other = Signer("kiki/other", os.urandom(32)).verifier_key
    result = run("audit", "verify", bundle, "--key", other)
    assert (3, True) == (result.exit_code, "another key than the one that is trusted" in result.stdout)


def test_an_altered_byte_is_named_and_ends_with_3(bundle: Path, vkey: Path):
    altered = bytearray(bundle.read_bytes())
    place = altered.index(b"platform:meta")
    altered[place] ^= 1
    bundle.write_bytes(altered)
    result = run("audit", "verify", bundle, "--key", vkey)
    assert (3, True) == (result.exit_code, ", entry 2, byte " in result.stdout)
    told = json.loads(run("audit", "verify", bundle, "--json").stdout)
    assert (False, True) == (told["holds"], ", entry 2, byte " in told["place"])


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "UPDATE entry SET body = CAST(replace(body, 'platform:meta', 'platform:mega') AS BLOB) WHERE seq = 2",
            "the root that was signed for",
        ),
        ("UPDATE entry SET body = 'text' WHERE seq = 2", "entry 2"),
        ("UPDATE projection SET value = x'00' WHERE space = 'checkpoint'", "this is not a signed checkpoint"),
        ("DELETE FROM projection WHERE space = 'checkpoint'", "covered by no signed checkpoint"),
        ("DELETE FROM projection", "the id of their chain is missing"),
        ("DELETE FROM projection WHERE space = 'meta'", "the id of their chain is missing"),
        ("UPDATE projection SET value = 'text' WHERE space = 'meta'", "the id of the chain that the ledger keeps"),
        ("DELETE FROM entry WHERE seq = 3", "entry 3: the entry is missing"),
        ("DELETE FROM entry WHERE seq > 3", "the entry is missing"),
        ("DELETE FROM entry WHERE seq < 2", "before entry 2"),
    ],
)
def test_a_database_that_was_edited_does_not_hold(data: Path, statement: str, said: str):
    with closing(sqlite3.connect(data / "shield.db")) as database:
        database.execute(statement)
        database.commit()
    result = run("audit", "verify")
    assert (3, True) == (result.exit_code, said in result.stdout), result.stdout


def test_a_file_that_is_no_database_does_not_hold(data: Path, vkey: Path):
    (data / "shield.db").write_bytes(b"SQLite format 3\0" + b"garbage" * 1000)
    assert 3 == run("audit", "verify", "--key", vkey).exit_code


def test_a_spend_too_many_is_found_although_every_signature_holds(data: Path):
    """Whoever holds all keys can sign a history that breaks its own rules: the replay says so."""
    with BudgetGuard.open(data / "shield.db", limit="100") as guard:
        now, seed = guard.decider.clock(), guard.decider.subjects.signing_seed
    ledger = Ledger(SqliteStore(data / "shield.db"), lambda: now, seed)
    ledger.append_all([Append(Decided("spend", now, "", 0, [[]], [50_000_000]))])
    ledger.checkpoint()
    ledger.close()
    result = run("audit", "verify")
    assert 3 == result.exit_code
    assert "budget 'default' on *: 140.00 spent" in result.stdout
    told = json.loads(run("audit", "verify", "--json").stdout)
    assert ["budget_exceeded"] == [each["kind"] for each in told["findings"]]
    assert ("140.00", "100.00") == (told["findings"][0]["window"]["spent"], told["findings"][0]["window"]["limit"])


def test_what_lies_beyond_the_last_checkpoint_is_said(data: Path):
    with closing(SqliteStore(data / "shield.db")) as store:
        following = store.next_seq()
        store.commit([(following, encode_entry(following, 2**61, Decided("check", 1, "", 0, [[]], [1])))])
    result = run("audit", "verify")
    assert (0, True) == (result.exit_code, "not signed yet: the last 1 entries" in result.stdout)


def test_a_chain_that_lost_its_id_gets_no_other_one(data: Path):
    """Under another id, all of it would be signed anew, and hold."""
    assert 0 == run("audit", "seal").exit_code
    with closing(sqlite3.connect(data / "shield.db")) as database:
        database.execute("DELETE FROM projection")
        database.commit()
        for command in (["seal"], ["key"], ["bundle", "-o", data / "evidence.kiki"], ["export"]):
            refused = run("audit", *command)
            assert (1, True) == (refused.exit_code, "the id of their chain is missing" in refused.stderr), command
        with pytest.raises(LedgerCorrupt, match="the id of their chain is missing"):
            BudgetGuard.open(data / "shield.db", limit="100")
        told = run("audit", "verify", "--json")
        assert (3, str(data / "shield.db")) == (told.exit_code, json.loads(told.stdout)["place"])
        assert [] == database.execute("SELECT * FROM projection WHERE space = 'meta'").fetchall()


def test_a_replica_whose_chain_lost_its_id_is_not_passed_over(postgres):
    with closing(PostgresStore(postgres, "one")) as one, closing(PostgresStore(postgres, "two")) as two:
        for store in (one, two):
            Ledger(store).append_all([Append(Decided("check", 1, "", 0, [[]], [1]))])
        found = Access(Database(Secret(postgres), "one"), KeySource())
        with found.readers() as readers:
            assert 2 == len(readers)
        two.commit([], [Write(META, b"chain", None)])
        with pytest.raises(LedgerCorrupt, match="the id of their chain is missing"), found.readers():
            pass


@pytest.mark.parametrize(
    ("to", "said"), [("max(seq) + 1", "entry 2 of the ledger stands where"), ("max(seq) + 2", "is missing, and entry")]
)
def test_nobody_starts_or_signs_behind_an_entry_that_was_put_at_the_unsigned_end(data: Path, to: str, said: str):
    """Signed, it would stay in the ledger, which would never hold again."""
    with closing(sqlite3.connect(data / "shield.db")) as database:
        database.execute(f"INSERT INTO entry SELECT (SELECT {to} FROM entry), body FROM entry WHERE seq = 2")
        database.commit()
        before = database.execute("SELECT count(*), max(seq) FROM entry").fetchone()
        with pytest.raises(LedgerCorrupt, match=said):
            BudgetGuard.open(data / "shield.db", limit="100")
        for command in (["seal"], ["bundle", "-o", data / "evidence.kiki"]):
            refused = run("audit", *command)
            assert (1, True) == (refused.exit_code, said in refused.stderr), refused.stderr
        assert before == database.execute("SELECT count(*), max(seq) FROM entry").fetchone()
        # Without it, all is as it was.
        database.execute("DELETE FROM entry WHERE seq = (SELECT max(seq) FROM entry)")
        database.commit()
    BudgetGuard.open(data / "shield.db", limit="100").close()
    assert 0 == run("audit", "verify").exit_code


def test_a_ledger_whose_oldest_entries_were_pruned_holds(tmp_path: Path):
    """The tree still covers them, and what they said that still held was said again."""
    clock, path = FakeClock(wall_micros() - 3000 * 86_400 * SECOND), tmp_path / "shield.db"
    with BudgetGuard.open(path, limit="100", clock=clock) as guard:
        guard.consents.grant("c-1", "marketing")
        for _ in range(600):
            guard.spend("1", ["customer:c-1"], purpose="marketing")
            clock.advance(60)
        clock.now = wall_micros()
        assert 512 == prune(guard.decider, 512, 2555)
        guard.spend("100", ["customer:c-1"], purpose="marketing")
    told = json.loads(run("audit", "verify", "--data-dir", tmp_path, "--json").stdout)
    assert (True, 512) == (told["holds"], told["trees"][0]["first"])
    assert {"decisions that rest on consent given before or outside of the range"} == set(told["not_covered"])
    bundle = tmp_path / "b.kiki"
    assert 0 == run("audit", "bundle", "-o", bundle, "--data-dir", tmp_path).exit_code
    assert 0 == run("audit", "verify", bundle).exit_code


def test_without_the_master_key_a_ledger_is_verified_with_the_verifier_key(data: Path, vkey: Path):
    (data / "master.key").unlink()
    result = run("audit", "verify")
    assert (1, True) == (result.exit_code, "master key" in result.stderr)
    assert 0 == run("audit", "verify", "--key", vkey).exit_code
    assert 0 == run("audit", "verify", "--ledger", data / "shield.db", "--key", vkey).exit_code


@pytest.mark.parametrize(
    "arguments",
    [("nothing.kiki",), ("--key", "nokey"), ("x", "--proof", "y"), ("--key", "/dev/null/x"), ("--proof", "nothing")],
)
def test_usage_errors_are_usage_errors(data: Path, arguments):
    result = run("audit", "verify", *arguments)
    assert (2, "") == (result.exit_code, result.stdout)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kiki/aaaa+00000000+AAAA", "is written name+id+base64"),
        (f"kiki/aaaa+00000000+{'A' * 44}", "not the Ed25519 key of"),
        (f"kiki/aaaa+00000000+{{}}{'A' * 42}", "the id in the verifier key is not that of its key"),
    ],
)
@pytest.mark.parametrize(("option", "kind"), [("--key", "AQ"), ("--witness", "BA")])
def test_a_key_that_cannot_be_one_is_a_usage_error(bundle: Path, tmp_path: Path, text: str, said: str, option, kind):
    """It is an argument, and says nothing about the evidence; in a file, too."""
    wrong, file = text.format(kind), tmp_path / "wrong.vkey"
    file.write_text(f"{wrong}\n")
    for given in (wrong, file):
        for what in ([bundle], ["--proof", bundle], []):
            refused = run("audit", "verify", *what, option, given)
            assert (2, "") == (refused.exit_code, refused.stdout), (what, refused.stderr)
            assert said in refused.stderr


def test_no_ledger_is_an_error_and_none_is_made(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("KIKI_DATA_DIR", str(tmp_path / "none"))
    for command in (["verify"], ["bundle", "-o", tmp_path / "b"], ["key"], ["seal"], ["prove", "--event", "0" * 16]):
        assert 1 == run("audit", *command).exit_code
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["x", "0", "36501", ""])
@pytest.mark.parametrize("command", [("audit", "export"), ("compliance", "report")])
def test_a_wrong_retention_is_an_error_and_no_usage(data: Path, monkeypatch, command: tuple[str, ...], value: str):
    """As the service has it, which goes by the same setting."""
    assert 0 == run(*command).exit_code
    monkeypatch.setenv("RETENTION_DAYS", value)
    wrong = run(*command)
    assert (1, "", True) == (wrong.exit_code, wrong.stdout, f"RETENTION_DAYS='{value}'" in wrong.stderr), wrong.stderr


# -- bundle, prove, seal -----------------------------------------------------------------------------


def test_a_bundle_of_a_time_says_what_it_does_not_cover(data: Path, vkey: Path, tmp_path: Path):
    """Policy and consent of before are not in it."""
    path = tmp_path / "late.kiki"
    since = json.loads(run("audit", "export", "--json").stdout.splitlines()[3])["recorded_at"]
    told = json.loads(run("audit", "bundle", "-o", path, "--from", since, "--json").stdout)
    assert {} == told["not_covered"]
    found = json.loads(run("audit", "verify", path, "--key", vkey, "--json").stdout)
    assert True is found["holds"]
    assert found["not_covered"]
    result = run("audit", "bundle", "-o", path, "--from", "nonsense")
    assert 2 == result.exit_code


def test_a_time_that_ends_before_it_begins_is_no_bundle(data: Path, tmp_path: Path):
    for command in (
        ["bundle", "-o", tmp_path / "no.kiki", "--from", "5m", "--to", "1h"],
        ["export", "--since", "5m", "--until", "1h"],
    ):
        refused = run("audit", *command)
        assert (2, "") == (refused.exit_code, refused.stdout)
        assert "beginning must be before its end" in refused.stderr


@pytest.mark.parametrize("period", [("--from", "2999-01-01"), ("--to", "2001-01-01")])
def test_a_time_in_which_nothing_was_recorded_is_no_bundle(data: Path, tmp_path: Path, period: tuple[str, str]):
    """An empty one would hold, and look like evidence; over HTTP it is not found either."""
    refused = run("audit", "bundle", "-o", tmp_path / "none.kiki", *period)
    assert (1, "") == (refused.exit_code, refused.stdout)
    assert "nothing was recorded in that time" in refused.stderr
    assert not (tmp_path / "none.kiki").exists()


def test_a_ledger_is_named_by_its_directory_too(data: Path, monkeypatch):
    monkeypatch.delenv("KIKI_DATA_DIR")
    assert "holds\n" in run("audit", "verify", "--ledger", data).stdout
    assert run("audit", "key", "--ledger", data).stdout == run("audit", "key", "--ledger", data / "shield.db").stdout


@pytest.mark.parametrize("command", [["bundle"], ["prove", "--event", "0000000000020000"], ["export"]])
def test_what_is_no_file_is_not_replaced_by_one(data: Path, tmp_path: Path, command: list[str]):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    refused = run("audit", *command, "-o", pipe)
    assert (1, True) == (refused.exit_code, pipe.is_fifo())
    assert "a file would take its place" in refused.stderr
    link.symlink_to(tmp_path / "behind")
    assert run("audit", *command, "-o", link).exit_code == 0
    assert (True, True) == (link.is_symlink(), (tmp_path / "behind").is_file())


def test_a_proof_is_small_and_checked_offline(data: Path, vkey: Path, tmp_path: Path, monkeypatch):
    path = tmp_path / "proof.json"
    assert 0 == run("audit", "prove", "--event", "0000000000020000", "-o", path).exit_code
    assert path.stat().st_size < 50_000
    assert path.read_text() == run("audit", "prove", "--event", "0000000000020000").stdout
    monkeypatch.setenv("KIKI_DATA_DIR", str(tmp_path / "nothing"))
    result = run("audit", "verify", "--proof", path, "--key", vkey)
    assert (0, True) == (result.exit_code, result.stdout.startswith("holds: entry 2 (event 0000000000020000)"))
    told = json.loads(run("audit", "verify", "--proof", path, "--json").stdout)
    assert (True, False, 2) == (told["holds"], told["trusted"], told["seq"])
    path.write_text(path.read_text().replace('"seq": 2', '"seq": 1'))
    assert 3 == run("audit", "verify", "--proof", path, "--key", vkey).exit_code


def test_proofs_of_what_is_not_there(data: Path):
    assert 2 == run("audit", "prove", "--event", "x").exit_code
    assert 1 == run("audit", "prove", "--event", "00000000ffff0000").exit_code
    assert 2 == run("audit", "prove", "--event", "0000000000020000", "--chain", "other").exit_code
    beside = run("audit", "prove", "--event", "0000000000020005")
    assert (1, "") == (beside.exit_code, beside.stdout)
    assert "has no event 0000000000020005" in beside.stderr


def test_sealing_covers_everything(data: Path):
    result = run("audit", "seal", "--json")
    told = json.loads(result.stdout)
    assert 0 == json.loads(run("audit", "verify", "--json").stdout)["trees"][0]["unsigned"]
    assert f"{told['size']} entries, root {told['root']}" in run("audit", "seal").stdout


def test_keys_of_an_auditor_are_one_line_each(data: Path):
    (line,) = run("audit", "key").stdout.splitlines()
    assert line.startswith("kiki/")
    assert [line] == json.loads(run("audit", "key", "--json").stdout)["keys"]


def test_beside_a_service_that_goes_on_writing(tmp_path: Path, monkeypatch):
    """Readers take no lock: verify, bundle, seal and key work, and the service decides meanwhile."""
    port = free_port()
    environ = {
        **os.environ,
        "KIKI_DATA_DIR": str(tmp_path / "data"),
        "KIKI_REDIS": "off",
        "MAX_BURST_BUDGET": "1000000",
    }
    command = [sys.executable, "-m", "kiki"]
    service = subprocess.Popen(
        [*command, "serve", "shield", "--port", str(port)], env=environ, stderr=subprocess.DEVNULL
    )
    monkeypatch.setenv("KIKI_DATA_DIR", environ["KIKI_DATA_DIR"])
    monkeypatch.setenv("KIKI_SHIELD_URL", f"http://127.0.0.1:{port}")
    try:
        for _ in range(600):
            if run("spend", "--amount", "1").exit_code == 0:
                break
            time.sleep(0.1)
        sealed = json.loads(run("audit", "seal", "--json").stdout)
        spender = subprocess.Popen(
            [sys.executable, "-c", "import kiki\nwith kiki.ShieldClient() as c:\n while True: c.spend('1')"],
            env={**environ, "KIKI_SHIELD_URL": f"http://127.0.0.1:{port}"},
        )  # fmt: skip
        try:
            with closing(SqliteReader(tmp_path / "data" / "shield.db")) as reader:
                while reader.next_seq() < sealed["size"] + 10:
                    time.sleep(0.05)
            told = json.loads(run("audit", "verify", "--json").stdout)
            assert (True, sealed["root"]) == (told["holds"], told["trees"][0]["root"])
            path = tmp_path / "b.kiki"
            written = json.loads(run("audit", "bundle", "-o", path, "--json").stdout)
            assert written["not_covered"]
            assert 0 == run("audit", "verify", path).exit_code
            assert spender.poll() is None
        finally:
            spender.kill()
            spender.wait()
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(60)
    assert 0 == json.loads(run("audit", "verify", "--json").stdout)["trees"][0]["unsigned"]
