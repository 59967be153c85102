"""Moves an embedded ledger into PostgreSQL: entries to the byte, the tree over them, projections, persons and keys.

The chain keeps its id, so every checkpoint and every proof that was given out goes on to verify. The entries go
first and go on where a stopped copy left them. Whatever can change meanwhile (projections, persons, keys) is
copied from its beginning every time: a person who was erased between two attempts must not come back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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


def copy_ledger(source: Source, key_store: Source, target: Target, progress: Progress | None = None) -> Copied:
    """Copy a ledger and its key store into a chain of an empty database; read back that all of it is there.

    Nobody may write to the source meanwhile: open both as their owner. Open the target with `unfinished=True`. May
    be repeated after a crash, and goes on; when all is done already, it only checks. Raises `Conflict` when the target
    holds anything else, `LedgerCorrupt` when the source lacks entries or what was written is not what was read.
    """
    tell = progress or (lambda _what, _done, _of: None)
    chain = source.get(META, _CHAIN)
    if chain is None:
        raise LedgerUnavailable("there is no ledger to copy: its chain has no name yet")
    first, following = source.first_seq(), source.next_seq()
    if target.get(UNFINISHED, _CHAIN) is None and target.get(META, _CHAIN) == chain:
        _require_same(source, target, "the ledger was copied already, and one of the two went on since", Conflict)
        return Copied(chain.decode(), first, following, 0)
    _begin(source, target, chain)
    _copy_entries(source, target, tell)
    for space in target.spaces():
        if space != UNFINISHED:
            _clear(target, space)
    rows = sum(_copy_space(each, target, space, tell) for each in (source, key_store) for space in each.spaces())
    if (source.first_seq(), source.next_seq()) != (first, following):
        raise Conflict("the ledger was written while it was copied", hint="stop whoever writes it and copy again")
    _require_same(source, target, "what was copied is not what is there", LedgerCorrupt)
    for each in (source, key_store):
        for space in each.spaces():
            if each.last(space) != target.last(space):
                raise LedgerCorrupt(f"the last key of {space} is not what was copied")
    target.commit([], [Write(UNFINISHED, _CHAIN, None)])
    return Copied(chain.decode(), first, following, rows)


def _begin(source: Source, target: Target, chain: bytes) -> None:
    """Mark the target as one that is being copied into, or find the mark and that the rest fits to it."""
    other = Conflict(
        "the database is not empty, and what it holds is not an unfinished copy of this ledger",
        hint="copy into an empty database, or drop the schema kiki in it if nobody needs it",
    )
    begun = target.get(UNFINISHED, _CHAIN)
    if len(target.chains()) > 1:
        raise other
    if begun is None:
        if target.next_seq() or target.spaces():
            raise other
        # Whoever opens this chain for anything else is refused from here on.
        target.commit([], [Write(UNFINISHED, _CHAIN, chain)])
    elif begun != chain:
        raise other
    done = target.next_seq()
    if not done:
        target.begin_at(source.first_seq())
    elif list(target.entries(done - 1)) != list(source.entries(done - 1, done - 1)):
        raise other


def _copy_entries(source: Source, target: Target, tell: Progress) -> None:
    first, total = source.first_seq(), source.next_seq() - source.first_seq()
    done = max(target.next_seq(), first)
    entries = source.entries(done)
    while batch := list(islice(entries, _ROWS)):
        if batch[0][0] != done:
            raise LedgerCorrupt(f"entry {done} is missing in the ledger to copy", hint="restore it from a backup")
        target.commit(batch)
        done += len(batch)
        tell("entries", done - first, total)
    target.prune(first)  # what the source has pruned since an earlier attempt


def _clear(target: Target, space: str) -> None:
    if space.startswith(SHARED):
        # Wrapped keys of a person who was erased since the last attempt may be among them.
        target.erase(space, [key for key, _ in target.scan(space)])
    else:
        while target.trim(space):
            pass


def _copy_space(source: Source, target: Target, space: str, tell: Progress) -> int:
    done = 0
    for batch in _batches(source.scan(space)):
        target.commit([], [Write(space, key, value) for key, value in batch])
        done += len(batch)
        tell(space, done, None)
    return done


def _batches(rows: Iterator[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    while batch := list(islice(rows, _ROWS)):
        yield batch


def _require_same(source: Source, target: Target, problem: str, error: type[Conflict | LedgerCorrupt]) -> None:
    """Raise unless both have the same entries: as many, in the same places, and the last with the same leaf hash."""
    ends = [
        (reader.first_seq(), reader.next_seq(), [leaf_hash(data) for _, data in reader.entries(reader.next_seq() - 1)])
        for reader in (source, target)
    ]
    if ends[0] != ends[1]:
        raise error(f"{problem}: entries {ends[0][0]} to {ends[0][1] - 1} and {ends[1][0]} to {ends[1][1] - 1}")
