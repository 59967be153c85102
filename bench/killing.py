"""A real process killed at a random moment, again and again: what it acknowledged is there, and every proof holds.

`python -m bench killing` does a thousand rounds; the tests do a hundred of the same.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import Row
from kiki.ledger.chain_verifier import verify_entries
from kiki.ledger.ledger import CHECKPOINTS, read_entries
from kiki.ledger.sqlite import SqliteReader
from kiki.shield.budget_guard import BudgetGuard
from kiki.shield.decision import event_id
from kiki.shield.fact import ConsentChanged, Decided, decode_fact

ROUNDS = 1000
_VERIFIED_EVERY = 10

# Spends with and without a person, consents, a new checkpoint every few entries: whatever is written may be cut.
_WRITER = """
import sys, threading
import kiki.ledger.ledger as ledger
ledger.CHECKPOINT_ENTRIES = 7
from kiki import BudgetGuard, SpendDenied

guard = BudgetGuard.open(sys.argv[1], limit="1000", window="1s")
lock = threading.Lock()

def say(event):
    with lock:
        sys.stdout.write(event + "\\n")
        sys.stdout.flush()

def work(name):
    number = 0
    while True:
        number += 1
        customer = f"c-{name}-{number % 50}"
        try:
            if number % 4 == 0:
                say(guard.consents.grant(customer, "marketing", version=f"{sys.argv[2]}-{number}").event_id)
            elif number % 4 == 1:
                say(guard.spend("0.01", {"customer": customer}, purpose="marketing").event_id)
            else:
                say(guard.spend("0.02", key=f"{sys.argv[2]}-{name}-{number}").event_id)
        except SpendDenied as denied:
            say(denied.event_id)

for name in "abcd":
    threading.Thread(target=work, args=(name,), daemon=True).start()
say("started")
threading.Event().wait()
"""


def rounds(count: int = ROUNDS, seed: int = 11) -> tuple[int, int, int, int]:
    """(acknowledged, lost, entries, verifications that failed) after `count` times kill -9."""
    chance = random.Random(seed)
    acknowledged: set[str] = set()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shield.db"
        for number in range(count):
            acknowledged |= _cut(path, number, chance.uniform(0, 0.15))
            if number % _VERIFIED_EVERY == 0 or number == count - 1:
                failed += not _verifies(path)
        reader = SqliteReader(path)
        there = {event_id(entry.seq) for entry in read_entries(reader)}
        kinds = {type(decode_fact(entry)) for entry in read_entries(reader)}
        reader.close()
        assert {Decided, ConsentChanged} <= kinds
    return len(acknowledged), len(acknowledged - there), len(there), failed


def _cut(path: Path, number: int, seconds: float) -> set[str]:
    command = [sys.executable, "-W", "ignore", "-c", _WRITER, str(path), str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        # At every stage of its life, the first statements on the file included; and, however slow the machine is, not only there.
        read = ""
        if number % 5:
            for _ in range(1 if number % 2 else 51):
                read += process.stdout.readline()
            time.sleep(seconds)
        else:
            time.sleep(2 * seconds)
        process.send_signal(signal.SIGKILL)
        whole, _, _ = (read + process.stdout.read()).rpartition("\n")
    return set(whole.split()) - {"started"}


def _verifies(path: Path) -> bool:
    """Whether a guard opens on what is left, and its whole chain is what its checkpoints signed."""
    with BudgetGuard.open(path, limit="1000", window="1s") as guard:
        ledger = guard.decider.ledger
        ledger.checkpoint()
        assert ledger.signer is not None
        notes = [note for _, note in ledger.store.scan(CHECKPOINTS)]
        found = verify_entries(ledger.chain, ledger.store.entries(), notes, ledger.signer.verifier_key)
        return found.last + 1 == ledger.next_seq


def run() -> list[Row]:
    """All rows of this part."""
    acknowledged, lost, entries, failed = rounds()
    return [
        Row(
            f"{ROUNDS:,} rounds of kill -9: {acknowledged:,} acknowledged, {entries:,} entries",
            f"{lost} lost, {failed} ledgers that do not verify",
            "0 and 0",
            not lost and not failed,
        )
    ]
