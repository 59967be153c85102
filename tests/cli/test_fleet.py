"""The ports of `kiki up` where it may take any, whose its folder is, and what it says of a service that ended."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kiki.cli import data_dir, fleet
from kiki.errors import LedgerLocked

ANY = dict.fromkeys(fleet.Ports(1, 2, 3, 4, 5, 6).all(), "0")


def test_a_port_that_is_taken_for_a_service_is_none_that_an_outgoing_connection_is_given_meanwhile():
    outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(20):
        assert all(1024 < port < outgoing for port in fleet.Ports.read(ANY).all().values())


def test_where_the_system_says_nothing_it_is_below_what_all_systems_use(monkeypatch, tmp_path):
    for said in ("", "x y", "1024\t65000"):
        (tmp_path / "range").write_text(said)
        monkeypatch.setattr(fleet, "_OUTGOING", tmp_path / "range")
        assert all(1024 < port < 32_768 for port in fleet.Ports.read(ANY).all().values())
    monkeypatch.setattr(fleet, "_OUTGOING", tmp_path / "none")
    assert all(1024 < port < 32_768 for port in fleet.Ports.read(ANY).all().values())


def test_a_folder_is_waited_for_while_its_holder_is_gone_and_what_it_started_is_not(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    said: list[str] = []
    with (tmp_path / "kiki-up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"{ended.pid}\n")
        lock.flush()

        def say(text: str) -> None:
            said.append(text)
            fcntl.flock(lock, fcntl.LOCK_UN)

        with pytest.raises(LedgerLocked, match=f"pid {ended.pid}.*is gone, but not all of its services"):
            data_dir.held(tmp_path, said.append, 0).__enter__()
        assert [] == said
        with data_dir.held(tmp_path, say, 60) as kept:
            assert f"{os.getpid()}\n" == (tmp_path / "kiki-up.lock").read_text()
            assert os.fstat(kept).st_ino == (tmp_path / "kiki-up.lock").stat().st_ino
    assert [f"waiting for the services of another kiki up (pid {ended.pid}), which is gone, to end"] == said


@pytest.mark.parametrize(
    ("logged", "said"),
    [
        ("", ""),
        ('{"event": "a"}\n{"event": "b"}\n', '{"event": "b"}'),
        ('{"event": "a"}\nerror: it is taken\nhint: stop it\n', "error: it is taken hint: stop it"),
        ("error: 2 mistakes\n  - a\n  - b\n", "error: 2 mistakes - a - b"),
        ("error: old\nhint: old\nerror: new\n", "error: new"),
        ('error: old\nhint: old\n{"event": "killed later"}\n', '{"event": "killed later"}'),
    ],
)
def test_why_a_service_ended_is_its_error_and_not_the_hint_alone(tmp_path, logged, said):
    log = tmp_path / "shield.log"
    log.write_text(logged)
    assert said == fleet.Member("shield", {}, log).last_words()
