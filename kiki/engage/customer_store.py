"""Customers and what happened to them, durable in SQLite or PostgreSQL.

Names and addresses are sealed under the person's own key. Events and records may come twice and in any order: an
event's id is kept once, and an older version of a profile never replaces a newer one. Who was erased is not brought
back by an import.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from kiki.clock import Clock, wall_micros
from kiki.engage.address import normal_email, normal_phone
from kiki.engage.database import Database, Row, Statements, read_in
from kiki.engage.demand_book import DemandBook
from kiki.engage.event import (
    EVENT_ID_CHARS_MAX,
    Delivery,
    Event,
    OptIn,
    OptOut,
    Order,
    Refund,
    Touch,
    TouchKind,
    kind_of,
)
from kiki.engage.keyring import Keyring
from kiki.engage.profile import ID_CHARS_MAX, Profile
from kiki.engage.source import Record
from kiki.engage.suppression_list import SuppressionList
from kiki.engage.tables import SCHEMA_VERSION, TABLES
from kiki.errors import InvalidInput, Unreadable
from kiki.ledger.subjects import Person

Personal = tuple[str, str, str, str]
"""E-mail, phone, first and last name."""

SCHEMA_LOCK: Final = 7_274_051

_COLUMNS: Final = (
    *("customer", "person", "source", "changed_at", "sealed", "email_hash", "phone_hash", "locale", "zone", "country"),
    *("tags", "segment", "is_test", "email_marketing", "sms_marketing", "total_spend", "purchase_count"),
    *("last_purchase", "last_engagement", "engagement_score"),
)
_READ: Final = ", ".join(_COLUMNS)
_UPSERT: Final = (
    f"INSERT INTO engage_profiles ({_READ}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608  # our own names
    "ON CONFLICT (customer) DO UPDATE SET "
    + ", ".join(
        f"{name} = excluded.{name}"
        for name in _COLUMNS
        if name not in {"customer", "person", "source", "last_purchase", "last_engagement"}
    )
    # Orders and clicks that were told first may be newer than what the source has summed up.
    + "".join(
        f", {name} = CASE WHEN excluded.{name} IS NULL OR engage_profiles.{name} > excluded.{name} "
        f"THEN engage_profiles.{name} ELSE excluded.{name} END"
        for name in ("last_purchase", "last_engagement")
    )
    + " WHERE excluded.changed_at = 0 OR excluded.changed_at >= engage_profiles.changed_at"
)
_STUB: Final = (
    "INSERT INTO engage_profiles (customer, person, source, sealed) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_EVENT: Final = (
    "INSERT INTO engage_events (id, kind, person, action, at, amount, margin, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
    # What nobody was named for may be told again with a name: a shop's refund by webhook names its order alone.
    # And a table or file tells of an order how much was given back in all, which grows: it is one refund of the larger sum.
    "ON CONFLICT (id) DO UPDATE SET person = CASE WHEN engage_events.person = '' THEN excluded.person "
    "ELSE engage_events.person END, amount = CASE WHEN excluded.amount < engage_events.amount THEN excluded.amount "
    "ELSE engage_events.amount END, margin = excluded.margin, data = excluded.data "
    "WHERE (engage_events.person = '' AND excluded.person <> '') "
    "OR (engage_events.kind = 'refund' AND excluded.amount < engage_events.amount) RETURNING id"
)
_pack = msgspec.msgpack.Encoder().encode
_personal = msgspec.msgpack.Decoder(Personal)
_event_json = msgspec.json.Encoder().encode
_event: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_PAGE_ROWS: Final = 5_000


class Kept(NamedTuple):
    """What became of some records."""

    profiles: int = 0
    events: int = 0
    """New ones: what was told before is not counted."""
    repeated: int = 0
    erased: int = 0
    """Records of people who were erased here: they are not brought back."""
    deliveries: tuple[Delivery, ...] = ()
    """Those that are new, for the log of actions."""


class CustomerStore:
    """Profiles, events and cursors, and with them who wants no messages and what platforms demand. Thread-safe."""

    def __init__(self, database: Database, keys: Keyring, clock: Clock = wall_micros) -> None:
        self.database = database
        self.keys = keys
        self.clock = clock
        self.suppressions = SuppressionList(database, keys, clock)
        self.demands = DemandBook(database, keys)
        with database.writing() as tx:
            if database.is_shared:
                tx.run("SELECT pg_advisory_xact_lock(?)", (SCHEMA_LOCK,))
            for table in TABLES:
                tx.run(table)
            for name, value in (("schema", str(SCHEMA_VERSION).encode()), ("keys", keys.subjects.digest)):
                tx.run("INSERT INTO engage_meta (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING", (name, value))
            found = {name: bytes(value) for name, value in tx.run("SELECT name, value FROM engage_meta")}
        if found["schema"] != str(SCHEMA_VERSION).encode():
            raise InvalidInput(f"this store of customers has version {found['schema'].decode()}, not {SCHEMA_VERSION}")
        if found["keys"] != keys.subjects.digest:
            raise InvalidInput(
                "this store of customers was written with another key store: nothing personal in it could be read",
                hint="open it with the key store that lay beside it",
            )

    # -- taking in -----------------------------------------------------------------------------------

    def keep(
        self, source: str, records: Iterable[Record], cursor: str | None = None, gone: Collection[str] = ()
    ) -> Kept:
        """Keep records of a source, and with them from where to go on, in one durable commit."""
        records = list(records)
        profiles = [each for each in records if isinstance(each, Profile)]
        events = [each for each in records if not isinstance(each, Profile)]
        for profile in profiles:
            _require_id(profile.customer)
        named = {profile.customer for profile in profiles} | {name for each in events if (name := _customer_of(each))}
        for customer in named:
            _require_id(customer)
        known = self._persons_of(named)
        erased = {customer for customer in named - known.keys() if self.keys.was_erased(customer)}
        persons = self.keys.enrol(sorted(named - erased))
        actions = self._persons_of_actions(map(_action_of, events))
        with self.database.writing() as tx:
            written = [
                self._row(source, profile, persons[profile.customer])
                for profile in _last_of_each(profiles)
                if profile.customer not in erased
            ]
            if written:
                tx.many(_UPSERT, written)
            stubs = [(c, persons[c].reference, source, b"") for c in sorted(named - erased - known.keys())]
            if stubs:
                tx.many(_STUB, stubs)
            new, deliveries, skipped = 0, [], 0
            for each in events:
                if _customer_of(each) in erased and not isinstance(each, OptOut | OptIn):
                    skipped += 1
                    continue
                person = self._person_of_event(each, persons, actions)
                if self._keep_event(tx, each, person):
                    new += 1
                    if isinstance(each, Delivery):
                        deliveries.append(each)
            for customer in gone:
                tx.run("DELETE FROM engage_profiles WHERE customer = ? AND source = ?", (customer, source))
            if cursor is not None:
                tx.run(
                    "INSERT INTO engage_cursors (source, cursor, at) VALUES (?, ?, ?) "
                    "ON CONFLICT (source) DO UPDATE SET cursor = excluded.cursor, at = excluded.at",
                    (source, cursor, self.clock()),
                )
        gone_again = sum(profile.customer in erased for profile in profiles)
        return Kept(len(written), new, len(events) - new - skipped, gone_again + skipped, tuple(deliveries))

    def cursor(self, source: str) -> str:
        """From where a source goes on; empty: from the beginning."""
        rows = self.database.read("SELECT cursor FROM engage_cursors WHERE source = ?", (source,))
        return rows[0][0] if rows else ""

    def _row(self, source: str, profile: Profile, person: Person) -> tuple[object, ...]:
        personal = (profile.email, profile.phone, profile.first_name, profile.last_name)
        return (
            profile.customer,
            person.reference,
            source,
            profile.changed_at,
            self.keys.seal(person, _pack(personal)) if any(personal) else b"",
            self._address_hash(normal_email(profile.email), "email"),
            self._address_hash(normal_phone(profile.phone), "phone"),
            profile.locale,
            profile.zone,
            profile.country,
            "\n".join(sorted(set(profile.tags))),
            profile.segment,
            int(profile.is_test),
            None if profile.email_marketing is None else int(profile.email_marketing),
            None if profile.sms_marketing is None else int(profile.sms_marketing),
            profile.total_spend,
            profile.purchase_count,
            profile.last_purchase,
            profile.last_engagement,
            profile.engagement_score,
        )

    def _address_hash(self, address: str, kind: str) -> bytes | None:
        return self.keys.hash(kind, address) if address else None

    def _person_of_event(self, event: Event, persons: Mapping[str, Person], actions: Mapping[str, str]) -> str:
        named = persons.get(_customer_of(event))
        return named.reference if named is not None else actions.get(_action_of(event), "")

    def _keep_event(self, tx: Statements, event: Event, person: str) -> bool:
        if not event.id or len(event.id) > EVENT_ID_CHARS_MAX:
            raise InvalidInput(f"the id of an event has 1 to {EVENT_ID_CHARS_MAX} characters")
        kind, action = kind_of(event), _action_of(event)
        # The id and the address stay out: whose it was must not be found here once the person is erased.
        bare = {name: "" for name in ("customer", "address") if hasattr(event, name)}
        amount = {Order: 1, Refund: -1}.get(type(event), 0) * getattr(event, "amount", 0)
        margin = getattr(event, "margin", None)
        if isinstance(event, Refund):
            buyer, margin = self._of_its_order(tx, event)
            person = person or buyer
        data = _event_json(msgspec.structs.replace(event, **bare) if bare else event)
        values = (event.id, kind, person, action, event.at, amount, margin, data)
        if not tx.run(_EVENT, values):
            return False
        if isinstance(event, Order):
            self._newest(tx, "last_purchase", person, event.at)
        elif isinstance(event, Touch) and event.kind is not TouchKind.OPENED:
            self._newest(tx, "last_engagement", person, event.at)
        elif isinstance(event, OptOut):
            self.suppressions.opt_out(tx, event, person)
        elif isinstance(event, OptIn):
            self.suppressions.opt_in(tx, event, person)
        return True

    @staticmethod
    def _of_its_order(tx: Statements, refund: Refund) -> tuple[str, int | None]:
        """Who gave the goods back, and the part of the margin that is lost with them, where the order tells it."""
        for person, amount, margin in tx.run(
            "SELECT person, amount, margin FROM engage_events WHERE id = ?", (refund.order,)
        ):
            return person, -(int(margin) * refund.amount // int(amount)) if margin is not None and amount else None
        return "", None

    @staticmethod
    def _newest(tx: Statements, column: str, person: str, at: int) -> None:
        tx.run(
            f"UPDATE engage_profiles SET {column} = ? WHERE person = ? AND ({column} IS NULL OR {column} < ?)",  # noqa: S608
            (at, person, at),
        )

    # -- looking -------------------------------------------------------------------------------------

    def profile(self, customer: str) -> Profile | None:
        """One customer with names and addresses; without them when the key was destroyed."""
        rows = self.database.read(f"SELECT {_READ} FROM engage_profiles WHERE customer = ?", (customer,))  # noqa: S608
        return self._profile(rows[0]) if rows else None

    def profile_of(self, person: str) -> Profile | None:
        """The customer behind a reference."""
        rows = self.database.read(f"SELECT {_READ} FROM engage_profiles WHERE person = ?", (person,))  # noqa: S608
        return self._profile(rows[0]) if rows else None

    def person(self, customer: str) -> str | None:
        """The reference of a customer."""
        return self._persons_of([customer]).get(customer)

    def rows(self) -> Iterator[list[Row]]:
        """Every profile as it is stored, without opening anything, some thousand at a time, by id."""
        after = ""
        while True:
            rows = self.database.read(
                f"SELECT {_READ} FROM engage_profiles WHERE customer > ? ORDER BY customer LIMIT ?",  # noqa: S608
                (after, _PAGE_ROWS),
            )
            if rows:
                yield rows
            if len(rows) < _PAGE_ROWS:
                return
            after = rows[-1][0]

    def count(self) -> int:
        """How many customers there are."""
        return int(self.database.read("SELECT count(*) FROM engage_profiles")[0][0])

    def customers(self, after: str, limit: int) -> list[Profile]:
        """Some customers by id, without names and addresses."""
        rows = self.database.read(
            f"SELECT {_READ} FROM engage_profiles WHERE customer > ? ORDER BY customer LIMIT ?",  # noqa: S608
            (after, limit),
        )
        return [bare_profile(row) for row in rows]

    def customers_of(self, source: str) -> list[str]:
        """Everybody who came from a source."""
        rows = self.database.read("SELECT customer FROM engage_profiles WHERE source = ? ORDER BY customer", (source,))
        return [row[0] for row in rows]

    def events(self, person: str) -> list[Event]:
        """What happened to a person, oldest first; the customer's id is not repeated in it."""
        rows = self.database.read("SELECT data FROM engage_events WHERE person = ? ORDER BY at, id", (person,))
        return [_event.decode(bytes(row[0])) for row in rows]

    def _profile(self, row: Row) -> Profile:
        bare = bare_profile(row)
        person, sealed = self.keys.person_of(row[1]), bytes(row[4])
        if person is None or not sealed:
            return bare
        try:
            email, phone, first_name, last_name = _personal.decode(self.keys.open(person, sealed))
        except Unreadable:
            return bare
        return msgspec.structs.replace(bare, email=email, phone=phone, first_name=first_name, last_name=last_name)

    def _persons_of(self, customers: Collection[str]) -> dict[str, str]:
        query = "SELECT customer, person FROM engage_profiles WHERE customer IN"
        return dict(read_in(self.database, query, (), customers))

    def _persons_of_actions(self, actions: Iterable[str]) -> dict[str, str]:
        query = "SELECT action, person FROM engage_actions WHERE action IN"
        return dict(read_in(self.database, query, (), filter(None, actions)))

    def close(self) -> None:
        """Let go of the database and of a key store of one's own."""
        self.database.close()
        self.keys.close()


def bare_profile(row: Row) -> Profile:
    """A stored row as a profile without names and addresses."""
    values: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    for name in ("person", "source", "sealed", "email_hash", "phone_hash"):
        del values[name]
    values["tags"] = tuple(filter(None, values["tags"].split("\n")))
    values["is_test"] = bool(values["is_test"])
    for name in ("email_marketing", "sms_marketing"):
        values[name] = None if values[name] is None else bool(values[name])
    return Profile(**values)


def _last_of_each(profiles: Sequence[Profile]) -> list[Profile]:
    """One version of each customer: the newest, and of equals the last."""
    newest: dict[str, Profile] = {}
    for profile in profiles:
        before = newest.get(profile.customer)
        if before is None or profile.changed_at >= before.changed_at:
            newest[profile.customer] = profile
    return list(newest.values())


def _customer_of(event: Event) -> str:
    """Whom an event names; empty when it names an action or an address only."""
    return getattr(event, "customer", "")


def _action_of(event: Event) -> str:
    return getattr(event, "action", "")


def _require_id(customer: str) -> None:
    if not customer or len(customer) > ID_CHARS_MAX or not customer.isprintable():
        raise InvalidInput(f"a customer's id has 1 to {ID_CHARS_MAX} printable characters")
