"""A run that is stopped anywhere goes on where it was, and does nothing by halves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kiki.clock import SECOND
from kiki.errors import Conflict, StillWorking
from kiki.shield.dsr import State
from kiki.shield.opening import open_decider
from kiki.shield.request_desk import RUN_LEASE, RequestDesk
from kiki.shield.request_run import RETRY_MOST
from tests.ledger.doubles import FakeClock
from tests.shield.privacy_doubles import Shop

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_killed_at_any_write_a_deletion_is_finished_by_the_next_run(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed_runs.py")), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (0, 0) == (done.returncode, lines[-1]["ended"]), done.stderr
    assert len(lines) > 40
    for line in lines:
        at, ended = line.pop("at"), line.pop("ended")
        line.pop("again", 0)
        assert {
            "state": "completed",
            "folder": ["c-2.a", "restricted-c-1"],
            "known": False,
            "other": True,
            "tombstone": True,
            "erasing": 0,
            "traces": [],
            "completed": 1,
            "proof": "completed",
        } == line, (at, ended)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def desk(clock: FakeClock, shop: Shop):
    decider = open_decider(None, None, clock=clock)
    desk = RequestDesk(decider, [shop])
    yield desk
    desk.close()
    decider.close()


def deletion(desk: RequestDesk) -> str:
    record = desk.create("c-1", "DELETION")
    return desk.verify_identity(record.id, method="operator", actor="anna").id


def test_attempts_come_further_and_further_apart_up_to_six_hours(desk: RequestDesk, shop: Shop, clock: FakeClock):
    request = deletion(desk)
    shop.broken = {"restrict"}
    waits = [desk.run(request).request.next_attempt_at - clock.now for _ in range(14)]
    assert [60, 120, 240] == [wait // SECOND for wait in waits[:3]]
    assert [RETRY_MOST] * 3 == waits[-3:]


def test_a_system_that_works_on_it_says_when_to_ask_again(desk: RequestDesk, shop: Shop, clock: FakeClock):
    def works(_task):
        raise StillWorking("tomorrow", retry_after=3600.0)

    shop.erase = works
    waits = desk.run(deletion(desk))
    assert (State.WAITING, clock.now + 3600 * SECOND) == (waits.state, waits.request.next_attempt_at)
    assert "still_working" == waits.request.systems["shop"].failure


def test_an_interrupt_leaves_the_request_to_the_next_run(desk: RequestDesk, shop: Shop):
    def interrupted(_task):
        raise KeyboardInterrupt

    request, erase = deletion(desk), shop.erase
    shop.erase = interrupted
    with pytest.raises(KeyboardInterrupt):
        desk.run(request)
    assert State.RUNNING is desk.get(request).state
    shop.erase = erase
    (done,) = desk.run_due()
    assert State.COMPLETED is done.state


def test_a_run_of_another_replica_is_not_disturbed_and_taken_over_when_it_is_silent(
    desk: RequestDesk, shop: Shop, clock: FakeClock
):
    """The other replica is played by a chain of another name: its last fact is all that this one knows of it."""

    def interrupted(_task):
        raise KeyboardInterrupt

    request, erase = deletion(desk), shop.erase
    shop.erase = interrupted
    with pytest.raises(KeyboardInterrupt):
        desk.run(request)
    shop.erase = erase
    here = desk.decider.ledger.chain
    desk.decider.ledger.chain = "another"
    with pytest.raises(Conflict, match="another replica"):
        desk.run(request)
    assert [] == desk.run_due()
    clock.advance(RUN_LEASE // SECOND + 1)
    assert State.COMPLETED is desk.run(request).state
    desk.decider.ledger.chain = here


def test_a_run_that_was_taken_over_writes_nothing_more(desk: RequestDesk, shop: Shop):
    request, erase = deletion(desk), shop.erase
    zombie = []

    def slow(task):
        # While this system takes its time, somebody else starts the request and finishes it.
        shop.erase = erase
        desk._running.clear()
        desk.run(request)
        zombie.append(desk.decider.ledger.next_seq)
        return erase(task)

    shop.erase = slow
    with pytest.raises(Conflict):
        desk.run(request)
    assert zombie == [desk.decider.ledger.next_seq]
    assert State.COMPLETED is desk.get(request).state
