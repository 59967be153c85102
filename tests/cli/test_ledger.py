"""Moving a ledger and changing its master key: whole or not at all, and never without a key that opens it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kiki.cli.main import app
from kiki.errors import MasterKeyError
from kiki.ledger.master_key import KeySource
from kiki.shield.budget_guard import BudgetGuard


def run(*arguments: str | Path, **options):
    return CliRunner().invoke(app, [str(each) for each in arguments], **options)


@pytest.fixture
def data(tmp_path: Path, monkeypatch) -> Path:
    """A data directory whose ledger nobody owns."""
    folder = tmp_path / "data"
    with BudgetGuard.open(folder / "shield.db", limit="100") as guard:
        guard.consents.grant("c-1", "marketing", ip_address="192.0.2.7")
        guard.spend("30", ["customer:c-1"], purpose="marketing")
    monkeypatch.setenv("KIKI_DATA_DIR", str(folder))
    return folder


def opens(data: Path, key: Path) -> bool:
    try:
        with BudgetGuard.open(data / "shield.db", limit="100", keys=KeySource(file=key)) as guard:
            return guard.decider.subjects.find("customer:c-1") is not None
    except MasterKeyError:
        return False


# -- the master key ----------------------------------------------------------------------------------


def test_a_new_key_is_made_and_takes_over(data: Path, tmp_path: Path):
    old, new = data / "master.key", tmp_path / "secrets" / "new.key"
    before = old.read_bytes()
    result = run("ledger", "rotate-key", "--new-file", new)
    assert (0, True) == (result.exit_code, f"KIKI_MASTER_KEY_FILE={new}" in result.stderr)
    assert (0o600, before) == (new.stat().st_mode & 0o777, old.read_bytes())
    assert new.read_text().strip() not in result.output
    assert (True, False) == (opens(data, new), opens(data, old))


def test_a_key_that_is_there_is_taken_and_twice_is_once(data: Path, tmp_path: Path, monkeypatch):
    new = tmp_path / "new.key"
    new.write_text("ab" * 32)
    new.chmod(0o600)
    told = [json.loads(run("ledger", "rotate-key", "--new-file", new, "--json").stdout) for _ in range(2)]
    assert [True, False] == [each["changed"] for each in told]
    monkeypatch.setenv("KIKI_MASTER_KEY_FILE", str(new))
    assert 0 == run("audit", "verify").exit_code


def test_the_key_of_a_command(data: Path):
    command = f"{sys.executable} -c \"print('cd' * 32)\""
    result = run("ledger", "rotate-key", "--new-command", command)
    assert (0, True) == (result.exit_code, "KIKI_MASTER_KEY_COMMAND=" in result.stderr)
    assert not opens(data, data / "master.key")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["--new-file", "a", "--new-command", "b"], 2),
        (["--new-command", "false"], 1),
        (["--new-command", "echo short"], 1),
    ],
)
def test_what_is_no_new_key_changes_nothing(data: Path, arguments, code):
    assert code == run("ledger", "rotate-key", *arguments).exit_code
    assert opens(data, data / "master.key")


def test_the_key_in_force_is_not_its_own_successor(data: Path):
    assert 2 == run("ledger", "rotate-key", "--new-file", data / "master.key").exit_code


def test_the_wrong_old_key_changes_nothing(data: Path, tmp_path: Path, monkeypatch):
    wrong = tmp_path / "wrong.key"
    wrong.write_text("ab" * 32)
    wrong.chmod(0o600)
    for path, said in ((wrong, "was locked with"), (tmp_path / "none", "the key in force is not at")):
        monkeypatch.setenv("KIKI_MASTER_KEY_FILE", str(path))
        result = run("ledger", "rotate-key", "--new-file", tmp_path / "new.key")
        assert (1, True) == (result.exit_code, said in result.stderr)
    assert opens(data, data / "master.key")


def test_a_ledger_in_use_keeps_its_key(data: Path, tmp_path: Path):
    with BudgetGuard.open(data / "shield.db", limit="100"):
        assert 1 == run("ledger", "rotate-key", "--new-file", tmp_path / "new.key").exit_code
    assert opens(data, data / "master.key")


def test_without_a_ledger_no_key_is_made(tmp_path: Path):
    result = run("ledger", "rotate-key", "--new-file", tmp_path / "new.key", "--data-dir", tmp_path / "none")
    assert (1, []) == (result.exit_code, list(tmp_path.iterdir()))


def test_a_kill_at_any_moment_leaves_a_key_that_opens(data: Path, tmp_path: Path):
    """The new file is durable before anything is locked with it, and the locks change in one commit."""
    old = data / "master.key"
    for round_ in range(8):
        new = tmp_path / f"{round_}.key"
        process = subprocess.Popen(
            [sys.executable, "-m", "kiki", "ledger", "rotate-key", "--new-file", str(new)],
            env={**os.environ, "KIKI_MASTER_KEY_FILE": str(old)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 60
        while not new.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(round_ * 0.004)
        process.send_signal(signal.SIGKILL)
        process.wait()
        changed = new.exists() and opens(data, new)
        assert changed or opens(data, old)
        old = new if changed else old


# -- the copy ----------------------------------------------------------------------------------------


def test_a_ledger_moves_into_postgresql_and_verifies_there(data: Path, tmp_path: Path, postgres: str, monkeypatch):
    vkey = run("audit", "key").stdout.strip()
    result = run("ledger", "copy", "--to", postgres, "--replica", "one")
    assert (0, True) == (result.exit_code, "as the chain of one" in result.stdout), result.output
    assert 0 == json.loads(run("ledger", "copy", "--to", postgres, "--replica", "one", "--json").stdout)["rows"]
    monkeypatch.setenv("DATABASE_URL", postgres)
    monkeypatch.setenv("KIKI_REPLICA", "one")
    monkeypatch.setenv("KIKI_MASTER_KEY_FILE", str(data / "master.key"))
    assert vkey == run("audit", "key").stdout.strip()
    told = json.loads(run("audit", "verify", "--key", vkey, "--json").stdout)
    assert (True, 1) == (told["holds"], told["consents"])
    path = tmp_path / "b.kiki"
    assert 0 == run("audit", "bundle", "-o", path).exit_code
    assert 0 == run("audit", "verify", path, "--key", vkey).exit_code
    assert 0 == run("audit", "prove", "--event", "0000000000020000", "-o", tmp_path / "p").exit_code
    assert 0 == run("audit", "seal").exit_code
    assert 0 == run("ledger", "rotate-key", "--new-file", tmp_path / "new.key").exit_code
    monkeypatch.setenv("KIKI_MASTER_KEY_FILE", str(tmp_path / "new.key"))
    assert vkey == run("audit", "key").stdout.strip()
    doctor = json.loads(run("doctor", "--json").stdout)["checks"]
    assert {"ok"} == {each["state"] for each in doctor if each["name"] in {"key store", "tree", "checkpoints"}}


def test_where_to_is_asked_and_nothing_is_made(tmp_path: Path, monkeypatch, data: Path):
    assert 2 == run("ledger", "copy").exit_code
    monkeypatch.setenv("KIKI_DATA_DIR", str(tmp_path / "none"))
    result = run("ledger", "copy", "--to", "postgresql://kiki@127.0.0.1:1/kiki")
    assert (1, False) == (result.exit_code, (tmp_path / "none").exists())
