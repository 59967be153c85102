"""Real servers for tests: each on a free loopback port, in a directory of its own, gone at the end.

A test takes `redis` (shared, emptied before each test) unless it stops or breaks its server: then `own_redis`.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

START_SECONDS = 10.0
STOP_SECONDS = 5.0
CLUSTER_SLOT_MAX = 16383
# A cluster node also listens on its port + 10,000, so that must stay below 65,536.
PORT_MAX = 55_000


def free_port() -> int:
    """A loopback port that nobody uses at this moment."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < PORT_MAX:
            return port


class RedisServer:
    """One redis-server process that keeps nothing on disk unless it is told to SAVE.

    `stop` and `start` keep the port, so that a client's address stays right. A snapshot that a test wrote
    with SAVE is loaded by the next `start`: that is how a Redis comes back older than it was.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        self.host = "127.0.0.1"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """As `REDIS_ADDR` wants it."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """As a client library wants it."""
        return f"redis://{self.host}:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id, for tests that send signals themselves."""
        assert self._process is not None, "this redis-server was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """True while the process exists, paused or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Return when the server answers; on the port it had before, if it had one."""
        if self.is_running:
            return
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("redis-server is not on PATH: run scripts/ensure_servers.sh (Debian: redis-server)")
        self.directory.mkdir(parents=True, exist_ok=True)
        attempts = 1 if self.port else 5  # a free port may be taken between finding and using it
        for attempt in range(attempts):
            port = self.port or free_port()
            if self._launch(program, port):
                self.port = port
                return
            if attempt == attempts - 1:
                pytest.fail(f"redis-server did not start on port {port}:\n{self.log()}")

    def _launch(self, program: str, port: int) -> bool:
        command = [program, "--port", str(port), "--bind", self.host, "--dir", str(self.directory)]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "notice", *self.options]
        with (self.directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if self._ask(port, "PING") == "+PONG":
                    return True
            time.sleep(0.01)
        self.kill()
        return False

    def stop(self) -> None:
        """End it in order; what was in memory is gone."""
        if self._process is None:
            return
        if self.is_running:
            self.resume()
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is None:
            return
        if self.is_running:
            self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Let it accept connections and answer nothing: SIGSTOP, a partition as a client sees it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def restart_empty(self) -> None:
        """Come back on the same port, knowing nothing."""
        self.kill()
        for snapshot in self.directory.glob("*.rdb"):
            snapshot.unlink()
        self.start()

    def flush(self) -> None:
        """Forget every key and every loaded script."""
        self.command("FLUSHALL")
        self.command("SCRIPT FLUSH")

    def command(self, line: str) -> str:
        """The first line of the answer to one inline command, `+OK` for example; a Redis error fails the test."""
        answer = self._ask(self.port, line)
        assert not answer.startswith("-"), f"{line}: {answer}"
        return answer

    def log(self) -> str:
        """What it wrote about itself so far."""
        path = self.directory / "redis.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _ask(self, port: int, line: str) -> str:
        with socket.create_connection((self.host, port), timeout=STOP_SECONDS) as connection:
            connection.sendall(line.encode() + b"\r\n")
            with connection.makefile("rb") as answers:
                return answers.readline().decode().rstrip()


@contextlib.contextmanager
def running_redis(directory: Path, *options: str) -> Iterator[RedisServer]:
    """A started server with these extra options, gone when the block ends."""
    server = RedisServer(directory, *options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The session's shared server; tests take `redis`, which empties it first."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(redis_server: RedisServer) -> RedisServer:
    """The shared server, empty. A test that stops or pauses it takes `own_redis` instead."""
    redis_server.start()
    redis_server.resume()
    redis_server.flush()
    return redis_server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test's own, to stop, pause, empty or misconfigure."""
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def redis_cluster(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis Cluster of one node that owns every slot: it refuses what crosses slots, as a large one would."""
    options = ("--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1")
    with running_redis(tmp_path / "redis-cluster", *options) as server:
        server.command(f"CLUSTER ADDSLOTSRANGE 0 {CLUSTER_SLOT_MAX}")
        deadline = time.monotonic() + START_SECONDS
        while "cluster_state:ok" not in _cluster_info(server):
            assert time.monotonic() < deadline, f"the cluster did not become ready:\n{server.log()}"
            time.sleep(0.02)
        yield server


def _cluster_info(server: RedisServer) -> str:
    with socket.create_connection((server.host, server.port), timeout=STOP_SECONDS) as connection:
        connection.sendall(b"CLUSTER INFO\r\n")
        with connection.makefile("rb") as answers:
            size = int(answers.readline()[1:])
            return answers.read(size).decode()
