"""Signed checkpoints: what a log says about its tree, in the formats that other people's tools read. Pure but for Ed25519.

C2SP has them: signed-note (the envelope), tlog-checkpoint (the text) and tlog-cosignature (what a witness adds, version
`cosignature/v1`). A note is a text, an empty line, and one line for each signature:

    kiki/5f0c2a9b7d3e4f10
    42
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
    time 2026-11-22T10:00:00.000001Z
    also 81d0c3b2a4958677 17

    — kiki/5f0c2a9b7d3e4f10 <base64 of key id and signature>

The text is the log's origin, the number of its entries, and the root of its tree. Two extension lines are ours: `time`,
when it was signed, and `also`, one for every other chain that was known, with the size of that chain's last checkpoint:
so no chain can vanish unseen. The names of keys are not part of what Ed25519 signs here, only the origin is: a reader must
compare it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from types import MappingProxyType
from typing import Final, NamedTuple, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kiki.clock import to_iso
from kiki.errors import CheckpointInvalid

LOG_KEY: Final = 0x01
"""The type of a key that signs texts: a log's."""
WITNESS_KEY: Final = 0x04
"""The type of a key that signs texts with the moment when they were seen: a witness's."""
NOTE_BYTES: Final = 1 << 20
"""The longest note that is read: some thousand signatures."""

_DASH: Final = "\u2014 "
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_ALSO: Final = re.compile(r"also (\S+) (0|[1-9][0-9]{0,18})", re.ASCII)
_TIME: Final = re.compile(r"time (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})Z", re.ASCII)
_HASH_BYTES: Final = 32
_KEY_ID_BYTES: Final = 4
_MOMENT_BYTES: Final = 8
_SIGNATURE_BYTES: Final = {LOG_KEY: 64, WITNESS_KEY: _MOMENT_BYTES + 64}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_OTHERS: Final[Mapping[str, int]] = MappingProxyType({})


def log_origin(chain: str) -> str:
    """How the log of a chain calls itself, and its key."""
    return f"kiki/{chain}"


class Checkpoint(NamedTuple):
    """What a log says about its tree: `size` entries with this RFC 6962 `root`."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """What is signed; raises `CheckpointInvalid` for what could not be read again."""
        lines = [self.origin, str(self.size), _encoded(self.root), *self.extensions]
        text = "".join(f"{line}\n" for line in lines)
        if parse_checkpoint(text) != self:
            raise CheckpointInvalid("a line of the checkpoint holds a line break")
        return text

    @property
    def at(self) -> int | None:
        """When it was signed, in microseconds since the epoch, if it says so."""
        for line in self.extensions:
            found = _TIME.fullmatch(line)
            if found is not None:
                return _micros(found[1])
        return None

    @property
    def others(self) -> dict[str, int]:
        """The chains that it says are there too, with the sizes of their checkpoints."""
        found = (_ALSO.fullmatch(line) for line in self.extensions)
        return {match[1]: int(match[2]) for match in found if match is not None}


def extensions(at: int, others: Mapping[str, int] = _NO_OTHERS) -> tuple[str, ...]:
    """The extension lines of a checkpoint signed `at` microseconds since the epoch, knowing `others`: chain to size."""
    return (f"time {to_iso(at)}", *(f"also {chain} {size}" for chain, size in sorted(others.items())))


def _micros(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH
    except ValueError as error:
        raise CheckpointInvalid(f"the checkpoint's time {text!r} is none") from error
    return (moment.days * 86_400 + moment.seconds) * 1_000_000 + moment.microseconds


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint in a text; raises `CheckpointInvalid` unless writing it again gives the same text."""
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() or "" in lines:
        raise CheckpointInvalid("a checkpoint has three or more lines, none of them empty, each with a line break")
    if any(character < " " for line in lines for character in line):
        raise CheckpointInvalid("a checkpoint holds no control characters")
    origin, size, root, *extra = lines
    if not _SIZE.fullmatch(size):
        raise CheckpointInvalid(f"the size in a checkpoint is a decimal number without leading zeros, not {size!r}")
    return Checkpoint(origin, int(size), _decoded(root, _HASH_BYTES, "the root"), tuple(extra))


class Signature(NamedTuple):
    """One signature line of a note."""

    name: str
    key_id: bytes
    data: bytes
    """What the key's algorithm made: 64 bytes of Ed25519, with the moment before them when a witness signed."""
    verified: bool = False
    """True when `open_note` knew the key and the signature is good."""

    @property
    def line(self) -> str:
        """The line as it stands in a note, with its line break."""
        return f"{_DASH}{self.name} {_encoded(self.key_id + self.data)}\n"

    @property
    def seen_at(self) -> int:
        """When a witness signed, in seconds since the epoch; means nothing for a log's signature."""
        return int.from_bytes(self.data[:_MOMENT_BYTES], "big")


def parse_signature(line: str) -> Signature:
    """The signature in one line, without or with its line break; raises `CheckpointInvalid`."""
    name, space, encoded = line.removesuffix("\n").removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space:
        raise CheckpointInvalid("a signature line is an em dash, a space, the key's name, a space and base64")
    _require_name(name)
    data = _decoded(encoded, None, "a signature")
    if len(data) <= _KEY_ID_BYTES:
        raise CheckpointInvalid("a signature line holds four bytes of key id and a signature")
    return Signature(name, data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:])


class VerifierKey(NamedTuple):
    """The public half of a key that signs notes; `kind` is `LOG_KEY` or `WITNESS_KEY`."""

    name: str
    kind: int
    public: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key in C2SP's form `name+hex of its id+base64 of type and key`; raises `CheckpointInvalid`."""
        parts = text.split("+", 2)
        if len(parts) != 3:
            raise CheckpointInvalid("a verifier key is written name+id+key", hint="copy the whole line")
        name, key_id, encoded = parts
        _require_name(name)
        data = _decoded(encoded, 33, "a verifier key")
        if data[0] not in _SIGNATURE_BYTES:
            raise CheckpointInvalid(f"the verifier key has type {data[0]:#04x}; 0x01 and 0x04 (Ed25519) are read")
        key = cls(name, data[0], data[1:])
        if key_id != key.key_id.hex():
            raise CheckpointInvalid("the id in the verifier key is not that of its key", hint="copy it again")
        return key

    @classmethod
    def of_seed(cls, name: str, seed: bytes, kind: int = LOG_KEY) -> Self:
        """The public half of a 32 byte Ed25519 seed."""
        _require_name(name)
        return cls(name, kind, Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw())

    @property
    def key_id(self) -> bytes:
        """Four bytes that name the key in a signature line; they prove nothing."""
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:_KEY_ID_BYTES]

    @property
    def text(self) -> str:
        """The key as `parse` reads it."""
        return f"{self.name}+{self.key_id.hex()}+{_encoded(bytes([self.kind]) + self.public)}"

    def made(self, signature: Signature) -> bool:
        """Whether the line names this key."""
        return signature.name == self.name and signature.key_id == self.key_id

    def verify(self, text: str, signature: Signature) -> None:
        """Nothing when this key made the signature over this text, else `CheckpointInvalid`."""
        data = signature.data
        try:
            if not self.made(signature) or len(data) != _SIGNATURE_BYTES[self.kind]:
                raise InvalidSignature
            message = text if self.kind == LOG_KEY else _cosigned(text, signature.seen_at)
            Ed25519PublicKey.from_public_bytes(self.public).verify(data[-64:], message.encode())
        except InvalidSignature as error:
            raise CheckpointInvalid(f"the signature of {self.name} does not belong to this text") from error


class Signer:
    """Signs under a name with a 32 byte Ed25519 seed."""

    def __init__(self, name: str, seed: bytes) -> None:
        self.name = name
        self.key = VerifierKey.of_seed(name, seed)
        self._private = Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def verifier_key(self) -> str:
        """The public half, as `VerifierKey.parse` reads it."""
        return self.key.text

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """The whole signed note."""
        return self.sign_text(checkpoint.text())

    def sign_text(self, text: str) -> bytes:
        """A signed note of any text that ends with a line break. Its first line must say what kind of text it is."""
        signature = Signature(self.name, self.key.key_id, self._private.sign(text.encode()))
        return f"{text}\n{signature.line}".encode()


def cosign(text: str, name: str, seed: bytes, timestamp: int) -> Signature:
    """What a witness adds: at `timestamp`, seconds since the epoch, this was the largest consistent tree it had seen.

    Whoever calls it MUST have checked that the tree grew from the last one that was cosigned.
    """
    parse_checkpoint(text)
    private = Ed25519PrivateKey.from_private_bytes(seed)
    data = timestamp.to_bytes(_MOMENT_BYTES, "big") + private.sign(_cosigned(text, timestamp).encode())
    return Signature(name, VerifierKey.of_seed(name, seed, WITNESS_KEY).key_id, data)


def _cosigned(text: str, timestamp: int) -> str:
    return f"cosignature/v1\ntime {timestamp}\n{text}"


def add_signature(note: bytes, *signatures: Signature) -> bytes:
    """The note with these lines after its own; a line that is there already is not added again."""
    _, known = split_note(note)
    lines = {signature.line for signature in known}
    return note + "".join(dict.fromkeys(one.line for one in signatures if one.line not in lines)).encode()


def split_note(note: bytes) -> tuple[str, tuple[Signature, ...]]:
    """The text and the signature lines of a note; raises `CheckpointInvalid`. Nothing is verified yet."""
    if len(note) > NOTE_BYTES:
        raise CheckpointInvalid(f"a signed note has at most {NOTE_BYTES} bytes, not {len(note)}")
    try:
        whole = note.decode()
    except UnicodeDecodeError as error:
        raise CheckpointInvalid("a signed note is UTF-8") from error
    if any(character < " " and character != "\n" for character in whole):
        raise CheckpointInvalid("a signed note holds no control characters but line breaks")
    text, gap, signatures = whole.rpartition("\n\n")
    if not gap or not signatures.endswith("\n"):
        raise CheckpointInvalid("a signed note is a text, an empty line, and signatures each with a line break")
    return f"{text}\n", tuple(parse_signature(line) for line in signatures[:-1].split("\n"))


def open_note(note: bytes, *keys: VerifierKey) -> tuple[Checkpoint, tuple[Signature, ...]]:
    """The checkpoint of a signed note and all its signatures, those of `keys` verified; raises `CheckpointInvalid`.

    At least one log's key among `keys` must have signed; every line that names a known key must be good; lines of
    unknown keys are returned unverified, as C2SP has it. The caller compares the origin.
    """
    text, found = split_note(note)
    signatures: list[Signature] = []
    signed = False
    for signature in found:
        known = [key for key in keys if key.made(signature)]
        for key in known:
            key.verify(text, signature)
            signed = signed or key.kind == LOG_KEY
        signatures.append(signature._replace(verified=bool(known)))
    if not signed:
        raise CheckpointInvalid(
            "no key that is trusted signed this checkpoint",
            hint="give the verifier key of the log that issued it",
        )
    return parse_checkpoint(text), tuple(signatures)


def _require_name(name: str) -> None:
    if not name or any(character.isspace() or character < " " or character == "+" for character in name):
        raise CheckpointInvalid(f"the name of a key has neither spaces nor plus signs and is not empty: {name!r}")


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str, length: int | None, subject: str) -> bytes:
    """The bytes of exactly one base64 text: unused bits are zero, padding is there."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CheckpointInvalid(f"{subject} is not base64") from error
    if _encoded(data) != text:
        raise CheckpointInvalid(f"{subject} is not written as base64 writes it")
    if length is not None and len(data) != length:
        raise CheckpointInvalid(f"{subject} has {length} bytes, not {len(data)}")
    return data
