"""The guide's Quick Start, from docs/guide-coverage.md: three terminals, each line as it stands there, on free ports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.architecture.test_guide_coverage import ROWS
from tests.servers import free_port

ROOT = Path(__file__).parents[2]
ROW = {row.guide: row for row in ROWS}
TERMINAL_1 = "PORT=8081 REDIS_ADDR=localhost:6379 go run ."
TERMINAL_2 = "SHIELD_URL=http://localhost:8081/check go run ."
CURL = 'curl() { command curl --silent --show-error --write-out " %{http_code}\\n" "$@"; }\n'


class Terminals:
    """A place where the guide's ports stand for free ones."""

    def __init__(self, directory: Path, redis_port: int) -> None:
        self.directory = directory
        self.ports = {"8081": str(free_port()), "8083": str(free_port()), "6379": str(redis_port)}
        program = directory / "bin" / "kiki"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kiki "$@"\n')
        program.chmod(0o755)

    def words(self, typed: str) -> list[str]:
        """What bash is given: the line, with this machine's ports."""
        text = typed.replace(" ⏎ ", "\n")
        for port, ours in self.ports.items():
            text = re.sub(
                rf"localhost:{port}\b|(?<=PORT=){port}\b", lambda at, p=port, o=ours: at[0].replace(p, o), text
            )
        return ["bash", "-ec", CURL + text]

    def environ(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KIKI_", "PORT", "REDIS_"))}
        kept |= {"PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        # A busy machine's Redis may answer late; the guide's lines say nothing of how long that is waited for.
        kept |= {"KIKI_REDIS_TIMEOUT_SECONDS": "30"}
        return kept | {"LTV_GRPC_ADDR": f"localhost:{free_port()}"} | more

    @contextmanager
    def serving(self, typed: str, port: str, **more: str) -> Iterator[None]:
        """The service of one terminal, until the block ends."""
        log = self.directory / f"log-{port}"
        with log.open("wb") as out:
            process = subprocess.Popen(
                self.words("exec env " + typed), cwd=self.directory, env=self.environ(**more),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while True:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                try:
                    if httpx.get(f"http://127.0.0.1:{self.ports[port]}/health").status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield
        finally:
            process.terminate()
            code = process.wait(60)
        assert code == 0, log.read_text()

    def type(self, typed: str) -> str:
        """What a line prints, the statuses of its answers too."""
        done = subprocess.run(
            self.words(typed), cwd=self.directory, env=self.environ(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def shows(self, typed: str, word: str, times: int) -> bool:
        """Whether a line prints a word so often, now or soon: the view follows the ledger in a process of its own."""
        deadline = time.monotonic() + 60
        while self.type(f"{typed} || true").count(word) < times:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


def instead_of(typed: str) -> str:
    """Our line for one of the guide's."""
    row = ROW[typed]
    assert row.state == "superseded"
    (found,) = re.findall(r"`([^`]+)`", row.why)
    return found


@pytest.fixture
def terminals(tmp_path: Path, redis) -> Terminals:
    redis.command("CONFIG SET maxmemory-policy noeviction")
    return Terminals(tmp_path, redis.port)


def test_the_three_terminals(terminals: Terminals):
    with (
        terminals.serving(instead_of(TERMINAL_1), "8081"),
        terminals.serving(instead_of(TERMINAL_2), "8083", PORT=terminals.ports["8083"]),
    ):
        spent = terminals.type('for i in {1..6}; do ⏎ curl "http://localhost:8081/spend?amount=100" ⏎ done')
        assert re.findall(r" (\d{3})$", spent, re.MULTILINE) == ["200"] * 5 + ["403"]
        assert terminals.type('curl "http://localhost:8081/check?ltv=600"  # Expect 403').endswith(" 403\n")
        # What it says of Docker Compose are the same services.
        assert terminals.type('curl "http://localhost:8081/health"').endswith(" 200\n")
        engage = terminals.type('curl "http://localhost:8083/health"')
        assert engage.endswith(" 200\n")
        assert "SyncEngage" in engage
        # The default data directory, as somebody who typed the lines finds it.
        inside = "cd kiki-data && "
        assert terminals.shows(inside + "cat shield_audit_gdpr.csv", "budget_decision", 6)
        assert terminals.shows(inside + 'grep "DENIED" shield_audit_gdpr.csv', "DENIED", 2)


def test_every_line_above_is_a_row_that_works():
    source = Path(__file__).read_text(encoding="utf-8")
    for row in ROWS:
        if row.kind == "command" and row.state == "works" and "localhost:808" in row.guide:
            assert repr(row.guide)[1:-1] in source or row.guide in source, row.guide
