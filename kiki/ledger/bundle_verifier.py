"""Whether a bundle holds, offline and without trusting who wrote it. `kiki.ledger.bundle` describes the format.

Independent of the writer: see `chain_verifier`, which checks the chains. Exactly one sequence of bytes is accepted for one
content: what is not byte for byte as the writer would have written it is refused, with the place named.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from struct import Struct
from typing import BinaryIO, Final, NamedTuple

from kiki.errors import EvidenceInvalid
from kiki.ledger.chain_verifier import (
    ChainVerifier,
    OnEntry,
    PublicKey,
    VerifiedChain,
    exact_base64,
    read_key,
    read_time,
    read_witnesses,
    require_signature,
    verify_entries,
)

__all__ = ["Verified", "VerifiedChain", "verify_bundle", "verify_entries"]

_MAGIC: Final = b"kiki-bundle/1\n"
_HEAD: Final = Struct(">cI8s")
_KINDS: Final = {b"K": "key", b"C": "chain", b"E": "entry", b"P": "checkpoint", b"S": "seal"}
_BODY_BYTES: Final = 1 << 24
_READ_BYTES: Final = 1 << 18
_NUMBER: Final = r"0|[1-9][0-9]{0,18}"
_CHAIN: Final = re.compile(
    rf"([0-9A-Za-z._-]{{1,64}})\n({_NUMBER})\n({_NUMBER})\n((?:[A-Za-z0-9+/]{{43}}=\n)*)", re.ASCII
)
_SEAL: Final = re.compile(r"(.*\n)\n\u2014 (\S+) (\S+)\n", re.DOTALL)


class Verified(NamedTuple):
    """A bundle that holds."""

    chains: tuple[VerifiedChain, ...]
    at: int
    """When it was sealed, in microseconds since the epoch."""
    key: str
    """The verifier key that it brings along."""
    trusted: bool
    """True when the caller gave that key. Otherwise anybody may have made the bundle, with a key of their own."""
    absent: dict[str, int]
    """Chains that a checkpoint names and that are not in the bundle so far: id to size. Empty unless `partial`."""

    @property
    def entries(self) -> int:
        """How many entries there are in all chains."""
        return sum(chain.entries for chain in self.chains)


def verify_bundle(
    file: BinaryIO,
    key: str | None = None,
    on_entry: OnEntry | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    witnesses: Iterable[str] = (),
    partial: bool = False,
) -> Verified:
    """What a bundle proves; raises `EvidenceInvalid`, whose `place` names chain, entry and byte where it does not hold.

    `key` is the verifier key that the caller has from elsewhere; without one the bundle is only proved to be whole, and the
    result is not `trusted`. `witnesses` are verifier keys of witnesses, whose cosignatures are then checked too. A chain that
    a checkpoint names must be there unless `partial` (a segment holds one chain). `on_entry` sees the entries in order,
    before it is known whether the rest holds: what it saw counts when this returns. `progress` gets the bytes so far.
    The file is read once from where it stands; memory does not grow with it.
    """
    records = _Records(file, progress)
    records.open()
    kind, body, _ = records.next()
    if kind != b"K":
        raise records.failure("the verifier key belongs here")
    public = read_key(_text(records, body), records.here())
    if key is not None and read_key(key, "verifier key").public != public.public:
        raise records.failure("the bundle was signed with another key than the one that is trusted")
    trusted_witnesses = read_witnesses(witnesses)
    chains: list[VerifiedChain] = []
    while True:
        previous = chains[-1].chain if chains else ""
        records.place = _fixed(f"after chain {previous}" if previous else "before the first chain")
        kind, body, _ = records.next()
        if kind == b"S":
            break
        if kind != b"C":
            raise records.failure(f"a chain or the seal belongs here, not a record of kind {_KINDS[kind]}")
        chains.append(_verify_chain(records, body, previous, public.public, trusted_witnesses, on_entry))
    at = _verify_seal(records, body, public, chains)
    absent = _absent(chains)
    if absent and not partial:
        name, size = next(iter(absent.items()))
        raise EvidenceInvalid(
            f"a checkpoint of another chain says that it has {size} entries; the bundle has fewer of it, or none",
            place=f"chain {name}",
        )
    return Verified(tuple(chains), at, public.text, key is not None, absent)


def _verify_chain(
    records: _Records,
    body: bytes,
    previous: str,
    public: bytes,
    witnesses: tuple[PublicKey, ...],
    on_entry: OnEntry | None,
) -> VerifiedChain:
    found = _CHAIN.fullmatch(_text(records, body))
    if found is None:
        raise records.failure("this is not the head of a chain")
    chain, first, end = found[1], int(found[2]), int(found[3])
    if chain <= previous:
        raise records.failure(f"chain {chain} comes after chain {previous}: chains are sorted, and each comes once")
    if first > end:
        raise records.failure(f"chain {chain} begins at {first} and has {end} entries")
    peaks = [exact_base64(line, records.here()) for line in found[4].split("\n")[:-1]]
    verifier = ChainVerifier(chain, first, peaks, public, witnesses)
    records.place = verifier.place
    signed = -1
    while signed < end:
        kind, body, leaf = records.next()
        if kind == b"E":
            if verifier.next == end:
                raise records.failure(f"the chain has {end} entries, and here is one more")
            seq = verifier.next
            verifier.add(body, leaf, records.here)
            if on_entry is not None:
                on_entry(chain, seq, body)
        elif kind == b"P":
            note = verifier.read(body, records.here(f"chain {chain}, checkpoint before entry {verifier.next}"))
            if note.size <= signed:
                raise records.failure("two checkpoints are over the same entries")
            verifier.compare(note, records.here())
            signed = note.size
        else:
            raise records.failure(f"the chain goes on to entry {end - 1} and a checkpoint over it")
    return verifier.result()


def _verify_seal(records: _Records, body: bytes, key: PublicKey, chains: list[VerifiedChain]) -> int:
    """When the bundle was sealed. Everything else in the seal is known by now, so it is compared and not read."""
    place = records.here("seal")
    covered, digest = records.covered()
    if not chains:
        raise EvidenceInvalid("a bundle holds at least one chain", place=place)
    found = _SEAL.fullmatch(_text(records, body))
    if found is None:
        raise EvidenceInvalid("this is not a signed note", place=place)
    text, name, encoded = found.groups()
    blob = exact_base64(encoded, place)
    if name != key.name or blob[:4] != key.key_id:
        raise EvidenceInvalid("the seal is not signed with the key of the bundle", place=place)
    require_signature(key.public, blob[4:], text, place)
    time = text.split("\n")[1]
    lines = [
        "kiki evidence bundle",
        time,
        f"bytes {covered}",
        f"sha256 {base64.b64encode(digest).decode()}",
        *(f"chain {one.chain} {one.first} {one.size} {base64.b64encode(one.root).decode()}" for one in chains),
    ]
    if text != "".join(f"{line}\n" for line in lines):
        raise EvidenceInvalid(
            "the seal is over other content: a chain was dropped, swapped or put in, or bytes were altered", place=place
        )
    at = read_time(time, place)
    records.place = _fixed("after the seal")
    records.close()
    return at


def _absent(chains: list[VerifiedChain]) -> dict[str, int]:
    sizes = {chain.chain: chain.size for chain in chains}
    named: dict[str, int] = {}
    for chain in chains:
        for other, size in chain.others.items():
            if other not in sizes or sizes[other] < size:
                named[other] = max(size, named.get(other, 0))
    return named


def _fixed(place: str) -> Callable[[], str]:
    return lambda: place


def _text(records: _Records, body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise records.failure("this is not UTF-8") from error


class _Records:
    """Reads record after record, and knows where it is."""

    def __init__(self, file: BinaryIO, progress: Callable[[int], None] | None) -> None:
        self.place = _fixed("before the first chain")
        self._file = file
        self._progress = progress
        self._buffer = b""
        self._at = 0
        """Where the next record begins in the buffer, and `_start` where the last one did."""
        self._start = 0
        self._dropped = 0
        """How many bytes of the file came before the buffer."""
        self._digest = sha256()

    def open(self) -> None:
        """Read what every bundle begins with."""
        if self._take(len(_MAGIC)) != _MAGIC:
            raise EvidenceInvalid("this is not a bundle of kiki", place="byte 0")

    def next(self) -> tuple[bytes, bytes, bytes]:
        """Kind, body and SHA-256(0x00 || body) of the next record."""
        start, head_bytes = self._at, _HEAD.size
        if len(self._buffer) - start < head_bytes:
            self._fill(head_bytes)
            start = self._start = self._at
            if len(self._buffer) < head_bytes:
                raise self.failure("the file ends before the seal")
        self._start = start
        kind, length, check = _HEAD.unpack_from(self._buffer, start)
        if kind not in _KINDS:
            raise self.failure(f"there is no kind of record {kind!r}")
        if length > _BODY_BYTES:
            raise self.failure(f"a record has at most {_BODY_BYTES} bytes, not {length}")
        end = start + head_bytes + length
        if len(self._buffer) < end:
            self._fill(head_bytes + length)
            start = self._start = self._at
            end = start + head_bytes + length
            if len(self._buffer) < end:
                raise self.failure("the file ends within a record")
        body = self._buffer[start + head_bytes : end]
        self._at = end
        leaf = sha256(b"\x00" + body).digest()
        if leaf[:8] != check:
            raise self.failure(f"the {_KINDS[kind]} was altered: it does not have the hash that stands before it")
        return kind, body, leaf

    def here(self, place: str | None = None) -> str:
        """The place of the last record."""
        return f"{place or self.place()}, byte {self._dropped + self._start}"

    def failure(self, message: str) -> EvidenceInvalid:
        """What to raise about the last record."""
        return EvidenceInvalid(message, place=self.here())

    def covered(self) -> tuple[int, bytes]:
        """How many bytes came before the last record, and their SHA-256."""
        digest = self._digest.copy()
        digest.update(memoryview(self._buffer)[: self._start])
        return self._dropped + self._start, digest.digest()

    def close(self) -> None:
        """Read the end of the file."""
        self._fill(1)
        self._start = self._at
        if len(self._buffer) > self._at:
            raise self.failure("nothing follows the seal")

    def _take(self, count: int) -> bytes:
        self._fill(count)
        taken = self._buffer[self._at : self._at + count]
        self._at += count
        return taken

    def _fill(self, count: int) -> None:
        """Have `count` bytes from the next record on in the buffer, or what is left of the file."""
        self._digest.update(memoryview(self._buffer)[: self._at])
        self._dropped += self._at
        parts = [self._buffer[self._at :]]
        held = len(parts[0])
        while held < count:
            part = self._file.read(max(_READ_BYTES, count - held))
            if not part:
                break
            parts.append(part)
            held += len(part)
        self._buffer = b"".join(parts)
        self._at = 0
        if self._progress is not None:
            self._progress(self._dropped)
