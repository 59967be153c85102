"""What README.md and CONTRIBUTING.md say is there: commands, targets, links, files, and the lines of Python that a stranger types first."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from kiki.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def typed() -> list[str]:
    """Every line that the page asks a reader to type: console blocks, and code spans of our own programs."""
    blocks = re.findall(r"^```console\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
    return lines + re.findall(r"`((?:kiki|make) [^`|]+)`", prose)


def commands(program: str) -> list[list[str]]:
    """The words of every command of one program, without its name."""
    parts = [part for line in typed() for part in re.split(r"&&", line)]
    words = [shlex.split(part, comments=True) for part in parts]
    return [found[1:] for found in words if found and found[0] == program]


def test_the_page_shows_enough_to_check():
    assert len(commands("kiki")) >= 10
    assert len(commands("make")) >= 3


@pytest.mark.parametrize("words", commands("kiki"), ids=" ".join)
def test_every_command_can_be_typed(words: list[str]):
    command, path = typer.main.get_command(app), "kiki"
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"{path} has no {words[0]}"
        command, path, words = command.commands[words[0]], f"{path} {words[0]}", words[1:]
    command.make_context(path, words)  # parses, and runs nothing


def test_every_example_that_is_typed_is_there():
    named = [word for words in commands("kiki") for word in words if word.startswith("examples/")]
    assert len(named) >= 2
    assert [word for word in named if not (ROOT / word).is_file()] == []


def test_every_target_is_made_by_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {words[0] for words in commands("make")} <= targets


def test_every_link_leads_somewhere():
    for page in (README, CONTRIBUTING):
        for target in re.findall(r"\]\(([^)#\s]+)", page):
            assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_first_lines_of_python_run(tmp_path: Path):
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    command = [sys.executable, "-c", "\n".join(blocks)]
    environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr


def test_the_map_names_files_that_there_are():
    rows = re.findall(r"^\| `(kiki/\w+/)`[^|]*\|(.*)\|$", CONTRIBUTING, re.MULTILINE)
    assert {folder for folder, _ in rows} == {
        f"kiki/{name}/" for name in ("shield", "ledger", "value", "flow", "engage", "outbound", "chart")
    }
    for folder, cells in rows:
        for name in re.findall(r"`([\w/*]+)`", cells):
            place = ROOT / folder / name.removesuffix("*")
            assert place.is_dir() or place.with_suffix(".py").is_file(), f"{folder}{name}"
