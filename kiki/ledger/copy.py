"""Moves an embedded ledger into PostgreSQL: entries to the byte, the tree over them, projections, persons and keys.

The chain keeps its id, so every checkpoint and every proof that was given out goes on to verify. The entries go
first and go on where a stopped copy left them. Whatever can change meanwhile (projections, persons, keys) is
copied from its beginning every time: a person who was erased between two attempts must not come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, NamedTuple, Protocol

from kiki.errors import Conflict, LedgerCorrupt, LedgerUnavailable
from kiki.ledger.entry import leaf_hash
from kiki.ledger.ledger import META
from kiki.ledger.postgres import UNFINISHED
from kiki.ledger.store import SHARED, Reader, Store, Write

Progress = Callable[[str, int, int | None], None]
"""Told now and then what is being copied, how much of it is done, and how much there is where that is known."""

_ROWS: Final = 2000
_CHAIN: Final = b"chain"


class Source(Reader, Protocol):
    """A ledger to read from, with the names of its spaces."""

    def spaces(self) -> list[str]:
        """The names of all projections."""
        ...


class Target(Store, Protocol):
    """An empty chain to write to, the only one of its database."""

    def chains(self) -> Sequence[object]:
        """Every chain of the database."""
        ...

    def begin_at(self, seq: int) -> None:
        """Let the first entry have this sequence."""
        ...


class Copied(NamedTuple):
    """What a copy moved."""

    chain: str
    """The id of the chain, the same as before."""
    first_seq: int
    next_seq: int
    rows: int
    """Projected keys, the persons' included; 0 when everything was there already."""


def copy_ledger(
    ledger: Source, keys: Source, to_ledger: Target, to_keys: Target, progress: Progress | None = None
) -> Copied:
    """Copy a ledger and its key store into chains of an empty database; read back that all of it is there.

    Nobody may write to the sources meanwhile: open them as their owner, and `to_ledger` with `unfinished=True`. May be
    repeated after a crash, and goes on; when all is done already, it only checks. Raises `Conflict` when the target
    holds anything else, `LedgerCorrupt` when the source lacks entries or what was written is not what was read.
    """
    tell = progress or (lambda _what, _done, _of: None)
    chain = ledger.get(META, _CHAIN)
    if chain is None:
        raise LedgerUnavailable("there is no ledger to copy: its chain has no name yet")
    first, following = ledger.first_seq(), ledger.next_seq()
    if to_ledger.get(UNFINISHED, _CHAIN) is None and to_ledger.get(META, _CHAIN) == chain:
        _require_same(ledger, to_ledger, "the ledger was copied already, and one of the two went on since", Conflict)
        return Copied(chain.decode(), first, following, 0)
    _begin(ledger, to_ledger, to_keys, chain)
    _copy_entries(ledger, to_ledger, tell)
    rows = _copy_spaces(ledger, to_ledger, tell) + _copy_spaces(keys, to_keys, tell)
    if (ledger.first_seq(), ledger.next_seq()) != (first, following):
        raise Conflict("the ledger was written while it was copied", hint="stop whoever writes it and copy again")
    _require_same(ledger, to_ledger, "what was copied is not what is there", LedgerCorrupt)
    to_ledger.commit([], [Write(UNFINISHED, _CHAIN, None)])
    return Copied(chain.decode(), first, following, rows)


def _begin(ledger: Source, to_ledger: Target, to_keys: Target, chain: bytes) -> None:
    """Mark the target as one that is being copied into, or find the mark and that the rest fits to it."""
    other = Conflict(
        "the database is not empty, and what it holds is not an unfinished copy of this ledger",
        hint="copy into an empty database, or drop kiki's schemas in it if nobody needs them",
    )
    begun = to_ledger.get(UNFINISHED, _CHAIN)
    if len(to_ledger.chains()) > 1 or len(to_keys.chains()) > 1 or begun not in {None, chain}:
        raise other
    if begun is None:
        if to_ledger.next_seq() or to_ledger.spaces() or to_keys.spaces():
            raise other
        # Whoever opens this database for anything else is refused from here on.
        to_ledger.commit([], [Write(UNFINISHED, _CHAIN, chain)])
    done = to_ledger.next_seq()
    if not done:
        to_ledger.begin_at(ledger.first_seq())
    elif list(to_ledger.entries(done - 1)) != list(ledger.entries(done - 1, done - 1)):
        raise other


def _copy_entries(ledger: Source, target: Target, tell: Progress) -> None:
    first, following = ledger.first_seq(), ledger.next_seq()
    done = max(target.next_seq(), first)
    entries = ledger.entries(done)
    while batch := list(islice(entries, _ROWS)):
        for expected, (seq, _) in enumerate(batch, done):
            if seq != expected:
                raise LedgerCorrupt(
                    f"entry {expected} is missing in the ledger to copy", hint="restore it from a backup"
                )
        target.commit(batch)
        done += len(batch)
        tell("entries", done - first, following - first)
    target.prune(first)  # what the source has pruned since an earlier attempt


def _copy_spaces(source: Source, target: Target, tell: Progress) -> int:
    """Copy every projection, after removing what an earlier attempt left; how many keys there are."""
    for space in target.spaces():
        if space != UNFINISHED:
            _clear(target, space)
    total = 0
    for space in source.spaces():
        done = 0
        rows = source.scan(space)
        while batch := list(islice(rows, _ROWS)):
            target.commit([], [Write(space, key, value) for key, value in batch])
            done += len(batch)
            tell(space, done, None)
        if source.last(space) != target.last(space):
            raise LedgerCorrupt(f"the last key of {space} is not what was copied")
        total += done
    return total


def _clear(target: Target, space: str) -> None:
    if space.startswith(SHARED):
        # Wrapped keys of a person who was erased since the last attempt may be among them.
        target.erase(space, [key for key, _ in target.scan(space)])
    else:
        while target.trim(space):
            pass


def _require_same(ledger: Source, target: Target, problem: str, error: type[Conflict | LedgerCorrupt]) -> None:
    """Raise unless both have the same entries: as many, in the same places, and the last with the same leaf hash."""
    ends = [
        (reader.first_seq(), reader.next_seq(), [leaf_hash(data) for _, data in reader.entries(reader.next_seq() - 1)])
        for reader in (ledger, target)
    ]
    if ends[0] != ends[1]:
        raise error(f"{problem}: entries {ends[0][0]} to {ends[0][1] - 1} and {ends[1][0]} to {ends[1][1] - 1}")
