"""A million decisions while people opt out: nobody gets a message who had opted out before it was claimed.

Looks at 50,000 customers follow each other; each decides about all of them and sends to 500, while another thread writes opt-outs as fast as it
can. Whoever opted out is noted once that is acknowledged. A message whose claim began after that is wrong; one that was claimed before and is
handed to the channel after is counted, with how much later. Every second customer never leaves, so that there is somebody to write to however
fast the opt-outs are, and the first look waits until some have left.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.measure import Row
from kiki.engage.action_log import ActionLog, Claim
from kiki.engage.channel import Message
from kiki.engage.customer_store import CustomerStore
from kiki.engage.database import Database, open_database
from kiki.engage.decision import Standing, decide
from kiki.engage.journey_book import JourneyBook
from kiki.engage.keyring import Keyring
from kiki.engage.message_maker import MessageMaker
from kiki.engage.playbook_text import parse_playbook
from kiki.engage.profile import Profile
from kiki.engage.roster import call_the_roll, suppressed_on
from kiki.engage.sender import Post, Sender
from kiki.engage.shield_line import Reserved
from kiki.ledger.memory import MemoryStore
from kiki.ledger.subjects import Subjects
from kiki.outbound.outcome import Outcome, done

CUSTOMERS = 50_000
LOOKS = 20
SENT = 500
PLAYBOOK = parse_playbook("""
playbook: p
currency: USD
messages: {mail: {channel: email, subject: Hello, text: Hello}}
offers: {free: {message: mail, cost: 0.10}}
journeys: {j: {enter: {event: order}, steps: [{send: free, name: s}]}}
""")


class Result(NamedTuple):
    """What was found."""

    decisions: int
    messages: int
    opted_out: int
    wrong: int
    """Messages whose claim began after their person's opt-out was acknowledged."""
    after: int
    """Messages handed to the channel after their person's opt-out was acknowledged: they had been claimed before."""
    latest: float
    """By how many seconds the latest of those."""


class _Log(ActionLog):
    """Notes when each claim began: before its transaction, so that what was acknowledged by then must be seen in it."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.claiming: dict[str, float] = {}

    def take(self, worker: str, *claims: Claim) -> set[str]:
        now = time.monotonic()
        self.claiming.update((claim.action, now) for claim in claims)
        return super().take(worker, *claims)


class _Shield:
    def consents(self, customers: list[str], purpose: str) -> list[bool]:
        return [True] * len(customers)

    def reserve(self, micros: int, scopes: object, key: str, purpose: str) -> Reserved:
        return Reserved(hold=key)

    def room(self, scopes: object) -> None:
        return None

    def currency(self) -> str:
        return "USD"

    def commit(self, hold: str, micros: int) -> None: ...

    def release(self, hold: str) -> None: ...

    def note(self, notes: object) -> None: ...


def rounds(customers: int, looks: int, sent: int) -> Result:
    """So many looks at so many customers, with a thread that opts people out all the time."""
    with tempfile.TemporaryDirectory() as folder:
        store = CustomerStore(open_database(Path(folder) / "engage.db"), Keyring(Subjects(MemoryStore())))
        for first in range(0, customers, 5000):
            some = range(first, min(first + 5000, customers))
            store.keep("bench", [Profile(customer=f"c-{n}", email=f"c{n}@example.com") for n in some])
        acknowledged: dict[str, float] = {}
        late: list[float] = []
        count = wrong = 0
        counting = threading.Lock()
        log, book = _Log(store.database), JourneyBook(store.database)

        class Channel:
            name = "email"

            def send(self, message: Message) -> Outcome:
                nonlocal count, wrong
                with counting:  # workers send side by side
                    count += 1
                    at = acknowledged.get(message.customer)
                    if at is not None:
                        late.append(time.monotonic() - at)
                        wrong += at < log.claiming[message.action]
                return done()

        sender = Sender(store, log, _Shield(), {"email": Channel()}, "https://x/{}".format, workers=16)
        maker, stop, chance = MessageMaker(PLAYBOOK), threading.Event(), random.Random(1)
        some_left = threading.Event()

        def leave() -> None:
            try:
                while not stop.is_set():
                    customer = f"c-{chance.randrange(0, customers, 2)}"
                    store.suppressions.add(customer)
                    acknowledged.setdefault(customer, time.monotonic())
                    if len(acknowledged) > customers // 50:
                        some_left.set()
            finally:
                some_left.set()

        thread = threading.Thread(target=leave)
        thread.start()
        try:
            some_left.wait()
            for look in range(looks):
                roster = call_the_roll(store, log, book, PLAYBOOK, None)
                people = roster.people
                standing = Standing(
                    consent=np.ones(len(people), dtype=bool),
                    suppressed=suppressed_on(roster, store, ["email"]),
                    held_out=np.zeros(len(people), dtype=bool),
                )
                gain = np.random.default_rng(look).integers(1, 10**6, (len(people), 1))
                found = decide(PLAYBOOK, ("free",), people, standing, gain, room=sent * 100_000)
                rows = np.flatnonzero(found.codes == 0).tolist()
                sender.send(maker, *(Post(people.persons[row], "free", "j/s", f"{look}/{row}") for row in rows))
        finally:
            stop.set()
            thread.join()
            store.close()
        return Result(customers * looks, count, len(acknowledged), wrong, len(late), max(late, default=0.0))


def run() -> list[Row]:
    """The rows of the table."""
    found = rounds(CUSTOMERS, LOOKS, SENT)
    what = (
        f"{found.decisions:,} decisions, {found.messages:,} messages, {found.opted_out:,} people opting out meanwhile"
    )
    return [
        Row(
            f"{what}: claimed after an acknowledged opt-out",
            f"{found.wrong}",
            "0",
            found.wrong == 0,
        ),
        Row(
            "the same: already claimed when the opt-out was acknowledged",
            f"{found.after}, at most {found.latest * 1000:.0f} ms after",
            "< 1 s",
            found.latest < 1,
        ),
    ]
