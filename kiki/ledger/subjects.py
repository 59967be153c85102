"""Who a person is in the ledger: a random reference, and a key that erasure destroys.

The directory from a keyed hash of the person to the reference, the persons' keys, and the secrets of the ledger
(`locked_secrets`) live in a store of their own, the key store, apart from the ledger: the ledger, the window and the audit view
hold only references and ciphertext, so forgetting a person rewrites none of them.

    master key (from outside)
      └─ wraps the secrets: lookup, suppression, signing, wrapping
           └─ wraps the key of each person, and of each segment for what belongs to nobody
                └─ seals what is personal in an entry (`kiki.ledger.sealing`)
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Final, NamedTuple, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kiki.clock import SECOND, Clock, wall_micros
from kiki.errors import LedgerCorrupt, LedgerUnavailable, Unreadable
from kiki.ledger.entry import UNDECODABLE, Sealed
from kiki.ledger.locked_secrets import unlock
from kiki.ledger.master_key import KeySource
from kiki.ledger.sealing import ID_BYTES, KEY_BYTES, NONCE_BYTES, seal, unseal
from kiki.ledger.store import SHARED, Store, Write

LEDGER: Final = SHARED + "ledger"
"""Which chain a key store of one ledger was made for."""
DIRECTORY: Final = SHARED + "directory"
"""From the keyed hash of a person to the reference."""
SUBJECTS: Final = SHARED + "subject"
"""From the reference to the person's key and name, both unreadable without the master key."""
SEGMENT_KEYS: Final = SHARED + "segment_key"
ERASED: Final = SHARED + "erased"
"""Who was erased, under a hash with a secret of its own: it outlives the erasure, so that nobody is imported again."""

LEASE_SECONDS: Final = 2.0
"""How long a key of a shared key store is used without asking again whether it still exists."""
SEGMENT_SEALS_MAX: Final = 65_536
SEGMENT_SPAN: Final = 3600 * SECOND
_KNOWN_MAX: Final = 100_000
_NONCE_BYTES: Final = 12
_NONCES_AT_ONCE: Final = 256
_AT_BYTES: Final = 8
_CHAIN: Final = b"chain"
_OPEN: Final = b"open"
"""Ends the tombstone of somebody whose erasure was not read back yet."""


class Person(NamedTuple):
    """Somebody the ledger may write about."""

    reference: str
    """32 hexadecimal digits."""
    key: bytes

    def __repr__(self) -> str:
        return f"Person({self.reference})"


class Erasure(NamedTuple):
    """What became of forgetting a person, as it was read back."""

    reference: str
    """Empty when nobody of that name was known."""
    at: int
    needles: tuple[bytes, ...] = ()
    """The bytes that must stand nowhere any more: the directory's hash and the wrapped key."""
    is_gone: bool = False
    """As read back: neither key nor directory row is found any more."""
    traces: tuple[str, ...] = ()
    """As read back: files of the key store in which any of those bytes still stand."""


class _Row(msgspec.Struct, array_like=True, frozen=True):
    """A person in the key store."""

    wrapped: bytes
    identity: Sealed


class _SegmentRow(msgspec.Struct, array_like=True, frozen=True):
    wrapped: bytes
    made_at: int


Row = TypeVar("Row")

_encode = msgspec.msgpack.Encoder().encode
_rows: msgspec.msgpack.Decoder[_Row] = msgspec.msgpack.Decoder(_Row)
_segment_rows: msgspec.msgpack.Decoder[_SegmentRow] = msgspec.msgpack.Decoder(_SegmentRow)


class Subjects:
    """References and keys of persons, and keyed hashes for what callers send as keys.

    Raises `MasterKeyError` when `source` has no key or the wrong one; then nothing was changed. One caller of
    what changes it at a time; `open`, `find` and `person_of` may come from any thread.
    """

    def __init__(self, store: Store, source: KeySource | None = None, clock: Clock = wall_micros) -> None:
        self.store = store
        self._clock = clock
        secrets, self.made_key = unlock(store, source)
        """A master key was made just now: whoever opened this should say loudly where it lies."""
        self._lookup, self._suppression, self._seed = secrets.lookup, secrets.suppression, secrets.signing
        self._wrapping = AESGCM(secrets.wrapping)
        self._lease = LEASE_SECONDS if store.is_shared else float("inf")
        self._known: OrderedDict[bytes, tuple[Person, float]] = OrderedDict()
        self._erasures = 0
        self._segment: tuple[bytes, bytes] | None = None
        self._sealed: dict[bytes, Sealed] = {}
        self._segment_until = 0
        self._nonces: list[bytes] = []
        self.failure: LedgerUnavailable | None = None
        """Why nothing is written any more; None while all is well."""

    # -- the key store itself ------------------------------------------------------------------------

    @property
    def digest(self) -> bytes:
        """Tells one key store from another, and nothing about its secrets."""
        return blake2b(b"directory", key=self._lookup, digest_size=16).digest()

    def require_ledger(self, chain: str) -> None:
        """Remember which ledger this key store serves, and raise `LedgerCorrupt` when another one lies beside it.

        A ledger that was lost or emptied would else begin anew as if nothing had ever been spent.
        """
        known = self.store.get(LEDGER, _CHAIN)
        if known is None:
            self.store.commit([], [Write(LEDGER, _CHAIN, chain.encode())])
        elif known != chain.encode():
            raise LedgerCorrupt(
                f"the ledger beside this key store is not chain {known.decode('utf-8', 'replace')}, which it was made for: that one was "
                "lost, emptied or replaced",
                hint="restore it from a backup; to begin a new one on purpose, move the key store away with the old one",
            )

    @property
    def signing_seed(self) -> bytes:
        """The Ed25519 seed that signs this ledger's checkpoints."""
        return self._seed

    def keyed_hash(self, text: str) -> bytes:
        """16 bytes that stand for a text, meaningless without this store's secret."""
        return blake2b(text.encode(), key=self._lookup, digest_size=16).digest()

    # -- persons -------------------------------------------------------------------------------------

    def find(self, person: str) -> Person | None:
        """A person who has a reference and a key."""
        return self._find([person]).get(person)

    def _find(self, persons: Iterable[str]) -> dict[str, Person]:
        now, erasures = time.monotonic(), self._erasures
        found: dict[str, Person] = {}
        asked: dict[bytes, str] = {}
        for person in persons:
            lookup = self.keyed_hash(person)
            known = self._known.get(lookup)
            if known is not None and now - known[1] < self._lease:
                found[person] = known[0]
            else:
                asked[lookup] = person
        if asked:
            references = self.store.get_many(DIRECTORY, asked)
            rows = self.store.get_many(SUBJECTS, references.values())
            for lookup, reference in references.items():
                row = rows.get(reference)
                if row is not None:
                    found[asked[lookup]] = self._remember(lookup, self._person(reference, row), now, erasures)
        return found

    def enrol(self, persons: Iterable[str]) -> dict[str, Person]:
        """Every person with a reference and a key; new ones are made at random and durable before this returns."""
        persons = list(persons)
        found = self._find(persons)
        absent = [person for person in dict.fromkeys(persons) if person not in found]
        if absent:
            with self._stopping(), self.store.shared_turn():
                found.update(self._add(absent))
        return found

    def _add(self, absent: list[str]) -> dict[str, Person]:
        # Another replica may have made some of them meanwhile.
        found = self._find(absent)
        made: list[tuple[bytes, str, Person]] = []
        rows: list[Write] = []
        for person in absent:
            if person in found:
                continue
            lookup, reference, key = self.keyed_hash(person), os.urandom(ID_BYTES), os.urandom(KEY_BYTES)
            identity = seal(key, reference, person.encode(), os.urandom(NONCE_BYTES))
            rows.append(Write(SUBJECTS, reference, _encode(_Row(self._wrap(reference, key), identity))))
            rows.append(Write(DIRECTORY, lookup, reference))
            made.append((lookup, person, Person(reference.hex(), key)))
        # The key and the name that leads to it in one transaction: a key that no name leads to, no erasure would find.
        self.store.commit([], rows)
        now = time.monotonic()
        found.update((person, self._remember(lookup, each, now, self._erasures)) for lookup, person, each in made)
        return found

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """After a failed sync the next one may succeed without having written anything: then nothing more is tried."""
        if self.failure is not None:
            raise self.failure.with_traceback(None)
        try:
            yield
        except LedgerUnavailable as error:
            if not error.recoverable:
                self.failure = error
            raise

    def person_of(self, reference: str) -> Person | None:
        """The person behind a reference; None when there was none or the key was destroyed."""
        key = bytes.fromhex(reference)
        row = self.store.get(SUBJECTS, key)
        return None if row is None else self._person(key, row)

    def identity(self, reference: str) -> str | None:
        """The scope text of a person (`customer:c-1`); None when it was never known or is erased."""
        key = bytes.fromhex(reference)
        row = self.store.get(SUBJECTS, key)
        if row is None:
            return None
        return unseal(self._person(key, row).key, _read(_rows, key, row).identity).decode()

    def erased_at(self, person: str) -> int | None:
        """When a person was erased, by a hash that says so to nobody without the suppression secret."""
        value = self.store.get(ERASED, self._suppressed(person))
        return None if value is None else int.from_bytes(value[:_AT_BYTES], "big")

    def forget(self, person: str) -> Erasure:
        """Destroy a person's key and directory row, in the store's files too. May be repeated.

        Every part sealed with that key is unreadable from now on. Other replicas of a shared store may use the key
        for `LEASE_SECONDS` more. `read_back` says what became of it, and `conclude` that this was found good.
        """
        lookup, at, tombstone = self.keyed_hash(person), self._clock(), self._suppressed(person)
        row: bytes | None = None
        with self._stopping():
            with self.store.shared_turn():
                reference, known = self.store.get(DIRECTORY, lookup), self.store.get(ERASED, tombstone)
                if reference is not None:
                    row = self.store.get(SUBJECTS, reference)
                    # One transaction: there is no moment at which an import would bring the person back.
                    removed = [Write(SUBJECTS, reference, None), Write(DIRECTORY, lookup, None)]
                    self.store.commit([], [Write(ERASED, tombstone, at.to_bytes(_AT_BYTES, "big") + _OPEN), *removed])
            self._erasures += 1  # before the key leaves the memory: see `_remember`
            self._known.pop(lookup, None)
            if reference is None:
                return self._forget_rest(lookup, known, at)
            # The bytes, too.
            self.store.erase(SUBJECTS, [reference])
            self.store.erase(DIRECTORY, [lookup])
        needles = (lookup, _wrapped_in(row)) if row else (lookup,)
        return Erasure(reference.hex(), at, needles)

    def _forget_rest(self, lookup: bytes, tombstone: bytes | None, at: int) -> Erasure:
        """Of somebody who has no row: the bytes that an erasure left when it was cut short."""
        if tombstone is None:
            return Erasure("", at)
        if tombstone.endswith(_OPEN):
            self.store.erase(DIRECTORY, [lookup])
            if not self.store.is_shared:
                # Nobody knows any more which bytes the wrapped key had, so no page may keep a stale copy.
                self.store.compact()
        return Erasure("", int.from_bytes(tombstone[:_AT_BYTES], "big"), (lookup,))

    def conclude(self, person: str) -> None:
        """Note that an erasure was read back and nothing was left: repeating it has nothing more to look for."""
        tombstone = self._suppressed(person)
        with self._stopping():
            value = self.store.get(ERASED, tombstone)
            if value is not None and value.endswith(_OPEN):
                self.store.commit([], [Write(ERASED, tombstone, value[:_AT_BYTES])])

    def read_back(self, erasure: Erasure) -> Erasure:
        """Look, in the key store and in every byte of its files, whether an erased person is really gone."""
        if not erasure.needles:
            return erasure._replace(is_gone=True)
        reference, (lookup, *wrapped) = bytes.fromhex(erasure.reference), erasure.needles
        leads_to = self.store.get(DIRECTORY, lookup)
        is_gone = not reference or (leads_to != reference and self.store.get(SUBJECTS, reference) is None)
        # Who came again meanwhile has a row under the same hash, and it leads to nothing of before.
        needles = erasure.needles if leads_to in {None, reference} else wrapped
        return erasure._replace(is_gone=is_gone, traces=tuple(self.store.traces(needles)))

    # -- sealing -------------------------------------------------------------------------------------

    def seal(self, person: Person, text: bytes) -> Sealed:
        """`text` readable as long as the person is not erased."""
        return seal(person.key, bytes.fromhex(person.reference), text, self._nonce())

    def seal_for_segment(self, text: bytes) -> Sealed:
        """`text` that belongs to nobody known, under a key that is destroyed when its stretch of the ledger is pruned."""
        sealed = self._sealed.get(text)
        if sealed is None:
            # Not renewed here, where money may have been taken already: that is for `segment_key`.
            key_id, key = self._segment or self.segment_key()
            # The same text is sealed once: that two entries of one segment have the same caller is no secret.
            sealed = self._sealed[text] = seal(key, key_id, text, self._nonce())
        return sealed

    def segment_key(self) -> tuple[bytes, bytes]:
        """The id and the key of the current segment, durable; a new one now and then.

        Whoever is about to take money asks for it first: making one may fail.
        """
        now = self._clock()
        if self._segment is None or len(self._sealed) >= SEGMENT_SEALS_MAX or now >= self._segment_until:
            key_id, key = os.urandom(ID_BYTES), os.urandom(KEY_BYTES)
            row = _encode(_SegmentRow(self._wrap(key_id, key), now))
            with self._stopping():
                self.store.commit([], [Write(SEGMENT_KEYS, key_id, row)])
            self._segment, self._segment_until = (key_id, key), now + SEGMENT_SPAN
            self._sealed.clear()
        return self._segment

    def open(self, sealed: Sealed) -> bytes:
        """The text of a sealed part; raises `Unreadable` when its key is destroyed."""
        row = self.store.get(SUBJECTS, sealed.key_id)
        if row is not None:
            return unseal(self._person(sealed.key_id, row).key, sealed)
        segment = self.store.get(SEGMENT_KEYS, sealed.key_id)
        if segment is None:
            raise Unreadable("the key of a sealed part was destroyed: its person was erased, or its time was over")
        return unseal(self._unwrap(sealed.key_id, _read(_segment_rows, sealed.key_id, segment).wrapped), sealed)

    def prune(self, before: int) -> int:
        """Destroy the keys of segments that ended before a moment; how many."""
        gone = [
            key_id
            for key_id, row in self.store.scan(SEGMENT_KEYS)
            if _read(_segment_rows, key_id, row).made_at + SEGMENT_SPAN < before
            and (self._segment is None or key_id != self._segment[0])
        ]
        if gone:
            self.store.erase(SEGMENT_KEYS, gone)
        return len(gone)

    def _nonce(self) -> bytes:
        if not self._nonces:
            # One call of the kernel for many: a call each would cost as much as the encryption.
            data = os.urandom(_NONCES_AT_ONCE * NONCE_BYTES)
            self._nonces = [data[at : at + NONCE_BYTES] for at in range(0, len(data), NONCE_BYTES)]
        return self._nonces.pop()

    def _person(self, reference: bytes, row: bytes) -> Person:
        return Person(reference.hex(), self._unwrap(reference, _read(_rows, reference, row).wrapped))

    def _wrap(self, name: bytes, key: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._wrapping.encrypt(nonce, key, name)

    def _unwrap(self, name: bytes, wrapped: bytes) -> bytes:
        try:
            return self._wrapping.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], name)
        except (InvalidTag, ValueError):  # the latter where next to nothing of it is left
            raise _altered(name) from None

    def _remember(self, lookup: bytes, person: Person, now: float, erasures: int) -> Person:
        self._known[lookup] = person, now
        if erasures != self._erasures:
            # Somebody was erased since this was read, and it may have been this person.
            self._known.pop(lookup, None)
        if len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)
        return person

    def _suppressed(self, person: str) -> bytes:
        return blake2b(person.encode(), key=self._suppression, digest_size=16).digest()

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()


def _read(decoder: msgspec.msgpack.Decoder[Row], name: bytes, data: bytes) -> Row:
    try:
        return decoder.decode(data)
    except UNDECODABLE:
        raise _altered(name) from None


def _wrapped_in(row: bytes) -> bytes:
    """What must stand nowhere once a row is gone; all of it where it was altered: that, too, can be erased."""
    try:
        return _rows.decode(row).wrapped or row
    except UNDECODABLE:
        return row


def _altered(name: bytes) -> LedgerCorrupt:
    return LedgerCorrupt(
        f"the key {name.hex()} in the key store was altered", hint="restore the key store from a backup"
    )
