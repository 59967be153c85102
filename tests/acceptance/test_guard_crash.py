"""A real process is killed at a random moment, again and again: nothing it acknowledged is missing, nothing is over."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

from kiki.errors import SpendDenied
from kiki.ledger.ledger import read_entries
from kiki.ledger.sqlite import SqliteReader
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.decision import event_id
from kiki.shield.fact import EXPIRE, Decided, Settled, decode_fact
from kiki.shield.replay import admitted

UNIT = 1_000_000
LIMIT, SPAN = 20 * UNIT, 2 * UNIT  # in two seconds, so that money comes back while the test runs

# Several threads, so that batches are larger than one; every verb, so that holds are open when it dies.
SPENDER = """
import sys, threading
from kiki import BudgetGuard, SpendDenied

guard = BudgetGuard.open(sys.argv[1], limit="20", window="2s")
lock = threading.Lock()

def say(event):
    with lock:
        sys.stdout.write(event + "\\n")
        sys.stdout.flush()

def spend(name):
    number = 0
    while True:
        number += 1
        try:
            if number % 5 == 0:
                hold = guard.reserve("0.03", {"campaign": name}, seconds=0.5 if number % 2 else None)
                say(hold.event_id)
                if number % 3:
                    say(hold.commit("0.02").event_id)
                elif number % 2 == 0:
                    say(hold.release().event_id)
            elif number % 7 == 0:
                say(guard.spend_many(["0.01", "0.02"])[0].event_id)
            else:
                say(guard.spend("0.011", {"campaign": name}, key=f"{sys.argv[2]}-{name}-{number}").event_id)
        except SpendDenied as denied:
            say(denied.event_id)

threads = [threading.Thread(target=spend, args=(str(index),), daemon=True) for index in range(4)]
for thread in threads:
    thread.start()
say("started")
for thread in threads:
    thread.join()
"""


def run_and_kill(path, round_, seconds, least=0):
    """What a spender acknowledged before it was killed, after so long and so many lines; a torn line does not count."""
    with subprocess.Popen(
        [sys.executable, "-c", SPENDER, str(path), str(round_)], stdout=subprocess.PIPE, text=True
    ) as process:
        killer = None
        lines = []
        for line in process.stdout:
            if killer is None:
                killer = time.monotonic() + seconds
            lines.append(line)
            if time.monotonic() >= killer and len(lines) > least:
                process.send_signal(signal.SIGKILL)
                break
        lines += list(process.stdout)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    return [line.strip() for line in lines if line.endswith("\n") and line != "started\n"]


def events(facts):
    """Every event id that the ledger holds."""
    for seq, fact in facts:
        count = len(fact.amounts) if isinstance(fact, Decided) else 1
        yield from (event_id(seq, index) for index in range(count))


def check_windows(facts):
    """Replay money by hand: at every admission, what was spent in the span before it and what is held are within the limit."""
    spends, holds, admissions = [], {}, 0
    for _, fact in facts:
        if isinstance(fact, Settled):
            amount = holds.pop(fact.hold, None)
            assert amount is not None or fact.late
            if fact.charged:
                assert fact.charged <= amount
                spends.append((fact.at, fact.charged))
        elif isinstance(fact, Decided):
            for amount, _ in admitted(fact):
                if fact.verb == "reserve":
                    holds[fact.hold] = amount
                else:
                    spends.append((fact.at, amount))
                admissions += 1
                recent = sum(micros for at, micros in spends[-3000:] if fact.at - SPAN < at <= fact.at)
                assert recent + sum(holds.values()) <= LIMIT
    return spends, holds, admissions


def test_kill_9_at_random_moments(tmp_path):
    """Twenty times killed: each acknowledged id is in the ledger, no window is over, and the guard counts what the ledger says."""
    chance, path = random.Random(20), tmp_path / "shield.db"
    acknowledged = set()
    for round_ in range(20):
        # Half of them after some work, however slow the machine is; the first leaves holds to their deadlines.
        least = 0 if round_ % 2 else 40 if round_ else 100
        acknowledged.update(run_and_kill(path, round_, chance.uniform(0, 0.25), least))
    assert len(acknowledged) > 200

    reader = SqliteReader(path)
    facts = [(entry.seq, decode_fact(entry)) for entry in read_entries(reader)]
    recorded = [entry.recorded_at for entry in read_entries(reader)]
    reader.close()
    assert list(range(len(facts))) == [seq for seq, _ in facts]
    assert sorted(recorded) == recorded
    known = set(events(facts))
    assert set() == acknowledged - known
    spends, holds, admissions = check_windows(facts)
    assert admissions > 100
    assert any(isinstance(fact, Settled) and fact.verb == EXPIRE for _, fact in facts)

    with BudgetGuard.open(path, limit="20", window="2s") as guard:
        before = guard.decider.clock()
        (status,) = guard.status()
        after = guard.decider.clock()
        open_now = {hold.id: hold.amount for hold in guard.holds()}
        for hold, amount in holds.items():
            assert open_now.get(hold, amount) == amount  # gone only when its deadline has passed meanwhile
        assert set(open_now) <= set(holds)
        assert status.held <= sum(holds.values())
        # The clock moves: what is counted lies between the exact sums around the moment of looking.
        slot = -(-SPAN // 600)
        late = sum(micros for at, micros in spends if at > after - SPAN)
        early = sum(micros for at, micros in spends if at > before - SPAN - slot)
        assert late <= status.spent <= early + sum(holds.values())
        assert status.spent + status.held <= LIMIT
        with suppress(SpendDenied):  # a fast machine may have filled the window
            guard.spend("0.000001", key="after")


def test_a_frozen_moment_is_counted_exactly_after_a_crash(tmp_path):
    """With a clock that stands, the reopened window equals the sum over the ledger to the micro."""
    path = tmp_path / "shield.db"
    run_and_kill(path, 0, 0.3)
    reader = SqliteReader(path)
    facts = [(entry.seq, decode_fact(entry)) for entry in read_entries(reader)]
    last = max(entry.recorded_at for entry in read_entries(reader))
    held_until = {fact.hold: fact.deadline for _, fact in facts if isinstance(fact, Decided) and fact.hold}
    reader.close()
    spends, holds, _ = check_windows(facts)
    expired = {hold for hold in holds if held_until[hold] is not None and held_until[hold] <= last}
    with BudgetGuard.open(path, limit="20", window="2s", clock=lambda: last) as guard:
        (status,) = guard.status()
    assert status.held == sum(amount for hold, amount in holds.items() if hold not in expired)
    least = sum(micros for at, micros in spends if at > last - SPAN) + sum(holds[hold] for hold in expired)
    slot = -(-SPAN // 600)
    most = sum(micros for at, micros in spends if at > last - SPAN - slot) + sum(holds[hold] for hold in expired)
    assert least <= status.spent <= most
