"""The bytes of an entry: what is written can be read for ever, and nothing else can."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import LedgerCorrupt
from kiki.ledger.entry import VERSION, Sealed, decode_entry, encode_entry, leaf_hash


class Noted(msgspec.Struct, array_like=True, tag="noted", frozen=True):
    """A fact of no domain."""

    number: int
    text: str
    blob: bytes


INT64 = st.integers(-(2**63), 2**63 - 1)
MOMENTS = st.integers(0, 2**63 - 1)
SEALED = st.lists(st.builds(Sealed, st.binary(), st.binary(), st.binary(), st.binary()), max_size=3)


@given(MOMENTS, MOMENTS, INT64, st.text(), st.binary(), SEALED)
def test_what_is_written_is_read(seq, recorded_at, number, text, blob, sealed):
    """Sequence, moment, fact and sealed parts come back, and encoding them again gives the same bytes."""
    fact = Noted(number, text, blob)
    data = encode_entry(seq, recorded_at, fact, sealed)
    entry = decode_entry(data)
    assert (seq, recorded_at, sealed) == (entry.seq, entry.recorded_at, entry.sealed)
    assert fact == msgspec.msgpack.decode(entry.fact, type=Noted)
    assert data == encode_entry(entry.seq, entry.recorded_at, fact, entry.sealed)


def test_the_first_byte_is_the_version():
    """A reader knows before it decodes whether it can."""
    assert encode_entry(0, 0, Noted(0, "", b""))[0] == VERSION == 2


def test_the_bytes_of_version_2_are_fixed():
    """An entry is the version byte and a MessagePack array of four, of which the last lists the sealed parts."""
    head = b"\x02" + b"\x94" + b"\x07" + b"\x09" + b"\x94\xa5noted\x05\xa1x\xc4\x01y"
    assert head + b"\x90" == encode_entry(7, 9, Noted(5, "x", b"y"))
    part = b"\x94\xc4\x01i\xc4\x01n\xc4\x01c\xc4\x01t"
    assert head + b"\x92" + part * 2 == encode_entry(7, 9, Noted(5, "x", b"y"), [Sealed(b"i", b"n", b"c", b"t")] * 2)


def test_version_1_is_still_read():
    """It is the same array, of which the last was always empty."""
    entry = decode_entry(b"\x01" + b"\x94" + b"\x07" + b"\x09" + b"\x94\xa5noted\x05\xa1x\xc4\x01y" + b"\x90")
    assert (7, 9, []) == (entry.seq, entry.recorded_at, entry.sealed)
    assert Noted(5, "x", b"y") == msgspec.msgpack.decode(entry.fact, type=Noted)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x03\x94\x00\x00\x90\x90", b"\xff"])
def test_another_version_is_named(data):
    """What no known version wrote raises with what was found."""
    with pytest.raises(LedgerCorrupt, match="no bytes" if not data else f"version {data[0]}"):
        decode_entry(data)


@given(st.data())
def test_a_torn_entry_is_corrupt(data):
    """No proper prefix of an entry reads as one, and nothing may follow it."""
    whole = encode_entry(data.draw(MOMENTS), data.draw(MOMENTS), Noted(1, data.draw(st.text()), b"z"))
    with pytest.raises(LedgerCorrupt):
        decode_entry(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(LedgerCorrupt):
        decode_entry(whole + b"\x00")


@pytest.mark.parametrize("version", [b"\x01", b"\x02"])
@pytest.mark.parametrize(
    "body",
    [
        b"\x90",
        b"\x93\x01\x02",
        b"\x94\xa1a\x00\xc0\x90",
        b"\x80",
        b"\x01",
        b"\x94\x00\x00\x90\x91\x93\xc4\x00\xc4\x00\xc4\x00",
    ],
)
def test_another_shape_is_corrupt(version, body):
    """An array of the wrong length or types is no entry, nor is one with a sealed part that lacks a piece."""
    with pytest.raises(LedgerCorrupt, match="cannot be read"):
        decode_entry(version + body)


def test_a_leaf_is_hashed_as_rfc_6962_says():
    """A zero byte before the stored bytes keeps leaves and nodes apart."""
    data = encode_entry(1, 2, Noted(3, "", b""))
    assert sha256(b"\x00" + data).digest() == leaf_hash(data)
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
