"""The Merkle tree of a chain as it is stored: tiles of 256 hashes, as C2SP's tlog-tiles has them.

A tile of level 0 holds the leaf hashes of 256 entries, one of level n the roots of 256 tiles of level n - 1. Only
full tiles are stored, in the transaction of the entry that fills them; what is not full yet is in memory, and at
a start is made again from the last entries. So a proof reads a handful of tiles however long the chain is, and
entries that were pruned are still covered.

With each checkpoint the leaf hashes that fill no tile yet are noted, too (`EDGE`). No tree is made of them: they name the
entry that was altered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final

from kiki.errors import LedgerCorrupt
from kiki.ledger.entry import decode_entry, leaf_hash
from kiki.ledger.merkle import EMPTY_ROOT, TILE_HEIGHT, TILE_WIDTH, Tree, node_hash, peaks_of, perfect_root
from kiki.ledger.store import Reader, Store, Write

HASH_BYTES: Final = sha256().digest_size
EDGE: Final = "tile/edge"
"""The space of the leaf hashes behind the last full tile, under one key: the tile's index and the hashes."""
_TILES_CACHED: Final = 64
_INDEX_BYTES: Final = 8
_REBUILT_AT_ONCE: Final = 64 * TILE_WIDTH
_LOOK: Final = "find the place with kiki audit verify, and restore the ledger from a backup; nothing was changed in it"


def tile_space(level: int) -> str:
    """The space of the tiles of one level."""
    return f"tile/{level}"


def tile_key(index: int) -> bytes:
    """The key of the tile at a place of its level."""
    return index.to_bytes(8, "big")


class Tiling:
    """The open right edge of a tree: for each level the hashes that do not fill a tile yet. Immutable."""

    __slots__ = ("_edge", "size")

    def __init__(self, size: int = 0, edge: Sequence[Sequence[bytes]] = ()) -> None:
        self.size = size
        self._edge = edge

    def grown(self, leaves: Sequence[bytes]) -> tuple[Tiling, list[Write]]:
        """The edge after these leaves, and the tiles that they filled."""
        edge: list[Sequence[bytes]] = []
        writes: list[Write] = []
        size = self.size + len(leaves)
        coming = leaves
        level = 0
        while coming or level < len(self._edge):
            known = self._edge[level] if level < len(self._edge) else ()
            hashes = [*known, *coming]
            index = ((size >> TILE_HEIGHT * level) - len(hashes)) // TILE_WIDTH
            coming = []
            while len(hashes) >= TILE_WIDTH:
                tile, hashes = hashes[:TILE_WIDTH], hashes[TILE_WIDTH:]
                writes.append(Write(tile_space(level), tile_key(index), b"".join(tile)))
                coming.append(perfect_root(tile))
                index += 1
            edge.append(hashes)
            level += 1
        return Tiling(size, edge), writes

    def noted(self) -> Write:
        """The leaf hashes that fill no tile yet, to be kept."""
        leaves = self._edge[0] if self._edge else ()
        return Write(EDGE, b"", b"".join((tile_key(self.size // TILE_WIDTH), *leaves)))

    def root(self) -> bytes:
        """The RFC 6962 root of the whole tree."""
        root: bytes | None = None
        # From the smallest perfect subtree, at the right, to the largest.
        for hashes in self._edge:
            at = len(hashes)
            width = 1
            while at:
                if at & width:
                    subtree = perfect_root(hashes[at - width : at])
                    root = subtree if root is None else node_hash(subtree, root)
                    at -= width
                width <<= 1
        return EMPTY_ROOT if root is None else root


def open_tiling(store: Store) -> Tiling:
    """The edge of a store's tree; tiles that are missing are made again from the entries."""
    size = store.next_seq()
    tiling, full = Tiling(), size // TILE_WIDTH
    if full and _tile(store, 0, full - 1) is None:
        tiling = _rebuilt(store, full)
    elif full:
        tiling = Tiling(full * TILE_WIDTH, list(_edge(store, full)))
    leaves = [leaf_hash(data) for _, data in store.entries(full * TILE_WIDTH)]
    if len(leaves) != size - tiling.size:
        raise LedgerCorrupt("entries are missing before the end of the ledger", hint="restore the ledger from a backup")
    return tiling.grown(leaves)[0]


def _edge(store: Store, full: int) -> Iterator[Sequence[bytes]]:
    """The open hashes of each level when exactly `full` tiles of level 0 are stored."""
    yield []
    level, count = 1, full
    while count:
        # The roots of the tiles below that came after the last full tile of this level.
        first = count - count % TILE_WIDTH
        yield [perfect_root(_required(store, level - 1, index)) for index in range(first, count)]
        level, count = level + 1, count // TILE_WIDTH


def _rebuilt(store: Store, full: int) -> Tiling:
    """Every tile anew: of a ledger written before it had any, or whose tiles were dropped."""
    if store.first_seq():
        raise LedgerCorrupt(
            "the ledger lost the tiles of its tree, and the entries to make them from were pruned",
            hint="restore the ledger from a backup",
        )
    tiling = Tiling()
    for first in range(0, full * TILE_WIDTH, _REBUILT_AT_ONCE):
        last = min(first + _REBUILT_AT_ONCE, full * TILE_WIDTH) - 1
        tiling, writes = tiling.grown([leaf_hash(data) for _, data in store.entries(first, last)])
        store.commit([], writes)
    return tiling


def _tile(reader: Reader, level: int, index: int) -> list[bytes] | None:
    data = reader.get(tile_space(level), tile_key(index))
    if data is None:
        return None
    if len(data) != TILE_WIDTH * HASH_BYTES:
        raise _damaged(level, index)
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def _required(reader: Reader, level: int, index: int) -> list[bytes]:
    tile = _tile(reader, level, index)
    if tile is None:
        raise _damaged(level, index)
    return tile


def _damaged(level: int, index: int) -> LedgerCorrupt:
    return LedgerCorrupt(
        f"tile {index} of level {level} of the ledger's tree is missing or damaged",
        hint="restore the ledger from a backup",
    )


class TileReader:
    """Gives any node of the tree of a chain's first `size` entries; for proofs."""

    def __init__(self, reader: Reader, size: int) -> None:
        self._reader = reader
        self._size = size
        self._cached: dict[tuple[int, int], list[bytes]] = {}

    def node(self, height: int, index: int) -> bytes:
        """The hash of the perfect subtree of 2**height leaves that begins at leaf index * 2**height."""
        level, within = divmod(height, TILE_HEIGHT)
        first = index << within
        tile, at = divmod(first, TILE_WIDTH)
        return perfect_root(self._hashes(level, tile)[at : at + (1 << within)])

    def _hashes(self, level: int, index: int) -> list[bytes]:
        """The hashes of a tile, as many as there are."""
        known = self._cached.get((level, index))
        if known is None:
            known = _tile(self._reader, level, index) or self._partial(level, index)
            if len(self._cached) >= _TILES_CACHED:
                self._cached.clear()
            self._cached[level, index] = known
        return known

    def _partial(self, level: int, index: int) -> list[bytes]:
        first = index * TILE_WIDTH
        if level == 0:
            last = min(first + TILE_WIDTH, self._size) - 1
            return [leaf_hash(data) for _, data in self._reader.entries(first, last)]
        below = min(first + TILE_WIDTH, self._size >> TILE_HEIGHT * level)
        return [perfect_root(_required(self._reader, level - 1, child)) for child in range(first, below)]


class LeafReader:
    """Gives the leaf hash that the ledger noted for an entry when it wrote it: to name the one that differs, never believed."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._index = -1
        self._hashes = b""

    def leaf(self, seq: int) -> bytes | None:
        """The hash; None where there is none: of what came after the last checkpoint, or what is damaged."""
        index, at = divmod(seq, TILE_WIDTH)
        if index != self._index:
            self._index, self._hashes = index, self._stored(index)
        return self._hashes[at * HASH_BYTES : (at + 1) * HASH_BYTES] or None

    def _stored(self, index: int) -> bytes:
        tile = self._reader.get(tile_space(0), tile_key(index))
        if tile is None:
            edge = self._reader.get(EDGE, b"") or b""
            tile = edge[_INDEX_BYTES:] if edge[:_INDEX_BYTES] == tile_key(index) else b""
        return tile if len(tile) % HASH_BYTES == 0 else b""


def require_signed_root(reader: Reader, size: int, root: bytes) -> None:
    """Raise `LedgerCorrupt` unless the first `size` entries are there and have the root that was signed for them."""
    following = reader.next_seq()
    if size > following:
        raise LedgerCorrupt(
            f"{size} entries were signed and {following} are there: the end of the ledger is missing", hint=_LOOK
        )
    if size % TILE_WIDTH and reader.first_seq() > size - size % TILE_WIDTH:
        return  # what was signed last left since, so there is nothing to make its root from
    if Tree(size, peaks_of(TileReader(reader, size).node, size)).root() != root:
        raise LedgerCorrupt(
            f"the first {size} entries of the ledger do not have the root that was signed for them", hint=_LOOK
        )


def require_following(reader: Reader, size: int) -> None:
    """Raise `LedgerCorrupt` unless whatever stands behind the first `size` entries is an entry in its own place."""
    expected = max(size, reader.first_seq())
    rows: Iterable[tuple[int, object]] = reader.entries(expected)
    for seq, data in rows:
        if seq != expected:
            raise LedgerCorrupt(f"entry {expected} is missing, and entry {seq} is there", hint=_LOOK)
        # Anything but bytes was put there by somebody else, and is no entry.
        found = decode_entry(data if isinstance(data, bytes) else b"").seq
        if found != seq:
            raise LedgerCorrupt(f"entry {found} of the ledger stands where entry {seq} belongs", hint=_LOOK)
        expected += 1


def leaf_hashes(entries: Iterable[tuple[int, bytes]]) -> list[bytes]:
    """The leaf hashes of encoded entries."""
    return [leaf_hash(data) for _, data in entries]
