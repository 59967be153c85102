"""Segments reach the archive at least once, with the same bytes every time, whatever breaks; deciding never waits."""

from __future__ import annotations

import hashlib
import io
import logging
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from kiki.errors import ArchiveConflict, ArchiveUnavailable, LedgerCorrupt, LedgerUnavailable
from kiki.ledger.archive import DirectoryArchive
from kiki.ledger.bundle_verifier import verify_bundle
from kiki.ledger.ledger import Ledger
from kiki.ledger.segment import SEGMENTS
from kiki.ledger.segment_log import SegmentLog
from kiki.ledger.shipper import Shipper
from kiki.ledger.sqlite import SqliteReader, SqliteStore
from kiki.ledger.store import Write
from tests.ledger.shipping import SEED, Noted, Rig, verified


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path / "archive")


def test_nothing_new_is_no_segment(rig):
    rig.pass_time(3600)
    rig.work()
    rig.shipper.flush()
    assert [] == rig.names()
    assert (0.0, 0, 0, 0) == rig.shipper.lag()


def test_a_segment_is_due_after_its_time(rig):
    rig.write(10)
    rig.work()
    assert [] == rig.names()
    rig.pass_time(59)
    rig.work()
    assert [] == rig.names()
    rig.pass_time(1)
    rig.work()
    assert [(0, 9)] == rig.names()
    rig.pass_time(600)
    rig.work()
    assert [(0, 9)] == rig.names()


def test_a_segment_is_due_when_it_is_full(tmp_path):
    rig = Rig(tmp_path, entries=1000)
    rig.write(999)
    rig.work()
    assert [] == rig.names()
    rig.write(1)
    rig.work()
    assert [(0, 999)] == rig.names()


def test_a_clock_that_was_set_back_delays_no_segment(rig):
    rig.write(10)
    rig.work()
    rig.clock.advance(-86_400)
    rig.steady.now += 60
    rig.work()
    assert [(0, 9)] == rig.names()


def test_a_restart_does_not_begin_the_time_anew(rig):
    """A process that crashes more often than segments are due still ships them."""
    rig.write(10)
    for _ in range(3):
        rig.restart()
        rig.work()
        rig.pass_time(25)
    rig.restart()
    rig.work()
    assert [(0, 9)] == rig.names()


def test_every_segment_is_a_bundle_that_verifies_and_they_leave_no_gap(rig):
    for count in (1, 300, 255, 1, 2000):
        rig.write(count)
        rig.pass_time(60)
        rig.work()
    assert [(0, 0), (1, 300), (301, 555), (556, 556), (557, 2556)] == verified(
        rig.archive, rig.ledger.signer.verifier_key
    )
    for segment in rig.owner.segments():
        content = b"".join(rig.archive.get(segment.name))
        assert hashlib.sha256(content).digest() == segment.sha256
        assert segment.is_shipped


def test_a_ledger_that_was_long_without_an_archive_is_cut_at_its_checkpoints(tmp_path):
    """No segment of millions of entries: the backlog is cut where checkpoints were signed."""
    rig = Rig(tmp_path, entries=1000)
    for _ in range(30):
        rig.write(150)
        rig.pass_time(11)  # longer than the span of a checkpoint
    rig.work()
    stretches = verified(rig.archive, rig.ledger.signer.verifier_key)
    assert (0, 4499) == (stretches[0][0], stretches[-1][1])
    assert all(last - first < 1000 for first, last in stretches)
    assert 5 <= len(stretches) <= 6


def test_an_archive_that_appears_after_pruning_gets_what_is_left(rig):
    rig.write(1000)
    rig.ledger.checkpoint()
    rig.store.prune(512)
    rig.write(100)
    rig.shipper.flush()
    assert [(512, 1099)] == rig.names()
    content = b"".join(rig.archive.get(next(rig.archive.list())))
    assert 588 == verify_bundle(io.BytesIO(content), rig.ledger.signer.verifier_key).entries


@pytest.mark.parametrize("after", [False, True])
def test_what_fails_is_tried_again_with_growing_waits_and_meanwhile_segments_are_cut(rig, after, caplog):
    """Also when the archive had taken it and only the answer was lost."""
    rig.archive.errors = [ArchiveUnavailable("away")] * 3
    rig.archive.after = after
    rig.write(10)
    rig.pass_time(60)
    with caplog.at_level(logging.INFO):
        rig.work()
        assert 1 == rig.shipper.lag().failures
        rig.write(10)
        for seconds in (0.5, 0.5, 1, 1, 3.9):
            rig.pass_time(seconds)
            rig.work()
        assert 3 == rig.shipper.lag().failures
        rig.pass_time(60)
        rig.work()
    assert [(0, 9), (10, 19)] == verified(rig.archive, rig.ledger.signer.verifier_key)
    waits = [record.fields["seconds_until_then"] for record in caplog.records if record.levelno == logging.WARNING]
    assert [1.0, 2.0, 4.0] == waits
    assert (0.0, 0, 3, 0) == rig.shipper.lag()
    assert "archiving works again" in caplog.text


def test_the_lag_is_the_age_of_the_oldest_entry_that_is_not_archived(rig):
    rig.write(10)
    rig.pass_time(7)
    rig.work()
    assert 7.0 == rig.shipper.lag().oldest_seconds
    rig.archive.errors = [ArchiveUnavailable("away")]
    rig.pass_time(60)
    rig.work()
    assert (67.0, 1, 1, 0) == rig.shipper.lag()
    rig.pass_time(60)
    rig.work()
    assert (0.0, 0, 1, 0) == rig.shipper.lag()
    rig.write(1)
    rig.pass_time(2)
    assert 2.0 == rig.shipper.lag().oldest_seconds


def test_a_name_that_is_taken_by_something_else_holds_up_nothing_and_is_said_loudly(rig, caplog):
    """Whoever may write to the archive must not be able to stop it with one file."""
    path = rig.archive.root / rig.ledger.chain / f"{0:020d}-{9:020d}.kiki"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            rig.write(10)
            rig.pass_time(60)
            rig.work()
    assert [0] == [segment.first for segment in rig.owner.unshipped()]
    assert (1, 1) == rig.shipper.lag()[1::2]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert 1 == len(errors)
    assert "kiki audit verify" in errors[0].fields["hint"]
    assert b"something else" == path.read_bytes()
    with pytest.raises(ArchiveConflict):
        rig.shipper.flush()
    path.unlink()
    rig.pass_time(300)
    rig.work()
    assert [(0, 9), (10, 19)] == verified(rig.archive, rig.ledger.signer.verifier_key)
    assert (0, 0) == rig.shipper.lag()[1::2]


def test_an_entry_that_was_altered_is_never_archived_and_holds_up_nothing(rig):
    rig.write(256)  # a whole tile: its hashes are stored, so what comes later does not stand on the altered entry
    rig.pass_time(60)
    rig.owner.seal(1000)
    data = rig.store._entries[3]
    rig.store._entries[3] = data[:-1] + bytes([data[-1] ^ 1])
    rig.write(10)
    rig.pass_time(60)
    rig.work()
    assert [(256, 265)] == rig.names()
    assert 1 == rig.shipper.lag().set_aside
    with pytest.raises(LedgerCorrupt):
        rig.shipper.flush()


def test_a_row_that_cannot_be_read_is_reported_and_stops_no_thread(rig, caplog):
    rig.write(10)
    rig.store.commit([], [Write(SEGMENTS, b"12345678", b"\xc0")])
    assert rig.shipper.step() > 0
    assert "LedgerCorrupt" in caplog.records[0].fields["reason"]


def test_a_ledger_that_cannot_write_is_not_asked_every_second(rig, caplog):
    rig.write(10)
    rig.ledger.failure = LedgerUnavailable("the disk is full")
    for _ in range(70):
        rig.pass_time(1)
        rig.work()
    assert len(caplog.records) < 8
    rig.ledger.failure = None
    rig.pass_time(60)
    rig.work()
    assert [(0, 9)] == rig.names()


def test_flushing_ends_although_entries_keep_coming(rig):
    really_seal = rig.owner.seal

    def seal(most):
        segment = really_seal(most)
        rig.write(1)
        return segment

    rig.owner.seal = seal
    rig.write(10)
    rig.shipper.flush()
    assert [(0, 9)] == rig.names()


def test_a_segment_whose_row_is_durable_although_writing_it_failed_is_shipped(rig):
    """What became of a failed commit is unknown until it is looked at."""
    really_seal = rig.owner.seal

    def seal(most):
        really_seal(most)
        raise LedgerUnavailable("the answer of the disk was lost")

    rig.owner.seal = seal
    rig.write(10)
    rig.pass_time(60)
    rig.work()
    rig.owner.seal = really_seal
    rig.write(10)
    rig.pass_time(60)
    rig.work()
    assert [(0, 9), (10, 19)] == verified(rig.archive, rig.ledger.signer.verifier_key)


def test_a_scratch_directory_that_is_gone_is_a_failure_like_any_other(tmp_path):
    rig = Rig(tmp_path / "archive", scratch=tmp_path / "absent")
    rig.write(10)
    rig.pass_time(60)
    rig.work()
    assert 1 == rig.shipper.lag().failures
    (tmp_path / "absent").mkdir()
    rig.pass_time(60)
    rig.work()
    assert [(0, 9)] == rig.names()
    assert [] == list((tmp_path / "absent").iterdir())


def test_the_same_segment_has_the_same_bytes_whoever_writes_it_and_when(rig, tmp_path):
    """Later checkpoints, entries and restarts do not change what was sealed."""
    rig.write(300)
    rig.owner.seal(1000)
    (sealed,) = rig.owner.unshipped()
    contents = set()
    for _ in range(3):
        file = io.BytesIO()
        rig.shipper._write(sealed, file)
        contents.add(file.getvalue())
        rig.write(300)
        rig.pass_time(1000)
        rig.ledger.checkpoint()
        rig.restart()
    assert 1 == len(contents)


def test_the_thread_works_until_it_is_stopped(tmp_path):
    rig = Rig(tmp_path, entries=10)
    rig.write(10)
    stop = threading.Event()
    thread = threading.Thread(target=rig.shipper.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 60
    while not rig.names() and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    assert [(0, 9)] == rig.names()


def test_appending_goes_on_while_the_archive_hangs(tmp_path):
    """The ledger is asked for nothing while a put is under way."""
    rig = Rig(tmp_path, entries=10)
    began, go_on = threading.Event(), threading.Event()
    really_put = rig.archive.put_if_absent

    def hang(name, content):
        began.set()
        assert go_on.wait(100)
        return really_put(name, content)

    rig.archive.put_if_absent = hang
    rig.write(10)
    thread = threading.Thread(target=rig.shipper.flush)
    thread.start()
    assert began.wait(60)
    assert 10 == rig.ledger.append(Noted("meanwhile")).result()
    assert 1 == rig.shipper.lag().waiting
    go_on.set()
    thread.join(60)
    assert [(0, 9)] == rig.names()


# Real processes, killed.

CHILD = """
import os, signal, sys, threading, time
import msgspec
from pathlib import Path
from kiki.ledger.archive import DirectoryArchive
from kiki.ledger.ledger import Append, Ledger
from kiki.ledger.segment_log import SegmentLog
from kiki.ledger.shipper import Shipper
from kiki.ledger.sqlite import SqliteStore

class Noted(msgspec.Struct, array_like=True, tag="noted", frozen=True):
    text: str

root, die_at = Path(sys.argv[1]), sys.argv[2]

def step(name):
    if name == die_at:
        os.kill(os.getpid(), signal.SIGKILL)

class Owner(SegmentLog):
    def seal(self, most):
        step("before seal")
        segment = super().seal(most)
        if segment is not None:
            step("after seal")
        return segment
    def shipped(self, *arguments):
        step("before shipped")
        super().shipped(*arguments)
        step("after shipped")

class Archive(DirectoryArchive):
    def _place(self, target, content):
        really_link = os.link
        def link(*arguments):
            step("before link")
            really_link(*arguments)
            step("after link")
        os.link = link
        try:
            super()._place(target, content)
        finally:
            os.link = really_link

ledger = Ledger(SqliteStore(root / "ledger.db"), seed=bytes(range(32)))
shipper = Shipper(
    Owner(ledger), ledger.store, Archive(root / "archive"), ledger.signer, seconds=0.02, entries=500, scratch=root
)
ledger.append_all([Append(Noted("the first"))])
print("started", flush=True)
threading.Thread(target=shipper.run, args=(threading.Event(),), daemon=True).start()
while True:
    ledger.append_all([Append(Noted("fact"))] * 20)
    time.sleep(0.001)
"""


def run_until_killed(root, die_at, seconds=10.0):
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), die_at], stdout=subprocess.PIPE, text=True
    ) as process:
        assert "started\n" == process.stdout.readline()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        assert -signal.SIGKILL == process.wait(60)


def finish(root):
    """Go on after the last crash, in this process; what the archive holds then."""
    ledger = Ledger(SqliteStore(root / "ledger.db"), seed=SEED)
    archive = DirectoryArchive(root / "archive")
    Shipper(SegmentLog(ledger), ledger.store, archive, ledger.signer, entries=500).flush()
    stretches = verified(archive, ledger.signer.verifier_key)
    assert ledger.next_seq - 1 == stretches[-1][1]
    ledger.close()
    reader = SqliteReader(root / "ledger.db")
    assert len(stretches) == sum(1 for _ in reader.scan(SEGMENTS))
    reader.close()
    return archive


@pytest.mark.parametrize(
    "die_at",
    ["before seal", "after seal", "before link", "after link", "before shipped", "after shipped"],
)
def test_a_process_that_is_killed_between_two_steps_leaves_nothing_that_cannot_go_on(tmp_path, die_at):
    for _ in range(2):
        run_until_killed(tmp_path, die_at)
    before = {path: path.read_bytes() for path in (tmp_path / "archive").glob("*/*.kiki")}
    archive = finish(tmp_path)
    assert before == {path: path.read_bytes() for path in before}
    assert [] == list(archive.root.glob("*/.*"))


def test_processes_that_are_killed_at_any_moment_lose_no_segment(tmp_path):
    chance = random.Random(20261123)
    for _ in range(5):
        run_until_killed(tmp_path, "never", chance.uniform(0.05, 0.5))
    finish(tmp_path)
