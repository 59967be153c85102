"""One document that proves one entry: that it is where a signed checkpoint says. Written here, read by `proof_verifier`.

JSON with these members: `format` (always `kiki-inclusion-proof/1`), `chain`, `seq`, `entry` (the stored bytes, base64), `hashes`
(the inclusion proof of RFC 6962, section 2.1.1, base64, from the leaf up), `checkpoint` (the signed note: size, root, and
whoever cosigned) and `key` (the verifier key that signed it). It grows with the logarithm of the ledger: 64 hashes at the very
most, so it stays below 50 kB for every entry below 30 kB.
"""

from __future__ import annotations

import base64
import json
from typing import Final

from kiki.errors import InvalidInput, LedgerCorrupt
from kiki.ledger.checkpoint import VerifierKey, log_origin, open_note
from kiki.ledger.entry import decode_entry, leaf_hash
from kiki.ledger.merkle import NodeReader, inclusion_proof, root_from_inclusion

FORMAT: Final = "kiki-inclusion-proof/1"
PROOF_BYTES: Final = 1 << 20
"""The longest document: a verifier reads no more."""


def make_proof(chain: str, entry: bytes, note: bytes, node: NodeReader, key: str) -> str:
    """The JSON text of the proof that this entry is in the tree of this checkpoint.

    `entry` is its stored bytes, which hold its sequence; `note` a signed checkpoint of the chain that covers it; `node` reads
    the chain's tree; `key` is the verifier key of the log. Raises `InvalidInput` when the checkpoint does not cover the entry
    or is another chain's, or when the entry is too long for one document, `LedgerCorrupt` when the tree does not lead from the entry to the signed root.
    """
    seq = decode_entry(entry).seq
    verifier_key = VerifierKey.parse(key)
    checkpoint, _ = open_note(note, verifier_key._replace(name=log_origin(chain)))
    if checkpoint.origin != log_origin(chain) or not 0 <= seq < checkpoint.size:
        raise InvalidInput(
            f"entry {seq} of chain {chain} is not covered by a checkpoint of {checkpoint.origin} over {checkpoint.size}",
            hint="take a checkpoint that was signed after the entry",
        )
    hashes = inclusion_proof(node, seq, checkpoint.size)
    if root_from_inclusion(leaf_hash(entry), seq, checkpoint.size, hashes) != checkpoint.root:
        raise LedgerCorrupt(
            f"entry {seq} of chain {chain} is not the one that was signed, or the stored tree is damaged",
            hint="find the place with: kiki audit verify",
        )
    document = {
        "format": FORMAT,
        "chain": chain,
        "seq": seq,
        "entry": _encoded(entry),
        "hashes": [_encoded(one) for one in hashes],
        "checkpoint": note.decode(),
        "key": verifier_key.text,
    }
    text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    if len(text) > PROOF_BYTES:
        raise InvalidInput(
            f"the proof of entry {seq} would be longer than {PROOF_BYTES} bytes",
            hint="make a bundle that holds the entry",
        )
    return text


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
