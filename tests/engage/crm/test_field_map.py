"""Values of a CRM's fields: one that makes no sense, or that no store can hold, is told and left out."""

from __future__ import annotations

from decimal import Decimal

import pytest

from kiki.engage.crm.field_map import profile_of


@pytest.mark.parametrize("value", ["1e9000000", "10000000000", 2**63, Decimal("1E+999999"), "-1", "1.5", "NaN", "x"])
def test_a_count_is_looked_at_before_it_is_made(value):
    problems: list[str] = []
    assert 0 == profile_of("c-1", 0, {"orders": value}, {"purchase_count": "orders"}, problems).purchase_count
    assert ["customer 'c-1': field orders: purchase_count is a whole number, not below zero"] == problems


@pytest.mark.parametrize(("value", "count"), [("3", 3), ("3.0", 3), (3, 3), (3.0, 3), ("1e3", 1000), (Decimal(7), 7)])
def test_a_count_may_be_written_in_many_ways(value, count):
    assert count == profile_of("c-1", 0, {"orders": value}, {"purchase_count": "orders"}).purchase_count


@pytest.mark.parametrize("millis", [10**18, -(10**18), 2**63])
def test_a_moment_is_one_that_there_is(millis):
    problems: list[str] = []
    assert profile_of("c-1", 0, {"seen": millis}, {"last_engagement": "seen"}, problems).last_engagement is None
    assert 1 == len(problems)
