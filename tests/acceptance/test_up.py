"""`kiki up` with real processes: everything comes up, whoever dies is started again, and a signal ends all of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from kiki.cli.data_dir import make_data_dir
from tests.servers import free_port

ROOT = Path(__file__).parents[2]
VARIABLES = (
    "KIKI_SHIELD_PORT",
    "KIKI_VALUE_PORT",
    "KIKI_VALUE_HTTP_PORT",
    "KIKI_FLOW_PORT",
    "KIKI_FLOW_GRPC_PORT",
    "KIKI_ENGAGE_PORT",
)


def environment(folder: Path, **given: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KIKI_", "OTEL_", "REDIS_"))}
    # PORT is for one service; here it must say nothing.
    ports = dict.fromkeys(VARIABLES, "0")
    return kept | ports | {"PORT": "1", "PYTHONPATH": str(ROOT), "KIKI_DATA_DIR": str(folder), "COLUMNS": "120"} | given


class Up:
    """One `kiki up --json`, and the frames that it has told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.frames: list[dict[str, Any]] = []
        self.talk: list[str] = []
        for stream, take in (
            (process.stdout, lambda text: self.frames.append(json.loads(text))),
            (process.stderr, self.talk.append),
        ):
            threading.Thread(target=self._read, args=(stream, take), daemon=True).start()

    @staticmethod
    def _read(stream, take) -> None:
        for line in stream:
            take(line)

    def until(self, condition, seconds: float = 200) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.frames and condition(self.frames[-1]):
                return self.frames[-1]
            assert self.process.poll() is None, "".join(self.talk)
            time.sleep(0.05)
        raise AssertionError(f"{self.frames[-1:]} {''.join(self.talk)}")


@contextmanager
def up(folder: Path, *options: str, **given: str) -> Iterator[Up]:
    command = [sys.executable, "-m", "kiki", "up", "--json", *options]
    process = subprocess.Popen(
        command, env=environment(folder, **given), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield Up(process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()
        process.stderr.close()


def states(frame: dict[str, Any]) -> dict[str, str]:
    return {each["service"]: each["state"] for each in frame["services"]}


def restarts(frame: dict[str, Any]) -> dict[str, int]:
    return {each["service"]: each["restarts"] for each in frame["services"]}


def command_line(pid: int) -> bytes:
    """Empty when the process has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_demonstration_lives_heals_and_ends(tmp_path):
    with up(tmp_path, "--demo", KIKI_FLOW_SANDBOX_DAY_SECONDS="1") as found:
        found.until(lambda frame: {"ready"} == set(states(frame).values()) and 4 == len(frame["services"]))
        campaigns = {"search-brand", "social", "short-videos", "decision-makers"}
        found.until(lambda frame: frame["admitted"] > 20 and frame["predictions"] > 3 and frame["decisions"])
        found.until(lambda frame: campaigns <= {run["campaign"] for run in frame["runs"]})
        found.until(lambda frame: sum(frame["messages"].values()) > 0)

        pids = children(found.process.pid)
        assert 4 <= len(pids)
        engage = next(pid for pid in pids if b"engage" in command_line(pid))
        os.kill(engage, signal.SIGKILL)
        found.until(lambda frame: restarts(frame)["engage"] == 1 and states(frame)["engage"] == "ready")
        found.until(lambda _: any("engage ended with -9" in line for line in [*found.talk]))

        found.process.send_signal(signal.SIGTERM)
        assert 0 == found.process.wait(60)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    rows = (tmp_path / "demo" / "shield_audit_gdpr.csv").read_text()
    assert "APPROVED" in rows
    assert "shopper" not in rows


def begun(command: list[str], folder: Path, ports: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """`kiki COMMAND` in a session of its own, whose output is `log`."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "kiki", *command],
            env=environment(folder, **ports), stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip


def audit_views(pids: list[int]) -> list[int]:
    return [child for pid in pids for child in children(pid) if b"audit_follower" in command_line(child)]


@pytest.mark.parametrize("command", [["up", "--demo"], ["serve", "all"]])
def test_services_end_in_order_when_their_supervisor_is_killed(tmp_path, command):
    log = tmp_path / "log"
    ports = {name: str(free_port()) for name in VARIABLES}
    process = begun(command, tmp_path / "data", ports, log)
    pids: list[int] = []
    try:
        deadline = time.monotonic() + 200
        # The audit view is the last that SyncShield starts, and what it has to finish at its end.
        while not (views := audit_views(children(process.pid))):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        pids = [*children(process.pid), *views]
        assert 5 <= len(pids)
        process.kill()
        process.wait(60)
        deadline = time.monotonic() + 60
        while left := [line for pid in pids if (line := command_line(pid))]:
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
    finally:
        for pid in (process.pid, *pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("command", [["up"], ["up", "--single"], ["serve", "all"]])
def test_a_second_one_on_the_same_folder_is_refused_before_anything_starts(tmp_path, command):
    with up(tmp_path) as found:
        found.until(lambda frame: frame["services"])
        done = subprocess.run(
            [sys.executable, "-m", "kiki", *command],
            env=environment(tmp_path), capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert 1 == done.returncode
        said = (
            f"another kiki up or kiki serve all (pid {found.process.pid}) keeps its books in {tmp_path}\nhint: stop it"
        )
        assert said in done.stderr
    with up(tmp_path, "--seconds", "0.1") as again:
        assert 0 == again.process.wait(60), "".join(again.talk)


def test_one_that_was_killed_is_waited_for(tmp_path):
    ports = {name: str(free_port()) for name in VARIABLES}
    with up(tmp_path, **ports) as found:
        found.until(lambda frame: "ready" == states(frame)["shield"])
        found.process.kill()
        found.process.wait(60)
        with up(tmp_path, **ports) as again:
            again.until(lambda frame: "ready" == states(frame)["shield"] and 0 == restarts(frame)["shield"])


@pytest.mark.parametrize("command", [["up"], ["serve", "all"], ["serve", "all", "--single"]])
def test_ctrl_c_is_how_it_ends_and_no_error(tmp_path, command):
    ports = {name: str(free_port()) for name in VARIABLES}
    log = tmp_path / "log"
    process = begun(command, tmp_path / "data", ports, log)
    try:
        url, deadline = f"http://127.0.0.1:{ports['KIKI_SHIELD_PORT']}/livez", time.monotonic() + 200
        while True:
            with suppress(OSError), urllib.request.urlopen(url, timeout=5):
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(60), log.read_text()
    finally:
        process.kill()
        process.wait()


def test_a_port_that_is_taken_is_named_with_its_variable(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "kiki", "up", "--seconds", "1"]
        environ = environment(tmp_path, KIKI_FLOW_PORT=port)
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=200, check=False)
    assert 1 == done.returncode
    assert f"port {port} is taken by another process: stop it, or set KIKI_FLOW_PORT to another port" in done.stderr


def test_a_port_that_is_none_is_refused(tmp_path):
    command = [sys.executable, "-m", "kiki", "up", "--seconds", "1"]
    environ = environment(tmp_path, KIKI_SHIELD_PORT="http")
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=200, check=False)
    assert 1 == done.returncode
    assert "KIKI_SHIELD_PORT='http': expected a whole number from 0 to 65535" in done.stderr


def test_all_four_fit_into_one_process(tmp_path):
    ports = {name: str(free_port()) for name in VARIABLES}
    command = [sys.executable, "-m", "kiki", "serve", "all", "--single"]
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment(tmp_path / "data", **ports), stdout=file, stderr=file)
    try:
        for name, path in (("SHIELD", "/health"), ("FLOW", "/health"), ("ENGAGE", "/health"), ("VALUE_HTTP", "/livez")):
            url = f"http://127.0.0.1:{ports[f'KIKI_{name}_PORT']}{path}"
            deadline = time.monotonic() + 200
            while True:
                try:
                    with urllib.request.urlopen(url, timeout=5) as reply:
                        assert 200 == reply.status
                    break
                except OSError:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.1)
        deadline = time.monotonic() + 60
        # The view of the audit is a process of its own; for a moment after its start it has its parent's name.
        while not all(b"audit" in command_line(pid) for pid in children(process.pid)):
            assert time.monotonic() < deadline, [command_line(pid) for pid in children(process.pid)]
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(60), log.read_text()
    finally:
        process.kill()
        process.wait()


def test_what_it_makes_is_for_nobody_else_to_look_into(tmp_path):
    folder = tmp_path / "kiki-data" / "demo" / "logs"
    make_data_dir(folder)
    make_data_dir(folder)
    assert {each.stat().st_mode & 0o777 for each in (folder, *folder.parents[:2])} == {0o700}


@pytest.mark.parametrize("given", [["--demo"], [], ["--single"]])
def test_a_place_that_nothing_can_be_made_in_is_named(tmp_path, given):
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "kiki", "up", *given], env=environment(tmp_path / "file" / "data"),
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert 1 == done.returncode
    assert f"{tmp_path / 'file' / 'data'}" in done.stderr
    said = f"cannot be written to: {tmp_path / 'file'} is no directory; name another with KIKI_DATA_DIR or --data-dir"
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_picture_that_has_no_place_is_refused_before_anything_starts(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "kiki", "up", "--picture", str(tmp_path / "none" / "x.svg")],
        env=environment(tmp_path / "data"), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert (2, False) == (done.returncode, (tmp_path / "data").exists())
    assert "no directory that there is" in done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"KIKI_SHIELD_PRT": "1"}, "KIKI_SHIELD_PRT: unknown; did you mean KIKI_SHIELD_PORT?"),
        ({"KIKI_HOST": "10.0.0.5"}, "KIKI_HOST='10.0.0.5': all four together listen on 127.0.0.1"),
        ({"MAX_BURST_BUDGET": "much"}, "MAX_BURST_BUDGET='much': 'much' is not an amount"),
        ({"KIKI_FLOW_LEASE_SECONDS": "soon"}, "KIKI_FLOW_LEASE_SECONDS='soon'"),
        ({"OTEL_TRACES_SAMPLER_ARG": "2", "OTEL_EXPORTER_OTLP_ENDPOINT": "x:4317"}, "OTEL_TRACES_SAMPLER_ARG='2'"),
        ({"KIKI_SHIELD_PORT": "29000", "KIKI_ENGAGE_PORT": "29000"}, "KIKI_SHIELD_PORT and KIKI_ENGAGE_PORT are both 29000"),
    ],
)  # fmt: skip
def test_what_the_services_would_end_over_again_and_again_is_refused_at_once(tmp_path, given, said):
    done = subprocess.run(
        [sys.executable, "-m", "kiki", "up"], env=environment(tmp_path / "data", **given),
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert (1, False) == (done.returncode, (tmp_path / "data").exists())
    assert 1 == done.stderr.count(said), done.stderr
