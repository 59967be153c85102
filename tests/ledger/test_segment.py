"""What a segment is: its name, its row, and where it ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput, LedgerCorrupt
from kiki.ledger.segment import SEGMENTS, Segment, cut, parse_name, read_segment, segment_key, segment_write

sequences = st.integers(0, 2**63 - 1)


@st.composite
def segments(draw):
    first, last = sorted(draw(st.tuples(sequences, sequences)))
    return Segment(
        chain=draw(st.from_regex(r"[0-9a-f]{16}", fullmatch=True)),
        first=first,
        last=last,
        at=draw(sequences),
        note=draw(st.binary()),
        sha256=draw(st.binary(max_size=32)),
        version=draw(st.text()),
        shipped_at=draw(sequences),
    )


@given(segments())
def test_a_row_gives_the_segment_back(segment):
    space, key, value = segment_write(segment)
    assert SEGMENTS == space
    assert segment_key(segment.first) == key
    assert segment == read_segment(segment.chain, key, value)


@given(segments())
def test_a_name_gives_chain_and_bounds_back(segment):
    assert (segment.chain, segment.first, segment.last) == parse_name(segment.name)


@given(segments(), segments())
def test_names_of_a_chain_sort_as_the_entries_do(one, other):
    one, other = (Segment(chain="c", first=each.first, last=each.last, at=0, note=b"") for each in (one, other))
    assert ((one.first, one.last) < (other.first, other.last)) == (one.name < other.name)


def test_the_name_is_as_documented():
    segment = Segment(chain="5f0c2a9b7d3e4f10", first=65_536, last=131_071, at=0, note=b"")
    assert "5f0c2a9b7d3e4f10/00000000000000065536-00000000000000131071.kiki" == segment.name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "5f0c/1-2.kiki",
        "5f0c/00000000000000000002-00000000000000000001.kiki",
        "../00000000000000000001-00000000000000000002.kiki",
        "5f0c/00000000000000000001-00000000000000000002.kiki\n",
        "5f0c/00000000000000000001-00000000000000000002.kiki.partial",
        "5f0c/0000000000000000000\u0661-00000000000000000002.kiki",
    ],
)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InvalidInput, match="is not the name of a segment"):
        parse_name(name)


@pytest.mark.parametrize(("key", "value"), [(segment_key(1), b"\xc0"), (segment_key(1), b""), (b"k", None)])
def test_a_row_that_nobody_wrote_is_corrupt(key, value):
    good = segment_write(Segment(chain="c", first=1, last=2, at=3, note=b"n")).value
    with pytest.raises(LedgerCorrupt):
        read_segment("c", key, good if value is None else value)


def test_a_row_that_ends_before_it_begins_is_corrupt():
    row = segment_write(Segment(chain="c", first=5, last=4, at=3, note=b"n"))
    with pytest.raises(LedgerCorrupt, match="names no stretch"):
        read_segment("c", row.key, row.value)


@pytest.mark.parametrize(
    ("first", "sizes", "expected"),
    [
        (0, [], None),
        (10, [5, 10], None),
        (0, [5], 5),
        (0, [5, 100], 100),
        (0, [5, 100, 101], 100),
        (0, [150, 160], 150),  # checkpoints lie further apart than a segment is long
        (100, [100, 150, 200, 201], 200),
    ],
)
def test_a_segment_ends_at_a_checkpoint(first, sizes, expected):
    assert expected == cut(first, sizes, 100)


@given(st.integers(0, 1000), st.lists(st.integers(1, 3000), unique=True, max_size=50).map(sorted), st.integers(1, 500))
def test_segments_cover_everything_that_was_signed_without_a_gap(first, sizes, most):
    """Cutting again and again reaches the last checkpoint; a segment is too long only where there was none between."""
    while (end := cut(first, sizes, most)) is not None:
        assert end in sizes
        assert first < end
        assert end - first <= most or not any(first < size < end for size in sizes)
        first = end
    assert not sizes or first >= sizes[-1]
