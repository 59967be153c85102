"""Who must not be written to: keyed hashes of customers and addresses, by channel, which outlive a person's erasure."""

from __future__ import annotations

from typing import Final

from kiki.clock import Clock
from kiki.engage.address import normal_address
from kiki.engage.database import Database, Statements
from kiki.engage.event import OptIn, OptOut, OptOutReason
from kiki.engage.keyring import Keyring

EVERY_CHANNEL: Final = ""


class SuppressionList:
    """The list of one store of customers. What is told late never undoes what is newer."""

    def __init__(self, database: Database, keys: Keyring, clock: Clock) -> None:
        self._database = database
        self._keys = keys
        self._clock = clock

    def add(self, customer: str, channel: str = EVERY_CHANNEL, reason: str = OptOutReason.MANUAL) -> None:
        """Write to this customer no more, also after an erasure."""
        with self._database.writing() as tx:
            self._add(tx, self._keys.hash("customer", customer), channel, reason, self._clock())
            for (person,) in tx.run("SELECT person FROM engage_profiles WHERE customer = ?", (customer,)):
                self._lock(tx, person)

    def opt_out(self, tx: Statements, event: OptOut, person: str) -> None:
        """Follow somebody's no, within a transaction."""
        for place in self._places(event.customer, event.address, person):
            self._add(tx, place, event.channel, event.reason, event.at)
        self._lock(tx, person)

    def opt_in(self, tx: Statements, event: OptIn, person: str) -> None:
        """Follow somebody's yes to a channel, within a transaction."""
        for place in self._places(event.customer, event.address, person):
            tx.run(
                "UPDATE engage_suppressions SET lifted_at = ? WHERE hash = ? AND channel = ? AND at <= ?",
                (event.at, place, event.channel, event.at),
            )

    def holds(self, tx: Statements, customer: str, channel: str, address: str) -> bool:
        """Whether this person must not be written to on the channel, as of this transaction."""
        places = self._named(customer, address)
        marks = ", ".join("?" * len(places))
        asked = f"SELECT 1 FROM engage_suppressions WHERE hash IN ({marks}) AND channel IN (?, ?) AND lifted_at IS NULL"  # noqa: S608
        return bool(places) and bool(tx.run(asked, (*places, EVERY_CHANNEL, channel)))

    def all(self) -> dict[bytes, set[str]]:
        """Every hash that is suppressed, with its channels."""
        found: dict[bytes, set[str]] = {}
        for place, channel in self._database.read(
            "SELECT hash, channel FROM engage_suppressions WHERE lifted_at IS NULL"
        ):
            found.setdefault(bytes(place), set()).add(channel)
        return found

    def _add(self, tx: Statements, place: bytes, channel: str, reason: str, at: int) -> None:
        # An opt-out that is told late does not undo a later opt-in.
        tx.run(
            "INSERT INTO engage_suppressions (hash, channel, reason, at) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (hash, channel) DO UPDATE SET reason = excluded.reason, at = excluded.at, lifted_at = NULL "
            "WHERE engage_suppressions.lifted_at IS NULL OR engage_suppressions.lifted_at < excluded.at",
            (place, channel, reason, at),
        )

    def _lock(self, tx: Statements, person: str) -> None:
        """Wait for a send to this person that is just being claimed: after the commit none can begin."""
        if person and self._database.is_shared:
            tx.run("SELECT person FROM engage_profiles WHERE person = ? FOR UPDATE", (person,))

    def _places(self, customer: str, address: str, person: str) -> list[bytes]:
        """What an event names; where it names nobody, the person whose message it is about."""
        places = self._named(customer, address)
        if not places and person:
            rows = self._database.read("SELECT customer FROM engage_profiles WHERE person = ?", (person,))
            places = [self._keys.hash("customer", row[0]) for row in rows]
        return places

    def _named(self, customer: str, address: str) -> list[bytes]:
        places = [self._keys.hash("customer", customer)] if customer else []
        kind, normal = normal_address(address)
        return [*places, self._keys.hash(kind, normal)] if kind else places
