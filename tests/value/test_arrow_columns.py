"""Lines sorted by the quick kernels stand as Python itself would sort them, whatever the ids are made of."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

from kiki.value.arrow_columns import sorted_lines

LETTERS = st.sampled_from("ab9-~\x01éß😀")
SHORT = st.text(LETTERS, max_size=8).filter(lambda text: len(text.encode()) <= 8)
LONG = st.text(LETTERS | st.just("\0"), max_size=20)
DAYS = st.integers(-20_000, 40_000)


@given(st.lists(st.tuples(SHORT, DAYS), min_size=1) | st.lists(st.tuples(LONG, DAYS), min_size=1))
def test_texts_stand_by_code_point_then_day_then_place(lines):
    _check([text for text, _ in lines], lines, "str")


@given(st.lists(st.tuples(st.integers(-200, 10**12), DAYS), min_size=1))
def test_whole_numbers_stand_as_their_text(lines):
    _check([str(number) for number, _ in lines], lines, "int64")


def _check(ids, lines, dtype):
    day = np.array([day for _, day in lines], dtype=np.int64)
    found = sorted_lines(pd.Series([each for each, _ in lines], dtype=dtype), day.copy())
    expected = sorted(range(len(ids)), key=lambda place: (ids[place], day[place], place))
    assert found.place.tolist() == expected
    assert [found.ids[row] for row in found.customer] == [ids[place] for place in expected]
    assert found.ids.tolist() == sorted(set(ids))
    assert found.day.tolist() == [int(day[place]) for place in expected]
