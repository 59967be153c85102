"""What an auditor is handed, taken from a ledger where it lies: stretches for a bundle, the proof of one entry, a seal.

Reading takes no lock. Sealing needs the ledger to itself: while a service runs, the service does it by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from kiki.errors import LedgerLocked, LedgerUnavailable, NotFound
from kiki.ledger.anchors import COSIGNED
from kiki.ledger.bundle import BundleChain
from kiki.ledger.checkpoint import Signer, log_origin, parse_checkpoint, split_note
from kiki.ledger.ledger import CHECKPOINTS, META, Ledger, first_recorded_since, nameless
from kiki.ledger.merkle import peaks_of
from kiki.ledger.projected import projected
from kiki.ledger.proof import make_proof
from kiki.ledger.source import Database, Source
from kiki.ledger.store import Reader, Store
from kiki.ledger.tiling import TileReader

OTHERS_CHECKPOINT: Final = (
    "its replica signs one within ten seconds; where it does not run any more, kiki audit seal signs it"
)
"""What to do when a checkpoint of another replica is missing."""


class Stretch(NamedTuple):
    """A piece of a chain that is ready to be handed out."""

    bundle: BundleChain
    beyond: int
    """Entries after it that were wanted too, and that no checkpoint covers yet."""


def chain_id(reader: Reader) -> str:
    """The id of the chain that is read; raises `LedgerUnavailable` when it has none yet, `LedgerCorrupt` when it lost it."""
    # Before the id: whoever begins a chain writes its id first.
    following = reader.next_seq()
    found = reader.get(META, b"chain")
    if found is None and following:
        raise nameless(following)
    if found is None:
        raise LedgerUnavailable("there is no chain in this ledger yet", hint="start a service on it first")
    return projected(bytes.decode, found, "the id of the chain")


def size_key(size: int) -> bytes:
    """Under which the checkpoint of a tree of this size is kept."""
    return size.to_bytes(8, "big")


def covering(reader: Reader, size: int) -> tuple[int, bytes] | None:
    """The first checkpoint over at least `size` entries, with its own size; cosigned where a witness did."""
    for key, note in reader.scan(CHECKPOINTS, size_key(max(size - 1, 0))):
        return int.from_bytes(key, "big"), reader.get(COSIGNED, key) or note
    return None


def latest(reader: Reader) -> tuple[int, bytes] | None:
    """The checkpoint over most entries, with its size."""
    row = reader.last(CHECKPOINTS)
    return None if row is None else (int.from_bytes(row[0], "big"), reader.get(COSIGNED, row[0]) or row[1])


def recorded(reader: Reader, since: int | None = None, until: int | None = None) -> int:
    """How many entries were recorded from `since` on and before `until`, in microseconds since the epoch."""
    first = reader.first_seq() if since is None else first_recorded_since(reader, since)
    end = reader.next_seq() if until is None else first_recorded_since(reader, until)
    return max(end - first, 0)


def stretch(
    reader: Reader,
    since: int | None = None,
    until: int | None = None,
    passed: Callable[[Iterator[tuple[int, bytes]]], Iterator[tuple[int, bytes]]] = iter,
    *,
    at_least: int = 0,
) -> Stretch:
    """What was recorded from `since` on and before `until`, in microseconds since the epoch, up to the next checkpoint.

    Where none follows, up to the last one; under a tree of `at_least` so many entries. `passed` may watch the entries go by. Raises `NotFound` when there is no
    checkpoint at all.
    """
    following = reader.next_seq()
    first = reader.first_seq() if since is None else first_recorded_since(reader, since)
    end = following if until is None else first_recorded_since(reader, until)
    checkpoint = covering(reader, max(first, end, at_least)) or latest(reader)
    if checkpoint is None:
        raise NotFound(
            f"chain {chain_id(reader)} has no signed checkpoint yet",
            hint="one is made within ten seconds while a service runs, or by kiki audit seal when none does",
        )
    size, note = checkpoint
    first = min(first, size)
    chain = BundleChain(
        chain_id(reader),
        first,
        peaks_of(TileReader(reader, first).node, first),
        passed(reader.entries(first, size - 1)) if size > first else iter(()),
        note,
        (note for _, note in _earlier(reader, first, size)),
    )
    return Stretch(chain, max(end - size, 0))


def stretches(
    readers: Iterable[Reader],
    since: int | None = None,
    until: int | None = None,
    passed: Callable[[Iterator[tuple[int, bytes]]], Iterator[tuple[int, bytes]]] = iter,
) -> list[Stretch]:
    """The same of several chains that know of each other, by their ids: none ends before where another's checkpoint saw it."""
    by_chain = {chain_id(reader): reader for reader in readers}
    found = {chain: stretch(reader, since, until, passed) for chain, reader in by_chain.items()}
    while True:
        seen: dict[str, int] = {}
        for piece in found.values():
            for other, size in parse_checkpoint(split_note(piece.bundle.note)[0]).others.items():
                seen[other] = max(size, seen.get(other, 0))
        # What a checkpoint names was signed before it, so this ends: at the latest with the last checkpoint of each.
        short = [chain for chain, piece in found.items() if _size(piece) < seen.get(chain, 0)]
        if not short:
            return [found[chain] for chain in sorted(found)]
        for chain in short:
            longer = stretch(by_chain[chain], since, until, passed, at_least=seen[chain])
            if _size(longer) <= _size(found[chain]):
                raise LedgerUnavailable(f"chain {chain} lacks a checkpoint that another chain names")
            found[chain] = longer


def _size(piece: Stretch) -> int:
    return parse_checkpoint(split_note(piece.bundle.note)[0]).size


def _earlier(reader: Reader, first: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    for key, note in reader.scan(CHECKPOINTS, size_key(max(first - 1, 0))):
        if key >= size_key(end):
            return
        yield key, note


def prove(reader: Reader, seq: int, key: str) -> str:
    """The inclusion proof of an entry, under the last checkpoint; `key` is the verifier key of the log.

    Raises `NotFound` when there is no such entry, or no checkpoint over it yet.
    """
    entry = next((data for _, data in reader.entries(seq, seq)), None)
    if entry is None:
        raise NotFound(
            f"there is no entry {seq} in chain {chain_id(reader)}", hint="it may be pruned, or lie in another chain"
        )
    checkpoint = latest(reader)
    if checkpoint is None or checkpoint[0] <= seq:
        raise NotFound(
            f"no checkpoint covers entry {seq} yet",
            hint="one is made within ten seconds while a service runs, or by kiki audit seal when none does",
        )
    size, note = checkpoint
    return make_proof(chain_id(reader), entry, note, TileReader(reader, size).node, key)


def verifier_key(reader: Reader, seed: bytes) -> str:
    """The verifier key of the chain that is read."""
    return Signer(log_origin(chain_id(reader)), seed).verifier_key


def seal(source: Source, seed: bytes) -> list[bytes]:
    """A checkpoint over everything, for each chain that nobody owns now; raises `LedgerLocked` when somebody owns all.

    Chains without entries have none.
    """
    notes: list[bytes] = []
    locked: LedgerLocked | None = None
    owned = 0
    for open_store in _openers(source):
        try:
            store = open_store()
        except LedgerLocked as error:
            locked = error
            continue
        owned += 1
        with contextlib.closing(store):
            # A start that failed may have claimed a chain and written nothing into it.
            note = Ledger(store, seed=seed).checkpoint() if store.next_seq() else None
        if note is not None:
            notes.append(note)
    if locked is not None and not owned:
        raise locked
    return notes


def _openers(source: Source) -> Iterable[Callable[[], Store]]:
    if not isinstance(source, Database):
        from kiki.ledger.sqlite import SqliteReader, SqliteStore

        SqliteReader(source).close()  # whoever owns one makes it; here it must be there
        return [lambda: SqliteStore(source)]
    from kiki.ledger.postgres import PostgresReader, PostgresStore

    url = source.url.reveal()
    with contextlib.closing(PostgresReader(url)) as reader:
        names = [chain.name for chain in reader.chains()]
    return [lambda name=name: PostgresStore(url, name) for name in names]  # type: ignore[misc]  # the name of this turn
