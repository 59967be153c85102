"""The live view: every decision once, whatever is killed, cut off, renamed, filled up or deleted."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kiki import BudgetGuard
from kiki.errors import LedgerLocked, LedgerUnavailable
from kiki.ledger.sqlite import SqliteReader
from kiki.shield import audit_follower, audit_view
from kiki.shield.audit_view import AuditView
from kiki.shield.audit_view_process import AuditViewProcess, spawn_audit_view
from kiki.shield.evidence import find_rows
from kiki.shield.evidence_csv import CSV_HEADER

NAME = "shield_audit_gdpr.csv"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ledger(tmp_path) -> Path:
    """A ledger with singles, a batch, refusals, a hold and a halt: 17 decisions."""
    path = tmp_path / "shield.db"
    with BudgetGuard.open(path, limit=100) as guard:
        write_some(guard)
    return path


@pytest.fixture
def small(tmp_path) -> Path:
    """A ledger with a batch between two singles: 6 decisions."""
    path = tmp_path / "shield.db"
    with BudgetGuard.open(path, limit=100) as guard:
        guard.halt('campaign:a "b", é')
        guard.spend_many(["1", ("2", {"customer": "alice"}), "999", ("3", {"campaign": 'a "b", é'})])
        guard.spend(4)
    return path


def write_some(guard: BudgetGuard) -> None:
    guard.spend_many(["1.50", "999"], {"platform": "meta"})
    guard.spend_many([("0.01", {"customer": f"person-{index}", "campaign": 'a "b", c'}) for index in range(8)])
    guard.spend_many(["200", "0.02", "300"])
    hold = guard.reserve(3, {"customer": "person-1"})
    hold.commit("2.50")
    guard.halt("platform:meta", note="too, hot")
    guard.spend_many(["1"], {"platform": "meta"})


def view_of(ledger: Path, **options) -> AuditView:
    return AuditView(ledger, ledger.with_name(NAME), **{"bytes_max": 0, "retention_days": 2555, **options})


def catch_up(ledger: Path, **options) -> int:
    view = view_of(ledger, **options)
    try:
        return view.catch_up()
    finally:
        view.close()


def files(directory: Path) -> list[Path]:
    """All files of the view, oldest first."""
    current = directory / NAME
    return [*sorted(directory.glob("shield_audit_gdpr.????????????????.csv")), *([current] if current.exists() else [])]


def body(directory: Path) -> str:
    """What all files hold together, without their headers."""
    text = ""
    for path in files(directory):
        content = path.read_text(encoding="utf-8")
        if not content and path.name == NAME:
            break  # made this moment
        assert content.startswith(CSV_HEADER)
        text += content.removeprefix(CSV_HEADER)
    return text


def ids_in_files(directory: Path) -> list[str]:
    return [line.split(",")[1] for line in body(directory).splitlines()]


def ids_in_ledger(ledger: Path) -> list[str]:
    reader = SqliteReader(ledger)
    try:
        return [row.event_id for row in find_rows(reader, decisions=True)]
    finally:
        reader.close()


# -- following ---------------------------------------------------------------------------------------


def test_every_decision_has_its_row_as_it_comes(tmp_path):
    path = tmp_path / "shield.db"
    with BudgetGuard.open(path, limit=100) as guard:
        view = view_of(path)
        assert view.catch_up() == 0
        assert (tmp_path / NAME).read_text() == CSV_HEADER
        write_some(guard)
        assert view.catch_up() == 17
        assert view.catch_up() == 0
        guard.spend(1)
        assert view.catch_up() == 1
        view.close()
    assert ids_in_files(tmp_path) == ids_in_ledger(path)
    assert len(ids_in_files(tmp_path)) == 18


def test_the_file_is_nobody_elses_to_read(ledger):
    catch_up(ledger)
    assert ledger.with_name(NAME).stat().st_mode & 0o777 == 0o600


def test_grep_denied_works_and_no_person_is_in_it(ledger):
    catch_up(ledger)
    found = subprocess.run(["grep", "DENIED", NAME], cwd=ledger.parent, capture_output=True, text=True, check=True)
    assert found.stdout.count("\n") == 4
    assert found.stdout.count("Budget limit exceeded") == 3
    assert "person-" not in body(ledger.parent)


def test_there_is_no_view_without_a_ledger(tmp_path):
    view = view_of(tmp_path / "shield.db")
    with pytest.raises(LedgerUnavailable):
        view.catch_up()
    with BudgetGuard.open(tmp_path / "shield.db", limit=100) as guard:
        guard.spend(1)
        assert view.catch_up() == 1
    view.close()


def test_two_views_never_write_one_file(ledger):
    view = view_of(ledger)
    view.catch_up()
    second = view_of(ledger)
    with pytest.raises(LedgerLocked):
        second.catch_up()
    view.close()
    assert second.catch_up() == 0
    second.close()


# -- resuming ----------------------------------------------------------------------------------------


def test_cut_off_at_any_byte_it_goes_on_to_the_same_file(small):
    catch_up(small)
    path = small.with_name(NAME)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        catch_up(small)
        assert path.read_bytes() == whole, length


def test_cut_off_at_any_byte_behind_files_put_away(small):
    catch_up(small, bytes_max=500)
    before = {path.name: path.read_bytes() for path in files(small.parent)}
    assert len(before) > 1
    path = small.with_name(NAME)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        catch_up(small, bytes_max=500)
        assert {path.name: path.read_bytes() for path in files(small.parent)} == before, length


@pytest.mark.parametrize("tail", [b"\0" * 5000, b"2026-11-22T10:00:00Z,00", "é".encode()[:1] * 70_000])
def test_rubbish_behind_the_last_line_is_cut_off(ledger, tail):
    catch_up(ledger)
    path = ledger.with_name(NAME)
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    catch_up(ledger)
    assert path.read_bytes() == whole


def test_deleted_it_is_built_anew(ledger):
    catch_up(ledger)
    path = ledger.with_name(NAME)
    whole = path.read_bytes()
    path.unlink()
    assert catch_up(ledger) == 17
    assert path.read_bytes() == whole


@pytest.mark.parametrize("harm", ["unlink", "empty", "rename", "append"])
def test_harmed_while_it_runs_it_is_made_whole(ledger, harm):
    said: list[str] = []
    view = view_of(ledger, say=lambda _, message: said.append(message))
    view.catch_up()
    path = ledger.with_name(NAME)
    whole = path.read_bytes()
    if harm == "unlink":
        path.unlink()
    elif harm == "rename":
        path.rename(path.with_suffix(".old"))
    elif harm == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(whole + b"checked, Bob\n")
    view.catch_up()
    assert path.read_bytes() == whole
    assert "changed by somebody else" in said[0]
    view.close()


@pytest.mark.parametrize("content", [b"id,name\n1,Bob\n", CSV_HEADER.encode() + b"some,row\n", b"\0" * 300, b"x"])
def test_a_file_of_somebody_else_is_put_aside_and_said(ledger, content):
    path = ledger.with_name(NAME)
    path.write_bytes(content)
    said: list[tuple[str, str]] = []
    assert catch_up(ledger, say=lambda *each: said.append(each)) == 17
    (aside,) = ledger.parent.glob("shield_audit_gdpr.foreign-*")
    assert aside.read_bytes() == content
    assert [(level, aside.name in message) for level, message in said] == [("warning", True)]
    assert ids_in_files(ledger.parent) == ids_in_ledger(ledger)


@pytest.mark.parametrize("bytes_max", [0, 900])
def test_the_view_of_another_ledger_is_put_aside(ledger, bytes_max):
    catch_up(ledger, bytes_max=bytes_max)
    count = len(files(ledger.parent))
    for path in ledger.parent.glob("shield*.db*"):
        path.unlink()
    with BudgetGuard.open(ledger, limit=100) as guard:
        guard.spend(1)
    assert catch_up(ledger, bytes_max=bytes_max) == 1
    assert ids_in_files(ledger.parent) == ids_in_ledger(ledger)
    assert len(list(ledger.parent.glob("shield_audit_gdpr.foreign-*"))) == count


# -- starting new files ------------------------------------------------------------------------------


@pytest.mark.parametrize("bytes_max", [1, 300, 500, 1000, 2000])
def test_files_stay_small_and_hold_everything_once(ledger, bytes_max):
    catch_up(ledger)
    whole = body(ledger.parent)
    ledger.with_name(NAME).unlink()
    assert catch_up(ledger, bytes_max=bytes_max) == 17
    assert body(ledger.parent) == whole
    found = files(ledger.parent)
    assert len(found) > 1
    for path in found:
        lines = path.read_text().splitlines()
        assert path.stat().st_size <= bytes_max or len(lines) == 2
        if path.name != NAME:
            assert path.name == f"shield_audit_gdpr.{lines[-1].split(',')[1]}.csv"


@pytest.mark.parametrize("bytes_max", [1, 500])
def test_killed_at_any_step_of_putting_files_away(small, bytes_max, monkeypatch):
    catch_up(small)
    whole = body(small.parent)
    small.with_name(NAME).unlink()

    class Killed(Exception):
        pass

    # Every system call that changes a file is made to be the last one, before or after it took effect.
    steps = 0
    dies_at = 0

    def dying(act):
        def call(*given):
            nonlocal steps
            steps += 1
            if steps == dies_at:
                raise Killed
            result = act(*given)
            steps += 1
            if steps == dies_at:
                raise Killed
            return result

        return call

    monkeypatch.setattr(audit_view.os, "write", dying(os.write))
    monkeypatch.setattr(audit_view.os, "ftruncate", dying(os.ftruncate))
    monkeypatch.setattr(Path, "rename", dying(Path.rename))
    for dies_at in range(1, 200):
        for path in files(small.parent):
            path.unlink()
        steps = 0
        try:
            catch_up(small, bytes_max=bytes_max)
        except Killed:
            steps = -1000
            catch_up(small, bytes_max=bytes_max)
            assert body(small.parent) == whole, dies_at
        else:
            break
    assert 3 < dies_at < 199


def test_files_put_away_may_be_compressed_or_archived(ledger):
    catch_up(ledger, bytes_max=900)
    *old, current = files(ledger.parent)
    for path in old:
        path.rename(path.with_name(path.name + ".gz"))
    current.unlink()
    assert 0 < catch_up(ledger, bytes_max=900) < 17
    for path in ledger.parent.glob("*.gz"):
        path.unlink()
    assert catch_up(ledger, bytes_max=900) == 0


# -- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [0, 1, 150, 400, 1000])
def test_a_full_disk_is_an_error_and_later_nothing_is_missing(ledger, monkeypatch, written):
    view = view_of(ledger)
    write = os.write
    left = written

    def full(file, data):
        nonlocal left
        part = data[:left]
        left -= len(part)
        if not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, part)

    monkeypatch.setattr(audit_view.os, "write", full)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            view.catch_up()
    monkeypatch.undo()
    view.catch_up()
    view.close()
    assert ids_in_files(ledger.parent) == ids_in_ledger(ledger)


# -- the process -------------------------------------------------------------------------------------


def eventually(what, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def spawn(ledger: Path, bytes_max: int = 0) -> AuditViewProcess:
    return spawn_audit_view(ledger, ledger.with_name(NAME), bytes_max=bytes_max, retention_days=2555)


def test_killed_again_and_again_while_the_guard_writes_no_row_is_missing_or_twice(tmp_path):
    path = tmp_path / "shield.db"
    chance = random.Random(7)
    done = threading.Event()
    written = []
    with BudgetGuard.open(path, limit=1000) as guard:

        def write() -> None:
            while not done.is_set():
                written.extend(guard.spend_many(["1"] * chance.randint(1, 40), {"platform": "meta"}))
                time.sleep(0.001)

        writer = threading.Thread(target=write)
        writer.start()
        process = spawn(path, bytes_max=20_000)
        eventually((tmp_path / NAME).exists)
        for _ in range(12):
            time.sleep(chance.uniform(0, 0.25))
            os.kill(process.pid, signal.SIGKILL)
            eventually(lambda: not process.is_running())
            process.start()
        eventually(lambda: len(written) > 1000)
        # At the end it may be dead, too: stopping still completes the file.
        os.kill(process.pid, signal.SIGKILL)
        done.set()
        writer.join()
        assert process.stop(60)
    assert ids_in_files(tmp_path) == ids_in_ledger(path)
    assert len(files(tmp_path)) > 3


def test_signals_for_the_service_do_not_end_it_and_stop_completes_the_file(ledger):
    process = spawn(ledger)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # At once, while Python still starts: they must not get through then either.
        os.kill(process.pid, number)
    eventually(lambda: ledger.with_name(NAME).exists() and len(ids_in_files(ledger.parent)) == 17)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process.pid, number)
    with BudgetGuard.open(ledger, limit=100) as guard:
        guard.spend_many(["0.01"] * 500)
        assert process.is_running()
        assert process.stop(60)
    assert ids_in_files(ledger.parent) == ids_in_ledger(ledger)
    assert not process.is_running()
    assert process.stop(60)
    assert not process.check()
    assert not process.is_running()


def test_it_is_less_than_a_second_behind(tmp_path):
    path = tmp_path / "shield.db"
    process = spawn(path)
    with BudgetGuard.open(path, limit=1000) as guard:
        eventually((tmp_path / NAME).exists)
        behind = []
        # It is nice to the service, so on a busy machine it may have to wait for its turn.
        while not behind or (min(behind) >= 1 and len(behind) < 20):
            last, began = guard.spend(1).event_id, time.monotonic()
            eventually(lambda last=last: last in body(tmp_path))
            behind.append(time.monotonic() - began)
        process.stop(60)
    assert min(behind) < 1
    assert audit_follower._POLL_SECONDS < 0.5


def test_it_waits_for_the_ledger_and_ends_without_one(tmp_path):
    process = spawn(tmp_path / "none" / ".." / "shield.db")
    assert process.stop(60)
    process = spawn(tmp_path / "shield.db")
    time.sleep(0.3)
    with BudgetGuard.open(tmp_path / "shield.db", limit=100) as guard:
        guard.spend(1)
        assert process.stop(60)
    assert len(ids_in_files(tmp_path)) == 1


def test_one_that_died_is_started_again(ledger):
    said: list[str] = []
    process = AuditViewProcess(
        ledger, ledger.with_name(NAME), bytes_max=0, retention_days=2555, say=lambda _, text: said.append(text)
    )
    assert not process.check()
    process.start()
    first = process.pid
    assert process.check()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not process.is_running())
    eventually(process.check)
    assert process.pid != first
    assert "status -9" in said[0]
    assert process.stop(60)
    assert ids_in_files(ledger.parent) == ids_in_ledger(ledger)


PARENT = """
import os, signal, sys, time
from kiki import BudgetGuard
from kiki.shield.audit_view_process import spawn_audit_view
with BudgetGuard.open("shield.db", limit=1000) as guard:
    process = spawn_audit_view("shield.db", "shield_audit_gdpr.csv", bytes_max=0, retention_days=2555)
    guard.spend(1)
    while not os.path.exists("shield_audit_gdpr.csv"):
        time.sleep(0.01)
    for _ in range(20):
        guard.spend_many(["0.01"] * 50)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_when_the_service_is_killed_the_file_is_completed(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.run([sys.executable, "-c", PARENT], cwd=tmp_path, env=environment, check=False, timeout=100)
    assert parent.returncode == -signal.SIGKILL
    # The next service starts at once and waits until the old view lets go.
    with BudgetGuard.open(tmp_path / "shield.db", limit=1000) as guard:
        process = spawn(tmp_path / "shield.db")
        guard.spend(1)
        assert process.stop(60)
    assert ids_in_files(tmp_path) == ids_in_ledger(tmp_path / "shield.db")
    assert len(ids_in_files(tmp_path)) == 1002


def test_it_says_what_is_wrong_as_json_and_says_it_once(ledger, capfd):
    ledger.with_name(NAME).mkdir()
    process = spawn(ledger)
    said: list[str] = []

    def talk() -> str:
        said.append(capfd.readouterr().err)
        return "".join(said)

    eventually(lambda: "Is a directory" in talk())
    time.sleep(0.8)
    ledger.with_name(NAME).rmdir()
    assert process.stop(60)
    lines = [json.loads(line) for line in talk().splitlines()]
    assert [line["level"] for line in lines] == ["error", "info"]
    assert "Is a directory" in lines[0]["message"]
    assert lines[0]["logger"] == "kiki.shield.audit_follower"
    assert ids_in_files(ledger.parent) == ids_in_ledger(ledger)


def test_it_loads_nothing_of_the_services():
    heavy = {"aiohttp", "grpc", "httpx", "numpy", "redis", "rich", "typer", "uvloop", "prometheus_client"}
    code = "import sys, kiki.shield.audit_follower; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in found.stdout.split()} & heavy == set()
