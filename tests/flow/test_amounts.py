"""Micros to what platforms count in, and back."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.flow.platforms.amounts import (
    billed_micros,
    dump,
    exact_micros,
    smallest_unit,
    whole_currency,
    wrong_amounts,
)
from kiki.money import MICROS_MAX


@pytest.mark.parametrize(
    ("currency", "unit"), [("USD", 10_000), ("JPY", 1_000_000), ("KRW", 1_000_000), ("BHD", 1_000)]
)
def test_a_currency_has_a_smallest_coin(currency: str, unit: int) -> None:
    assert unit == smallest_unit(currency)
    assert wrong_amounts(currency, unit, None, 7 * unit) is None
    for micros in (0, -unit, unit - 1, unit + 1, 10**15 * unit):
        refusal = wrong_amounts(currency, unit, micros)
        assert refusal is not None
        assert "invalid" == refusal.code


@given(st.integers(0, MICROS_MAX))
def test_there_and_back_is_exact_and_passes_through_json(micros: int) -> None:
    amount = whole_currency(micros)
    assert micros == exact_micros(amount)
    assert micros == exact_micros(msgspec.json.decode(dump(amount), type=Decimal))
    assert "e" not in dump(amount).decode().lower()


@given(st.integers(0, 10**15 - 1))
def test_an_amount_that_is_sent_survives_a_platforms_double(cents: int) -> None:
    amount = whole_currency(cents * 10_000)
    assert amount == Decimal(repr(float(amount)))


@pytest.mark.parametrize(
    ("billed", "micros"),
    [("12.34", 12_340_000), ("12.340000000000002", 12_340_000), ("0.0000004", 1), ("0", 0), ("1E+3", 1_000_000_000)],
)
def test_what_was_billed_is_never_made_smaller(billed: str, micros: int) -> None:
    assert micros == billed_micros(Decimal(billed))


@pytest.mark.parametrize("nonsense", ["NaN", "Infinity", "-1", "1E+999999", "99999999999999"])
def test_what_is_no_amount_is_none(nonsense: str) -> None:
    assert billed_micros(Decimal(nonsense)) is None
    assert exact_micros(Decimal(nonsense)) is None


def test_what_is_finer_than_a_micro_is_not_exact() -> None:
    assert exact_micros(Decimal("0.0000001")) is None
