"""The one key that opens the key store. It comes from outside and is never written beside what it opens.

Where it comes from: a file (mode 0600, made at the first start of an embedded ledger), a variable, or the
output of a command that asks a KMS or a vault. Its text is 32 random bytes in base64 or hexadecimal.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import shlex
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kiki.errors import MasterKeyError
from kiki.ledger.secret_file import write_secret_file
from kiki.settings import Secret

KEY_BYTES: Final = 32
COMMAND_SECONDS: Final = 30
_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_ACCEPTED: Final = "a master key is 32 random bytes in base64 (44 characters) or hexadecimal (64 digits)"


class MasterKey:
    """Wraps other keys with AES-256-GCM. It prints as its id, which tells nothing about it."""

    __slots__ = ("_cipher", "id")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise MasterKeyError(f"the master key has {len(key)} bytes: {_ACCEPTED}")
        self._cipher = AESGCM(key)
        self.id = sha256(b"kiki master key" + key).digest()[:_ID_BYTES]

    @classmethod
    def parse(cls, text: str, source: str) -> MasterKey:
        """The key in a text; raises `MasterKeyError` without repeating it."""
        text = text.strip()
        try:
            key = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            key = b""
        if len(key) != KEY_BYTES:
            raise MasterKeyError(f"{source} holds no master key: {_ACCEPTED}")
        return cls(key)

    def wrap(self, name: bytes, secret: bytes) -> bytes:
        """`secret` encrypted, tied to `name`: id, nonce, ciphertext."""
        nonce = os.urandom(_NONCE_BYTES)
        return self.id + nonce + self._cipher.encrypt(nonce, secret, name)

    def unwrap(self, name: bytes, wrapped: bytes) -> bytes:
        """What was wrapped under that name; raises `MasterKeyError` when another key did it."""
        if wrapped[:_ID_BYTES] != self.id:
            raise MasterKeyError(
                f"this is master key {self.id.hex()}, and the key store was locked with {wrapped[:_ID_BYTES].hex()}",
                hint="start with the key that it was locked with; nothing was changed, and without that key "
                "everything personal stays unreadable",
            )
        nonce, ciphertext = wrapped[_ID_BYTES:][:_NONCE_BYTES], wrapped[_ID_BYTES + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, ciphertext, name)
        except (InvalidTag, ValueError):  # the latter where next to nothing of it is left
            raise MasterKeyError(
                f"a key in the key store ({name.decode('ascii', 'replace')}) was altered",
                hint="restore the key store from a backup; nothing was changed",
            ) from None

    def __repr__(self) -> str:
        return f"MasterKey({self.id.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a MasterKey is not pickled or copied; pass it on as it is")


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the master key comes from: one of text, command and file, in this order."""

    file: Path | None = None
    text: Secret | None = None
    command: str | None = None
    may_create: bool = False
    """The file may be made at a first start, when nothing is locked yet."""

    def read(self) -> MasterKey | None:
        """The key; None when it would come from a file that does not exist. Raises `MasterKeyError`."""
        if self.text:
            return MasterKey.parse(self.text.reveal(), "KIKI_MASTER_KEY")
        if self.command:
            return MasterKey.parse(_output(self.command), "the output of KIKI_MASTER_KEY_COMMAND")
        if self.file is None:
            return None
        return _read_file(self.file)

    def create(self) -> MasterKey:
        """A new random key, in its file; raises `MasterKeyError` where none may be made."""
        if self.file is None or not self.may_create:
            raise MasterKeyError(
                "there is no master key, and with a shared database none is made: every replica needs the same one",
                hint="make one with `openssl rand -base64 32`, keep it in your secret store, and hand it over as "
                "KIKI_MASTER_KEY, KIKI_MASTER_KEY_FILE or KIKI_MASTER_KEY_COMMAND",
            )
        text = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        try:
            write_secret_file(self.file, text)
        except OSError as error:
            raise MasterKeyError(f"the master key cannot be written to {self.file}: {error.strerror}") from error
        return MasterKey.parse(text, str(self.file))


def _output(command: str) -> str:
    try:
        words = shlex.split(command)
        done = subprocess.run(words, capture_output=True, check=False, timeout=COMMAND_SECONDS, text=True)
    except (ValueError, OSError, subprocess.TimeoutExpired) as error:
        raise MasterKeyError(f"KIKI_MASTER_KEY_COMMAND did not answer: {type(error).__name__}") from None
    if done.returncode:
        # Its words may quote a secret; they went to nobody, and the exit code is enough to try it by hand.
        raise MasterKeyError(
            f"KIKI_MASTER_KEY_COMMAND ended with exit code {done.returncode}", hint="run it by hand to see why"
        )
    return done.stdout


def _read_file(path: Path) -> MasterKey | None:
    try:
        with path.open(encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            text = file.read(4096)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise MasterKeyError(f"the master key file {path} cannot be read: {error}") from error
    # A mounted secret belongs to root and is read through a group: that much is usual. Others never.
    if mode & 0o027:
        raise MasterKeyError(
            f"the master key file {path} has mode {mode:04o}: others could read or change it", hint=f"chmod 600 {path}"
        )
    return MasterKey.parse(text, str(path))
