"""Writing a bundle: one encoding for one content, and no bundle over a ledger that does not hold."""

from __future__ import annotations

import base64
import io
import tracemalloc

import pytest

from kiki.clock import to_iso
from kiki.errors import CheckpointInvalid, InvalidInput, LedgerCorrupt, ProofInvalid
from kiki.ledger.bundle import BODY_BYTES, BundleChain, write_bundle
from kiki.ledger.bundle_verifier import verify_bundle
from kiki.ledger.merkle import Tree
from tests.ledger.evidence import (
    AT,
    KEY,
    OTHER_SEED,
    SEALER,
    Chain,
    bundle,
    entry,
    leaf,
    put_together,
    seal_text,
    taken_apart,
)

ONE, TWO = Chain("one", 5), Chain("two", 3)


def test_a_bundle_is_as_its_format_says():
    stretch = ONE.stretch(3, checkpoints=[3, 4])
    data = bundle(stretch, TWO.stretch())
    peaks = "".join(f"{line}\n" for line in ["one", "3", "5", *map(encoded, ONE.peaks(3))])
    expected = [
        (b"K", KEY.encode()),
        (b"C", peaks.encode()),
        (b"P", ONE.note(3)),
        (b"E", ONE.entries[3]),
        (b"P", ONE.note(4)),
        (b"E", ONE.entries[4]),
        (b"P", ONE.note(5)),
        (b"C", b"two\n0\n3\n"),
        *((b"E", body) for body in TWO.entries),
        (b"P", TWO.note(3)),
    ]
    chains = [f"chain one 3 5 {encoded(ONE.root(5))}", f"chain two 0 3 {encoded(TWO.root(3))}"]
    text = seal_text(put_together(expected), chains)
    assert put_together([*expected, (b"S", SEALER.sign_text(text))]) == data


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_writing_twice_gives_the_same_bytes():
    assert bundle(ONE.stretch(2), TWO.stretch()) == bundle(ONE.stretch(2), TWO.stretch())


def test_checkpoints_outside_of_the_stretch_are_left_out():
    stretch = ONE.stretch(2, checkpoints=[1, 3, 5])
    notes = [body for kind, body in taken_apart(bundle(stretch)) if kind == b"P"]
    assert [ONE.note(3), ONE.note(5)] == notes


def test_entries_after_the_checkpoint_are_not_read():
    longer = Chain("one", 7)
    longer.entries[:5] = ONE.entries
    stretch = ONE.stretch()
    assert bundle(stretch) == bundle(stretch._replace(entries=enumerate(longer.entries)))


@pytest.mark.parametrize(
    "stretches",
    [
        [],
        [TWO.stretch(), ONE.stretch()],
        [ONE.stretch(), ONE.stretch()],
        [ONE.stretch()._replace(id="")],
        [ONE.stretch()._replace(id="o\nne")],
        [ONE.stretch()._replace(id="é")],
        [ONE.stretch()._replace(id="x" * 65)],
        [ONE.stretch()._replace(first=6)],
        [ONE.stretch()._replace(first=-1)],
        [ONE.stretch(checkpoints=[3, 2])],
        [ONE.stretch(checkpoints=[3, 3])],
    ],
)
def test_what_would_be_ambiguous_is_refused(stretches):
    with pytest.raises(InvalidInput):
        bundle(*stretches)


def test_every_checkpoint_must_be_signed_with_the_key_of_the_seal():
    foreign = Chain("one", 5, OTHER_SEED)
    with pytest.raises(CheckpointInvalid):
        bundle(foreign.stretch())
    with pytest.raises(CheckpointInvalid):
        bundle(ONE.stretch()._replace(checkpoints=[foreign.note(2)]))


def test_the_checkpoint_of_another_chain_is_refused():
    with pytest.raises((CheckpointInvalid, InvalidInput)):
        bundle(ONE.stretch()._replace(note=TWO.note(3)))


@pytest.mark.parametrize(
    "entries",
    [
        ONE.entries[:4],
        [*ONE.entries[:2], *ONE.entries[3:]],
        [ONE.entries[1], ONE.entries[0], *ONE.entries[2:]],
        [ONE.entries[0], *ONE.entries],
        [*ONE.entries[:4], entry(4, "forged")],
        [*ONE.entries[:4], b"\x02junk"],
        [*ONE.entries[:4], entry(5)],
    ],
)
def test_no_bundle_is_made_of_a_ledger_that_does_not_hold(entries):
    with pytest.raises(LedgerCorrupt):
        bundle(ONE.stretch()._replace(entries=enumerate(entries)))


def test_a_gap_in_the_sequence_is_refused_even_when_the_bytes_are_right():
    with pytest.raises(LedgerCorrupt, match="entry 2"):
        bundle(ONE.stretch()._replace(entries=[(seq + (seq >= 2), body) for seq, body in enumerate(ONE.entries)]))


def test_peaks_that_are_not_those_of_the_start_are_refused():
    with pytest.raises(LedgerCorrupt, match="before the bundle"):
        bundle(ONE.stretch(4)._replace(peaks=[bytes(32)]))
    with pytest.raises(ProofInvalid):
        bundle(ONE.stretch(4)._replace(peaks=[]))


def test_an_earlier_checkpoint_must_fit_the_tree():
    with pytest.raises(LedgerCorrupt, match="3 entries"):
        bundle(ONE.stretch()._replace(checkpoints=[ONE.note(3, root=bytes(32))]))


def test_a_record_has_a_limit():
    huge = Chain("one", 0)
    huge.entries = [entry(0, "x" * BODY_BYTES)]
    with pytest.raises(InvalidInput, match="at most"):
        bundle(huge.stretch())


class Dribble(io.RawIOBase):
    """A file that takes a few bytes at a time, as an unbuffered one may."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.data += bytes(data[:7])
        return min(len(data), 7)


def test_a_file_that_takes_only_a_part_gets_the_rest_as_well():
    out = Dribble()
    write_bundle(out, [ONE.stretch()], SEALER, at=AT)
    assert bundle(ONE.stretch()) == out.data


class Full(io.BytesIO):
    """A disk that is full after some bytes."""

    def write(self, data) -> int:
        if self.tell() + len(data) > 1500:
            raise OSError(28, "No space left on device")
        return super().write(data)


def test_a_full_disk_is_told():
    with pytest.raises(OSError, match="No space"):
        write_bundle(Full(), [Chain("one", 3000).stretch()], SEALER, at=AT)


def streamed(count: int, path) -> int:
    """Write and verify a bundle of so many entries; the most memory that took."""
    tree = Tree()
    for seq in range(count):
        tree.append(leaf(entry(seq)))
    chain = Chain("one", 0)
    note = chain.note(count, root=tree.root())
    stretch = BundleChain("one", 0, [], ((seq, entry(seq)) for seq in range(count)), note)
    tracemalloc.start()
    try:
        with path.open("w+b", buffering=0) as file:
            write_bundle(file, [stretch], SEALER, at=AT)
            file.seek(0)
            assert count == verify_bundle(file, KEY).entries
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_entries(tmp_path):
    few, many = streamed(12_000, tmp_path / "few"), streamed(48_000, tmp_path / "many")
    assert many < few + 200_000


def test_the_seal_tells_its_moment():
    seal = taken_apart(bundle(ONE.stretch()))[-1][1].decode()
    assert f"time {to_iso(AT)}" == seal.split("\n")[1]
