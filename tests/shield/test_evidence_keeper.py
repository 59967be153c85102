"""Evidence is archived, and leaves when its time is over: with an archive, without one, and not under a legal hold."""

from __future__ import annotations

import time

import pytest

from kiki.ledger.archive import DirectoryArchive
from kiki.ledger.store import Write
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.evidence_keeper import EvidenceKeeper
from kiki.shield.legal_hold import LEGAL_HOLD
from kiki.testing import FakeClock

DAY = 24 * 3600


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def guard(tmp_path, clock):
    with BudgetGuard.open(tmp_path / "l.db", limit="1000", clock=clock) as guard:
        yield guard


def spend(guard, count=300):
    for _ in range(count):
        guard.spend("0.01")


def test_without_an_archive_entries_leave_when_their_time_is_over(guard, clock):
    keeper = EvidenceKeeper(guard.decider, retention_days=30)
    spend(guard)
    assert keeper.prune() == 0
    clock.advance(29 * DAY)
    spend(guard)
    assert keeper.prune() == 0
    clock.advance(2 * DAY)
    guard.spend("0.01")
    assert keeper.prune() == 256
    assert guard.decider.ledger.store.first_seq() == 256


def test_seven_years_are_counted_by_the_calendar(guard, clock):
    """2,555 days after 2026 began there are still two days to go: two leap days lie in between."""
    keeper = EvidenceKeeper(guard.decider, retention_days=2555)
    spend(guard)
    keeper.prune()
    clock.advance(2555 * DAY)
    guard.spend("0.01")
    assert keeper.prune() == 0
    clock.advance(2 * DAY)
    guard.spend("0.01")
    assert keeper.prune() == 256


def test_nothing_leaves_under_a_legal_hold(guard, clock):
    keeper = EvidenceKeeper(guard.decider, retention_days=30)
    spend(guard)
    keeper.prune()
    guard.decider.ledger.keep([Write(LEGAL_HOLD, b"matter", b"1")])
    clock.advance(60 * DAY)
    guard.spend("0.01")
    assert keeper.prune() == 0
    guard.decider.ledger.keep([Write(LEGAL_HOLD, b"matter", None)])
    assert keeper.prune() == 256


def test_nothing_leaves_before_the_archive_has_it(guard, clock, tmp_path):
    keeper = EvidenceKeeper(guard.decider, retention_days=30, archive=DirectoryArchive(tmp_path / "archive"))
    spend(guard)
    clock.advance(60 * DAY)
    guard.spend("0.01")
    assert keeper.prune() == 0
    keeper.shipper.flush()
    assert keeper.gauges()["archive_segments_waiting"] == 0
    (name,) = DirectoryArchive(tmp_path / "archive").list()
    assert keeper.prune() == 0  # the checkpoint over them is of today
    clock.advance(31 * DAY)
    spend(guard)
    keeper.shipper.flush()
    assert keeper.prune() == 256
    assert name in DirectoryArchive(tmp_path / "archive").list()  # its last entries are still there
    clock.advance(31 * DAY)
    guard.spend("0.01")
    keeper.shipper.flush()
    assert keeper.prune() == 512
    assert name not in DirectoryArchive(tmp_path / "archive").list()


def test_the_threads_ship_and_stop(guard, tmp_path):
    """What is due is archived by itself, and the metrics say how far it is."""
    archive = DirectoryArchive(tmp_path / "archive")
    keeper = EvidenceKeeper(guard.decider, retention_days=30, archive=archive, segment_entries=256)
    spend(guard, 600)
    keeper.start()
    end = time.monotonic() + 60
    while len(list(archive.list())) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    keeper.stop()
    assert len(list(archive.list())) >= 2
    assert set(keeper.gauges()) == {
        "archive_lag_seconds",
        "archive_segments_waiting",
        "archive_segments_set_aside",
        "archive_failures",
    }
