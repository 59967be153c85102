"""The bytes of an entry: what is written can be read for ever, and nothing else can."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import LedgerCorrupt
from kiki.ledger.entry import VERSION, decode_entry, encode_entry, leaf_hash


class Noted(msgspec.Struct, array_like=True, tag="noted", frozen=True):
    """A fact of no domain."""

    number: int
    text: str
    blob: bytes


INT64 = st.integers(-(2**63), 2**63 - 1)
MOMENTS = st.integers(0, 2**63 - 1)


@given(MOMENTS, MOMENTS, INT64, st.text(), st.binary())
def test_what_is_written_is_read(seq, recorded_at, number, text, blob):
    """Sequence, moment and fact come back, and encoding them again gives the same bytes."""
    fact = Noted(number, text, blob)
    data = encode_entry(seq, recorded_at, fact)
    entry = decode_entry(data)
    assert (seq, recorded_at, []) == (entry.seq, entry.recorded_at, entry.sealed)
    assert fact == msgspec.msgpack.decode(entry.fact, type=Noted)
    assert data == encode_entry(entry.seq, entry.recorded_at, fact)


def test_the_first_byte_is_the_version():
    """A reader knows before it decodes whether it can."""
    assert encode_entry(0, 0, Noted(0, "", b""))[0] == VERSION == 1


def test_the_bytes_of_version_1_are_fixed():
    """An entry is the version byte and a MessagePack array of four."""
    expected = b"\x01" + b"\x94" + b"\x07" + b"\x09" + b"\x94\xa5noted\x05\xa1x\xc4\x01y" + b"\x90"
    assert expected == encode_entry(7, 9, Noted(5, "x", b"y"))


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x02\x94\x00\x00\x90\x90", b"\xff"])
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


@pytest.mark.parametrize("body", [b"\x90", b"\x93\x01\x02", b"\x94\xa1a\x00\xc0\x90", b"\x80", b"\x01"])
def test_another_shape_is_corrupt(body):
    """An array of the wrong length or types is no entry."""
    with pytest.raises(LedgerCorrupt, match="cannot be read"):
        decode_entry(b"\x01" + body)


def test_a_leaf_is_hashed_as_rfc_6962_says():
    """A zero byte before the stored bytes keeps leaves and nodes apart."""
    data = encode_entry(1, 2, Noted(3, "", b""))
    assert sha256(b"\x00" + data).digest() == leaf_hash(data)
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
