"""`.ci/run`: red is red; a few tests that failed are run once more, alone, and named."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "run"
MAKE = """#!/bin/sh
echo "$@" >> calls
cat "answer.$(wc -l < calls)"
exit "$(cat "status.$(wc -l < calls)")"
"""
GREEN = "=== 11200 passed, 2 skipped in 1161.13s (0:19:21) ==="
RED = "=== {} failed, 11200 passed in 1161.13s (0:19:21) ==="
AGAIN = "=== 1 passed, 11200 deselected in 9.01s ==="


def failing(*names):
    return "\n".join([*(f"FAILED tests/{name} - assert 1 == 2" for name in names), RED.format(len(names))])


def run(path, *answers):
    """The lines that the script prints, its exit code and how it called `make`, which gives these texts and codes in turn."""
    (path / ".ci").mkdir()
    shutil.copy(SCRIPT, path / ".ci" / "run")
    make = path / "bin" / "make"
    make.parent.mkdir()
    make.write_text(MAKE)
    make.chmod(0o755)
    for number, (text, status) in enumerate(answers, start=1):
        (path / f"answer.{number}").write_text(f"{text}\n")
        (path / f"status.{number}").write_text(str(status))
    environment = os.environ | {"PATH": f"{make.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", ".ci/run"], cwd=path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.splitlines(), done.returncode, (path / "calls").read_text().splitlines()


def test_green_is_one_run_that_ends_with_pytests_line(tmp_path):
    lines, status, calls = run(tmp_path, (GREEN, 0))
    assert (GREEN, 0) == (lines[-1], status)
    assert ["--no-print-directory lint test"] == calls


def test_what_passes_alone_is_named_as_unsteady(tmp_path):
    lines, status, calls = run(tmp_path, (failing("a/test_b.py::test_c[1 - 2]"), 2), (AGAIN, 0))
    assert (AGAIN, 0) == (lines[-1], status)
    assert any(line.startswith("UNSTEADY tests/a/test_b.py::test_c[1 - 2]") for line in lines)
    assert ["--no-print-directory test ARGS=--last-failed --last-failed-no-failures=none"] == calls[1:]


def test_what_fails_again_is_red(tmp_path):
    lines, status, calls = run(tmp_path, (failing("a/test_b.py::test_c"), 2), (failing("a/test_b.py::test_c"), 2))
    assert (RED.format(1), 2, 2) == (lines[-1], status, len(calls))
    assert not any(line.startswith("UNSTEADY") for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(failing(*(f"test_{letter}.py::test_x" for letter in "abcd")), id="four failed"),
        pytest.param(f"ERROR tests/test_a.py::test_x\n{failing('test_b.py::test_x')}", id="one failed beside an error"),
        pytest.param("kiki/money.py:1: error: Missing return statement", id="types"),
        pytest.param("make: *** no rule", id="no tests at all"),
    ],
)
def test_everything_else_is_red_at_once(tmp_path, text):
    _, status, calls = run(tmp_path, (text, 2))
    assert (2, 1) == (status, len(calls))
