"""Queries hold what was asked for, once each, and numbers within their bounds; whatever else is refused by its name."""

from __future__ import annotations

import pytest

from kiki.errors import InvalidInput
from kiki.members import limit_of, number_of, read_query, require_no_query


def test_what_may_be_repeated_is_told_apart():
    assert read_query([("a", "1"), ("s", "x"), ("s", "y")], ("a", "b"), many="s") == ({"a": "1"}, ["x", "y"])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ([("a", "1"), ("a", "2")], "the parameter 'a' is given twice; send it once"),
        ([("limti", "1")], "there is no parameter 'limti'; did you mean 'limit'?"),
        ([("zzz", "1")], "there is no parameter 'zzz'; known are a, limit"),
    ],
)
def test_what_is_unknown_or_repeated_is_refused(query, said):
    with pytest.raises(InvalidInput) as caught:
        read_query(query, ("a", "limit"))
    assert str(caught.value) == said


def test_a_request_that_takes_none_says_so():
    require_no_query([])
    with pytest.raises(InvalidInput, match="this request takes no parameters"):
        require_no_query([("a", "1")])


def test_numbers_stay_within_their_bounds():
    assert number_of({}, "after", default=7, least=0, most=9) == 7
    assert number_of({"after": "0"}, "after", default=7, least=0, most=9) == 0
    assert limit_of({"limit": "100"}, default=7, most=100) == 100
    for text in ("0", "101", "-1", "1.5", "٣", "", " 1", "1_0", "9" * 17):
        with pytest.raises(InvalidInput, match="write a whole number from 1 to 100"):
            limit_of({"limit": text}, default=7, most=100)
