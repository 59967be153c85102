"""The commands of docs/evidence.md work as they stand, and print what stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from typer.testing import CliRunner

from kiki.cli.main import app
from kiki.shield.budget_guard import BudgetGuard

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def sessions():
    """Every command on the page, with the lines that stand under it."""
    for block in BLOCK.findall(PAGE.read_text()):
        for command, _, shown in (part.partition("\n") for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]):
            yield command, shown


def test_an_auditor_can_do_what_the_page_says(tmp_path: Path, monkeypatch):
    with BudgetGuard.open(tmp_path / "kiki-data" / "shield.db", limit="100") as guard:
        guard.consents.grant("c-1", "marketing")
        guard.spend("30", ["customer:c-1"], purpose="marketing")
    monkeypatch.chdir(tmp_path)
    done = []
    for command, shown in sessions():
        words = shlex.split(command)
        assert "kiki" == words[0]
        target = words[words.index(">") + 1] if ">" in words else None
        result = CliRunner().invoke(app, words[1 : words.index(">")] if target else words[1:])
        assert 0 == result.exit_code, (command, result.output)
        if target:
            Path(target).write_text(result.stdout)
        pattern = ".*".join(map(re.escape, shown.split("…")))
        assert re.fullmatch(pattern, "" if target else result.stdout), (command, result.stdout)
        done.append(words[2])
    assert ["key", "bundle", "verify", "verify", "prove", "verify"] == done
