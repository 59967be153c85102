"""The Merkle tree: RFC 6962's roots and proofs, whoever computes them, and nothing else passes for a proof."""

from __future__ import annotations

import base64
import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from kiki.errors import ProofInvalid
from kiki.ledger.entry import leaf_hash
from kiki.ledger.merkle import (
    EMPTY_ROOT,
    Tree,
    consistency_proof,
    inclusion_proof,
    node_hash,
    peaks_of,
    perfect_root,
    root_from_inclusion,
    verify_consistency,
)
from tests.ledger import golden_notes as golden

LEAVES = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
LEAVES.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""The roots of the first 0 to 8 of those leaves, as Certificate Transparency's own tests have them."""

MOST = 70
HASHES = [leaf_hash(number.to_bytes(2, "big")) for number in range(MOST)]
SIZES = st.integers(1, MOST)


def mth(hashes: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return hashlib.sha256(b"\x01" + mth(hashes[:split]) + mth(hashes[split:])).digest()


def node(height: int, index: int) -> bytes:
    leaves = HASHES[index << height : (index + 1) << height]
    assert len(leaves) == 1 << height, "only perfect subtrees are asked for"
    return mth(leaves)


def grown(size: int) -> Tree:
    tree = Tree()
    tree.extend(HASHES[:size])
    return tree


def decoded(lines: str) -> list[bytes]:
    return [base64.b64decode(line) for line in lines.split()]


@pytest.mark.parametrize("size", range(9))
def test_the_roots_are_those_of_certificate_transparency(size):
    tree = Tree()
    for data in LEAVES[:size]:
        tree.append(leaf_hash(data))
    assert ROOTS[size] == tree.root().hex()


def test_a_tree_without_leaves_has_the_hash_of_nothing():
    assert ROOTS[0] == EMPTY_ROOT.hex() == Tree().root().hex()


@given(st.lists(st.integers(0, 30), max_size=6))
def test_it_does_not_matter_in_which_portions_leaves_come(portions):
    whole, one_by_one = Tree(), Tree()
    at = 0
    for portion in portions:
        leaves = [leaf_hash(number.to_bytes(2, "big")) for number in range(at, at + portion)]
        whole.extend(leaves)
        for leaf in leaves:
            one_by_one.append(leaf)
        at += portion
    assert (at, mth([leaf_hash(number.to_bytes(2, "big")) for number in range(at)])) == (whole.size, whole.root())
    assert (whole.size, whole.peaks) == (one_by_one.size, one_by_one.peaks)


@given(st.integers(0, MOST), st.integers(0, MOST))
def test_a_tree_goes_on_from_its_peaks(middle, end):
    middle, end = sorted((middle, end))
    tree = Tree(middle, peaks_of(node, middle))
    twin = tree.copy()
    tree.extend(HASHES[middle:end])
    assert mth(HASHES[:end]) == tree.root()
    assert mth(HASHES[:middle]) == twin.root(), "a copy grows on its own"


@pytest.mark.parametrize("peaks", [[], [bytes(32)], [bytes(32)] * 3, [bytes(31), bytes(33)]])
def test_peaks_that_do_not_fit_the_size_are_refused(peaks):
    with pytest.raises(ProofInvalid):
        Tree(5, peaks)


@pytest.mark.parametrize("height", range(5))
def test_a_perfect_root_is_the_root(height):
    assert mth(HASHES[: 1 << height]) == perfect_root(HASHES[: 1 << height])


@pytest.mark.parametrize("count", [0, 3, 6])
def test_only_a_power_of_two_is_perfect(count):
    with pytest.raises(ValueError, match=f"not {count}"):
        perfect_root(HASHES[:count])


def test_every_proof_is_the_one_that_pymerkle_gives():
    oracle = InmemoryTree(algorithm="sha256")
    for number in range(MOST):
        oracle.append_entry(number.to_bytes(2, "big"))
    for size in (1, 2, 3, 6, 7, 8, 21, 64, 65, MOST):
        assert oracle.get_root(size) == grown(size).root()
        for index in range(size):
            expected = oracle.prove_inclusion(index + 1, size).path[1:]
            assert expected == inclusion_proof(node, index, size)
        for old in range(1, size):  # its consistency proofs have a layout of their own, its roots have not
            verify_consistency(
                old, oracle.get_root(old), size, oracle.get_root(size), consistency_proof(node, old, size)
            )


def subproof(old: int, hashes: list[bytes], known: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2, word for word."""
    if old == len(hashes):
        return [] if known else [mth(hashes)]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    if old <= split:
        return [*subproof(old, hashes[:split], known), mth(hashes[split:])]
    return [*subproof(old - split, hashes[split:], known=False), mth(hashes[:split])]


@given(SIZES, st.data())
def test_a_consistency_proof_is_the_one_of_the_rfc(new, data):
    old = data.draw(st.integers(1, new))
    assert subproof(old, HASHES[:new]) == consistency_proof(node, old, new)


def test_rfc_6962_shows_these_proofs():
    """Section 2.1.3: the tree of seven leaves d0 to d6 with its inner nodes."""
    a, b, c, d, e, f, j = HASHES[:7]
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, el = node_hash(g, h), node_hash(i, j)
    assert [b, h, el] == inclusion_proof(node, 0, 7)
    assert [c, g, el] == inclusion_proof(node, 3, 7)
    assert [f, j, k] == inclusion_proof(node, 4, 7)
    assert [i, k] == inclusion_proof(node, 6, 7)
    assert [c, d, g, el] == consistency_proof(node, 3, 7)
    assert [el] == consistency_proof(node, 4, 7)
    assert [i, j, k] == consistency_proof(node, 6, 7)


def test_the_proofs_of_a_real_log_of_55_million_entries_hold():
    leaf = leaf_hash(golden.GO_RECORD.encode())
    size, root = int(golden.GO_NOTE.split("\n")[1]), base64.b64decode(golden.GO_NOTE.split("\n")[2])
    later_size, later = (
        int(golden.GO_LATER_NOTE.split("\n")[1]),
        base64.b64decode(golden.GO_LATER_NOTE.split("\n")[2]),
    )
    proof = decoded(golden.GO_INCLUSION)
    assert root == root_from_inclusion(leaf, golden.GO_RECORD_NUMBER, size, proof)
    verify_consistency(size, root, later_size, later, decoded(golden.GO_CONSISTENCY))


@given(SIZES, st.data())
def test_an_inclusion_proof_proves_one_leaf_in_one_place_of_one_tree(size, data):
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(node, index, size)
    assert mth(HASHES[:size]) == root_from_inclusion(HASHES[index], index, size, proof)

    def found(leaf, index, size, proof):
        try:
            return root_from_inclusion(leaf, index, size, proof) == mth(HASHES[:size])
        except ProofInvalid:
            return False

    assert not found(bytes(32), index, size, proof)
    other = data.draw(st.integers(0, size - 1).filter(lambda other: other != index)) if size > 1 else 1
    assert not found(HASHES[index], other, size, proof)
    assert not found(HASHES[index], index, size, [*proof, bytes(32)])
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        bit = data.draw(st.integers(0, 255))
        flipped = (int.from_bytes(proof[at], "big") ^ 1 << bit).to_bytes(32, "big")
        assert not found(HASHES[index], index, size, [*proof[:at], flipped, *proof[at + 1 :]])
        assert not found(HASHES[index], index, size, proof[:at] + proof[at + 1 :])


@given(SIZES, st.data())
def test_a_consistency_proof_proves_one_growth(new, data):
    old = data.draw(st.integers(0, new))
    proof = consistency_proof(node, old, new)
    old_root, new_root = mth(HASHES[:old]), mth(HASHES[:new])
    verify_consistency(old, old_root, new, new_root, proof)

    def refused(old, old_root, new, new_root, proof):
        with pytest.raises(ProofInvalid):
            verify_consistency(old, old_root, new, new_root, proof)

    refused(old, bytes(32), new, new_root, proof)
    if old:
        refused(old, old_root, new, bytes(32), proof)
    refused(old, old_root, new, new_root, [*proof, bytes(32)])
    for at, one in enumerate(proof):
        refused(old, old_root, new, new_root, [*proof[:at], bytes(32), *proof[at + 1 :]])
        refused(old, old_root, new, new_root, proof[:at] + proof[at + 1 :])
        refused(old, old_root, new, new_root, [*proof[:at], one[:31], *proof[at + 1 :]])


@given(st.integers(-2, 80), st.integers(-2, 80), st.lists(st.binary(min_size=32, max_size=32), max_size=8))
def test_garbage_is_no_proof_and_does_no_harm(index, size, proof):
    with contextlib.suppress(ProofInvalid):
        assert proof == [] or grown(min(size, MOST)).root() != root_from_inclusion(HASHES[0], index, size, proof)
    if index != size:
        with pytest.raises(ProofInvalid):
            verify_consistency(index, bytes(32), size, bytes(range(32)), proof)


def test_hashes_cannot_be_shifted_against_each_other():
    """31 and 33 bytes hash like two times 32."""
    one, two = inclusion_proof(node, 0, 4)
    leaf = HASHES[0]
    assert mth(HASHES[:4]) == root_from_inclusion(leaf, 0, 4, [one, two])
    with pytest.raises(ProofInvalid, match="32 bytes"):
        root_from_inclusion(leaf + one[:1], 0, 4, [one[1:], two])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3), (4, 3)])
def test_a_leaf_outside_of_the_tree_has_no_proof(index, size):
    with pytest.raises(ProofInvalid, match=f"no leaf {index}"):
        inclusion_proof(node, index, size)
    with pytest.raises(ProofInvalid, match=f"no leaf {index}"):
        root_from_inclusion(HASHES[0], index, size, [])


@pytest.mark.parametrize(("old", "new"), [(4, 3), (-1, 3)])
def test_a_tree_does_not_shrink(old, new):
    with pytest.raises(ProofInvalid, match="cannot have grown"):
        consistency_proof(node, old, new)
    with pytest.raises(ProofInvalid, match="cannot have grown"):
        verify_consistency(old, bytes(32), new, bytes(32), [])


def test_two_roots_for_one_size_are_a_fork():
    with pytest.raises(ProofInvalid, match="forked"):
        verify_consistency(3, bytes(32), 3, bytes(range(32)), [])
