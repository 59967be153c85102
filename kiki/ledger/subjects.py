"""Who a person is in the ledger: a random reference, found through a directory that erasure can drop.

The directory and its secret live in a store of their own, apart from the ledger: the ledger, the window and
the audit view hold only references, so forgetting a person rewrites none of them.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from hashlib import blake2b

from kiki.errors import LedgerUnavailable
from kiki.ledger.store import Store, Write

_SECRET = "secret"
_SUBJECT = "subject"
_KNOWN_MAX = 100_000


class Subjects:
    """References for persons, and keyed hashes for what callers send as keys. One caller at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        known = store.get(_SECRET, b"lookup")
        if known is None:
            known = secrets.token_bytes(32)
            store.commit([], [Write(_SECRET, b"lookup", known)])
        self._secret = known
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._unwritten: dict[bytes, str] = {}
        self._failure: LedgerUnavailable | None = None

    @property
    def digest(self) -> bytes:
        """Tells one directory from another, and nothing about its secret."""
        return blake2b(b"directory", key=self._secret, digest_size=16).digest()

    def keyed_hash(self, text: str) -> bytes:
        """16 bytes that stand for a text, meaningless without this store's secret."""
        return blake2b(text.encode(), key=self._secret, digest_size=16).digest()

    def find(self, person: str) -> str | None:
        """The reference of a person who has one: 32 hexadecimal digits."""
        lookup = self.keyed_hash(person)
        reference = self._known.get(lookup) or self._unwritten.get(lookup)
        if reference is not None:
            return reference
        stored = self._store.get(_SUBJECT, lookup)
        return None if stored is None else self._cache(lookup, stored.hex())

    def reference(self, person: str) -> str:
        """The reference of a person, made at random when there is none; durable only after `flush`."""
        reference = self.find(person)
        if reference is None:
            lookup = self.keyed_hash(person)
            reference = self._unwritten[lookup] = secrets.token_hex(16)
        return reference

    def _cache(self, lookup: bytes, reference: str) -> str:
        self._known[lookup] = reference
        if len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)
        return reference

    def flush(self) -> None:
        """Make new references durable; it comes before the first entry that uses them."""
        if not self._unwritten:
            return
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        unwritten = list(self._unwritten.items())
        try:
            self._store.commit([], [Write(_SUBJECT, lookup, bytes.fromhex(ref)) for lookup, ref in unwritten])
        except LedgerUnavailable as error:
            # After a failed sync the next one may succeed without having written anything.
            if not error.recoverable:
                self._failure = error
            raise
        for lookup, reference in unwritten:
            del self._unwritten[lookup]
            self._cache(lookup, reference)

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()
