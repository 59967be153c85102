"""Whether a ledger holds where it lies, while its owner goes on writing. Reads only, and takes no lock.

The proof itself is `chain_verifier`'s; here it is only decided what is read, and in which order. Checkpoints are read first, so
that entries which come meanwhile are not missed and entries which were cut off are.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from kiki.errors import EvidenceInvalid, LedgerCorrupt
from kiki.ledger.anchors import COSIGNED
from kiki.ledger.chain_verifier import OnEntry, VerifiedChain, verify_entries
from kiki.ledger.exhibit import chain_id, size_key
from kiki.ledger.ledger import CHECKPOINTS
from kiki.ledger.merkle import peaks_of
from kiki.ledger.store import Reader
from kiki.ledger.tiling import LeafReader, TileReader

_EVERYTHING: Final = 2**62


class Progress(NamedTuple):
    """How far a verification is."""

    chain: str
    done: int
    total: int


def verify_ledger(
    readers: Sequence[Reader],
    key: str,
    *,
    witnesses: Iterable[str] = (),
    on_entry: OnEntry | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> list[VerifiedChain]:
    """Every chain of a ledger against its signed checkpoints; raises `EvidenceInvalid`, whose `place` names what does not hold.

    `key` is the verifier key of the log: that of any of its chains, all are signed with the same. Entries after the last
    checkpoint are read as well, and counted as `unsigned`.
    """
    witnesses = tuple(witnesses)
    verified = [_verify_chain(reader, key, witnesses, on_entry, progress) for reader in readers]
    ends = {chain.chain: chain.first + chain.entries for chain in verified}
    for chain in verified:
        for other, size in chain.others.items():
            if ends.get(other, -1) < size:
                raise EvidenceInvalid(
                    f"a checkpoint of chain {chain.chain} says that it has {size} entries; here it has fewer, or is "
                    "not there at all",
                    place=f"chain {other}",
                )
    return verified


def _verify_chain(
    reader: Reader,
    key: str,
    witnesses: tuple[str, ...],
    on_entry: OnEntry | None,
    progress: Callable[[Progress], None] | None,
) -> VerifiedChain:
    chain = chain_id(reader)
    signed = [
        int.from_bytes(row[0], "big") for space in (CHECKPOINTS, COSIGNED) if (row := reader.last(space)) is not None
    ]
    first, end = reader.first_seq(), reader.next_seq()
    told = None if progress is None else lambda done: progress(Progress(chain, done, end - first))
    try:
        peaks = peaks_of(TileReader(reader, first).node, first)
    except (LedgerCorrupt, ValueError) as error:
        raise EvidenceInvalid(
            f"the tree over what came before is not there: {error}", place=f"chain {chain}, before entry {first}"
        ) from error
    verified = verify_entries(
        chain,
        _stored(chain, reader.entries(first, end - 1)) if end > first else (),
        _notes(reader, max([end, *signed])),
        key,
        first,
        peaks,
        witnesses=witnesses,
        leaf_of=LeafReader(reader).leaf,
        on_entry=on_entry,
        progress=told,
    )
    if verified.entries and not verified.checkpoints:
        raise EvidenceInvalid(
            f"its {verified.entries} entries are covered by no signed checkpoint, so nothing can be said about them",
            place=f"chain {chain}",
            hint="one is made within ten seconds while a service runs, or by kiki audit seal when none does",
        )
    return verified


def _stored(chain: str, rows: Iterable[tuple[object, object]]) -> Iterator[tuple[int, bytes]]:
    """The rows as what they must be: a file can be edited so that a column holds something else."""
    for seq, data in rows:
        if not isinstance(seq, int) or not isinstance(data, bytes):
            raise EvidenceInvalid("it is not stored as an entry is", place=f"chain {chain}, entry {seq}")
        yield seq, data


def _notes(reader: Reader, most: int) -> Iterator[bytes]:
    """Every checkpoint over at most so many entries, by size; those that a witness cosigned besides."""
    rows: Iterable[tuple[bytes, object]] = heapq.merge(
        reader.scan(CHECKPOINTS), reader.scan(COSIGNED), key=lambda row: row[0]
    )
    for size, note in rows:
        if size > size_key(most):
            return
        # Anything but bytes was put there by somebody else, and is no note.
        yield note if isinstance(note, bytes) else b""
