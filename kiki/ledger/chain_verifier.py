"""Whether the entries of one chain are what its checkpoints signed. Independent of the writer.

This file and the two that use it (`bundle_verifier`, `proof_verifier`) share with the rest of the ledger only what an entry
is, so that a mistake in the tree, the notes or the bundles of the writer is not repeated here. It needs nothing but the
standard library, `cryptography` and `kiki.ledger.entry`. It follows RFC 6962, section 2.1, and C2SP's signed-note,
tlog-checkpoint and tlog-cosignature. It is meant to be read by whoever has to trust it.

What it proves: every entry is part of the tree whose root was signed, in its order, with none left out or put in.
What it cannot prove: that the holder of the key did not write another history and sign that as well. Against that stand
checkpoints kept elsewhere and witnesses' cosignatures.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kiki.errors import EvidenceInvalid, LedgerCorrupt
from kiki.ledger.entry import decode_entry, leaf_hash

OnEntry = Callable[[str, int, bytes], None]
"""(chain, sequence, stored bytes). It may be called for entries that later turn out not to hold."""

_LINE: Final = r"[^\x00-\x1f]+\n"
_NOTE: Final = re.compile(
    rf"({_LINE}(?:0|[1-9][0-9]{{0,18}})\n[A-Za-z0-9+/]{{43}}=\n(?:{_LINE})*)\n"
    r"((?:\u2014 [^\s+\x00-\x1f]+ [A-Za-z0-9+/]+={0,2}\n)+)"
)
_KEY: Final = re.compile(r"([^\s+\x00-\x1f]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]{44})")
_ALSO: Final = re.compile(r"also (\S+) (0|[1-9][0-9]{0,18})")
_LOG, _WITNESS = 1, 4
_KINDS: Final = {_LOG: "a log", _WITNESS: "a witness"}
_RECENT: Final = 1 << 18
"""How many leaf hashes are remembered to name the one entry that differs: 8 MB. Checkpoints are closer than that."""
_PROGRESS: Final = 4096


class PublicKey(NamedTuple):
    """A key as C2SP writes it: `name+id+base64`."""

    name: str
    key_id: bytes
    public: bytes
    text: str


class Cosigner(NamedTuple):
    """A witness that saw a tree of `size` entries grow consistently, `at` seconds since the epoch."""

    name: str
    size: int
    at: int


class Note(NamedTuple):
    """A checkpoint whose signature holds."""

    size: int
    root: bytes
    at: int | None
    """When it was signed, in microseconds since the epoch."""
    others: dict[str, int]
    """The chains it names beside its own, with their sizes."""
    cosigners: tuple[Cosigner, ...]
    unknown: tuple[str, ...]
    """The names of signatures by keys that were not given: nothing is known about them."""


class VerifiedChain(NamedTuple):
    """A chain that holds: entries `first` to `last` are those under `root`, the root of the last checkpoint."""

    chain: str
    first: int
    size: int
    """The size of the last checkpoint: one more than the last sequence that it covers."""
    root: bytes
    at: int | None
    """When the last checkpoint was signed, in microseconds since the epoch; None when there is none or it does not say."""
    entries: int
    checkpoints: int
    unsigned: int
    """Entries after the last checkpoint: in order, and covered by nothing yet."""
    others: dict[str, int]
    """The other chains that any checkpoint names, with the largest size that was signed."""
    cosigners: tuple[Cosigner, ...]
    """Each witness that was given, with the largest tree that it cosigned."""
    unknown: tuple[str, ...]

    @property
    def last(self) -> int:
        """The last sequence that is covered; `first` - 1 when there is none."""
        return self.size - 1


def read_key(text: str, place: str, kind: int = _LOG) -> PublicKey:
    """The verifier key in a text; raises `EvidenceInvalid`."""
    found = _KEY.fullmatch(text)
    if found is None:
        raise EvidenceInvalid("a verifier key is written name+id+base64", place=place)
    data = exact_base64(found[3], place)
    if data[0] != kind:
        raise EvidenceInvalid(f"this is not the Ed25519 key of {_KINDS[kind]}", place=place)
    key_id = _key_id(found[1], data)
    if key_id.hex() != found[2]:
        raise EvidenceInvalid("the id in the verifier key is not that of its key", place=place)
    return PublicKey(found[1], key_id, data[1:], text)


def read_witnesses(texts: Iterable[str]) -> tuple[PublicKey, ...]:
    """The verifier keys of witnesses; raises `EvidenceInvalid`."""
    return tuple(read_key(text, "witness key", _WITNESS) for text in texts)


def _key_id(name: str, data: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + data).digest()[:4]


def read_note(data: bytes, chain: str, public: bytes, witnesses: Sequence[PublicKey], place: str) -> Note:
    """A checkpoint of this chain, signed with this key; raises `EvidenceInvalid`."""
    try:
        found = _NOTE.fullmatch(data.decode())
    except UnicodeDecodeError:
        found = None
    if found is None:
        raise EvidenceInvalid("this is not a signed checkpoint", place=place)
    text = found[1]
    origin, size, root, *extensions = text[:-1].split("\n")
    if origin != f"kiki/{chain}":
        raise EvidenceInvalid(f"this is a checkpoint of {origin}, not of kiki/{chain}", place=place)
    log_id = _key_id(origin, bytes([_LOG]) + public)
    signed = False
    cosigners: list[Cosigner] = []
    unknown: list[str] = []
    for line in found[2][:-1].split("\n"):
        _, name, encoded = line.split(" ")
        blob = exact_base64(encoded, place)
        known = [key for key in witnesses if (key.name, key.key_id) == (name, blob[:4])]
        if (name, blob[:4]) == (origin, log_id):
            require_signature(public, blob[4:], text, place)
            signed = True
        elif known:
            moment = int.from_bytes(blob[4:12], "big")
            require_signature(known[0].public, blob[12:], f"cosignature/v1\ntime {moment}\n{text}", place)
            cosigners.append(Cosigner(name, int(size), moment))
        else:
            unknown.append(name)
    if not signed:
        raise EvidenceInvalid("the checkpoint is not signed with the log's key", place=place)
    also = [match for match in map(_ALSO.fullmatch, extensions) if match is not None]
    others = {match[1]: int(match[2]) for match in also}
    moments = [read_time(line, place) for line in extensions if line.startswith("time ")]
    return Note(
        int(size),
        exact_base64(root, place),
        moments[0] if moments else None,
        others,
        tuple(cosigners),
        tuple(unknown),
    )


def require_signature(public: bytes, signature: bytes, text: str, place: str) -> None:
    """Nothing when this key signed this text; raises `EvidenceInvalid`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text.encode())
    except InvalidSignature as error:
        raise EvidenceInvalid("the signature does not belong to this text", place=place) from error


def read_time(line: str, place: str) -> int:
    """The microseconds since the epoch in a line `time 2026-11-22T10:00:00.000001Z`; raises `EvidenceInvalid`."""
    try:
        moment = datetime.strptime(line, "time %Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise EvidenceInvalid(f"{line!r} is no moment", place=place) from error
    if moment.strftime("time %Y-%m-%dT%H:%M:%S.%fZ") != line:
        raise EvidenceInvalid(f"{line!r} is not written as kiki writes moments", place=place)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def exact_base64(text: str, place: str) -> bytes:
    """The bytes of the one text that encodes them; raises `EvidenceInvalid`."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EvidenceInvalid("this is not base64", place=place) from error
    if base64.b64encode(data).decode() != text:
        raise EvidenceInvalid("this is not written as base64 writes it", place=place)
    return data


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962: the hash above two others."""
    return sha256(b"\x01" + left + right).digest()


class ChainVerifier:
    """Grows a chain's tree entry by entry, and compares its root with each checkpoint on the way."""

    def __init__(
        self,
        chain: str,
        first: int,
        peaks: Sequence[bytes],
        public: bytes,
        witnesses: Sequence[PublicKey] = (),
        leaf_of: Callable[[int], bytes | None] | None = None,
    ) -> None:
        self.chain = chain
        self.first = first
        self.next = first
        """The sequence that comes next."""
        self.signed = first
        """The size of the last checkpoint that held."""
        self.checkpoints = 0
        self._public = public
        self._witnesses = witnesses
        self._leaf_of = leaf_of
        self._recent: list[bytes] = []
        # Perfect subtrees from the left, each with its width: the widths are the powers of two in the number of leaves.
        self._widths = [1 << bit for bit in reversed(range(first.bit_length())) if first >> bit & 1]
        self._hashes = list(peaks)
        if len(self._hashes) != len(self._widths) or any(len(peak) != 32 for peak in peaks):
            raise EvidenceInvalid("the hashes of what lies before the range do not fit its start", place=self.place())
        self._root = b""
        self._at: int | None = None
        self._others: dict[str, int] = {}
        self._cosigners: dict[str, Cosigner] = {}
        self._unknown: dict[str, None] = {}

    def place(self) -> str:
        """Where the next thing belongs."""
        return f"chain {self.chain}, entry {self.next}"

    def add(self, data: bytes, leaf: bytes, place: Callable[[], str]) -> None:
        """The next entry, with its leaf hash."""
        try:
            seq = decode_entry(data).seq
        except LedgerCorrupt as error:
            raise EvidenceInvalid(str(error), place=place()) from error
        if seq != self.next:
            raise EvidenceInvalid(f"entry {seq} stands where entry {self.next} belongs", place=place())
        if self._leaf_of is not None and len(self._recent) < _RECENT:
            self._recent.append(leaf)
        widths, hashes = self._widths, self._hashes
        width = 1
        while widths and widths[-1] == width:
            width += widths.pop()
            leaf = node_hash(hashes.pop(), leaf)
        widths.append(width)
        hashes.append(leaf)
        self.next += 1

    def root(self) -> bytes:
        """The root of all entries so far."""
        if not self._hashes:
            return sha256(b"").digest()
        root = self._hashes[-1]
        for left in self._hashes[-2::-1]:
            root = node_hash(left, root)
        return root

    def read(self, data: bytes, place: str) -> Note:
        """A checkpoint of this chain whose signatures hold."""
        return read_note(data, self.chain, self._public, self._witnesses, place)

    def compare(self, note: Note, place: str) -> None:
        """Nothing when the checkpoint is over exactly the entries so far."""
        if note.size != self.next:
            raise EvidenceInvalid(
                f"the checkpoint is over {note.size} entries, and stands after {self.next}", place=place
            )
        if note.root != self.root():
            raise EvidenceInvalid(
                f"the root that was signed for {note.size} entries is another one: an entry was altered, left out or "
                "put in, or the log signed two histories",
                place=self._culprit(),
            )
        self.signed, self._root, self._at = note.size, note.root, note.at
        self.checkpoints += 1
        self._recent.clear()
        for chain, size in note.others.items():
            self._others[chain] = max(size, self._others.get(chain, 0))
        self._cosigners.update({cosigner.name: cosigner for cosigner in note.cosigners})
        self._unknown.update(dict.fromkeys(note.unknown))

    def _culprit(self) -> str:
        """The entry that differs, as far as it can be known."""
        if self._leaf_of is not None:
            for seq, leaf in enumerate(self._recent, self.signed):
                if self._leaf_of(seq) not in {leaf, None}:
                    return f"chain {self.chain}, entry {seq}"
        if self.next == self.signed:
            what = f"checkpoint over {self.next} entries" if self.checkpoints else f"before entry {self.first}"
            return f"chain {self.chain}, {what}"
        before = f", or before entry {self.first}" if not self.checkpoints and self.first else ""
        return f"chain {self.chain}, entries {self.signed} to {self.next - 1}{before}"

    def result(self) -> VerifiedChain:
        """What holds."""
        return VerifiedChain(
            self.chain,
            self.first,
            self.signed,
            self._root,
            self._at,
            self.next - self.first,
            self.checkpoints,
            self.next - self.signed,
            self._others,
            tuple(self._cosigners.values()),
            tuple(self._unknown),
        )


def verify_entries(
    chain: str,
    entries: Iterable[tuple[int, bytes]],
    checkpoints: Iterable[bytes],
    key: str,
    first: int = 0,
    peaks: Sequence[bytes] = (),
    *,
    witnesses: Iterable[str] = (),
    leaf_of: Callable[[int], bytes | None] | None = None,
    on_entry: OnEntry | None = None,
    progress: Callable[[int], None] | None = None,
) -> VerifiedChain:
    """Verify a ledger where it lies: the entries from `first` on against the checkpoints, in the order of their sizes.

    Read the checkpoints before the entries when somebody writes meanwhile: one that is over more entries than there
    are means that entries were lost. Those over less than `first` entries cannot be compared; their signatures are
    checked. `key` is the log's verifier key, `witnesses` those of witnesses. `peaks` is the compact range of what was pruned.
    `leaf_of` gives the leaf hash that the ledger noted for a sequence, if it has it: never believed, only used to name
    the one entry that was altered. `progress` gets the number of entries so far. Memory does not grow with the entries.

    Raises `EvidenceInvalid`, whose `place` names the chain and the entry.
    """
    public = read_key(key, "verifier key").public
    verifier = ChainVerifier(chain, first, peaks, public, read_witnesses(witnesses), leaf_of)
    notes = (verifier.read(data, f"chain {chain}, checkpoint {number}") for number, data in enumerate(checkpoints))
    due = next((note for note in notes if note.size >= first), None)
    for seq, data in entries:
        while due is not None and due.size <= verifier.next:
            verifier.compare(due, verifier.place())
            due = next(notes, None)
        if seq != verifier.next:
            raise EvidenceInvalid(
                f"the entry is missing: entry {seq} follows entry {verifier.next - 1}", place=verifier.place()
            )
        verifier.add(data, leaf_hash(data), verifier.place)
        if on_entry is not None:
            on_entry(chain, seq, data)
        if progress is not None and verifier.next % _PROGRESS == 0:
            progress(verifier.next - first)
    while due is not None:
        if due.size > verifier.next:
            raise EvidenceInvalid(
                f"the entry is missing: {due.size} entries were signed, and this is the end", place=verifier.place()
            )
        verifier.compare(due, verifier.place())
        due = next(notes, None)
    if progress is not None:
        progress(verifier.next - first)
    return verifier.result()
