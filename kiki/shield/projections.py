"""What must be looked up, folded from the facts: open holds, halts, the policy, the places of keys.

Each change is written in the transaction of its fact. When all of it is gone, it is built again from the ledger.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from kiki.errors import LedgerCorrupt
from kiki.ledger.entry import Sealed
from kiki.ledger.key_index import KeyIndex, key_write
from kiki.ledger.ledger import Append, read_entries
from kiki.ledger.projected import projected
from kiki.ledger.store import Reader, Store, Write
from kiki.shield import breach, consent, legal_hold, note, subject_request
from kiki.shield.fact import (
    BreachDeclared,
    ConsentChanged,
    Decided,
    Fact,
    Halted,
    LegalHeld,
    Noted,
    PolicyUsed,
    RequestChanged,
    Settled,
    decode_fact,
)
from kiki.shield.scope import Scopes
from kiki.shield.window import OpenHold, Verb

HOLDS = "hold"
"""Open holds of this chain, so that one made long ago is found without reading the whole ledger."""
HALTS = "halt"
"""The scope patterns halted by this chain."""
LAPSED = "lapsed"
"""Holds in a shared window whose deadline passed, by that moment and their id: the window has charged them."""
EPOCH = "epoch"
"""The life of the shared window that this chain met last: a `MetEpoch`."""
POLICY = "policy"
"""The policy last used. It is written at the first opening, so its absence tells that projections are gone."""

_SETTLED = b"settled"
_REBUILT_AT_ONCE = 1000


class MetEpoch(NamedTuple):
    """The life of a shared window that a chain met last, and the highest sequence and latest moment it saw there."""

    epoch: str
    sequence: int
    at: int


_met_epoch = msgspec.msgpack.Decoder(MetEpoch).decode


class Projections:
    """The projections of one chain, in the store and as far as needed in memory. One caller at a time."""

    def __init__(self, store: Store, chain: str, *, retention: int, keys_max: int, now: int) -> None:
        self._store = store
        self._chain = chain
        self.index = KeyIndex(store, retention=retention, capacity=keys_max, now=now)
        self.holds: dict[str, OpenHold] = {}
        self._deadlines: list[tuple[int, str]] = []
        if store.get(POLICY, b"") is None and store.next_seq():
            self._rebuild(now)
            # What is forgotten was counted on the way; what the store now has is what is known.
            self.index = KeyIndex(store, retention=retention, capacity=keys_max, now=now)
        for hold in open_holds(store):
            self._keep(hold)
        self.met = known_epoch(store)

    def _rebuild(self, now: int) -> None:
        writes: list[Write] = []
        for entry in read_entries(self._store):
            fact = decode_fact(entry)
            if isinstance(fact, RequestChanged):
                # It is added to what the facts before it came to, so that must be there.
                self._store.commit([], [write for write in writes if write.space != POLICY])
                writes = [write for write in writes if write.space == POLICY][-1:]
            if isinstance(fact, Decided | Settled) and fact.at < now - 2 * self.index.retention:
                made = [write for write in self._writes(fact, entry.seq) if write.space in (HOLDS, HALTS)]
            else:
                made = self._writes(fact, entry.seq)
            writes += made
            if len(writes) >= _REBUILT_AT_ONCE:
                # The policy goes last of all: until it is there, the next start begins again.
                self._store.commit([], [write for write in writes if write.space != POLICY])
                writes = [write for write in writes if write.space == POLICY][-1:]
        self._store.commit([], writes)

    # -- looking -------------------------------------------------------------------------------------

    def fact(self, seq: int) -> Fact:
        """The fact at a place that a projection names."""
        return fact_at(self._store, seq)

    def policy(self) -> bytes | None:
        """The policy last used, as `Policy.dump` wrote it."""
        return self._store.get(POLICY, b"")

    def halts(self) -> list[str]:
        """The patterns that this chain halted."""
        return [pattern.decode() for pattern, _ in self._store.scan(HALTS)]

    def settlement_of(self, hold: str) -> int | None:
        """The sequence of the entry that ended a hold."""
        return self.index.find(settled_key(hold))

    def making_of(self, hold: str) -> int | None:
        """The sequence of the entry that made a hold."""
        return self.index.find(bytes.fromhex(hold))

    def expired(self, now: int) -> list[tuple[int, OpenHold]]:
        """The open holds whose deadline has passed, by deadline; they are forgotten as soon as their fact is kept."""
        found = []
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, hold_id = heapq.heappop(self._deadlines)
            hold = self.holds.get(hold_id)
            if hold is not None:
                found.append((deadline, hold))
        return found

    def next_deadline(self) -> int | None:
        """When the first open hold runs out."""
        return self._deadlines[0][0] if self._deadlines else None

    # -- keeping -------------------------------------------------------------------------------------

    def keep(self, fact: Fact, sealed: Sequence[Sealed] = ()) -> Append:
        """The fact with its projections, ready for the ledger; in memory it counts from now on."""
        if isinstance(fact, Decided):
            if fact.verb == Verb.RESERVE and not fact.refused:
                self._keep(OpenHold(fact.hold, fact.amounts[0], scopes_of(fact), fact.deadline, fact.at))
            elif not fact.key:
                return Append(fact, None, sealed)
        elif isinstance(fact, Settled):
            self.holds.pop(fact.hold, None)
            self._forget_settled_deadlines()
        return Append(fact, lambda seq: self._writes(fact, seq), sealed)

    def _writes(self, fact: Fact, seq: int) -> list[Write]:
        place = seq.to_bytes(8, "big")
        if isinstance(fact, Decided):
            writes = []
            if fact.key:
                writes.append(key_write(self.index.remember(fact.key), fact.key, seq))
            if fact.verb == Verb.RESERVE and not fact.refused:
                hold = bytes.fromhex(fact.hold)
                writes += [key_write(self.index.remember(hold), hold, seq), Write(HOLDS, hold, place)]
            return writes
        if isinstance(fact, Settled):
            settled = settled_key(fact.hold)
            return [
                Write(HOLDS, bytes.fromhex(fact.hold), None),
                key_write(self.index.remember(settled), settled, seq),
            ]
        if isinstance(fact, Halted):
            return [Write(HALTS, fact.pattern.encode(), b"1" if fact.on else None)]
        if isinstance(fact, PolicyUsed):
            return [Write(POLICY, b"", fact.policy)]
        if isinstance(fact, ConsentChanged):
            return consent.writes_of(fact, self._chain, seq)
        if isinstance(fact, Noted):
            return note.writes_of(fact, seq)
        if isinstance(fact, LegalHeld):
            return legal_hold.writes_of(fact, self._chain, seq)
        if isinstance(fact, BreachDeclared):
            return breach.writes_of(fact)
        if isinstance(fact, RequestChanged):
            known = self._store.get(subject_request.REQUEST, subject_request.request_key(fact.request))
            return subject_request.writes_of(fact, self._chain, seq, known)
        return []

    def meet(self, facts: list[Append], now: int) -> Append:
        """The last of the facts, which also writes down how far this chain now knows the shared window.

        Holds that ran out are dropped with it: the shared window has charged them, or another process has ended
        them, and this chain cannot tell which.
        """
        gone = [hold for _, hold in self.expired(now)]
        for hold in gone:
            del self.holds[hold.id]
        met = self.met or MetEpoch("", 0, 0)
        for fact, _, _ in facts:
            if isinstance(fact, Decided | Settled) and fact.epoch:
                same = fact.epoch == met.epoch
                met = MetEpoch(
                    fact.epoch,
                    max(met.sequence, fact.sequence) if same else fact.sequence,
                    max(met.at, fact.at) if same else fact.at,
                )
        self.met = met
        fact, writes, sealed = facts[-1]
        value = msgspec.msgpack.encode(met)
        return Append(
            fact,
            lambda seq: [
                *(writes(seq) if writes else ()),
                Write(EPOCH, b"", value),
                *(Write(HOLDS, bytes.fromhex(hold.id), None) for hold in gone),
                *self._lapse(gone),
            ],
            sealed,
        )

    def _lapse(self, gone: list[OpenHold]) -> list[Write]:
        # Not by the index of keys: that forgets, and a hold may be open for longer.
        places = ((hold, self._store.get(HOLDS, bytes.fromhex(hold.id))) for hold in gone)
        return [
            Write(LAPSED, (hold.deadline or 0).to_bytes(8, "big") + bytes.fromhex(hold.id), place)
            for hold, place in places
            if place is not None
        ]

    def _keep(self, hold: OpenHold) -> None:
        self.holds[hold.id] = hold
        if hold.deadline is not None:
            heapq.heappush(self._deadlines, (hold.deadline, hold.id))

    def _forget_settled_deadlines(self) -> None:
        if len(self._deadlines) > 2 * len(self.holds) + 64:
            self._deadlines = [(hold.deadline, hold.id) for hold in self.holds.values() if hold.deadline is not None]
            heapq.heapify(self._deadlines)


def open_holds(reader: Reader) -> Iterator[OpenHold]:
    """The holds of a chain that were neither resolved nor written down as expired."""
    for key, place in reader.scan(HOLDS):
        fact = fact_at(reader, int.from_bytes(place, "big"))
        if isinstance(fact, Decided):
            yield OpenHold(key.hex(), fact.amounts[0], scopes_of(fact), fact.deadline, fact.at)


def fact_at(reader: Reader, seq: int) -> Fact:
    """The fact of one entry; raises `LedgerCorrupt` when there is none."""
    for entry in read_entries(reader, seq, seq):
        return decode_fact(entry)
    raise LedgerCorrupt(f"a projection names entry {seq}, which the ledger does not have")


def known_epoch(reader: Reader) -> MetEpoch | None:
    """What this chain knows of the shared window; None: it never met one."""
    value = reader.get(EPOCH, b"")
    return None if value is None else projected(_met_epoch, value, "the epoch of the shared window")


def settled_key(hold: str) -> bytes:
    """Under which the end of a hold is found."""
    return blake2b(bytes.fromhex(hold), key=_SETTLED, digest_size=16).digest()


def scopes_of(fact: Decided, index: int = 0) -> Scopes:
    """The scopes of one amount of a fact."""
    return tuple(fact.scopes[index if len(fact.scopes) > 1 else 0])
