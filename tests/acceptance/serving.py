"""A real `kiki serve shield` for tests: on a free port, in a directory of its own, asked by plain HTTP clients."""

from __future__ import annotations

import csv
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kiki
from kiki.ledger.sqlite import SqliteReader
from kiki.shield.evidence import find_rows
from kiki.web.serving import QUIET_SECONDS

# Nothing waits so long unless something is wrong: a busy machine may be ten times slower than an idle one.
START_SECONDS = END_SECONDS = 60.0
ROOT = Path(kiki.__file__).resolve().parents[1]


class Shield:
    """One process of the service. `start` gives it a new process in the same directory."""

    service = "shield"
    program = ("-m", "kiki")

    def __init__(self, directory: Path, **environ: str) -> None:
        self.directory = directory
        self.data = directory / "data"
        # Whatever Redis runs on the machine by chance is none of a test's business.
        self.environ = {
            "PYTHONPATH": str(ROOT),
            "PORT": "0",
            "KIKI_DATA_DIR": str(self.data),
            "KIKI_REDIS": "off",
        } | environ
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.public_port: int | None = None
        self._starts = 0

    @property
    def log_path(self) -> Path:
        """What the latest process wrote to stdout and stderr."""
        return self.directory / f"log-{self._starts}"

    def log(self) -> str:
        return self.log_path.read_text()

    def lines(self) -> list[dict]:
        """The log as JSON; a line that is none fails the test, unless it is the last one and still being written."""
        *whole, torn = self.log().split("\n")
        return [json.loads(line) for line in [*whole, *([torn] if torn and self.process.poll() is not None else [])]]

    def launch(self) -> None:
        """Start a process and do not wait for anything."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._starts += 1
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program, "serve", self.service],
                cwd=self.directory,
                env=os.environ | self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def start(self) -> None:
        """Start a process and return when it listens."""
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in self.lines():
                if line["event"] == "listening":
                    self.port, self.public_port = line["port"], line["public_port"]
                    return
            time.sleep(0.02)
        raise AssertionError(f"the service did not start:\n{self.log()}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = END_SECONDS) -> int:
        """The exit code."""
        return self.process.wait(seconds)

    def refuse_to_start(self) -> tuple[int, str]:
        """The exit code and the words of a start that must fail."""
        self.launch()
        return self.wait(), self.log()

    def close(self) -> None:
        """End it whatever it does."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def ask(self, path: str, method: str = "GET", body=None, *, port: int | None = None, **headers: str):
        """Status, body and headers of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=END_SECONDS)
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            data = None
            if body is not None:
                data, given["Content-Type"] = json.dumps(body), "application/json"
            connection.request(method, path, data, given)
            response = connection.getresponse()
            return response.status, response.read().decode(), dict(response.headers)
        finally:
            connection.close()

    def status(self, path: str, **given) -> int:
        return self.ask(path, **given)[0]

    def until(self, path: str, wanted: int, seconds: float = END_SECONDS) -> float:
        """Ask until the answer has this status; how long that took."""
        started = time.monotonic()
        while self.status(path) != wanted:
            assert time.monotonic() - started < seconds, self.ask(path)
            time.sleep(0.03)
        return time.monotonic() - started

    def ledger_ids(self) -> list[str]:
        """The ids of all decisions that are durable."""
        reader = SqliteReader(self.data / "shield.db")
        try:
            return [row.event_id for row in find_rows(reader, decisions=True)]
        finally:
            reader.close()

    def csv_ids(self) -> list[str]:
        """The ids in the live view of the audit, none before its process has begun it."""
        path = self.data / "shield_audit_gdpr.csv"
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return [row["event_id"] for row in csv.DictReader(file)]


PATIENT = """
import runpy
from kiki.engage import shield_line
shield_line.CLIENT_TIMEOUT = 60.0
runpy.run_module("kiki", run_name="__main__", alter_sys=True)
"""


class Engage(Shield):
    """The same kind of process, with another service in it, which waits for a busy machine's shield longer than usual."""

    service = "engage"
    program = ("-c", PATIENT)


@contextmanager
def shield_in(directory: Path, **environ: str) -> Iterator[Shield]:
    """A started service, ended with the block."""
    shield = Shield(directory, **environ)
    try:
        shield.start()
        yield shield
    finally:
        shield.close()


class Load:
    """Clients that spend on kept connections, one request after the other, until the service is gone."""

    def __init__(self, shield: Shield, clients: int = 8, path: str = "/spend?amount=0.01") -> None:
        self.acknowledged: list[str] = []
        self.statuses: list[int] = []
        self.dropped: list[str] = []
        """Requests that were sent on an open connection and never answered, though soon after the one before."""
        self._shield, self._path, self._port = shield, path, shield.port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=END_SECONDS)
            opened = time.monotonic()
            try:
                connection.connect()
            except OSError:
                return
            self._spend_on(connection, opened)
            connection.close()
            if self.dropped:
                return

    def _spend_on(self, connection: http.client.HTTPConnection, opened: float) -> None:
        asked: float | None = opened
        while not self._stop.is_set():
            before, asked = asked, None
            try:
                connection.request("GET", self._path, headers={"Accept": "application/json"})
                asked = time.monotonic()
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                # Who was kept from asking for so long, as a busy machine may do, has no promise. The service counts from
                # its answer, which was some time after the question before.
                if (asked or time.monotonic()) - before < 0.9 * QUIET_SECONDS:
                    self.dropped.append(repr(error))
                return
            self.statuses.append(response.status)
            if response.status in {200, 403}:
                self.acknowledged.append(json.loads(body)["event_id"])
            if response.getheader("Connection") == "close":
                return

    def until(self, answers: int) -> None:
        """Wait for so many answers."""
        deadline = time.monotonic() + END_SECONDS
        while len(self.statuses) < answers:
            assert time.monotonic() < deadline, (len(self.statuses), self.dropped)
            time.sleep(0.01)

    def join(self) -> None:
        """Wait until every client has seen the service go."""
        for thread in self._threads:
            thread.join(END_SECONDS)
            assert not thread.is_alive()
