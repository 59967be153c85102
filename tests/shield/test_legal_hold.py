"""Legal holds: rules and projection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidInput
from kiki.shield.fact import LegalHeld
from kiki.shield.legal_hold import LEGAL_HOLD, LegalHold, hold_key, holds_prefix, parse_reference, read_hold, writes_of

SUBJECTS = st.sampled_from(["", "ab" * 16, "cd" * 16])
REFERENCES = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=30)


@given(subject=SUBJECTS, reference=REFERENCES, at=st.integers(0, 2**62), seq=st.integers(0, 2**40))
def test_what_is_written_is_read(subject, reference, at, seq):
    (write,) = writes_of(LegalHeld(at, subject, on=True, reference=reference, actor="anna"), "chain", seq)
    assert write.space == LEGAL_HOLD
    assert LegalHold(reference, subject, at, "anna", "chain", seq) == read_hold(write.key, write.value)
    assert write.key.startswith(holds_prefix(subject))


@given(one=st.tuples(SUBJECTS, REFERENCES), other=st.tuples(SUBJECTS, REFERENCES))
def test_holds_do_not_share_a_place(one, other):
    assert (one == other) == (hold_key(*one) == hold_key(*other))


def test_lifting_removes_the_row():
    (write,) = writes_of(LegalHeld(1, "ab" * 16, on=False, reference="m"), "chain", 1)
    assert (LEGAL_HOLD, hold_key("ab" * 16, "m"), None) == write


@pytest.mark.parametrize("reference", ["", "  ", "x" * 65, "a\tb", "a\0", None, 7])
def test_a_matter_has_a_name(reference: object):
    with pytest.raises(InvalidInput):
        parse_reference(reference)
