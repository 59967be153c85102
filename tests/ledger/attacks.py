"""What an honest writer, an attacker and an operator with the key hand to the verifiers. Each attack is small."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

from kiki.clock import to_iso
from kiki.ledger.checkpoint import WITNESS_KEY, Checkpoint, Signature, Signer, VerifierKey, add_signature, cosign
from kiki.ledger.proof import make_proof
from tests.ledger.evidence import (
    AT,
    KEY,
    OTHER_SEED,
    SEALER,
    WITNESS_SEED,
    Chain,
    bundle,
    entry,
    leaf,
    put_together,
    seal_text,
    sealed,
    taken_apart,
)

Attack = Callable[[Any], object]
"""Calls the verifiers that it is given; their answer is what it returns or raises."""

ONE, TWO, LONG = Chain("one", 5), Chain("two", 3), Chain("one", 13)
FOREIGN, FORGER = Chain("one", 5, OTHER_SEED), Signer("kiki/evidence", OTHER_SEED)
WITNESS = VerifierKey.of_seed("w1", WITNESS_SEED, WITNESS_KEY)
NEIGHBOUR = VerifierKey.of_seed("w2", OTHER_SEED, WITNESS_KEY)
WITNESSES = (NEIGHBOUR.text, WITNESS.text)
BUNDLE = bundle(ONE.stretch(1, checkpoints=[1, 3]), TWO.stretch())
RECORDS = taken_apart(BUNDLE)
KINDS = b"".join(kind for kind, _ in RECORDS).decode()
ENTRY, SECOND = KINDS.index("E"), KINDS.rindex("C")
"""Where the first entry is, and where the second chain begins; the last checkpoint of the first is before that."""


def cosigned(note: bytes, at: int) -> bytes:
    return add_signature(note, cosign(note.decode().rpartition("\n\n")[0] + "\n", "w1", WITNESS_SEED, at))


def on_bundle(data: bytes, key: str | None = KEY, **more: Any) -> Attack:
    return lambda verifiers: verifiers.verify_bundle(io.BytesIO(data), key, **more)


def with_record(number: int, body: bytes) -> bytes:
    """Sealed anew with another body in one record."""
    return sealed([(kind, body if at == number else old) for at, (kind, old) in enumerate(RECORDS[:-1])])


def on_bundles() -> Iterator[Attack]:
    yield from callers_of_bundles()
    for data in bundles():
        yield on_bundle(data)
    for data in keys():
        yield on_bundle(data)
        yield on_bundle(data, None)


def bundles() -> Iterator[bytes]:
    yield BUNDLE
    yield bundle(LONG.stretch(6, checkpoints=[6, 7, 12]))
    yield bundle(Chain("a", 0).stretch(), ONE.stretch(5), TWO.stretch(3))
    yield bundle(ONE.stretch(others={"two": 3}), TWO.stretch(others={"one": 5}))
    yield bundle(ONE.stretch(others={"two": 4, "gone": 0}), TWO.stretch(others={"gone": 9}))
    yield bundle(FOREIGN.stretch(), signer=FORGER)
    # Bytes.
    for position in range(3, len(BUNDLE) * 8, 97):
        flipped = bytearray(BUNDLE)
        flipped[position // 8] ^= 1 << position % 8
        yield bytes(flipped)
    for end in (0, 13, 14, 20, 27, 28, 100, 700, len(BUNDLE) - 80, len(BUNDLE) - 1):
        yield BUNDLE[:end]
    yield BUNDLE + b"\n"
    for length in (0, 1 << 24, (1 << 24) + 1):
        yield b"kiki-bundle/1\n" + struct.pack(">cI", b"K", length) + bytes(8)
    # Records.
    for number in range(len(RECORDS)):
        yield put_together(RECORDS[:number] + RECORDS[number + 1 :])
        yield sealed(RECORDS[:number] + RECORDS[number + 1 : -1])
        yield sealed([*RECORDS[: number + 1], *RECORDS[number:-1]])
        for other in (number + 1, number + 2):
            if other < len(RECORDS) - 1:
                swapped = list(RECORDS[:-1])
                swapped[number], swapped[other] = swapped[other], swapped[number]
                yield sealed(swapped)
    head, first, second = RECORDS[:1], RECORDS[1:SECOND], RECORDS[SECOND:-1]
    for records in ([*head, *second, *first], [*head, *first, *first], [*head, *first, *second, *first], head):
        yield sealed(records)
        yield put_together([*records, RECORDS[-1]])
    yield sealed([*head, *first, (b"E", entry(5)), *second])
    yield sealed([*head, *first[:-1], (b"E", entry(5)), first[-1]])
    for number in (0, 1, ENTRY, SECOND, len(RECORDS) - 1):
        yield put_together([*RECORDS[:number], (b"X", RECORDS[number][1]), *RECORDS[number + 1 :]])
    # Heads, entries, checkpoints, keys, seals.
    peak = RECORDS[1][1].split(b"\n")[3] + b"\n"
    for body in (
        b"one\n1\n5\n" + b"A" * 43 + b"=\n",
        b"one\n1\n5\n" + b"A" * 42 + b"B=\n",
        b"one\n1\n5\n",
        b"one\n2\n5\n" + peak,
        b"one\n1\n4\n" + peak,
        b"one\n1\n6\n" + peak,
        b"one\n9\n5\n",
        b"one\n01\n5\n" + peak,
        b"one\n1\n5\n" + peak + b"\n",
        b"",
        b"\xff",
    ):
        yield with_record(1, body)
    yield with_record(ENTRY, b"\x02junk")
    yield with_record(ENTRY, entry(1, "forged"))
    yield with_record(SECOND - 2, entry(4, "forged"))
    for note in notes():
        yield with_record(SECOND - 1, note)
    yield with_record(ENTRY + 2, ONE.note(3, root=bytes(32)))
    for seal in seals():
        yield put_together([*RECORDS[:-1], (b"S", seal)])


def keys() -> Iterator[bytes]:
    """Bundles with another key in them."""
    yield BUNDLE
    yield bundle(FOREIGN.stretch(), signer=FORGER)
    for key in (
        b"",
        b"\xff",
        KEY.encode()[:-1] + b"=",
        WITNESS.text.encode(),
        KEY.replace("ce+", "cE+").encode(),
        FORGER.verifier_key.encode(),
    ):
        yield with_record(0, key)
    yield sealed([(b"K", FORGER.verifier_key.encode()), *RECORDS[1:-1]], FORGER)
    yield sealed(RECORDS[:-1], FORGER)


def notes() -> Iterator[bytes]:
    """What may stand instead of the last checkpoint of the first chain."""
    good = ONE.note(5)
    yield from (b"", b"\xff", good[:-1], good + b"\n", good.replace(b"\n5\n", b"\n4\n"), good.replace(b"\n\n", b"\n"))
    yield good.rpartition(b" ")[0] + b" AAAA\n"
    yield good.rpartition(b" ")[0] + b" A\n"
    yield good.replace("— kiki/one".encode(), "— kiki/two".encode())
    yield ONE.note(5, root=bytes(32))
    yield ONE.note(4)
    yield FOREIGN.note(5)
    yield SEALER.sign(Checkpoint("kiki/two", 5, ONE.root(5)))
    yield ONE.signer.sign(Checkpoint("kiki/one", 5, ONE.root(5)))
    yield ONE.signer.sign(Checkpoint("kiki/one", 5, ONE.root(5), ("mood fine", "also two 3")))
    for time in ("yesterday", "2026-09-21T14:13:20.00001Z", "1969-12-31T23:59:59.999999Z"):
        yield ONE.signer.sign(
            Checkpoint("kiki/one", 5, ONE.root(5), (f"time {time}", "time 2026-09-21T14:13:20.000001Z"))
        )
    yield cosigned(good, 1234)
    yield cosigned(good, (1 << 63) - 1)
    yield add_signature(good, Signature("kiki/one", b"elif", bytes(64)))
    yield add_signature(good, Signature("kiki/one", ONE.signer.key.key_id, bytes(64)))
    unsigned = good.rpartition("— ".encode())[0]
    yield (
        unsigned + cosigned(good, 1234).rpartition("— ".encode())[1] + cosigned(good, 1234).rpartition("— ".encode())[2]
    )
    yield unsigned + Signature("w1", WITNESS.key_id, bytes(72)).line.encode() + good[len(unsigned) :]


def seals() -> Iterator[bytes]:
    content, lines = put_together(RECORDS[:-1]), RECORDS[-1][1].decode().split("\n")[4:6]
    good = seal_text(content, lines)
    for text in (
        seal_text(content, lines[:1]),
        seal_text(content, lines[::-1]),
        seal_text(content, [lines[0], lines[1].replace("0 3", "1 3")]),
        seal_text(content[:-1], lines),
        seal_text(content[:-1] + b"?", lines),
        seal_text(content, lines, time="now"),
        seal_text(content, lines, time="2026-9-21T14:13:20.000001Z"),
        seal_text(content, lines, time=to_iso(AT + 1)),
        good.replace("evidence", "Evidence"),
        good + "\n",
        "\n",
    ):
        yield SEALER.sign_text(text)
        yield Signer("kiki/other", bytes(32)).sign_text(text)
    note = SEALER.sign_text(good)
    yield FORGER.sign_text(good)
    yield Signer("kiki/other", bytes(32)).sign_text(good)
    yield note.replace("— kiki/evidence".encode(), "— kiki/other".encode())
    yield note + Signature("stranger", bytes(4), bytes(64)).line.encode()
    yield Signature(SEALER.name, b"elif", Signer("x", bytes(32)).sign_text(good)[-65:]).line.encode()
    blob = base64.b64decode(note.rpartition(b" ")[2])
    yield note.rpartition(b" ")[0] + b" " + base64.b64encode(b"elif" + blob[4:]) + b"\n"
    yield note.rpartition(b" ")[0] + b" " + base64.b64encode(blob[:-1] + b"?") + b"\n"
    yield b"\xff"
    yield b""


def callers_of_bundles() -> Iterator[Attack]:
    for key in (ONE.signer.verifier_key, FORGER.verifier_key, WITNESS.text, "junk", KEY[:-1] + "=", ""):
        yield on_bundle(BUNDLE, key)
    for note in notes():
        yield on_bundle(with_record(SECOND - 1, note), witnesses=WITNESSES)
    yield on_bundle(BUNDLE, witnesses=(KEY,))
    data = bundle(ONE.stretch(others={"two": 4, "gone": 0}), TWO.stretch(others={"gone": 9, "one": 5}))
    yield on_bundle(data, partial=True)
    yield on_bundle(bundle(ONE.stretch(others={"gone": 0})), partial=True)
    two = Chain("two", 3)
    stretch = two.stretch()._replace(checkpoints=[two.note(1, {"gone": 7}), two.note(2, {"gone": 5})])
    yield on_bundle(bundle(stretch), partial=True)
    yield lambda verifiers: seen_by(verifiers.verify_bundle, io.BytesIO(BUNDLE), KEY)

    class Pipe(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(10)

    yield lambda verifiers: seen_by(verifiers.verify_bundle, Pipe(BUNDLE), KEY)
    yield lambda verifiers: verifiers.verify_bundle(Pipe(BUNDLE), KEY)
    yield lambda verifiers: verifiers.verify_bundle(io.BytesIO(BUNDLE), KEY).entries
    yield lambda verifiers: [chain.last for chain in verifiers.verify_bundle(io.BytesIO(BUNDLE), KEY).chains]


def seen_by(verify: Callable[..., object], *arguments: object) -> object:
    """The result with everything that was told on the way."""
    told: list[object] = []
    result = verify(*arguments, on_entry=lambda *one: told.append(one), progress=told.append)
    return result, told


def on_ledgers() -> Iterator[Attack]:
    pairs = list(enumerate(LONG.entries))
    good = [LONG.note(size) for size in (2, 3, 7, 12)]

    def verify(entries: object, notes: object, first: int = 0, key: str = KEY, **more: object) -> Attack:
        peaks = more.pop("peaks", LONG.peaks(first))
        return lambda verifiers: verifiers.verify_entries("one", entries, notes, key, first, peaks, **more)

    for notes in (
        good,
        [],
        good[:1],
        good[::-1],
        [*good, good[-1]],
        [*good, LONG.note(12, root=bytes(32))],
        [LONG.note(14)],
    ):
        yield verify(pairs, notes)
        yield verify(pairs[4:], notes, 4)
        yield verify([], notes)
    yield verify(pairs, [LONG.note(2, {"x": 5}), LONG.note(3, {"x": 4, "y": 1})])
    yield verify(pairs, [cosigned(good[0], 10), cosigned(good[1], 20), good[2]], witnesses=WITNESSES)
    yield verify(pairs, [FOREIGN.note(2), *good[1:]], 0)
    yield verify(pairs[7:], good, 7, peaks=[bytes(32)] * 3)
    yield verify(pairs[4:], good, 4, peaks=[bytes(32)])
    yield verify(pairs[7:], good, 7, peaks=[])
    yield verify(pairs[7:], good, 7, peaks=[bytes(31)] * 3)
    yield verify(pairs, good, key="junk")
    for seq in (0, 1, 4, 12):
        forged = [*pairs[:seq], (seq, entry(seq, "forged")), *pairs[seq + 1 :]]
        yield verify(forged, good)
        yield verify(forged, good, leaf_of=lambda seq: leaf(LONG.entries[seq]))
        yield verify(forged, good, leaf_of=lambda _: None)
        yield verify(pairs[:seq] + pairs[seq + 1 :], good)
        yield verify(pairs[:seq], good)
        yield verify([*pairs[:seq], (seq, pairs[(seq + 1) % 13][1]), *pairs[seq + 1 :]], good)
        yield verify([*pairs[:seq], (seq, b"\x02?")], good)
    yield lambda verifiers: seen_by(verifiers.verify_entries, "one", pairs, good, KEY)
    yield lambda verifiers: seen_by(verifiers.verify_entries, "one", pairs[4:], good, KEY, 4, LONG.peaks(4))
    many = [(seq, entry(seq)) for seq in range(4100)]
    yield verify(many, [])
    yield lambda verifiers: seen_by(verifiers.verify_entries, "one", many, [], KEY)
    yield lambda verifiers: seen_by(verifiers.verify_entries, "one", many[4:], [], KEY, 4, LONG.peaks(4))


def on_proofs() -> Iterator[Attack]:
    def verify(text: object, key: str | None = KEY, **more: object) -> Attack:
        return lambda verifiers: verifiers.verify_proof(text, key, **more)

    def made(seq: int, size: int) -> str:
        return make_proof("one", LONG.entries[seq], LONG.note(size), LONG.node, LONG.signer.verifier_key)

    for seq, size in ((0, 1), (0, 2), (1, 2), (2, 3), (6, 13), (12, 13), (7, 8), (8, 9)):
        yield verify(made(seq, size))
    good = json.loads(made(6, 13))
    hashes = good["hashes"]
    yield verify(json.dumps(good), None)
    yield verify(json.dumps(good), "junk")
    yield verify(json.dumps(good), FORGER.verifier_key)
    cosigner = {"checkpoint": cosigned(LONG.note(13), 5).decode()}
    yield verify(json.dumps(good | cosigner), witnesses=WITNESSES)
    for members in (
        {"entry": "?"},
        {"entry": base64.b64encode(b"\x02?").decode()},
        {"entry": base64.b64encode(entry(6, "forged")).decode()},
        {"entry": base64.b64encode(entry(13)).decode(), "seq": 13},
        {"entry": base64.b64encode(entry(-1)).decode(), "seq": -1},
        {"seq": 7},
        {"hashes": []},
        {"hashes": hashes[1:]},
        {"hashes": hashes[:-1]},
        {"hashes": [*hashes, hashes[0]]},
        {"hashes": [hashes[0], *hashes]},
        {"hashes": hashes[::-1]},
        {"hashes": [base64.b64encode(bytes(31)).decode(), *hashes[1:]]},
        {"hashes": [*hashes[:-1], base64.b64encode(base64.b64decode(hashes[-1])[:31]).decode()]},
        {"checkpoint": LONG.note(6).decode()},
        {"checkpoint": LONG.note(12).decode()},
        {"checkpoint": FOREIGN.note(5).decode()},
        {"checkpoint": ""},
        {"chain": "two"},
        {"key": "?"},
        {"key": FORGER.verifier_key},
        {"format": "?"},
        {"more": 1},
    ):
        yield verify(json.dumps(good | members))
    # The two halves of a node of 31 and 33 bytes hash like those of 32.
    alone = json.loads(made(0, 2))
    for moved in (-1, 1):
        sibling = base64.b64decode(alone["hashes"][0])
        shifted = sibling[1:] if moved < 0 else b"?" + sibling
        yield verify(json.dumps(alone | {"hashes": [base64.b64encode(shifted).decode()]}))
    text = json.dumps(good)
    yield verify(" " * ((1 << 20) - len(text)) + text)
    yield verify(" " * ((1 << 20) - len(text) + 1) + text)
    yield verify("")
    yield verify(b"\xff")
    yield verify("\ud800")
