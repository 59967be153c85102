"""Sealed parts open with their one key or not at all, whatever somebody does to the bytes."""

from __future__ import annotations

import hashlib
import hmac
import os

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import Unreadable
from kiki.ledger.entry import Sealed
from kiki.ledger.sealing import ID_BYTES, KEY_BYTES, NONCE_BYTES, seal, unseal

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
KEY_ID, NONCE = bytes(range(100, 116)), bytes(range(200, 224))
TEXT = "customer:ölga@example.com".encode()

KEYS = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)
IDS = st.binary(min_size=ID_BYTES, max_size=ID_BYTES)
NONCES = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)


@given(KEYS, IDS, st.binary(), NONCES)
def test_what_was_sealed_is_read(key, key_id, text, nonce):
    """With the same key; the parts have the sizes that the format says."""
    sealed = seal(key, key_id, text, nonce)
    assert text == unseal(key, sealed)
    assert (key_id, nonce) == (sealed.key_id, sealed.nonce)
    assert (32, len(text) + 16) == (len(sealed.commitment), len(sealed.ciphertext))


@given(KEYS, KEYS, st.binary(), NONCES)
def test_another_key_opens_nothing(key, other, text, nonce):
    if key == other:
        return
    with pytest.raises(Unreadable, match="another key"):
        unseal(other, seal(key, KEY_ID, text, nonce))


def flipped(sealed):
    """Every copy of a sealed part with one bit of one of its pieces flipped."""
    for name in sealed.__struct_fields__:
        piece = getattr(sealed, name)
        for bit in range(8 * len(piece)):
            altered = (int.from_bytes(piece, "big") ^ (1 << bit)).to_bytes(len(piece), "big")
            yield Sealed(**{each: getattr(sealed, each) for each in sealed.__struct_fields__} | {name: altered})


def test_every_flipped_bit_is_refused():
    """In the key's id, the nonce, the commitment and the ciphertext with its tag."""
    count = 0
    for altered in flipped(seal(KEY, KEY_ID, TEXT, NONCE)):
        count += 1
        with pytest.raises(Unreadable):
            unseal(KEY, altered)
    assert 8 * (ID_BYTES + NONCE_BYTES + 32 + len(TEXT) + 16) == count


@pytest.mark.parametrize("piece", Sealed.__struct_fields__)
@pytest.mark.parametrize("cut", [lambda data: data[:0], lambda data: data[:-1], lambda data: data + b"\x00"])
def test_cut_and_padded_parts_are_refused(piece, cut):
    """Also an empty ciphertext, which is shorter than any tag, is `Unreadable` and no other error."""
    sealed = seal(KEY, KEY_ID, TEXT, NONCE)
    pieces = {each: getattr(sealed, each) for each in Sealed.__struct_fields__}
    with pytest.raises(Unreadable):
        unseal(KEY, Sealed(**pieces | {piece: cut(pieces[piece])}))


@given(st.lists(NONCES, min_size=2, max_size=2, unique=True), st.binary(min_size=1))
def test_the_same_text_never_looks_the_same(nonces, text):
    """Each nonce makes a key of its own: neither ciphertext nor commitment says that two texts are equal."""
    one, other = (seal(KEY, KEY_ID, text, nonce) for nonce in nonces)
    assert one.commitment != other.commitment
    assert one.ciphertext != other.ciphertext


def test_a_part_cannot_be_moved_to_another_owner():
    """The key's id is authenticated: under another id even the right key refuses."""
    sealed = seal(KEY, KEY_ID, TEXT, NONCE)
    with pytest.raises(Unreadable, match="altered"):
        unseal(KEY, Sealed(bytes(16), sealed.nonce, sealed.commitment, sealed.ciphertext))


# -- what two keys could read ---------------------------------------------------------------------------


def carryless(a, b):
    """The product in GF(2**128) as GHASH has it (NIST SP 800-38D, algorithm 1)."""
    product = 0
    for bit in range(127, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (0xE1 << 120 if b & 1 else 0)
    return product


def inverse(a):
    """By Fermat: a**(2**128 - 2)."""
    result, power = 1 << 127, a
    for _ in range(127):
        power = carryless(power, power)
        result = carryless(result, power)
    return result


def block_cipher(key, block):
    # One block of bare AES is what the hash key and the mask of a tag are made of.
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def ciphertext_of_two_keys(one, other, aad):
    """A ciphertext with tag that AES-256-GCM opens under both keys with nonce 0: the attack that commitment is for.

    One block is chosen such that both tags agree: the tag is linear in every block.
    """

    def parts(key):
        h = int.from_bytes(block_cipher(key, bytes(16)), "big")
        mask = int.from_bytes(block_cipher(key, bytes(12) + (1).to_bytes(4, "big")), "big")
        lengths = 8 * len(aad) << 64 | 8 * 16
        square = carryless(h, h)
        # tag = aad * h^3 + c * h^2 + lengths * h + mask, with one block of aad and one of ciphertext
        rest = carryless(int.from_bytes(aad, "big"), carryless(square, h)) ^ carryless(lengths, h) ^ mask
        return square, rest

    (square, rest), (other_square, other_rest) = parts(one), parts(other)
    block = carryless(rest ^ other_rest, inverse(square ^ other_square))
    tag = carryless(block, square) ^ rest
    return block.to_bytes(16, "big") + tag.to_bytes(16, "big")


def test_two_keys_never_open_one_part():
    """Plain AES-GCM opens one ciphertext under two keys, as is shown here; a sealed part it does not."""
    one, other = (hmac.digest(key, b"kiki sealed part, version 1" + NONCE, "sha512") for key in (KEY, OTHER))
    forged = ciphertext_of_two_keys(one[:32], other[:32], KEY_ID)
    texts = [AESGCM(derived[:32]).decrypt(bytes(12), forged, KEY_ID) for derived in (one, other)]
    assert texts[0] != texts[1]  # the attack works on the cipher
    for commitment in (one[32:], other[32:], bytes(32)):
        opened = []
        for key in (KEY, OTHER):
            try:
                opened.append(unseal(key, Sealed(KEY_ID, NONCE, commitment, forged)))
            except Unreadable:
                continue
        assert len(opened) <= 1


# -- the format, for ever -------------------------------------------------------------------------------

VECTOR = Sealed(
    KEY_ID,
    NONCE,
    bytes.fromhex("9cb7bc1cf509b816c76a14babdc2750be8b9e83e706ca3a629e795f9c6a9b258"),
    bytes.fromhex("ecfae7a7dd2603df85e1c2d925e4196697a8b5e24eba9649aae3356418fcfaca76c8b0aae82531d5a57b"),
)


def test_what_was_sealed_once_is_readable_for_ever():
    """The published vector: key 00..1f, id 64..73, nonce c8..df."""
    assert TEXT == unseal(KEY, VECTOR)
    assert VECTOR == seal(KEY, KEY_ID, TEXT, NONCE)


def test_the_vector_follows_from_the_words_of_the_format():
    """Made again with other means: RFC 2104 by hand, and the cipher's own streaming form."""
    block = KEY + bytes(128 - len(KEY))
    inner = hashlib.sha512(bytes(each ^ 0x36 for each in block) + b"kiki sealed part, version 1" + NONCE).digest()
    derived = hashlib.sha512(bytes(each ^ 0x5C for each in block) + inner).digest()
    encryptor = Cipher(algorithms.AES(derived[:32]), modes.GCM(bytes(12))).encryptor()
    encryptor.authenticate_additional_data(KEY_ID)
    ciphertext = encryptor.update(TEXT) + encryptor.finalize() + encryptor.tag
    assert VECTOR == Sealed(KEY_ID, NONCE, derived[32:], ciphertext)


def test_nothing_of_text_or_key_stands_in_a_part():
    """Neither as it is nor in the messages of what fails."""
    key, text = os.urandom(32), b"alice@example.com"
    sealed = seal(key, KEY_ID, text, NONCE)
    stored = b"".join(getattr(sealed, each) for each in Sealed.__struct_fields__)
    assert text not in stored
    assert key not in stored
    with pytest.raises(Unreadable) as refused:
        unseal(OTHER, sealed)
    assert key.hex() not in repr(refused.value)
    assert "alice" not in repr(refused.value)
