"""The four services as processes of one supervisor: what each is told, started, looked after, and stopped together."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kiki.cli import supervised
from kiki.errors import ConfigurationError

SHIELD, VALUE, FLOW, ENGAGE = "shield", "value", "flow", "engage"
SERVICES: Final = (SHIELD, VALUE, FLOW, ENGAGE)
_GRPC: Final = ("grpc_health", "grpc_reflection")
_NEEDS: Final = {
    SHIELD: (),
    VALUE: (*_GRPC, "numpy", "pandas", "scipy", "statsmodels"),
    FLOW: _GRPC,
    ENGAGE: ("jinja2", "numpy", "scipy"),
}
"""What a service cannot be imported without, beyond the base install."""
_PORT_FIRST: Final = 10_000
_OUTGOING: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_OUTGOING_USUALLY: Final = 32_768
STOP_SECONDS: Final = 45.0
_BACKOFF_FIRST, _BACKOFF_MAX = 0.5, 10.0
_STEADY_SECONDS: Final = 30.0
"""Whoever ran so long has its backoff forgotten."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the services listen."""

    shield: int
    value: int
    value_http: int
    flow: int
    flow_grpc: int
    engage: int

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Ports:
        """As the environment has them; raises `SettingsError`. `PORT` says nothing here: there are four of them."""
        from kiki.errors import SettingsError
        from kiki.settings import FLOW_VARIABLES, UP_VARIABLES, VALUE_VARIABLES

        wanted = {
            "KIKI_SHIELD_PORT": "shield",
            "KIKI_VALUE_PORT": "value",
            "KIKI_VALUE_HTTP_PORT": "value_http",
            "KIKI_FLOW_PORT": "flow",
            "KIKI_FLOW_GRPC_PORT": "flow_grpc",
            "KIKI_ENGAGE_PORT": "engage",
        }
        ports, problems = {"value": 50051, "value_http": 9051, "flow_grpc": 50052}, []
        for variable in (*UP_VARIABLES, *VALUE_VARIABLES, *FLOW_VARIABLES):
            if variable.name in wanted and (variable.name in environ or variable.default is not None):
                try:
                    ports[wanted[variable.name]] = variable.read(environ)
                except ValueError as error:
                    problems.append(str(error))
        if problems:
            raise SettingsError(problems)
        return cls(**{name: number or _free_port() for name, number in ports.items()})

    def main(self, service: str) -> int:
        """The HTTP port of a service: where its health and its metrics are."""
        return {SHIELD: self.shield, VALUE: self.value_http, FLOW: self.flow, ENGAGE: self.engage}[service]

    def beside(self, service: str) -> int | None:
        """The gRPC port of a service that has one."""
        return {VALUE: self.value, FLOW: self.flow_grpc}.get(service)

    def all(self) -> dict[str, int]:
        """Every port with the variable that sets it."""
        return {
            "KIKI_SHIELD_PORT": self.shield,
            "KIKI_VALUE_PORT": self.value,
            "KIKI_VALUE_HTTP_PORT": self.value_http,
            "KIKI_FLOW_PORT": self.flow,
            "KIKI_FLOW_GRPC_PORT": self.flow_grpc,
            "KIKI_ENGAGE_PORT": self.engage,
        }


def environment(service: str, ports: Ports, data_dir: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """What a service is told: the caller's environment, the addresses of the others, and stores that need no server."""
    told = {name: value for name, value in environ.items() if name not in {"PORT", "KIKI_PUBLIC_PORT"}}
    told |= {
        "KIKI_DATA_DIR": str(data_dir),
        "KIKI_HOST": _host(environ),
        "SHIELD_URL": f"http://127.0.0.1:{ports.shield}/check",
        "LTV_GRPC_ADDR": f"127.0.0.1:{ports.value}",
        "PORT": str(ports.value if service == VALUE else ports.main(service)),
        "KIKI_VALUE_PORT": str(ports.value),
        "KIKI_VALUE_HTTP_PORT": str(ports.value_http),
        "KIKI_FLOW_GRPC_PORT": str(ports.flow_grpc),
    }
    if "REDIS_ADDR" not in environ:
        told.setdefault("KIKI_REDIS", "off")
    told.setdefault("AUDIT_LOG_PATH", str(data_dir / "syncengage_audit.csv"))
    return told


def _host(environ: Mapping[str, str]) -> str:
    """The loopback, or every address where that is asked for: in a container. The services find each other on the loopback."""
    wanted = environ.get("KIKI_HOST") or "127.0.0.1"
    if wanted in {"0.0.0.0", "::"}:  # noqa: S104  # somebody wrote it
        return wanted
    if wanted in {"127.0.0.1", "localhost"}:
        return "127.0.0.1"
    raise ConfigurationError(
        [f"KIKI_HOST={wanted!r}: all four together listen on 127.0.0.1, or everywhere with 0.0.0.0; set one of the two"]
    )


def missing_extras() -> dict[str, str]:
    """Services that this installation cannot run, and how to get what they need."""
    return {
        service: f"pip install 'kiki[{service}]'"
        for service, needs in _NEEDS.items()
        if any(importlib.util.find_spec(name) is None for name in needs)
    }


def require_apart(ports: Ports, services: tuple[str, ...]) -> None:
    """Raise `ConfigurationError` naming every port that two of them would have."""
    problems: list[str] = []
    taken: dict[int, str] = {}
    for variable, port in _wanted(ports, services):
        if port in taken:
            problems.append(f"{taken[port]} and {variable} are both {port}: give each port to one of them")
        taken.setdefault(port, variable)
    if problems:
        raise ConfigurationError(problems)


def require_free(ports: Ports, services: tuple[str, ...]) -> None:
    """Raise `ConfigurationError` naming every port that another process has."""
    problems: list[str] = []
    for variable, port in _wanted(ports, services):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                problems.append(f"port {port} is taken by another process: stop it, or set {variable} to another port")
    if problems:
        raise ConfigurationError(problems)


def _wanted(ports: Ports, services: tuple[str, ...]) -> list[tuple[str, int]]:
    prefixes = tuple(f"KIKI_{service.upper()}_" for service in services)
    return [(variable, port) for variable, port in ports.all().items() if variable.startswith(prefixes)]


def require_settings(environs: Mapping[str, Mapping[str, str]]) -> None:
    """Raise `SettingsError` with what the services would end over, each told once: started again, they would end again."""
    from kiki.errors import SettingsError
    from kiki.settings import EngageSettings, FlowSettings, ShieldSettings, ValueSettings

    parsers: dict[str, Callable[[Mapping[str, str]], object]] = {
        SHIELD: ShieldSettings.parse, VALUE: ValueSettings.parse, FLOW: FlowSettings.parse, ENGAGE: EngageSettings.parse
    }  # fmt: skip
    problems: list[str] = []
    for service, environ in environs.items():
        try:
            parsers[service](environ)
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(dict.fromkeys(problems))


def _free_port() -> int:
    """A port that nobody has.

    Not one that the kernel would give, because it gives the same ones to outgoing connections: one of them may have it
    by the time that the service has started, or while it is started again.
    """
    while True:
        port = _PORT_FIRST + secrets.randbelow(_port_end() - _PORT_FIRST)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _port_end() -> int:
    """Where the ports of outgoing connections begin."""
    try:
        begin = int(_OUTGOING.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _OUTGOING_USUALLY
    return begin if begin > 2 * _PORT_FIRST else _OUTGOING_USUALLY


@dataclass(slots=True)
class Member:
    """One service and its process."""

    service: str
    environ: Mapping[str, str]
    log: Path | None
    """Where it writes; None: where we do."""
    keeps: int | None = None
    """A descriptor that it holds open as long as it runs."""
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restarts: int = 0
    last_exit: int | None = None
    again_at: float = 0.0
    backoff: float = _BACKOFF_FIRST

    def start(self) -> None:
        """Begin a process."""
        if self.process is not None:
            supervised.let_go(self.process)
        self.started_at = time.monotonic()
        with nullcontext() if self.log is None else self.log.open("ab") as output:
            self.process = supervised.begin(["serve", self.service], self.environ, output, self.keeps)

    @property
    def pid(self) -> int | None:
        """Of the process, while it runs."""
        return None if self.process is None or self.process.poll() is not None else self.process.pid

    def last_words(self) -> str:
        """Why it ended: the error that it ended with, with all its lines and its hint, else the last line that it logged."""
        if self.log is None or not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode(errors="replace").strip().splitlines()
        # What is logged is JSON; an error is said after it, in lines of its own.
        last_json = max((place for place, line in enumerate(lines) if line.startswith("{")), default=-1)
        errors = [place for place, line in enumerate(lines) if line.startswith("error: ") and place > last_json]
        begin = errors[-1] if errors else -1
        return " ".join(line.strip() for line in lines[begin:])[:300] if lines else ""


@dataclass(slots=True)
class Fleet:
    """Keeps its members running until it is stopped. `say` hears what happens to them."""

    members: list[Member]
    say: Callable[[str], None]
    _stopping: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Start again whoever ended, with growing patience."""
        now = time.monotonic()
        for member in self.members:
            process = member.process
            if process is None or (code := process.poll()) is None:
                if now - member.started_at > _STEADY_SECONDS:
                    member.backoff = _BACKOFF_FIRST
                continue
            if member.last_exit is None:
                member.last_exit, member.again_at = code, now + member.backoff
                member.backoff = min(2 * member.backoff, _BACKOFF_MAX)
                why = f": {words}" if (words := member.last_words()) else ""
                self.say(
                    f"{member.service} ended with {code}; it is started again in {member.again_at - now:.1f} s{why}"
                )
            elif now >= member.again_at:
                member.last_exit = None
                member.restarts += 1
                member.start()

    def stop(self) -> None:
        """Ask all to end, callers before those they call, and wait until each has answered what it took."""
        for member in reversed(self.members):
            if member.process is not None and member.process.poll() is None:
                member.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for member in self.members:
            if member.process is None:
                continue
            try:
                member.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"{member.service} does not end and is killed; what it acknowledged is durable")
                member.process.kill()
                member.process.wait()
            supervised.let_go(member.process)


@contextmanager
def running(members: list[Member], say: Callable[[str], None]) -> Iterator[Fleet]:
    """The members started; stopped when the context is left, however that happens."""
    fleet = Fleet(members, say)
    try:
        for member in members:
            member.start()
        yield fleet
    finally:
        fleet.stop()
