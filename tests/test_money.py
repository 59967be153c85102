"""Money is exact, and what is not money says so."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import InvalidMoney
from kiki.money import ACCEPTED, MICROS, MICROS_MAX, format_micros, parse_micros


def _id(value: object) -> str:
    """A short name for a case: some inputs are megabytes, and some numbers Python refuses to print."""
    return ascii(value[:24])[1:-1] if isinstance(value, str) else type(value).__name__


@pytest.mark.parametrize(
    ("value", "micros"),
    [
        ("1", MICROS),
        ("100", 100 * MICROS),
        ("0.1", 100_000),
        ("0.000001", 1),
        ("12.340000", 12_340_000),
        ("0100", 100 * MICROS),
        ("9223372036854.775807", MICROS_MAX),
        (1, MICROS),
        (9_223_372_036_854, 9_223_372_036_854 * MICROS),
        (Decimal("0.1"), 100_000),
        (Decimal("1E+3"), 1000 * MICROS),
        (Decimal("1.5E-5"), 15),
        (Decimal("9223372036854.775807"), MICROS_MAX),
    ],
)
def test_an_amount_is_read_exactly(value: object, micros: int):
    assert parse_micros(value) == micros


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "is empty"),
        *[(text, "is not an amount") for text in ["NaN", "nan", "Inf", "Infinity", "1e400", "1e3", "1E-3", "abc", " "]],
        *[(text, "is not an amount") for text in ["+1", " 1", "1 ", "1\n", "1,000", "1_000", "1.", ".5", ".", "1.2.3"]],
        *[
            (text, "is not an amount")
            for text in ["0x10", "$5", "5 USD", "٣", "５", "1.５", "²", "\x00", "\ud800", "1.-5"]
        ],
        *[(text, "is not a positive amount") for text in ["-1", "-0.01", "-inf", "0", "0.0", "0.000000", "-0"]],
        *[(text, "too many decimals") for text in ["0.1234567", "1.0000000", "0.0000001"]],
        *[(text, "is too large") for text in ["9223372036854.775808", "9223372036855", "99999999999999", "9" * 10_000]],
        *[(text, "too many zeros") for text in ["0" * 14, "0" * 10_000 + "1", "00000000000000.5"]],
        ("x" * 10_000_000, "is not an amount"),
        *[(number, "is not a positive amount") for number in [0, -1, -(10**5000)]],
        *[(number, "is too large") for number in [9_223_372_036_855, 10**5000]],
        *[(Decimal(text), "is not an amount") for text in ["NaN", "sNaN", "Infinity", "-Infinity"]],
        *[(Decimal(text), "is not a positive amount") for text in ["0", "-0", "0E+999999", "0E-999999", "-1", "-0.5"]],
        *[(Decimal(text), "is too large") for text in ["1E+999999", "9223372036854.775808", "1E+13", "-1E+999999"]],
        *[(Decimal(text), "too many decimals") for text in ["1E-7", "1E-999999", "1.0000000"]],
        *[(value, "floats are not exact") for value in [1.0, 0.1, float("nan"), float("inf"), True, False, None, b"1"]],
        *[(value, "not an amount") for value in [Fraction(1, 2), [1], {}, 1j, object()]],
    ],
    ids=_id,
)
def test_what_is_not_money_is_refused(value: object, said: str):
    with pytest.raises(InvalidMoney, match=said) as caught:
        parse_micros(value)
    assert ACCEPTED in str(caught.value)
    assert len(str(caught.value)) < 300


def test_zero_is_money_only_where_it_is_asked_for():
    for value in ["0", "0.00", 0, Decimal(0), Decimal("0E+999999"), Decimal("-0")]:
        assert parse_micros(value, zero=True) == 0
    for value in ["-1", -1, Decimal(-1), "NaN", 0.0, False, ""]:
        with pytest.raises(InvalidMoney):
            parse_micros(value, zero=True)


@given(st.integers(1, MICROS_MAX))
def test_an_amount_comes_back_from_its_text(micros: int):
    text = format_micros(micros)
    assert parse_micros(text) == micros
    assert parse_micros(Decimal(text)) == micros
    assert len(text.partition(".")[2]) >= 2
    assert not text.partition(".")[2][2:].endswith("0")


@given(st.integers(-MICROS_MAX - 1, MICROS_MAX))
def test_the_text_is_the_amount_over_all_of_int64(micros: int):
    assert Fraction(format_micros(micros)) * MICROS == micros
    assert format_micros(-micros) == (
        format_micros(micros).removeprefix("-") if micros < 0 else "-" * (micros > 0) + format_micros(micros)
    )


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "0.00"),
        (1, "0.000001"),
        (100_000, "0.10"),
        (1_230_000, "1.23"),
        (1_234_500, "1.2345"),
        (10 * MICROS, "10.00"),
        (-1, "-0.000001"),
        (MICROS_MAX, "9223372036854.775807"),
        (-MICROS_MAX - 1, "-9223372036854.775808"),
    ],
)
def test_an_amount_has_two_decimals_and_no_more_than_it_needs(micros: int, text: str):
    assert format_micros(micros) == text


@given(st.integers(0, 10**14), st.none() | st.text("0123456789", min_size=1, max_size=8))
def test_texts_follow_a_model_in_fractions(whole: int, fraction: str | None):
    text = str(whole) if fraction is None else f"{whole}.{fraction}"
    micros = Fraction(text) * MICROS
    if len(fraction or "") <= 6 and 0 < micros <= MICROS_MAX:
        assert parse_micros(text) == micros
        assert parse_micros(Decimal(text)) == micros
    else:
        with pytest.raises(InvalidMoney):
            parse_micros(text)


@given(st.decimals(allow_nan=True, allow_infinity=True))
def test_decimals_follow_a_model_in_fractions(value: Decimal):
    try:
        micros = parse_micros(value)
    except InvalidMoney:
        exact = value.is_finite() and Fraction(value) * MICROS
        assert not exact or exact.denominator > 1 or not 0 < exact <= MICROS_MAX or value.as_tuple().exponent < -6
    else:
        assert micros == Fraction(value) * MICROS


@given(st.integers())
def test_whole_numbers_count_units(value: int):
    if 0 < value * MICROS <= MICROS_MAX:
        assert parse_micros(value) == value * MICROS
    else:
        with pytest.raises(InvalidMoney):
            parse_micros(value)


@given(st.floats() | st.booleans())
def test_no_float_is_money(value: object):
    with pytest.raises(InvalidMoney, match="floats are not exact"):
        parse_micros(value, zero=True)


@given(st.text() | st.binary() | st.none() | st.lists(st.integers()) | st.complex_numbers() | st.fractions())
def test_no_input_raises_anything_but_invalid_money(value: object):
    with suppress(InvalidMoney):
        assert 0 < parse_micros(value) <= MICROS_MAX
