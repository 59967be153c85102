"""The stored tree: whatever is cut into tiles, lost, pruned or restarted, it is the tree over all entries."""

from __future__ import annotations

import random
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from kiki.errors import LedgerCorrupt
from kiki.ledger.entry import encode_entry, leaf_hash
from kiki.ledger.ledger import Append, Ledger
from kiki.ledger.memory import MemoryStore
from kiki.ledger.merkle import inclusion_proof, root_from_inclusion
from kiki.ledger.sqlite import SqliteStore
from kiki.ledger.store import Write
from kiki.ledger.tiling import TileReader, Tiling, leaf_hashes, open_tiling, tile_key, tile_space
from tests.ledger.doubles import FakeClock


class Noted(msgspec.Struct, array_like=True, tag="noted", frozen=True):
    """A fact of no domain."""

    number: int


def entry(seq: int) -> bytes:
    return encode_entry(seq, seq, Noted(seq))


def mth(hashes: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, over leaf hashes, word for word."""
    if len(hashes) <= 1:
        return hashes[0] if hashes else sha256(b"").digest()
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\x01" + mth(hashes[:split]) + mth(hashes[split:])).digest()


LEAVES = [sha256(b"%d" % number).digest() for number in range(65_536 + 600)]
"""Of a tree whose entries nobody made: most of the tests need no more of them."""

EDGES = [0, 1, 2, 3, 255, 256, 257, 511, 512, 513, 767, 768, 1000]
HIGH = [65_280, 65_535, 65_536, 65_537, 65_792, 66_000]
"""Around the first full tile of level 1."""


def grown(sizes, tiling=None):
    """A tiling that grew in steps of these sizes, and all tiles on the way."""
    tiling, tiles, at = tiling or Tiling(), {}, 0
    for step in sizes:
        tiling, writes = tiling.grown(LEAVES[at : at + step])
        at += step
        for space, key, value in writes:
            assert (space, key) not in tiles, "a tile is written once"
            tiles[space, key] = value
    return tiling, tiles


def stored(size, fill=True):
    """A store with that many entries and the tiles that belong to them, written a batch at a time."""
    store, tiling = MemoryStore(), Tiling()
    for first in range(0, size, 300):
        entries = [(seq, entry(seq)) for seq in range(first, min(first + 300, size))]
        tiling, tiles = tiling.grown(leaf_hashes(entries))
        store.commit(entries, tiles if fill else [])
    return store, tiling


# -- growing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*EDGES, *HIGH])
def test_the_root_is_that_of_rfc_6962(size):
    """In one step, around every place where tiles fill."""
    tiling, _ = grown([size])
    assert size == tiling.size
    assert mth(LEAVES[:size]) == tiling.root()


def test_the_root_is_pymerkles():
    """An implementation by others, fed with the entries themselves."""
    tree, tiling = InmemoryTree(algorithm="sha256"), Tiling()
    for seq in range(600):
        tree.append_entry(entry(seq))
        tiling, _ = tiling.grown([leaf_hash(entry(seq))])
        if seq % 50 == 0 or 250 < seq < 260 or 508 < seq < 515:
            assert tree.get_root(seq + 1) == tiling.root()


@given(st.lists(st.integers(0, 700), max_size=8))
def test_it_does_not_matter_in_which_steps_it_grew(steps):
    """The same root, the same edge and the same tiles as in one step; empty steps change nothing."""
    tiling, tiles = grown(steps)
    whole, at_once = grown([sum(steps)])
    assert (whole.size, whole.root(), at_once) == (tiling.size, tiling.root(), tiles)


def test_growing_leaves_the_old_tree_as_it_was():
    """A commit may fail: then the tree before it must still be there."""
    tiling, _ = grown([300])
    root = tiling.root()
    tiling.grown(LEAVES[300:1000])
    assert (300, root) == (tiling.size, tiling.root())


@pytest.mark.parametrize("size", [*EDGES, *HIGH])
def test_exactly_the_full_tiles_are_stored(size):
    """256 hashes each; those of level 0 are the leaves in order, those of level 1 the roots of tiles below."""
    _, tiles = grown([size])
    expected = {(tile_space(0), tile_key(index)) for index in range(size // 256)}
    expected |= {(tile_space(1), tile_key(index)) for index in range(size // 65_536)}
    assert expected == set(tiles)
    for index in range(size // 256):
        assert b"".join(LEAVES[index * 256 : index * 256 + 256]) == tiles[tile_space(0), tile_key(index)]
    for index in range(size // 65_536):
        roots = [mth(LEAVES[at * 256 : at * 256 + 256]) for at in range(index * 256, index * 256 + 256)]
        assert b"".join(roots) == tiles[tile_space(1), tile_key(index)]


def test_three_levels_of_tiles():
    """A tile of level 2 stands for 16 million entries: made here from an edge that lacks one leaf of it."""
    last = [LEAVES[at] for at in range(255)]
    edge = [last, [bytes([1]) * 32] * 255, [bytes([2]) * 32] * 255]
    before = Tiling(256**3 - 1, edge)
    after, tiles = before.grown([LEAVES[255]])
    assert 256**3 == after.size
    assert [(tile_space(0), 256**2 - 1), (tile_space(1), 255), (tile_space(2), 0)] == [
        (space, int.from_bytes(key, "big")) for space, key, _ in tiles
    ]
    low = mth([*last, LEAVES[255]])
    assert mth([*[bytes([2]) * 32] * 255, mth([*[bytes([1]) * 32] * 255, low])]) == after.root()


# -- starting again --------------------------------------------------------------------------------------


def test_a_restart_finds_the_same_tree_at_every_size():
    """From the tiles and the entries after them, for each length there is; and it goes on as if nothing had been."""
    store, tiling, leaves = MemoryStore(), Tiling(), []
    for seq in range(600):
        again = open_tiling(store)
        assert (tiling.size, tiling.root()) == (again.size, again.root())
        leaves.append(leaf_hash(entry(seq)))
        tiling, tiles = again.grown(leaves[-1:])
        store.commit([(seq, entry(seq))], tiles)
    assert mth(leaves) == tiling.root()


@pytest.mark.parametrize("size", HIGH)
def test_a_restart_of_a_high_tree_reads_only_its_edge(size):
    """A handful of tiles and less than a tile of entries, however long the chain is."""
    _, tiles = grown([size - size % 256])

    class Chain(MemoryStore):
        gets = 0

        def next_seq(self):
            return size

        def get(self, space, key):
            self.gets += 1
            return tiles.get((space, key))

        def entries(self, first=0, last=None):
            assert size - size % 256 == first
            yield from ((seq, entry(seq)) for seq in range(first, size))

    store = Chain()
    leaves = [*LEAVES[: size - size % 256], *(leaf_hash(entry(seq)) for seq in range(size - size % 256, size))]
    assert mth(leaves) == open_tiling(store).root()
    assert store.gets <= 1 + 255 + 255


@pytest.mark.parametrize("size", [1, 255, 256, 257, 700, 16_384 + 10, 20_000])
def test_missing_tiles_are_made_again(size):
    """Of a ledger that was written before it had tiles, or that lost all of them: stored as if they had always been."""
    bare, _ = stored(size, fill=False)
    whole, tiling = stored(size)
    again = open_tiling(bare)
    assert (tiling.size, tiling.root()) == (again.size, again.root())
    for space in {tile_space(0), tile_space(1)}:
        assert dict(whole.scan(space)) == dict(bare.scan(space))


def test_tiles_that_were_made_in_part_are_made_again():
    """A crash while they were made anew leaves the first ones; the next start makes all."""
    store, tiling = stored(2000)
    for index in range(3, 7):
        del store._spaces[tile_space(0)][tile_key(index)]
    assert tiling.root() == open_tiling(store).root()
    assert len(list(store.scan(tile_space(0)))) == 7


@pytest.mark.parametrize("index", range(7))
def test_a_single_tile_that_is_missing_is_never_passed_over(index):
    """The last one is made again with all others; without another the start is refused, and says which it is."""
    store, tiling = stored(2000)
    del store._spaces[tile_space(0)][tile_key(index)]
    if index == 6:
        assert tiling.root() == open_tiling(store).root()
    else:
        with pytest.raises(LedgerCorrupt, match=f"tile {index} of level 0"):
            open_tiling(store)


@pytest.mark.parametrize("value", [b"", b"x" * 32, b"x" * (256 * 32 - 1), b"x" * (256 * 32 + 1), b"x" * (257 * 32)])
def test_a_tile_of_another_size_is_corrupt(value):
    store, _ = stored(600)
    store._spaces[tile_space(0)][tile_key(0)] = value
    with pytest.raises(LedgerCorrupt, match="tile 0 of level 0"):
        open_tiling(store)
    with pytest.raises(LedgerCorrupt, match="tile 0 of level 0"):
        TileReader(store, 600).node(8, 0)


def test_what_was_pruned_is_still_covered():
    """Whole tiles of entries leave; the next start finds the same root from the tiles."""
    store, tiling = stored(2000)
    store.prune(1792)
    assert tiling.root() == open_tiling(store).root()


def test_what_is_needed_for_the_edge_must_be_there():
    """Entries of the open tile that are gone, or tiles that are gone with their entries, are corruption and say so."""
    store, _ = stored(2000)
    store.prune(1800)
    with pytest.raises(LedgerCorrupt, match="entries are missing") as refused:
        open_tiling(store)
    assert refused.value.hint == "restore the ledger from a backup"
    store, _ = stored(2000)
    store.prune(512)
    store._spaces[tile_space(0)].clear()
    with pytest.raises(LedgerCorrupt, match="lost the tiles"):
        open_tiling(store)


# -- reading nodes -----------------------------------------------------------------------------------------


def test_every_node_is_that_of_the_plain_tree():
    """For every perfect subtree there is, of trees of every kind of size."""
    store, _ = stored(1000)
    leaves = [leaf_hash(entry(seq)) for seq in range(1000)]
    for size in (1, 2, 255, 256, 257, 511, 512, 513, 700, 1000):
        reader = TileReader(store, size)
        for height in range(size.bit_length()):
            for index in range(size >> height):
                first = index << height
                assert mth(leaves[first : first + (1 << height)]) == reader.node(height, index), (size, height, index)


def test_nodes_of_a_high_tree():
    """Across the first full tile of level 1, where only the tiles are stored."""
    _, tiles = grown([66_000])
    store = MemoryStore()
    store.commit([], [Write(space, key, value) for (space, key), value in tiles.items()])
    store.entries = lambda *_: iter(())
    chance, size = random.Random(4), 66_000 - 66_000 % 256
    reader = TileReader(store, size)
    for height in range(17):
        for index in {0, (size >> height) - 1, *(chance.randrange(size >> height) for _ in range(5))}:
            first = index << height
            assert mth(LEAVES[first : first + (1 << height)]) == reader.node(height, index), (height, index)


def test_proofs_of_what_is_left_survive_pruning():
    """An entry that stayed is proved against the root of a time when all were there; memory stays bounded."""
    store, tiling = stored(2000)
    store.prune(1024)
    reader = TileReader(store, 2000)
    for seq in range(1024, 2000, 7):
        proof = inclusion_proof(reader.node, seq, 2000)
        assert tiling.root() == root_from_inclusion(leaf_hash(entry(seq)), seq, 2000, proof)


def test_a_tile_that_a_proof_needs_and_that_is_gone_is_named():
    store, _ = stored(700)
    store.prune(512)
    del store._spaces[tile_space(0)][tile_key(1)]
    with pytest.raises(LedgerCorrupt, match="tile 1 of level 0"):
        TileReader(store, 700).node(9, 0)


# -- in a ledger ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [[256], [255, 1], [1, 255, 1], [600], [100] * 6, [257, 255]])
def test_a_ledgers_tiles_are_in_the_commit_of_their_entries(tmp_path, batches):
    """After each commit a process that opens the same file finds the tree; closing has nothing to do with it."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(SqliteStore(path), FakeClock())
    for count in batches:
        ledger.append_all([Append(Noted(number)) for number in range(count)])
        assert ledger.next_seq // 256 == len(list(ledger.store.scan(tile_space(0))))
        assert open_tiling(ledger.store).root() == mth([leaf_hash(data) for _, data in ledger.store.entries()])
    ledger.close()


@pytest.mark.parametrize("durable", [True, False])
def test_after_a_failed_commit_the_tree_is_what_is_durable(durable):
    """Whether or not the tile that would have been filled is there, recovery goes on with a tree that fits."""
    store = MemoryStore()
    ledger = Ledger(store)
    ledger.append_all([Append(Noted(number)) for number in range(250)])
    real = store.commit

    def commit(entries, writes=()):
        if durable:
            real(entries, writes)
        raise OSError("gone")

    store.commit = commit
    with pytest.raises(OSError, match="gone"):
        ledger.append_all([Append(Noted(number)) for number in range(10)])
    store.commit = real
    ledger.recover()
    ledger.append_all([Append(Noted(number)) for number in range(10)])
    assert (270 if durable else 260) == store.next_seq()
    assert mth([leaf_hash(data) for _, data in store.entries()]) == ledger._tiling.root() == open_tiling(store).root()
