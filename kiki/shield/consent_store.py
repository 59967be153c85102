"""`ConsentStore`: who consented to what, in a script or beside a guard, with proof of every change."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Collection, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, Unpack

from kiki.clock import Clock
from kiki.errors import ConsentDenied, KikiError, NotFound, Unreadable
from kiki.ledger.entry import Entry
from kiki.ledger.ledger import META, read_entries
from kiki.ledger.master_key import KeySource
from kiki.ledger.store import Write
from kiki.shield.change import Change
from kiki.shield.consent import CONSENT, LEASE_HELD, State, consent_key, read_state, subject_and_purpose
from kiki.shield.consent_change import Given, Said, consent_change, consent_changes, person_of, said, signal_change
from kiki.shield.consent_json import Receipt, receipt_json, record_json
from kiki.shield.consent_lease import Leases
from kiki.shield.consent_record import ConsentDetails, ConsentRecord, past_record, read_details, record_of
from kiki.shield.consent_words import PURPOSES, parse_customer_id, parse_purpose, parse_purposes, signal_of
from kiki.shield.decider import Decider
from kiki.shield.enforcer import Leased
from kiki.shield.fact import ConsentChanged, ConsentUsed, decode_fact
from kiki.shield.opening import open_decider

HISTORY_MAX: Final = 10_000
_LEASED: Final = b"leases"


class ConsentStore:
    """Keeps what each customer consented to, and answers whether a customer consents now.

    Thread-safe. A call that changes something returns once that is on disk, and a call that takes consent back
    once nobody acts on it any more: at most 2 seconds later where others hold it under a lease. Every change is
    an entry of the ledger with its moment, version and notice in clear, and everything personal sealed.
    """

    def __init__(
        self,
        decider: Decider,
        *,
        purposes: Collection[str] = PURPOSES,
    ) -> None:
        self.decider = decider
        self.purposes = tuple(purposes)
        store = decider.ledger.store
        self._has_leased = store.get(META, _LEASED) is not None
        self._leasing = threading.Lock()
        # Whoever had this ledger before may have handed out leases until it was killed, a moment ago.
        self.leases = Leases(is_shared=store.is_shared, follows=self._has_leased)

    @classmethod
    def open(
        cls,
        path: str | Path | None = None,
        *,
        purposes: Iterable[str] = (),
        keys: KeySource | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """A store over the ledger at `path` (None: in memory, forgotten at the end), for this process alone.

        `purposes` are added to those that always are. Raises `LedgerLocked` when another process has the ledger.
        """
        return cls(
            open_decider(None if path is None else Path(path), None, keys=keys, clock=clock),
            purposes=parse_purposes(purposes),
        )

    # -- what a customer says ------------------------------------------------------------------------

    def grant(self, customer: str, purpose: str, **given: Unpack[Given]) -> ConsentRecord:
        """The customer consents. Repeating what holds already writes nothing and answers what holds.

        Raises `ConsentConflict` when an opt-out signal stands against the purpose and `overrides` is not given.
        """
        return self.say(self.said(customer, purpose, State.GRANTED, **given))

    def deny(self, customer: str, purpose: str, **given: Unpack[Given]) -> ConsentRecord:
        """The customer was asked and says no."""
        return self.say(self.said(customer, purpose, State.DENIED, **given))

    def revoke(self, customer: str, purpose: str, **given: Unpack[Given]) -> ConsentRecord:
        """The customer takes consent back. What was never given can be revoked, too, and is written down."""
        return self.say(self.said(customer, purpose, State.REVOKED, **given))

    def signal(
        self, customer: str, headers: str | Iterable[str] = "1", **given: Unpack[Given]
    ) -> dict[str, ConsentRecord]:
        """Honour Global Privacy Control: the values of the `Sec-GPC` headers of a request of this customer.

        Exactly `1` opts out of data sharing and targeting, unless the customer agreed to them knowing of the
        conflict. What holds afterwards for each of these purposes; empty when the headers are no signal.
        """
        if not signal_of([headers] if isinstance(headers, str) else headers):
            return {}
        records: list[ConsentRecord] = self.change(signal_change(customer, self.decider.clock(), **given))
        since = self.leases.now()
        return {record.purpose: self.settled(record, since) for record in records}

    def said(self, customer: str, purpose: str, state: State, **given: Unpack[Given]) -> Said:
        """What somebody sent, read and checked, for `say`, `say_all` or `consent_change`."""
        return said(customer, purpose, state, self.decider.clock(), self.purposes, **given)

    def say(self, one: Said) -> ConsentRecord:
        """Write down what one customer says; what holds afterwards."""
        return self.settled(self.change(consent_change(one)))

    def say_all(self, many: Iterable[Said]) -> list[ConsentRecord | KikiError]:
        """Write down what many customers say, in one durable commit: for each what holds, or why it was refused."""
        records: list[ConsentRecord | KikiError] = self.change(consent_changes(list(many)))
        since = self.leases.now()
        for record in records:
            if isinstance(record, ConsentRecord):
                self.settled(record, since)
        return records

    def settled(self, record: ConsentRecord, since: int | None = None) -> ConsentRecord:
        """Wait until nobody acts on what held before this record; call it once the record is durable."""
        if record.takes_back:
            self.leases.wait(record.subject, record.purpose, since=since)
        return record

    async def settled_async(self, record: ConsentRecord) -> ConsentRecord:
        """The same on an event loop."""
        if record.takes_back:
            await self.leases.wait_async(record.subject, record.purpose)
        return record

    def change(self, change: Change) -> Any:
        """The durable result of a change, of which nobody waits for the leases yet."""
        return self.decider.group.submit(change).result()

    # -- asking --------------------------------------------------------------------------------------

    def require(self, customer: str, purpose: str) -> ConsentRecord:
        """The consent that holds; raises `ConsentDenied` when there is none."""
        purpose = parse_purpose(purpose, self.purposes)
        record = self._found(parse_customer_id(customer), purpose)
        if not record.in_force:
            raise ConsentDenied(explained(record), purpose=purpose, state=record.state)
        return record

    def check(self, customer: str, purpose: str) -> bool:
        """Whether the customer consents now; quick, and nothing is written."""
        return self.check_many([(customer, purpose)])[0]

    def check_many(self, asked: Iterable[tuple[str, str]]) -> list[bool]:
        """Whether each customer consents to each purpose now, in order."""
        return [used.given for used in self.used_many(asked)]

    def used_many(self, asked: Iterable[tuple[str, str]]) -> list[ConsentUsed]:
        """The same with the entry that each answer rests on."""
        asked = [(parse_customer_id(customer), parse_purpose(purpose, self.purposes)) for customer, purpose in asked]
        now = self.decider.clock()
        persons = {customer: self.decider.subjects.find(person_of(customer)) for customer, _ in asked}
        known = {
            (customer, purpose): (person.reference, purpose)
            for customer, purpose in asked
            if (person := persons[customer]) is not None
        }
        used = dict(zip(known, self.decider.books.consents.look_many(known.values(), now), strict=True))
        return [used.get(pair) or ConsentUsed("", pair[1]) for pair in asked]

    def lease(self, customer: str, purpose: str, holder: str) -> Leased:
        """An answer that `holder`, somebody outside this process, may act on for a short time."""
        purpose = parse_purpose(purpose, self.purposes)
        person = self.decider.subjects.find(person_of(parse_customer_id(customer)))
        if person is None:
            # A no needs no lease: nothing waits for whoever acts on it.
            return Leased(allowed=False, span=LEASE_HELD, end=0)
        self._remember_leasing()
        # Noted before it is read, and read anew: an answer from memory may be as old as a lease.
        end = self.leases.grant(person.reference, purpose, holder)
        record, now = self._found(customer, purpose), self.decider.clock()
        span = LEASE_HELD if record.expires_at is None else min(LEASE_HELD, max(0, record.expires_at - now))
        return Leased(record.in_force, span, end, record.event_id)

    def status(self, customer: str) -> dict[str, ConsentRecord]:
        """Everything that is known of a customer, by purpose, with what was sealed; empty when nothing is."""
        person = self.decider.subjects.find(person_of(parse_customer_id(customer)))
        return {} if person is None else {record.purpose: record for record in self._records_of(person.reference)}

    def history(self, customer: str, purpose: str | None = None) -> list[ConsentRecord]:
        """Everything that a customer ever said, in the order in which it was written down.

        Each as it was said then. What lies in pruned entries is gone; what another replica wrote is there where
        its chain can be read.
        """
        person = self.decider.subjects.find(person_of(parse_customer_id(customer)))
        if person is None:
            return []
        records = [
            past
            for record in self._records_of(person.reference)
            if purpose in {None, record.purpose}
            for past in self._back(record)
        ]
        return sorted(records, key=lambda record: (record.at or 0, record.chain, record.seq))

    def past(self, record: ConsentRecord) -> list[ConsentRecord]:
        """Everything that was said until this record, the oldest first, as far as its entries are there."""
        return list(self._back(record))[::-1] or [record]

    def receipt(self, customer: str, purpose: str) -> Receipt:
        """What to hand over to the customer: a copy of the record (ISO/IEC TS 27560). Raises `NotFound`."""
        history = self.history(customer, parse_purpose(purpose, self.purposes))
        if not history:
            raise NotFound(f"nothing is known of the customer's consent to {purpose}, so there is no receipt for it")
        return receipt_json(record_json(history), f"urn:uuid:{uuid.uuid4()}", self.decider.clock())

    def expiring(self, within: timedelta) -> Iterator[ConsentRecord]:
        """Consent that holds now and runs out within this time, in no order; for asking again before it does."""
        until = self.decider.clock() + within // timedelta(microseconds=1)
        for record in self.records(sealed=False):
            if record.in_force and record.expires_at is not None and record.expires_at <= until:
                yield record

    def records(self, *, sealed: bool = True, after: bytes = b"") -> Iterator[ConsentRecord]:
        """The last word of every customer on every purpose; erased customers are left out.

        Memory does not grow with their number. Without `sealed` no entry is opened, which is much faster. They come
        in the order of `consent_key`; `after` is the key of the last one that somebody has seen.
        """
        now, subjects = self.decider.clock(), self.decider.subjects
        subject = customer = ""
        for key, value in self.decider.ledger.store.scan(CONSENT, after):
            found, purpose = subject_and_purpose(key)
            if found != subject:
                subject = found
                customer = (subjects.identity(subject) or "").removeprefix("customer:")
            state = read_state(value)
            if customer and state is not None:
                details = self._details(state.chain, state.seq) if sealed else None
                yield record_of(customer, subject, purpose, state, now, details=details)

    def _remember_leasing(self) -> None:
        """Note in the ledger, once, that leases are handed out: whoever opens it next has to wait for them."""
        if not self._has_leased:
            with self._leasing:
                self.decider.ledger.keep([Write(META, _LEASED, b"1")])
                self._has_leased = True

    # -- reading -------------------------------------------------------------------------------------

    def _found(self, customer: str, purpose: str) -> ConsentRecord:
        person, now = self.decider.subjects.find(person_of(customer)), self.decider.clock()
        if person is None:
            return record_of(customer, "", purpose, None, now)
        value = self.decider.ledger.store.get(CONSENT, consent_key(person.reference, purpose))
        return record_of(customer, person.reference, purpose, read_state(value), now)

    def _records_of(self, subject: str) -> Iterator[ConsentRecord]:
        now = self.decider.clock()
        prefix = bytes.fromhex(subject)
        customer = (self.decider.subjects.identity(subject) or "").removeprefix("customer:")
        for key, value in self.decider.ledger.store.scan(CONSENT, prefix):
            if not key.startswith(prefix):
                break
            state = read_state(value)
            if state is not None:
                details = self._details(state.chain, state.seq)
                yield record_of(customer, subject, subject_and_purpose(key)[1], state, now, details=details)

    def _back(self, record: ConsentRecord) -> Iterator[ConsentRecord]:
        place: list[str | int] = [record.chain, record.seq]
        for _ in range(HISTORY_MAX):
            if not place:
                return
            chain, seq = str(place[0]), int(place[1])
            entry = self._entry(chain, seq)
            if entry is None:
                return
            fact = decode_fact(entry)
            if not isinstance(fact, ConsentChanged):
                return
            yield past_record(record.customer, fact, chain, seq, self._opened(entry))
            place = fact.previous

    def _entry(self, chain: str, seq: int) -> Entry | None:
        reader = self.decider.reader_of(chain)
        return None if reader is None else next(read_entries(reader, seq, seq), None)

    def _details(self, chain: str, seq: int) -> ConsentDetails | None:
        entry = self._entry(chain, seq)
        return None if entry is None else self._opened(entry)

    def _opened(self, entry: Entry) -> ConsentDetails | None:
        if not entry.sealed:
            return None
        try:
            return read_details(self.decider.subjects.open(entry.sealed[0]))
        except Unreadable:
            return None

    # -- going down ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Finish what waits and give the ledger free, for the guard over it, too."""
        self.decider.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ConsentStore({', '.join(self.purposes)})"


def explained(record: ConsentRecord) -> str:
    """Why there is no consent, for a record that is not in force."""
    said_so = {
        State.NONE: "nothing is known of the customer's consent to {}",
        State.DENIED: "the customer said no to {}",
        State.REVOKED: "the customer took back the consent to {}",
        State.EXPIRED: "the customer's consent to {} has run out",
    }
    return said_so[record.state].format(record.purpose)
