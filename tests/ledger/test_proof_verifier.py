"""One document that proves one entry: made from the tree, checked without it."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import CheckpointInvalid, EvidenceInvalid, InvalidInput, LedgerCorrupt
from kiki.ledger.checkpoint import WITNESS_KEY, VerifierKey, add_signature, cosign, split_note
from kiki.ledger.proof import make_proof
from kiki.ledger.proof_verifier import verify_proof
from tests.ledger.evidence import AT, KEY, OTHER_SEED, WITNESS_SEED, Chain, entry

CHAIN = Chain("one", 13)
OWN_KEY = CHAIN.signer.verifier_key
SEQ = 6


def made(seq: int = SEQ, size: int = 13) -> str:
    return make_proof("one", CHAIN.entries[seq], CHAIN.note(size), CHAIN.node, OWN_KEY)


PROOF = made()


def place(document, key: str | None = KEY) -> str:
    text = document if isinstance(document, str | bytes) else json.dumps(document)
    with pytest.raises(EvidenceInvalid) as caught:
        verify_proof(text, key)
    return caught.value.place


def with_(**members) -> dict:
    return json.loads(PROOF) | members


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("size", range(1, 14))
def test_every_entry_of_every_tree_can_be_proved(size):
    for seq in range(size):
        proof = verify_proof(made(seq, size), KEY)
        assert ("one", seq, CHAIN.entries[seq]) == (proof.chain, proof.seq, proof.entry)
        assert (size, CHAIN.root(size), AT + size, OWN_KEY, True) == (
            proof.size,
            proof.root,
            proof.at,
            proof.key,
            proof.trusted,
        )


def test_without_a_key_from_elsewhere_nothing_is_trusted():
    assert not verify_proof(PROOF).trusted


def test_a_document_of_a_billion_entries_is_small():
    document = with_(hashes=[encoded(bytes(32))] * 64, entry=encoded(entry(1, "x" * 30_000)))
    assert len(json.dumps(document, indent=1)) < 50_000


def test_every_flipped_bit_that_changes_the_document_is_refused():
    document = PROOF.encode()
    for position in range(len(document)):
        for bit in range(8):
            flipped = bytearray(document)
            flipped[position] ^= 1 << bit
            if _means_the_same(bytes(flipped)):
                continue
            with pytest.raises(EvidenceInvalid):
                verify_proof(bytes(flipped), KEY)


def _means_the_same(text: bytes) -> bool:
    try:
        return msgspec.json.decode(text) == json.loads(PROOF)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def test_the_member_that_does_not_hold_is_named():
    hashes = json.loads(PROOF)["hashes"]
    assert "entry" == place(with_(entry="?"))
    assert "entry" == place(with_(entry=encoded(b"\x02?")))
    assert "seq" == place(with_(seq=7))
    assert "seq" == place(with_(seq=13, entry=encoded(entry(13))))
    assert "seq" == place(with_(seq=-1, entry=encoded(entry(-1))))
    assert "hashes" == place(with_(entry=encoded(entry(SEQ, "forged"))))
    assert "hashes" == place(with_(seq=7, entry=encoded(CHAIN.entries[7])))
    assert "hashes" == place(with_(hashes=[]))
    assert "hashes" == place(with_(hashes=hashes[1:]))
    assert "hashes" == place(with_(hashes=[*hashes, hashes[0]]))
    assert "hashes" == place(with_(hashes=[hashes[1], hashes[0], *hashes[2:]]))
    assert "hashes" == place(with_(hashes=[hashes[0][:-4], *hashes[1:]]))
    assert "hashes" == place(with_(hashes=["?", *hashes[1:]]))
    assert "checkpoint" == place(with_(checkpoint=CHAIN.note(13, root=bytes(32)).decode()[:-1]))
    assert "hashes" == place(with_(checkpoint=CHAIN.note(13, root=bytes(32)).decode()))
    assert "hashes" == place(with_(checkpoint=CHAIN.note(12).decode()))
    assert "seq" == place(with_(checkpoint=CHAIN.note(6).decode()))
    assert "checkpoint" == place(with_(chain="two"))
    assert "checkpoint" == place(with_(checkpoint=Chain("one", 13, OTHER_SEED).note(13).decode()))
    assert "key" == place(with_(key="?"))
    assert "key" == place(with_(key=Chain("one", 1, OTHER_SEED).signer.verifier_key))
    assert "verifier key" == place(PROOF, key="?")


@pytest.mark.parametrize(
    "document",
    ["", "{", "[]", b"\xff", "\ud800", {}, with_(format="kiki-inclusion-proof/2"), with_(more=1), with_(seq=6.5)],
)
def test_another_document_is_no_proof(document):
    assert "proof" == place(document)


def test_a_huge_document_is_not_even_read():
    assert "proof" == place(" " * (1 << 20) + PROOF)
    huge = Chain("one", 1)
    huge.entries[0] = entry(0, "x" * (1 << 20))
    with pytest.raises(InvalidInput, match="longer than"):
        make_proof("one", huge.entries[0], huge.note(1), huge.node, OWN_KEY)


def test_a_tree_of_one_entry_needs_no_hashes():
    document = json.loads(made(0, 1))
    assert [] == document["hashes"]
    assert "hashes" == place(document | {"hashes": [encoded(bytes(32))]})


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists) | st.dictionaries(st.text(), st.text()))
def test_garbage_is_refused_and_nothing_worse(garbage):
    assert "proof" == place(json.dumps(garbage))


def test_witnesses_are_verified_where_their_keys_are_given():
    witness = VerifierKey.of_seed("w1", WITNESS_SEED, WITNESS_KEY)
    note = CHAIN.note(13)
    note = add_signature(note, cosign(split_note(note)[0], "w1", WITNESS_SEED, 77))
    text = make_proof("one", CHAIN.entries[SEQ], note, CHAIN.node, OWN_KEY)
    assert [("w1", 13, 77)] == [tuple(one) for one in verify_proof(text, KEY, witnesses=[witness.text]).cosigners]


def test_no_proof_is_made_of_what_is_not_covered():
    with pytest.raises(InvalidInput, match="not covered"):
        make_proof("one", CHAIN.entries[6], CHAIN.note(6), CHAIN.node, OWN_KEY)
    with pytest.raises(CheckpointInvalid):
        make_proof("two", CHAIN.entries[6], CHAIN.note(7), CHAIN.node, OWN_KEY)
    with pytest.raises(CheckpointInvalid):
        make_proof("one", CHAIN.entries[6], Chain("one", 13, OTHER_SEED).note(13), CHAIN.node, OWN_KEY)


def test_no_proof_is_made_of_what_does_not_hold():
    with pytest.raises(LedgerCorrupt):
        make_proof("one", entry(6, "forged"), CHAIN.note(13), CHAIN.node, OWN_KEY)
    with pytest.raises(LedgerCorrupt):
        make_proof("one", CHAIN.entries[6], CHAIN.note(13), lambda *_: bytes(32), OWN_KEY)
