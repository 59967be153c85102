"""Values of a CRM's fields: one that makes no sense, or that no store can hold, is told and left out."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from kiki.engage.crm.field_map import profile_of
from kiki.errors import InvalidInput


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


@pytest.mark.parametrize("value", ["true", "Yes", "y", "t", "1", "1.0", 1, True, Decimal(1)])
def test_an_opt_out_may_be_written_in_many_ways(value):
    assert profile_of("c-1", 0, {"out": value}, {"email_opt_out": "out"}).email_marketing is False


@pytest.mark.parametrize("value", ["false", "No", "n", "f", "0", "0.0", 0, False, " ", "", None])
def test_who_did_not_opt_out_is_the_shields_to_judge(value):
    assert profile_of("c-1", 0, {"out": value}, {"email_opt_out": "out"}).email_marketing is None


@pytest.mark.parametrize("field", ["email_opt_out", "email_marketing"])
@pytest.mark.parametrize("value", ["ja", "opted out", "x", 2, datetime(2026, 1, 5, tzinfo=UTC)])
def test_a_word_about_permission_that_is_not_understood_forbids_and_is_told(field, value):
    problems: list[str] = []
    assert profile_of("c-1", 0, {"mail": value}, {field: "mail"}, problems).email_marketing is False
    assert [f"customer 'c-1': field mail: {field} is true or false, or yes or no"] == problems
    with pytest.raises(InvalidInput, match="true or false"):
        profile_of("c-1", 0, {"mail": value}, {field: "mail"})


@pytest.mark.parametrize("row", [{"may": "no", "out": "no"}, {"may": "yes", "out": "yes"}])
@pytest.mark.parametrize(
    "fields",
    [{"email_marketing": "may", "email_opt_out": "out"}, {"email_opt_out": "out", "email_marketing": "may"}],
)
def test_of_two_fields_about_one_permission_the_one_that_forbids_counts(row, fields):
    assert profile_of("c-1", 0, row, fields).email_marketing is False
