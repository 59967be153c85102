"""The keys of persons as engage uses them: a reference and a key for each, and keyed hashes for what must outlive both.

In one process with a guard they are the shield's own, so that erasing a person there makes everything here unreadable.
A service of its own has a key store of its own, and destroys the key itself when it is told to.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import msgspec

from kiki.errors import Unreadable
from kiki.ledger.entry import Sealed
from kiki.ledger.sealing import NONCE_BYTES, seal, unseal
from kiki.ledger.subjects import Person, Subjects
from kiki.shield.change import Change
from kiki.shield.decider import Decider

_AT_ONCE: Final = 500

_encode = msgspec.msgpack.Encoder().encode
_sealed = msgspec.msgpack.Decoder(Sealed)


class Keyring:
    """References, keys and keyed hashes. Thread-safe."""

    def __init__(self, subjects: Subjects, enrol: Callable[[Sequence[str]], dict[str, Person]] | None = None) -> None:
        """`enrol` makes persons where somebody else owns the key store; without it this ring is the owner."""
        self.subjects = subjects
        self._enrol = enrol
        self._turn = threading.Lock()

    @classmethod
    def of_guard(cls, decider: Decider) -> Keyring:
        """The keys of a ledger that is open in this process."""

        def enrol(persons: Sequence[str]) -> dict[str, Person]:
            change = Change(lambda turn: {name: turn.persons[name] for name in persons}, list(persons))
            made: Any = decider.group.submit(change).result()
            return dict(made)

        return cls(decider.subjects, enrol)

    @property
    def owns(self) -> bool:
        """Whether erasing a person here has to destroy the key, too."""
        return self._enrol is None

    def enrol(self, customers: Collection[str]) -> dict[str, Person]:
        """Everybody with a reference and a key, durable."""
        found: dict[str, Person] = {}
        names = [scope_of(customer) for customer in customers]
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            if self._enrol is not None:
                made = self._enrol(some)
            else:
                with self._turn:
                    made = self.subjects.enrol(some)
            found |= {name.partition(":")[2]: person for name, person in made.items()}
        return found

    def was_erased(self, customer: str) -> bool:
        """Whether somebody of this id was erased and is not known since."""
        scope = scope_of(customer)
        return self.subjects.erased_at(scope) is not None and self.subjects.find(scope) is None

    def forget(self, customer: str) -> bool:
        """Destroy the key and read back that it is gone; True when nothing of it is left."""
        with self._turn:
            erasure = self.subjects.read_back(self.subjects.forget(scope_of(customer)))
            if erasure.traces:
                self.subjects.store.compact()
                erasure = self.subjects.read_back(erasure)
            if erasure.is_gone and not erasure.traces:
                self.subjects.conclude(scope_of(customer))
        return erasure.is_gone and not erasure.traces

    def is_gone(self, customer: str) -> bool:
        """Whether no key and no way to one is left of somebody."""
        scope = scope_of(customer)
        return self.subjects.find(scope) is None and not self.subjects.store.traces([self.subjects.keyed_hash(scope)])

    def seal(self, person: Person, text: bytes) -> bytes:
        """`text` readable as long as the person is not erased."""
        return _encode(seal(person.key, bytes.fromhex(person.reference), text, os.urandom(NONCE_BYTES)))

    def open(self, person: Person, sealed: bytes) -> bytes:
        """The text again; raises `Unreadable`."""
        try:
            return unseal(person.key, _sealed.decode(sealed))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise Unreadable("a sealed profile was altered") from None

    def person_of(self, reference: str) -> Person | None:
        """The person behind a reference; None when the key was destroyed."""
        return self.subjects.person_of(reference)

    def hash(self, kind: str, text: str) -> bytes:
        """16 bytes that stand for a text, another one for each kind, meaningless without this key store."""
        return self.subjects.keyed_hash(f"engage:{kind}:{text}")

    def secret(self, name: str) -> bytes:
        """A key for one use, the same as long as the key store is."""
        return self.subjects.keyed_hash(f"engage:secret:{name}:1") + self.subjects.keyed_hash(f"engage:secret:{name}:2")

    def close(self) -> None:
        """Let go of a key store of one's own."""
        if self.owns:
            self.subjects.close()


def scope_of(customer: str) -> str:
    """The scope text of a customer."""
    return f"customer:{customer}"
