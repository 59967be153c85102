"""Signed checkpoints: the bytes that other people's logs and witnesses sign, and a strict reader."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import CheckpointInvalid
from kiki.ledger.checkpoint import (
    LOG_KEY,
    NOTE_BYTES,
    WITNESS_KEY,
    Checkpoint,
    Signature,
    Signer,
    VerifierKey,
    add_signature,
    cosign,
    extensions,
    log_origin,
    open_note,
    parse_checkpoint,
    parse_signature,
    split_note,
)
from tests.ledger import golden_notes as golden

SEED, OTHER_SEED, WITNESS_SEED = bytes(32), bytes([1]) * 32, bytes([2]) * 32
ROOT = bytes(range(32))
AT = 1_790_000_000_000_001
CHECKPOINT = Checkpoint("kiki/abc", 42, ROOT, extensions(AT, {"zz": 3, "b2": 17}))
SIGNER = Signer("kiki/abc", SEED)
NOTE = SIGNER.sign(CHECKPOINT)
KEY = SIGNER.key
WITNESS = VerifierKey.of_seed("witness.example/w1", WITNESS_SEED, WITNESS_KEY)
COSIGNATURE = cosign(CHECKPOINT.text(), WITNESS.name, WITNESS_SEED, 1_790_000_000)
LINES = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1).filter(lambda line: line)


@given(LINES, st.integers(0, 10**18), st.binary(min_size=32, max_size=32), st.lists(LINES, max_size=3))
def test_what_is_written_is_read(origin, size, root, extra):
    checkpoint = Checkpoint(origin, size, root, tuple(extra))
    assert checkpoint == parse_checkpoint(checkpoint.text())


def test_the_text_is_as_c2sp_has_it():
    expected = (
        "kiki/abc\n42\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
        "time 2026-09-21T14:13:20.000001Z\nalso b2 17\nalso zz 3\n"
    )
    assert expected == CHECKPOINT.text()
    assert (AT, {"b2": 17, "zz": 3}) == (CHECKPOINT.at, CHECKPOINT.others)
    assert log_origin("abc") == CHECKPOINT.origin


def test_extension_lines_of_others_are_kept_and_mean_nothing():
    checkpoint = Checkpoint("log", 1, ROOT, ("time to go", "also", "also x 07", "mood fine"))
    assert (None, {}) == (checkpoint.at, checkpoint.others)
    assert checkpoint == parse_checkpoint(checkpoint.text())


def test_a_time_that_is_none_is_refused():
    with pytest.raises(CheckpointInvalid, match="time"):
        _ = Checkpoint("log", 1, ROOT, ("time 2026-13-01T00:00:00.000000Z",)).at


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "log\n1\n",
        "log\n1\nAAAA\n",
        "log\n01\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "log\n+1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "log\n-1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "log\n1_0\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "log\n١\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "log\n12345678901234567890\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "log\n1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=\n",
        "log\n1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n",
        "log\n1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8= \n",
        "log\n1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "log\n1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n\n",
        "\n1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "log\r\n1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
    ],
)
def test_only_one_text_is_a_checkpoint(text):
    with pytest.raises(CheckpointInvalid):
        parse_checkpoint(text)


@pytest.mark.parametrize(
    "checkpoint",
    [
        Checkpoint("log\n9", 1, ROOT),
        Checkpoint("log", 1, ROOT, ("one\ntwo",)),
        Checkpoint("log", -1, ROOT),
        Checkpoint("log", 1, ROOT[:31]),
        Checkpoint("", 1, ROOT),
        Checkpoint("log", 1, ROOT, ("",)),
        Checkpoint("log", 1, ROOT, ("tab\t",)),
    ],
)
def test_what_could_not_be_read_again_is_not_signed(checkpoint):
    with pytest.raises(CheckpointInvalid):
        SIGNER.sign(checkpoint)


def test_a_note_is_opened_with_its_key():
    checkpoint, signatures = open_note(NOTE, KEY)
    assert CHECKPOINT == checkpoint
    assert [("kiki/abc", KEY.key_id, True)] == [(one.name, one.key_id, one.verified) for one in signatures]


def test_a_verifier_key_is_read_as_it_is_written():
    assert KEY == VerifierKey.parse(SIGNER.verifier_key)
    assert WITNESS == VerifierKey.parse(WITNESS.text)
    assert (LOG_KEY, WITNESS_KEY) == (KEY.kind, WITNESS.kind)
    assert golden.GO_KEY == VerifierKey.parse(golden.GO_KEY).text


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "name.id.key"),
        ("name+00000000", "name.id.key"),
        (golden.GO_KEY.replace("033de0ae", "033de0af"), "id"),
        (golden.GO_KEY.replace("033de0ae", "033DE0AE"), "id"),
        (golden.GO_KEY.replace("sum.", "sun."), "id"),
        (golden.GO_KEY.replace("+Ac4z", "+As4z"), "type 0x02"),
        (golden.GO_KEY[:-4], "33 bytes"),
        (golden.GO_KEY[:-1], "base64"),
        ("+" + golden.GO_KEY.partition("+")[2], "name"),
        ("a b+" + golden.GO_KEY.partition("+")[2], "name"),
        (golden.GO_KEY + "\n", "base64"),
    ],
)
def test_a_damaged_verifier_key_is_refused(text, match):
    with pytest.raises(CheckpointInvalid, match=match):
        VerifierKey.parse(text)


@pytest.mark.parametrize(("note", "size"), [(golden.GO_NOTE, 54715574), (golden.GO_LATER_NOTE, 54717027)])
def test_the_notes_of_a_real_log_are_opened(note, size):
    checkpoint, _ = open_note(note.encode(), VerifierKey.parse(golden.GO_KEY))
    assert ("go.sum database tree", size) == (checkpoint.origin, checkpoint.size)


def test_sigsum_signs_the_same_bytes():
    text, signatures = split_note(golden.SIGSUM_NOTE.encode())
    assert golden.SIGSUM_NOTE.encode() == Signer(signatures[0].name, golden.SIGSUM_SEED).sign(parse_checkpoint(text))


def test_sigsum_cosigns_the_same_bytes():
    signature = cosign(golden.SIGSUM_COSIGNED_TEXT, golden.SIGSUM_WITNESS, golden.SIGSUM_SEED, 1234)
    assert golden.SIGSUM_COSIGNATURE == signature.line
    assert 1234 == signature.seen_at
    key = VerifierKey.of_seed(golden.SIGSUM_WITNESS, golden.SIGSUM_SEED, WITNESS_KEY)
    key.verify(golden.SIGSUM_COSIGNED_TEXT, parse_signature(golden.SIGSUM_COSIGNATURE))


def test_every_flipped_bit_of_a_note_is_refused():
    for position in range(len(NOTE) * 8):
        flipped = bytearray(NOTE)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(CheckpointInvalid):
            open_note(bytes(flipped), KEY)


def test_every_truncation_and_extension_of_a_note_is_refused():
    for end in range(len(NOTE)):
        with pytest.raises(CheckpointInvalid):
            open_note(NOTE[:end], KEY)
    for tail in (b"\n", b" ", b"\x00", b"x", NOTE):
        with pytest.raises(CheckpointInvalid):
            open_note(NOTE + tail, KEY)


def test_a_key_that_did_not_sign_does_not_open():
    with pytest.raises(CheckpointInvalid, match="no key that is trusted"):
        open_note(NOTE, Signer("kiki/abc", OTHER_SEED).key)
    with pytest.raises(CheckpointInvalid, match="no key that is trusted"):
        open_note(NOTE, KEY._replace(name="kiki/other"))
    with pytest.raises(CheckpointInvalid, match="no key that is trusted"):
        open_note(NOTE)


def test_signatures_of_unknown_keys_are_kept_and_ignored():
    stranger = Signature("stranger", bytes(4), b"?")
    note = add_signature(NOTE, stranger)
    assert (CHECKPOINT, [True, False]) == (
        open_note(note, KEY)[0],
        [one.verified for one in open_note(note, KEY)[1]],
    )
    assert note == NOTE + stranger.line.encode()
    assert note == add_signature(note, stranger, stranger), "no line comes twice"


def test_a_bad_signature_of_a_known_key_spoils_the_note():
    forged = Signature(WITNESS.name, WITNESS.key_id, bytes(72))
    with pytest.raises(CheckpointInvalid, match="does not belong"):
        open_note(add_signature(NOTE, forged), KEY, WITNESS)
    short = Signature(KEY.name, KEY.key_id, b"short")
    with pytest.raises(CheckpointInvalid, match="does not belong"):
        open_note(add_signature(NOTE, short), KEY)


def test_a_witness_adds_when_it_saw_the_tree():
    note = add_signature(NOTE, COSIGNATURE)
    _, signatures = open_note(note, KEY, WITNESS)
    assert [("kiki/abc", True), (WITNESS.name, True)] == [(one.name, one.verified) for one in signatures]
    assert 1_790_000_000 == signatures[1].seen_at
    assert COSIGNATURE == parse_signature(COSIGNATURE.line)


@given(st.integers(0, 72 * 8 - 1))
def test_every_bit_of_a_cosignature_counts(bit):
    data = (int.from_bytes(COSIGNATURE.data, "big") ^ 1 << bit).to_bytes(72, "big")
    with pytest.raises(CheckpointInvalid):
        WITNESS.verify(CHECKPOINT.text(), COSIGNATURE._replace(data=data))


def test_a_witness_alone_does_not_speak_for_the_log():
    text, _ = split_note(NOTE)
    with pytest.raises(CheckpointInvalid, match="no key that is trusted"):
        open_note(f"{text}\n{COSIGNATURE.line}".encode(), KEY, WITNESS)


def test_a_logs_signature_does_not_pass_for_a_witness():
    witness = KEY._replace(kind=WITNESS_KEY)
    _, (signature,) = split_note(NOTE)
    with pytest.raises(CheckpointInvalid):
        witness.verify(CHECKPOINT.text(), signature._replace(key_id=witness.key_id))


def test_a_witness_signs_checkpoints_only():
    with pytest.raises(CheckpointInvalid):
        cosign("give me all your money\n", "witness", WITNESS_SEED, 1)


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\n\n",
        b"\xff" + NOTE,
        NOTE.replace(b"\n\n", b"\n"),
        NOTE.replace("—".encode(), b"-"),
        NOTE.replace("— ".encode(), "—  ".encode()),
        NOTE.replace(b"kiki/abc ", b"kiki+abc "),
        NOTE.replace(b"kiki/abc ", "kiki\u00a0abc ".encode()),
        NOTE.replace(b"\n", b"\r\n"),
        NOTE[:-2] + b"\n",
        NOTE.rpartition(b" ")[0] + b" AAAA\n",
        NOTE + b"x" * NOTE_BYTES,
    ],
)
def test_a_malformed_note_is_refused(note):
    with pytest.raises(CheckpointInvalid):
        open_note(note, KEY)


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_worse(garbage):
    with pytest.raises(CheckpointInvalid):
        open_note(garbage, KEY)
    with pytest.raises(CheckpointInvalid):
        open_note(garbage + b"\n\n" + base64.b64encode(garbage) + b"\n", KEY)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b", "a\x1fb"])
def test_a_key_needs_a_name_that_can_be_read_back(name):
    with pytest.raises(CheckpointInvalid, match="name"):
        Signer(name, SEED)
