"""Real servers for tests: each on a free loopback port, in a directory of its own, gone at the end.

A test takes `redis` (shared, emptied before each test) unless it stops or breaks its server: then `own_redis`.
In the same way `postgres` is a fresh database on the shared server, `own_postgres` one on a server of the test's own.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

# Nothing waits so long unless something is wrong: a busy machine may be ten times slower than an idle one.
START_SECONDS = 60.0
STOP_SECONDS = 30.0
CLUSTER_SLOT_MAX = 16383
# The kernel gives ports from 32,768 on to outgoing connections: one of those could have the port before its server has it.
# A cluster node also listens on its port + 10,000.
PORTS = range(12_000, 21_000)
_given: set[int] = set()


def free_port() -> int:
    """A loopback port that nobody uses, that no outgoing connection takes, and that was not given before."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
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


class PostgresServer:
    """A PostgreSQL of its own, as durable as a real one: fsync is on. It runs as somebody else when we are root.

    `superuser` may do everything; `kiki` logs in with a password full of what a URL has to quote, owns its databases
    and may make roles. `crash` is a power cut as far as processes can have one; `start` recovers on the same port.
    """

    password = "p@ss/w:rd?#%&= 1"

    def __init__(self, *options: str) -> None:
        self.options = options
        self.host = "127.0.0.1"
        self.port = 0
        self._made = 0
        self._process: subprocess.Popen[bytes] | None = None
        # Not below pytest's directory: only root may enter that, and PostgreSQL refuses to run as root.
        self.directory = Path(tempfile.mkdtemp(prefix="kiki-postgres-"))
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._account is not None:
            os.chown(self.directory, self._account.pw_uid, self._account.pw_gid)

    @property
    def data(self) -> Path:
        """Where everything that it keeps lies."""
        return self.directory / "data"

    def _program(self, name: str) -> str:
        program = shutil.which(name) or next(
            (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None
        )
        if program is None:
            pytest.fail(f"{name} is not on PATH: run scripts/ensure_servers.sh (Debian: postgresql)")
        return program

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        account = self._account
        as_other = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, **as_other
            )

    def start(self) -> None:
        """Return when the server answers; on the port and with the data that it had before."""
        if self.is_running:
            return
        if not self.data.exists():
            secret = self.directory / "password"
            secret.write_text(self.password)
            secret.chmod(0o644)
            command = [self._program("initdb"), "-D", str(self.data), "-U", "superuser", "-E", "UTF8", "--no-sync"]
            command += ["--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={secret}"]
            assert self._start(command).wait() == 0, self.log()
        attempts = 1 if self.port else 5  # a free port may be taken between finding and using it
        for attempt in range(attempts):
            port = self.port or free_port()
            if self._launch(port):
                break
            if attempt == attempts - 1:
                pytest.fail(f"postgres did not start on port {port}:\n{self.log()}")
        if not self.port:
            self.port = port
            self.execute(f"CREATE ROLE kiki LOGIN CREATEROLE PASSWORD '{self.password}'")

    def _launch(self, port: int) -> bool:
        command = [self._program("postgres"), "-D", str(self.data), "-p", str(port), "-h", self.host]
        settings = {"unix_socket_directories": "", "shared_buffers": "32MB", "max_wal_size": "256MB", "fsync": "on"}
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = self._start([*command, *self.options])
        deadline = time.monotonic() + 2 * START_SECONDS  # it may have to recover first
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self._url(port, "superuser", "postgres"), connect_timeout=10).close()
                return True
            time.sleep(0.02)
        self.crash()
        return False

    @property
    def is_running(self) -> bool:
        """True while the process exists, paused or not."""
        return self._process is not None and self._process.poll() is None

    def crash(self) -> None:
        """Kill the server and everyone who works for it at once."""
        assert self._process is not None
        workers = self._workers()
        self._process.kill()
        _signal(workers, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + STOP_SECONDS
        while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.005)

    def stop(self) -> None:
        """End it in order, whoever is connected."""
        if self._process is None or not self.is_running:
            return
        self.resume()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(2 * STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.crash()

    def pause(self) -> None:
        """Let every connection hang, as a network that swallows packets does."""
        assert self._process is not None
        _signal([self._process.pid, *self._workers()], signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        _signal([*self._workers(), self._process.pid], signal.SIGCONT)

    def _workers(self) -> list[int]:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        return [int(child) for child in children.read_text().split()] if self.is_running else []

    def _url(self, port: int, login: str, database: str) -> str:
        return f"postgresql://{login}:{quote(self.password, safe='')}@{self.host}:{port}/{database}"

    def url(self, database: str, login: str = "kiki") -> str:
        """As `DATABASE_URL` wants it."""
        return self._url(self.port, login, database)

    def new_database(self) -> str:
        """The URL of a database that is empty and belongs to `kiki`."""
        self._made += 1
        name = f"test_{self._made}"
        self.execute(f"CREATE DATABASE {name} OWNER kiki")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove it, whoever is connected."""
        self.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """What the superuser gets for one statement."""
        with psycopg.connect(self.url(database, "superuser"), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description is not None else []

    def log(self) -> str:
        """What it wrote about itself so far."""
        return (self.directory / "log").read_text(errors="replace")

    def remove(self) -> None:
        """End it and remove everything that it kept."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
            os.kill(pid, number)


@contextlib.contextmanager
def running_postgres(*options: str) -> Iterator[PostgresServer]:
    """A started server with these extra options, gone when the block ends."""
    server = PostgresServer(*options)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The session's shared server; tests take `postgres`, a database on it."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty database on the shared server. A test that stops the server takes `own_postgres` instead."""
    url = postgres_server.new_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server of this test's own, to stop, kill, pause or misconfigure."""
    with running_postgres() as server:
        yield server
