"""One file that proves a stretch of the ledger to a stranger, offline: written here, read by `bundle_verifier`.

    kiki-bundle/1                   these 14 bytes, the last a line break
    K  verifier key                 of whoever signed, as C2SP writes it; its Ed25519 key signed everything below
    for every chain, in the order of their ids:
        C  chain                    lines: id, first sequence, size of the tree at the end, then the peaks of [0, first)
        E  entry                    the stored bytes, one record for each from `first` to `size - 1`
        P  checkpoint               a signed note, where the tree has its size; the last one covers the last entry
    S  seal                         a signed note over everything before it

A record is one byte of kind, the length of its body in four bytes and the first eight bytes of SHA-256(0x00 || body),
both big-endian, and the body. For an entry those eight bytes begin its leaf hash. They are there because a root says
only that something differs: with them the verifier names the one record, so the one entry, in which a bit flipped. They
are no part of the proof (whoever alters an entry on purpose alters them too, and then fails at the next checkpoint's
root), so eight bytes do where the whole hash would cost a tenth of the file.

The seal's text is, line by line: `kiki evidence bundle`; `time`, when it was sealed; `bytes` and `sha256` of everything
before the record; and `chain` with id, first sequence, size and root for each. No origin of a log reads like its first
line, so it can never pass for a checkpoint. One content has one encoding: there is no padding, nothing follows the seal,
numbers have no leading zeros, base64 is exact.

A range need not begin at 0: entries that were pruned are still covered by the peaks, which the roots prove.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import chain as chained
from itertools import islice
from struct import Struct
from typing import BinaryIO, Final, NamedTuple

from kiki.clock import to_iso
from kiki.errors import InvalidInput, LedgerCorrupt
from kiki.ledger.checkpoint import LOG_KEY, Checkpoint, Signer, VerifierKey, log_origin, open_note
from kiki.ledger.entry import decode_entry, leaf_hash
from kiki.ledger.merkle import Tree

MAGIC: Final = b"kiki-bundle/1\n"
BODY_BYTES: Final = 1 << 24
"""The longest record: a verifier must not take memory for what a flipped bit of a length says."""

_KEY, _CHAIN, _ENTRY, _CHECKPOINT, _SEAL = b"KCEPS"
_HEAD: Final = Struct(">BI8s")
_CHECK_BYTES: Final = 8
_CHAIN_ID: Final = re.compile(r"[0-9A-Za-z._-]{1,64}", re.ASCII)
_BLOCK: Final = 1024


class BundleChain(NamedTuple):
    """A stretch of one chain as it goes into a bundle: the entries from `first` up to what `note` covers."""

    id: str
    first: int
    peaks: Sequence[bytes]
    """The compact range of the entries before `first`, largest subtree first; empty for 0."""
    entries: Iterable[tuple[int, bytes]]
    """(sequence, stored bytes) from `first` on; what comes after the checkpoint is not read."""
    note: bytes
    """The signed checkpoint whose size is the last sequence plus one."""
    checkpoints: Iterable[bytes] = ()
    """Signed checkpoints in the order of their sizes, read once; those outside of the stretch are left out."""


def write_bundle(out: BinaryIO, chains: Iterable[BundleChain], signer: Signer, *, at: int) -> None:
    """Write one bundle over these chains, which come in the order of their ids; memory does not grow with the entries.

    `signer` seals it, and the same Ed25519 key must have signed every checkpoint; `at` is when, in microseconds since the
    epoch. All checkpoints should be of one snapshot: one that names another chain at a larger size than the bundle holds
    is not accepted by the verifier. Raises `InvalidInput` for chains out of order, `CheckpointInvalid` for one that the
    signer's key did not sign, `LedgerCorrupt` when entries are missing or do not have the signed root. What was written by
    then is no bundle: write to a temporary file and rename it.
    """
    file = _RecordFile(out)
    file.put(_KEY, signer.verifier_key.encode())
    lines: list[str] = []
    previous = ""
    for stretch in chains:
        if not _CHAIN_ID.fullmatch(stretch.id) or stretch.id <= previous:
            raise InvalidInput(
                f"chain {stretch.id!r} comes after {previous!r} in a bundle",
                hint="ids are 1 to 64 letters, digits, dots, dashes and underscores; give each chain once, sorted by id",
            )
        previous = stretch.id
        end = _write_chain(file, stretch, signer)
        lines.append(f"chain {stretch.id} {stretch.first} {end.size} {_encoded(end.root)}")
    if not lines:
        raise InvalidInput("a bundle holds at least one chain")
    covered, digest = file.covered()
    text = [
        "kiki evidence bundle",
        f"time {to_iso(at)}",
        f"bytes {covered}",
        f"sha256 {_encoded(digest)}",
        *lines,
    ]
    file.put(_SEAL, signer.sign_text("".join(f"{line}\n" for line in text)))
    file.flush()


def _write_chain(file: _RecordFile, stretch: BundleChain, signer: Signer) -> Checkpoint:
    """Write a chain; the checkpoint over its last entry."""
    key = VerifierKey(log_origin(stretch.id), LOG_KEY, signer.key.public)
    end = _opened(stretch.note, key)
    if not 0 <= stretch.first <= end.size:
        raise InvalidInput(f"chain {stretch.id} has {end.size} entries: it has no stretch from {stretch.first}")
    tree = Tree(stretch.first, stretch.peaks)
    lines = [stretch.id, str(stretch.first), str(end.size), *map(_encoded, stretch.peaks)]
    file.put(_CHAIN, "".join(f"{line}\n" for line in lines).encode())
    entries = iter(stretch.entries)
    signed_size = -1
    for checkpoint, note in chained(_within(stretch, key, end.size), [(end, stretch.note)]):
        if checkpoint.size <= signed_size:
            raise InvalidInput(f"the checkpoints of chain {stretch.id} are not in the order of their sizes")
        first = tree.size
        _write_entries(file, tree, entries, checkpoint.size)
        if tree.root() != checkpoint.root:
            raise LedgerCorrupt(
                f"the tree of chain {stretch.id} does not have the root that was signed for {checkpoint.size} entries; "
                f"what differs lies at or after entry {first}, or before the bundle",
                hint="find the place with: kiki audit verify",
            )
        file.put(_CHECKPOINT, note)
        signed_size = checkpoint.size
    return end


def _within(stretch: BundleChain, key: VerifierKey, end: int) -> Iterator[tuple[Checkpoint, bytes]]:
    """The earlier checkpoints of a stretch."""
    for note in stretch.checkpoints:
        checkpoint = _opened(note, key)
        if checkpoint.size >= end:
            return
        if checkpoint.size >= stretch.first:
            yield checkpoint, note


def _opened(note: bytes, key: VerifierKey) -> Checkpoint:
    checkpoint, _ = open_note(note, key)
    if checkpoint.origin != key.name:
        raise InvalidInput(f"a checkpoint of {checkpoint.origin} is not one of {key.name}")
    return checkpoint


def _write_entries(file: _RecordFile, tree: Tree, entries: Iterator[tuple[int, bytes]], end: int) -> None:
    """Write entries until the tree has `end` leaves."""
    while tree.size < end:
        leaves: list[bytes] = []
        for seq, data in islice(entries, min(end - tree.size, _BLOCK)):
            due = tree.size + len(leaves)
            if seq != due or decode_entry(data).seq != due:
                raise LedgerCorrupt(
                    f"where entry {due} belongs, the ledger has entry {decode_entry(data).seq} at {seq}"
                )
            leaf = leaf_hash(data)
            file.put(_ENTRY, data, leaf)
            leaves.append(leaf)
        if not leaves:
            raise LedgerCorrupt(f"the ledger ends before entry {tree.size}; {end} entries were signed")
        tree.extend(leaves)


class _RecordFile:
    """Frames records, and hashes what it writes."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._waiting: list[bytes] = [MAGIC]
        self._digest = sha256()
        self._written = 0

    def put(self, kind: int, body: bytes, leaf: bytes | None = None) -> None:
        """Write one record; `leaf` is SHA-256(0x00 || body) where the caller has it."""
        if len(body) > BODY_BYTES:
            raise InvalidInput(f"a record of a bundle has at most {BODY_BYTES} bytes, not {len(body)}")
        check = (leaf or sha256(b"\x00" + body).digest())[:_CHECK_BYTES]
        self._waiting += (_HEAD.pack(kind, len(body), check), body)
        if len(self._waiting) >= _BLOCK:
            self.flush()

    def covered(self) -> tuple[int, bytes]:
        """How many bytes were written so far, and their SHA-256."""
        self.flush()
        return self._written, self._digest.digest()

    def flush(self) -> None:
        """Hand everything that waits to the file."""
        data = b"".join(self._waiting)
        self._waiting.clear()
        rest = memoryview(data)
        while rest:  # an unbuffered file may take only a part
            rest = rest[self._out.write(rest) :]
        self._digest.update(data)
        self._written += len(data)


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
