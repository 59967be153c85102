"""Verifying a ledger where it lies."""

from __future__ import annotations

import pytest

from kiki.errors import EvidenceInvalid
from kiki.ledger.bundle_verifier import verify_entries
from kiki.ledger.checkpoint import WITNESS_KEY, VerifierKey, add_signature, cosign, split_note
from tests.ledger.evidence import AT, KEY, OTHER_SEED, WITNESS_SEED, Chain, entry, leaf

CHAIN = Chain("one", 9)
NOTES = [CHAIN.note(size) for size in (2, 3, 7)]
WITNESS = VerifierKey.of_seed("witness.example/w1", WITNESS_SEED, WITNESS_KEY)


def verified(entries=None, notes=None, first=0, **more):
    pairs = list(enumerate(CHAIN.entries))[first:] if entries is None else entries
    return verify_entries("one", pairs, NOTES if notes is None else notes, KEY, first, CHAIN.peaks(first), **more)


def place(*args, **more) -> str:
    with pytest.raises(EvidenceInvalid) as caught:
        verified(*args, **more)
    return caught.value.place


def test_a_ledger_that_holds_tells_what_is_covered():
    seen, progress = [], []
    result = verified(on_entry=lambda *one: seen.append(one), progress=progress.append)
    assert [("one", seq, data) for seq, data in enumerate(CHAIN.entries)] == seen
    assert ("one", 0, 7, 6, CHAIN.root(7), AT + 7) == (
        result.chain,
        result.first,
        result.size,
        result.last,
        result.root,
        result.at,
    )
    assert (9, 3, 2) == (result.entries, result.checkpoints, result.unsigned)
    assert [9] == progress


def test_progress_comes_now_and_then():
    progress = []
    verify_entries("one", ((seq, entry(seq)) for seq in range(9000)), [], KEY, progress=progress.append)
    assert [4096, 8192, 9000] == progress


def test_a_pruned_ledger_goes_on_from_its_peaks():
    """Checkpoints before the first entry cannot be compared, and are still no reason to refuse."""
    result = verified(first=3)
    assert (3, 7, 2, 6) == (result.first, result.size, result.checkpoints, result.entries)


def test_peaks_that_are_not_those_of_the_start_are_noticed():
    with pytest.raises(EvidenceInvalid) as caught:
        verify_entries("one", list(enumerate(CHAIN.entries))[4:], NOTES, KEY, 4, [bytes(32)])
    assert "chain one, entries 4 to 6, or before entry 4" == caught.value.place
    with pytest.raises(EvidenceInvalid, match="do not fit"):
        verify_entries("one", [], [], KEY, 4, [])
    with pytest.raises(EvidenceInvalid, match="do not fit"):
        verify_entries("one", [], [], KEY, 4, [bytes(31)])


def test_a_ledger_without_checkpoints_is_in_order_and_unsigned():
    result = verified(notes=[])
    assert (0, 9, None, b"") == (result.size, result.unsigned, result.at, result.root)


def test_an_empty_ledger_holds():
    result = verified(entries=[], notes=[])
    assert (0, -1, 0) == (result.entries, result.last, result.unsigned)


@pytest.mark.parametrize("seq", range(7))
def test_an_altered_entry_is_named(seq):
    entries = list(enumerate(CHAIN.entries))
    entries[seq] = (seq, entry(seq, "forged"))
    assert f"chain one, entry {seq}" == place(entries, leaf_of=lambda seq: leaf(CHAIN.entries[seq]))
    low, high = next((low, high) for low, high in [(0, 1), (2, 2), (3, 6)] if low <= seq <= high)
    assert f"chain one, entries {low} to {high}" == place(entries)
    assert f"chain one, entries {low} to {high}" == place(entries, leaf_of=lambda _: None)


@pytest.mark.parametrize("seq", range(9))
def test_a_missing_entry_is_named(seq):
    pairs = list(enumerate(CHAIN.entries))
    if seq < 8:
        assert f"chain one, entry {seq}" == place(pairs[:seq] + pairs[seq + 1 :])
    if seq < 7:
        assert f"chain one, entry {seq}" == place(pairs[:seq])


@pytest.mark.parametrize("seq", range(8))
def test_entries_that_changed_places_are_named(seq):
    pairs = list(enumerate(CHAIN.entries))
    pairs[seq], pairs[seq + 1] = (seq, pairs[seq + 1][1]), (seq + 1, pairs[seq][1])
    assert f"chain one, entry {seq}" == place(pairs)


def test_a_doubled_entry_is_named():
    pairs = list(enumerate(CHAIN.entries))
    assert "chain one, entry 4" == place([*pairs[:4], pairs[3], *pairs[4:]])


def test_bytes_that_are_no_entry_are_named():
    assert "chain one, entry 1" == place([(0, CHAIN.entries[0]), (1, b"\x02?")])


def test_checkpoints_over_the_same_tree_may_repeat():
    assert 4 == verified(notes=[*NOTES, CHAIN.note(7)]).checkpoints


def test_two_histories_signed_for_one_size_are_named():
    fork = CHAIN.note(7, root=bytes(32))
    assert "chain one, checkpoint over 7 entries" == place(notes=[*NOTES, fork])


def test_checkpoints_out_of_order_are_refused():
    assert "chain one, entry 7" == place(notes=NOTES[::-1])


@pytest.mark.parametrize("index", range(3))
def test_a_checkpoint_by_another_key_is_named(index):
    notes = list(NOTES)
    notes[index] = Chain("one", 9, OTHER_SEED).note((2, 3, 7)[index])
    assert f"chain one, checkpoint {index}" == place(notes=notes)


def test_pruned_checkpoints_must_be_signed_as_well():
    assert "chain one, checkpoint 0" == place(notes=[Chain("one", 9, OTHER_SEED).note(2)], first=3)


def test_the_last_word_of_each_witness_is_told():
    def seen(note, at):
        return add_signature(note, cosign(split_note(note)[0], WITNESS.name, WITNESS_SEED, at))

    notes = [seen(NOTES[0], 10), seen(NOTES[1], 20), NOTES[2]]
    result = verified(notes=notes, witnesses=[WITNESS.text])
    assert [(WITNESS.name, 3, 20)] == [tuple(cosigner) for cosigner in result.cosigners]
    assert (WITNESS.name,) == verified(notes=notes).unknown


def test_the_other_chains_that_checkpoints_name_are_told():
    notes = [CHAIN.note(2, {"x": 5}), CHAIN.note(3, {"x": 4, "y": 1})]
    assert {"x": 5, "y": 1} == verified(notes=notes).others
