"""Signed checkpoints (first cut by the core engineer so that the ledger runs; the owner replaces it)."""
from __future__ import annotations
import base64
from hashlib import sha256
from typing import NamedTuple
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
class Checkpoint(NamedTuple):
    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n" + "".join(f"{e}\n" for e in self.extensions)
class Signer:
    def __init__(self, name: str, seed: bytes) -> None:
        self.name = name
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        public = self._key.public_key().public_bytes_raw()
        self._id = sha256(name.encode() + b"\n\x01" + public).digest()[:4]
        encoded = base64.b64encode(b"\x01" + public).decode()
        self.verifier_key = f"{name}+{self._id.hex()}+{encoded}"
    def sign(self, checkpoint: Checkpoint) -> bytes:
        text = checkpoint.text()
        signature = self._key.sign(text.encode())
        return f"{text}\n\u2014 {self.name} {base64.b64encode(self._id + signature).decode()}\n".encode()
