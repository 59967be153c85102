"""Chains, bundles and what an attacker does to them, written apart from the code that is tested."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
from collections.abc import Iterable

import msgspec

from kiki.clock import to_iso
from kiki.ledger.bundle import BundleChain, write_bundle
from kiki.ledger.checkpoint import Checkpoint, Signer
from kiki.ledger.entry import encode_entry

SEED, OTHER_SEED, WITNESS_SEED = bytes(32), bytes([1]) * 32, bytes([2]) * 32
AT = 1_790_000_000_000_001
SEALER = Signer("kiki/evidence", SEED)
KEY = SEALER.verifier_key
Records = list[tuple[bytes, bytes]]


class Noted(msgspec.Struct, array_like=True, tag="noted", frozen=True):
    """A fact of no domain."""

    text: str


def entry(seq: int, text: str = "x") -> bytes:
    return encode_entry(seq, AT + seq, Noted(text))


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


def leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


class Chain:
    """A chain as its honest writer has it."""

    def __init__(self, name: str, size: int, seed: bytes = SEED) -> None:
        self.name = name
        self.entries = [entry(seq, f"{name} {seq}") for seq in range(size)]
        self.signer = Signer(f"kiki/{name}", seed)

    def node(self, height: int, index: int) -> bytes:
        return mth([leaf(data) for data in self.entries[index << height : (index + 1) << height]])

    def root(self, size: int) -> bytes:
        return mth([leaf(data) for data in self.entries[:size]])

    def note(self, size: int, others: dict[str, int] | None = None, root: bytes | None = None) -> bytes:
        lines = (f"time {to_iso(AT + size)}", *(f"also {name} {at}" for name, at in (others or {}).items()))
        return self.signer.sign(Checkpoint(self.signer.name, size, root or self.root(size), lines))

    def peaks(self, size: int) -> list[bytes]:
        found, start = [], 0
        for height in reversed(range(size.bit_length())):
            if size >> height & 1:
                found.append(self.node(height, start >> height))
                start += 1 << height
        return found

    def stretch(
        self, first: int = 0, checkpoints: Iterable[int] = (), others: dict[str, int] | None = None
    ) -> BundleChain:
        size = len(self.entries)
        return BundleChain(
            self.name,
            first,
            self.peaks(first),
            list(enumerate(self.entries))[first:],
            self.note(size, others),
            [self.note(at) for at in checkpoints],
        )


def bundle(*stretches: BundleChain, signer: Signer = SEALER) -> bytes:
    out = io.BytesIO()
    write_bundle(out, stretches, signer, at=AT)
    return out.getvalue()


def taken_apart(data: bytes) -> Records:
    """Kind and body of every record."""
    records, at = [], data.index(b"\n") + 1
    while at < len(data):
        kind, length = struct.unpack_from(">cI", data, at)
        records.append((kind, data[at + 13 : at + 13 + length]))
        at += 13 + length
    return records


def put_together(records: Records) -> bytes:
    """A file of records, each framed as it should be."""
    frames = [struct.pack(">cI", kind, len(body)) + leaf(body)[:8] + body for kind, body in records]
    return b"kiki-bundle/1\n" + b"".join(frames)


def seal_text(data: bytes, chains: Iterable[str], time: str = to_iso(AT)) -> str:
    """What a seal over these bytes says."""
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    lines = ["kiki evidence bundle", f"time {time}", f"bytes {len(data)}", f"sha256 {digest}", *chains]
    return "".join(f"{line}\n" for line in lines)


def sealed(records: Records, signer: Signer = SEALER) -> bytes:
    """What an operator can make who has the key: these records with a seal that fits them."""
    data = put_together(records)
    chains: list[str] = []
    name = first = size = "?"
    for kind, body in records:
        if kind == b"C":
            name, first, size, *_ = [*body.decode(errors="replace").split("\n"), "?", "?"]
        elif kind == b"P":
            root = [*body.decode(errors="replace").split("\n"), "?", "?"][2]
            if chains and chains[-1].split(" ")[1] == name:
                chains.pop()
            chains.append(f"chain {name} {first} {size} {root}")
    return put_together([*records, (b"S", signer.sign_text(seal_text(data, chains)))])
