"""The four services as pods: what the Dockerfile installs, run as the chart tells it to, under bubblewrap (tests/deploy/image.py).

IMAGE names a virtual environment that has kiki already; without it the Dockerfile's own lines make one below `.cache`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from bench.measure import Row
from kiki.web.serving import QUIET_SECONDS
from tests.deploy.image import DOCKERFILE, Installed, Pod, with_database
from tests.deploy.renders import ROOT, Engine, layers
from tests.servers import PostgresServer, RedisServer, running_postgres, running_redis

STARTS = 5
RESTARTS = 20
CLIENTS = 8
READY_SECONDS = 2.0


def built() -> Installed:
    """The environment that the image holds, made by the lines that make it there."""
    if given := os.environ.get("IMAGE"):
        return Installed.at(Path(given))
    prefix = ROOT / ".cache" / "image"
    if not prefix.exists():
        subprocess.run([sys.executable, "-m", "venv", str(prefix)], check=True)
    for line in re.findall(r"/opt/kiki/bin/pip (install .*?)(?: \\)?$", DOCKERFILE, re.MULTILINE):
        words = [word.strip('"') for word in line.split()]
        subprocess.run([str(prefix / "bin" / "pip"), "--quiet", *words], cwd=ROOT, check=True)
    return Installed.at(prefix)


def production(engine: Engine) -> list[dict[str, Any]]:
    """What the production profile renders, without a collector and a bucket, which only a cluster has."""
    return engine.objects(layers("prod", "otel.enabled=false", "audit.shipTo="))


@contextlib.contextmanager
def databases(directory: Path) -> Iterator[tuple[PostgresServer, RedisServer]]:
    """What production finds outside of the chart."""
    with running_redis(directory, "--maxmemory-policy", "noeviction") as redis, running_postgres() as postgres:
        yield postgres, redis


PATIENT = {"KIKI_REDIS_TIMEOUT_SECONDS": "5"}
"""No answer of Redis comes too late on a busy machine: that is another matter than a restart."""


def shield_pod(
    found: list[dict[str, Any]], directory: Path, url: str, redis: str, installed: Installed | None = None
) -> Pod:
    """SyncShield with a database and a Redis of this machine."""
    pod = Pod.of(found, "syncshield", directory, installed, REDIS_ADDR=redis, **PATIENT, **with_database({}, url))
    del pod.environ["REDIS_PASSWORD"]  # the chart says that it may be absent
    return pod


class Clients:
    """Spends on kept connections, one after the other. A refused connection is tried again; nothing else ever is."""

    def __init__(self, url: str, count: int = CLIENTS) -> None:
        self.acknowledged: list[str] = []
        self.lost: list[str] = []
        """What was sent, or was to be sent on a connection that stood, and got no answer or a wrong one."""
        parts = urlsplit(url)
        self._where = (str(parts.hostname), int(parts.port or 0))
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def until(self, more: int, seconds: float = 60.0) -> None:
        """Return when so many more are answered."""
        wanted, deadline = len(self.acknowledged) + more, time.monotonic() + seconds
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < deadline, f"{len(self.acknowledged)} answered, lost: {self.lost[:3]}"
            time.sleep(0.01)

    def _run(self) -> None:
        while not self._stop.is_set():
            connection = http.client.HTTPConnection(*self._where, timeout=60)
            try:
                connection.connect()
            except ConnectionRefusedError:
                time.sleep(0.01)
                continue
            except OSError as error:
                self.lost.append(f"connecting: {error!r}")
                continue
            self._spend_on(connection)
            connection.close()

    def _spend_on(self, connection: http.client.HTTPConnection) -> None:
        heard = time.monotonic()
        while not self._stop.is_set():
            idle = time.monotonic() - heard
            try:
                connection.request("GET", "/spend?amount=0.01", headers={"Accept": "application/json"})
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                # Who was kept from asking for so long, as a busy machine may do, has no promise.
                if idle < 0.9 * QUIET_SECONDS:
                    self.lost.append(repr(error))
                return
            heard = time.monotonic()
            if response.status not in {200, 403}:
                self.lost.append(f"{response.status} {body.decode()}")
                return
            self.acknowledged.append(json.loads(body)["event_id"])
            if response.getheader("Connection") == "close":
                return


@dataclass
class Restarted:
    """What came of many restarts."""

    acknowledged: int = 0
    lost_requests: list[str] = field(default_factory=list)
    lost_decisions: int = 0
    holds: bool = False
    codes: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def restarts(pod: Pod, count: int, clients: int = CLIENTS) -> Restarted:
    """SIGTERM under load, so often; then every answer is looked for in the ledger, and the ledger is verified."""
    found = Restarted(seconds=[pod.start()])
    with Clients(pod.url, clients) as load:
        for _ in range(count):
            load.until(50)
            found.codes.append(pod.stop())
            found.seconds.append(pod.start())
        load.until(50)
    export = pod.exec("kiki", "audit", "export", "--json")
    assert export.returncode == 0, export.stderr
    there = {json.loads(line)["event_id"] for line in export.stdout.splitlines()}
    verified = pod.exec("kiki", "audit", "verify", "--json")
    found.codes.append(pod.stop())
    found.acknowledged, found.lost_requests = len(load.acknowledged), load.lost
    found.lost_decisions = len(set(load.acknowledged) - there)
    found.holds = verified.returncode == 0 and bool(json.loads(verified.stdout)["holds"])
    return found


def _started(pod: Pod) -> Row:
    """One service begun several times; it runs when this returns."""
    seconds, used = [], []
    for number in range(STARTS):
        seconds.append(pod.start())
        used.append(pod.cpu_seconds())
        if number < STARTS - 1:
            code = pod.stop()
            assert code == 0, pod.log.read_text()
    median = statistics.median(seconds)
    return Row(
        f"{pod.name}: ready (median of {STARTS}, the slowest {max(seconds):.2f} s, processor {statistics.median(used):.2f} s)",
        f"{median:.2f} s",
        f"< {READY_SECONDS:.0f} s",
        median < READY_SECONDS,
    )


def _looked_at(pod: Pod) -> Row:
    """The guide's two commands, as `kubectl exec` runs them."""
    http.client.HTTPConnection(str(urlsplit(pod.url).hostname), urlsplit(pod.url).port).request(
        "GET", "/spend?amount=9999"
    )
    deadline = time.monotonic() + 10
    while (grep := pod.exec("grep", "DENIED", "shield_audit_gdpr.csv")).returncode and time.monotonic() < deadline:
        time.sleep(0.05)
    works = "DENIED" in grep.stdout and grep.stdout in pod.exec("cat", "shield_audit_gdpr.csv").stdout
    told = "yes" if works else "no"
    return Row(
        "`cat` and `grep DENIED shield_audit_gdpr.csv` in the working directory show the refusal", told, "yes", works
    )


def run() -> list[Row]:
    """All rows of this part."""
    installed, engine = built(), Engine()
    found = production(engine)
    engine.close()
    with tempfile.TemporaryDirectory() as folder, databases(Path(folder)) as (postgres, redis):
        directory = Path(folder)
        with shield_pod(found, directory / "shield", postgres.new_database(), redis.address, installed) as shield:
            told = restarts(shield, RESTARTS)
            rows = [_started(shield), _looked_at(shield)]
            with Pod.of(found, "syncvalue", directory / "value", installed) as value:
                rows.append(_started(value))
                others = {
                    "SHIELD_URL": f"{shield.url}/check",
                    "LTV_GRPC_ADDR": f"127.0.0.1:{value.ports['KIKI_VALUE_PORT']}",
                }
                for name in ("syncflow", "syncengage"):
                    database = with_database({}, postgres.new_database())
                    with Pod.of(found, name, directory / name, installed, **others, **database) as pod:
                        rows.append(_started(pod))
    lost = len(told.lost_requests)
    for problem in told.lost_requests[:5]:
        print(problem)
    return [
        *rows,
        Row(
            f"{RESTARTS} SIGTERM restarts of syncshield under {CLIENTS} clients: {told.acknowledged:,} decisions acknowledged",
            f"{lost} requests lost, {told.lost_decisions} decisions lost",
            "0 and 0",
            not lost and not told.lost_decisions and set(told.codes) == {0},
        ),
        Row("its ledger afterwards verifies", "yes" if told.holds else "no", "yes", told.holds),
    ]
