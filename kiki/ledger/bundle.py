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
import struct
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import batched, chain as chained
from typing import BinaryIO, Final, NamedTuple

from kiki.clock import to_iso
from kiki.errors import InvalidInput, LedgerCorrupt
from kiki.ledger.checkpoint import LOG_KEY, Checkpoint, Signer, VerifierKey, log_origin, open_note
from kiki.ledger.entry import leaf_hash
from kiki.ledger.merkle import Tree
