"""Verifying a bundle: nothing that differs by a bit holds, and the place is named."""

from __future__ import annotations

import io
import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.clock import to_iso
from kiki.errors import EvidenceInvalid
from kiki.ledger.bundle_verifier import verify_bundle
from kiki.ledger.checkpoint import WITNESS_KEY, Checkpoint, Signature, Signer, VerifierKey, add_signature, cosign
from tests.ledger.evidence import (
    AT,
    KEY,
    OTHER_SEED,
    SEALER,
    WITNESS_SEED,
    Chain,
    bundle,
    entry,
    put_together,
    seal_text,
    sealed,
    taken_apart,
)

ONE, TWO = Chain("one", 5), Chain("two", 3)
BUNDLE = bundle(ONE.stretch(1, checkpoints=[1, 3]), TWO.stretch())
RECORDS = taken_apart(BUNDLE)
WITNESS = VerifierKey.of_seed("witness.example/w1", WITNESS_SEED, WITNESS_KEY)
WITNESSED = cosign(ONE.note(5).decode().rpartition("\n\n")[0] + "\n", WITNESS.name, WITNESS_SEED, 1_790_000_123)


def verified(data: bytes, key: str | None = KEY, **more):
    return verify_bundle(io.BytesIO(data), key, **more)


def refusal(data: bytes, key: str | None = KEY, **more) -> EvidenceInvalid:
    with pytest.raises(EvidenceInvalid) as caught:
        verified(data, key, **more)
    assert str(caught.value).startswith(caught.value.place)
    return caught.value


def kinds(records) -> str:
    return b"".join(kind for kind, _ in records).decode()


def test_the_bundle_of_these_tests_holds_what_it_should():
    assert "KCPEEPEEPCEEEPS" == kinds(RECORDS)


def test_a_bundle_tells_what_it_proves():
    seen, progress = [], []
    result = verified(BUNDLE, on_entry=lambda *one: seen.append(one), progress=progress.append)
    one, two = result.chains
    assert [("one", seq, ONE.entries[seq]) for seq in range(1, 5)] + [
        ("two", seq, TWO.entries[seq]) for seq in range(3)
    ] == seen
    assert ("one", 1, 4, 5, ONE.root(5), AT + 5) == (one.chain, one.first, one.last, one.size, one.root, one.at)
    assert (4, 3, 0, (), ()) == (one.entries, one.checkpoints, one.unsigned, one.cosigners, one.unknown)
    assert ("two", 0, 2, TWO.root(3)) == (two.chain, two.first, two.last, two.root)
    assert (AT, KEY, True, {}, 7) == (result.at, result.key, result.trusted, result.absent, result.entries)
    assert len(BUNDLE) == progress[-1]


def test_without_a_key_from_elsewhere_it_is_whole_but_not_trusted():
    result = verified(BUNDLE, None)
    assert (False, KEY) == (result.trusted, result.key)


def test_a_bundle_may_be_read_from_a_pipe():
    class Pipe(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 10))

    assert verified(BUNDLE) == verify_bundle(Pipe(BUNDLE), KEY)


def test_every_flipped_bit_is_refused_and_the_entry_is_named():
    owners = []
    at = len(b"kiki-bundle/1\n")
    owners += [None] * at
    chain, seq = "", 0
    for kind, body in RECORDS:
        if kind == b"C":
            chain, seq = body.decode().split("\n")[0], int(body.decode().split("\n")[1])
        owners += [f"chain {chain}, entry {seq}, byte {len(owners)}" if kind == b"E" else None] * (13 + len(body))
        seq += kind == b"E"
    assert len(BUNDLE) == len(owners)
    for position, owner in enumerate(owners):
        for bit in range(8):
            flipped = bytearray(BUNDLE)
            flipped[position] ^= 1 << bit
            place = refusal(bytes(flipped)).place
            assert re.search(r"byte \d+$", place)
            assert owner in {None, place}, f"bit {bit} of byte {position}"


def test_every_truncation_is_refused_and_says_where_the_file_ends():
    for end in range(len(BUNDLE)):
        assert re.search(r"byte \d+$", refusal(BUNDLE[:end]).place)


@pytest.mark.parametrize("tail", [b"\n", b"\x00", b"S", BUNDLE, bytes(1 << 19)])
def test_nothing_may_follow_the_seal(tail):
    assert f"after the seal, byte {len(BUNDLE)}" == refusal(BUNDLE + tail).place


@pytest.mark.parametrize("reseal", [False, True], ids=["seal left", "sealed again"])
class TestEntriesThatMoved:
    """Re-framed properly, so that every record has its hash: once with the seal that was there, once with a new one."""

    ENTRIES = tuple(number for number, (kind, _) in enumerate(RECORDS) if kind == b"E")

    def place(self, records, reseal) -> str:
        return refusal(sealed(records[:-1]) if reseal else put_together(records)).place

    def of(self, number) -> str:
        chain, first = ("one", 1) if number < kinds(RECORDS).index("C", 2) else ("two", 0)
        head = kinds(RECORDS).index("C", 2 if chain == "two" else 0)
        return f"chain {chain}, entry {first + kinds(RECORDS[head:number]).count('E')},"

    def test_a_dropped_entry_is_named(self, reseal):
        for number in self.ENTRIES:
            place = self.place(RECORDS[:number] + RECORDS[number + 1 :], reseal)
            assert place.startswith((self.of(number), self.of(number).replace(", entry", ", checkpoint before entry")))

    def test_a_doubled_entry_is_named(self, reseal):
        for number in self.ENTRIES:
            place = self.place([*RECORDS[: number + 1], *RECORDS[number:]], reseal)
            chain, _, seq = self.of(number)[:-1].rpartition(" ")
            assert place.startswith(f"{chain} {int(seq) + 1},")

    def test_swapped_entries_are_named(self, reseal):
        for first in self.ENTRIES:
            for second in self.ENTRIES:
                if first < second:
                    records = list(RECORDS)
                    records[first], records[second] = records[second], records[first]
                    assert self.place(records, reseal).startswith((self.of(first), "chain one, entries"))

    def test_an_altered_entry_is_narrowed_down_by_the_checkpoints(self, reseal):
        for number in self.ENTRIES:
            records = list(RECORDS)
            seq = int(self.of(number)[:-1].rpartition(" ")[2])
            records[number] = (b"E", entry(seq, "forged"))
            found = re.fullmatch(r"chain (\w+), entries (\d+) to (\d+)", self.place(records, reseal))
            assert int(found[2]) <= seq <= int(found[3])
            assert found[1] in self.of(number)


def test_what_is_no_entry_is_refused_where_it_stands():
    number = kinds(RECORDS).index("E")
    records = [*RECORDS[:number], (b"E", b"\x02junk"), *RECORDS[number + 1 : -1]]
    assert refusal(sealed(records)).place.startswith("chain one, entry 1, byte")


CHAINS = kinds(RECORDS).index("C", 2)
HEAD, FIRST, SECOND = RECORDS[:1], RECORDS[1:CHAINS], RECORDS[CHAINS:-1]


@pytest.mark.parametrize(
    "records",
    [
        [*HEAD, *FIRST],
        [*HEAD, *SECOND],
        [*HEAD, *SECOND, *FIRST],
        [*HEAD, *FIRST, *FIRST, *SECOND],
        [*HEAD, *FIRST, *SECOND, *SECOND],
        HEAD,
    ],
    ids=["last dropped", "first dropped", "swapped", "first twice", "last twice", "none"],
)
def test_the_seal_is_over_these_chains_in_this_order(records):
    assert refusal(put_together([*records, RECORDS[-1]]))


@pytest.mark.parametrize(
    "records",
    [[*HEAD, *SECOND, *FIRST], [*HEAD, *FIRST, *FIRST], [*HEAD, *FIRST, *SECOND, *FIRST], HEAD],
    ids=["swapped", "twice", "again", "none"],
)
def test_not_even_the_key_makes_chains_out_of_order(records):
    assert refusal(sealed(records))


@pytest.mark.parametrize(
    "records",
    [
        [],
        FIRST,
        [*FIRST, *HEAD],
        [*HEAD, *HEAD, *FIRST],
        [*HEAD, *FIRST, *HEAD, *SECOND],
        [*HEAD, *FIRST[1:]],
        [*HEAD, *FIRST[:-1]],
        [*HEAD, *FIRST[:-1], *SECOND],
        [*HEAD, *FIRST, FIRST[-1]],
        [*HEAD, *FIRST, FIRST[2]],
        [*HEAD, FIRST[0], FIRST[1], *FIRST[1:]],
        [*HEAD, *FIRST[:-1], (b"E", entry(5)), FIRST[-1]],
        [*HEAD, *FIRST[:-2], FIRST[-1], FIRST[-2]],
        [*HEAD, FIRST[0], *FIRST[2:4], FIRST[1], *FIRST[4:]],
    ],
)
def test_records_have_one_order(records):
    assert refusal(sealed(records))


@pytest.mark.parametrize(
    "head",
    [
        b"one\n1\n5",
        b"one\n01\n5\n",
        b"one\n1\n5\n",
        b"one\n1\n5\nAAAA\n",
        b"one\n0\n5\n",
        b"one\n9\n5\n",
        b"one\n1\n5\n" + b"A" * 43 + b"=\n",
        b"one\n1\n5\n" + b"A" * 42 + b"B=\n",
        b"o/e\n0\n5\n",
        b"\n0\n5\n",
        b"one\n-1\n5\n",
        b"one\r\n0\r\n5\r\n",
        b"\xff\n0\n5\n",
        b"one\n2\n5\n" + RECORDS[1][1].split(b"\n")[3] + b"\n",
        b"one\n1\n4\n" + RECORDS[1][1].split(b"\n")[3] + b"\n",
        b"one\n1\n6\n" + RECORDS[1][1].split(b"\n")[3] + b"\n",
        b"two\n1\n5\n" + RECORDS[1][1].split(b"\n")[3] + b"\n",
    ],
)
def test_the_head_of_a_chain_is_exact_and_its_peaks_are_proved(head):
    assert refusal(sealed([*HEAD, (b"C", head), *FIRST[1:]]))


def test_altered_peaks_are_named():
    peaks = b"one\n1\n5\n" + b"A" * 43 + b"=\n"
    assert "chain one, before entry 1" == refusal(sealed([*HEAD, (b"C", peaks), *FIRST[1:]])).place
    later = [record for record in FIRST[1:] if record != (b"P", ONE.note(1))]
    assert "chain one, entries 1 to 2, or before entry 1" == refusal(sealed([*HEAD, (b"C", peaks), *later])).place


def test_a_checkpoint_of_another_history_is_named():
    """Signed with the right key: the log said two things."""
    fork = ONE.note(3, root=bytes(32))
    records = [(kind, fork if body == ONE.note(3) else body) for kind, body in RECORDS[:-1]]
    assert "chain one, entries 1 to 2" == refusal(sealed(records)).place
    last = ONE.note(5, root=bytes(32))
    records = [(kind, last if body == ONE.note(5) else body) for kind, body in RECORDS[:-1]]
    assert "chain one, entries 3 to 4" == refusal(sealed(records)).place


def test_the_checkpoint_of_another_chain_does_not_pass():
    """Same key, same root, same size: only the origin differs."""
    stranger = SEALER.sign(Checkpoint("kiki/two", 3, ONE.root(3)))
    records = [(kind, stranger if body == ONE.note(3) else body) for kind, body in RECORDS[:-1]]
    error = refusal(sealed(records))
    assert error.place.startswith("chain one, checkpoint before entry 3, byte")
    assert "kiki/two" in str(error)


def altered(note: bytes) -> list[tuple[bytes, bytes]]:
    return [(kind, note if body == ONE.note(5) else body) for kind, body in RECORDS[:-1]]


@pytest.mark.parametrize(
    "note",
    [
        b"",
        ONE.note(5)[:-1],
        ONE.note(5) + b"\n",
        b"\xff" + ONE.note(5),
        ONE.note(5).replace(b"\n5\n", b"\n05\n"),
        ONE.note(5).replace(b"\n5\n", b"\n4\n"),
        ONE.note(5).replace(b"\n\n", b"\n"),
        ONE.note(5).rpartition(b" ")[0] + b" AAAA\n",
        ONE.note(5).replace("— kiki/one".encode(), "— kiki/two".encode()),
        add_signature(ONE.note(5), Signature("kiki/one", ONE.signer.key.key_id, bytes(64))),
        Chain("one", 5, OTHER_SEED).note(5),
        Signer("kiki/ONE", bytes(32)).sign(Checkpoint("kiki/one", 5, ONE.root(5))),
        ONE.signer.sign(Checkpoint("kiki/one", 5, ONE.root(5), ("time yesterday",))),
        ONE.signer.sign(Checkpoint("kiki/one", 5, ONE.root(5), ("time 2026-09-21T14:13:20.00001Z",))),
    ],
)
def test_a_checkpoint_that_is_not_exact_or_not_signed_is_refused(note):
    assert "chain one, checkpoint before entry 5, byte" in refusal(sealed(altered(note))).place


def test_a_checkpoint_needs_no_time():
    note = ONE.signer.sign(Checkpoint("kiki/one", 5, ONE.root(5)))
    assert verified(sealed(altered(note))).chains[0].at is None


def test_witnesses_are_verified_where_their_keys_are_given():
    data = sealed(altered(add_signature(ONE.note(5), WITNESSED)))
    one = verified(data, witnesses=[WITNESS.text]).chains[0]
    assert [(WITNESS.name, 5, 1_790_000_123)] == [tuple(cosigner) for cosigner in one.cosigners]
    assert () == one.unknown
    assert ((), (WITNESS.name,)) == (verified(data).chains[0].cosigners, verified(data).chains[0].unknown)


@pytest.mark.parametrize(
    "data",
    [bytes(72), WITNESSED.data[:-1], WITNESSED.data[:3], WITNESSED.data + b"\x00", bytes(8) + WITNESSED.data[8:]],
)
def test_a_false_cosignature_of_a_known_witness_is_refused(data):
    note = add_signature(ONE.note(5), WITNESSED._replace(data=data))
    assert "does not belong" in str(refusal(sealed(altered(note)), witnesses=[WITNESS.text]))


def test_a_log_key_does_not_speak_for_a_witness():
    assert "witness" in str(refusal(BUNDLE, witnesses=[KEY]))
    assert "witness key" == refusal(BUNDLE, witnesses=["junk"]).place
    assert "a log" in str(refusal(BUNDLE, WITNESS.text))


def test_signed_again_with_another_key_it_is_not_trusted():
    forger = Signer("kiki/evidence", OTHER_SEED)
    forged = bundle(Chain("one", 5, OTHER_SEED).stretch(), signer=forger)
    error = refusal(forged)
    assert ("another key", "byte 14") == (re.search("another key", str(error))[0], error.place.rpartition(", ")[2])
    assert not verified(forged, None).trusted, "anybody can make a bundle with a key of their own"


def test_a_seal_by_another_key_than_that_of_the_checkpoints_is_refused():
    forger = Signer("kiki/evidence", OTHER_SEED)
    own_key = [(b"K", forger.verifier_key.encode()), *RECORDS[1:-1]]
    assert "chain one, checkpoint before entry 1" in refusal(sealed(own_key, forger), None).place
    assert refusal(sealed(RECORDS[:-1], forger), None).place.startswith("seal, byte")


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"\xff",
        KEY.encode() + b"\n",
        KEY.encode()[:-1],
        KEY.replace("kiki/evidence", "kiki/Evidence").encode(),
        VerifierKey.of_seed("kiki/evidence", bytes(32), WITNESS_KEY).text.encode(),
        KEY.encode()[:-1] + b"=",
    ],
)
def test_the_key_of_a_bundle_is_exact(key):
    assert refusal(sealed([(b"K", key), *RECORDS[1:-1]]), None)


def resealed(text: str, signer: Signer = SEALER) -> bytes:
    return put_together([*RECORDS[:-1], (b"S", signer.sign_text(text))])


CONTENT = put_together(RECORDS[:-1])
LINES = RECORDS[-1][1].decode().split("\n")[4:6]


def test_a_seal_made_by_hand_is_the_seal():
    assert BUNDLE == resealed(seal_text(CONTENT, LINES))


@pytest.mark.parametrize(
    "text",
    [
        seal_text(CONTENT, LINES[:1]),
        seal_text(CONTENT, LINES[::-1]),
        seal_text(CONTENT, [*LINES, LINES[1]]),
        seal_text(CONTENT, [LINES[0], LINES[1].replace("0 3", "1 3")]),
        seal_text(CONTENT, [LINES[0].replace("1 5", "0 5"), LINES[1]]),
        seal_text(CONTENT[:-1], LINES),
        seal_text(CONTENT[:-1] + b"?", LINES),
        seal_text(CONTENT, LINES, time="now"),
        seal_text(CONTENT, LINES, time=to_iso(AT)[:-1]),
        seal_text(CONTENT, LINES, time=to_iso(AT).replace("T", " ")),
        seal_text(CONTENT, LINES, time="2026-9-21T14:13:20.000001Z"),
        seal_text(CONTENT, LINES).replace("evidence", "Evidence"),
        seal_text(CONTENT, LINES) + "\n",
        seal_text(CONTENT, LINES) + "more\n",
        "\n",
    ],
)
def test_the_key_seals_no_other_text(text):
    assert refusal(resealed(text)).place.startswith("seal, byte")


@pytest.mark.parametrize(
    "alter",
    [
        lambda seal: seal + SEALER.sign_text("x\n")[3:],
        lambda seal: seal + Signature("stranger", bytes(4), bytes(64)).line.encode(),
        lambda seal: seal.replace("— kiki/evidence".encode(), "— kiki/other".encode()),
        lambda seal: seal[:-1],
        lambda seal: seal + b"\n",
        lambda seal: b"\n" + seal,
        lambda seal: seal.rpartition(b" ")[0] + b" AAAA\n",
        lambda seal: seal.rpartition(b" ")[0] + b" ?\n",
        lambda _: b"",
    ],
)
def test_a_seal_has_one_signature_and_one_spelling(alter):
    assert refusal(put_together([*RECORDS[:-1], (b"S", alter(RECORDS[-1][1]))])).place.startswith("seal, byte")


def test_a_seal_is_text():
    assert "UTF-8" in str(refusal(put_together([*RECORDS[:-1], (b"S", b"\xff")])))


def test_a_key_of_the_same_bytes_under_another_name_is_the_same_key():
    """Each chain's log has a name of its own for the one key."""
    assert verified(BUNDLE, ONE.signer.verifier_key).trusted


class TestChainsThatCheckpointsName:
    def test_a_chain_that_is_there_is_fine(self):
        assert {} == verified(bundle(ONE.stretch(others={"two": 3}), TWO.stretch(others={"one": 4}))).absent

    @pytest.mark.parametrize(("name", "size"), [("gone", 1), ("gone", 0), ("two", 4)])
    def test_a_chain_that_vanished_or_was_cut_is_named(self, name, size):
        data = bundle(ONE.stretch(others={name: size}), TWO.stretch())
        assert f"chain {name}" == refusal(data).place
        assert {name: size} == verified(data, partial=True).absent

    def test_an_earlier_checkpoint_counts_as_well(self):
        stretch = ONE.stretch()._replace(checkpoints=[ONE.note(2, {"gone": 7}), ONE.note(3, {"gone": 5})])
        assert {"gone": 7} == verified(bundle(stretch), partial=True).absent


@pytest.mark.parametrize("first", [0, 5])
def test_a_stretch_without_entries_still_proves_its_start(first):
    chain = Chain("one", first)
    (one,) = verified(bundle(chain.stretch(first))).chains
    assert (first, first - 1, 0, chain.root(first)) == (one.first, one.last, one.entries, one.root)


@pytest.mark.parametrize("length", [1 << 24, (1 << 24) + 1, (1 << 32) - 1])
def test_a_length_that_is_a_lie_takes_no_memory(length):
    data = b"kiki-bundle/1\n" + struct.pack(">cI", b"K", length) + bytes(8)
    assert "byte 14" in refusal(data).place


@given(
    st.binary(max_size=300),
    st.lists(st.tuples(st.sampled_from([b"K", b"C", b"E", b"P", b"S"]), st.binary(max_size=80))),
)
def test_garbage_is_refused_and_nothing_worse(garbage, records):
    refusal(garbage)
    refusal(b"kiki-bundle/1\n" + garbage)
    refusal(put_together(records), None)
    refusal(put_together([*RECORDS[:4], *records]), None)
