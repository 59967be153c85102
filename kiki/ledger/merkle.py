"""The Merkle tree of RFC 6962, section 2.1 (first cut by the core engineer so that the ledger runs; the owner replaces it)."""
from __future__ import annotations
from collections.abc import Sequence
from hashlib import sha256
EMPTY_ROOT = sha256(b"").digest()
TILE_HEIGHT = 8
TILE_WIDTH = 256
def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()
def perfect_root(hashes: Sequence[bytes]) -> bytes:
    level = list(hashes)
    while len(level) > 1:
        level = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
    return level[0]
