"""Pmfs of many rows: each the model's own, long enough, and tilted to the mean that is asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiki.value import count_pmf, nbd
from kiki.value.count_pmf import TAIL, pieces, tilted
from kiki.value.groups import Groups
from kiki.value.mixture import Mixture
from tests.value.test_mixture import GROUPS, MIXED, PARAMETERS


def gathered(mixture, h, groups, group=None, stretch=None, least=None):
    """The pmf of every row, by row."""
    group = np.arange(groups.x.size) if group is None else group
    stretch = np.ones(group.size) if stretch is None else stretch
    least = np.zeros(group.size, dtype=np.int64) if least is None else least
    found = {}
    for piece in pieces(mixture, h, groups, group, stretch, least):
        found |= dict(zip(piece.rows.tolist(), piece.pmf, strict=True))
    assert list(range(group.size)) == sorted(found)
    return [found[row] for row in range(group.size)]


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("h", [0.01, 39.0, 520.0])
def test_every_row_is_the_models_pmf_and_long_enough(name, h):
    mixture = Mixture.of(name, PARAMETERS[name])
    groups = Groups(*(column[1:6] for column in GROUPS))
    for place, pmf in enumerate(gathered(mixture, h, groups)):
        one = Groups(*(column[place : place + 1] for column in groups))
        exact = mixture.pmf(h, one, pmf.size - 1)[0]
        assert exact == pytest.approx(pmf, abs=2 * TAIL)
        assert pmf.sum() == pytest.approx(1, abs=1e-12)
        assert mixture.expected(h, one)[0] == pytest.approx(pmf @ np.arange(pmf.size), rel=1e-3)


def test_frequent_buyers_over_ten_years_get_long_tables():
    (pmf,) = gathered(MIXED, 520.0, Groups.of([500], [70], [72]))
    assert pmf.size > 4000
    assert MIXED.expected(520.0, Groups.of([500], [70], [72]))[0] == pytest.approx(pmf @ np.arange(pmf.size), rel=1e-3)


def test_rows_of_one_group_are_equal_and_blocks_do_not_matter(monkeypatch):
    group = np.array([3, 1, 3, 5, 0, 1])
    whole = gathered(MIXED, 39.0, GROUPS, group)
    assert whole[0].tolist() == whole[2].tolist()
    monkeypatch.setattr(count_pmf, "_NUMBERS", 40)
    for first, second in zip(whole, gathered(MIXED, 39.0, GROUPS, group), strict=True):
        assert first == pytest.approx(second, abs=1e-15)


def test_a_larger_mean_and_a_count_that_was_seen_make_room():
    one = Groups.of([2], [30.43], [38.86])
    (plain,), (stretched,) = gathered(MIXED, 39.0, one), gathered(MIXED, 39.0, one, stretch=np.array([8.0]))
    assert stretched.size >= 4 * plain.size
    (seen,) = gathered(MIXED, 39.0, one, least=np.array([300]))
    assert seen.size > 300


def test_nobody_is_given_an_unbounded_table(monkeypatch):
    monkeypatch.setattr(count_pmf, "MOST", 63)
    (pmf,) = gathered(MIXED, 520.0, Groups.of([500], [70], [72]))
    assert pmf.size == 64
    assert pmf.sum() == pytest.approx(1)


@settings(max_examples=80, deadline=None)
@given(ratio=st.floats(0.02, 6), h=st.floats(0.1, 100))
def test_a_tilted_pmf_has_the_mean_that_is_asked_for(ratio, h):
    pmf = MIXED.pmf(h, GROUPS, 255)[1:6]
    pmf /= pmf.sum(axis=1, keepdims=True)
    n = np.arange(256)
    target = np.minimum(ratio * (pmf @ n), 0.999 * 255)
    found = tilted(pmf, np.full(5, ratio))
    assert (found >= 0).all()
    assert np.ones(5) == pytest.approx(found.sum(axis=1))
    assert target == pytest.approx(found @ n, rel=1e-6)


def test_a_tilted_nbd_is_the_nbd_of_another_rate():
    r, alpha = PARAMETERS["nbd"]
    one = Groups.of([3], [30], [39])
    pmf = nbd.pmf(np.array([r, alpha]), 39.0, one, 400)
    faster = nbd.pmf(np.array([r, alpha]), 1.7 * 39.0, one, 400)
    assert faster == pytest.approx(tilted(pmf, np.array([1.7])), abs=1e-9)


def test_a_ratio_of_one_and_a_customer_who_is_gone_change_nothing():
    pmf = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    assert pmf.tolist() == tilted(pmf, np.array([1.0, 3.0, 1.0])).tolist()


def test_a_ratio_beyond_the_table_ends_near_its_end():
    pmf = np.array([[0.5, 0.3, 0.2]])
    found = tilted(pmf, np.array([100.0]))
    assert np.isfinite(found).all()
    assert found @ np.arange(3) == pytest.approx([0.999 * 2])
