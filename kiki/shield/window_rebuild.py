"""What every ledger says about a shared window, so that a Redis that lost it need not be waited out.

PostgreSQL is the authority: it numbers the epochs of the window. Whoever rebuilds it first raises that number there;
from then on no decision of an earlier epoch can be written down by anybody, so what the chains hold is all
that was ever answered. Only then are the chains read, and their spends counted into fresh windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from kiki.ledger.key_index import known_keys
from kiki.ledger.ledger import first_recorded_since, read_entries
from kiki.ledger.store import Reader, Store
from kiki.ledger.subjects import Subjects
from kiki.shield.fact import Decided, Halted, Settled, decode_fact
from kiki.shield.policy import Policy
from kiki.shield.projections import HALTS, LAPSED, fact_at, open_holds, scopes_of, settled_key
from kiki.shield.replay import admitted, reach
from kiki.shield.scope import PERSONAL_PREFIXES, Scopes
from kiki.shield.window import OpenHold, Verb

NOBODY: Final[Mapping[str, str]] = MappingProxyType({})


class Past(NamedTuple):
    """What still counts. Moments are the window's own, in microseconds since the epoch; money in micros."""

    spends: list[tuple[int, int, Scopes]]
    """(moment, amount, scopes)."""
    holds: list[OpenHold]
    persons: Mapping[str, str]
    """The scope text of each person who appears as a reference."""
    halts: list[str]
    """The patterns that some chain halted, unless another has since lifted them."""


class Numbering(Store, Protocol):
    """A store that numbers the epochs of shared windows."""

    def raise_epoch(self, window: str) -> int:
        """Begin the next epoch: when this returns, no commit under an older one can succeed."""
        ...


class EpochAuthority:
    """Numbers the epochs of one shared window, and knows what was decided in all of them."""

    def __init__(
        self, store: Numbering, window: str, all_chains: Callable[[], list[Reader]], subjects: Subjects
    ) -> None:
        self.window = window
        self._store = store
        self._all_chains = all_chains
        self._subjects = subjects

    def turn(self) -> AbstractContextManager[None]:
        """While it lasts, nobody else rebuilds."""
        return self._store.shared_turn()

    def raise_epoch(self) -> int:
        """The number of a new epoch; nothing decided in an older one can be written down any more."""
        return self._store.raise_epoch(self.window)

    def past(self, now: int, policy: Policy) -> Past:
        """What the ledgers of all replicas say about the longest window that ends at `now`."""
        since = now - reach(policy)
        spends: list[tuple[int, int, Scopes]] = []
        reserved: dict[str, OpenHold] = {}
        settled: set[str] = set()
        halted: set[str] = set()
        switched: dict[str, Halted] = {}
        for reader in self._all_chains():
            halted.update(pattern.decode() for pattern, _ in reader.scan(HALTS))
            for hold in (*open_holds(reader), *_lapsed(reader, since)):
                reserved[hold.id] = hold
            for fact in _facts(reader, since):
                if isinstance(fact, Halted):
                    switched[fact.pattern] = max(fact, switched.get(fact.pattern, fact), key=lambda each: each.at)
                elif isinstance(fact, Settled):
                    settled.add(fact.hold)
                    if fact.charged:
                        spends.append((fact.at, fact.charged, tuple(fact.scopes[0]) if fact.scopes else ()))
                elif fact.verb == Verb.RESERVE:
                    for amount, scopes in admitted(fact):
                        reserved[fact.hold] = OpenHold(fact.hold, amount, scopes, fact.deadline, fact.at)
                elif fact.verb != Verb.CHECK:
                    spends += ((fact.at, amount, scopes) for amount, scopes in admitted(fact))
        # Whoever settles the hold of another chain writes so into its own, perhaps long ago.
        left = [hold for hold in reserved.values() if hold.id not in settled]
        ended = known_keys(self._all_chains(), [settled_key(hold.id) for hold in left])
        holds = []
        for hold in left:
            if settled_key(hold.id) in ended:
                continue
            if hold.deadline is None or hold.deadline > now:
                holds.append(hold)
            else:
                spends.append((hold.deadline, hold.amount, hold.scopes))
        spends = [spend for spend in spends if spend[0] > since]
        # Who lifts what another chain halted writes so into its own.
        halts = sorted(pattern for pattern in halted if pattern not in switched or switched[pattern].on)
        named = [
            *(each[2] for each in spends),
            *(hold.scopes for hold in holds),
            (each for each in halts if not each.endswith(":*")),
        ]
        return Past(spends, holds, self._persons(named), halts)

    def _persons(self, found: Iterable[Iterable[str]]) -> dict[str, str]:
        named = {scope for scopes in found for scope in scopes if scope.startswith(PERSONAL_PREFIXES)}
        known = {scope: self._subjects.identity(scope.partition(":")[2]) for scope in named}
        # Somebody who was erased meanwhile has a new, empty budget if he ever comes back: nobody can tell that it is he.
        return {scope: identity for scope, identity in known.items() if identity is not None}


def _facts(reader: Reader, since: int) -> Iterator[Decided | Settled | Halted]:
    """The decisions and halts recorded since a moment. The window's clock and the writer's need not agree to the second."""
    for entry in read_entries(reader, first_recorded_since(reader, since - _CLOCKS_APART)):
        fact = decode_fact(entry)
        if isinstance(fact, Decided | Settled | Halted):
            yield fact


_CLOCKS_APART: Final = 60 * 1_000_000


def _lapsed(reader: Reader, since: int) -> Iterator[OpenHold]:
    """Holds whose deadline passed without anybody settling them, and that may still count as spends."""
    for key, place in reader.scan(LAPSED, since.to_bytes(8, "big")):
        fact = fact_at(reader, int.from_bytes(place, "big"))
        if isinstance(fact, Decided):
            yield OpenHold(key[8:].hex(), fact.amounts[0], scopes_of(fact), fact.deadline, fact.at)
