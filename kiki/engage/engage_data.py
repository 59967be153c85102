"""What engage has about a person, for requests of persons: told, corrected, handed over, erased, and read back.

Erasing removes the profile, what was sealed in it, and every word about what the person did; where the keys are engage's
own, the key too. What stays names nobody: amounts and fates of messages under a random reference, for the reports that
were made of them, and keyed hashes that keep an import or a campaign from bringing the person back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from kiki.clock import to_iso
from kiki.engage.action_log import ActionLog, State
from kiki.engage.channels.outbox import forget, letter
from kiki.engage.customer_store import CustomerStore
from kiki.engage.database import Statements
from kiki.engage.journey_book import JourneyBook
from kiki.engage.letter import Letter
from kiki.engage.profile import PERSONAL_FIELDS
from kiki.engage.suppression_list import EVERY_CHANNEL
from kiki.engage.trigger_audit import TriggerAudit
from kiki.errors import SystemUnavailable
from kiki.shield.subject_data import Document, Erased, Found, Task, Verification
from kiki.shield.subject_request import Kept

SUPPRESSION_ARTICLE: Final = "GDPR 17(3)(b); 11 CCR 7022"
FIGURES_ARTICLE: Final = "GDPR 11(1)"
CORRECTABLE: Final = (*PERSONAL_FIELDS, "locale", "zone", "country", "segment")
STOPS: Final = frozenset({"marketing", "targeting", "profiling"})
"""A restriction for one of these purposes ends messages; analytics alone does not."""
_ABOUT: Final = ("engage_events", "engage_actions", "engage_journeys", "engage_assignments", "engage_verdicts")


class EngageData:
    """See `SubjectData`."""

    name = "engage"
    depends_on: Collection[str] = ()

    def __init__(self, store: CustomerStore, outbox: Path | None = None, audit: TriggerAudit | None = None) -> None:
        """`outbox`: where messages lie or once lay that no provider was given; `audit`: what /trigger answered."""
        self._store = store
        self._outbox = outbox
        self._audit = audit
        self._log = ActionLog(store.database, store.clock)
        self._book = JourneyBook(store.database, store.clock)

    def locate(self, task: Task) -> Found:
        """The profile, and every row about the person."""
        person = self._store.person(task.customer)
        counts = {} if person is None else {table: self._count(table, person) for table in _ABOUT}
        counts |= {"outbox": len(self._letters(task)), "triggers": len(self._triggers(task))}
        classes = [] if person is None else ["profile"]
        classes += [table.removeprefix("engage_") for table, count in counts.items() if count]
        return Found((person is not None) + sum(counts.values()), tuple(classes))

    def restrict(self, task: Task) -> None:
        """No message from now on: suppressed, out of every journey, and what waits to be sent is dropped."""
        if task.purposes and not STOPS.intersection(task.purposes):
            return
        self._store.suppressions.add(task.customer, EVERY_CHANNEL, "restricted")
        person = self._store.person(task.customer)
        if person is not None:
            self._book.cancel(person)
            for action in self._log.of_person(person):
                if action.state is State.RESERVED:
                    self._log.drop(action.action, "restricted")

    def rectify(self, task: Task, values: Mapping[str, str]) -> int:
        """Set those of the fields that a profile has."""
        profile = self._store.profile(task.customer)
        known = {name: value for name, value in values.items() if name in CORRECTABLE}
        if profile is None or not known:
            return 0
        # Newer than what the source said: its next change is still taken.
        self._store.keep("request", [msgspec.structs.replace(profile, **known)])
        return 1

    def export(self, task: Task) -> Iterator[Document]:
        """Everything, for the person to read."""
        if triggers := self._triggers(task):
            yield Document("triggers.csv", (line.encode() for line in triggers), len(triggers))
        if letters := self._letters(task):
            yield Document("letters.jsonl", (msgspec.json.encode(each) + b"\n" for each in letters), len(letters))
        profile, person = self._store.profile(task.customer), self._store.person(task.customer)
        if profile is None or person is None:
            return
        told = {**msgspec.to_builtins(profile), "exported_at": to_iso(self._store.clock())}
        yield Document("profile.json", [msgspec.json.format(msgspec.json.encode(told)) + b"\n"], 1)
        events = self._store.events(person)
        if events:
            yield Document("events.jsonl", (msgspec.json.encode(each) + b"\n" for each in events), len(events))
        actions = self._log.of_person(person)
        if actions:
            lines = (msgspec.json.encode({**each._asdict(), "person": task.customer}) + b"\n" for each in actions)
            yield Document("messages.jsonl", lines, len(actions))

    def erase(self, task: Task) -> Erased:
        """Erase the profile and what the person did; keep hashes and figures that name nobody."""
        store, erased = self._store, 0
        self.restrict(task)
        if self._outbox is not None:
            # Before the profile goes, which is the way from the customer to the messages.
            erased += forget(self._outbox, self._actions(task))
        if self._audit is not None:
            erased += self._audit.forget(task.customer)
        with store.database.writing() as tx:
            rows = tx.run(
                "SELECT person, email_hash, phone_hash FROM engage_profiles WHERE customer = ?", (task.customer,)
            )
            for person, *hashes in rows:
                erased += 1 + self._erase(tx, person)
                self._keep_opt_outs(tx, task.customer, [bytes(each) for each in hashes if each is not None])
            tx.run("DELETE FROM engage_profiles WHERE customer = ?", (task.customer,))
            tx.run("UPDATE engage_privacy_requests SET customer = '' WHERE customer = ?", (task.customer,))
        store.database.scrub()
        if store.keys.owns and not store.keys.forget(task.customer):
            raise SystemUnavailable("engage: bytes of the person's key are still found; the next attempt looks again")
        kept = [
            Kept("suppression", SUPPRESSION_ARTICLE, readable=False),
            Kept("figures", FIGURES_ARTICLE, readable=False),
        ]
        return Erased(erased, kept)

    def verify(self, task: Task) -> Verification:
        """No profile, no key where it is ours, and no row that could be read about the person."""
        store = self._store
        left = int(store.person(task.customer) is not None) + len(self._letters(task)) + len(self._triggers(task))
        left += len(store.database.read("SELECT 1 FROM engage_privacy_requests WHERE customer = ?", (task.customer,)))
        if store.keys.owns:
            left += not store.keys.is_gone(task.customer)
        else:
            # With the shield's keys the reference is the same: nothing under it may say more than an amount.
            left += len(store.database.read("SELECT 1 FROM engage_verdicts WHERE person = ?", (task.subject,)))
            left += len(
                store.database.read(
                    "SELECT 1 FROM engage_events WHERE person = ? AND kind NOT IN ('order', 'refund')", (task.subject,)
                )
            )
        return Verification(left, 4)

    def _actions(self, task: Task) -> list[str]:
        person = self._store.person(task.customer)
        return [] if person is None else [each.action for each in self._log.of_person(person)]

    def _letters(self, task: Task) -> list[Letter]:
        where = self._outbox
        found = [] if where is None else [letter(where, action) for action in self._actions(task)]
        return [each for each in found if each is not None]

    def _triggers(self, task: Task) -> list[str]:
        return [] if self._audit is None else self._audit.lines_about(task.customer)

    def _count(self, table: str, person: str) -> int:
        return int(self._store.database.read(f"SELECT count(*) FROM {table} WHERE person = ?", (person,))[0][0])  # noqa: S608

    @staticmethod
    def _erase(tx: Statements, person: str) -> int:
        gone = len(
            tx.run(
                "DELETE FROM engage_events WHERE person = ? AND kind NOT IN ('order', 'refund') RETURNING id", (person,)
            )
        )
        # An order's own id leads back to the shop; its amount and moment are what reports were made of.
        for (name,) in tx.run("SELECT id FROM engage_events WHERE person = ? ORDER BY at, id", (person,)):
            gone += 1
            tx.run(
                "UPDATE engage_events SET id = ?, data = ?, action = '' WHERE id = ?",
                (f"erased:{person}:{gone}", b"", name),
            )
        gone += len(tx.run("DELETE FROM engage_verdicts WHERE person = ? RETURNING person", (person,)))
        gone += len(tx.run("DELETE FROM engage_journeys WHERE person = ? RETURNING person", (person,)))
        tx.run("UPDATE engage_assignments SET features = ? WHERE person = ?", (b"", person))
        tx.run("UPDATE engage_actions SET provider_id = '' WHERE person = ?", (person,))
        return gone

    def _keep_opt_outs(self, tx: Statements, customer: str, addresses: list[bytes]) -> None:
        """Who had opted out stays left alone under the same address, also when it comes with another id."""
        opted = tx.run(
            "SELECT channel, reason, at FROM engage_suppressions "
            "WHERE hash = ? AND lifted_at IS NULL AND reason <> 'restricted'",
            (self._store.keys.hash("customer", customer),),
        )
        for channel, reason, at in opted:
            for place in addresses:
                tx.run(
                    "INSERT INTO engage_suppressions (hash, channel, reason, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (place, channel, reason, at),
                )
