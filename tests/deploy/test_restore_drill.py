"""The drill of docs/deploy/backup.md: what is restored is verified, and what does not hold is said not to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from kiki.shield.budget_guard import BudgetGuard
from tests.acceptance.serving import Shield
from tests.deploy.renders import ROOT

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


def drill(*arguments: str) -> tuple[int, dict, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "restore_drill.py"), *arguments],
        capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    with BudgetGuard.open(data / "shield.db", limit="500", window="60s") as guard:
        for number in range(20):
            guard.spend("1", scopes={"platform": "meta", "customer": f"c-{number}"})
    return data


def test_an_embedded_ledger_comes_back_while_it_is_open(ledger: Path):
    with BudgetGuard.open(ledger / "shield.db", limit="500", window="60s") as guard:
        guard.spend("1")
        code, told, words = drill("drill", "--data-dir", str(ledger))
    assert (code, told.get("holds")) == (0, True), words
    assert told["keys"] == "opened"
    assert told["verify"]["entries"] >= 21


def test_a_backup_is_restored_and_the_wrong_key_is_noticed(ledger: Path, tmp_path: Path):
    backup = tmp_path / "backup"
    assert drill("backup", "--data-dir", str(ledger), "--to", str(backup))[0] == 0
    assert {path.name for path in backup.iterdir()} == {"shield.db", "shield-subjects.db"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in backup.iterdir())
    key = ledger / "master.key"
    assert drill("drill", "--backup", str(backup), "--master-key-file", str(key))[0] == 0
    other = tmp_path / "other.key"
    other.write_text(KEY)
    other.chmod(0o600)
    code, told, _ = drill("drill", "--backup", str(backup), "--master-key-file", str(other))
    assert code == 3
    assert "master key" in told["keys"]


def test_an_altered_backup_does_not_hold(ledger: Path, tmp_path: Path):
    backup = tmp_path / "backup"
    drill("backup", "--data-dir", str(ledger), "--to", str(backup))
    with apsw.Connection(str(backup / "shield.db")) as database:
        database.execute("DELETE FROM entry WHERE seq = (SELECT seq FROM entry ORDER BY seq DESC LIMIT 1 OFFSET 3)")
        assert database.changes() == 1
    code, told, _ = drill("drill", "--backup", str(backup), "--master-key-file", str(ledger / "master.key"))
    assert (code, told["holds"]) == (3, False)
    assert told["verify"]["message"]


def test_what_cannot_be_tried_says_why(tmp_path: Path):
    for arguments, words in (
        (["drill"], "name what to restore"),
        (["drill", "--data-dir", str(tmp_path)], "there is no master key"),
        (["backup", "--data-dir", str(tmp_path), "--to", str(tmp_path / "b")], "holds no shield.db"),
        (["drill", "--database-url", "postgresql://nobody@127.0.0.1:1/x"], "--master-key-file"),
    ):
        code, told, said = drill(*arguments)
        assert (code, told) == (1, {})
        assert words in said


def test_a_shared_ledger_comes_back_into_another_database(postgres: str, postgres_server, tmp_path: Path):
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    shield = Shield(tmp_path / "shield", DATABASE_URL=postgres, KIKI_MASTER_KEY_FILE=str(key), KIKI_REPLICA="one")
    shield.start()
    try:
        for _ in range(5):
            assert shield.status("/spend?amount=1") == 200
        given = ["drill", "--database-url", postgres, "--master-key-file", str(key)]
        assert "--scratch-url" in drill(*given)[2]
        code, told, words = drill(*given, "--scratch-url", postgres_server.url("postgres", "superuser"))
    finally:
        shield.close()
    assert (code, told.get("holds")) == (0, True), (told, words)
    assert told["verify"]["entries"] >= 5
