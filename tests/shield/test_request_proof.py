"""The signed proof of a request: what it says holds, and nothing that was changed does."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import Conflict, EvidenceInvalid
from kiki.ledger.checkpoint import Signer
from kiki.shield.opening import open_decider
from kiki.shield.request_desk import RequestDesk
from kiki.shield.request_proof import FORMAT, verify_request_proof
from tests.ledger.doubles import FakeClock


@pytest.fixture(scope="module")
def made() -> tuple[str, str, bytes]:
    """A proof, the key that it is checked with, and the seed."""
    decider = open_decider(None, None, clock=FakeClock())
    desk = RequestDesk(decider)
    record = desk.create("c-1", "DELETION")
    with pytest.raises(Conflict, match="closed"):
        desk.proof(record.id)
    desk.verify_identity(record.id, method="operator", actor="anna")
    desk.run(record.id)
    proof, key = desk.proof(record.id), decider.ledger.signer.verifier_key
    seed = decider.subjects.signing_seed
    desk.close()
    decider.close()
    return proof, key, seed


def resigned(proof: str, seed: bytes, change) -> str:
    """The proof with another document, signed by whoever has the ledger's key."""
    head, line, *_ = proof.split("\n")
    document = json.loads(line)
    change(document)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    name = proof.rstrip().rsplit("— ", 1)[1].split()[0]
    return Signer(name, seed).sign_text(f"{head}\n{text}\n").decode()


def test_a_proof_holds_as_text_and_as_bytes(made):
    proof, key, _ = made
    assert "completed" == verify_request_proof(proof, key).state
    assert verify_request_proof(proof, key) == verify_request_proof(proof.encode(), key)
    assert proof.startswith(f"{FORMAT} DSR-")


@given(data=st.data())
def test_any_flipped_bit_is_noticed(made, data):
    proof, key, _ = made
    whole = bytearray(proof.encode())
    place = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[place // 8] ^= 1 << place % 8
    with pytest.raises(EvidenceInvalid):
        verify_request_proof(bytes(whole), key)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "",
        lambda proof: proof[:-1],
        lambda proof: proof + "\n",
        lambda proof: proof + proof,
        lambda proof: proof.replace('":', '": ', 1),
        lambda _: "x" * (5 << 20),
        lambda proof: proof + proof.rstrip("\n").rsplit("\n", 1)[1] + "\n",
    ],
    ids=["empty", "cut", "padded", "twice", "spaced", "long", "signed twice"],
)
def test_padding_and_pieces_are_refused(made, change):
    proof, key, _ = made
    with pytest.raises(EvidenceInvalid):
        verify_request_proof(change(proof), key)


def test_another_key_does_not_make_it_hold(made):
    proof, _, _ = made
    with pytest.raises(EvidenceInvalid) as caught:
        verify_request_proof(proof, Signer("kiki/0000000000000000", bytes(32)).verifier_key)
    assert "signature" == caught.value.place


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(request="DSR-1-00000000"),
        lambda document: document["checkpoints"].clear(),
        lambda document: document.update(checkpoints={}),
        lambda document: document["events"].update({next(iter(document["events"])): [10**6]}),
        lambda document: document["events"].update({"0" * 16: [1]}),
        lambda document: document.update(events=[]),
        lambda document: document.pop("systems") and document.pop("state"),
    ],
    ids=["id", "checkpoints", "none", "beyond", "chain", "list", "missing"],
)
def test_even_who_has_the_key_cannot_sign_what_no_checkpoint_covers(made, change):
    proof, key, seed = made
    with pytest.raises(EvidenceInvalid):
        verify_request_proof(resigned(proof, seed, change), key)
