"""Leases on consent: a revocation is acknowledged when nobody can act on the consent any more, and not before."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.shield import consent_lease
from kiki.shield.consent import LEASE, LEASE_HELD
from kiki.shield.consent_lease import Leases, Recall
from kiki.shield.consent_store import ConsentStore
from kiki.shield.enforcer import Enforcer, Leased

ROOT = Path(__file__).parents[2]
SUBJECT = "01" * 16
SECOND = 1_000_000


class Clock:
    def __init__(self, now: int = 50 * SECOND) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


# -- granting and confirming -------------------------------------------------------------------------


def test_nobody_holds_anything_so_nobody_is_waited_for():
    assert Leases(clock=Clock()).wait(SUBJECT, "marketing", 0)


def test_a_lease_is_waited_for_until_it_ends():
    clock = Clock()
    leases = Leases(clock=clock)
    end = leases.grant(SUBJECT, "marketing", "worker-1")
    assert clock.now + LEASE == end
    assert not leases.wait(SUBJECT, "marketing", 0)
    assert leases.wait(SUBJECT, "analytics", 0)
    clock.now = end
    assert leases.wait(SUBJECT, "marketing", 0)
    assert leases.count == 0


def test_a_confirmation_ends_the_wait():
    clock = Clock()
    leases = Leases(clock=clock)
    end = leases.grant(SUBJECT, "marketing", "worker-1")
    leases.confirm(SUBJECT, "marketing", "worker-2", end)
    assert not leases.wait(SUBJECT, "marketing", 0)
    leases.confirm(SUBJECT, "marketing", "worker-1", end - 1)
    assert not leases.wait(SUBJECT, "marketing", 0)
    leases.confirm(SUBJECT, "marketing", "worker-1", end)
    assert leases.wait(SUBJECT, "marketing", 0)


def test_a_confirmation_does_not_cover_an_answer_that_is_still_on_its_way():
    clock = Clock()
    leases = Leases(clock=clock)
    first = leases.grant(SUBJECT, "marketing", "worker-1")
    clock.now += 1
    leases.grant(SUBJECT, "marketing", "worker-1")
    leases.confirm(SUBJECT, "marketing", "worker-1", first)
    assert not leases.wait(SUBJECT, "marketing", 0)


def test_whoever_keeps_asking_does_not_make_a_revocation_wait_for_ever():
    leases = Leases()
    leases.grant(SUBJECT, "marketing", "worker-1")
    over = threading.Event()

    def keep_asking() -> None:
        while not over.wait(0.05):
            leases.grant(SUBJECT, "marketing", "worker-1")

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        assert leases.wait(SUBJECT, "marketing", 60)
    finally:
        over.set()
        asking.join()


def test_who_is_waited_for_can_ask_what_to_confirm(monkeypatch):
    monkeypatch.setattr(consent_lease, "LEASE", 3600 * SECOND)  # it ends by the confirmation or not at all
    leases = Leases()
    end = leases.grant(SUBJECT, "marketing", "worker-1")
    assert leases.recalls("worker-1") == []
    waiting = threading.Thread(target=leases.wait, args=(SUBJECT, "marketing"))
    waiting.start()
    while not (recalls := leases.recalls("worker-1")):
        time.sleep(0.001)
    assert [Recall(SUBJECT, "marketing", end)] == recalls
    assert leases.recalls("worker-2") == []
    leases.confirm(SUBJECT, "marketing", "worker-1", end)
    waiting.join(60)
    assert not waiting.is_alive()
    assert leases._waiters == {}


def test_with_other_grantors_a_revocation_waits_a_full_lease_after_its_commit():
    clock = Clock()
    leases = Leases(is_shared=True, clock=clock)
    assert not leases.wait(SUBJECT, "marketing", 0)
    assert not leases.wait(SUBJECT, "marketing", 0, since=clock.now - LEASE + 1)
    assert leases.wait(SUBJECT, "marketing", 0, since=clock.now - LEASE)


def test_after_a_restart_the_leases_of_the_one_before_are_waited_for():
    clock = Clock()
    leases = Leases(follows=True, clock=clock)
    assert not leases.wait(SUBJECT, "marketing", 0)
    clock.now += LEASE
    assert leases.wait(SUBJECT, "marketing", 0)


def test_memory_is_bounded_and_what_does_not_fit_is_waited_for_by_everybody():
    clock = Clock()
    leases = Leases(leases_max=100, clock=clock)
    for number in range(1000):
        leases.grant(f"{number:032x}", "marketing", "worker-1")
    assert leases.count == 100
    assert not leases.wait(f"{999:032x}", "marketing", 0)
    assert not leases.wait("ff" * 16, "marketing", 0)
    clock.now += LEASE
    assert leases.wait(f"{999:032x}", "marketing", 0)
    assert (0, {}) == (leases.count, leases._ends)


@pytest.mark.parametrize("holder", ["", "x" * 129, "two\nlines"])
def test_a_holder_has_a_name(holder):
    with pytest.raises(InvalidInput, match="holder"):
        Leases().grant(SUBJECT, "marketing", holder)


async def test_waiting_on_a_loop_holds_nobody_up_and_ends_with_the_confirmation(monkeypatch):
    monkeypatch.setattr(consent_lease, "LEASE", 3600 * SECOND)  # it ends by the confirmation or not at all
    leases = Leases()
    end = leases.grant(SUBJECT, "marketing", "worker-1")
    waiting = asyncio.create_task(leases.wait_async(SUBJECT, "marketing"))
    assert not await leases.wait_async(SUBJECT, "marketing", 0.01)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    leases.confirm(SUBJECT, "marketing", "worker-1", end)
    assert await asyncio.wait_for(waiting, 60)
    assert leases._waiters == {}


async def test_whoever_stops_waiting_leaves_nothing_behind():
    leases = Leases()
    leases.grant(SUBJECT, "marketing", "worker-1")
    waiting = asyncio.create_task(leases.wait_async(SUBJECT, "marketing"))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert leases._waiters == {}


# -- the other side ----------------------------------------------------------------------------------


class Grantor:
    """Answers as told and counts."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.allowed = True
        self.asked = 0
        self.takes = 0

    def __call__(self, customer: str, purpose: str) -> Leased:
        self.asked += 1
        self.clock.now += self.takes
        return Leased(self.allowed, LEASE_HELD, self.clock.now + LEASE)


def test_an_answer_is_held_for_its_lease_and_denied_after_it():
    clock = Clock()
    grantor = Grantor(clock)
    enforcer = Enforcer(grantor, clock=clock)
    assert enforcer.allows("c-1", "marketing")
    grantor.allowed = False
    clock.now += LEASE_HELD - 1
    assert enforcer.allows("c-1", "marketing")
    clock.now += 1
    assert not enforcer.allows("c-1", "marketing")
    assert grantor.asked == 2


def test_a_lease_counts_from_before_the_question():
    clock = Clock()
    grantor = Grantor(clock)
    grantor.takes = LEASE_HELD
    enforcer = Enforcer(grantor, clock=clock)
    assert not enforcer.allows("c-1", "marketing")


def test_when_nobody_answers_nobody_has_consented():
    clock = Clock()

    def ask(customer: str, purpose: str) -> Leased:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Enforcer(ask, clock=clock).allows("c-1", "marketing")


def test_what_was_dropped_is_asked_for_anew():
    clock = Clock()
    grantor = Grantor(clock)
    enforcer = Enforcer(grantor, clock=clock)
    assert enforcer.drop("c-1", "marketing") == 0
    enforcer.allows("c-1", "marketing")
    assert clock.now + LEASE == enforcer.drop("c-1", "marketing")
    enforcer.allows("c-1", "marketing")
    assert grantor.asked == 2


def test_an_answer_that_was_under_way_when_its_pair_was_dropped_is_thrown_away():
    clock = Clock()
    asked: list[str] = []

    def ask(customer: str, purpose: str) -> Leased:
        asked.append(customer)
        if len(asked) == 1:
            enforcer.drop(customer, purpose)
            return Leased(allowed=True, span=LEASE_HELD, end=clock.now + LEASE)
        return Leased(allowed=False, span=LEASE_HELD, end=clock.now + LEASE)

    enforcer = Enforcer(ask, clock=clock)
    assert not enforcer.allows("c-1", "marketing")
    assert len(asked) == 2


def test_an_enforcer_remembers_a_bounded_number_of_answers():
    clock = Clock()
    enforcer = Enforcer(Grantor(clock), held_max=10, clock=clock)
    for number in range(100):
        enforcer.allows(f"c-{number}", "marketing")
        enforcer.drop(f"d-{number}", "marketing")
    assert len(enforcer._held) == 10
    clock.now += LEASE
    enforcer.drop("last", "marketing")
    assert len(enforcer._dropped) == 1


# -- both together -----------------------------------------------------------------------------------

moves = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 1)),
        st.tuples(st.just("confirm"), st.integers(0, 1)),
        st.tuples(st.just("pass"), st.integers(1, 4)),
        st.tuples(st.just("say"), st.booleans().map(int)),
        st.tuples(st.just("acknowledge"), st.just(0)),
    ),
    max_size=60,
)


@given(moves)
def test_after_an_acknowledged_revocation_no_enforcer_says_yes(moves):
    """Grantor, two enforcers and time, in any order of steps; the wait is only looked at, never slept for."""
    clock = Clock()
    leases = Leases(clock=clock)
    given = [False]

    def ask_as(holder: str):
        def ask(customer: str, purpose: str) -> Leased:
            end = leases.grant(SUBJECT, purpose, holder)
            return Leased(given[0], LEASE_HELD, end)

        return ask

    enforcers = [Enforcer(ask_as(f"e{number}"), clock=clock) for number in range(2)]
    written_at = 0
    acknowledged = True
    for move, number in moves:
        if move == "ask":
            allowed = enforcers[number].allows("c-1", "marketing")
            assert given[0] or not acknowledged or not allowed
        elif move == "confirm":
            end = enforcers[number].drop("c-1", "marketing")
            leases.confirm(SUBJECT, "marketing", f"e{number}", end)
        elif move == "pass":
            clock.now += number * LEASE // 4
        elif move == "say":
            given[0], acknowledged, written_at = bool(number), False, clock.now
        elif not given[0]:
            acknowledged = acknowledged or leases.wait(SUBJECT, "marketing", 0, since=written_at)


def test_zero_decisions_after_an_acknowledged_revoke_between_threads():
    """Three enforcers with threads of their own against a store; whoever is recalled confirms, or not."""
    with ConsentStore.open() as store:
        over = threading.Event()
        # What is told only ever says no: the number of the round whose revocation was acknowledged.
        acknowledged, granted = [0], [0]
        wrong: list[int] = []
        decided: list[int] = []

        def enforce(number: int) -> None:
            holder = f"worker-{number}"
            enforcer = Enforcer(lambda customer, purpose: store.lease(customer, purpose, holder))
            while not over.is_set():
                done, begun = acknowledged[0], granted[0]
                allowed = enforcer.allows("c-1", "marketing")
                if allowed and done == begun == granted[0]:
                    wrong.append(done)
                decided.append(allowed)
                if not allowed:
                    enforcer.drop("c-1", "marketing")  # so that the next grant is seen at once
                if number:  # worker 0 never confirms, its lease has to end
                    for recall in store.leases.recalls(holder):
                        end = enforcer.drop("c-1", "marketing")
                        store.leases.confirm(recall.subject, recall.purpose, holder, end)

        threads = [threading.Thread(target=enforce, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for number in range(1, 3):
            granted[0] = number
            before = len(decided)
            store.grant("c-1", "marketing", version=str(number))
            time.sleep(0.05 + random.random() / 10)
            until = time.monotonic() + 60
            while True not in decided[before:] and time.monotonic() < until:
                time.sleep(0.01)  # a busy machine
            store.revoke("c-1", "marketing")
            acknowledged[0] = number
            time.sleep(0.05)
        over.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert True in decided
    assert False in decided


ENFORCER = """
import json, sys, threading, time
import httpx
from kiki.shield.enforcer import Enforcer, Leased

url, holder = sys.argv[1:]
client = httpx.Client(trust_env=False, timeout=60)
enforcer = Enforcer(lambda c, p: Leased(**client.get(url, params={"c": c, "p": p, "holder": holder}).json()))
yes, over = [], threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), over.set()), daemon=True).start()
while not over.is_set():
    before = time.monotonic()
    if enforcer.allows("c-1", "marketing"):
        yes.append(before)
        if len(yes) == 1:
            print("allowed", flush=True)
print(json.dumps(yes[-1:] and [yes[0], yes[-1], len(yes)]), flush=True)
"""


def test_zero_decisions_after_an_acknowledged_revoke_between_processes():
    """Two processes enforce what a third one grants; the monotonic clock is one for the whole machine."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from urllib.parse import parse_qs, urlsplit

    with ConsentStore.open() as store:

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                body = json.dumps(store.lease(asked["c"], asked["p"], asked["holder"])._asdict()).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        url = f"http://127.0.0.1:{server.server_port}/"
        store.grant("c-1", "marketing")
        enforcers = [
            subprocess.Popen(
                [sys.executable, "-c", ENFORCER, url, f"worker-{number}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            for number in range(2)
        ]
        try:
            for each in enforcers:
                assert each.stdout.readline() == "allowed\n"
            time.sleep(0.3)
            store.revoke("c-1", "marketing")
            acknowledged = time.monotonic()
            time.sleep(0.5)
            told = [json.loads(each.communicate("over\n", timeout=60)[0]) for each in enforcers]
        finally:
            for each in enforcers:
                each.kill()
                each.wait()
            server.shutdown()
            serving.join()
            server.server_close()
    for _first, last, count in told:
        assert count > 0
        assert last < acknowledged
