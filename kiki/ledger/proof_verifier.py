"""Whether the document of `kiki.ledger.proof` proves its entry, offline. Independent of the writer: see `chain_verifier`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from kiki.errors import EvidenceInvalid, LedgerCorrupt
from kiki.ledger.chain_verifier import (
    Cosigner,
    exact_base64,
    node_hash,
    read_key,
    read_note,
    read_witnesses,
)
from kiki.ledger.entry import decode_entry, leaf_hash

_MOST_BYTES: Final = 1 << 20


class VerifiedProof(NamedTuple):
    """An entry that is in the tree of a signed checkpoint."""

    chain: str
    seq: int
    entry: bytes
    size: int
    """How many entries the checkpoint is over."""
    root: bytes
    at: int | None
    """When the checkpoint was signed, in microseconds since the epoch."""
    cosigners: tuple[Cosigner, ...]
    key: str
    """The verifier key that the document brings along."""
    trusted: bool
    """True when the caller gave that key. Otherwise anybody may have made the document, with a key of their own."""


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    format: Literal["kiki-inclusion-proof/1"]
    chain: str
    seq: int
    entry: str
    hashes: list[str]
    checkpoint: str
    key: str


def verify_proof(text: str | bytes, key: str | None = None, *, witnesses: Iterable[str] = ()) -> VerifiedProof:
    """What the document proves; raises `EvidenceInvalid`, whose `place` names the member that does not hold.

    `key` is the verifier key that the caller has from elsewhere, `witnesses` are those of witnesses.
    """
    if len(text) > _MOST_BYTES:
        raise EvidenceInvalid(f"a proof has at most {_MOST_BYTES} bytes", place="proof")
    try:
        document = msgspec.json.decode(text, type=_Document)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise EvidenceInvalid(f"this is not a proof of kiki: {error}", place="proof") from error
    public = read_key(document.key, "key")
    if key is not None and read_key(key, "verifier key").public != public.public:
        raise EvidenceInvalid("it was signed with another key than the one that is trusted", place="key")
    note = read_note(
        document.checkpoint.encode(), document.chain, public.public, read_witnesses(witnesses), "checkpoint"
    )
    entry = exact_base64(document.entry, "entry")
    try:
        seq = decode_entry(entry).seq
    except LedgerCorrupt as error:
        raise EvidenceInvalid(str(error), place="entry") from error
    if seq != document.seq:
        raise EvidenceInvalid(f"the entry is {seq}, and the document says {document.seq}", place="seq")
    if not 0 <= seq < note.size:
        raise EvidenceInvalid(f"the checkpoint is over {note.size} entries; {seq} is not among them", place="seq")
    siblings = [exact_base64(line, "hashes") for line in document.hashes]
    if _root(leaf_hash(entry), seq, note.size, siblings) != note.root:
        raise EvidenceInvalid("the hashes do not lead from the entry to the root that was signed", place="hashes")
    return VerifiedProof(
        document.chain,
        seq,
        entry,
        note.size,
        note.root,
        note.at,
        note.cosigners,
        public.text,
        key is not None,
    )


def _root(leaf: bytes, index: int, size: int, siblings: Sequence[bytes]) -> bytes | None:
    """RFC 6962, section 2.1.1, backwards and from the top: the last sibling is the other half of the tree.

    A sibling of another length than 32 bytes needs no check: what it is joined with has 32, so it gives another root.
    """
    if size == 1:
        return None if siblings else leaf
    if not siblings:
        return None
    half = 1 << (size - 1).bit_length() - 1
    left = index < half
    inner = _root(leaf, index, half, siblings[:-1]) if left else _root(leaf, index - half, size - half, siblings[:-1])
    if inner is None:
        return None
    return node_hash(inner, siblings[-1]) if left else node_hash(siblings[-1], inner)
