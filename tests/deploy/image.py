"""A rendered container without a container engine: bubblewrap makes the pod's world around the command of the image.

A root that cannot be written to, uid 10001, no capability, pid 1; only the volumes that the chart mounts, where it mounts
them, with what it renders as environment and working directory. What is not as in a cluster: the network is this machine's,
so ports are free ones, and the root holds this machine's Python and the installed kiki instead of the image's layers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import httpx

from tests.deploy.renders import ROOT, named
from tests.deploy.rules import environ_of
from tests.servers import free_port

TOKEN = "0123456789abcdef0123456789abcdef"
UID = 10001
SECONDS = 90.0
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
PORTS = ("PORT", "KIKI_PUBLIC_PORT", "KIKI_VALUE_PORT", "KIKI_VALUE_HTTP_PORT", "KIKI_FLOW_GRPC_PORT")


def fill_keys(keys: Path) -> None:
    """The mounted Secret `kiki-keys`, readable by the pod's group alone, as Kubernetes mounts it."""
    keys.mkdir(exist_ok=True)
    (keys / "kiki_master_key").write_text("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
    (keys / "kiki_shield_token").write_text(TOKEN)
    (keys / "kiki_tokens").write_text(
        f"tokens:\n  - {{name: services, token: {TOKEN}, roles: [read, spend, privacy]}}\n"
    )
    for path in keys.iterdir():
        path.chmod(0o440)


def with_database(environ: dict[str, str], url: str) -> dict[str, str]:
    """The environment with a real database in place of the one of the values."""
    parts = urlsplit(url)
    return environ | {
        "DB_HOST": str(parts.hostname), "DB_PORT": str(parts.port), "DB_NAME": parts.path.strip("/"),
        "DB_USER": unquote(str(parts.username)), "POSTGRES_PASSWORD": unquote(str(parts.password)),
    }  # fmt: skip


def image_environ() -> dict[str, str]:
    """What the Dockerfile's last stage sets, without PATH."""
    last = DOCKERFILE.rpartition("\nFROM ")[2].replace("\\\n", " ")
    pairs = (pair.partition("=") for line in re.findall(r"^ENV (.*)$", last, re.MULTILINE) for pair in line.split())
    return {name: value for name, _, value in pairs if name != "PATH"}


@dataclass(frozen=True)
class Installed:
    """A Python that has kiki: where it is, and what must be seen for it to run."""

    python: Path
    paths: tuple[Path, ...]

    @classmethod
    def here(cls) -> Installed:
        """The environment that this runs in, the working copy included."""
        found = {
            Path(path).resolve() for path in (sys.prefix, sys.base_prefix, str(ROOT), *sys.path) if Path(path).is_dir()
        }
        return cls(Path(sys.executable), tuple(sorted(found)))

    @classmethod
    def at(cls, prefix: Path) -> Installed:
        """A virtual environment."""
        python = prefix / "bin" / "python"
        code = "import sys; print(sys.base_prefix)"
        base = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        return cls(python, (prefix, Path(base)))


@dataclass
class Pod:
    """The first container of a rendered workload. `start` gives it a new process with the same volumes, as a restart does."""

    name: str
    container: dict[str, Any]
    environ: dict[str, str]
    installed: Installed
    volumes: dict[str, Path]
    url: str
    ports: dict[str, int]
    log: Path
    pid: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, found: list[dict[str, Any]], name: str, directory: Path, installed: Installed | None = None, **environ: str
    ) -> Pod:
        """The pod of one service out of a render; its volumes are made below `directory`."""
        kind = "StatefulSet" if name == "syncflow" else "Deployment"
        container = named(found, kind, name)["spec"]["template"]["spec"]["containers"][0]
        directory.mkdir(parents=True, exist_ok=True)
        volumes = {}
        for mount in container["volumeMounts"]:
            if mount["name"] == "tmp":
                continue  # made new with each process
            volume = volumes[mount["mountPath"]] = directory / mount["name"]
            if mount["name"] == "keys":
                fill_keys(volume)
            volume.mkdir(exist_ok=True)
            if os.geteuid() == 0:
                for path in (volume, *volume.iterdir()):
                    os.chown(path, 0 if mount["name"] == "keys" else UID, UID)
        told = image_environ() | environ_of(found, name) | environ
        ports = {variable: free_port() for variable in PORTS if variable in told}
        told |= {variable: str(port) for variable, port in ports.items()}
        http = "KIKI_VALUE_HTTP_PORT" if name == "syncvalue" else "PORT"
        return cls(
            name, container, told, installed or Installed.here(), volumes,
            f"http://127.0.0.1:{ports[http]}", ports, directory / f"{name}.log",
        )  # fmt: skip

    def _wrapped(self, command: list[str], *options: str) -> list[str]:
        """The command in the pod's world."""
        words = ["bwrap", "--unshare-pid", "--as-pid-1", "--unshare-ipc", "--die-with-parent", "--clearenv"]
        words += ["--tmpfs", "/", "--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp"]
        for link in ("bin", "lib", "lib64"):
            words += ["--symlink", f"usr/{link}", f"/{link}"]
        seen = (Path("/usr"), Path("/etc/ssl"), *self.installed.paths)
        above = {parent for path in (*seen, *map(Path, self.volumes)) for parent in path.parents}
        for parent in sorted(above - {Path("/"), Path("/tmp")}):
            words += ["--perms", "0755", "--dir", str(parent)]  # left to itself, bubblewrap makes them 0700
        for path in seen:
            words += ["--ro-bind", str(path), str(path)]
        readonly = {mount["mountPath"] for mount in self.container["volumeMounts"] if mount.get("readOnly")}
        for target, volume in self.volumes.items():
            words += ["--ro-bind" if target in readonly else "--bind", str(volume), target]
        words += ["--remount-ro", "/", "--chdir", self.container["workingDir"]]
        path = f"{self.installed.python.parent}:/usr/local/bin:/usr/bin:/bin"
        for variable, value in ({"PATH": path} | self.environ).items():
            words += ["--setenv", variable, value]
        if os.geteuid() == 0:
            # The uid is a real one then, to the file system too.
            become = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--bounding-set=-all"]
            return [*words, *options, *become, "--inh-caps=-all", "--no-new-privs", *command]
        return [*words, "--unshare-user", "--uid", str(UID), "--gid", str(UID), "--cap-drop", "ALL", *options, *command]

    def start(self, probe: str = "readinessProbe") -> float:
        """Begin a process and return, when this probe of it succeeds, how many seconds that took."""
        here, there = os.pipe()
        began = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._wrapped(self.container["command"], "--info-fd", str(there)),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, pass_fds=[there],
            )  # fmt: skip
        os.close(there)
        with os.fdopen(here) as info:
            told = info.read()
        assert told, f"bubblewrap did not start: {self.log.read_text()}"
        self.pid = json.loads(told)["child-pid"]
        asked = self.url + self.container[probe]["httpGet"]["path"]
        with httpx.Client(timeout=2) as client:
            while True:
                assert self._process.poll() is None, self.log.read_text()
                assert time.monotonic() - began < SECONDS, self.log.read_text()
                try:
                    if client.get(asked).status_code == 200:
                        return time.monotonic() - began
                except httpx.HTTPError:
                    pass
                time.sleep(0.01)

    def cpu_seconds(self) -> float:
        """What the process has used of a processor so far, its children apart."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        """SIGTERM to what is pid 1 in there; its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            os.kill(self.pid, 15)
        try:
            return self._process.wait(SECONDS)
        finally:
            self.close()

    def close(self) -> None:
        """End it whatever it does."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()  # and the command dies with it
            self._process.wait()

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        """What `kubectl exec` does: a command beside the service, in the same world and directory."""
        return subprocess.run(
            self._wrapped(list(command)), capture_output=True, text=True, check=False, timeout=SECONDS
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
