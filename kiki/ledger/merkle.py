"""The Merkle tree of RFC 6962, section 2.1: growth, roots and proofs. Pure.

A tree of n leaves is split at the largest power of two below n, so it consists of perfect subtrees whose sizes are the
powers of two in n: its peaks, largest first. The peaks are all that growing needs (a compact range). The leaf hash is
`kiki.ledger.entry.leaf_hash`; every hash here is 32 bytes of SHA-256.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from hashlib import sha256
from typing import Final

from kiki.errors import ProofInvalid

EMPTY_ROOT: Final = sha256(b"").digest()
"""The root of a tree without leaves."""
TILE_HEIGHT: Final = 8
"""A tile holds the hashes of one perfect subtree of this height: 256 leaves, or 256 roots of tiles below."""
TILE_WIDTH: Final = 1 << TILE_HEIGHT

NodeReader = Callable[[int, int], bytes]
"""(height, index): the hash of the perfect subtree of 2**height leaves that begins at leaf index * 2**height."""

_HASH_BYTES: Final = 32


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def _paired(hashes: Sequence[bytes]) -> list[bytes]:
    """The level above an even number of hashes. This line is the hot path of the whole ledger."""
    return [sha256(b"\x01" + left + right).digest() for left, right in zip(hashes[::2], hashes[1::2], strict=True)]


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The root over as many hashes as a power of two; raises `ValueError` for another number."""
    if len(hashes).bit_count() != 1:
        raise ValueError(f"a perfect subtree has 1, 2, 4, 8, ... leaves, not {len(hashes)}")
    level = hashes
    while len(level) > 1:
        level = _paired(level)
    return level[0]


class Tree:
    """A growing tree of which only the peaks are kept: memory does not depend on its size.

    `Tree(size, peaks)` goes on from a known one; raises `ProofInvalid` when that many peaks cannot belong to that size.
    """

    __slots__ = ("_edge", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        _require_hashes(peaks, size.bit_count(), f"a tree of {size} leaves has", "peaks")
        self.size = size
        # One place for each height, the leaves' first: the peak of that height, or none.
        self._edge: list[bytes | None] = [None] * size.bit_length()
        heights = (height for height in reversed(range(size.bit_length())) if size >> height & 1)
        for height, peak in zip(heights, peaks, strict=True):
            self._edge[height] = peak

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The hashes of the perfect subtrees, largest first."""
        return tuple(peak for peak in reversed(self._edge) if peak is not None)

    def append(self, leaf_hash: bytes) -> None:
        """Add one leaf."""
        node = leaf_hash
        for height, peak in enumerate(self._edge):
            if peak is None:
                self._edge[height] = node
                break
            self._edge[height] = None
            node = node_hash(peak, node)
        else:
            self._edge.append(node)
        self.size += 1

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Add many leaves, level by level: several times as fast as one by one."""
        level = list(leaf_hashes)
        self.size += len(level)
        height = 0
        while level:
            if height == len(self._edge):
                self._edge.append(None)
            peak = self._edge[height]
            if peak is not None:
                level.insert(0, peak)
            self._edge[height] = level.pop() if len(level) & 1 else None
            level = _paired(level)
            height += 1

    def root(self) -> bytes:
        """The RFC 6962 root of everything so far."""
        return _folded(self.peaks)

    def copy(self) -> Tree:
        """A tree that grows on its own from here."""
        return Tree(self.size, self.peaks)


def _folded(peaks: Sequence[bytes]) -> bytes:
    """The root above peaks, largest first: the smallest two are joined first."""
    return reduce(lambda right, left: node_hash(left, right), reversed(peaks)) if peaks else EMPTY_ROOT


def _subtrees(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The perfect subtrees, as (height, index), that make up [start, end); `start` is a boundary of all of them."""
    while start < end:
        height = (end - start).bit_length() - 1
        yield height, start >> height
        start += 1 << height


def _range_hash(node: NodeReader, start: int, end: int) -> bytes:
    return _folded([node(height, index) for height, index in _subtrees(start, end)])


def _split(size: int) -> int:
    """The largest power of two below `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def peaks_of(node: NodeReader, size: int) -> list[bytes]:
    """The peaks of the tree of the first `size` leaves, largest first."""
    return [node(height, index) for height, index in _subtrees(0, size)]


def inclusion_proof(node: NodeReader, index: int, size: int) -> list[bytes]:
    """PATH(index, D[size]) of RFC 6962, section 2.1.1: the siblings from the leaf up to the root.

    Raises `ProofInvalid` when the tree has no such leaf.
    """
    _require_leaf(index, size)
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_range_hash(node, middle, end))
            end = middle
        else:
            proof.append(_range_hash(node, start, middle))
            start = middle
    return proof[::-1]


def consistency_proof(node: NodeReader, old: int, new: int) -> list[bytes]:
    """PROOF(old, D[new]) of RFC 6962, section 2.1.2: that the first `old` of `new` leaves are those of the older tree.

    Empty for an `old` of 0 or of `new`; raises `ProofInvalid` when the older tree is the larger one.
    """
    _require_growth(old, new)
    if old in {0, new}:
        return []
    proof: list[bytes] = []
    start, end = 0, new
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_range_hash(node, middle, end))
            end = middle
        else:
            proof.append(_range_hash(node, start, middle))
            start = middle
    if start:  # otherwise this subtree is the whole older tree, whose root the verifier has
        proof.append(_range_hash(node, start, end))
    return proof[::-1]


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that a tree of `size` leaves has when this leaf hash is at `index` (RFC 9162, section 2.1.3.2).

    The caller compares it with a signed root. Raises `ProofInvalid` when the proof has not the length that
    `index` and `size` demand.
    """
    _require_leaf(index, size)
    # One sibling for each level where the leaf's branch has a right neighbour or is a right one itself.
    below = (index ^ (size - 1)).bit_length()
    _require_hashes(proof, below + (index >> below).bit_count(), "an inclusion proof here has", "hashes")
    _require_hashes([leaf], 1, "there is", "leaf")
    root = leaf
    at, last = index, size - 1
    for sibling in proof:
        if at & 1 or at == last:
            root = node_hash(sibling, root)
            # A lone right edge has no sibling until the level where it is a right child.
            while not at & 1:
                at, last = at >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        at, last = at >> 1, last >> 1
    return root


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Nothing when the newer tree begins with the older one (RFC 9162, section 2.1.4.2), else `ProofInvalid`."""
    _require_growth(old_size, new_size)
    _require_hashes([old_root, new_root], 2, "there are", "roots")
    if old_size in {0, new_size}:
        _require_hashes(proof, 0, "a consistency proof here has", "hashes")
        if old_root != (new_root if old_size else EMPTY_ROOT):
            raise ProofInvalid(f"two trees of {old_size} leaves have different roots: the log was forked")
        return
    at, last = old_size - 1, new_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    path = list(proof) if at else [old_root, *proof]
    below = (at ^ last).bit_length()
    expected = 1 + below + (at >> below).bit_count()
    _require_hashes(path, expected, "a consistency proof here has", "hashes with the older root")
    old = new = path[0]
    for sibling in path[1:]:
        if at & 1 or at == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not at & 1:
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        at, last = at >> 1, last >> 1
    if old != old_root or new != new_root:
        raise ProofInvalid(f"the tree of {new_size} leaves does not begin with the tree of {old_size}")


def _require_leaf(index: int, size: int) -> None:
    if not 0 <= index < size:
        raise ProofInvalid(f"a tree of {size} leaves has no leaf {index}")


def _require_growth(old: int, new: int) -> None:
    if not 0 <= old <= new:
        raise ProofInvalid(f"a tree of {new} leaves cannot have grown from one of {old}")


def _require_hashes(hashes: Sequence[bytes], expected: int, subject: str, noun: str) -> None:
    if len(hashes) != expected:
        raise ProofInvalid(f"{subject} {expected} {noun}, not {len(hashes)}")
    # Two neighbours of 31 and 33 bytes would hash like two of 32.
    if any(len(one) != _HASH_BYTES for one in hashes):
        raise ProofInvalid(f"a hash has {_HASH_BYTES} bytes")
