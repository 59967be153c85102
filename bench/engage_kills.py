"""Messages while the worker is killed with SIGKILL and the provider answers too late: none goes out twice.

`python -m bench engage_kills` sends 100,000; a test sends fewer of the same. The provider is a file that only grows: a line is a message that
it has accepted, and says what was answered. Of its answers some never come, some are nonsense, some are refusals; a worker that is killed
leaves what it was sending. It is killed after a number of messages that chance has drawn, and none of those to be killed comes to its end
before: its provider falls silent.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bench.measure import Row
from kiki.engage.action_log import ActionLog, State
from kiki.engage.customer_store import CustomerStore
from kiki.engage.database import open_database
from kiki.engage.event import Delivery, DeliveryState
from kiki.engage.keyring import Keyring
from kiki.engage.profile import Profile
from kiki.ledger.master_key import KeySource
from kiki.ledger.sqlite import SqliteStore
from kiki.ledger.subjects import Subjects

ACTIONS = 100_000
KILLS = 60

AT_ONCE = 64
"""So many messages a worker sends at the same time, and so many it may leave behind."""

_WORKER = """
import itertools, os, random, sys, threading
from pathlib import Path
from bench.engage_kills import AT_ONCE, PLAYBOOK, open_store
from kiki.engage.action_log import ActionLog
from kiki.engage.message_maker import MessageMaker
from kiki.engage.playbook_text import parse_playbook
from kiki.engage.sender import Post, Sender
from kiki.engage.shield_line import Reserved
from kiki.outbound.outcome import done, refused, unknown

folder, chance, most = Path(sys.argv[1]), random.Random(int(sys.argv[2])), int(sys.argv[3])
turns = itertools.count(1)
accepted = os.open(folder / "accepted", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

class Shield:
    def consents(self, customers, purpose): return [True] * len(customers)
    def reserve(self, micros, scopes, key, purpose): return Reserved(hold=key)
    def commit(self, hold, micros): pass
    def release(self, hold): pass

class Provider:
    name = "email"
    def send(self, message):
        if most and next(turns) > most:
            threading.Event().wait()  # until it is killed
        draw = chance.random()
        if draw < 0.03:
            return refused("invalid")
        answered = b"nothing" if draw < 0.06 else b"garbage" if draw < 0.07 else b"done"
        os.write(accepted, message.action.encode() + b" " + answered + b"\\n")
        if answered == b"nothing":
            return unknown("timeout", "accepted, and no answer came")
        if answered == b"garbage":
            raise RuntimeError("garbage")
        return done(provider_id="P")

store = open_store(folder)
sender = Sender(store, ActionLog(store.database), Shield(), {"email": Provider()}, "https://x/{}".format, worker="w", workers=AT_ONCE)
sender.recover()
maker = MessageMaker(parse_playbook(PLAYBOOK))
sender.resume(maker)
people = [row[1] for rows in store.rows() for row in rows]
for first in range(0, len(people), 500):
    found = sender.send(maker, *(Post(person, "free", "j/s", "p/j/s/" + person) for person in people[first:first + 500]))
    if found.failure: raise found.failure
    sender.settle()
print("whole", flush=True)
"""

PLAYBOOK = """
playbook: p
currency: USD
messages: {mail: {channel: email, subject: Hello, text: Hello}}
offers: {free: {message: mail, cost: 0.10}}
journeys: {j: {enter: {event: order}, steps: [{send: free, name: s}]}}
"""


class Result(NamedTuple):
    """What was found at the end."""

    actions: int
    kills: int
    accepted: int
    unanswered: int
    """Messages that the provider accepted without a clear answer."""
    duplicates: int
    """Messages that the provider accepted twice."""
    states: dict[str, int]
    lost: int
    """People for whom neither a message was sent nor a state says why."""
    wrong: int
    """Accepted, and yet the log says that it was not."""
    open_after_words: int
    """Unknown and accepted, after the provider's webhooks told of it."""
    seconds: float


def open_store(folder: Path) -> CustomerStore:
    """The store of one worker after another."""
    keys = Subjects(SqliteStore(folder / "keys.db"), KeySource(file=folder / "master.key", may_create=True))
    return CustomerStore(open_database(folder / "engage.db"), Keyring(keys))


def rounds(actions: int, kills: int, seed: int = 1) -> Result:
    """Send to so many people, killed so often."""
    began, chance = time.monotonic(), random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store = open_store(folder)
        for first in range(0, actions, 2000):
            some = range(first, min(first + 2000, actions))
            store.keep("bench", [Profile(customer=f"c-{n}", email=f"c{n}@example.com") for n in some])
        store.close()
        killed = _drive(folder, actions, kills, chance)
        return _judge(folder, actions, killed, began)


def _drive(folder: Path, actions: int, kills: int, chance: random.Random) -> int:
    most = actions // (
        kills + 2
    )  # of a life that is to be killed: so there is something left for the next one, however late the kill comes
    for killed in range(kills + 1):
        is_last = killed == kills
        command = [
            sys.executable,
            "-c",
            _WORKER,
            str(folder),
            str(chance.randrange(10**9)),
            str(0 if is_last else most),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
            try:
                if not is_last:
                    wanted = _lines(folder) + chance.randint(1, most // 2)
                    while _lines(folder) < wanted and worker.poll() is None:
                        time.sleep(0.002)
                    time.sleep(chance.uniform(0.0, 0.02))
                    worker.send_signal(signal.SIGKILL)
                said, _ = worker.communicate()
            finally:
                worker.kill()
        ended = (worker.returncode, b"whole" in said)
        if ended != ((0, True) if is_last else (-signal.SIGKILL, False)):
            raise AssertionError(f"the worker ended with {worker.returncode}")
    return kills


def _lines(folder: Path) -> int:
    try:
        return (folder / "accepted").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _judge(folder: Path, actions: int, killed: int, began: float) -> Result:
    lines = [line.split() for line in (folder / "accepted").read_text().splitlines()]
    accepted = Counter(name for name, _ in lines)
    store = open_store(folder)
    log = ActionLog(store.database)
    found = {action.action: action for action in log.of_playbook("p")}
    states = Counter(str(action.state) for action in found.values())
    may = {State.DONE, State.UNKNOWN}
    wrong = sum(name not in found or found[name].state not in may for name in accepted)
    for number, name in enumerate(accepted):
        log.told(Delivery(id=f"e{number}", action=name, at=1, state=DeliveryState.DELIVERED))
    left = sum(action.action in accepted for action in log.in_state(State.UNKNOWN, limit=actions))
    store.close()
    return Result(
        actions,
        killed,
        len(accepted),
        sum(answered != "done" for _, answered in lines),
        sum(count > 1 for count in accepted.values()),
        dict(states),
        actions - sum(states[state] for state in ("done", "refused", "unknown")),
        wrong,
        left,
        time.monotonic() - began,
    )


def run() -> list[Row]:
    """The rows of the table."""
    found = rounds(ACTIONS, KILLS)
    print(found, file=sys.stderr)
    what = f"{found.actions:,} messages, the worker killed {found.kills} times, 4 % of answers lost after acceptance"
    return [
        Row(f"{what}: sent twice", f"{found.duplicates}", "0", found.duplicates == 0),
        Row("the same: people forgotten", f"{found.lost}", "0", found.lost == 0),
        Row("the same: accepted by the provider, and said not to be", f"{found.wrong}", "0", found.wrong == 0),
        Row(
            f"the same: {found.states.get('unknown', 0):,} unknown at first, of those accepted still so after the webhooks",
            f"{found.open_after_words}",
            "0",
            found.open_after_words == 0,
        ),
    ]
