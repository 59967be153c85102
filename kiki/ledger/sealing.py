"""Encryption of what is personal, such that destroying one small key makes it unreadable for ever. Pure.

Each part has a key of its own, derived from its owner's key and a random nonce: HMAC-SHA-512(key, label || nonce),
of which the first half encrypts (AES-256-GCM, RFC 5116) and the second half is stored as a commitment. The
commitment ties the ciphertext to one key: AES-GCM alone can be made to open to two texts under two keys
(Albertini et al., "How to Abuse and Fix Authenticated Encryption Without Key Commitment", 2022, section 5).
Because the encrypting key is used once, its GCM nonce is constant, and no count of messages under one owner's
key comes near a bound: 24 random bytes do not repeat.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kiki.errors import Unreadable
from kiki.ledger.entry import Sealed

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 24
ID_BYTES: Final = 16
_LABEL: Final = b"kiki sealed part, version 1"
_USED_ONCE: Final = bytes(12)


def seal(key: bytes, key_id: bytes, text: bytes, nonce: bytes) -> Sealed:
    """`text` readable only with `key`. `nonce` is 24 bytes of good randomness, never used twice with one key."""
    derived = hmac.digest(key, _LABEL + nonce, "sha512")
    ciphertext = AESGCM(derived[:32]).encrypt(_USED_ONCE, text, key_id)
    return Sealed(key_id, nonce, derived[32:], ciphertext)


def unseal(key: bytes, sealed: Sealed) -> bytes:
    """The text again; raises `Unreadable` when this is another key or any byte was altered."""
    derived = hmac.digest(key, _LABEL + sealed.nonce, "sha512")
    if not hmac.compare_digest(derived[32:], sealed.commitment):
        raise Unreadable("a sealed part was made with another key")
    try:
        return AESGCM(derived[:32]).decrypt(_USED_ONCE, sealed.ciphertext, sealed.key_id)
    except InvalidTag:
        raise Unreadable("a sealed part was altered") from None
